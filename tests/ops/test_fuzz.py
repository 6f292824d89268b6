"""crop_resize on shapes, layouts, dtypes and boxes that hypothesis makes up, against the reference."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adafocus_ops import crop_resize
from adafocus_ops.examples.tensors import FLOATS, LAYOUTS, positions, random_images
from conftest import device_of, require_backend

quick = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
long = settings(quick, max_examples=5000)

sizes = st.integers(1, 9)
coordinates = st.one_of(
    st.floats(-15, 25, width=32),
    st.floats(width=32),  # NaN, infinities, subnormals, the largest numbers
    st.integers(-4, 12).map(float),
)


@st.composite
def calls(draw):
    dtype = draw(st.sampled_from((torch.uint8, *FLOATS)))
    lead = draw(st.lists(st.integers(0, 3), min_size=1, max_size=2))
    shape = (*lead, draw(st.sampled_from((1, 2, 3, 4, 5, 17))), draw(sizes), draw(st.one_of(sizes, st.just(60))))
    count = draw(st.integers(0, 5))
    boxes = draw(st.lists(st.tuples(*[coordinates] * 4), min_size=count, max_size=count))
    index = draw(st.lists(st.integers(-2, 9), min_size=count, max_size=count))
    affine = {"mean": draw(st.floats(-1, 1)), "std": draw(st.floats(0.1, 2))} if draw(st.booleans()) else {}
    kwargs = {
        "frame_index": torch.tensor(index, dtype=draw(st.sampled_from((torch.int32, torch.int64)))),
        "padding": draw(st.sampled_from(("zeros", "border"))),
        "out_dtype": draw(st.sampled_from((None, torch.uint8, *FLOATS))),
        "memory_format": draw(st.sampled_from((None, torch.contiguous_format, torch.channels_last))),
        **affine,
    }
    frames = random_images(shape, dtype, draw(st.sampled_from(LAYOUTS)), seed=draw(st.integers(0, 99)))
    out = (draw(sizes), draw(st.one_of(sizes, st.just(50))))
    upstream = draw(st.sampled_from(LAYOUTS))
    boxes = torch.tensor(boxes, dtype=torch.float64).to(draw(st.sampled_from((torch.float32, torch.float64))))
    return frames, boxes.view(count, 4), out, upstream, kwargs


def check(call, backend: str) -> None:
    """Values, and the gradients of both inputs, are those of the reference in float64, but for the rounding of
    positions in the call's own arithmetic."""
    frames, boxes, size, upstream_layout, kwargs = call

    def run(backend, device, boxes):
        leaf, image = boxes.to(device, copy=True).requires_grad_(), frames.detach().to(device)
        wanted = [leaf, image.requires_grad_()] if image.is_floating_point() else [leaf]
        index = kwargs["frame_index"].to(device)
        out = crop_resize(image, leaf, size, backend=backend, **kwargs | {"frame_index": index})
        if not out.requires_grad:
            return out.cpu(), ()
        upstream = random_images(tuple(out.shape), torch.float64, upstream_layout, seed=1).to(out)
        return out.detach().cpu(), [g.cpu() for g in torch.autograd.grad(out, wanted, upstream)]

    out, gradients = run(backend, device_of(backend), boxes)
    expected, expected_gradients = run("reference", "cpu", boxes.double())
    if out.numel():  # the stride of a dimension of one element means nothing
        assert [s for s, n in zip(out.stride(), out.shape, strict=True) if n > 1] == [
            s for s, n in zip(expected.stride(), out.shape, strict=True) if n > 1
        ]
    scale = 256.0 if frames.dtype == torch.uint8 else 4.0
    exact = torch.float64 in (boxes.dtype, frames.dtype)
    # Positions are rounded in proportion to the box, [K] pixels; beyond a pixel any value may be read.
    blur = 8 * torch.finfo(torch.float64 if exact else torch.float32).eps * boxes.double().abs().nan_to_num(0).sum(1)
    tame = blur < (1e-6 if exact else 1e-3)
    assert torch.equal(out.isnan(), expected.isnan())
    if out.dtype == torch.uint8:
        assert not ((out.int() - expected.int()).abs() > 1 + blur.view(-1, 1, 1, 1) * scale)[tame].any()
    else:
        resolution = max(torch.finfo(out.dtype).eps, 1e-12 if exact else 1e-6)
        bound = resolution * (expected.double().abs() + scale) + blur.view(-1, 1, 1, 1) * scale
        error = (out.double() - expected.double()).abs()
        assert not (error > bound)[tame].any()
    for g, e in zip(gradients[1:], expected_gradients[1:], strict=True):
        assert g.isfinite().all()
        if tame.all() and len(boxes):
            eps = max(torch.finfo(g.dtype).eps, 1e-12 if exact else 1e-7)
            torch.testing.assert_close(g, e, rtol=2 * eps, atol=200 * max(eps, blur.max().item()))
    if gradients:
        sure = tame & ~_samples_on_pixels(boxes.double(), size, margin=1e-6 + 2 * blur[:, None])
        g, e = gradients[0].double(), expected_gradients[0]
        assert g.isfinite().all()
        tolerance = 1e-5 if exact else 1e-3
        torch.testing.assert_close(g[sure], e[sure], rtol=tolerance, atol=tolerance * scale)


def _samples_on_pixels(boxes: torch.Tensor, size: tuple[int, int], margin: torch.Tensor) -> torch.Tensor:
    """[K]: boxes with a sample within rounding of a pixel, where two backends may take different sides."""
    found = torch.zeros(len(boxes), dtype=torch.bool)
    for axis, count in enumerate(size):
        at = positions(boxes[:, axis], boxes[:, 2 + axis], count)
        found |= ((at - at.round()).abs() < margin).any(1)
    return found


BACKENDS = ("cpu", "triton", "cuda-host", "cuda")


@pytest.mark.parametrize("backend", BACKENDS)
@quick
@given(call=calls())
def test_made_up_calls_match_the_reference(request, backend, call):
    require_backend(request, "crop_resize", backend, device_of(backend))
    check(call, backend)


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
@long
@given(call=calls())
def test_many_made_up_calls_match_the_reference(request, backend, call):
    require_backend(request, "crop_resize", backend, device_of(backend))
    check(call, backend)

"""crop_resize: any value is defined, the same everywhere."""

import pytest
import torch

from adafocus_ops import crop_resize
from adafocus_ops.examples.tensors import FLOATS, random_images
from conftest import is_emulated

pytestmark = pytest.mark.usefixtures("crop_resize_runs")

FRAME_DTYPES = (torch.uint8, *FLOATS)


HOSTILE = {
    "NaN": (float("nan"), 5, 6, 6),
    "infinite size": (5, 5, float("inf"), 6),
    "minus infinite centre": (5, float("-inf"), 6, 6),
    "huge size": (5, 5, 1e30, 1e30),
    "largest size": (3e38, 5, 3e38, 6),
    "huge centre": (1e30, -1e30, 6, 6),
    "zero size": (5.2, 5.3, 0, 0),
    "negative size": (5.2, 5.3, -6, -7),
    "tiny size": (5.2, 5.3, 1e-30, 1e-30),
    "far outside": (-500, 700, 6, 6),
}
NOT_FINITE = ("NaN", "infinite size", "minus infinite centre")


@pytest.mark.parametrize("padding", ["zeros", "border"])
@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("dtype", FRAME_DTYPES, ids=str)
def test_hostile_boxes_are_defined_in_forward_and_backward(dtype, name, padding, backend, device):
    frames = random_images((2, 3, 12, 14), dtype, "contiguous").to(device)
    good = (6.2, 7.3, 5.1, 6.2)
    boxes = torch.tensor([HOSTILE[name], good], device=device)

    def run(backend):
        leaf = boxes.clone().requires_grad_()
        image = frames.clone()
        wanted = [leaf, image.requires_grad_()] if image.is_floating_point() else [leaf]
        out = crop_resize(image, leaf, (4, 5), padding=padding, backend=backend)
        return out.detach(), torch.autograd.grad(out, wanted, torch.ones_like(out))

    out, gradients = run(backend)
    if name in NOT_FINITE:
        assert out[0].isnan().all()
        assert not gradients[0][0].any()
        if dtype.is_floating_point:
            assert not gradients[1][0].any()
    else:
        assert out[0].isfinite().all()
    assert out[1].isfinite().all()
    assert all(g.isfinite().all() for g in gradients)
    expected, expected_gradients = run("reference")
    # Positions of up to 20 pixels carry a rounding error of 1e-6, on frames with steps of 255.
    scale = 255.0 if dtype == torch.uint8 else 1.0
    torch.testing.assert_close(out / scale, expected / scale, equal_nan=True)
    for g, e in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(g, e, rtol=1e-2 if g.dtype in FLOATS[:2] else 1e-4, atol=1e-3)


@pytest.mark.parametrize("index", [-1, 2, 2**40, -(2**62)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8], ids=str)
def test_an_index_out_of_range_gives_nan_and_no_gradient(dtype, index, backend, device):
    frames = random_images((2, 3, 12, 14), dtype, "contiguous").to(device)
    boxes = torch.tensor([[6.0, 7.0, 5.0, 6.0]] * 2, device=device, requires_grad=True)
    out = crop_resize(frames, boxes, 4, frame_index=torch.tensor([index, 1], device=device), backend=backend)
    assert out[0].isnan().all()
    assert out[1].isfinite().all()
    out.sum().backward()
    assert not boxes.grad[0].any()
    as_bytes = crop_resize(
        frames, boxes, 4, frame_index=torch.tensor([index, 1], device=device), out_dtype=torch.uint8, backend=backend
    )
    assert not as_bytes[0].any()


@pytest.mark.parametrize("dtype", FRAME_DTYPES, ids=str)
def test_random_hostile_boxes(dtype, backend, device):
    """Neither crash nor disagree with the formula about which patches are NaN; run under the sanitizers too."""
    if backend == "reference":
        pytest.skip("the reference takes minutes for 100 000 boxes and is what the others are compared with")
    generator = torch.Generator().manual_seed(int(dtype.itemsize))
    count = 100 if is_emulated(backend) else 100_000
    exponent = torch.randint(-40, 39, (count, 4), generator=generator).double()
    boxes = (torch.randn(count, 4, generator=generator).double() * 10.0**exponent).float()
    sane = torch.rand(count, 4, generator=generator) * 20 - 4
    boxes = torch.where(torch.rand(count, 4, generator=generator) < 0.6, sane, boxes)
    special = torch.tensor([float("nan"), float("inf"), float("-inf"), 1e30, 0.0, -0.0, 3.4e38, -3.4e38, -1.0, 1e-45])
    where = torch.rand(count, 4, generator=generator) < 0.1
    boxes = torch.where(where, special[torch.randint(len(special), (count, 4), generator=generator)], boxes)
    index = torch.randint(-2, 6, (count,), generator=generator)
    index = torch.where(torch.rand(count, generator=generator) < 0.05, index * 2**33, index)
    valid = boxes.isfinite().all(1) & (index >= 0) & (index < 4)
    assert 0.1 < valid.float().mean() < 0.9

    frames = random_images((4, 3, 6, 9), dtype, "contiguous").to(device)
    boxes, index = boxes.to(device), index.to(device)
    for padding in ("zeros", "border"):
        leaf = boxes.clone().requires_grad_()
        image = frames.clone()
        wanted = [leaf, image.requires_grad_()] if image.is_floating_point() else [leaf]
        out = crop_resize(image, leaf, (3, 2), frame_index=index, padding=padding, backend=backend)
        assert torch.equal(out.detach().isfinite().flatten(1).all(1).cpu(), valid)
        assert torch.equal(out.detach().isnan().flatten(1).all(1).cpu(), ~valid)
        gradients = torch.autograd.grad(out, wanted, torch.ones_like(out))
        assert not gradients[0][~valid].any()
        assert not gradients[0].isnan().any()


def test_values_outside_the_box_do_not_reach_the_patch(backend, device):
    frames = torch.full((1, 1, 10, 10), float("nan"), device=device)
    frames[..., 3:7, 3:7] = 1.0
    out = crop_resize(frames, torch.tensor([[5.0, 5.0, 3.0, 3.0]], device=device), 4, backend=backend)
    assert (out == 1).all()
    frames = torch.full((1, 1, 4, 4), float("inf"), device=device)
    outside = crop_resize(frames, torch.tensor([[20.0, 20.0, 3.0, 3.0]], device=device), 4, backend=backend)
    assert not outside.any()

"""crop_mean: the mean of each crop, without the crops."""

import pytest
import torch

import adafocus_ops
from adafocus_ops import crop_mean, crop_resize
from adafocus_ops.examples.tensors import FLOATS, IMAGENET, random_images, smooth_boxes
from conftest import device_of, require_backend


@pytest.fixture(autouse=True)
def usable(request, backend):
    require_backend(request, "crop_mean", backend, device_of(backend))


@pytest.mark.parametrize("padding", ["zeros", "border"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("size", "out"), [(7, 3), (7, 4), (5, 3), (40, 16)])
def test_equals_the_mean_of_the_crops(size, out, dtype, padding, backend, device):
    frames = random_images((2, 3, size, size), dtype, "channels_last").to(device)
    boxes = smooth_boxes(5, (out, out), (size, size), seed=out).to(device)
    kwargs = {"frame_index": torch.tensor([1, 0, 1, 1, 0], device=device), "padding": padding, **IMAGENET}
    got = crop_mean(frames, boxes, out, backend=backend, **kwargs)
    expected = crop_resize(frames, boxes, out, backend="reference", out_dtype=torch.float64, **kwargs).mean((-2, -1))
    assert got.dtype == (dtype if dtype.is_floating_point else torch.float32)
    torch.testing.assert_close(got.double(), expected, rtol=0, atol=40 * torch.finfo(got.dtype).eps)


def test_a_box_on_the_feature_map_of_the_published_model(backend, device):
    """Eqs. 13 and 14 of the paper: boxes of a policy on a 7 x 7 map, and a gradient to the boxes alone."""
    maps = random_images((4, 1280, 7, 7), torch.float32, "channels_last").to(device)
    action = torch.rand(4, 4, generator=torch.Generator().manual_seed(0)).to(device).requires_grad_()
    boxes = adafocus_ops.boxes.from_action(action, (7, 7), 3.0, 7.0)
    pooled = crop_mean(maps, boxes, 3, backend=backend)
    expected = crop_resize(maps, boxes, 3, backend="reference").mean((-2, -1))
    torch.testing.assert_close(pooled, expected, rtol=1e-5, atol=1e-6)
    (got,) = torch.autograd.grad(pooled.square().sum(), action, retain_graph=True)
    torch.testing.assert_close(got, torch.autograd.grad(expected.square().sum(), action)[0], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_hostile_boxes_are_defined(dtype, backend, device):
    nan, inf = float("nan"), float("inf")
    boxes = [[nan, 4, 4, 4], [4, inf, 4, 4], [4, 4, 4, 4], [4, 4, 4, 4], [1e30, 4, 4, 4], [4, 4, 3e38, -3e38]]
    boxes += [[4, 4, 0, 0], [4, 4, -6, 1e-45], [-50, 4, 3, 3]]
    index = torch.tensor([0, 0, -1, 2**40, 0, 0, 0, 0, 0], device=device)
    frames = random_images((1, 3, 9, 11), dtype, "contiguous").to(device)
    for padding in ("zeros", "border"):
        leaf, image = torch.tensor(boxes, device=device).requires_grad_(), frames.clone().requires_grad_()
        out = crop_mean(image, leaf, (3, 2), frame_index=index, padding=padding, backend=backend)
        assert out[:4].isnan().all()
        assert out[4:].isfinite().all()
        d_frames, d_boxes = torch.autograd.grad(out, [image, leaf], torch.ones_like(out))
        assert d_frames.isfinite().all()
        assert d_boxes.isfinite().all()
        assert not d_boxes[:4].any()


def test_values_that_no_output_reads_do_not_matter(backend, device):
    frames = torch.full((1, 2, 30, 30), float("nan"), device=device)
    boxes = torch.tensor([[15.0, 15.0, 20.0, 20.0]], device=device)
    for centre in (10, 20):  # 2 x 2 samples, between four pixels each
        frames[..., centre - 1 : centre + 1, 9:11] = frames[..., centre - 1 : centre + 1, 19:21] = 2
    out = crop_mean(frames, boxes, 2, backend=backend)
    torch.testing.assert_close(out, torch.full_like(out, 2))


VIEWS = {
    "planes": lambda maps: maps,
    "pixels": lambda maps: maps.contiguous(memory_format=torch.channels_last),
    "part of larger planes": lambda maps: torch.nn.functional.pad(maps, (1, 2, 2, 1))[..., 2:-1, 1:-2],
    "every other channel of pixels": lambda maps: maps.repeat_interleave(2, 1).contiguous(
        memory_format=torch.channels_last
    )[:, ::2],
    "every other column": lambda maps: maps.repeat_interleave(2, 3)[..., ::2],
}


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize(("size", "out"), [(7, 3), (12, 5), (30, 20), (40, 3)])
def test_maps_of_many_channels(size, out, view, dtype, backend, device):
    """Kernels may sum the channels of a pixel or the pixels of a channel, of one scanline or of a small plane: the
    same values, and the same NaN, whatever the strides. A map has NaN wherever no box reads it."""
    boxes = smooth_boxes(3, (out, out), (size, size), seed=size).double()
    maps = random_images((3, 70, size, size), dtype, "contiguous")
    if dtype.is_floating_point:
        read = torch.zeros(3, 1, size, size, dtype=torch.float64, requires_grad=True)
        crop_mean(read, boxes, out, backend="reference").sum().backward()
        maps = maps.masked_fill(read.grad == 0, float("nan"))
    clean, up = maps.double().nan_to_num(), (torch.arange(3 * 70) % 9 - 4).view(3, 70)  # exact in every dtype
    results = []
    for image, backend_of in ((VIEWS[view](maps.to(device)), backend), (clean, "reference")):
        leaf = boxes.to(image.device, torch.float64 if image.dtype == torch.float64 else torch.float32).requires_grad_()
        means = crop_mean(image, leaf, out, backend=backend_of)
        results.append((means, torch.autograd.grad(means, leaf, up.to(means))[0]))
    (means, d_boxes), (exact, d_exact) = results
    eps = torch.finfo(means.dtype).eps
    torch.testing.assert_close(means.cpu().double(), exact.detach(), rtol=0, atol=20 * eps * exact.abs().max().item())
    eps = torch.finfo(d_boxes.dtype).eps
    scale = maps.double().nan_to_num().abs().max().item() * 70
    torch.testing.assert_close(d_boxes.cpu().double(), d_exact, rtol=0, atol=40 * eps * scale)


def test_no_boxes_and_no_frames(backend, device):
    none = torch.zeros(0, 4, device=device)
    assert crop_mean(torch.zeros(0, 3, 8, 8, device=device), none, 2, backend=backend).shape == (0, 3)
    index = torch.zeros(2, dtype=torch.int64, device=device)
    empty = crop_mean(
        torch.zeros(0, 3, 8, 8, device=device), torch.ones(2, 4, device=device), 2, frame_index=index, backend=backend
    )
    assert empty.isnan().all()
    image = torch.zeros(2, 3, 8, 8, device=device, requires_grad=True)
    out = crop_mean(image, none, 2, frame_index=index[:0], backend=backend)
    (gradient,) = torch.autograd.grad(out.sum(), image)
    assert not gradient.any()


def test_frames_wider_than_the_tables_of_weights(backend, device):
    """A kernel may keep the weights of an axis at hand up to some length; beyond it nothing may change."""
    frames = random_images((1, 3, 3, 3000), torch.float32, "contiguous").to(device)
    boxes = torch.tensor([[1.4, 1499.7, 2.1, 2987.3]], device=device, requires_grad=True)
    got = crop_mean(frames, boxes, (2, 4000), backend=backend)
    expected = crop_mean(frames, boxes, (2, 4000), backend="reference")
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    gradients = [torch.autograd.grad(out.sum(), boxes)[0] for out in (got, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-2, atol=1e-3)

"""crop_resize with antialias=True: the box is cut out, and the cut is resized as torchvision and PIL resize."""

import pytest
import torch
import torch.nn.functional as F

from adafocus_ops import crop_resize
from adafocus_ops.examples.tensors import FLOATS, corners, random_images, smooth_boxes

pytestmark = pytest.mark.usefixtures("crop_resize_runs")


def whole_box(top: int, left: int, height: int, width: int) -> torch.Tensor:
    return torch.tensor([[top + height / 2, left + width / 2, height, width]])


# (top, left, height, width) of a slice, and the size that it is resized to.
SLICES = {
    "whole frame": ((0, 0, 40, 50), (7, 9)),
    "inside": ((3, 5, 30, 21), (8, 6)),
    "by whole factors": ((4, 2, 24, 36), (8, 12)),
    "upscaled": ((4, 4, 10, 9), (16, 20)),
    "one axis each way": ((4, 4, 30, 5), (6, 11)),
    "one pixel": ((2, 3, 1, 1), (3, 3)),
    "to one pixel": ((2, 3, 20, 30), (1, 1)),
    "same size": ((2, 3, 9, 8), (9, 8)),
}


@pytest.mark.parametrize("padding", ["zeros", "border"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", SLICES)
def test_whole_pixels_equal_the_antialiased_resize_of_the_slice(name, dtype, padding, backend, device):
    (top, left, height, width), size = SLICES[name]
    frames = random_images((1, 3, 40, 50), dtype, "contiguous")
    box = whole_box(top, left, height, width).to(dtype)
    out = crop_resize(frames.to(device), box.to(device), size, antialias=True, padding=padding, backend=backend)
    cut = frames[..., top : top + height, left : left + width]
    expected = F.interpolate(cut.double(), size, mode="bilinear", antialias=True)
    torch.testing.assert_close(out.cpu().double(), expected, rtol=0, atol=40 * torch.finfo(dtype).eps)


@pytest.mark.parametrize(("padding", "mode"), [("zeros", "constant"), ("border", "replicate")])
def test_what_lies_outside_is_padded_before_the_cut(padding, mode, backend, device):
    frames = random_images((1, 2, 12, 15), torch.float64, "contiguous")
    wide = F.pad(frames, (40,) * 4, mode=mode)
    for box in ([-1.3, 6.2, 20.1, 17.7], [6, 7, 55.5, 60.0], [13, 16, 13.4, 9.5], [6, 7, -11.3, 8.0], [6, 7, 0.3, 0.0]):
        boxes = torch.tensor([box], dtype=torch.float64)
        moved = boxes + torch.tensor([40.0, 40.0, 0.0, 0.0])
        kwargs = {"antialias": True, "backend": backend}
        got = crop_resize(frames.to(device), boxes.to(device), (4, 5), padding=padding, **kwargs)
        expected = crop_resize(wide.to(device), moved.to(device), (4, 5), **kwargs)
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


def test_zeros_outside_are_zero_after_normalisation(backend, device):
    frames = torch.full((1, 1, 8, 8), 255, dtype=torch.uint8, device=device)
    boxes = torch.tensor([[0.0, 4.0, 16.0, 8.0]], device=device)  # its upper half lies outside
    out = crop_resize(frames, boxes, (4, 2), antialias=True, mean=0.5, std=0.25, backend=backend)
    rows = out[0, 0].mean(1).cpu()
    assert rows[0] == 0  # not (0 - 0.5) / 0.25
    torch.testing.assert_close(rows[3], torch.tensor(2.0))
    assert 0 < rows[1] < rows[2] < 2.0  # the triangle reaches over the frame's edge


def test_turning_it_on_changes_nothing_but_the_ends_where_nothing_is_downscaled(backend, device):
    frames = random_images((1, 3, 20, 20), torch.float64, "contiguous").to(device)
    boxes = torch.tensor([[10.2, 9.7, 8.3, 9.1]], dtype=torch.float64, device=device)
    plain, antialiased = (crop_resize(frames, boxes, 24, antialias=flag, backend=backend) for flag in (False, True))
    torch.testing.assert_close(antialiased[..., 4:-4, 4:-4], plain[..., 4:-4, 4:-4])
    assert not torch.allclose(antialiased[..., 0, :], plain[..., 0, :])


def around_the_frame(out: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Six frames and boxes in float64: some partly outside, one mirrored, one much smaller than a pixel."""
    boxes = smooth_boxes(4, out, (9, 10), seed=3, reach=0.5, kinks=corners)
    boxes = torch.cat([boxes, torch.tensor([[4.31, 5.23, -7.1, 8.3], [5.17, 4.39, 0.4, -0.3]])])
    return random_images((6, 2, 9, 10), torch.float64, "contiguous"), boxes.double()


sizes_around_the_frame = pytest.mark.parametrize("out", [(3, 4), (1, 1), (14, 2)], ids=str)


@pytest.mark.slow_if_interpreted("the next test holds the gradients to those of the reference")
@pytest.mark.parametrize("padding", ["zeros", "border"])
@sizes_around_the_frame
def test_gradcheck_around_the_frame(out, padding, backend, device):
    inputs = [tensor.to(device).requires_grad_() for tensor in around_the_frame(out)]
    crop = lambda f, b: crop_resize(f, b, out, antialias=True, padding=padding, backend=backend)  # noqa: E731
    assert torch.autograd.gradcheck(crop, inputs, eps=1e-5, fast_mode=True)


@pytest.mark.parametrize("padding", ["zeros", "border"])
@sizes_around_the_frame
def test_gradients_around_the_frame_are_those_of_the_reference(out, padding, backend, device):
    def gradients(backend, device):
        inputs = [tensor.to(device).requires_grad_() for tensor in around_the_frame(out)]
        patches = crop_resize(*inputs, out, antialias=True, padding=padding, backend=backend)
        upstream = random_images(tuple(patches.shape), torch.float64, "contiguous", seed=1).to(device)
        return [gradient.cpu() for gradient in torch.autograd.grad(patches, inputs, upstream)]

    for got, expected in zip(gradients(backend, device), gradients("reference", "cpu"), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("size", "out"), [(9, 3), (15, 5), (15, 3), (7, 1), (5, 5)])
def test_a_constant_frame_has_no_gradient_in_the_box(size, out, backend, device):
    """Also where outputs lie exactly on the centres of pixels: such a pixel is on one side of the peak, not on both."""
    boxes = whole_box(4, 3, size, size).to(device).requires_grad_()
    frames = torch.ones(1, 2, 24, 26, device=device)
    crop_resize(frames, boxes, out, antialias=True, backend=backend).sum().backward()
    torch.testing.assert_close(boxes.grad, torch.zeros_like(boxes), rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_hostile_boxes_are_defined(dtype, backend, device):
    nan, inf = float("nan"), float("inf")
    bad = [[nan, 4, 4, 4], [4, inf, 4, 4], [4, 4, -inf, 4]]
    odd = [[1e30, 4, 4, 4], [4, 4, 1e30, 4], [4, 4, 3e38, -3e38], [3e38, -3e38, 3e38, 3e38], [4, 4, 0, 0]]
    odd += [[4, 4, -6, 1e-45], [1e9, 4, 2e9, 4], [-500, 4, 3, 3], [4, 4, 1e5, 1e5]]
    boxes = torch.tensor(bad + odd, device=device)
    frames = random_images((1, 3, 9, 11), dtype, "contiguous").to(device)
    index = torch.zeros(len(boxes), dtype=torch.int64, device=device)
    for padding in ("zeros", "border"):
        leaf, image = boxes.clone().requires_grad_(), frames.clone().requires_grad_()
        out = crop_resize(image, leaf, (3, 2), frame_index=index, antialias=True, padding=padding, backend=backend)
        assert out[: len(bad)].isnan().all()
        assert out[len(bad) :].isfinite().all()
        d_frames, d_boxes = torch.autograd.grad(out, [image, leaf], torch.ones_like(out))
        assert d_frames.isfinite().all()
        assert d_boxes.isfinite().all()
        assert not d_boxes[: len(bad)].any()


def test_values_outside_the_box_do_not_reach_the_patch(backend, device):
    frames = torch.full((1, 1, 12, 12), float("nan"), device=device)
    frames[..., 3:9, 2:10] = 1
    boxes = torch.tensor([[6.0, 6.0, 6.0, 8.0]], device=device, requires_grad=True)
    out = crop_resize(frames, boxes, 3, antialias=True, backend=backend)
    torch.testing.assert_close(out, torch.ones_like(out))
    (gradient,) = torch.autograd.grad(out.sum(), boxes)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-5)

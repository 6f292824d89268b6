"""crop_resize: shapes, layouts and dtypes, and what users of comparable ops stumbled over."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from adafocus_ops import crop_resize
from adafocus_ops.examples.tensors import FLOATS, IMAGENET, LAYOUTS, random_images, smooth_boxes
from conftest import is_emulated

pytestmark = pytest.mark.usefixtures("crop_resize_runs")

FRAME_DTYPES = (torch.uint8, *FLOATS)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_boxes_and_no_frames(layout, backend, device):
    frames = random_images((2, 3, 8, 9), torch.float32, layout).to(device).requires_grad_()
    boxes = torch.empty(0, 4, device=device, requires_grad=True)
    none = torch.empty(0, dtype=torch.int64, device=device)
    out = crop_resize(frames, boxes, 5, frame_index=none, backend=backend)
    assert out.shape == (0, 3, 5, 5)
    out.sum().backward()
    assert boxes.grad.shape == (0, 4)
    assert not frames.grad.any()
    assert crop_resize(frames[:0], boxes, 5, backend=backend).shape == (0, 3, 5, 5)
    lost = crop_resize(frames[:0], torch.ones(2, 4, device=device), 5, frame_index=none.new_zeros(2), backend=backend)
    assert lost.isnan().all()
    empty = crop_resize(frames[..., :0], torch.ones(2, 4, device=device), 5, backend=backend)
    assert empty.isnan().all()


@pytest.mark.parametrize("memory_format", [None, torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_memory_format_of_the_output(layout, memory_format, backend, device):
    frames = random_images((2, 3, 8, 9), torch.float32, layout).to(device)
    boxes = torch.tensor([[4.0, 4.0, 5.0, 5.0]] * 2, device=device)
    out = crop_resize(frames, boxes, (4, 6), memory_format=memory_format, backend=backend)
    wanted = memory_format or (torch.channels_last if layout == "channels_last" else torch.contiguous_format)
    assert out.is_contiguous(memory_format=wanted)
    plain = crop_resize(frames.contiguous(), boxes, (4, 6), backend=backend)
    torch.testing.assert_close(out, plain)
    if wanted == torch.channels_last:  # two crops are one channels_last_3d video, without a copy
        video = out.unflatten(0, (1, 2)).transpose(1, 2)
        assert video.is_contiguous(memory_format=torch.channels_last_3d)
        assert video.data_ptr() == out.data_ptr()


@pytest.mark.parametrize("out_dtype", FRAME_DTYPES, ids=str)
@pytest.mark.parametrize("dtype", FRAME_DTYPES, ids=str)
def test_every_dtype_to_every_dtype(dtype, out_dtype, backend, device):
    frames = random_images((2, 3, 9, 8), dtype, "contiguous").to(device)
    frames = frames * 40 + 100 if dtype.is_floating_point else frames
    boxes = smooth_boxes(2, (4, 5), (9, 8), seed=3, reach=0.0).float().to(device)
    exact = crop_resize(frames.double(), boxes.double(), (4, 5), backend="reference")
    got = crop_resize(frames, boxes, (4, 5), out_dtype=out_dtype, backend=backend)
    assert got.dtype == out_dtype
    if out_dtype == torch.uint8:
        assert (got.double() - exact.clamp(0, 255)).abs().max() <= 0.5 + 1e-4
    else:
        torch.testing.assert_close(got.double(), exact, rtol=max(torch.finfo(out_dtype).eps, 1e-5), atol=1e-4)
    default = crop_resize(frames, boxes, (4, 5), backend=backend)
    assert default.dtype == (dtype if dtype.is_floating_point else torch.float32)


def test_integer_output_saturates_and_rounds_half_to_even(backend, device):
    frames = torch.tensor([-5.0, 0.5, 1.5, 2.5, 254.5, 300.0, 1e30, -1e30], device=device)
    boxes = torch.tensor([[0.5, 0.5, 1.0, 1.0]], device=device).expand(8, 4)
    for dtype in (torch.float32, torch.float64):
        images = frames.to(dtype).view(8, 1, 1, 1)
        out = crop_resize(images, boxes, 1, out_dtype=torch.uint8, padding="border", backend=backend)
        assert out.flatten().tolist() == [0, 0, 2, 2, 254, 255, 255, 0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_types_survive_extreme_values(dtype, backend, device):
    """Subnormals, the largest numbers, infinity and NaN come through an identity crop unchanged."""
    limits = torch.finfo(dtype)
    values = [0.0, -0.0, limits.tiny, limits.smallest_normal / 4, limits.max, limits.min, 1 + limits.eps, -3.0]
    frames = torch.tensor([*values, float("inf"), float("-inf"), float("nan")], dtype=dtype, device=device)
    count = len(frames)
    boxes = torch.tensor([[0.5, 0.5, 1.0, 1.0]], device=device).expand(count, 4)
    out = crop_resize(frames.view(count, 1, 1, 1), boxes, 1, backend=backend).flatten()
    finite = frames.isfinite()
    assert torch.equal(out[finite], frames[finite])
    # Zero padding: the neighbours outside count nothing, so that infinity stays infinity.
    assert torch.equal(out[~finite].isnan(), frames[~finite].isnan())
    assert torch.equal(out.isinf(), frames.isinf())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("width", [192, 2000])
def test_coordinates_of_half_frames_are_float32(dtype, width, backend, device):
    frames = random_images((1, 3, 20, width), dtype, "contiguous").to(device)
    boxes = smooth_boxes(1, (8, 112), (20, width), seed=width, reach=0.0).float().to(device)
    exact = crop_resize(frames.double(), boxes.double(), (8, 112), backend="reference")
    got = crop_resize(frames, boxes, (8, 112), backend=backend).double()
    assert (got - exact).abs().max() <= 0.51 * torch.finfo(dtype).eps * exact.abs().max() + 1e-3 * width / 1000


@pytest.mark.parametrize("out_dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_uint8_normalised_equals_the_float_path(out_dtype, backend, device):
    frames = random_images((4, 3, 60, 50), torch.uint8, "channels_last").to(device)
    boxes = smooth_boxes(4, (24, 20), (60, 50), seed=5).float().to(device)
    got = crop_resize(frames, boxes, (24, 20), out_dtype=out_dtype, backend=backend, **IMAGENET)
    mean, std = (torch.tensor(IMAGENET[k], device=device).view(3, 1, 1) for k in ("mean", "std"))
    normalised = (frames.float() / 255 - mean) / std
    expected = crop_resize(normalised, boxes, (24, 20), out_dtype=out_dtype, backend=backend)
    scale = expected.abs().max().item()
    # One unit of the output's type, and the rounding of (x / 255 - mean) / std near zero.
    torch.testing.assert_close(got, expected, rtol=torch.finfo(out_dtype).eps, atol=4e-7 * scale)


def test_constant_mean_and_std_survive_every_mode(backend, device):
    """They are kept on the device; a tensor made under a transform, inference or fake mode may not be."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    frames = torch.rand(1, 3, 8, 8, device=device)
    boxes = torch.tensor([[4.0, 4.0, 5.0, 6.0]], device=device)

    def run(boxes, mean):
        return crop_resize(frames, boxes, 4, mean=mean, std=[1, 2, 3], backend=backend).square().sum()

    def in_inference_mode(boxes, mean):
        with torch.inference_mode():
            run(boxes, mean)

    def in_fake_mode(boxes, mean):
        with FakeTensorMode() as mode:
            crop_resize(mode.from_tensor(frames), mode.from_tensor(boxes), 4, mean=mean, std=[1, 2, 3], backend=backend)

    for number, first in enumerate((torch.func.grad(run), in_inference_mode, in_fake_mode)):
        mean = 0.125 * number + 0.0625
        first(boxes, mean)
        for _ in range(2):
            leaf = boxes.clone().requires_grad_()
            run(leaf, mean).backward()
            assert leaf.grad.isfinite().all()


def test_zero_padding_is_zero_after_normalisation(backend, device):
    frames = torch.full((1, 3, 8, 8), 255, dtype=torch.uint8, device=device)
    out = crop_resize(frames, torch.tensor([[50.0, 50.0, 4.0, 4.0]], device=device), 4, backend=backend, **IMAGENET)
    assert not out.any()


def test_mean_and_std_in_every_form(backend, device):
    frames = random_images((1, 3, 8, 8), torch.float32, "contiguous").to(device)
    boxes = torch.tensor([[4.0, 4.0, 5.0, 6.0]], device=device)

    def run(**kwargs):
        return crop_resize(frames, boxes, 4, backend=backend, **kwargs)

    assert torch.equal(run(mean=0.5, std=2.0), run(mean=(0.5,) * 3, std=torch.full((3,), 2.0)))
    torch.testing.assert_close(run(mean=0.5), run() - 0.5)
    torch.testing.assert_close(run(std=2.0), run() / 2)


@pytest.mark.parametrize(
    "view",
    {
        "sliced in time": lambda v: v[:, ::3],
        "every second row and column": lambda v: v[..., ::2, 1::2],
        "expanded": lambda v: v[:1].expand(4, *v.shape[1:]),
        "transposed batch": lambda v: v.transpose(0, 1),
        "transposed frame": lambda v: v.transpose(-1, -2),
        "three of four channels": lambda v: v[..., :3, :, :],
        "flipped channels kept apart": lambda v: v[..., 1:, :, :],
    }.items(),
    ids=lambda item: item[0],
)
def test_views_are_read_in_place(view, backend, device):
    video = random_images((2, 7, 4, 12, 13), torch.float32, "contiguous").to(device)
    for base in (video, video.movedim(2, -1).contiguous().movedim(-1, 2)):
        frames = view[1](base)
        count = frames.shape[:-3].numel()
        boxes = smooth_boxes(count, (5, 4), tuple(frames.shape[-2:]), seed=1).float().to(device)
        got = crop_resize(frames, boxes, (5, 4), memory_format=torch.contiguous_format, backend=backend)
        dense = frames.contiguous()
        torch.testing.assert_close(got, crop_resize(dense, boxes, (5, 4), backend=backend))


def test_a_view_of_many_frames_is_not_copied(backend, device):
    """Cropping one frame of a large sliced video allocates nothing of the video's size."""
    if backend != "cpu":
        pytest.skip("the reference may copy; device memory is measured by the GPU checks")
    video = torch.zeros(4, 64, 3, 128, 128, dtype=torch.uint8)[:, ::2].transpose(0, 1)
    boxes = torch.tensor([[60.0, 60.0, 50.0, 50.0]])
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        crop_resize(video, boxes, 16, frame_index=torch.tensor([77]), backend=backend)
    allocated = sum(max(event.self_cpu_memory_usage, 0) for event in profile.key_averages())
    assert allocated < 64 * 1024


def test_autocast_keeps_the_frames_dtype(backend, device):
    frames = torch.rand(2, 3, 12, 12, device=device, requires_grad=True)
    boxes = torch.tensor([[6.0, 6.0, 7.0, 7.0]] * 2, device=device, requires_grad=True)
    with torch.autocast(device, dtype=torch.bfloat16):
        weight = torch.eye(3, device=device).view(3, 3, 1, 1)
        features = F.conv2d(frames, weight)
        out = crop_resize(features, boxes, 4, backend=backend)
        assert features.dtype == out.dtype == torch.bfloat16
        (out.float().square().sum()).backward()
    assert frames.grad.dtype == boxes.grad.dtype == torch.float32
    assert frames.grad.abs().sum() > 0
    assert boxes.grad.abs().sum() > 0


def test_backward_inside_autocast_is_the_same(backend, device):
    frames = torch.rand(2, 3, 12, 12, device=device, requires_grad=True)
    boxes = torch.tensor([[6.0, 6.0, 7.0, 7.0]] * 2, device=device, requires_grad=True)

    def gradients():
        out = crop_resize(frames, boxes, 4, backend=backend)
        return torch.autograd.grad(out, [frames, boxes], torch.linspace(0, 1, out.numel(), device=device).view_as(out))

    plain = gradients()
    with torch.autocast(device, dtype=torch.bfloat16):
        assert all(map(torch.equal, plain, gradients()))


def test_one_infinite_gradient_stays_in_its_pixels(backend, device):
    frames = torch.rand(2, 1, 8, 8, device=device, requires_grad=True)
    boxes = torch.tensor([[4.0, 4.0, 4.0, 4.0]] * 2, device=device)
    out = crop_resize(frames, boxes, 3, backend=backend)
    upstream = torch.ones_like(out)
    upstream[0, 0, 1, 1] = float("inf")
    (d_frames,) = torch.autograd.grad(out, frames, upstream)
    assert 1 <= (~d_frames[0].isfinite()).sum() <= 4
    assert d_frames[1].isfinite().all()


def test_forward_mode_is_an_error_not_a_tangent_of_zero(backend, device):
    frames = torch.rand(1, 3, 12, 12, device=device)
    boxes = torch.tensor([[6.1, 6.2, 7.3, 7.4]], device=device)

    def crop(boxes):
        return crop_resize(frames, boxes, 4, backend=backend)

    with pytest.raises((RuntimeError, NotImplementedError), match="crop_resize has no forward-mode derivative"):
        torch.func.jvp(crop, (boxes,), (torch.ones_like(boxes),))
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(boxes, torch.ones_like(boxes))
        with pytest.raises((RuntimeError, NotImplementedError), match="crop_resize has no forward-mode derivative"):
            crop(dual)


def test_mean_and_std_may_be_tensors_and_are_constants(backend, device):
    frames = torch.rand(1, 3, 8, 8, device=device, requires_grad=True)
    boxes = torch.tensor([[4.0, 4.0, 5.0, 6.0]], device=device)
    mean = torch.tensor([0.1, 0.2, 0.3], device=device, requires_grad=True)
    out = crop_resize(frames, boxes, 4, mean=mean, std=(1, 2, 4), backend=backend)
    torch.testing.assert_close(out, crop_resize(frames, boxes, 4, mean=(0.1, 0.2, 0.3), std=(1, 2, 4), backend=backend))
    out.sum().backward()
    assert mean.grad is None


def test_numpy_integers_are_sizes(backend, device):
    frames, boxes = torch.zeros(2, 3, 8, 8, device=device), torch.ones(2, 4, device=device)
    out = crop_resize(frames, boxes, np.int64(4), backend=backend)
    assert out.shape == (2, 3, 4, 4)


def test_half_boxes_get_half_gradients(backend, device):
    frames = torch.rand(1, 3, 12, 12, device=device)
    boxes = torch.tensor([[6.0, 6.5, 7.0, 7.25]], dtype=torch.float16, device=device, requires_grad=True)
    out = crop_resize(frames, boxes, 4, backend=backend)
    out.square().sum().backward()
    assert out.dtype == torch.float32
    assert boxes.grad.dtype == torch.float16


def test_many_boxes(backend, device):
    """More boxes than a launch grid of 65 535 holds."""
    frames = random_images((3, 1, 5, 5), torch.float32, "contiguous").to(device)
    count = 100 if is_emulated(backend) else 70_000
    boxes = (torch.rand(count, 4, generator=torch.Generator().manual_seed(0)) * 4 + 1).to(device)
    index = (torch.arange(count) % 3).to(device)
    out = crop_resize(frames, boxes, 2, frame_index=index, backend=backend)
    torch.testing.assert_close(out, crop_resize(frames, boxes, 2, frame_index=index, backend="reference"))


@pytest.mark.big
def test_more_than_2_31_elements(backend, device):
    if backend == "reference":
        pytest.skip("the reference is what the others are compared with, on a slice")
    frames = torch.zeros(3, 1, 27_000, 27_000, dtype=torch.uint8, device=device)  # 2.19e9 elements
    frames[2, 0, -10:, -10:] = torch.arange(100, dtype=torch.uint8, device=device).view(10, 10)
    boxes = torch.tensor([[26_995.0, 26_995.0, 10.0, 10.0]], device=device)
    out = crop_resize(frames, boxes, 10, frame_index=torch.tensor([2], device=device), backend=backend)
    assert torch.equal(out[0, 0], frames[2, 0, -10:, -10:].float())
    del frames
    small = random_images((1, 3, 4, 4), torch.uint8, "contiguous").to(device)
    count = 720_000  # 2.2e9 elements out
    boxes = torch.tensor([[2.0, 2.0, 4.0, 4.0]], device=device).expand(count, 4)
    index = torch.zeros(count, dtype=torch.int32, device=device)
    out = crop_resize(small, boxes, 32, frame_index=index, out_dtype=torch.uint8, backend=backend)
    assert torch.equal(out[-1], out[0])

"""crop_resize: the published crop, its edge cases, and what users of comparable ops stumbled over."""

import gc
import json
import weakref
from functools import cache, partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import adafocus_ops
from adafocus_ops import crop_resize
from adafocus_ops.examples.tensors import FLOATS, LAYOUTS, random_images, smooth_boxes
from conftest import ORACLES, device_of, is_emulated, require_backend

FRAME_DTYPES = (torch.uint8, *FLOATS)
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


@pytest.fixture(autouse=True)
def usable(request, backend):
    """Every test of this file runs on each backend that can run on CPU tensors here."""
    require_backend(request, "crop_resize", backend, device_of(backend))


@pytest.fixture
def device(backend) -> str:
    return device_of(backend)


# ----------------------------------------------------------------------------------------------------
# The published crop


@cache
def oracle(name: str) -> tuple[dict, dict]:
    cases = json.loads((ORACLES / "ops" / "index.json").read_text())[name]
    return cases, dict(np.load(ORACLES / "ops" / f"{name}.npz"))


def draw(config: dict, rows: int, size: int, stream: int) -> Tensor:
    generator = np.random.default_rng([config["seed"], stream])
    return torch.from_numpy(generator.standard_normal((rows, config["channels"], size, size)))


def boxes_of(y0_x0_h_w: Tensor) -> Tensor:
    y0, x0, h, w = y0_x0_h_w.unbind(-1)
    return torch.stack([y0 + h / 2, x0 + w / 2, h, w], -1)


def oracle_boxes(action: Tensor, config: dict) -> Tensor:
    """The published feature and pixel crop: sides of P (96 + 128 a) / p cells on an array of S cells."""
    cells, nominal = config["patch_size"], config["input_patch_size"]
    size = config["image_size"]
    return adafocus_ops.boxes.from_action(action, (size, size), cells * 96 / nominal, cells * 224 / nominal)


def relative(got: Tensor, expected: Tensor) -> float:
    return ((got - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize(
    "case", ["img56_p24", "img56_p32", "feat7_p3", "feat7_p4", "feat5_p3", "img224_p96", "img224_p128"]
)
def test_matches_the_published_crop_and_its_gradients(case, backend, device):
    configs, arrays = oracle("crop_deformable")
    config = configs[case]
    data = {k.removeprefix(case + "."): torch.from_numpy(v) for k, v in arrays.items() if k.startswith(case + ".")}
    size, patch = config["image_size"], config["patch_size"]
    images = draw(config, len(data["actions"]), size, 1).to(device).requires_grad_()
    upstream = draw(config, len(data["actions"]), patch, 3).to(device)
    action = data["actions"].to(device).requires_grad_()
    boxes = oracle_boxes(action, config)
    torch.testing.assert_close(boxes.cpu(), boxes_of(data["boxes"]), rtol=0, atol=1e-12)

    out = crop_resize(images, boxes, patch, backend=backend)
    d_images, d_action = torch.autograd.grad(out, [images, action], upstream)
    out, d_images, d_action = out.detach().cpu(), d_images.cpu(), d_action.cpu()
    assert relative(d_action, data["grad_actions_f64"]) < 1e-9
    if config["complete_arrays"]:
        assert relative(out, data["out_f64"]) < 1e-9
        assert relative(d_images, data["grad_images_f64"]) < 1e-9
    else:
        assert relative(out[..., 1::6, 2::6], data["out_slice_f64"]) < 1e-9
        assert relative(d_images[..., 2::7, 3::7], data["grad_images_slice_f64"]) < 1e-9
    assert relative(out.flatten(1).norm(dim=1), data["out_l2_f64"]) < 1e-9
    assert relative(d_images.flatten(1).norm(dim=1), data["grad_images_l2_f64"]) < 1e-9

    # In float32 we are as near to the exact crop as the published float32 code is.
    single = crop_resize(images.detach().float(), boxes.detach().float(), patch, backend=backend).cpu().double()
    assert (single - out).abs().max() <= max(config["max_abs_out_difference_f32_f64"], 1e-6)


def test_a_box_of_whole_pixels_is_a_slice(backend, device):
    config = oracle("crop_deformable")[0]["identity_p96"]
    frames = draw(config, 4, 224, 1).float().to(device)
    corners = torch.tensor([[0, 0], [128, 128], [5, 77], [100, 3]])
    boxes = torch.cat([corners + 48.0, torch.full((4, 2), 96.0)], 1).to(device)
    out = crop_resize(frames, boxes, 96, backend=backend)
    for k, (y, x) in enumerate(corners.tolist()):
        assert torch.equal(out[k], frames[k, :, y : y + 96, x : x + 96])


@pytest.mark.parametrize("case", ["img56_p24", "img56_p32"])
def test_matches_the_published_fixed_size_crop(case, backend, device):
    configs, arrays = oracle("crop_fixed")
    config = configs[case]
    data = {k.removeprefix(case + "."): torch.from_numpy(v) for k, v in arrays.items() if k.startswith(case + ".")}
    size, patch = config["image_size"], config["patch_size"]
    images = draw(config, len(data["actions"]), size, 1).to(device).requires_grad_()
    action = data["actions"].double().to(device)
    full = torch.cat([action, torch.zeros_like(action)], 1)
    boxes = adafocus_ops.boxes.from_action(full, (size, size), patch, patch)
    out = crop_resize(images, boxes, patch, backend=backend)
    (d_images,) = torch.autograd.grad(out, images, draw(config, len(action), patch, 3).to(device))
    assert relative(out.detach().cpu()[..., 1::3, 2::3], data["out_f64_slice"]) < 1e-9
    assert relative(d_images.cpu()[..., 1::3, 2::3], data["grad_images_slice_f64"]) < 1e-9


def grid_sample_crop(frames: Tensor, boxes: Tensor, out: tuple[int, int], padding: str) -> Tensor:
    """The generic way: box k from frame k."""
    height, width = frames.shape[-2:]
    cy, cx, h, w = boxes.unbind(1)
    zero = torch.zeros_like(cy)
    theta = torch.stack(
        [
            torch.stack([w / width, zero, 2 * cx / width - 1], 1),
            torch.stack([zero, h / height, 2 * cy / height - 1], 1),
        ],
        1,
    )
    grid = F.affine_grid(theta, (len(boxes), frames.shape[1], *out), align_corners=False)
    return F.grid_sample(frames, grid, padding_mode=padding, align_corners=False)


@pytest.mark.parametrize("padding", ["zeros", "border"])
@pytest.mark.parametrize(("size", "out"), [(224, 96), (224, 128), (7, 3), (7, 4), (5, 3)], ids=lambda v: str(v))
def test_equals_affine_grid_and_grid_sample(size, out, padding, backend, device):
    """Forward and both gradients; boxes reach outside, where border gradients of grid_sample stop at the clipped
    coordinate as ours do at the copied pixel."""
    frames = random_images((6, 3, size, size), torch.float64, "contiguous").to(device).requires_grad_()
    boxes = smooth_boxes(6, (out, out), (size, size), seed=size + out, reach=0.1).to(device).requires_grad_()
    upstream = random_images((6, 3, out, out), torch.float64, "contiguous", seed=1).to(device)
    expected = grid_sample_crop(frames, boxes, (out, out), padding)
    got = crop_resize(frames, boxes, out, padding=padding, backend=backend)
    assert relative(got, expected) < 1e-12
    for g, e in zip(
        torch.autograd.grad(got, [frames, boxes], upstream),
        torch.autograd.grad(expected, [frames, boxes], upstream),
        strict=True,
    ):
        assert relative(g, e) < 1e-10


def test_one_box_for_all_frames_of_a_video(backend, device):
    video = random_images((2, 4, 3, 20, 24), torch.float32, "contiguous").to(device)
    boxes = smooth_boxes(2, (6, 6), (20, 24), seed=0).float().to(device)
    out = crop_resize(video, boxes.repeat_interleave(4, 0), 6, backend=backend)
    for b in range(2):
        for t in range(4):
            alone = crop_resize(video[b, t][None], boxes[b][None], 6, backend=backend)
            assert torch.equal(out[4 * b + t], alone[0])


# ----------------------------------------------------------------------------------------------------
# Where the derivative needs care


@pytest.mark.parametrize("padding", ["zeros", "border"])
@pytest.mark.parametrize(
    "box",
    {
        "inside": (9.3, 10.2, 7.1, 8.7),
        "touching the top": (4.05, 10.2, 8.1, 8.7),
        "touching the left": (9.3, 4.35, 7.1, 8.7),
        "touching the bottom": (14.95, 10.2, 8.1, 8.7),
        "touching the right": (9.3, 17.65, 7.1, 8.7),
        "larger than the frame": (9.7, 11.2, 31.3, 40.1),
        "outside": (-30.2, 60.3, 7.1, 8.7),
        "partly outside": (1.3, 20.4, 9.1, 7.7),
        "upscaled": (9.3, 10.2, 2.1, 1.7),
        "shrunk 2.33 times": (9.6, 11.1, 11.65, 11.66),
        "mirrored": (9.3, 10.2, -7.1, -8.7),
    }.items(),
    ids=lambda item: item[0],
)
def test_gradcheck_around_the_frame(box, padding, backend, device):
    frames = random_images((1, 2, 19, 22), torch.float64, "contiguous").to(device).requires_grad_()
    boxes = torch.tensor([box[1]], dtype=torch.float64, device=device, requires_grad=True)

    def fn(frames, boxes):
        return crop_resize(frames, boxes, (5, 5), padding=padding, backend=backend)

    assert torch.autograd.gradcheck(fn, (frames, boxes), eps=1e-5)


def test_on_a_pixel_the_derivative_is_that_of_larger_coordinates(backend, device):
    frames = torch.tensor([0.0, 1.0, 10.0]).view(1, 1, 1, 3).double().to(device)
    boxes = torch.tensor([[0.5, 1.5, 1.0, 1.0]], dtype=torch.float64, device=device, requires_grad=True)
    crop_resize(frames, boxes, 1, backend=backend).sum().backward()
    assert boxes.grad[0, 1] == 9.0


def test_is_once_differentiable(backend, device):
    frames = torch.rand(2, 3, 8, 8, device=device, requires_grad=True)
    boxes = (torch.rand(2, 4, device=device) * 4).requires_grad_()
    out = crop_resize(frames, boxes, 3, backend=backend).square().sum()
    gradients = torch.autograd.grad(out, [frames, boxes], create_graph=True)
    for gradient in gradients:
        with pytest.raises(RuntimeError, match="crop_resize is once differentiable"):
            torch.autograd.grad(gradient.sum(), [frames, boxes], retain_graph=True)


# ----------------------------------------------------------------------------------------------------
# Any value is defined, the same everywhere

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


# ----------------------------------------------------------------------------------------------------
# Shapes, layouts, dtypes


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

    with pytest.raises((RuntimeError, NotImplementedError), match="jvp"):
        torch.func.jvp(crop, (boxes,), (torch.ones_like(boxes),))
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(boxes, torch.ones_like(boxes))
        with pytest.raises((RuntimeError, NotImplementedError), match="jvp"):
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
    out = crop_resize(FRAMES.to(device), BOXES.to(device), np.int64(4), backend=backend)
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


# ----------------------------------------------------------------------------------------------------
# Transforms and registration


def test_vmap_folds_into_the_batch(backend, device):
    frames = random_images((4, 2, 3, 12, 13), torch.float64, "contiguous").to(device)
    boxes = smooth_boxes(8, (4, 4), (12, 13), seed=0).view(4, 2, 4).to(device)
    index = torch.tensor([[0, 1], [1, 1], [0, -1], [5, 0]], device=device)

    def crop(frames, boxes, index=None):
        return crop_resize(frames, boxes, 4, frame_index=index, backend=backend, **IMAGENET)

    each = torch.stack([crop(f, b, i) for f, b, i in zip(frames, boxes, index, strict=True)])
    torch.testing.assert_close(torch.vmap(crop)(frames, boxes, index), each, equal_nan=True)
    shared = torch.stack([crop(frames[0], b) for b in boxes])
    torch.testing.assert_close(torch.vmap(crop, in_dims=(None, 0))(frames[0], boxes), shared)
    last = torch.vmap(crop, in_dims=(1, 2))(frames.transpose(0, 1), boxes.permute(1, 2, 0))
    torch.testing.assert_close(last, torch.stack([crop(f, b) for f, b in zip(frames, boxes, strict=True)]))

    def loss(frames, boxes):
        return crop(frames, boxes).square().sum()

    gradients = torch.func.vmap(torch.func.grad(loss, argnums=(0, 1)))(frames, boxes)
    for k in range(4):
        one = torch.func.grad(loss, argnums=(0, 1))(frames[k], boxes[k])
        for all_of_them, alone in zip(gradients, one, strict=True):
            torch.testing.assert_close(all_of_them[k], alone)


@pytest.mark.parametrize("op", [crop_resize, adafocus_ops.crop_mean], ids=lambda op: op.__name__)
def test_gradients_pass_through_vmap(op, backend, device):
    frames = random_images((3, 2, 3, 8, 8), torch.float64, "contiguous").to(device)
    boxes = torch.stack([smooth_boxes(2, (4, 4), (8, 8), seed) for seed in range(3)]).to(device)

    def total(frames, boxes, mapped):
        call = partial(op, output_size=4, backend=backend)
        return (
            (torch.vmap(call)(frames, boxes) if mapped else torch.stack(list(map(call, frames, boxes)))).square().sum()
        )

    inputs = frames.requires_grad_(), boxes.requires_grad_()
    expected = torch.autograd.grad(total(*inputs, mapped=False), inputs)
    got = torch.autograd.grad(total(*inputs, mapped=True), inputs)
    in_function = torch.func.grad(total, argnums=(0, 1))(*(t.detach() for t in inputs), mapped=True)
    for g, f, e in zip(got, in_function, expected, strict=True):
        torch.testing.assert_close(g, e)
        torch.testing.assert_close(f, e)


@pytest.mark.parametrize("shape", [(1, 3, 8, 2000), (1, 1, 2000, 2)])
def test_long_frames(shape, backend, device):
    """Tables of an axis fill whatever a kernel keeps them in."""
    frames = random_images(shape, torch.float32, "contiguous").to(device).requires_grad_()
    boxes = torch.tensor([[shape[2] / 2 + 0.1, shape[3] / 2 + 0.1, shape[2] * 0.9, shape[3] * 0.9]], device=device)
    index = torch.zeros(1, dtype=torch.int64, device=device)
    out = (3, 50) if shape[3] > 2 else (50, 3)
    upstream = torch.rand(1, shape[1], *out, generator=torch.Generator().manual_seed(0)).to(device)
    gradients = [
        torch.autograd.grad(crop_resize(frames, boxes, out, frame_index=index, backend=name), frames, upstream)[0]
        for name in (backend, "reference")
    ]
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-3)


def test_dynamic_sizes_compile_once(backend, device):
    """Sizes above one share one graph: nothing, error messages included, fixes them."""
    from torch._dynamo.testing import CompileCounterWithBackend

    counter, graphs = CompileCounterWithBackend("aot_eager"), []
    torch._dynamo.reset()
    compiled = torch.compile(
        lambda f, b, i: crop_resize(f, b, 4, frame_index=i, backend=backend, **IMAGENET),
        fullgraph=True,
        dynamic=True,
        backend=counter,
    )
    for count, number, size in ((2, 11, 9), (5, 2, 12), (7, 6, 30)):  # no two sizes alike: those would share a symbol
        frames = torch.rand(number, 3, size, size + 1, device=device)
        boxes = torch.rand(count, 4, device=device) * 6 + 2
        index = torch.zeros(count, dtype=torch.int64, device=device)
        torch.testing.assert_close(
            compiled(frames, boxes, index),
            crop_resize(frames, boxes, 4, frame_index=index, backend=backend, **IMAGENET),
        )
        graphs.append(counter.frame_count)
    assert graphs[0] == graphs[-1]


def test_deterministic_mode_is_accepted(backend, device):
    frames = torch.rand(2, 3, 12, 12, device=device, requires_grad=True)
    boxes = torch.tensor([[6.0, 6.0, 7.0, 7.0]] * 5, device=device, requires_grad=True)
    index = torch.tensor([0, 1, 1, 0, 1], device=device)
    torch.use_deterministic_algorithms(True)
    try:
        runs = []
        for _ in range(2):
            out = crop_resize(frames, boxes, 4, frame_index=index, backend=backend)
            runs.append(torch.autograd.grad(out.square().sum(), [frames, boxes]))
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(map(torch.equal, *runs))


def test_a_step_leaves_no_reference_cycle(backend, device):
    """Nothing is kept for the garbage collector: tensors are freed as soon as the last user drops them."""
    boxes = torch.tensor([[6.0, 6.0, 7.0, 7.0]] * 2, device=device, requires_grad=True)
    gc.collect()
    gc.disable()
    try:
        frames = torch.rand(2, 3, 12, 12, device=device, requires_grad=True)
        alive = weakref.ref(frames)
        torch.autograd.grad(crop_resize(frames, boxes, 4, backend=backend).sum(), [frames, boxes])
        del frames
        assert alive() is None
    finally:
        gc.enable()


# ----------------------------------------------------------------------------------------------------
# Bad arguments

FRAMES, BOXES = torch.zeros(2, 3, 8, 8), torch.ones(2, 4)


@pytest.mark.parametrize(
    ("args", "kwargs", "error", "message"),
    [
        (([1], BOXES, 4), {}, TypeError, "frames must be a tensor, got list"),
        ((FRAMES.int(), BOXES, 4), {}, TypeError, "frames must have dtype uint8, .*, got int32"),
        ((FRAMES.to_sparse(), BOXES, 4), {}, TypeError, "frames must be dense, got layout torch.sparse_coo"),
        ((FRAMES[0], BOXES, 4), {}, ValueError, r"frames must be \[..., C, H, W\] .*, got \(3, 8, 8\) float32"),
        ((FRAMES, BOXES[:, :3], 4), {}, ValueError, r"boxes must be \[K, 4\], got \(2, 3\) float32"),
        ((FRAMES, BOXES[0], 4), {}, ValueError, r"boxes must be \[K, 4\], got \(4,\) float32"),
        ((FRAMES, BOXES.int(), 4), {}, TypeError, "boxes must have dtype .*, got int32"),
        ((FRAMES, torch.ones(3, 4), 4), {}, ValueError, r"boxes .* K == N == 2 \(frames\) unless frame_index is given"),
        ((FRAMES, BOXES, 0), {}, ValueError, "output_size height must be at least 1, got 0"),
        ((FRAMES, BOXES, (4, 5, 6)), {}, ValueError, r"output_size must be P or \(P_h, P_w\), got \(4, 5, 6\)"),
        ((FRAMES, BOXES, 4.0), {}, TypeError, "output_size height must be an int, got float"),
        (
            (FRAMES, BOXES, 4),
            {"padding": "reflect"},
            ValueError,
            "padding must be one of 'zeros', 'border', got 'reflect'",
        ),
        ((FRAMES, BOXES, 4), {"antialias": "yes"}, TypeError, "antialias must be a bool, got str"),
        ((FRAMES, BOXES, 4), {"out_dtype": torch.int64}, TypeError, "out_dtype must be .*, got torch.int64"),
        ((FRAMES, BOXES, 4), {"mean": (1, 2)}, ValueError, r"mean must be .* each of 3 channels, got \(2,\)"),
        ((FRAMES, BOXES, 4), {"std": ((1, 2, 3),)}, ValueError, r"std must be .* each of 3 channels, got \(1, 3\)"),
        ((FRAMES, BOXES, 4), {"memory_format": torch.channels_last_3d}, ValueError, "memory_format must be"),
        ((FRAMES, BOXES, 4), {"frame_index": torch.tensor([0.0, 1.0])}, TypeError, "frame_index must have dtype int32"),
        ((FRAMES, BOXES, 4), {"frame_index": torch.tensor([0])}, ValueError, r"frame_index must be \[K\] with K=2"),
        ((FRAMES, BOXES, 4), {"frame_index": torch.tensor([[0], [1]])}, ValueError, r"frame_index must be \[K\]"),
        ((FRAMES, BOXES.to("meta"), 4), {}, ValueError, r"boxes must be on the device of frames \(cpu\), got meta"),
        (
            (FRAMES, BOXES, 4),
            {"frame_index": torch.tensor([0, 1], device="meta")},
            ValueError,
            "frame_index must be on",
        ),
    ],
)
def test_bad_arguments_say_what_was_wrong(args, kwargs, error, message, backend):
    with pytest.raises(error, match=message):
        crop_resize(*args, backend=backend, **kwargs)


def test_debug_mode_looks_at_values(backend, device):
    frames, boxes = FRAMES.to(device), BOXES.to(device)
    adafocus_ops.set_debug(True)
    try:
        with pytest.raises(ValueError, match="boxes must be finite; the first that is not is box 1"):
            crop_resize(frames, boxes * torch.tensor([[1.0], [float("nan")]], device=device), 4, backend=backend)
        with pytest.raises(ValueError, match=r"frame_index must be in \[0, 2\) \(frames\), got values from 0 to 7"):
            crop_resize(frames, boxes, 4, frame_index=torch.tensor([0, 7], device=device), backend=backend)
    finally:
        adafocus_ops.set_debug(False)

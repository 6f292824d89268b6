"""crop_resize: the published crop, and where the derivative needs care."""

import json
from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import adafocus_ops
from adafocus_ops import crop_resize
from adafocus_ops.examples.tensors import random_images, smooth_boxes
from conftest import ORACLES, is_emulated

pytestmark = pytest.mark.usefixtures("crop_resize_runs")


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


LARGE = pytest.mark.slow_if_interpreted("small images and maps take the same way")


def relative(got: Tensor, expected: Tensor) -> float:
    return ((got - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize(
    "case",
    [
        *("img56_p24", "img56_p32", "feat7_p3", "feat7_p4", "feat5_p3"),
        *(pytest.param(case, marks=LARGE) for case in ("img224_p96", "img224_p128")),
    ],
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


@pytest.mark.parametrize("extent", [1e3, 1e6, 1e9, -1e9])
@pytest.mark.parametrize("antialias", [False, True])
def test_the_middle_of_a_huge_box_is_its_centre(extent, antialias, backend, device):
    """Positions lie about the middle, so that it is exact however large the box is."""
    frames = torch.arange(9.0 * 11).view(1, 1, 9, 11).to(device)
    boxes = torch.tensor([[4.75, 6.125, 3.0, extent], [4.75, 6.125, extent, 3.0]])
    out = crop_resize(
        frames.expand(2, 1, 9, 11), boxes.to(device), 3, antialias=antialias, padding="border", backend=backend
    )
    if antialias:  # one pixel high (or wide) of the output is the mean over the other axis' border
        assert out.isfinite().all()
    else:
        assert (out[:, 0, 1, 1] == 4.25 * 11 + 5.625).all()


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
@pytest.mark.parametrize(
    ("size", "out"),
    [*(pytest.param(224, out, marks=LARGE) for out in (96, 128)), (20, 9), (7, 3), (7, 4), (5, 3)],
    ids=str,
)
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

    # Differences by every element take a thousand calls; in an emulation those in random directions have to do.
    assert torch.autograd.gradcheck(fn, (frames, boxes), eps=1e-5, fast_mode=is_emulated(backend))


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

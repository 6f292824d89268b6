"""ADAFOCUS_CUDA_KERNEL=any: the kernel for any call as the oracle of the fast one, on calls that the fast one takes."""

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import adafocus_ops
from adafocus_ops.examples.tensors import IMAGENET, distributions, random_images, smooth_boxes
from conftest import require_backend
from cuda_on_host.backend import NAME
from cuda_on_host.harness import KernelError, launches

CHOICE = "ADAFOCUS_CUDA_KERNEL"
CHAINS = "box_chains_kernel"
LAYOUTS = ("contiguous", "channels_last")
SMALL_FLOATS = (torch.float16, torch.bfloat16, torch.float32)


@pytest.fixture(autouse=True)
def _needs_the_harness(request, monkeypatch):
    require_backend(request, "crop_resize", NAME, "cpu")
    monkeypatch.delenv(CHOICE, raising=False)


def fast_and_any(monkeypatch, call: Callable[[], list[Tensor]], fast: str, simple: str) -> list[tuple[Tensor, Tensor]]:
    """The results of a call by the fast kernels and by the ones for any call, of which `fast` and `simple` are in the
    names."""
    with launches() as names:
        quick = call()
    assert_launched(names, fast)
    monkeypatch.setenv(CHOICE, "any")
    with launches() as names:
        slow = call()
    assert_launched(names, simple)
    return list(zip(quick, slow, strict=True))


def assert_launched(names: list[str], part: str) -> None:
    """Kernels that have this in their names, beside the one that finds each frame's boxes."""
    chosen = [name for name in names if CHAINS not in name]
    assert chosen, "nothing was launched"
    assert all(part in name for name in chosen), names


def assert_close(pairs: list[tuple[Tensor, Tensor]], dtype: torch.dtype) -> None:
    """As near as two roundings of the same sums are: the kernels add in different orders."""
    for quick, slow in pairs:
        bound = 8 * torch.finfo(torch.float32).eps + 2 * torch.finfo(dtype).eps
        error = (quick.double() - slow.double()).abs().max() / slow.double().abs().max()
        assert error <= bound, f"off by {error:.1e}"


def crop_call(dtype: torch.dtype, layout: str, out_dtype: torch.dtype | None = None, **kwargs) -> tuple:
    """Frames of three channels, some boxes partly outside, two on one frame and none on another."""
    shape, size = (3, 3, 21, 40), (17, 12)
    frames = random_images(shape, dtype, layout, seed=1)
    boxes = smooth_boxes(4, size, shape[-2:], seed=2).float()
    kwargs |= {"frame_index": torch.tensor([2, 0, 2, 0]), "out_dtype": out_dtype, "backend": NAME}
    return frames, boxes, lambda frames, boxes: adafocus_ops.crop_resize(frames, boxes, size, **kwargs)


@pytest.mark.parametrize("padding", ["zeros", "border"])
@pytest.mark.parametrize(("dtype", "layout"), list(itertools.product((torch.uint8, *SMALL_FLOATS), LAYOUTS)), ids=str)
def test_staged_forward(monkeypatch, dtype, layout, padding):
    frames, boxes, crop = crop_call(dtype, layout, padding=padding, **IMAGENET)
    pairs = fast_and_any(monkeypatch, lambda: [crop(frames, boxes)], "fwd_staged_kernel<", "fwd_any_kernel<")
    assert_close(pairs, torch.float32 if dtype == torch.uint8 else dtype)


@pytest.mark.parametrize(("dtype", "layout"), list(itertools.product((torch.uint8, *SMALL_FLOATS), LAYOUTS)), ids=str)
def test_staged_gradient_of_the_boxes(monkeypatch, dtype, layout):
    frames, boxes, crop = crop_call(dtype, layout, torch.float32, **IMAGENET)
    boxes.requires_grad_()
    out = crop(frames, boxes)
    upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(3))

    def gradient():
        return [torch.autograd.grad(out, boxes, upstream, retain_graph=True)[0]]

    pairs = fast_and_any(monkeypatch, gradient, "bwd_boxes_staged_kernel<", "bwd_boxes_any_kernel<")
    # Differences of pixels are added up, of which most cancel.
    for quick, slow in pairs:
        torch.testing.assert_close(quick, slow, rtol=1e-4, atol=1e-5 * float(slow.abs().max()))


@pytest.mark.parametrize(("dtype", "layout"), list(itertools.product(SMALL_FLOATS, LAYOUTS)), ids=str)
def test_tiled_gradient_of_the_frames(monkeypatch, dtype, layout):
    frames, boxes, crop = crop_call(dtype, layout, **IMAGENET)
    frames = frames.contiguous(memory_format=torch.channels_last) if layout == "channels_last" else frames
    frames.requires_grad_()
    out = crop(frames, boxes)
    upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(3)).to(dtype)

    def gradient():
        return [torch.autograd.grad(out, frames, upstream, retain_graph=True)[0]]

    pairs = fast_and_any(monkeypatch, gradient, "bwd_frames_tiled_kernel<", "bwd_frames_any_kernel<")
    assert_close(pairs, dtype)


# Frames whose tiles differ: bands that a thread shares with others, or has several columns of; planes that are whole in
# a tile, one or many; blocks of several tiles; channels of one, three and four a column.
TILED = [
    ((3, 3, 40, 9), (6, 5)),
    ((2, 3, 40, 700), (11, 30)),
    ((2, 1, 21, 40), (30, 50)),
    ((3, 24, 7, 7), (3, 3)),
    ((2, 40, 30, 30), (7, 7)),
    ((2, 6, 50, 50), (9, 9)),
    ((1, 5, 64, 64), (16, 24)),
    ((2, 72, 5, 90), (4, 8)),
    ((257, 1, 3, 3100), (5, 40)),
    ((2, 1024, 5, 28), (3, 4)),  # a part of a scanline
    ((2, 12, 1, 3001), (2, 40)),
]


def boxes_of_all_kinds(height: int, width: int) -> Tensor:
    """[14, 4]: shrunk and enlarged, mirrored, without extent, partly and wholly outside, far larger than the frame."""
    return torch.tensor(
        [
            (y * height, x * width, h * height, w * width)
            for y, x, h, w in [
                (0.5, 0.5, 1, 1),
                (0.4, 0.6, 0.5, 0.7),
                (0.7, 0.3, -0.6, 0.4),
                (0.3, 0.5, 0.9, -1.1),
                (0.5, 0.5, -0.2, -0.1),
                (0.5, 0.25, 0, 0.5),
                (0.25, 0.75, 0.5, 0),
                (0.3, 0.3, 1e-7, 1e-7),
                (0, 1, 0.8, 0.8),
                (1, 0, 0.8, -0.8),
                (-2, 0.5, 1, 1),
                (0.5, 3, 1, 1),
                (0.5, 0.5, 40, 40),
                (0.6, 0.4, -7, 5),
            ]
        ]
    )


@pytest.mark.parametrize("padding", ["zeros", "border"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("shape", "size"), TILED, ids=str)
def test_tiles_of_any_frames(monkeypatch, shape, size, layout, padding):
    frames = random_images(shape, torch.float32, layout, seed=1).requires_grad_()
    boxes = boxes_of_all_kinds(*shape[-2:])
    index = torch.arange(len(boxes)) % min(shape[0], 2)
    out = adafocus_ops.crop_resize(frames, boxes, size, frame_index=index, padding=padding, backend=NAME)
    upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(3))

    def gradient():
        return [torch.autograd.grad(out, frames, upstream, retain_graph=True)[0]]

    pairs = fast_and_any(monkeypatch, gradient, "bwd_frames_tiled_kernel<", "bwd_frames_any_kernel<")
    assert_close(pairs, torch.float32)


@pytest.mark.parametrize("dtype", [*SMALL_FLOATS, torch.float64], ids=str)
@pytest.mark.parametrize(("items", "k"), [(1, 1), (5, 5), (40, 7), (300, 150)])
def test_samples_of_a_warp_are_those_of_a_block(monkeypatch, dtype, items, k):
    weights = distributions(2, items, dtype, "contiguous")

    def draw():
        return [adafocus_ops.weighted_sample(weights, k, num_samples=3, seed=5, backend=NAME)]

    for quick, slow in fast_and_any(monkeypatch, draw, "sample_fwd_warp_kernel<", "sample_fwd_block_kernel<"):
        assert torch.equal(quick, slow)


@pytest.mark.parametrize(("dtype", "layout"), list(itertools.product((*SMALL_FLOATS, torch.float64), LAYOUTS)), ids=str)
@pytest.mark.parametrize("channels", [8, 24])
def test_dense_shifts(monkeypatch, dtype, layout, channels):
    x = random_images((6, channels, 4, 8), dtype, layout)

    def shift():
        return [adafocus_ops.temporal_shift(x, 3, backend=NAME)]

    for quick, slow in fast_and_any(monkeypatch, shift, "shift_fwd_dense_kernel<", "shift_fwd_any_kernel<"):
        assert torch.equal(quick, slow)


@pytest.mark.parametrize("choice", ["", "fast"])
def test_by_default_the_fast_kernel_runs(monkeypatch, choice):
    frames, boxes, crop = crop_call(torch.float32, "contiguous")
    monkeypatch.setenv(CHOICE, choice)
    with launches() as names:
        crop(frames, boxes)
    assert len(names) == 1
    assert "fwd_staged_kernel<" in names[0]


def test_the_kernel_for_any_call_takes_those_that_no_other_does(monkeypatch):
    frames, boxes, _ = crop_call(torch.float32, "contiguous")
    for choice in ("fast", "any"):
        monkeypatch.setenv(CHOICE, choice)
        with launches() as names:
            adafocus_ops.crop_resize(frames[:, :2], boxes[:3], 5, backend=NAME)
        assert ["fwd_any_kernel<" in name for name in names] == [True]


def test_an_unknown_choice_is_an_error(monkeypatch):
    frames, boxes, crop = crop_call(torch.float32, "contiguous")
    monkeypatch.setenv(CHOICE, "slow")
    calls = (
        lambda: crop(frames, boxes),
        lambda: adafocus_ops.weighted_sample(torch.ones(2, 4), 2, seed=1, backend=NAME),
        lambda: adafocus_ops.temporal_shift(frames.new_zeros(4, 8, 2, 2), 2, backend=NAME),
    )
    for call in calls:
        with pytest.raises(KernelError, match='ADAFOCUS_CUDA_KERNEL must be "fast" or "any"'):
            call()


@pytest.mark.parametrize("rows", [33, 2048, 2049])
@pytest.mark.parametrize("active", [None, torch.ones(2049, dtype=torch.bool), torch.arange(5), torch.arange(0)])
def test_many_blocks_list_many_rows(rows, active):
    """One kernel does all for up to 2048 rows, whose last block lists them in one turn."""
    is_list = active is not None and active.dtype != torch.bool
    active = active if active is None or is_list else active[:rows]
    with launches() as names:
        adafocus_ops.exit_gate(torch.zeros(rows, 2), 0.5, active=active, backend=NAME)
    parts = ["score", *(["flag"] if is_list and len(active) else []), "list"] if rows > 2048 else ["fwd"]
    assert [f"exit_gate_{part}_kernel" in name for part, name in zip(parts, names, strict=True)] == [True] * len(parts)


@pytest.mark.parametrize("choice", ["fast", "any"])
@pytest.mark.parametrize("indexed", [True, False])
def test_the_boxes_of_a_frame_are_found_once(monkeypatch, choice, indexed):
    """For all blocks that gather its gradient, each of which would look through all boxes otherwise."""
    monkeypatch.setenv(CHOICE, choice)
    frames = torch.rand(5, 3, 40, 40, requires_grad=True)
    boxes = smooth_boxes(70 if indexed else 5, (6, 6), (40, 40), seed=4).float()
    index = {"frame_index": torch.arange(70) * 3 % 5} if indexed else {}
    with launches() as names:
        torch.autograd.grad(adafocus_ops.crop_resize(frames, boxes, 6, backend=NAME, **index).sum(), frames)
    assert sum(CHAINS in name for name in names) == indexed
    assert sum("bwd_frames" in name for name in names) == 1

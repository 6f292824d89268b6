"""The Triton kernels: what the suites of all backends do not show."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from op_specs import random_images

from conftest import device_of, require_backend

images = pytest.importorskip("adafocus_ops._triton.images", reason="Triton is not installed")
crop_resize = pytest.importorskip("adafocus_ops._triton.crop_resize")
crop_mean = pytest.importorskip("adafocus_ops._triton.crop_mean")


# ----------------------------------------------------------------------------------------------------
# Compiled for GPUs that are not here


ARCHITECTURES = (86, 90)


@pytest.fixture(scope="module")
def compiled() -> list[dict]:
    environment = {**os.environ, "TRITON_INTERPRET": "0", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-W", "ignore", str(Path(__file__).with_name("compile_triton.py"))]
    running = [
        subprocess.Popen([*command, str(architecture)], env=environment, stdout=subprocess.PIPE, text=True)
        for architecture in ARCHITECTURES
    ]
    outputs = [process.communicate()[0] for process in running]
    assert all(process.returncode == 0 for process in running)
    return [kernel for output in outputs for kernel in json.loads(output)]


def test_kernels_compile_without_spills_or_atomics(compiled):
    for kernel in compiled:
        assert not [name for name in kernel["ptx"] if name.startswith(("atom", "red"))], kernel
        # The assembler may keep a register or two in memory for one more block on a processor.
        assert kernel["stack"] <= 16, kernel


def test_division_is_exact(compiled):
    """Positions of whole-pixel boxes must be whole."""
    for kernel in compiled:
        assert not [name for name in kernel["ptx"] if name.startswith(("div.full", "div.approx"))], kernel


def test_a_launch_is_one_grid_axis_and_an_allocation(compiled):
    """Grid axes 1 and 2 are short; nothing that a CUDA graph could not capture surrounds the launch."""
    for kernel in compiled:
        assert len(kernel["grid"]) == 1, kernel
        assert [name for name in kernel["operators"] if name.split(".")[1] not in ("empty", "empty_like")] == [], kernel


def test_channels_are_accessed_together(compiled):
    """16 bytes of a channels_last feature map at a time, the 4 bytes of a pixel of four channels."""
    for kernel in compiled:
        if kernel["case"].startswith("crop_resize") and kernel["case"].endswith(", feature map"):
            assert not {name for name in kernel["ptx"] if name.endswith(("b8", "b16"))}, kernel
            assert "ld.global.v4.b32" in kernel["ptx"], kernel
        if kernel["case"] == "crop_resize fwd, pixels of four":
            assert not {name for name in kernel["ptx"] if name.endswith(("b8", "b16"))}, kernel


# ----------------------------------------------------------------------------------------------------
# Run, on a GPU or by the interpreter


@pytest.fixture
def device(request) -> str:
    require_backend(request, "crop_resize", "triton", device_of("triton"))
    return device_of("triton")


HOSTILE = torch.tensor(
    [
        (6.2, 7.3, 5.1, 6.2),
        (6.2, 7.3, -5.1, -6.2),  # mirrored
        (5.2, 5.3, 0, 0),
        (5, 5, 1e-3, 1e-30),
        (5.5, 6.5, 4, 5),  # samples on pixels and between two
        (0, 12, 9, 9),  # over two edges
        (6, 7, 40, 50),
        (6, 7, 1e6, -1e6),
        (5, 5, 1e30, 3e38),
        (-3e38, 5, 3e38, 6),
        (-500, 700, 6, 6),
        (-500, 700, 1010, 1400),
    ],
    dtype=torch.float64,
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("padding", ["zeros", "border"])
@pytest.mark.parametrize("antialias", [False, True])
def test_gathering_misses_no_reader(antialias, padding, dtype, device):
    """The gradient of the frames is the adjoint of the forward, box by box, wherever rounding puts the samples."""
    boxes = HOSTILE.to(dtype).to(device)
    count = len(boxes)
    frames = torch.rand(count, 1, 11, 13, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 1
    upstream = torch.rand(count, 1, 4, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 1
    frames, upstream = frames.to(dtype).to(device), upstream.to(dtype).to(device)
    how = (padding, antialias, dtype, False)
    out = crop_resize.fwd(frames, boxes, None, None, 4, 5, *how)
    d_frames = crop_resize.bwd_frames(upstream, boxes, None, None, count, 11, 13, *how)
    forward = (out * upstream).flatten(1).double().sum(1)
    adjoint = (d_frames * frames).flatten(1).double().sum(1)
    torch.testing.assert_close(adjoint, forward, rtol=64 * torch.finfo(dtype).eps, atol=0)


@pytest.mark.parametrize("out", [(4, 4), (7, 40)])
def test_many_boxes_of_one_frame_are_added_in_their_order(out, device):
    """Bit by bit what one box after the other gives: 1 500 boxes, more than are looked at together."""
    count, near = 1500, torch.tensor([3, 700, 1023, 1024, 1499])
    boxes = torch.full((count, 4), 4.0)
    boxes[near, 0] = torch.tensor([3.0, 3.25, 3.5, 4.5, 5.5])
    index = torch.zeros(count, dtype=torch.int32)
    index[near] = 2
    upstream = torch.rand(count, 2, *out, generator=torch.Generator().manual_seed(0))
    how = (8, 9, "zeros", False, torch.float32, True)

    def gradient(chosen):
        tensors = (upstream[chosen], boxes[chosen], index[chosen])
        grad, box, frame = (t.to(device) for t in tensors)
        return crop_resize.bwd_frames(grad, box, frame, None, 3, *how)[2]

    index[torch.arange(count)[~torch.isin(torch.arange(count), near)]] = 9  # of no frame
    one_by_one = torch.zeros_like(gradient(near[:1]))
    for box in near:
        one_by_one = one_by_one + gradient(box[None])
    torch.testing.assert_close(gradient(torch.arange(count)), one_by_one, rtol=1e-6, atol=1e-6)
    assert torch.equal(gradient(torch.arange(count)), gradient(near))


@pytest.mark.parametrize("op", ["crop_resize", "crop_mean"])
def test_wide_offsets_give_the_same(op, device, monkeypatch):
    """Images of more than 2^31 elements are read by 64-bit offsets, smaller ones by 32-bit offsets."""
    frames = random_images((2, 2, 3, 11, 13), torch.float32, "strided").to(device)
    boxes, index = HOSTILE[:4].float().to(device), torch.tensor([3, 0, 0, 1]).to(device)

    def everything():
        if op == "crop_resize":
            out = crop_resize.fwd(frames, boxes, index, None, 4, 5, "border", False, torch.float32, False)
            yield from (out, crop_resize.bwd_boxes(out, frames, boxes, index, None, "border", False))
            size = (4, 11, 13, "border", False, torch.float32, False)
            yield crop_resize.bwd_frames(out, boxes, index, None, *size)
        else:
            out = crop_mean.fwd(frames, boxes, index, None, 4, 5, "border", torch.float32)
            yield from (out, crop_mean.bwd_boxes(out, frames, boxes, index, None, 4, 5, "border"))
            yield crop_mean.bwd_frames(out, boxes, index, None, 4, 11, 13, 4, 5, "border", torch.float32, False)

    narrow = list(everything())
    assert images.Images.of(frames).span() < 2**31
    monkeypatch.setattr(images.Images, "span", lambda self: 2**31)
    assert all(map(torch.equal, narrow, everything()))


def test_images_of_more_than_2_31_elements_have_wide_offsets():
    frames = torch.empty(2, 1, 50_000, 50_000, dtype=torch.uint8, device="meta")
    for shape, offset in ((frames, images.tl.int64), (frames[..., :10, :10], images.tl.int32)):
        variant = images.Variant.of(images.Images.of(shape), 8, 8, "zeros", False)
        assert variant.offset.value == offset

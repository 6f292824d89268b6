"""The Triton kernels: what the suites of all backends do not show."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from test_weighted_sample import KNOWN_ANSWERS

import adafocus_ops
from adafocus_ops.examples.tensors import random_images, random_rows
from conftest import device_of, require_backend
from made_once import made_once

triton = pytest.importorskip("triton", reason="Triton is not installed")
tl = triton.language
images = pytest.importorskip("adafocus_ops._triton.images")
philox = pytest.importorskip("adafocus_ops._triton.philox")
rows = pytest.importorskip("adafocus_ops._triton.rows")
crop_resize = pytest.importorskip("adafocus_ops._triton.crop_resize")
crop_mean = pytest.importorskip("adafocus_ops._triton.crop_mean")
weighted_sample = pytest.importorskip("adafocus_ops._triton.weighted_sample")


# ----------------------------------------------------------------------------------------------------
# Compiled for GPUs that are not here


ARCHITECTURES = (86, 90)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory) -> list[dict]:
    return made_once(tmp_path_factory, "triton", _compile)


def _compile() -> list[dict]:
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


def test_an_op_is_one_launch(compiled):
    """The gate is one for the scores and one for the lists, the gradient of a convolution's weight one for the sums of
    slices and one for theirs."""
    for kernel in compiled:
        two = kernel["case"].startswith(("exit_gate", "depthwise_conv3d bwd_weight"))
        assert kernel["launches"] == (2 if two else 1), kernel


def test_a_launch_is_one_grid_axis_and_an_allocation(compiled):
    """Grid axes 1 and 2 are short; nothing that a CUDA graph could not capture surrounds the launch."""
    harmless = {"empty", "empty_like", "view", "detach"}  # the last two move nothing
    for kernel in compiled:
        assert len(kernel["grid"]) == 1, kernel
        assert {name.split(".")[1] for name in kernel["operators"]} <= harmless, kernel


def test_channels_are_accessed_together(compiled):
    """16 bytes of a channels_last feature map at a time, the 4 bytes of a pixel of four channels."""
    for kernel in compiled:
        if kernel["case"].startswith("crop_resize") and kernel["case"].endswith(", feature map"):
            assert not {name for name in kernel["ptx"] if name.endswith(("b8", "b16"))}, kernel
            assert "ld.global.v4.b32" in kernel["ptx"], kernel
        if kernel["case"] == "crop_resize fwd, pixels of four":
            assert not {name for name in kernel["ptx"] if name.endswith(("b8", "b16"))}, kernel


@pytest.mark.parametrize("op", ["gather_rows", "scatter_rows", "temporal_shift"])
def test_dense_rows_move_in_16_bytes(op, compiled):
    dense = [k for k in compiled if k["case"].startswith(op) and k["case"].endswith((", planes", ", pixels"))]
    assert len(dense) == 2 * len(ARCHITECTURES)
    for kernel in dense:
        moved = {name for name in kernel["ptx"] if name.endswith(("b8", "b16", "b32"))}
        assert moved == {"ld.global.v4.b32", "st.global.v4.b32"}, kernel


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


@triton.jit
def _words(out, seed, row, draw, first, stream: tl.constexpr):
    draws = tl.zeros([1, 1], tl.int32) + draw
    words = philox.random_words(seed, tl.load(row), stream, draws, tl.load(first), 8)
    tl.store(out + tl.arange(0, 8)[None, :], words.to(tl.int64))


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN_ANSWERS)
def test_random_words_are_the_published_ones(counter, key, words, device):
    group, draw, row_low, row_high = (int(word, 16) for word in counter.split())
    key_low, key_high = (int(word, 16) for word in key.split())
    numbers = torch.tensor([key_low | key_high << 32, row_low | row_high << 32, 4 * group], dtype=torch.uint64)
    numbers = numbers.view(torch.int64).to(device)
    out = torch.empty(8, dtype=torch.int64, device=device)
    stream = draw & 0x80000000
    _words[(1,)](out, numbers[0:], numbers[1:], draw - stream, numbers[2:], stream)
    assert [f"{word:08x}" for word in out[:4].tolist()] == words.split()
    assert len(set(out.tolist())) == 8  # the next group


@pytest.mark.parametrize("k", [1, 2, 5, 8, 20, 37])
def test_draws_of_long_rows_are_merged(k, device, monkeypatch):
    """A program that holds 8 arrivals draws what one that holds all does: blocks of items, rounds of draws."""
    weights = random_rows((3, 37), torch.float32, "contiguous", scale=3).exp().to(device)
    weights[:, 5::7] = 0
    seed = torch.tensor([11], device=device)
    whole = weighted_sample.fwd(weights, k, 2, seed, None)
    monkeypatch.setattr(weighted_sample, "KEYS_PER_BLOCK", 8)
    assert torch.equal(weighted_sample.fwd(weights, k, 2, seed, None), whole)


@pytest.mark.parametrize("shape", [(2, 3, 3, 11, 13), (7, 5), (4, 3, 1, 2)])
def test_rows_of_any_size_and_strides_are_moved(shape, device, monkeypatch):
    """By numbers of elements of 64 bits as by those of 32, of types of 1 to 16 bytes."""
    index = torch.tensor([3, -1, 0, 1]).to(device)
    of = rows.Variant.of
    for wide in (False, True):
        if wide:
            monkeypatch.setattr(rows.Variant, "of", lambda *args: of(*args)._replace(offset=tl.constexpr(tl.int64)))
        for dtype in (torch.bool, torch.int16, torch.float32, torch.complex64, torch.complex128):
            for order in (range(len(shape)), reversed(range(len(shape)))):
                x = random_rows(shape, torch.float64, "strided", scale=2).permute(*order).to(dtype).to(device)
                expected, got = (adafocus_ops.gather_rows(x, index, backend=name) for name in ("reference", "triton"))
                assert torch.equal(got, expected)
                assert got.stride() == expected.stride()
                expected, got = (
                    adafocus_ops.scatter_rows(x.clone(), index, x[:1].expand(4, *x.shape[1:]), backend=name)
                    for name in ("reference", "triton")
                )
                assert torch.equal(got, expected)


def test_rows_of_more_than_2_31_elements_are_counted_in_64_bits():
    for elements, offset in ((2**31, tl.int64), (2**31 - 10_000, tl.int32), (2**31 - 1, tl.int64)):
        _, target = rows.Rows.pair(*(torch.empty(2, 4, dtype=torch.uint8, device="meta") for _ in range(2)))
        assert rows.Variant.of(target, 2, elements).offset.value == offset


@pytest.mark.parametrize("criterion", ["entropy", "confidence"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_scores_of_many_classes(criterion, dtype, device):
    """A row in several blocks: the largest logit last, nothing in the first block, numbers that are none."""
    logits = random_rows((8, 4500), dtype, "contiguous", scale=3)
    logits[1, -1] = 50
    logits[2, :2048] = -torch.inf
    logits[3] = -torch.inf
    logits[4] = -torch.finfo(dtype).max
    logits[5, 4400], logits[6, 7], logits[7, 7] = torch.nan, torch.nan, torch.inf
    got = adafocus_ops.exit_gate(logits.to(device), 0.5, criterion=criterion, capacity=8, backend="triton")
    share = logits.double().softmax(1)
    exact = share.amax(1) if criterion == "confidence" else torch.special.entr(share).sum(1)
    tolerance = 20 * torch.finfo(dtype).eps
    torch.testing.assert_close(got.score.cpu().double(), exact, rtol=tolerance, atol=tolerance, equal_nan=True)
    assert torch.equal(got.exited.cpu(), exact >= 0.5 if criterion == "confidence" else exact <= 0.5)


@pytest.mark.parametrize("capacity", [2500, 1100, 3])
def test_long_lists_of_rows(capacity, device):
    """More rows, and more active ones, than the gate looks at together."""
    logits = random_rows((2500, 2), torch.float32, "contiguous", scale=3).to(device)
    active = torch.randperm(2500, generator=torch.Generator().manual_seed(0))[:2000].to(device)
    got, expected = (
        adafocus_ops.exit_gate(logits, 0.3, active=active, capacity=capacity, backend=name)
        for name in ("triton", "reference")
    )
    assert expected.counts.min() > 600
    assert all(map(torch.equal, got[1:], expected[1:]))

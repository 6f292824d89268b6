"""The harness that runs CUDA kernels on the host: that it does what a GPU does, and finds what is wrong."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from op_specs import random_images, smooth_boxes
from torch import Tensor

from adafocus_ops import backends
from conftest import require_backend
from cuda_on_host.backend import NAME, CropMean, CropResize
from cuda_on_host.build import CSRC
from cuda_on_host.harness import Harness, KernelError


@pytest.fixture(autouse=True)
def _needs_the_harness(request):
    require_backend(request, "crop_resize", NAME, "cpu")


# ----------------------------------------------------------------------------------------------------
# Small kernels that do one thing each, rightly or wrongly: tests/cuda_on_host/selftest.cu

WORDS = torch.arange(2048, dtype=torch.int32) * 3 + 1


@pytest.fixture(scope="module")
def selftest() -> Iterator[Harness]:
    harness = Harness("selftest")
    yield harness
    harness.close()


def run(
    harness: Harness, kernel: str, choice: int = 0, *, block: int = 64, grid: int = 1, shared: int | None = None
) -> list[int]:
    """What the kernel writes, [grid block], from as many WORDS; -7 where it does not."""
    count = grid * block
    out, words = torch.full((count,), -7, dtype=torch.int32), WORDS[:count].clone()
    harness.call(kernel, out, words, grid, block, 4 * block if shared is None else shared, choice)
    return out.tolist()


@pytest.mark.parametrize("kernel", ["reverse", "reverse_warp"])
def test_a_missing_barrier_shows(selftest, kernel):
    words = WORDS[:64].tolist()
    reversed_words = words[::-1] if kernel == "reverse" else words[31::-1] + words[:31:-1]
    for _ in range(10):
        assert run(selftest, kernel) == reversed_words
        without = run(selftest, kernel, 1)
        assert without != reversed_words
        assert set(without) <= {-1, *words}  # some words had not been written


@pytest.mark.parametrize("choice", [0, 1], ids=["dynamic", "static"])
def test_shared_memory_holds_nothing_when_a_block_starts(selftest, choice):
    assert run(selftest, "untouched", choice, block=32, grid=4) == [-1] * 128


def test_a_barrier_does_not_wait_for_threads_that_have_ended(selftest):
    assert run(selftest, "some_leave") == [-7, 32] * 32


def test_votes(selftest):
    def votes(words: Tensor) -> list[list[int]]:
        out = []
        for choice in range(6):
            got = torch.zeros(64, dtype=torch.int32)
            selftest.call("votes", got, words, 1, 64, 0, choice)
            out.append(got.tolist())
        return out

    some = torch.zeros(64, dtype=torch.int32)
    some[[3, 7, 40]] = torch.tensor([1, -5, 2], dtype=torch.int32)
    first_warp, second_warp = [0b10001000] * 32, [1 << 8] * 32
    assert votes(some) == [[3] * 64, [1] * 64, [0] * 64, first_warp + second_warp, [1] * 64, [0] * 64]
    assert votes(torch.ones(64, dtype=torch.int32)) == [[64] * 64, [1] * 64, [1] * 64, [-1] * 64, [1] * 64, [1] * 64]
    assert votes(torch.zeros(64, dtype=torch.int32)) == [[0] * 64] * 6


def test_shuffles_within_groups_of_a_warp(selftest):
    def expected(source) -> list[int]:
        return [int(WORDS[source(lane, lane // 8 * 8)]) for lane in range(64)]

    assert run(selftest, "shuffles", 0) == expected(lambda lane, first: first + 3)
    assert run(selftest, "shuffles", 1) == expected(lambda lane, first: lane - 3 if lane - 3 >= first else lane)
    assert run(selftest, "shuffles", 2) == expected(lambda lane, first: lane + 3 if lane + 3 < first + 8 else lane)
    assert run(selftest, "shuffles", 3) == expected(lambda lane, first: lane ^ 3)


def test_shuffles_carry_all_bits_of_every_type(selftest):
    assert run(selftest, "shuffled_types", block=1024) == [5] * 1024


def test_part_of_a_warp_may_work_by_itself(selftest):
    words = WORDS[:16].tolist()
    swapped = [words[i ^ 1] for i in range(16)]
    assert run(selftest, "half_warp", block=32) == swapped + [0] * 16


@pytest.mark.parametrize(
    ("kernel", "choice", "block", "message"),
    [
        ("half_warp", 1, 32, r"at __shfl_xor_sync \(selftest.cu:\d+\) with mask 0xff00, which lacks its own lane"),
        ("half_warp", 2, 32, "with mask 0xffff, which lacks lane 16 that thread 0 reads"),
        ("half_warp", 3, 32, "lanes 0x.* have ended or do not exist|ended, but thread .* waits for it"),
        (
            "half_warp",
            4,
            32,
            r"deadlock: threads 0-15 at __shfl_xor_sync \(.*\) with mask 0xffffffff; threads 16-31 at __syncthreads",
        ),
        ("reverse_warp", 0, 48, "of which lanes 0xffff0000 have ended or do not exist"),
        ("two_barriers", 0, 64, r"at __syncthreads \(.*\), but thread \d+ waits at __syncthreads \(.*\)"),
        ("untouched", 0, 1025, "invalid configuration argument"),
    ],
)
def test_what_threads_may_not_do_together(selftest, kernel, choice, block, message):
    for _ in range(5):
        with pytest.raises(KernelError, match=message):
            run(selftest, kernel, choice, block=block)


def test_too_much_shared_memory_is_refused(selftest):
    most = 99 * 1024
    assert run(selftest, "reverse", shared=most)[0] == WORDS[63]
    with pytest.raises(KernelError, match="invalid configuration argument"):
        run(selftest, "reverse", shared=most + 1)
    with pytest.raises(KernelError, match=f"the block has {most + 128} bytes of shared memory"):
        run(selftest, "untouched", shared=most)


def test_asynchronous_copies_arrive_with_the_wait(selftest):
    def copied(choice: int) -> Tensor:
        out = torch.zeros(128, dtype=torch.int32)
        selftest.call("copies", out, WORDS[:132], 1, 32, 512, choice)
        return out

    assert torch.equal(copied(0), WORDS[:128])
    with pytest.raises(KernelError, match=r"use-after-poison(.|\n)*in copies(.|\n)*in block \(0, 0, 0\), thread \d+"):
        copied(1)
    with pytest.raises(KernelError, match="ended without waiting for its 1 asynchronous copies"):
        copied(2)
    with pytest.raises(KernelError, match="must be 16-byte aligned"):
        copied(3)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (0, r"heap-buffer-overflow(.|\n)*READ of size 4"),
        (1, r"heap-buffer-overflow(.|\n)*WRITE of size 4"),
        (2, r"heap-buffer-overflow(.|\n)*READ of size 4"),
        (3, r"global-buffer-overflow(.|\n)*READ of size 4"),
        (4, r"misaligned address .* which requires 16 byte alignment"),
        (5, r"shift exponent 1024 is too large"),
        (6, r"nan is outside the range of representable values"),
        (7, r"it wrote into an argument"),
    ],
)
def test_a_stray_access_is_found_and_the_next_call_runs(selftest, choice, message):
    with pytest.raises(KernelError, match=message):
        run(selftest, "stray", choice, block=32)
    assert run(selftest, "reverse")[0] == WORDS[63]


def test_the_order_of_threads_and_blocks_follows_the_seed():
    def order(seed: int) -> tuple[int, ...]:
        harness.seeds = itertools.count(seed)
        out = torch.zeros(1 + 4 * 32, dtype=torch.int32)
        harness.call("order", out, WORDS, 4, 32, 0, 0)
        assert sorted(out[1:].tolist()) == list(range(128))
        return tuple(out[1:].tolist())

    harness = Harness("selftest")
    orders = [order(seed) for seed in range(8)]
    assert len(set(orders)) == 8
    assert len({tuple(thread // 32 for thread in order) for order in orders}) > 4  # the blocks' order, too
    assert order(3) == orders[3]
    harness.close()
    assert order(3) == orders[3]
    harness.close()


def test_instructions(selftest):
    out, words = torch.zeros(5, dtype=torch.int32), torch.tensor([0x44332211, 0x08776655], dtype=torch.int32)
    selftest.call("bits", out, words, 1, 1, 0, 0x7042)
    assert [word & 0xFFFFFFFF for word in out.tolist()] == [0x08115533, 0x55443322, 10, 1, 1]
    with pytest.raises(KernelError, match="selector 0x8"):
        selftest.call("bits", out, words, 1, 1, 0, 0x8)


# ----------------------------------------------------------------------------------------------------
# The library's kernels

OPS = {"crop_resize": CropResize, "crop_mean": CropMean}
PARTS = ("fwd", "bwd_boxes", "bwd_frames")


def arguments(op: str, part: str, boxes_count: int) -> tuple:
    """Of one of an op's raw ops: boxes on three frames of noise."""
    n, c, h, w = shape = (3, 3, 40, 50)
    size = (12, 10)
    frames = random_images(shape, torch.float32, "contiguous", seed=1)
    boxes = smooth_boxes(boxes_count, size, (h, w), seed=2).float()
    index = torch.arange(boxes_count) * 2 % n
    patches = size if op == "crop_resize" else (1, 1)
    grad = random_images((boxes_count, c, *patches), torch.float32, "contiguous", seed=3)
    if op == "crop_resize":
        call = ("zeros", False)
    else:
        grad, call = grad[..., 0, 0], (*size, "zeros")
    layout = (torch.float32, False)  # of a result: its dtype, and whether it is channels_last
    if part == "bwd_boxes":
        return grad, frames, boxes, index, None, *call
    if part == "bwd_frames":
        return grad, boxes, index, None, n, h, w, *call, *layout
    if op == "crop_resize":
        return frames, boxes, index, None, *size, *call, *layout
    return frames, boxes, index, None, *call, torch.float32


@pytest.fixture(scope="module", params=OPS)
def op(request) -> Iterator[tuple[str, CropResize | CropMean]]:
    """An op's name and its kernels."""
    kernels = OPS[request.param]()
    yield request.param, kernels
    kernels.harness.close()


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("boxes_count", [5, 300])
def test_results_do_not_depend_on_the_order_of_threads(op, part, boxes_count):
    name, kernels = op
    call = arguments(name, part, boxes_count)
    first, *others = [getattr(kernels, part)(*call) for _ in range(4)]
    assert first.isfinite().all()
    assert all(torch.equal(first, other) for other in others)


class Mutation(NamedTuple):
    """A mistake to make in a file of csrc/cuda, and the part of an op that it spoils."""

    op: str
    part: str
    file: str
    right: str
    wrong: str

    def edits(self) -> dict[Path, str]:
        path = CSRC / "cuda" / self.file
        text = path.read_text()
        assert text.count(self.right) == 1, f"{self.file} has {self.right!r} {text.count(self.right)} times"
        return {path: text.replace(self.right, self.wrong)}


MUTATIONS = {
    "no barrier after staging": Mutation(
        "crop_resize",
        "fwd",
        "crop_resize_fwd_staged.cu",
        right="rows.stage(first, count);\n    __syncthreads();\n",
        wrong="rows.stage(first, count);\n",
    ),
    "one pixel too many": Mutation(
        "crop_mean",
        "fwd",
        "crop_mean.cu",
        right="n < weights.pixels(); n +=",
        wrong="n <= weights.pixels(); n +=",
    ),
    "a warp's sum without its last step": Mutation(
        "crop_mean",
        "bwd_boxes",
        "crop.cuh",
        right="distance > 0; distance /= 2",
        wrong="distance > 1; distance /= 2",
    ),
}


def mistake(op: str, part: str, kernels: CropResize | CropMean) -> str | None:
    """What the harness reports, or how wrong a result is, of a few calls in different orders of threads."""
    call = arguments(op, part, 5)
    in_double = {torch.float32: torch.float64}
    exact_call = [
        value.double() if isinstance(value, Tensor) and value.is_floating_point() else in_double.get(value, value)
        for value in call
    ]
    exact = backends.kernels(op, "reference")[PARTS.index(part)](*exact_call)
    for _ in range(4):
        try:
            got = getattr(kernels, part)(*call)
        except KernelError as error:
            return str(error)
        error = (got.double() - exact).abs().max() / exact.abs().max()
        if not error < 1e-4:  # far above what rounding does, far below what a mutation should
            return f"the result is off by {error:.1e}"
    return None


@pytest.mark.parametrize("mutation", MUTATIONS.values(), ids=MUTATIONS)
def test_a_mistake_in_a_kernel_is_caught(mutation):
    sound, spoilt = OPS[mutation.op](), OPS[mutation.op](mutation.edits())
    try:
        assert mistake(mutation.op, mutation.part, sound) is None
        assert mistake(mutation.op, mutation.part, spoilt)
    finally:
        sound.harness.close()
        spoilt.harness.close()

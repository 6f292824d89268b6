"""Bank conflicts of the CUDA kernels, counted on the host: that they are counted rightly, and that no kernel has more
than those that are listed here with their causes."""

from collections.abc import Iterator
from typing import NamedTuple

import pytest
import torch
from raw_calls import raw_calls

from adafocus_ops.examples import EXAMPLES, Example
from adafocus_ops.examples.tensors import distributions, random_clips, random_images, random_rows
from conftest import require_backend
from cuda_on_host.backend import LAUNCHERS, NAME, HostOp
from cuda_on_host.build import ROOT
from cuda_on_host.harness import Conflicts, Harness, bank_conflicts
from cuda_on_host.worker import CHOICE


@pytest.fixture(autouse=True)
def _needs_the_harness(request):
    require_backend(request, "crop_resize", NAME, "cpu")


def text_of(line: str) -> str:
    """The text of "file:line"."""
    path, _, number = line.rpartition(":")
    return (ROOT / path).read_text().splitlines()[int(number) - 1].strip()


# ----------------------------------------------------------------------------------------------------
# What is counted


@pytest.fixture(scope="module")
def selftest() -> Iterator[Harness]:
    harness = Harness("selftest", mode="races")
    yield harness
    harness.close()


def read(harness: Harness, element: int, step: int, block: int = 64) -> Conflicts:
    """The reads of elements of so many bytes, `step` of them apart, which others have written side by side."""
    words = torch.arange(block, dtype=torch.int32)
    with bank_conflicts() as table:
        shared = block * (step + 1) * element
        harness.call(f"strided<{element}>", torch.zeros_like(words), words, 1, block, shared, step)
    reads, writes = sorted(table.values())
    assert writes.ratio == 1
    return reads


@pytest.mark.parametrize(
    ("element", "step", "ideal", "ratio"),
    [
        (4, 1, 1, 1),
        (4, 0, 1, 1),  # all lanes the same word
        (4, 2, 1, 2),
        (4, 32, 1, 32),
        (4, 33, 1, 1),
        (1, 1, 1, 1),  # four lanes a word
        (1, 8, 1, 2),
        (8, 1, 2, 1),  # half a warp at a time
        (8, 2, 2, 2),
        (16, 1, 4, 1),  # a quarter
        (16, 0, 4, 1),
        (16, 2, 4, 2),
        (16, 3, 4, 1),
    ],
)
def test_lanes_that_want_other_words_of_a_bank_wait(selftest, element, step, ideal, ratio):
    assert read(selftest, element, step) == Conflicts(2, int(2 * ideal * ratio), 2 * ideal)


def test_lanes_that_do_not_take_part_cost_nothing(selftest):
    assert read(selftest, 4, 2, block=16) == Conflicts(1, 1, 1)
    assert read(selftest, 16, 2, block=12) == Conflicts(1, 3, 2)


def test_nothing_is_counted_unless_asked_for(selftest):
    words = torch.arange(32, dtype=torch.int32)
    selftest.call("strided<4>", torch.zeros_like(words), words, 1, 32, 256, 1)
    with bank_conflicts() as table:
        pass
    assert table == {}


# ----------------------------------------------------------------------------------------------------
# The library's kernels


def crops(channels: int, size: tuple[int, int], patch: tuple[int, int], dtype: torch.dtype, layout: str) -> Example:
    boxes = torch.tensor([[0.5, 0.5, 0.7, 0.7], [0.4, 0.6, 0.45, 0.55], [0.3, 0.4, 0.5, 0.6]]) * torch.tensor(size * 2)
    frames = random_images((2, channels, *size), dtype, layout)
    return Example(layout, (frames, boxes, patch), {"frame_index": torch.tensor([0, 1, 1])})


def typical(op: str) -> Iterator[Example]:
    """Calls of the forms that are fast, no larger than it takes to fill some blocks."""
    if op == "crop_resize":
        for dtype in (torch.uint8, torch.float32):
            for layout in ("contiguous", "channels_last"):
                yield crops(3, (56, 80), (24, 40), dtype, layout)
        for channels in (8, 32, 64):
            yield crops(channels, (28, 30), (9, 11), torch.float32, "channels_last")
    elif op == "crop_mean":
        for layout in ("contiguous", "channels_last"):
            yield crops(70, (7, 7), (3, 3), torch.float32, layout)
    elif op == "weighted_sample":
        weights = distributions(1, 5000, torch.float32, "contiguous")
        yield Example("many draws", (weights, 1500), {"num_samples": 1, "seed": torch.tensor(3)})
    elif op == "expected_value":
        values = random_rows((2, 40, 200), torch.float32, "contiguous")
        weights = distributions(2, 40, torch.float32, "contiguous")
        gradient = {"normaliser_grad": True}
        yield Example("samples", (values, weights, 5), {"num_samples": 33, "seed": torch.tensor(7), **gradient})
        yield Example("exact", (values, weights, 2), {"mode": "exact", **gradient})
    elif op == "depthwise_conv3d":
        weight, bias = random_rows((32, 1, 3, 3, 3), torch.float16, "contiguous"), torch.zeros(32, dtype=torch.float16)
        for layout in ("contiguous", "channels_last"):
            x = random_clips((1, 32, 4, 7, 7), torch.float16, layout)
            yield Example(layout, (x, weight, bias), {"padding": 1})
    else:
        yield EXAMPLES[op].any_size(300)


# The most transactions for each that is needed, in all lines of a call together, by part. (Others use no
# shared memory.)
MOST = {
    ("crop_resize", "fwd"): 1.4,
    ("crop_resize", "fwd_out"): 1.4,
    ("crop_resize", "bwd_boxes"): 1.4,
    ("crop_resize", "bwd_frames"): 1.1,
    ("crop_mean", "fwd"): 2.3,
    ("crop_mean", "bwd_boxes"): 1,
    ("crop_mean", "bwd_frames"): 1,
    ("weighted_sample", "fwd"): 1.6,
    ("expected_value", "fwd"): 1.3,
    ("expected_value", "bwd_weights"): 2.8,
    ("exit_gate", "fwd"): 1,
    ("depthwise_conv3d", "fwd"): 1.6,
    ("depthwise_conv3d", "bwd_x"): 1.6,
    ("depthwise_conv3d", "bwd_weight"): 3.6,
}


class Known(NamedTuple):
    """A line with more than twice the transactions that are needed.

    Args:
        file: of csrc/cuda.
        text: the line's.
        ratio: the most transactions for each that is needed, in any call.
        cause: why.
    """

    file: str
    text: str
    ratio: float
    cause: str


JOINED = "none on a GPU: its compiler joins the unrolled loop into one access of 16 bytes"

KNOWN = {
    "crop_mean": (
        Known(
            "crop_mean.cu",
            "partial[slice * columns + column] = sums;",
            8,
            "in planes, neighbours are slices of the pixels, whose sums lie `columns` groups apart",
        ),
    ),
    "weighted_sample": (
        Known(
            "weighted_sample.cu",
            "if (key >= begin && key < end) sorted[atomicAdd(&gathered[0], 1u)] = key;",
            3,
            "few on a GPU: lanes that add together get places side by side, threads in random order do not",
        ),
    ),
    "expected_value": (
        Known(
            "channel_group.cuh",
            "for (int c = 0; c < kGroup; ++c) packed.value[c] = Store<T>::from(group[c]);",
            3.5,
            JOINED,
        ),
        Known(
            "expected_value.cuh",
            "for (int i = 0; i < kRun; ++i) partial[thread_index()][i] = of_warp[run * kRun + i];",
            4,
            JOINED,
        ),
        Known(
            "expected_value_bwd_weights.cu",
            "if (c < channels) sum += value[c] * gradient[d + c];",
            3.5,
            "lanes read every fourth word, since what is left of the depth may be less than a group",
        ),
    ),
    "depthwise_conv3d": (
        Known(
            "depthwise_conv3d_taps.cuh",
            "weights[i % taps * columns + c / kLanes].value[c % kLanes] = given[i];",
            22.6,
            "neighbours in memory are taps of a channel, which are staged as far apart as a block has channels",
        ),
        Known(
            "depthwise_conv3d_bwd_weight.cu", "for (int c = 0; c < kLanes; ++c) own.value[c] = sum[k][c];", 4, JOINED
        ),
        Known(
            "depthwise_conv3d_bwd_weight.cu",
            "for (int c = 0; c < kLanes; ++c) own.value[c] += other.value[c];",
            3.5,
            JOINED,
        ),
    ),
}


def ratio_of(table: dict[str, Conflicts]) -> float:
    """The transactions for each that is needed, in all lines together."""
    return sum(line.transactions for line in table.values()) / sum(line.ideal for line in table.values())


@pytest.mark.parametrize("op", LAUNCHERS)
def test_kernels_have_no_more_conflicts_than_are_known(monkeypatch, op):
    monkeypatch.setenv(CHOICE, "fast")
    known = {(line.file, line.text): line.ratio for line in KNOWN.get(op, ())}
    host, parts, seen = HostOp(op, mode="races"), set(), set()
    try:
        for call in (call for example in typical(op) for call in raw_calls(op, example)):
            with bank_conflicts() as table:
                host.kernel(call.part)(*call.arguments.values())
            if table:
                parts.add(call.part)
                assert ratio_of(table) <= MOST[op, call.part], call.part
            for line, found in table.items():
                place = line.rpartition(":")[0].removeprefix("csrc/cuda/"), text_of(line)
                assert found.ratio <= known.get(place, 2), f"{call.part}, {line}: {found}"
                if found.ratio > 1.5:  # well below 2, since the order of threads may change it a little
                    seen.add(place)
    finally:
        host.harness.close()
    assert parts == {part for name, part in MOST if name == op}, "other parts use shared memory"
    assert known.keys() <= seen, "some of these lines have no conflicts any more"

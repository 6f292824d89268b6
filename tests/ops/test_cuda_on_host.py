"""The harness that runs CUDA kernels on the host: that it does what a GPU does, and finds what is wrong."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from raw_calls import RawCall, raw_calls
from torch import Tensor

from adafocus_ops import backends
from adafocus_ops.examples import EXAMPLES
from conftest import require_backend
from cuda_on_host import build
from cuda_on_host.backend import LAUNCHERS, NAME, HostOp
from cuda_on_host.build import CSRC
from cuda_on_host.harness import Harness, KernelError, shortened


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


def test_reductions_over_part_of_a_warp(selftest):
    words = (WORDS[:64].long() * 0x9E3779B1).to(torch.int32)  # with and without the highest bit: they are unsigned
    halves = [[word & 0xFFFFFFFF for word in half.tolist()] for half in words.view(4, 16)]
    for choice, reduce in enumerate((min, max, lambda half: sum(half) & 0xFFFFFFFF)):
        got = torch.zeros(64, dtype=torch.int32)
        selftest.call("reductions", got, words, 1, 64, 0, choice)
        expected = [reduce(half) for half in halves for _ in half]
        assert [word & 0xFFFFFFFF for word in got.tolist()] == expected


def test_atomic_additions_give_every_thread_a_place(selftest):
    orders = {tuple(run(selftest, "places")) for _ in range(4)}
    assert len(orders) > 1
    assert all(sorted(order) == WORDS[:64].tolist() for order in orders)


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
        (0, r"use-after-poison(.|\n)*READ of size 4"),
        (1, r"use-after-poison(.|\n)*WRITE of size 4"),
        (2, r"use-after-poison(.|\n)*READ of size 4"),
        (3, r"use-after-poison(.|\n)*READ of size 4"),
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


@pytest.mark.parametrize("kernel", ["far<false>", "far<true>"], ids=["global", "shared"])
@pytest.mark.parametrize("words", [768, 15000, -768, -15000])
def test_an_access_far_beside_an_array_is_found(selftest, kernel, words):
    with pytest.raises(KernelError, match=r"use-after-poison(.|\n)*READ of size 4"):
        run(selftest, kernel, words, block=1024)


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


def test_blocks_run_in_turns(selftest):
    def total(choice: int) -> int:
        out = torch.zeros(6, dtype=torch.int32)
        selftest.call("words_of_blocks", out, WORDS[:4], 4, 8, 0, choice)
        return int(out[5])

    right = int(WORDS[:4].sum())
    assert all(total(0) == right for _ in range(10))
    assert any(total(1) != right for _ in range(200))  # never if each ended before the next began


def test_places_in_reports_do_not_depend_on_where_the_checkout_lies(monkeypatch):
    monkeypatch.setattr(build, "ROOT", Path("/a/long/way") / ("down" * 60))
    line = f"    #0 0x7f in adafocus::copy_rows(int) {build.ROOT}/csrc/cuda/copy_rows.cuh:42"
    assert shortened(f"{line}\n{'x' * 500}") == f"{line.replace(f'{build.ROOT}/', '')}\n{'x' * 180}"


def test_instructions(selftest):
    out, words = torch.zeros(5, dtype=torch.int32), torch.tensor([0x44332211, 0x08776655], dtype=torch.int32)
    selftest.call("bits", out, words, 1, 1, 0, 0x7042)
    assert [word & 0xFFFFFFFF for word in out.tolist()] == [0x08115533, 0x55443322, 10, 1, 1]
    with pytest.raises(KernelError, match="selector 0x8"):
        selftest.call("bits", out, words, 1, 1, 0, 0x8)


# ----------------------------------------------------------------------------------------------------
# The library's kernels

PARTS = [(op, part) for op in LAUNCHERS for part in LAUNCHERS[op]]


def calls(op: str, part: str, count: int) -> list[RawCall]:
    """The calls of a part, for so many boxes, items or rows."""
    return [call for call in raw_calls(op, EXAMPLES[op].any_size(count)) if call.part == part]


def results(kernel: Callable, call: RawCall) -> tuple[Tensor, ...]:
    """The tensors that a kernel returns, or writes into its argument `out`."""
    arguments = {name: value.clone() if name == "out" else value for name, value in call.arguments.items()}
    got = kernel(*arguments.values())
    return got if isinstance(got, tuple) else (arguments["out"] if got is None else got,)


@pytest.fixture(scope="module")
def kernels_of() -> Iterator[Callable[[str], HostOp]]:
    """The kernels of an op by its name."""
    kernels = {op: HostOp(op) for op in LAUNCHERS}
    yield kernels.__getitem__
    for op in kernels.values():
        op.harness.close()


@pytest.mark.parametrize(("op", "part"), PARTS)
@pytest.mark.parametrize("count", [5, 300])
def test_results_do_not_depend_on_the_order_of_threads(kernels_of, op, part, count):
    for call in calls(op, part, count):
        first, *others = [results(kernels_of(op).kernel(part), call) for _ in range(4)]
        assert all(result.isfinite().all() for result in first)
        for other in others:
            assert all(torch.equal(*pair) for pair in zip(first, other, strict=True))


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
    "an item is drawn twice": Mutation(
        "weighted_sample",
        "fwd",
        "race.cuh",
        right="time_[(run + 1) * kRun - 1] = kNever;",
        wrong="",
    ),
    "one of the slices of the items is not added": Mutation(
        "expected_value",
        "fwd",
        "expected_value.cu",
        right="half >= columns; half /= 2",
        wrong="half > columns; half /= 2",
    ),
    "a gradient is read before it is there": Mutation(
        "expected_value",
        "bwd_weights",
        "expected_value_bwd_weights.cu",
        right="gradient[d] = load_as<C>(from[d * grad.column_stride]);\n      }\n    });\n    __syncthreads();\n",
        wrong="gradient[d] = load_as<C>(from[d * grad.column_stride]);\n      }\n    });\n",
    ),
    "frames of a chunk of quantiles repeat those before": Mutation(
        "quantile_frames",
        "fwd",
        "quantile_frames.cu",
        right="least = __shfl_sync(kAllLanes, ahead, found - 1);",
        wrong="least = INT64_MIN;",
    ),
    "no barrier after staging": Mutation(
        "crop_resize",
        "fwd",
        "crop_resize_fwd_staged.cu",
        right="scanlines.stage(first, count);\n    __syncthreads();\n",
        wrong="scanlines.stage(first, count);\n",
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
        "warp.cuh",
        right="distance > 0; distance /= 2",
        wrong="distance > 1; distance /= 2",
    ),
    "the first block lists the rows": Mutation(
        "exit_gate",
        "fwd",
        "exit_gate.cu",
        right="atomicAdd(ticket, 1u) == gridDim.x - 1",
        wrong="atomicAdd(ticket, 1u) == 0",
    ),
    "no barrier before a warp's rows are listed": Mutation(
        "exit_gate",
        "fwd",
        "exit_gate.cu",
        right="of_warp[warp] = own;\n  __syncthreads();\n",
        wrong="of_warp[warp] = own;\n",
    ),
    "elements behind the row": Mutation(
        "gather_rows",
        "fwd",
        "move_elements.cuh",
        right="if (i < count) store(i, value[m]);",
        wrong="store(i, value[m]);",
    ),
    "a row is written that no row is": Mutation(
        "scatter_rows",
        "fwd",
        "scatter_rows.cu",
        right="if (row >= 0) copy_row",
        wrong="if (row >= -1) copy_row",
    ),
    "no barrier before the sums of the next tap": Mutation(
        "depthwise_conv3d",
        "bwd_weight",
        "depthwise_conv3d_bwd_weight.cu",
        right="__syncthreads();  // the sums are read before those of the next tap overwrite them",
        wrong="",
    ),
    "a vector is taken from the wrong frame": Mutation(
        "temporal_shift",
        "fwd",
        "temporal_shift.cu",
        right="int(2 * fold) - int(pieces.first)",
        wrong="int(2 * fold) + 1 - int(pieces.first)",
    ),
}


def mistake(op: str, part: str, kernels: HostOp) -> str | None:
    """What the harness reports, or how wrong a result is, of a few calls in different orders of threads."""
    call = calls(op, part, 5 if op.startswith("crop") else 40)[0]
    exact = results(backends.kernel(op, part, "reference"), call)
    for _ in range(4):
        try:
            got = results(kernels.kernel(part), call)
        except KernelError as error:
            return str(error)
        for result, right in zip(got, exact, strict=True):
            error = (result.double() - right.double()).abs().max() / right.double().abs().max()
            if not error < 1e-4:  # far above what rounding does, far below what a mutation should
                return f"a result is off by {error:.1e}"
    return None


@pytest.mark.parametrize("mutation", MUTATIONS.values(), ids=MUTATIONS)
def test_a_mistake_in_a_kernel_is_caught(mutation):
    sound, spoilt = HostOp(mutation.op), HostOp(mutation.op, mutation.edits())
    try:
        assert mistake(mutation.op, mutation.part, sound) is None
        assert mistake(mutation.op, mutation.part, spoilt), "the mistake changes nothing in the example of any size"
    finally:
        sound.harness.close()
        spoilt.harness.close()

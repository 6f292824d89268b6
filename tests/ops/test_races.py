"""The race detector: it sees what the order of threads hides, finds nothing in the kernels, and no barrier in them can
be spared."""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from raw_calls import RawCall, raw_calls

from adafocus_ops.examples import EXAMPLES, Example
from adafocus_ops.examples.tensors import distributions, random_images, random_rows, smooth_boxes
from conftest import require_backend
from cuda_on_host.backend import LAUNCHERS, NAME, HostOp
from cuda_on_host.build import CSRC
from cuda_on_host.harness import Harness, KernelError
from cuda_on_host.worker import CHOICE


@pytest.fixture(autouse=True)
def _needs_the_harness(request):
    require_backend(request, "crop_resize", NAME, "cpu")


# ----------------------------------------------------------------------------------------------------
# What it sees


@pytest.fixture(scope="module")
def selftest() -> Iterator[Harness]:
    harness = Harness("selftest", mode="races")
    yield harness
    harness.close()


def run(harness: Harness, kernel: str, choice: int, block: int = 64, grid: int = 1) -> None:
    words = torch.arange(grid * block, dtype=torch.int32)
    harness.call(kernel, torch.zeros_like(words), words, grid, block, 4 * block, choice)


@pytest.mark.parametrize(
    ("kernel", "choice", "grid", "message"),
    [
        ("reverse", 1, 1, r"race: (read after write|read of what the block has not written) at .*selftest.cu:\d+"),
        ("reverse_warp", 1, 1, r"race: read .* at .*selftest.cu:\d+"),
        ("untouched", 0, 1, "race: read of what the block has not written"),
        ("overwritten", 1, 1, r"race: (read after write|write after read) at .*cu:\d+, the earlier one at .*cu:\d+"),
        (
            "overwritten",
            2,
            1,
            "race: (read after write|write after read)",
        ),  # a shuffle orders nothing
        ("last_block", 1, 4, "race: read after write"),  # no barrier
        ("last_block", 2, 4, "race: read after write"),  # no fence before the ticket
        ("last_block", 3, 4, "race: read after write"),  # nor after it
        ("words_of_blocks", 1, 4, "race: (read after write|write after read)"),  # the ticket comes too early
        ("words_of_blocks", 2, 4, "race: (read after write|write after read)"),  # the first block reads
    ],
)
def test_a_race_shows_in_every_order(selftest, kernel, choice, grid, message):
    if choice != 0:
        run(selftest, kernel, 0, grid=grid)
    for _ in range(5):
        with pytest.raises(KernelError, match=message):
            run(selftest, kernel, choice, grid=grid)


# ----------------------------------------------------------------------------------------------------
# The library's kernels


def long(op: str) -> Iterator[Example]:
    """Examples for which every loop of the kernels runs at least twice."""
    if op == "exit_gate":
        yield EXAMPLES[op].any_size(5000)
        # More than the blocks that list rows take in a round, each of which then counts rows before its own.
        yield Example("many rows", (random_rows((34000, 2), torch.float32, "contiguous"), 0.6), {"capacity": 35000})
        logits = random_rows((300, 3), torch.float32, "contiguous")
        yield Example("rows listed twice", (logits, 1.0), {"active": torch.arange(600) // 2, "capacity": 300})
    if op == "weighted_sample":
        weights = distributions(2, 9000, torch.float32, "contiguous")
        yield Example("rounds", (weights, 5000), {"num_samples": 2, "seed": torch.tensor(3)})
    if op == "expected_value":
        weights = distributions(2, 20, torch.float32, "contiguous")
        for depth, draws in ((9000, {"num_samples": 2, "seed": torch.tensor(3)}), (40, {"mode": "exact"})):
            values = random_rows((2, 20, depth), torch.float32, "contiguous")
            yield Example(f"depth {depth}", (values, weights, 2), {"normaliser_grad": True, **draws})
    if op in ("crop_resize", "crop_mean"):
        index = torch.arange(600) % 2
        for layout in ("contiguous", "channels_last"):
            for channels, size in ((3, (40, 37)), (1100, (7, 7))):
                count = 600 if channels == 3 else 6
                frames = random_images((2, channels, *size), torch.float32, layout)
                boxes = smooth_boxes(count, (12, 5), size, seed=1)
                yield Example(layout, (frames, boxes, (12, 5)), {"frame_index": index[:count]})
        if op == "crop_resize":
            frames = random_images((2, 3, 40, 37), torch.uint8, "channels_last")
            # Over either edge and both, with the scanlines of a block at each place in a word.
            boxes = torch.tensor([[20.0, x, 40, w] for x, w in ((36, 30), (1, 30), (18, 80))]).repeat(4, 1)
            shifted = frames.new_empty(12, 40, 41, 3)[:, :, :37].permute(0, 3, 1, 2).copy_(frames[index[:12]])
            yield Example("edges", (shifted, boxes, (8, 40)), {})
            # At each place in a word from the first byte of the memory on, and at its very end.
            whole, last = torch.tensor([[8.0, 8, 16, 16]]), torch.tensor([[0, 1.5, 0.16, -0.25]])
            for offset in (1, 2, 3):
                first = random_images((1, 1, 1, 1204), torch.uint8, "contiguous").flatten()[offset:][:1200]
                yield Example("start", (first.view(1, 20, 20, 3).permute(0, 3, 1, 2), whole, (16, 16)), {})
            tiny = random_images((3, 3, 1, 3), torch.uint8, "channels_last")
            yield Example("end", (tiny, last, (8, 40)), {"frame_index": torch.tensor([2]), "padding": "border"})
            yield Example(
                "bytes", (frames, smooth_boxes(300, (70, 9), (40, 37), seed=2), (70, 9)), {"frame_index": index[:300]}
            )


def sample(op: str) -> list[Example]:
    """Of few and of many boxes, items or rows, and of many rounds."""
    return [*map(EXAMPLES[op].any_size, (5, 300)), *long(op)]


def run_call(op: HostOp, call: RawCall) -> None:
    arguments = {name: value.clone() if name == "out" else value for name, value in call.arguments.items()}
    op.kernel(call.part)(*arguments.values())


@pytest.fixture(scope="module")
def watched() -> Iterator[dict[str, HostOp]]:
    """The ops, their kernels watched."""
    ops = {op: HostOp(op, mode="races") for op in LAUNCHERS}
    yield ops
    for op in ops.values():
        op.harness.close()


@pytest.mark.parametrize("choice", ["fast", "any"])
@pytest.mark.parametrize(("op", "part"), [(op, part) for op in LAUNCHERS for part in LAUNCHERS[op]])
def test_kernels_have_no_races(watched, monkeypatch, op, part, choice):
    monkeypatch.setenv(CHOICE, choice)
    for example in sample(op):
        for call in raw_calls(op, example):
            if call.part == part:
                run_call(watched[op], call)


# With limits so small, blocks take several turns, which else takes more memory than there is. Of each file a few are
# changed, in turn.
SMALL_LIMITS = [
    {"launch.h": [("kMaxGridX = INT32_MAX, kMaxGridY = 65535", "kMaxGridX = 2, kMaxGridY = 2")]},
    {
        "frame_tiles.cuh": [
            ("kManyFrames = 256", "kManyFrames = 1"),
            ("kTileBytes = 32 * 1024", "kTileBytes = 4 * 1024"),
        ]
    },
]


def with_small_limits(edits: dict[Path, str], limits: dict[str, list[tuple[str, str]]]) -> dict[Path, str]:
    """Edits of csrc/cuda, and others that lower its limits."""
    edits = dict(edits)
    for name, changes in limits.items():
        path = CSRC / "cuda" / name
        text = edits.get(path, path.read_text())
        for large, small in changes:
            assert large in text, f"{name} no longer says {large}"
            text = text.replace(large, small)
        edits[path] = text
    return edits


def tiles_in_turn() -> Iterator[Example]:
    """Frames that blocks of several tiles make, of which each thread has one column: it goes on with a box from tile to
    tile."""
    for layout in ("contiguous", "channels_last"):
        for channels, width, padding in ((3, 200, "zeros"), (1, 140, "border"), (4, 32, "border"), (24, 40, "zeros")):
            frames = random_images((6, channels, 61, width), torch.float32, layout)
            sizes = [(0.9, 0.8), (-0.5, 0.7), (0.4, -1.2), (0.1, 0.1), (2.5, 3), (-0.02, 0.3)]
            boxes = torch.tensor([[30, width / 2, 61 * h, width * w] for h, w in sizes])
            yield Example(f"{channels} {layout}", (frames, boxes, (25, 30)), {"padding": padding})


def test_blocks_of_several_tiles_have_no_races_and_make_what_others_make(monkeypatch):
    op = HostOp("crop_resize", with_small_limits({}, SMALL_LIMITS[1]), mode="races")
    try:
        for example in (*sample("crop_resize"), *tiles_in_turn()):
            for call in (call for call in raw_calls("crop_resize", example) if call.part == "bwd_frames"):
                results = []
                for choice in ("fast", "any"):
                    monkeypatch.setenv(CHOICE, choice)
                    results.append(op.kernel(call.part)(*call.arguments.values()).double())
                torch.testing.assert_close(*results, rtol=0, atol=1e-5 * float(results[1].abs().max()) + 1e-30)
    finally:
        op.harness.close()


# ----------------------------------------------------------------------------------------------------
# Barriers and fences, each left out in turn

WAITS = re.compile(r"__(syncthreads|syncwarp|threadfence)\(\);")
# Those whose result is used are replaced by what a thread alone would say.
VOTES = re.compile(r"__syncthreads_(or|and|count)\(")
FILES = [path for path in sorted((CSRC / "cuda").iterdir()) if WAITS.search(path.read_text())]


def sites() -> Iterator:
    for path in FILES:
        text = path.read_text()
        for pattern in (WAITS, VOTES):
            for match in pattern.finditer(text):
                line = text.count("\n", 0, match.start()) + 1
                if text[: match.start()].rpartition("\n")[2].strip().startswith("//"):
                    continue
                alone = ";" if pattern is WAITS else "("
                edited = text[: match.start()] + alone + text[match.end() :]
                yield pytest.param(path, edited, id=f"{path.name}-{line}")


def ops_of(path: Path) -> list[str]:
    """The ops whose kernels a file is part of."""
    users, todo = {path}, [path.name]
    while todo:
        name = todo.pop()
        for other in (CSRC / "cuda").iterdir():
            if other not in users and f'"cuda/{name}"' in other.read_text():
                users.add(other)
                todo.append(other.name)
    names = {user.stem for user in users if user.suffix == ".cu"}
    return [op for op in LAUNCHERS if any(name.startswith(op) for name in names)]


def finds_a_race(monkeypatch: pytest.MonkeyPatch, name: str, edits: dict[Path, str]) -> bool:
    """A race, or threads that wait for each other, in any call of an op."""
    op = HostOp(name, edits, mode="races")
    calls = [
        call
        for example in (*sample(name), *EXAMPLES[name].small(torch.float32, "contiguous"))
        for call in raw_calls(name, example)
    ]
    try:
        for choice, call in itertools.product(("fast", "any"), calls):
            monkeypatch.setenv(CHOICE, choice)
            try:
                run_call(op, call)
            except KernelError as error:
                if "there are more than" not in str(error):  # else the edited kernels refuse the call
                    return True
    finally:
        op.harness.close()
    return False


@pytest.mark.slow
@pytest.mark.parametrize("op", LAUNCHERS)
@pytest.mark.parametrize("limits", [{}, *SMALL_LIMITS], ids=["", "small grids", "many tiles"])
def test_with_all_barriers_there_is_none(monkeypatch, op, limits):
    """Else the calls would show nothing about any one of them."""
    assert not finds_a_race(monkeypatch, op, with_small_limits({}, limits))


@pytest.mark.slow
@pytest.mark.parametrize(("path", "edited"), list(sites()))
def test_without_any_one_barrier_there_is_a_race(monkeypatch, path, edited):
    for edits in ({path: edited}, *(with_small_limits({path: edited}, limits) for limits in SMALL_LIMITS)):
        if any(finds_a_race(monkeypatch, name, edits) for name in ops_of(path)):
            return
    pytest.fail(f"{path.name} does not need it: remove it, or add a call that does")

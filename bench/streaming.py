"""Times streams of videos that leave early: python bench/streaming.py

Every model runs the same videos through Engine.stream, all to the last exit and with thresholds, in turns. Thresholds
are solved on the engine's own answers: for a share that leaves at the glance (MODEL/exit=0.319), or for a share of the
multiply-adds (MODEL/cost=0.5). Answers are checked against the simulation.

Clips are resident in memory, as uint8, and uploaded where there is a GPU; decoding is not timed, unless --folder has
videos to decode.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.append(str(Path(__file__).resolve().parents[1]))  # where `bench` and the library are

from adafocus_models import Engine, Result, Stats, Thresholds, evaluate_thresholds, exit_score, solve_thresholds
from adafocus_models.engine.stats import Tally
from adafocus_ops import backends
from bench.cases.engines import OURS
from bench.cases.models import ModelCase, clips_from, plain_model
from bench.harness.arguments import DTYPES, measuring_parser, positive_int
from bench.harness.console import print_table, progress, run_program
from bench.harness.environment import environment, header
from bench.harness.plots import plot_streaming
from bench.harness.records import Record, default_path, write
from bench.harness.tables import streaming_table
from bench.harness.timing import stats

# The paper's early-exit rows, and the network with an exit after every frame at half its cost.
DEFAULT = (
    "uni_adafocus_tsm_96_8+12/exit=0.319",
    "uni_adafocus_tsm_128_8+16/exit=0.248",
    "uni_adafocus_128_16+16/cost=0.5",
)
BATCH_SIZE = {"cpu": 8, "cuda": 128}
NEAR_TIE = 1e-3  # of scores that rounding may put on either side of a threshold
AGREES = 1e-3  # logits, of the largest


@dataclass(frozen=True)
class StreamCase:
    """A model, and what its thresholds are solved for."""

    model: str
    exit_ratio: float | None = None  # share of the videos that leaves at the glance, all others at the last exit
    cost_ratio: float | None = None  # mean multiply-adds, of those of the last exit

    @classmethod
    def parse(cls, text: str) -> "StreamCase":
        model, _, asked = text.partition("/")
        kind, _, value = asked.partition("=")
        if kind not in ("exit", "cost") or not 0 < float(value) < 1:
            raise argparse.ArgumentTypeError(f"must be MODEL/exit=RATIO or MODEL/cost=RATIO, got {text!r}")
        ModelCase(model)  # raises where there is none
        return cls(model, **{f"{kind}_ratio": float(value)})

    def solve(self, logits: Tensor, costs: Sequence[float]) -> Thresholds:
        """The thresholds, on logits [V, E, C]."""
        scores = exit_score(logits.transpose(0, 1))
        if self.exit_ratio is not None:
            rest = [0.0] * (len(costs) - 2)
            return solve_thresholds(scores, costs, q=[self.exit_ratio, *rest, 1 - self.exit_ratio])
        return solve_thresholds(scores, costs, budget=self.cost_ratio * costs[-1])

    def __str__(self) -> str:
        asked = f"exit={self.exit_ratio:g}" if self.exit_ratio is not None else f"cost={self.cost_ratio:g}"
        return f"{self.model}/{asked}"


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = measuring_parser(__doc__, threads=None)
    parser.set_defaults(runs=10)
    add = parser.add_argument
    add(
        "--configs",
        nargs="+",
        type=StreamCase.parse,
        default=[StreamCase.parse(name) for name in DEFAULT],
        metavar="NAME",
    )
    add("--videos", type=positive_int, default=64, help="in every stream (default: 64)")
    add("--batch-size", type=positive_int, help="default: 8 on a CPU, 128 on a GPU")
    add("--dtype", choices=DTYPES, default="float32", help="of weights and activations")
    add("--latency", action="store_true", help="one video at a time, so that percentiles are those of a single one")
    add("--folder", type=Path, help="decode the videos of this folder, over and over, as part of what is timed")
    add("--plot", action="store_true", help="draw exits and latency beside the records")
    add("--video", metavar="CLIP", default="bikes.mp4", help="whose moved frames the videos are (default: bikes.mp4)")
    add("--synthetic", action="store_true", help="random frames")
    args = parser.parse_args(arguments)
    args.batch_size = 1 if args.latency else args.batch_size or BATCH_SIZE[args.device.type]
    return args


def main(arguments: Sequence[str] | None = None) -> int:
    args = parse(arguments)
    if args.threads:
        torch.set_num_threads(args.threads)
    env = environment(args.device)
    print("\n".join(header(env)))
    records = [record for case in args.configs for record in measure(case, args, env)]
    path = args.json or default_path("streaming", env["device"])
    write(path, records)
    print_table(*streaming_table(records))
    print(f"records: {path}")
    if args.plot:
        print(f"plot: {plot_streaming(records, path.parent)}")
    return 0 if all(record["check"]["passed"] for record in records) else 1


def measure(case: StreamCase, args: argparse.Namespace, env: dict[str, Any]) -> list[Record]:
    """A record of all to the last exit, and one with thresholds."""
    clips = clips_from(None if args.synthetic else args.video)
    plain = plain_model(ModelCase(case.model), clips, 2, torch.device("cpu"))
    engine = Engine(plain.model, batch_size=args.batch_size, dtype=DTYPES[args.dtype], device=args.device)
    videos = in_folder(args) if args.folder else resident(plain.model, clips, args.videos)

    def run(thresholds: Thresholds | None) -> tuple[float, list[Result], Stats]:
        """Seconds, the results in order, and what there is to say of them."""
        engine.set_thresholds(thresholds)
        start = time.perf_counter()
        if args.latency:
            results, streamed = one_at_a_time(engine, videos)
        else:
            results = list(engine.stream(videos))
            streamed = engine.stats()
        return time.perf_counter() - start, results, streamed

    _, whole, _ = run(None)
    failed = [result.error for result in whole if result.error is not None]
    if failed:
        raise ValueError(f"{len(failed)} of the videos cannot be read: {failed[0]}")
    logits = torch.stack([result.exit_logits for result in whole])  # [V, E, C]
    thresholds = case.solve(logits, engine.exit_costs)
    ways = {"none": None, "thresholds": thresholds}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    found: dict[str, Any] = {}
    with progress(str(case), args.runs + 1) as step:
        for number in range(args.runs + 1):  # one to warm up
            for name, each in ways.items():
                took, results, streamed = run(each)
                if number:
                    seconds[name].append(took)
                found[name] = streamed, check(results, each, logits)
            step()
    return [record(case, name, engine, seconds, *found[name], args, env) for name in ways]


def one_at_a_time(engine: Engine, videos: list) -> tuple[list[Result], Stats]:
    """Each video in a stream of its own, so that none waits for another."""
    tally = Tally(len(engine.exit_costs))
    tally.begin()
    results = []
    for video in videos:
        start = time.perf_counter()
        [result] = engine.stream([video])
        if result.error is None:
            tally.add(result.exit, time.perf_counter() - start)
        results.append(result)
    tally.end()
    return results, tally.stats(engine.exit_costs)


def resident(model: Any, clips: Any, count: int) -> list[tuple[int, tuple[Tensor, ...]]]:
    """(id, clip): one clip's frames, each time moved by another distance and of another brightness."""
    read = clips(model.frame_size, model.num_candidate_frames, model.num_glance_frames)
    generator = torch.Generator().manual_seed(0)
    videos = []
    for number in range(count):
        dy, dx = torch.randint(model.frame_size, (2,), generator=generator).tolist()
        brightness = 0.3 + 0.7 * torch.rand((), generator=generator).item()
        pixels = [
            (clip.movedim(1, -1).roll((dy, dx), (1, 2)) * brightness).to(torch.uint8).movedim(-1, 1)
            for clip in read
            if len(clip)
        ]
        videos.append((number, pixels[0] if len(pixels) == 1 else tuple(pixels)))
    return videos


def in_folder(args: argparse.Namespace) -> list[tuple[int, Path]]:
    """(id, path): those of the folder, as often as there are to be videos."""
    from adafocus_models.data import list_videos

    files = [video.file for video in list_videos(args.folder)]
    return [(number, files[number % len(files)]) for number in range(args.videos)]


def check(results: list[Result], thresholds: Thresholds | None, logits: Tensor) -> dict[str, Any]:
    """Whether the online answers are those of the simulation on logits [V, E, C], apart from near ties."""
    scores = exit_score(logits.transpose(0, 1))
    exits = torch.full((len(results),), logits.shape[1] - 1)
    near = torch.zeros(len(results), dtype=torch.bool)
    if thresholds is not None:
        exits = evaluate_thresholds(thresholds, scores, [1.0] * logits.shape[1]).exit_index
        near = ((scores[:-1] - thresholds.values[:-1, None]).abs() < NEAR_TIE).any(0)
    online = torch.tensor([result.exit for result in results])
    worst = max(
        float((result.logits - logits[v, result.exit]).abs().max() / logits.abs().max())
        for v, result in enumerate(results)
    )
    same = int((online == exits).sum())
    passed = bool((online == exits)[~near].all()) and worst <= AGREES and len(results) == len(logits)
    return {"passed": passed, "same_exit": same, "near_ties": int(near.sum()), "max_error": worst, "tolerance": AGREES}


def record(
    case: StreamCase,
    way: str,
    engine: Engine,
    seconds: dict[str, list[float]],
    streamed: Stats,
    checked: dict[str, Any],
    args: argparse.Namespace,
    env: dict[str, Any],
) -> Record:
    timing = stats([1e3 * each for each in seconds[way]])
    whole = stats([1e3 * each for each in seconds["none"]])
    share = streamed.mean_multiply_adds / engine.exit_costs[-1]
    return {
        "what": "streaming",
        "case": str(case) if way == "thresholds" else f"{case.model}/exit=0",
        "compared_with": str(case),
        "engine": OURS,
        "chosen": {name: choice.form for name, choice in engine.choices.modules.items()},
        "mode": "latency" if args.latency else "throughput",
        "layout": "channels_last",
        "device": env["device"],
        "dtype": args.dtype,
        "backend": backends.choose("crop_resize", args.device, args.backend),
        "threads": env["threads"],
        "input": f"{args.folder.name}, decoded" if args.folder else "synthetic" if args.synthetic else args.video,
        "batch_size": args.batch_size,
        "processes": 1,
        "videos": args.videos,
        "exits": list(streamed.exits),
        "gflops": streamed.mean_multiply_adds / 1e9,
        "fill": None if streamed.fill != streamed.fill else streamed.fill,
        "waited_share": streamed.waited_share,
        "latency_ms": dict(zip(("p50", "p95", "p99"), streamed.latency_ms, strict=True)),
        "stats": timing,
        "videos_per_s": args.videos / timing["p50_ms"] * 1e3,
        "check": checked,
        "ratios": {"all to the last exit": whole["p50_ms"] / timing["p50_ms"], "multiply-adds": 1 / share},
        "env": env,
    }


if __name__ == "__main__":
    sys.exit(run_program(main))

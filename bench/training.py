"""Times a training step beside the same step in the style of the published code: python bench/training.py

The steps of Uni-AdaFocus-TSM: policy pass and random pass, all losses, gradients, SGD. In the published style frames
are gathered whole, both crops are affine_grid and grid_sample, the temporal loss repeats everything for every sample,
and the policy is asked twice; it begins with normalised frames, ours with bytes. Both ways run in turns in one process,
on equal weights, and are compared first. Clips are resident in memory; decoding is not timed.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

sys.path.append(str(Path(__file__).resolve().parents[1]))  # where `bench` and the library are

from adafocus_ops import backends
from bench.cases.models import ModelCase, clips_from, plain_model
from bench.cases.training import OURS, PUBLISHED, Steps
from bench.harness.arguments import measuring_parser, positive_int
from bench.harness.console import print_table, progress, run_program
from bench.harness.environment import environment, header
from bench.harness.records import Record, default_path, write
from bench.harness.tables import training_table
from bench.harness.timing import interleave, peak_memory_mib, stats

BATCH_SIZE = {"cpu": 2, "cuda": 64}
DEFAULT = ("uni_adafocus_tsm_96_8+8",)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = measuring_parser(__doc__, threads=None)
    parser.set_defaults(runs=10)
    add = parser.add_argument
    add("--configs", nargs="+", default=list(DEFAULT), metavar="NAME", help="of Uni-AdaFocus-TSM")
    add("--batch-size", type=positive_int, help="default: 2 on a CPU, 64 on a GPU")
    add("--video", metavar="CLIP", default="bikes.mp4", help="what the videos are (default: bikes.mp4)")
    add("--synthetic", action="store_true", help="random frames")
    args = parser.parse_args(arguments)
    for name in args.configs:
        if not name.startswith("uni_adafocus_tsm"):
            parser.error(f"--configs: the published style is there for uni_adafocus_tsm alone, got {name}")
        ModelCase(name)  # raises where there is none
    args.batch_size = args.batch_size or BATCH_SIZE[args.device.type]
    return args


def main(arguments: Sequence[str] | None = None) -> int:
    args = parse(arguments)
    if args.threads:
        torch.set_num_threads(args.threads)
    env = environment(args.device)
    print("\n".join(header(env)))
    records = [record for name in args.configs for record in measure(name, args, env)]
    path = args.json or default_path("training", env["device"])
    write(path, records)
    print_table(*training_table(records))
    print(f"records: {path}")
    return 0 if all(record["check"]["passed"] for record in records) else 1


def measure(name: str, args: argparse.Namespace, env: dict[str, Any]) -> list[Record]:
    """A record of each way."""
    clips = clips_from(None if args.synthetic else args.video)
    plain = plain_model(ModelCase(name), clips, args.batch_size, args.device)
    labels = torch.arange(args.batch_size, device=args.device) % plain.model.num_classes
    steps = Steps(plain.model.train(), *plain.inputs, labels)
    check = steps.check()
    calls = steps.calls()
    with progress(name, args.runs + 3) as step:
        times = interleave(calls, args.device, runs=args.runs, on_round=step)
    beyond = {way: peak_memory_mib(call, args.device) for way, call in calls.items()}
    memory = {way: None if peak is None else peak + steps.frames_mib(way) for way, peak in beyond.items()}
    return [record(name, way, times, memory, steps, check, args, env) for way in (OURS, PUBLISHED)]


def record(
    name: str,
    way: str,
    times: dict[str, list[float]],
    memory: dict[str, float | None],
    steps: Steps,
    check: dict[str, Any],
    args: argparse.Namespace,
    env: dict[str, Any],
) -> Record:
    timing, other = stats(times[way]), stats(times[PUBLISHED])
    return {
        "what": "training",
        "case": name,
        "engine": way,
        "mode": "step",
        "layout": "channels_last" if way == OURS else "contiguous",
        "device": env["device"],
        "dtype": "float32",
        "backend": backends.choose("crop_resize", args.device, args.backend) if way == OURS else "torch",
        "threads": env["threads"],
        "input": "synthetic" if args.synthetic else args.video,
        "batch_size": args.batch_size,
        "processes": 1,
        "stats": timing,
        "videos_per_s": args.batch_size / timing["p50_ms"] * 1e3,
        "peak_mib": memory[way],
        "stages_ms": steps.stage_ms(way),
        "check": check,
        "ratios": {PUBLISHED: other["p50_ms"] / timing["p50_ms"]},
        "env": env,
    }


if __name__ == "__main__":
    sys.exit(run_program(main))

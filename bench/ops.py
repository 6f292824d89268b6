"""Times the ops of adafocus_ops against what they replace: python bench/ops.py

Each case is checked first: an op whose result differs from its baseline's is not timed, and the run fails.
Where it is known how many bytes a case must touch, they are put in relation to a large copy in the same run.
"""

import argparse
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import _crops
import _sampling
import _selection
import _shift
from _bandwidth import copy_gb_per_s
from _cases import OURS, Call, Case, MismatchError, Prepared, Targets, check, check_layout
from _console import print_table, progress
from _environment import DEFAULT_DEVICE, device_name, environment, header, parse_device
from _rows import Row, default_path, write
from _scaling import SERIES, measure_series
from _tables import group_rows, ops_table, scaling_table
from _timing import count_launches, graph_of, interleave, stats
from adafocus_ops import backends, use_backend

CASES = [*_crops.CASES, *_sampling.CASES, *_selection.CASES, *_shift.CASES]
CALLS_IN_GRAPH = 20
GRAPHS_LEAVE_OUT = "peers are not captured in a CUDA graph"


# --- measuring -----------------------------------------------------------------------------------------------------


def measure(case: Case, device: torch.device, backend: str, runs: int, env: dict[str, Any]) -> Row:
    """Checks a case, times it, and returns its row; a peer that cannot run it or differs is left out, with the reason.

    Raises:
        MismatchError: our result differs from the baseline's.
    """
    prepared = case.prepare(device)
    calls, touched = prepared.calls, prepared.bytes
    calls[OURS] = on_backend(backend, calls[OURS])
    expected = calls[case.baseline]()
    check(case, case.baseline, expected, prepared, expected)
    results = calls[OURS]()
    max_error = check(case, f"{OURS} ({backend})", results, prepared, expected)
    check_layout(case, results[0])
    as_graph = case.launch_bound and device.type == "cuda"
    absent = {}
    for name in [name for name in calls if name not in (OURS, case.baseline, case.yardstick)]:
        reason = f"{case.name}: {GRAPHS_LEAVE_OUT}" if as_graph else why_not(case, name, prepared, expected)
        if reason:
            absent[name] = reason
            del calls[name]
    launches = {name: count_launches(call) for name, call in calls.items()} if as_graph else None
    waiting = {case.baseline} if case.waits else set()
    times = time_in_graphs(calls, device, runs, waiting) if as_graph else time_calls(calls, device, runs)
    theirs = {name: stats(values) for name, values in times.items()}
    ours = theirs.pop(OURS)
    gb_per_s = touched / ours["p50_ms"] / 1e6
    targets = case.targets.get(device.type, Targets())
    return {
        "what": "ops",
        "op": case.op,
        "case": case.name,
        "input": case.input.format(len(expected[0])),
        "device": env["device"],
        "device_type": device.type,
        "dtype": case.dtype,
        "layout": case.layout,
        "mode": case.mode,
        "backend": backend,
        "threads": env["threads"],
        "stats": ours,
        "bandwidth": {"bytes": touched, "gb_per_s": gb_per_s, "share": gb_per_s / env["copy_gb_per_s"]},
        "launches": launches,
        "baseline": case.rival,
        "contenders": theirs,
        "absent": absent,
        "check": {"passed": True, "max_error": max_error, "tolerance": case.tolerance, "unit": case.unit},
        "ratios": {name: timing["p50_ms"] / ours["p50_ms"] for name, timing in theirs.items()},
        "at_least": targets.ratio,
        "bandwidth_at_least": targets.bandwidth,
        "at_most_us": targets.microseconds,
        "env": env,
    }


def why_not(case: Case, peer: str, prepared: Prepared, expected: tuple[Tensor, ...]) -> str | None:
    """Why a peer is not timed: it is not installed, cannot do this or does something else."""
    try:
        check(case, peer, prepared.calls[peer](), prepared, expected)
    except (ImportError, NotImplementedError, MismatchError) as reason:
        return str(reason)
    return None


def time_calls(calls: dict[str, Call], device: torch.device, runs: int) -> dict[str, list[float]]:
    """Milliseconds of every run: on a GPU with a cold cache, on a CPU finding its data where a run before left it."""
    return interleave(calls, device, runs=runs, settle=1 if device.type == "cpu" else 0)


def time_in_graphs(
    calls: dict[str, Call], device: torch.device, runs: int, waiting: Collection[str] = ()
) -> dict[str, list[float]]:
    """Milliseconds of every call, of many one after the other on the GPU, without the time the host takes for each.

    Those that wait for the host are timed by themselves: waiting is part of what they take.
    """
    count = {name: 1 if name in waiting else CALLS_IN_GRAPH for name in calls}
    graphs = {name: call if name in waiting else graph_of(call, CALLS_IN_GRAPH) for name, call in calls.items()}
    times = interleave(graphs, device, runs=runs)
    return {name: [value / count[name] for value in values] for name, values in times.items()}


def on_backend(backend: str, call: Call) -> Call:
    """The call with every op on one backend."""

    def run() -> tuple[Tensor, ...]:
        with use_backend(backend):
            return call()

    return run


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", type=parse_device, default=DEFAULT_DEVICE)
    parser.add_argument("--backend", choices=backends.BACKENDS, help="of adafocus_ops (default: the best)")
    parser.add_argument("--cases", metavar="TEXT", default="", help="only the cases whose name contains this")
    parser.add_argument("--scaling", action="store_true", help="time how the cost grows with the input instead")
    parser.add_argument("--list", action="store_true", help="print the cases and stop")
    parser.add_argument("--runs", type=int, default=30, help="timed rounds, after 3 that warm up (default: 30)")
    parser.add_argument("--threads", type=int, default=1, help="threads on a CPU (default: 1)")
    parser.add_argument("--json", type=Path, metavar="PATH", help="rows (default: bench/results/WHAT_DEVICE.jsonl)")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    args = parse(arguments)
    device = args.device
    todo = [item for item in (SERIES[device.type] if args.scaling else CASES) if args.cases in item.name]
    if args.list:
        print("\n".join(item.name for item in todo))
        return 0
    if not todo:
        print(f"no case contains {args.cases!r}; see --list", file=sys.stderr)
        return 2
    try:
        chosen = {item.op: backends.choose(item.op, device.type, args.backend) for item in todo}
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 2
    torch.set_num_threads(args.threads)
    env = environment(device)
    print("\n".join(header(env)))
    env["copy_gb_per_s"] = copy_gb_per_s(device)
    print(f"a large copy moves {env['copy_gb_per_s']:.0f} GB/s, read and written")
    caches = "warm caches" if device.type == "cpu" else "cold L2"
    print(f"{args.runs} interleaved runs, medians, {caches}; inputs resident on {device_name(device)}")
    rows, failures = [], []
    with progress("timing", len(todo)) as step:
        for item in todo:
            setting = (device, chosen[item.op], args.runs, env)
            try:
                rows += measure_series(item, *setting) if args.scaling else [measure(item, *setting)]
            except MismatchError as error:
                failures.append(str(error))
            step()
    if rows:
        report(rows, args.json)
    for failure in failures:
        print(failure, file=sys.stderr)
    return 1 if failures else 0


def report(rows: list[Row], path: Path | None) -> None:
    """Prints and writes."""
    what = rows[0]["what"]
    if what == "scaling":
        print_table(*scaling_table(rows))
    else:
        for group in group_rows(rows):
            print_table(*ops_table(group))
    for reason in dict.fromkeys(reason for row in rows for reason in row.get("absent", {}).values()):
        print(f"left out: {reason}")
    path = path or default_path(what, rows[0]["device"])
    write(path, rows)
    print(f"rows: {path}")


if __name__ == "__main__":
    sys.exit(main())

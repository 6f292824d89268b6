"""Times the ops of adafocus_ops against what they replace: python bench/ops.py

Each case is checked first: an op whose result differs from its reference's is not timed, and the run fails.
Where it is known how many bytes a case must touch, they are put in relation to a large copy in the same run.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

sys.path.append(str(Path(__file__).resolve().parents[1]))  # where `bench` and the library are

from adafocus_ops import backends
from bench.cases import CASES, SERIES
from bench.harness.arguments import measuring_parser
from bench.harness.bandwidth import copy_gb_per_s
from bench.harness.case import MismatchError
from bench.harness.console import print_table, progress, run_program
from bench.harness.environment import device_name, environment, header
from bench.harness.measuring import measure
from bench.harness.records import Record, default_path, write
from bench.harness.scaling import measure_series
from bench.harness.tables import group_records, ops_table, scaling_table


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = measuring_parser(__doc__, threads=1)
    parser.add_argument("--cases", metavar="TEXT", default="", help="only the cases whose name contains this")
    parser.add_argument("--scaling", action="store_true", help="time how the cost grows with the input instead")
    parser.add_argument("--list", action="store_true", help="print the cases and stop")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    args = parse(arguments)
    device = args.device
    cases = [case for case in CASES if device.type in case.device_types]
    todo = [item for item in (SERIES[device.type] if args.scaling else cases) if args.cases in item.name]
    if args.list:
        print("\n".join(item.name for item in todo))
        return 0
    if not todo:
        print(f"no case contains {args.cases!r}; see --list", file=sys.stderr)
        return 2
    try:
        chosen = {item.op: backends.choose(item.op, device, args.backend) for item in todo}
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
    path = args.json or default_path("scaling" if args.scaling else "ops", device_name(device))
    records, failures = [], []
    with progress("timing", len(todo)) as step:
        for item in todo:
            setting = (device, chosen[item.op], args.runs, env)
            try:
                measured = measure_series(item, *setting) if args.scaling else [measure(item, *setting)]
                write(path, measured)  # at once, since nobody may wait for the last
                records += measured
            except MismatchError as error:
                failures.append(str(error))
            step()
    if records:
        report(records)
        print(f"records: {path}")
    for failure in failures:
        print(failure, file=sys.stderr)
    return 1 if failures else 0


def report(records: list[Record]) -> None:
    """Prints."""
    if records[0]["what"] == "scaling":
        print_table(*scaling_table(records))
    else:
        for group in group_records(records):
            print_table(*ops_table(group))
    for reason in dict.fromkeys(reason for record in records for reason in record.get("absent", {}).values()):
        print(f"left out: {reason}")


if __name__ == "__main__":
    sys.exit(run_program(main))

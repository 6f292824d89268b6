"""Makes the documentation's tables, and plots, from the records in bench/results: python bench/report.py

Prints the tables; --update writes them into the files that are named (default: docs/measured.md and README.md), each
between its marker, `<!-- bench:throughput -->` (or engine, streaming, training, ops, headline), and the next
`<!-- /bench -->`; --check fails where that would change a file.
"""

import argparse
import itertools
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # where `bench` and the library are

from bench.cases.engines import OURS
from bench.cases.models import NAMES, table_order
from bench.harness.console import run_program
from bench.harness.environment import ROOT
from bench.harness.plots import plot_engines, plot_throughput
from bench.harness.records import RESULTS, Record, read_all
from bench.harness.tables import (
    Table,
    chosen_table,
    engines_table,
    group_engines,
    group_records,
    headline_table,
    ops_table,
    stage_table,
    streaming_table,
    throughput_table,
    training_table,
)

FILES = (ROOT / "docs" / "measured.md", ROOT / "README.md")

# Cases that tell the most in five lines; images are stored as decoders give them.
HEADLINES = (
    "crop_resize uint8 to float32, P=96, channels_last, forward",
    "crop_resize float32, P=96, channels_last, gradient of boxes",
    "expected_value, 128 samples of 5 of 16, 200 values each, forward+backward",
    "exit_gate, 4096 x 400",
    "uni_adafocus_tsm_96_8+8",
)


def section(what: str, folder: Path = RESULTS) -> str:
    """Markdown: the tables of one kind of measurement, one group a device and dtype."""
    tables = [markdown(table) for table in SECTIONS[what](folder)]
    return "\n\n".join(tables) or "No measurement is in `bench/results` yet."


def throughput(folder: Path) -> list[Table]:
    """Two tables for each group of models."""
    tables = (throughput_table, stage_table)
    return [make(group, NAMES[group[0]["table"]]) for group in throughput_groups(folder) for make in tables]


def engine(folder: Path) -> list[Table]:
    """Engines side by side, and what ours chose, for each group of models that several have run."""
    groups = group_engines(itertools.chain(*throughput_groups(folder)))
    return [make(group, OURS) for group in groups for make in (engines_table, chosen_table)]


def streaming(folder: Path) -> list[Table]:
    """Streams with and without early exits."""
    return by_machine("streaming", streaming_table, folder)


def training(folder: Path) -> list[Table]:
    """Training steps."""
    return by_machine("training", training_table, folder)


def by_machine(what: str, make: Callable[[list[Record]], Table], folder: Path) -> list[Table]:
    """One table for each device, dtype, batch and number of threads, and each input."""
    groups: dict[tuple, list[Record]] = {}
    for record in read_all(what, folder):
        key = tuple(record[name] for name in ("device", "dtype", "batch_size", "threads", "input"))
        groups.setdefault(key, []).append(record)
    return [make(group) for group in groups.values()]


def throughput_groups(folder: Path) -> list[list[Record]]:
    """The records of models by table, in the paper's order."""
    return group_records(sorted(read_all("throughput", folder), key=table_order))


def ops(folder: Path) -> list[Table]:
    """One table for each input of the ops."""
    return [ops_table(group) for group in group_records(read_all("ops", folder))]


def headline(folder: Path) -> list[Table]:
    """One short table: the most telling cases on one device, a GPU where one has been measured."""
    records = [*read_all("ops", folder), *read_all("throughput", folder)]
    records = [record for record in records if record["case"] in HEADLINES and record["ratios"]]
    on_gpu = {record["device"]: "gpu" in record["env"] for record in records}
    device = max(on_gpu, key=on_gpu.get, default=None)
    records.sort(key=lambda record: record.get("engine") != OURS)  # of models the engine's, where it has run
    first = {record["case"]: record for record in reversed(records) if record["device"] == device}
    chosen = [first[case] for case in HEADLINES if case in first]
    return [headline_table(chosen)] if chosen else []


SECTIONS = {
    "throughput": throughput,
    "engine": engine,
    "streaming": streaming,
    "training": training,
    "ops": ops,
    "headline": headline,
}


def markdown(table: Table) -> str:
    """A table with its title in bold above."""
    lines = [table.columns, ["---", *["---:"] * (len(table.columns) - 1)], *table.lines]
    return "\n".join([f"**{table.title}**", "", *(f"| {' | '.join(cells)} |" for cells in lines)])


def updated(texts: Sequence[str], folder: Path = RESULTS) -> list[str]:
    """The texts of Markdown files with the sections between their markers made anew.

    Raises:
        ValueError: a section has its markers in none of them.
    """
    texts = list(texts)
    for what in SECTIONS:
        pattern = re.compile(rf"(<!-- bench:{what} -->\n).*?(<!-- /bench -->)", re.DOTALL)
        if not any(pattern.search(text) for text in texts):
            raise ValueError(f"there must be a line <!-- bench:{what} --> and after it a line <!-- /bench -->")
        content = f"{section(what, folder)}\n"
        texts = [pattern.sub(lambda match, content=content: match[1] + content + match[2], text) for text in texts]
    return texts


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    action = parser.add_mutually_exclusive_group()
    files = {"type": Path, "nargs": "*", "metavar": "FILE"}
    action.add_argument("--update", **files, help="write the tables into these Markdown files")
    action.add_argument("--check", **files, help="exit with 1 where --update would change a file")
    action.add_argument("--plot", action="store_true", help="write a PNG of every throughput table beside the records")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the records (default: bench/results)")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    args = parse(arguments)
    if args.plot:
        groups = throughput_groups(args.results)
        for group in groups:
            print(plot_throughput(group, args.results, NAMES[group[0]["table"]]))
        for group in group_engines(itertools.chain(*groups)):
            print(plot_engines(group, args.results, OURS))
        return 0
    if args.update is None and args.check is None:
        print("\n\n".join(section(what, args.results) for what in SECTIONS))
        return 0
    files = args.update or args.check or FILES
    old = [file.read_text() for file in files]
    try:
        new = updated(old, args.results)
    except ValueError as error:
        print(f"{', '.join(map(str, files))}: {error}", file=sys.stderr)
        return 1
    changed = {file: text for file, before, text in zip(files, old, new, strict=True) if before != text}
    for file, text in changed.items():
        if args.update is None:
            print(f"{file}: its tables are not those of {args.results}; run report.py --update", file=sys.stderr)
        else:
            file.write_text(text)
    return int(args.update is None and bool(changed))


if __name__ == "__main__":
    sys.exit(run_program(main))

"""Makes the README's tables, and plots, from the rows in bench/results: python bench/report.py

Prints the tables; --update writes them between the markers `<!-- bench:throughput -->`, `<!-- bench:ops -->`
and the next `<!-- /bench -->` of a Markdown file, --check fails where that would change it.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from _plots import plot_throughput
from _rows import RESULTS, Row, read_all
from _tables import Table, group_rows, ops_table, stage_table, throughput_table

TABLES = {"throughput": (throughput_table, stage_table), "ops": (ops_table,)}


def section(what: str, folder: Path = RESULTS) -> str:
    """Markdown: the tables of one kind of measurement, one group a device and dtype."""
    groups = load_groups(what, folder)
    tables = [markdown(make(group)) for group in groups for make in TABLES[what]]
    return "\n\n".join(tables) or "No measurement is in `bench/results` yet."


def load_groups(what: str, folder: Path) -> list[list[Row]]:
    """The rows of one kind of measurement by table; models in the order of the paper's Table IV."""
    rows = read_all(what, folder)
    return group_rows(sorted(rows, key=_table_iv_order) if what == "throughput" else rows)


def _table_iv_order(row: Row) -> tuple:
    early_exit = row["exit_ratio"]["asked"] > 0
    frames = tuple(map(int, row["frames"].split("+")))
    return not row["case"].startswith("tsm_plus"), early_exit, row["patch"], frames


def markdown(table: Table) -> str:
    """A table with its title in bold above."""
    lines = [table.columns, ["---", *["---:"] * (len(table.columns) - 1)], *table.lines]
    return "\n".join([f"**{table.title}**", "", *(f"| {' | '.join(cells)} |" for cells in lines)])


def updated(text: str, folder: Path = RESULTS) -> str:
    """The text of a Markdown file with the sections between its markers made anew.

    Raises:
        ValueError: a marker is missing.
    """
    for what in TABLES:
        pattern = re.compile(rf"(<!-- bench:{what} -->\n).*?(<!-- /bench -->)", re.DOTALL)
        if not pattern.search(text):
            raise ValueError(f"there must be a line <!-- bench:{what} --> and after it a line <!-- /bench -->")
        content = f"{section(what, folder)}\n"
        text = pattern.sub(lambda match, content=content: match[1] + content + match[2], text)
    return text


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--update", type=Path, metavar="FILE", help="write the tables into this Markdown file")
    action.add_argument("--check", type=Path, metavar="FILE", help="exit with 1 where --update would change the file")
    action.add_argument("--plot", action="store_true", help="write a PNG of every throughput table beside the rows")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the rows (default: bench/results)")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    args = parse(arguments)
    if args.plot:
        for group in load_groups("throughput", args.results):
            print(plot_throughput(group, args.results))
        return 0
    file = args.update or args.check
    if file is None:
        print("\n\n".join(section(what, args.results) for what in TABLES))
        return 0
    try:
        old, new = file.read_text(), updated(file.read_text(), args.results)
    except ValueError as error:
        print(f"{file}: {error}", file=sys.stderr)
        return 1
    if args.update:
        file.write_text(new)
        return 0
    if old != new:
        print(f"{file}: its tables are not those of {args.results}; run report.py --update {file}", file=sys.stderr)
    return int(old != new)


if __name__ == "__main__":
    sys.exit(main())

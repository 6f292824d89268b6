"""Tables and progress on a terminal: by rich where it is installed, else in plain text."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

try:
    import rich.box
    import rich.console
    import rich.markup
    import rich.progress
    import rich.table
except ImportError:
    rich = None


def run_program(main: Callable[[], int]) -> int:
    """Runs a program, which ends quietly where nobody reads its output any more (`| head`)."""
    try:
        try:
            return main()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], text: Sequence[str] = ()) -> None:
    """Prints a table; the first column and those named in `text` are text and the others are figures."""
    text = (columns[0], *text)
    if rich is None:
        _print_plain(title, columns, rows, text)
        return
    table = rich.table.Table(title=title, title_justify="left", box=rich.box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in columns:
        table.add_column(column, **({"overflow": "fold"} if column in text else {"justify": "right"}))
    for row in rows:
        table.add_row(*map(rich.markup.escape, row))
    # A file or a pipe has no width to fit into.
    terminal = rich.console.Console(width=None if sys.stdout.isatty() else 200)
    with terminal.capture() as captured:
        terminal.print(table)
    print(captured.get(), end="")  # by itself, rich ends the program where nobody reads on


def _print_plain(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], text: Sequence[str]) -> None:
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    print(f"\n{title}")
    for row in (columns, ["-" * width for width in widths], *rows):
        cells = zip(columns, row, widths, strict=True)
        print("  ".join(cell.ljust(width) if column in text else cell.rjust(width) for column, cell, width in cells))


@contextmanager
def progress(description: str, total: int) -> Iterator[Callable[[], None]]:
    """A progress bar on a terminal; what it yields takes one of `total` steps."""
    if rich is None or not sys.stderr.isatty():
        yield lambda: None
        return
    columns = (
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TimeRemainingColumn(),
    )
    with rich.progress.Progress(*columns, console=rich.console.Console(stderr=True), transient=True) as bar:
        task = bar.add_task(description, total=total)
        yield lambda: bar.advance(task)

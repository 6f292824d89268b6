"""What is being done, on a terminal: by rich where it is installed, else a line that is written over."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec

WIDTH = 100  # characters of a plain line


@contextmanager
def show_progress(title: str, wanted: bool) -> Iterator[Callable[[str], None]]:
    """Within the block, what it yields shows a text with the seconds that have passed; nothing without a terminal."""
    if not (wanted and sys.stderr.isatty()):
        yield lambda text: None
    elif find_spec("rich"):
        from rich import console, progress

        columns = progress.SpinnerColumn(), progress.TimeElapsedColumn(), progress.TextColumn("{task.description}")
        with progress.Progress(*columns, console=console.Console(stderr=True), transient=True) as bar:
            task = bar.add_task(title, total=None)
            yield lambda text: bar.update(task, description=f"{title}: {text}")
    else:
        try:
            yield lambda text: print(f"\r{f'{title}: {text}'[:WIDTH]:<{WIDTH}}", end="", file=sys.stderr, flush=True)
        finally:
            print(f"\r{'':<{WIDTH}}\r", end="", file=sys.stderr, flush=True)

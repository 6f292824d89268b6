"""Answers as JSON, one line each, in a file that a later run goes on with: nothing twice, nothing lost."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from adafocus_ops.checks import require

BEGINNING = b'{"id": '  # of every line


class JsonLines:
    """A file of one answer a line, each of one video, which several processes may write together.

    Every process of several writes a part of its own, `FILE.part-RANK`; `merge` puts them together. What a process
    that was killed left is merged by the next run. A line that was cut off is dropped, and its video done again.

    Args:
        path: of the file; it need not exist.
        rank, world_size: of this process; a process alone writes the file itself.
    """

    ID = "id"  # of a video: the field that every line has

    def __init__(self, path: str | os.PathLike, rank: int = 0, world_size: int = 1) -> None:
        self.path = Path(path)
        require(
            self.path.parent.is_dir(), lambda: f"its folder {str(self.path.parent)!r} does not exist", FileNotFoundError
        )
        self._own = self.path if world_size == 1 else self._part(rank)

    def merge(self) -> set[Any]:
        """Puts all parts at the end of the file, for one process while no other writes; the ids that it then has."""
        repair(self.path)
        there = self.ids()
        parts = sorted(self.path.parent.glob(f"{self.path.name}.part-*"))
        for part in parts:
            repair(part)
            new = {name: line for name, line in _lines(part) if name not in there}  # an interrupted merge added others
            with self.path.open("a", encoding="utf-8") as file:
                file.writelines(new.values())
                file.flush()
                os.fsync(file.fileno())
            part.unlink()
            there |= new.keys()
        return there

    def ids(self) -> set[Any]:
        """Of the videos that have a line."""
        return {name for name, _ in _lines(self.path)} if self.path.exists() else set()

    def open(self) -> "Writer":
        """To write this process's lines."""
        return Writer(self._own)

    def _part(self, rank: int) -> Path:
        return self.path.with_name(f"{self.path.name}.part-{rank}")


class Writer:
    """Adds lines to the end of a file, each at once and whole."""

    def __init__(self, path: Path) -> None:
        self._file: TextIO = path.open("a", encoding="utf-8")

    def write(self, answer: Mapping[str, Any]) -> None:
        line = {JsonLines.ID: answer[JsonLines.ID], **answer}  # in this order, by which a cut line is known
        self._file.write(json.dumps(line, allow_nan=False) + "\n")
        self._file.flush()

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def repair(path: Path) -> None:
    """Cuts off a last line that was not written to its end.

    Raises:
        ValueError: the file holds something else than such lines, which is left as it is.
    """
    if not path.exists():
        return
    with path.open("rb+") as file:
        whole = 0
        for number, line in enumerate(file, 1):
            is_whole = line.endswith(b"\n")
            ours = _is_answer(line) if is_whole else line.startswith(BEGINNING[: len(line)])
            require(ours, lambda number=number: f"{path}, line {number} is no answer of this program")
            if not is_whole:
                break
            whole += len(line)
        file.truncate(whole)


def _is_answer(line: bytes) -> bool:
    try:
        answer = json.loads(line)
    except ValueError:
        return False
    return isinstance(answer, dict) and JsonLines.ID in answer


def _lines(path: Path) -> Iterator[tuple[Any, str]]:
    """(id, line) of every line."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)[JsonLines.ID], line

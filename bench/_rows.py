"""Rows: one JSON object a line, one file a kind of measurement and device, each row with all a claim needs."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from _environment import ROOT, slug

Row = dict[str, Any]

RESULTS = ROOT / "bench" / "results"

# A new row replaces the one with the same values of these.
KEY = ("what", "case", "device", "dtype", "backend", "threads", "input", "batch_size")

REQUIRED = ("what", "case", "device", "dtype", "backend", "threads", "input")
REQUIRED += ("mode", "layout", "stats", "check", "ratios", "env")


def default_path(what: str, device_name: str) -> Path:
    """Where the rows of one kind of measurement on one device go."""
    return RESULTS / f"{what}_{slug(device_name)}.jsonl"


def write(path: Path, rows: Iterable[Row]) -> None:
    """Adds rows to the end of a file, or in place of those with equal keys, so that differences stay small."""
    merged = {key(row): row for row in [*(read(path) if path.exists() else ()), *rows]}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, allow_nan=False) + "\n" for row in merged.values()))


def read(path: Path) -> list[Row]:
    """The rows of a file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def read_all(what: str, folder: Path = RESULTS) -> list[Row]:
    """The rows of every file of one kind of measurement."""
    return [row for path in sorted(folder.glob(f"{what}_*.jsonl")) for row in read(path)]


def key(row: Row) -> tuple[str, ...]:
    """What identifies a row; only models have a batch size."""
    return tuple(str(row.get(name)) for name in KEY)

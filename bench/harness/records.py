"""Records: one JSON object a line, one file a kind of measurement and device, each with all that a claim needs."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bench.harness.environment import ROOT, slug

Record = dict[str, Any]

RESULTS = ROOT / "bench" / "results"

# A new record replaces the one with the same values of these.
KEY = ("what", "case", "engine", "device", "dtype", "backend", "threads", "input", "batch_size", "processes")

REQUIRED = ("what", "case", "device", "dtype", "backend", "threads", "input")
REQUIRED += ("mode", "layout", "stats", "check", "ratios", "env")

# Field of a record -> its name in the files, which keep the names that they began with.
STORED_AS = {"rival": "baseline", "others": "contenders"}


def default_path(what: str, device_name: str) -> Path:
    """The file for the records of one kind of measurement on one device."""
    return RESULTS / f"{what}_{slug(device_name)}.jsonl"


def write(path: Path, records: Iterable[Record]) -> None:
    """Adds records to the end of a file, or in place of those with equal keys, so that differences stay small."""
    merged = {key(record): record for record in [*(read(path) if path.exists() else ()), *records]}
    lines = [json.dumps(_renamed(record, STORED_AS), allow_nan=False) + "\n" for record in merged.values()]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(lines))


def read(path: Path) -> list[Record]:
    """The records of a file."""
    names = {stored: name for name, stored in STORED_AS.items()}
    return [_renamed(json.loads(line), names) for line in path.read_text().splitlines()]


def read_all(what: str, folder: Path = RESULTS) -> list[Record]:
    """The records of every file of one kind of measurement."""
    return [record for path in sorted(folder.glob(f"{what}_*.jsonl")) for record in read(path)]


def key(record: Record) -> tuple[str, ...]:
    """The values that tell a record from others; only models have an engine, a batch size, and processes."""
    return tuple(str(record.get(name)) for name in KEY)


def _renamed(record: Record, names: Mapping[str, str]) -> Record:
    return {names.get(name, name): value for name, value in record.items()}

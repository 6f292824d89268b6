"""Exit thresholds, and their files."""

import json
import math
import os
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from adafocus_ops.checks import require

# A threshold that no score reaches, and its negative one that every score does.
UNREACHED = 1e8

FILE_FORMAT = "adafocus exit thresholds"
FILE_VERSION = 1


class Thresholds(NamedTuple):
    """Least scores of an answer that ends at each of E exits, and their result on the videos they were solved on."""

    values: Tensor  # [E] float64: leave at exit e if the score is at least values[e]
    exit_fraction: Tensor  # [E] float64, the share of the videos that leave at exit e
    expected_cost: float  # of a video, in the unit of the costs

    def save(self, path: str | os.PathLike) -> None:
        """Writes a JSON file, whole or not at all."""
        content = {
            "format": FILE_FORMAT,
            "version": FILE_VERSION,
            "values": self.values.tolist(),
            "exit_fraction": self.exit_fraction.tolist(),
            "expected_cost": self.expected_cost,
        }
        path = Path(path)
        unfinished = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            unfinished.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Thresholds":
        """Reads what `save` wrote.

        Raises:
            OSError: the file cannot be opened.
            ValueError: it holds something else; the message says what.
        """
        try:
            content = json.loads(Path(path).read_text())
        except ValueError as error:  # no JSON, or no text
            raise ValueError(f"{path} must be a JSON file of thresholds, but it cannot be read: {error}") from error
        is_ours = isinstance(content, dict) and content.get("format") == FILE_FORMAT
        require(is_ours, lambda: f'{path} must be a file of thresholds, with "format": "{FILE_FORMAT}"')
        version = content.get("version")
        require(version == FILE_VERSION, lambda: f"{path} must be of version {FILE_VERSION}, got {version!r}")
        values, fractions = (_numbers(path, content, name) for name in ("values", "exit_fraction"))
        require(
            len(values) == len(fractions) >= 1,
            lambda: (
                f"{path}: values and exit_fraction must have one number an exit, got {len(values)} and {len(fractions)}"
            ),
        )
        cost = content.get("expected_cost")
        require(_is_number(cost), lambda: f"{path}: expected_cost must be a finite number, got {cost!r}")
        return cls(torch.tensor(values, dtype=torch.float64), torch.tensor(fractions, dtype=torch.float64), float(cost))


def _numbers(path: str | os.PathLike, content: dict[str, Any], name: str) -> list[float]:
    numbers = content.get(name)
    good = isinstance(numbers, list) and all(map(_is_number, numbers))
    require(good, lambda: f"{path}: {name} must be a list of finite numbers, got {numbers!r}")
    return numbers


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)

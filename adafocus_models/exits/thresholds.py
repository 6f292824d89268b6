"""Exit thresholds, and their files."""

import math
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from adafocus_ops import ExitGate, exit_gate
from adafocus_ops.checks import check_choice, require

from .json_files import read_json, write_json
from .scores import CRITERIA, exit_score

# A threshold that no score reaches, and its negative one that every score does.
UNREACHED = 1e8

FILE_FORMAT = "adafocus exit thresholds"
FILE_VERSION = 1


class Thresholds(NamedTuple):
    """Least scores of an answer that ends at each of E exits, and their result on the videos they were solved on.

    They are the `gate` of a model, or of an `ExitLoop`.
    """

    values: Tensor  # [E] float64: leave at exit e if the score is at least values[e]
    exit_fraction: Tensor  # [E] float64, the share of the videos that leave at exit e; NaN if they were not solved
    expected_cost: float  # of a video, in the unit of the costs; NaN if they were not solved
    criterion: str = "entropy"  # what the scores are (see `exit_score`)

    @classmethod
    def of(cls, values: Sequence[float], criterion: str = "entropy") -> "Thresholds":
        """Thresholds that were chosen, not solved (nor saved): of E exits, the least scores of all but the last.

        Args:
            values: E - 1 numbers; larger is surer, so minus an entropy in nats, -0.5 say, for "entropy".
            criterion: "entropy", "confidence" or "max_logit" (see `exit_score`).
        """
        numbers = torch.tensor([*values, -UNREACHED], dtype=torch.float64)
        return cls(numbers, torch.full_like(numbers, torch.nan), math.nan, criterion)

    def gate(self, logits: Tensor, exit_number: int = 0, *, exact: bool = True) -> ExitGate:
        """Sorts rows into those that leave at an exit and those that go on.

        Args:
            logits: [B, C] of that exit.
            exit_number: e; a row leaves if its exit_score(logits, criterion) is at least values[e], never if it is NaN.
            exact: wait for the device, so that keep and leave have exact sizes; else they have room for all rows, of
                which the first counts[0] and counts[1] count.

        Returns:
            ExitGate. Its score is that of `exit_gate`: the entropy
            itself for "entropy".

        Raises:
            ValueError: an unknown criterion, or values that its scores cannot have.
        """
        check_choice("criterion", self.criterion, CRITERIA)
        value = self.values[exit_number].item()
        if self.criterion == "max_logit":
            score = exit_score(logits, self.criterion)
            return _listed(score, score >= value, exact)
        is_entropy = self.criterion == "entropy"
        possible = value <= 0 if is_entropy else value >= 0
        require(
            possible or abs(value) == UNREACHED,
            lambda: (
                f"values must be at {'most' if is_entropy else 'least'} 0 as scores of criterion"
                f" {self.criterion!r} are, got {value:g} at exit {exit_number}: were they solved on other scores?"
            ),
        )
        capacity = None if exact else max(logits.shape[0], 1)
        return exit_gate(logits, -value if is_entropy else value, criterion=self.criterion, capacity=capacity)

    def save(self, path: str | os.PathLike) -> None:
        """Writes a JSON file, whole or not at all."""
        content = {
            "values": self.values.tolist(),
            "exit_fraction": self.exit_fraction.tolist(),
            "expected_cost": self.expected_cost,
            "criterion": self.criterion,
        }
        write_json(path, FILE_FORMAT, FILE_VERSION, content)

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Thresholds":
        """Reads what `save` wrote.

        Raises:
            OSError: the file cannot be opened.
            ValueError: it holds something else; the message says what.
        """
        content = read_json(path, FILE_FORMAT, FILE_VERSION, "thresholds")
        values, fractions = (_numbers(path, content, name) for name in ("values", "exit_fraction"))
        require(
            len(values) == len(fractions) >= 1,
            lambda: (
                f"{path}: values and exit_fraction must have one number an exit, got {len(values)} and {len(fractions)}"
            ),
        )
        cost = content.get("expected_cost")
        require(_is_number(cost), lambda: f"{path}: expected_cost must be a finite number, got {cost!r}")
        criterion = content.get("criterion", cls._field_defaults["criterion"])  # the first files have none
        check_choice(f"{path}: criterion", criterion, CRITERIA)
        values, fractions = (torch.tensor(numbers, dtype=torch.float64) for numbers in (values, fractions))
        return cls(values, fractions, float(cost), criterion)


def _listed(score: Tensor, exited: Tensor, exact: bool) -> ExitGate:
    """The decision that rows with exited [N] leave, as `exit_gate` lists it."""
    counts = torch.stack([(~exited).sum(), exited.sum()])
    keep, leave = (side.argsort(stable=True) for side in (exited, ~exited))  # [N] each, its own rows first
    if exact:
        staying, leaving = counts.tolist()
        keep, leave = keep[:staying], leave[:leaving]
    return ExitGate(score, exited, keep, leave, counts)


def _numbers(path: str | os.PathLike, content: dict[str, Any], name: str) -> list[float]:
    numbers = content.get(name)
    good = isinstance(numbers, list) and all(map(_is_number, numbers))
    require(good, lambda: f"{path}: {name} must be a list of finite numbers, got {numbers!r}")
    return numbers


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)

"""Thresholds along a sweep of exit fractions, with their cost and accuracy; and files of them."""

import math
import os
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from adafocus_ops.checks import check_choice, require

from .arguments import check_correct, check_costs, check_videos
from .evaluate import evaluate_thresholds
from .json_files import format_of, read_json, write_json
from .scores import CRITERIA
from .solve import Q_SWEEP, Solver, target_fractions
from .thresholds import Thresholds

FILE_FORMAT = "adafocus exit curve"
FILE_VERSION = 1


class Curve(NamedTuple):
    """Cost and accuracy at Q ratios of exit fractions, and the thresholds that give them."""

    q: Tensor  # [Q] float64
    expected_cost: Tensor  # [Q] float64
    accuracy: Tensor  # [Q] float64; NaN where it is not known which answers are right
    exit_fraction: Tensor  # [Q, E] float64
    values: Tensor  # [Q, E] float64, as `Thresholds` has them
    criterion: str = "entropy"  # what the scores are (see `exit_score`)

    def within(self, budget: float) -> Thresholds:
        """The thresholds that answer best at a mean cost within a budget, and of these the cheapest; or those that
        cost most, where no accuracy is known.

        Raises:
            ValueError: all cost more.
        """
        least = self.expected_cost.min().item()
        require(
            budget >= least, lambda: f"budget must be at least {least:g} (all that can leave early do), got {budget:g}"
        )

        def merit(i: int) -> tuple[float, float]:
            cost, accuracy = self.expected_cost[i].item(), self.accuracy[i].item()
            return (0.0, cost) if math.isnan(accuracy) else (accuracy, -cost)

        best = max((self.expected_cost <= budget).nonzero()[:, 0].tolist(), key=merit)
        return Thresholds(self.values[best], self.exit_fraction[best], self.expected_cost[best].item(), self.criterion)

    def save(self, path: str | os.PathLike) -> None:
        """Writes a JSON file, whole or not at all."""
        numbers = {name: getattr(self, name).tolist() for name in self._fields[:-1]}
        if self.accuracy.isnan().any():  # JSON has no such number
            numbers["accuracy"] = None
        write_json(path, FILE_FORMAT, FILE_VERSION, {**numbers, "criterion": self.criterion})

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Curve":
        """Reads what `save` wrote.

        Raises:
            OSError: the file cannot be opened.
            ValueError: it holds something else; the message says what.
        """
        content = read_json(path, FILE_FORMAT, FILE_VERSION, "thresholds along a curve")
        try:
            points = len(content["q"])
            accuracy = content["accuracy"] or [math.nan] * points
            tensors = [
                torch.tensor(accuracy if name == "accuracy" else content[name], dtype=torch.float64)
                for name in cls._fields[:-1]
            ]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} must hold numbers for {', '.join(cls._fields[:-1])}: {error!r}") from error
        shapes = [tuple(x.shape) for x in tensors]
        exits = shapes[-1][-1:]
        require(
            points >= 1 and shapes == [(points,)] * 3 + [(points, *exits)] * 2 and exits != (),
            lambda: f"{path} must hold a number for each point, or for each point and exit, got shapes {shapes}",
        )
        finite = all(bool(x.isfinite().all()) for x in (*tensors[:2], *tensors[3:]))
        require(finite, lambda: f"{path} must hold finite numbers")
        criterion = content.get("criterion")
        check_choice(f"{path}: criterion", criterion, CRITERIA)
        return cls(*tensors, criterion)


def exit_curve(
    scores: Tensor,
    costs: Tensor | Sequence[float],
    correct: Tensor | None = None,
    *,
    q: Sequence[float] = Q_SWEEP,
    solved_on: Tensor | None = None,
    criterion: str = "entropy",
) -> Curve:
    """Cost and accuracy along a sweep of q, from all that leave early to all that go on.

    Args:
        scores: [E, V], larger is surer.
        costs: [E], the whole cost of a video that leaves at exit e.
        correct: [E, V] bool, the answer at this exit is right; None where nobody knows.
        q: ratios of the exit fractions.
        solved_on: [E, V'], scores of other videos (training ones, say) to solve the thresholds on; None means scores.
        criterion: what the scores are (see `exit_score`).

    Raises:
        ValueError: a shape or value that does not fit.
    """
    solved_on = check_videos(scores if solved_on is None else solved_on)
    check_choice("criterion", criterion, CRITERIA)
    correct = None if correct is None else check_correct(correct, scores)
    solver = Solver(solved_on, check_costs(costs, solved_on))
    solved = [solver.solve(target_fractions(ratio, len(solved_on))) for ratio in q]
    points = [evaluate_thresholds(thresholds, scores, costs, correct=correct) for thresholds in solved]
    accuracies = [math.nan if point.accuracy is None else point.accuracy for point in points]
    return Curve(
        torch.tensor(q, dtype=torch.float64),
        torch.tensor([point.expected_cost for point in points], dtype=torch.float64),
        torch.tensor(accuracies, dtype=torch.float64),
        torch.stack([point.exit_fraction for point in points]),
        torch.stack([thresholds.values for thresholds in solved]),
        criterion,
    )


def load_thresholds(path: str | os.PathLike) -> Thresholds | Curve:
    """Reads what `Thresholds.save` or `Curve.save` wrote; raises as their `load`."""
    return Curve.load(path) if format_of(path) == FILE_FORMAT else Thresholds.load(path)

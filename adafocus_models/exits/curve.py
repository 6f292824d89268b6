"""Cost and accuracy along a sweep of exit fractions."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .arguments import check_costs, check_videos
from .evaluate import evaluate_thresholds
from .solve import Q_SWEEP, Solver, target_fractions


class Curve(NamedTuple):
    """Cost and accuracy at Q ratios of exit fractions."""

    q: Tensor  # [Q] float64
    expected_cost: Tensor  # [Q] float64
    accuracy: Tensor  # [Q] float64
    exit_fraction: Tensor  # [Q, E] float64


def exit_curve(
    scores: Tensor,
    costs: Tensor | Sequence[float],
    correct: Tensor,
    *,
    q: Sequence[float] = Q_SWEEP,
    solved_on: Tensor | None = None,
) -> Curve:
    """Cost and accuracy along a sweep of q, from all that leave early to all that go on.

    Args:
        scores: [E, V], larger is surer.
        costs: [E], the whole cost of a video that leaves at exit e.
        correct: [E, V] bool, the answer at this exit is right.
        q: ratios of the exit fractions.
        solved_on: [E, V'], scores of other videos (training ones, say) to solve the thresholds on; None means scores.

    Raises:
        ValueError: a shape or value that does not fit.
    """
    solved_on = check_videos(scores if solved_on is None else solved_on)
    solver = Solver(solved_on, check_costs(costs, solved_on))
    points = [
        evaluate_thresholds(solver.solve(target_fractions(ratio, len(solved_on))), scores, costs, correct=correct)
        for ratio in q
    ]
    return Curve(
        torch.tensor(q, dtype=torch.float64),
        torch.tensor([point.expected_cost for point in points], dtype=torch.float64),
        torch.tensor([point.accuracy for point in points], dtype=torch.float64),
        torch.stack([point.exit_fraction for point in points]),
    )

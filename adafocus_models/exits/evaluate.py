"""The online exit, simulated: who leaves where under given thresholds."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from adafocus_ops.checks import describe, require

from .arguments import check_correct, check_costs, check_scores, check_thresholds
from .thresholds import Thresholds


class Evaluation(NamedTuple):
    """The result of thresholds on V videos."""

    exit_index: Tensor  # [V] int64, the exit at which each video leaves
    exit_counts: Tensor  # [E] int64
    exit_fraction: Tensor  # [E] float64, NaN if there are no videos
    expected_cost: float  # of a video, in the unit of the costs
    logits: Tensor | None  # [V, C] of the exit at which each video leaves
    predictions: Tensor | None  # [V] int64, the classes of their largest
    accuracy: float | None  # the share of right answers


def evaluate_thresholds(
    thresholds: Thresholds,
    scores: Tensor,
    costs: Tensor | Sequence[float],
    *,
    correct: Tensor | None = None,
    logits: Tensor | None = None,
    labels: Tensor | None = None,
) -> Evaluation:
    """Who leaves where, what it costs, and how good it is: the online exit, simulated.

    Args:
        thresholds: of E exits.
        scores: [E, V], larger is surer; a video leaves at the first exit whose threshold its score reaches.
        costs: [E], the whole cost of a video that leaves at exit e.
        correct: [E, V] bool, the answer at this exit is right; for the accuracy. Or:
        logits: [E, V, C]; gives the logits and predictions that the videos leave with, for `mean_average_precision`
            for one, and with
        labels: [V] int64 their accuracy.

    Raises:
        ValueError: a shape or value that does not fit.
    """
    scores, costs = check_scores(scores), check_costs(costs, scores)
    exits, videos = scores.shape
    check_thresholds(thresholds, exits, "scores")
    exit_index = first_exit(thresholds.values, scores)
    left_with = predictions = right = None
    if logits is not None:
        fits = logits.ndim == 3 and logits.shape[:2] == scores.shape
        require(
            fits, lambda: f"logits must be [E, V, C] with E={exits} and V={videos} (scores), got {describe(logits)}"
        )
        left_with = at_exit(logits.detach().cpu(), exit_index)
        predictions = left_with.argmax(1)
    if labels is not None:
        require(logits is not None and correct is None, lambda: "labels must come with logits and without correct")
        require(
            labels.shape == (videos,), lambda: f"labels must be [V] with V={videos} (scores), got {describe(labels)}"
        )
        right = predictions == labels.cpu()
    elif correct is not None:
        right = at_exit(check_correct(correct, scores), exit_index)
    counts = torch.bincount(exit_index, minlength=exits)
    fraction = counts.double() / videos
    accuracy = None if right is None else right.double().mean().item()
    return Evaluation(exit_index, counts, fraction, (fraction @ costs).item(), left_with, predictions, accuracy)


def first_exit(values: Tensor, scores: Tensor) -> Tensor:
    """[V] int64: the first exit whose threshold a video's score reaches, or the last exit."""
    stays = ~(scores[:-1] >= values[:-1, None])  # [E - 1, V], true for NaN
    return stays.cumprod(0).sum(0)


def at_exit(per_exit: Tensor, exit_index: Tensor) -> Tensor:
    """[V, ...] of [E, V, ...]: what each video leaves with."""
    return per_exit[exit_index, torch.arange(len(exit_index))]

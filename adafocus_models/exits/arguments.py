"""Checks of what solving, evaluating and the loop take; those of tensors return their argument on the CPU."""

from collections.abc import Sequence

import torch
from torch import Tensor

from adafocus_ops.checks import describe, require

from .thresholds import UNREACHED, Thresholds


def check_scores(scores: Tensor) -> Tensor:
    """[E, V] on the CPU."""
    fits = isinstance(scores, Tensor) and scores.ndim == 2 and scores.shape[0] >= 1 and scores.is_floating_point()
    require(fits, lambda: f"scores must be [E, V] floating point, got {describe(scores)}")
    scores = scores.detach().cpu()
    too_large = bool((scores.abs() >= UNREACHED).any())
    require(
        not too_large, lambda: f"scores must be smaller than {UNREACHED:g} in size, or NaN where a video never leaves"
    )
    return scores


def check_videos(scores: Tensor) -> Tensor:
    """[E, V] on the CPU, to solve thresholds on."""
    scores = check_scores(scores)
    require(scores.shape[1] >= 1, lambda: "scores must be of at least one video to solve thresholds on")
    return scores


def check_costs(costs: Tensor | Sequence[float], scores: Tensor) -> Tensor:
    """[E] float64 on the CPU."""
    costs = torch.as_tensor(costs, dtype=torch.float64).cpu()
    require(
        costs.shape == scores.shape[:1],
        lambda: f"costs must be [E] with E={scores.shape[0]} (scores), got {describe(costs)}",
    )
    good = bool(costs.isfinite().all() and (costs.diff() >= 0).all())
    require(
        good, lambda: f"costs must be finite and non-decreasing, the whole cost up to each exit, got {costs.tolist()}"
    )
    return costs


def check_correct(correct: Tensor, scores: Tensor) -> Tensor:
    """[E, V] bool on the CPU."""
    fits = isinstance(correct, Tensor) and correct.dtype == torch.bool and correct.shape == scores.shape
    require(fits, lambda: f"correct must be bool of the shape of scores {tuple(scores.shape)}, got {describe(correct)}")
    return correct.cpu()


def check_thresholds(thresholds: Thresholds, exits: int, whose: str) -> None:
    """Of E exits, as many as scores or a model have."""
    require(
        isinstance(thresholds, Thresholds),
        lambda: (
            f"thresholds must be Thresholds, which solve_thresholds and Thresholds.of make, got {describe(thresholds)}"
        ),
        TypeError,
    )
    values = thresholds.values
    fits = isinstance(values, Tensor) and values.shape == (exits,)
    require(fits, lambda: f"thresholds must be of E={exits} exits ({whose}), got {describe(values)}")

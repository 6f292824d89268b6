"""Quality of predictions: accuracy, and average precision where a video may have several labels."""

import torch
from torch import Tensor

from adafocus_ops.checks import check_positive_ints, describe, require


def top_k_accuracy(scores: Tensor, labels: Tensor, k: int = 1) -> float:
    """The share of videos whose label is among the k classes of the largest scores.

    Args:
        scores: [V, C], anything that grows with how likely a class is.
        labels: [V] int64, one class a video.
        k: 1..C.

    Returns:
        0..1, or NaN if there are no videos.

    Raises:
        ValueError: a shape that does not fit, a label that is no class, or a k that is out of range.
    """
    _check_scores_and_labels(scores, labels)
    check_positive_ints(k=k)
    require(k <= scores.shape[1], lambda: f"k must be at most C={scores.shape[1]} (scores), got {k}")
    require(labels.ndim == 1, lambda: f"labels must be [V], one a video, got {describe(labels)}")
    require(bool((labels >= 0).all()), lambda: f"labels must be in [0, {scores.shape[1]}) (scores), one class a video")
    return (scores.topk(k, 1).indices == labels[:, None]).any(1).double().mean().item()


def average_precision(scores: Tensor, labels: Tensor) -> Tensor:
    """Average precision of every class: the mean of the precision at each video that has the class.

        AP_c = 1 / P_c * sum over r with y_r = 1 of (sum over s <= r of y_s) / r

    where r = 1..V is a video's place by its score, the largest first, y_r tells whether it has class c, and P_c of
    them do. Equal scores keep the order of the videos; NaN comes last.

    Args:
        scores: [V, C]. The published evaluation takes probabilities; logits give another order.
        labels: [V] or [V, L] int64, the classes of a video, padded with -1.

    Returns:
        [C] float64 in 0..1; 0 for a class that no video has, as published.

    Raises:
        ValueError: a shape that does not fit, or a label that is no class.
    """
    _check_scores_and_labels(scores, labels)
    order = scores.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf).argsort(
        dim=0, descending=True, stable=True
    )
    has_class = _has_class(labels, scores.shape[1]).gather(0, order)
    place = torch.arange(1, len(scores) + 1, device=scores.device)[:, None]
    precision = has_class.cumsum(0).double() / place  # [V, C]
    return (precision * has_class).sum(0) / has_class.sum(0).clamp(min=1)


def mean_average_precision(scores: Tensor, labels: Tensor) -> float:
    """The mean over all classes of `average_precision`, in 0..1."""
    return average_precision(scores, labels).mean().item()


def _has_class(labels: Tensor, num_classes: int) -> Tensor:
    """[V, C] bool."""
    labels = labels[:, None] if labels.ndim == 1 else labels
    padding = num_classes  # a column that is dropped
    result = torch.zeros(len(labels), num_classes + 1, dtype=torch.bool, device=labels.device)
    return result.scatter_(1, torch.where(labels < 0, padding, labels), True)[:, :num_classes]


def _check_scores_and_labels(scores: Tensor, labels: Tensor) -> None:
    require(scores.ndim == 2 and scores.shape[1] >= 1, lambda: f"scores must be [V, C], got {describe(scores)}")
    videos, classes = scores.shape
    fits = labels.ndim in (1, 2) and len(labels) == videos and labels.dtype == torch.int64
    require(fits, lambda: f"labels must be [V] or [V, L] int64 with V={videos} (scores), got {describe(labels)}")
    known = (labels >= -1) & (labels < classes)
    require(bool(known.all()), lambda: f"labels must be in [0, {classes}) (scores), or -1 as padding")

"""Scores of answers: one number for the logits of each, the larger the surer."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

import adafocus_ops
from adafocus_ops.checks import describe, require

CRITERIA = ("entropy", "confidence", "max_logit")


def exit_score(logits: Tensor, criterion: str = "entropy") -> Tensor:
    """Score of an answer, the larger the surer.

    Args:
        logits: [..., C] floating point.
        criterion: "entropy" (minus the entropy, in nats), "confidence" (the largest probability), or "max_logit"
            (the largest logit, which the published code calls confidence).

    Returns:
        [...] float32 (float64 for float64 logits). NaN, which never leaves, where a logit is NaN or plus infinity, or
        all are minus infinity.

    Gradients: to logits. Where none is asked for, the score is to the last bit what `exit_gate` compares, so that
    thresholds that were solved on scores decide as the gate does.

    Source: Uni-AdaFocus, Section 4.3.
    """
    fits = isinstance(logits, Tensor) and logits.is_floating_point() and logits.ndim >= 1
    require(fits, lambda: f"logits must be [..., C] floating point, got {describe(logits)}")
    require(
        criterion in CRITERIA, lambda: f"criterion must be one of {', '.join(map(repr, CRITERIA))}, got {criterion!r}"
    )
    if criterion == "entropy":
        return -_score_of_gate(logits, criterion, adafocus_ops.entropy)
    if criterion == "confidence":
        return _score_of_gate(logits, criterion, adafocus_ops.confidence)
    largest = logits.to(torch.promote_types(logits.dtype, torch.float32)).amax(-1)
    return torch.where(largest.isfinite(), largest, torch.nan)


def _score_of_gate(logits: Tensor, criterion: str, differentiable: Callable[[Tensor], Tensor]) -> Tensor:
    """[...]: the entropy or confidence of logits [..., C]."""
    if (logits.requires_grad and torch.is_grad_enabled()) or logits.shape[-1] == 0:
        return differentiable(logits)
    rows = logits.reshape(math.prod(logits.shape[:-1]), logits.shape[-1])
    # With a capacity nothing waits for the device.
    return adafocus_ops.exit_gate(rows, 0.0, criterion=criterion, capacity=1).score.view(logits.shape[:-1])

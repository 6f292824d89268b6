"""exit_gate in plain PyTorch."""

import torch
from torch import Tensor

LEAST_LOGIT = {torch.float32: -87.0, torch.float64: -708.0}  # below the maximum; exp of less is no normal number


def entropy(logits: Tensor) -> Tensor:
    """Entropy in nats of the softmax over the last dimension: H = log Z - sum p z with z shifted by its maximum.

    A logit so far below the maximum that exp z is no normal number counts nothing, like one of minus infinity (a
    masked class): so no p log p is evaluated on a p that underflowed, and a sure row's entropy is exactly 0.
    """
    z = logits.to(torch.promote_types(logits.dtype, torch.float32))
    z = z - z.amax(-1, keepdim=True).detach()
    z = z.masked_fill(z <= LEAST_LOGIT[z.dtype], -torch.inf)
    p = z.softmax(-1)
    return z.logsumexp(-1) - (p * z.masked_fill(p == 0, 0)).sum(-1)


def confidence(logits: Tensor) -> Tensor:
    """Largest probability of the softmax over the last dimension."""
    z = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return (-(z - z.amax(-1, keepdim=True)).logsumexp(-1)).exp()


def fwd(
    logits: Tensor, threshold: Tensor | None, bound: float, criterion: str, active: Tensor | None, capacity: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """score [N], exited [N] bool, keep, leave (int64 [capacity], padded with -1), counts [2] int64.

    threshold has one element; None takes `bound`. active is a [N] bool mask of the rows still running or a list
    of their numbers.
    """
    score = (entropy if criterion == "entropy" else confidence)(logits)
    threshold = torch.full_like(score[:1], bound) if threshold is None else threshold.reshape(-1).to(score)
    exited = score <= threshold if criterion == "entropy" else score >= threshold  # NaN never exits
    running = torch.ones_like(exited) if active is None else _mask(active, logits.shape[0])
    exited = exited & running
    stays = running & ~exited
    counts = torch.stack([stays.sum(), exited.sum()])
    return score, exited, _compact(stays, capacity), _compact(exited, capacity), counts


def _mask(active: Tensor, rows: int) -> Tensor:
    """[rows] bool of a mask or a list of rows, of which those out of range (such as padding) count for nothing."""
    if active.dtype == torch.bool:
        return active
    mask = torch.zeros(rows + 1, dtype=torch.bool, device=active.device)
    mask[torch.where((active >= 0) & (active < rows), active, rows).long()] = True
    return mask[:rows]


def _compact(mask: Tensor, capacity: int) -> Tensor:
    """Indices of the true entries in order, padded with -1 (cut off) to the capacity; no host sync."""
    slot = torch.where(mask, mask.cumsum(0) - 1, capacity).clamp(max=capacity)
    out = torch.full((capacity + 1,), -1, dtype=torch.int64, device=mask.device)
    rows = torch.arange(mask.shape[0], device=mask.device)
    return out.scatter(0, slot, rows)[:capacity]

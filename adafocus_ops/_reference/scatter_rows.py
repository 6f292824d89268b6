"""scatter_rows in plain PyTorch."""

import torch
from torch import Tensor

from .rows import valid_rows


def fwd(out: Tensor, index: Tensor, rows: Tensor, count: Tensor | None) -> None:
    """out[index[j]] becomes rows[j], for the first `count` of index [M]; what is out of range changes nothing."""
    if out.shape[0] == 0:
        return
    # A row beyond the last is a bin for what does not count; it needs no synchronisation.
    valid = valid_rows(index, count, out.shape[0])
    source = torch.full((out.shape[0] + 1,), -1, dtype=torch.int64, device=out.device)
    source.scatter_(0, torch.where(valid, index, out.shape[0]).long(), torch.arange(len(index), device=out.device))
    source = source[:-1]
    if len(index):
        changed = (source >= 0).view(-1, *(1,) * (out.ndim - 1))
        out.copy_(torch.where(changed, rows.index_select(0, source.clamp(min=0)), out))

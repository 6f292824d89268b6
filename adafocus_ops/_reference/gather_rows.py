"""gather_rows in plain PyTorch."""

import torch
from torch import Tensor

from .._layouts import memory_format_of
from .rows import valid_rows


def fwd(x: Tensor, index: Tensor, count: Tensor | None) -> Tensor:
    """Row j is x[index[j]], for the first `count` of index [M]; the others, and those out of range, are zero."""
    shape = (index.shape[0], *x.shape[1:])
    out = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=memory_format_of(x)).zero_()
    if x.shape[0] == 0:
        return out
    valid = valid_rows(index, count, x.shape[0])
    rows = x.index_select(0, torch.where(valid, index, 0))
    return out.copy_(rows.where(valid.view(-1, *(1,) * (x.ndim - 1)), torch.zeros((), dtype=x.dtype, device=x.device)))

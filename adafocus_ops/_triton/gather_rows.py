"""gather_rows in Triton: _reference/gather_rows.py."""

import torch
from torch import Tensor

from .._layouts import memory_format_of
from .rows import copy


def fwd(x: Tensor, index: Tensor, count: Tensor | None) -> Tensor:
    shape = (index.shape[0], *x.shape[1:])
    out = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=memory_format_of(x))
    copy(x, out, index, count, scatter=False)
    return out

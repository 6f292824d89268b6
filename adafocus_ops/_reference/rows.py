"""Indices of rows, in plain PyTorch."""

import torch
from torch import Tensor


def valid_rows(index: Tensor, count: Tensor | None, rows: int) -> Tensor:
    """[M] bool: the entries of an index that count: the first `count`, as far as they are in range."""
    valid = (index >= 0) & (index < rows)
    if count is None:
        return valid
    return valid & (torch.arange(index.shape[0], device=index.device) < count.reshape(()))

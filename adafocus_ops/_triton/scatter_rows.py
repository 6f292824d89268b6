"""scatter_rows in Triton: _reference/scatter_rows.py."""

from torch import Tensor

from .rows import copy


def fwd(out: Tensor, index: Tensor, rows: Tensor, count: Tensor | None) -> None:
    copy(rows, out, index, count, scatter=True)

"""scatter_rows by itself; tests/ops/test_gather_rows.py has the way there and back."""

import pytest
import torch

from adafocus_ops import scatter_rows
from conftest import device_of, require_backend


def test_autograd_notices_that_scatter_changed_a_tensor(request, backend):
    device = device_of(backend)
    require_backend(request, "scatter_rows", backend, device)
    x = torch.zeros(3, 2, device=device, requires_grad=True)
    y = x.exp()
    with torch.no_grad():
        scatter_rows(y, torch.tensor([0], device=device), torch.full((1, 2), 7.0, device=device), backend=backend)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_scatter_has_no_gradient():
    out, rows = torch.zeros(3, 2), torch.ones(1, 2, requires_grad=True)
    with pytest.raises(RuntimeError, match=r"scatter_rows has no gradient: use torch.no_grad\(\)"):
        scatter_rows(out, torch.tensor([1]), rows)
    with torch.no_grad():
        assert scatter_rows(out, torch.tensor([1]), rows).tolist() == [[0, 0], [1, 1], [0, 0]]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: scatter_rows(torch.ones(2, 3), torch.tensor([0]), torch.ones(1, 2)),
            ValueError,
            r"rows must be \(1, 3\) \(M of index, a row of out\), got \(1, 2\)",
        ),
        (
            lambda: scatter_rows(torch.ones(2), torch.tensor([0]), torch.ones(1).double()),
            TypeError,
            "rows must have dtype float32, got float64",
        ),
    ],
)
def test_bad_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call()

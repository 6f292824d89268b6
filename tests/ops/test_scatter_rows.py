"""scatter_rows by itself; tests/ops/test_gather_rows.py has the way there and back."""

import pytest
import torch

from adafocus_ops import scatter_rows, set_debug
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


@pytest.fixture
def debug():
    set_debug(True)
    yield
    set_debug(False)


def test_out_must_not_be_its_own_index_or_count(request, backend):
    device = device_of(backend)
    require_backend(request, "scatter_rows", backend, device)
    memory = torch.tensor([2, 1, 0, 7], device=device)
    rows = torch.tensor([9, 8, 7], device=device)
    with pytest.raises(ValueError, match="index must not share memory with out"):
        scatter_rows(memory[:3], memory[:3], rows, backend=backend)
    with pytest.raises(ValueError, match="index must not share memory with out"):
        scatter_rows(memory[1:], memory[:3], rows, backend=backend)
    with pytest.raises(ValueError, match="count must not share memory with out"):
        scatter_rows(memory, torch.tensor([0, 1, 2], device=device), rows, memory[3], backend=backend)
    # Other parts of the same memory are well apart.
    scatter_rows(memory[:3], torch.tensor([0, 1, 2], device=device), rows, memory[3], backend=backend)
    assert memory.tolist() == [9, 8, 7, 7]
    index = torch.tensor([1, 0, 0, 5], device=device)
    scatter_rows(index[2:], index[:2], rows[:2], backend=backend)
    assert index.tolist() == [1, 0, 8, 9]
    # Bytes count, not elements: four numbers of 64 bits reach over the first eight of 32.
    words = memory.view(torch.int32)
    with pytest.raises(ValueError, match="index must not share memory with out"):
        scatter_rows(words[6:], memory, words.new_zeros(4), backend=backend)
    scatter_rows(words[2:], memory[:1], words.new_ones(1), backend=backend)
    # No rows share no memory, wherever they begin.
    scatter_rows(memory[2:2], memory, rows.new_zeros(4), backend=backend)


@pytest.mark.usefixtures("debug")
def test_debug_mode_finds_memory_that_is_shared(request, backend):
    device = device_of(backend)
    require_backend(request, "scatter_rows", backend, device)
    memory, index = torch.arange(24.0, device=device).view(4, 6), torch.tensor([0, 1], device=device)
    with pytest.raises(ValueError, match="rows must not share memory with out"):
        scatter_rows(memory, index, memory[1:3], backend=backend)
    with pytest.raises(ValueError, match="rows must not share memory with out"):
        scatter_rows(memory[:, :4], index, memory[:2, 2:], backend=backend)
    with pytest.raises(ValueError, match="out must not have elements that share memory"):
        scatter_rows(memory[:1].expand(4, 6), index, torch.ones(2, 6, device=device), backend=backend)
    with pytest.raises(ValueError, match="out must not have elements that share memory"):
        scatter_rows(memory.flatten().unfold(0, 6, 3), index, torch.ones(2, 6, device=device), backend=backend)
    # The columns of one buffer share none, though they lie between each other.
    scatter_rows(memory[:, :3], index, memory[2:, 3:], backend=backend)
    assert memory[:2, :3].tolist() == [[15, 16, 17], [21, 22, 23]]


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

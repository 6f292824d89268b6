"""gather_rows, the rows that an exit gate listed; and with scatter_rows the way there and back."""

import pytest
import torch

from adafocus_ops import exit_gate, gather_rows, scatter_rows
from conftest import device_of, require_backend

DTYPES = (torch.bool, torch.int16, torch.bfloat16, torch.float32, torch.int64, torch.complex128)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_rows_of_every_size_are_copied(request, backend, dtype):
    device = device_of(backend)
    require_backend(request, "gather_rows", backend, device)
    x = torch.arange(7 * 5 * 3).view(7, 5, 3).remainder(2 if dtype == torch.bool else 100).to(dtype).to(device)
    index = torch.tensor([6, 2, -1, 0], device=device)
    expected = torch.cat([x[[6, 2]], torch.zeros_like(x[:1]), x[:1]])
    assert torch.equal(gather_rows(x, index, backend=backend), expected)
    assert torch.equal(gather_rows(x.mT, index, backend=backend), expected.mT)
    out = torch.zeros_like(x)
    assert scatter_rows(out, index, expected, backend=backend) is out
    rest = torch.tensor([1, 3, 4, 5], device=device)
    assert torch.equal(out[index[[0, 1, 3]]], x[index[[0, 1, 3]]])
    assert not out[rest].any()


RARE = [
    name
    for name in (
        *("float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu", "float4_e2m1fn_x2", "bits8", "bits16", "bits1x8"),
        *("bits2x4", "bits4x2", "complex32", "uint16", "uint32", "uint64", "int8", "float16", "float64", "complex64"),
    )
    if hasattr(torch, name)
]


@pytest.mark.parametrize("name", RARE)
def test_the_bytes_of_rare_dtypes_are_copied(request, backend, name):
    device = device_of(backend)
    require_backend(request, "gather_rows", backend, device)
    dtype = getattr(torch, name)
    size = torch.empty((), dtype=dtype).element_size()
    # (0x3b: NaN in none of them, and zero bytes for rows that are not there.)
    bits = torch.arange(7 * 5 * size, dtype=torch.uint8).view(7, 5 * size).remainder(60)
    x = bits.view(dtype).to(device)
    index = torch.tensor([6, 2, -1, 0], device=device)
    rows = gather_rows(x, index, backend=backend)
    assert rows.dtype == dtype
    expected = torch.cat([bits[[6, 2]], torch.zeros_like(bits[:1]), bits[:1]])
    assert torch.equal(rows.cpu().view(torch.uint8), expected)
    out = bits.clone().fill_(9).view(dtype).to(device)
    scatter_rows(out, index, rows, backend=backend)
    assert torch.equal(out.cpu().view(torch.uint8)[[6, 2, 0]], bits[[6, 2, 0]])
    assert (out.cpu().view(torch.uint8)[[1, 3, 4, 5]] == 9).all()


def test_conjugate_and_negative_views_are_resolved(request, backend):
    device = device_of(backend)
    require_backend(request, "gather_rows", backend, device)
    x = torch.randn(3, 4, dtype=torch.complex64, device=device)
    index = torch.tensor([2, 0], device=device)
    for view in (x.conj(), x.conj().imag):
        assert torch.equal(gather_rows(view, index, backend=backend), view[index].resolve_conj())
        out = torch.zeros(3, 4, dtype=view.dtype, device=device)
        scatter_rows(out, index, view[index], backend=backend)
        assert torch.equal(out[index], view[index])


def test_what_was_gathered_comes_back(request, backend):
    """Through a gate with static shapes: padding neither reads nor writes."""
    device = device_of(backend)
    require_backend(request, "exit_gate", backend, device)
    logits = torch.randn(9, 4, generator=torch.Generator().manual_seed(0)).mul(4).to(device)
    features = torch.arange(9 * 6.0, device=device).view(9, 6)
    gate = exit_gate(logits, 0.4, capacity=9, backend=backend)
    staying = int(gate.counts[0])
    assert 0 < staying < 9
    gathered = gather_rows(features, gate.keep, gate.counts[0], backend=backend)
    assert torch.equal(gathered[:staying], features[gate.keep[:staying]])
    assert not gathered[staying:].any()
    out = scatter_rows(torch.zeros_like(features), gate.keep, gathered + 1, gate.counts[0], backend=backend)
    assert torch.equal(out, torch.where(gate.exited[:, None], 0, features + 1))


def test_the_gradient_of_gathered_rows_adds_up():
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    index = torch.tensor([2, 0, 2, -1, 1])
    assert torch.autograd.gradcheck(lambda x: gather_rows(x, index, torch.tensor(3)), (x,))
    assert torch.autograd.gradgradcheck(lambda x: gather_rows(x, index), (x,))
    (gradient,) = torch.autograd.grad(gather_rows(x, index, torch.tensor(3)).sum(), x)
    assert gradient[:, 0].tolist() == [1, 0, 2, 0]


QUANTIZED = torch.quantize_per_tensor(torch.ones(2, 2), 0.1, 0, torch.qint8)
BITS = [
    (name, torch.empty(2, 2, dtype=getattr(torch, name)))
    for name in (f"{sign}int{bits}" for sign in ("", "u") for bits in range(1, 8))
    if hasattr(torch, name)
]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: gather_rows([1], torch.tensor([0])), TypeError, "x must be a tensor, got list"),
        (lambda: gather_rows(QUANTIZED, torch.tensor([0])), TypeError, "x must have a dtype of whole bytes.*got qint8"),
        (lambda: scatter_rows(QUANTIZED, torch.tensor([0]), QUANTIZED), TypeError, "out must have a dtype of whole"),
        *(
            (lambda x=x: gather_rows(x, torch.tensor([0])), TypeError, f"x must have a dtype of whole.*got {name}")
            for name, x in BITS
        ),
        (lambda: gather_rows(torch.tensor(1.0), torch.tensor([0])), ValueError, r"x must be \[N, ...\]"),
        (lambda: gather_rows(torch.ones(2), torch.tensor([0.0])), TypeError, "index must have dtype int32, int64"),
        (lambda: gather_rows(torch.ones(2), torch.tensor([[0]])), ValueError, r"index must be \[M\], got \(1, 1\)"),
        (lambda: gather_rows(torch.ones(2), torch.tensor([0]), torch.tensor([1, 2])), ValueError, "of one element"),
    ],
)
def test_bad_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call()

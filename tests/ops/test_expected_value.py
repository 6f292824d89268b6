"""expected_value: published expectations and gradients, estimates, degenerate weights, memory."""

import itertools
import os
import subprocess
import sys

import pytest
import torch
from op_oracles import INDEX, arrays

from adafocus_ops import expected_value, set_debug, weighted_sample
from adafocus_ops.examples.tensors import distributions, random_rows
from conftest import device_of, is_emulated, require_backend

CASES = INDEX["sampling_expectation"]


def gradients(values, weights, upstream, *args, **kwargs):
    """The gradients to values and weights."""
    leaves = [t.detach().clone().requires_grad_() for t in (values, weights)]
    out = expected_value(*leaves, *args, **kwargs)
    return torch.autograd.grad(out, leaves, upstream.to(out))


# ----------------------------------------------------------------------------------------------------
# The expectation itself


@pytest.mark.parametrize("case", CASES)
def test_expectations_are_the_published_ones(case):
    """By enumeration, with the gradients of two conventions."""
    data, k = arrays("sampling_expectation", case), CASES[case]["k_terms"]
    values, weights, upstream = data["values"], data["weights"], data["upstream"]
    out = expected_value(values, weights, k, mode="exact", backend="reference")
    torch.testing.assert_close(out, data["expectation"], rtol=1e-9, atol=1e-11)
    for convention, normaliser_grad in (
        ("detached_denominator", False),
        ("differentiated_denominator_one_minus", True),
    ):
        how = {"mode": "exact", "backend": "reference", "normaliser_grad": normaliser_grad}
        d_values, d_weights = gradients(values, weights, upstream, k, **how)
        torch.testing.assert_close(d_values, data["grad_values"], rtol=1e-8, atol=1e-11)
        torch.testing.assert_close(d_weights, data[f"grad_weights.{convention}"], rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_closed_forms_are_the_enumeration(request, backend, k, dtype):
    device = device_of(backend)
    require_backend(request, "expected_value", backend, device)
    values, weights = random_rows((4, 6, 3), dtype, "contiguous"), distributions(4, 6, dtype, "contiguous")
    upstream = random_rows((4, 3), dtype, "contiguous")
    for normaliser_grad in (False, True):
        how = {"mode": "exact", "normaliser_grad": normaliser_grad}
        exact = expected_value(values.double(), weights.double(), k, backend="reference", **how)
        expected = gradients(values.double(), weights.double(), upstream, k, backend="reference", **how)
        there = [t.to(device) for t in (values, weights)]
        out = expected_value(*there, k, backend=backend, **how).cpu()
        got = [t.cpu() for t in gradients(*there, upstream, k, backend=backend, **how)]
        for a, b in zip((out, *got), (exact, *expected), strict=True):
            torch.testing.assert_close(a, b.to(dtype), rtol=8 * torch.finfo(dtype).eps, atol=8 * torch.finfo(dtype).eps)


def test_a_peaked_closed_form_keeps_its_digits(request, backend):
    """What an item shares with the others is summed without its own part, which is a thousand times as large."""
    device = device_of(backend)
    require_backend(request, "expected_value", backend, device)
    small = 2.0**-12
    weights = torch.tensor([[1 - small, small / 2, small / 4, small / 4]])
    values, upstream = torch.tensor([[1.0, 2.0, 3.0, 4.0]]), torch.ones(1)
    how = {"mode": "exact", "normaliser_grad": True}
    expected = gradients(values.double(), weights.double(), upstream, 2, backend="reference", **how)
    got = gradients(values.to(device), weights.to(device), upstream, 2, backend=backend, **how)
    for g, e in zip(got, expected, strict=True):
        torch.testing.assert_close(g.cpu().double(), e, rtol=1e-5, atol=1e-5)


def test_more_steps_than_the_closed_form_are_enumerated_on_the_reference():
    values, weights = torch.randn(2, 6), torch.rand(2, 6).softmax(1)
    assert torch.equal(
        expected_value(values, weights, 3, mode="exact"),
        expected_value(values, weights, 3, mode="exact", backend="reference"),
    )
    with pytest.raises(ValueError, match=r"k must be at most 2 with mode='exact' \(backend 'reference' enumerates"):
        expected_value(values, weights, 3, mode="exact", backend="cpu")
    with pytest.raises(ValueError, match=r"mode='exact' cannot enumerate k=12 of T=40 .* prefixes are more than 20000"):
        expected_value(torch.ones(1, 40), torch.full((1, 40), 1 / 40), 12, mode="exact")


# ----------------------------------------------------------------------------------------------------
# Estimates of it


@pytest.mark.parametrize("case", CASES)
def test_the_mean_over_seeds_is_the_expectation(case):
    """To 4.5 standard errors of each number. The seeds are a row_id each, so that one call makes them all."""
    data, k = arrays("sampling_expectation", case), CASES[case]["k_terms"]
    seeds, samples = 2000, 8
    for row in range(len(data["weights"])):
        values, weights = (data[name][row].expand(seeds, *data[name].shape[1:]) for name in ("values", "weights"))
        estimates = expected_value(values, weights, k, num_samples=samples, seed=row)
        error = estimates.mean(0) - data["expectation"][row]
        standard_error = estimates.std(0) / seeds**0.5
        assert (error.abs() <= 4.5 * standard_error + 1e-9).all(), row


def naive(values, weights, k, samples, seed, normaliser_grad):
    """The estimate as the formula says, of [B, M, T, D] tensors, for autograd to differentiate."""
    draws = weighted_sample(weights.detach(), k, num_samples=samples, seed=seed, backend="reference")
    total = 0
    for i in range(k):
        left = torch.ones(*draws.shape[:2], weights.shape[1], dtype=torch.bool)
        left = left.scatter(2, draws[..., :i], False)
        rest = 1 - torch.where(left, 0, weights[:, None]).sum(2)
        rest = rest if normaliser_grad else rest.detach()
        inner = torch.where(left, weights[:, None], 0)[..., None] * values[:, None]  # [B, M, T, D]
        total = total + (inner.sum(2) / rest[..., None]).mean(1)
    return total / k


@pytest.mark.parametrize("normaliser_grad", [False, True])
@pytest.mark.parametrize(("items", "k"), [(8, 2), (16, 5), (5, 4)])
def test_gradients_are_those_of_the_formula_for_the_same_draws(request, backend, items, k, normaliser_grad):
    device = device_of(backend)
    require_backend(request, "expected_value", backend, device)
    rows, samples = (2, 5) if is_emulated(backend) else (6, 64)
    values, weights = (t.double() for t in (torch.randn(rows, items, 4), torch.randn(rows, items).softmax(1)))
    upstream = torch.randn(rows, 4).double()
    leaves = [t.clone().requires_grad_() for t in (values, weights)]
    expected = naive(*leaves, k, samples, 3, normaliser_grad)
    there = [t.to(device) for t in (values, weights)]
    how = {"num_samples": samples, "seed": 3, "normaliser_grad": normaliser_grad, "backend": backend}
    torch.testing.assert_close(expected_value(*there, k, **how).cpu(), expected.detach())
    for got, exact in zip(
        gradients(*there, upstream, k, **how), torch.autograd.grad(expected, leaves, upstream), strict=True
    ):
        torch.testing.assert_close(got.cpu(), exact)


def test_batches_may_be_split_and_permuted(request, backend):
    device = device_of(backend)
    require_backend(request, "expected_value", backend, device)
    values = random_rows((5, 7, 3), torch.float32, "contiguous").to(device)
    weights = distributions(5, 7, torch.float32, "contiguous").to(device)
    ids = torch.tensor([5, 2**40, 0, -3, 8], device=device)

    def run(rows):
        how = {"num_samples": 6, "seed": 1, "row_id": ids[rows], "backend": backend}
        out = expected_value(values[rows], weights[rows], 3, **how)
        return out, *gradients(values[rows], weights[rows], torch.ones_like(out), 3, **how)

    whole = run(slice(None))
    for rows in ([4, 1, 0, 3, 2], [2], [3, 1]):
        rows = torch.tensor(rows, device=device)
        assert all(torch.equal(part, all_[rows]) for part, all_ in zip(run(rows), whole, strict=True))


# ----------------------------------------------------------------------------------------------------
# Weights of all kinds


DEGENERATE = {
    "one-hot": [0.0, 0.0, 1.0, 0.0],
    "one-hot up to rounding": [3e-9, 0, 1, 1e-8],
    "next to nothing left": [1e-39, 1.0, 0.0, 1e-42],
    "little left": [1e-15, 1.0, 0.0, 1e-18],
    "two of four": [0.5, 0, 0.5, 0],
    "nothing": [0.0, 0.0, 0.0, 0.0],
    "not numbers": [float("nan"), 0.5, -0.5, 0.5],
}


@pytest.mark.parametrize("gap", [10.0, 30.0, 87.0, 95.0, 104.0, 1000.0])
def test_training_survives_scores_of_any_gap(gap):
    """Through the softmax, where weights become subnormal and then zero: no NaN in values or gradients."""
    scores = torch.tensor([[gap, 0.0, 0.0, -1.0]], requires_grad=True)
    for normaliser_grad in (False, True):
        out = expected_value(
            torch.tensor([[1.0, -2.0, 3.0, 5.0]]), scores.softmax(1), 3, normaliser_grad=normaliser_grad
        )
        (gradient,) = torch.autograd.grad(out.sum(), scores)
        assert out.abs().item() <= 5
        assert gradient.isfinite().all()


@pytest.mark.parametrize("mode", ["sampled", "exact"])
@pytest.mark.parametrize("name", DEGENERATE)
def test_degenerate_weights_have_finite_results_and_gradients(request, backend, name, mode):
    device = device_of(backend)
    require_backend(request, "expected_value", backend, device)
    weights = torch.tensor([DEGENERATE[name]], device=device)
    values = torch.tensor([[1.0, -2.0, 3.0, 5.0]], device=device)
    k = 2 if mode == "exact" else 4
    draws = {} if mode == "exact" else {"seed": 0, "num_samples": 3}
    for normaliser_grad in (False, True):
        how = {"mode": mode, "normaliser_grad": normaliser_grad, "backend": backend, **draws}
        out = expected_value(values, weights, k, **how)
        assert out.abs().max() <= values.abs().max() + 1e-5
        torch.testing.assert_close(
            out.cpu(), expected_value(values.cpu(), weights.cpu(), k, **how | {"backend": "reference"})
        )
        for gradient in gradients(values, weights, torch.ones(1), k, **how):
            assert gradient.isfinite().all()


def test_a_saturated_policy_still_averages():
    """Where the published code divides 0 by 0: the first step gives the item of all the weight, the second nothing."""
    out = expected_value(torch.tensor([[1.0, 8.0, 3.0]]), torch.tensor([[0.0, 1.0, 0.0]]), 2, seed=0)
    assert out.tolist() == [4.0]
    # What is left is tiny, but it is there, and the second step averages over it.
    out = expected_value(torch.tensor([[1.0, 8.0, 3.0]]), torch.tensor([[1e-9, 1.0, 1e-9]]), 2, mode="exact")
    torch.testing.assert_close(out, torch.tensor([(8 + 2) / 2]), rtol=1e-5, atol=0)


def test_half_types_give_half_types():
    values = torch.randn(2, 4, 3, dtype=torch.bfloat16, requires_grad=True)
    weights = torch.rand(2, 4, dtype=torch.float16).softmax(1).requires_grad_()
    out = expected_value(values, weights, 2, seed=1)
    assert out.dtype == torch.bfloat16
    d_values, d_weights = torch.autograd.grad(out.float().sum(), (values, weights))
    assert (d_values.dtype, d_weights.dtype) == (torch.bfloat16, torch.float16)


def test_it_is_once_differentiable():
    values, weights = torch.randn(2, 4, requires_grad=True), torch.rand(2, 4).softmax(1).requires_grad_()
    (gradient,) = torch.autograd.grad(expected_value(values, weights, 2, seed=1).sum(), weights, create_graph=True)
    with pytest.raises(RuntimeError, match="expected_value is once differentiable"):
        gradient.sum().backward()


def test_maps_over_a_further_dimension():
    values, weights = torch.randn(3, 2, 5, 4), torch.rand(3, 2, 5).softmax(2)
    ids = torch.tensor([4, 5])
    mapped = torch.vmap(lambda v, w: expected_value(v, w, 2, seed=1, row_id=ids))(values, weights)
    for i in range(3):
        torch.testing.assert_close(mapped[i], expected_value(values[i], weights[i], 2, seed=1, row_id=ids))


def test_a_mapped_call_is_a_loop(request, backend):
    """Without row_id too: the rows of each mapped batch are numbered anew. Forward and gradients."""
    device = device_of(backend)
    require_backend(request, "expected_value", backend, device)
    values = random_rows((3, 2, 5, 2), torch.float32, "contiguous").to(device)
    weights = random_rows((3, 2, 5), torch.float32, "contiguous").softmax(2).to(device)
    for normaliser_grad in (False, True):
        how = {"num_samples": 4, "seed": 1, "normaliser_grad": normaliser_grad, "backend": backend}

        def loss(v, w, how=how):
            return expected_value(v, w, 3, **how).square().sum()

        mapped = torch.func.vmap(torch.func.grad(loss, argnums=(0, 1)))(values, weights)
        for i in range(3):
            alone = torch.func.grad(loss, argnums=(0, 1))(values[i], weights[i])
            for got, expected in zip(mapped, alone, strict=True):
                torch.testing.assert_close(got[i], expected)


def test_a_jacobian_sees_the_same_draws_in_every_row():
    values = torch.randn(2, 5, 2)
    weights = torch.rand(2, 5).softmax(1)

    def outputs(w):
        return expected_value(values, w, 4, num_samples=4, seed=1, normaliser_grad=True)

    exact = torch.autograd.functional.jacobian(outputs, weights)
    torch.testing.assert_close(torch.func.jacrev(outputs)(weights), exact)


def test_a_seed_that_changed_before_the_backward_raises():
    """The draws are made again there: with another seed they would be others."""
    seed, weights = torch.tensor(1), torch.rand(2, 5).softmax(1).requires_grad_()
    out = expected_value(torch.randn(2, 5), weights, 3, seed=seed, normaliser_grad=True)
    seed.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


def test_autocast_changes_nothing(request, backend, device):
    require_backend(request, "expected_value", backend, device)
    values, weights = (
        random_rows((2, 5, 3), torch.float32, "contiguous").to(device),
        torch.rand(2, 5).softmax(1).to(device),
    )
    for k, mode in ((2, "exact"), (3, "exact")) if backend == "reference" else ((2, "exact"),):
        expected = expected_value(values, weights, k, mode=mode, backend=backend)
        with torch.autocast(device, dtype=torch.bfloat16):
            assert torch.equal(expected_value(values, weights, k, mode=mode, backend=backend), expected)


# ----------------------------------------------------------------------------------------------------
# Memory


MEMORY = """
import sys, torch
from pathlib import Path
from adafocus_ops import expected_value
torch.set_num_threads(1)
B, T, D, M = 64, 64, 256, 2048  # B M T floats are 32 MiB
values = torch.randn(B, T, D)
weights = torch.randn(B, T).softmax(1).requires_grad_()

def step(rows):
    out = expected_value(values[:rows], weights[:rows], 20, num_samples=M, seed=1, backend=sys.argv[1])
    torch.autograd.grad(out.sum(), weights)

def status(field):
    return next(int(l.split()[1]) for l in Path("/proc/self/status").read_text().splitlines() if l.startswith(field))

step(1)  # what is loaded once
before = status("VmRSS")
Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
step(B)
print(1024 * (status("VmHWM") - before), 4 * 4 * (B * T + B * D) + 2**20)
"""


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="peak memory cannot be measured here")
def test_peak_memory_does_not_grow_with_the_samples(request):
    """Beyond values and results it stays below 4 (B T + B D) floats and 1 MB."""
    require_backend(request, "expected_value", "cpu", "cpu")
    out = subprocess.run([sys.executable, "-c", MEMORY, "cpu"], capture_output=True, text=True, check=True)
    peak, bound = map(int, out.stdout.split())
    assert peak < bound


@pytest.mark.parametrize("backend", ["cuda", "triton"])
def test_peak_memory_on_a_gpu(request, backend):
    require_backend(request, "expected_value", backend, "cuda")
    rows, items, depth = 128, 64, 200
    values = torch.randn(rows, items, depth, device="cuda")
    weights = torch.randn(rows, items, device="cuda").softmax(1).requires_grad_()
    for _ in range(2):  # the first compiles
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        out = expected_value(values, weights, 20, num_samples=1024, seed=1, backend=backend)
        gradient = torch.autograd.grad(out.sum(), weights)
        peak = torch.cuda.max_memory_allocated() - before
        del out, gradient
    assert peak < 4 * 4 * (rows * items + rows * depth) + 2**20


# ----------------------------------------------------------------------------------------------------
# Arguments


ONES = torch.ones(2, 4)


@pytest.mark.parametrize(
    ("args", "kwargs", "error", "message"),
    [
        ((ONES, ONES[0], 1), {}, ValueError, r"weights must be \[B, T\], got \(4,\) float32"),
        ((torch.ones(2, 5), ONES, 1), {}, ValueError, r"values must be \[B, T, D\] or \[B, T\] with B=2 and T=4"),
        ((ONES.int(), ONES, 1), {}, TypeError, "values must have dtype"),
        ((ONES, ONES, 5), {}, ValueError, r"k must be at most T=4 \(weights\), got 5"),
        ((torch.ones(1, 1025), torch.ones(1, 1025), 1), {}, ValueError, "weights must have T <= 1024 items"),
        ((ONES, ONES, 1), {"mode": "all"}, ValueError, "mode must be one of 'sampled', 'exact', got 'all'"),
        ((ONES, ONES, 1), {"num_samples": 0}, ValueError, "num_samples must be at least 1, got 0"),
        ((ONES, ONES, 1), {"mode": "exact", "seed": 1}, ValueError, "mode='exact' draws nothing"),
    ],
)
def test_bad_arguments(args, kwargs, error, message):
    with pytest.raises(error, match=message):
        expected_value(*args, **kwargs)


def test_all_prefixes_of_all_steps_have_probability_one():
    """Constant values have a constant expectation, whatever k: the enumeration forgets nothing."""
    weights = torch.rand(3, 6, dtype=torch.float64).softmax(1)
    for k, depth in itertools.product(range(1, 7), (1, 2)):
        out = expected_value(torch.ones(3, 6, depth).double(), weights, k, mode="exact", backend="reference")
        torch.testing.assert_close(out, torch.ones(3, depth).double())


@pytest.mark.parametrize("how", [{}, {"mode": "exact"}], ids=["sampled", "exact"])
def test_debug_mode_rejects_rows_that_are_no_distribution(how):
    values, weights = torch.ones(3, 4), torch.full((3, 4), 0.25)
    weights[2] = torch.tensor([2.0, 1.0, 0.5, 0.0])
    set_debug(True)
    try:
        with pytest.raises(ValueError, match=r"weights must sum to 1 in each row, .*; row 2 sums to 3.5"):
            expected_value(values, weights, 2, **how)
        with pytest.raises(ValueError, match="weights must be neither negative nor NaN"):
            expected_value(values, weights - 0.25, 2, **how)
        with pytest.raises(ValueError, match=r"weights must sum to 1 in each row, .*; row 0 sums to inf"):
            expected_value(values, (weights + 1) / 0, 2, **how)
        expected_value(values, weights.softmax(1), 2, **how)
        expected_value(values[:0], weights[:0], 2, **how)
    finally:
        set_debug(False)
    expected_value(values, weights, 2, **how)

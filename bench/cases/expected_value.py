"""Cases of expected_value, beside the published training code."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from adafocus_ops import expected_value
from bench.cases.weighted_sample import (
    NUM_ROWS,
    STANDARD_ERRORS,
    Rows,
    by_rank,
    inclusion_probabilities,
    shuffled_rows,
)
from bench.harness.case import OURS, Case, MismatchError, Prepared, Targets
from bench.harness.scaling import Series

ROUNDING = 1e-4  # of sums in float32


@dataclass(frozen=True)
class Expectation:
    """expected_value of float32 rows."""

    items: int  # T
    k: int
    depth: int  # D >= T, so that the results tell the weight of every item
    num_samples: int = 128
    gradients: bool = False  # with the backward pass, to values and weights
    num_rows: int | None = None  # default: NUM_ROWS of the device

    op = "expected_value"

    def case(self, targets: Mapping[str, Targets], launch_bound: bool = False) -> Case:
        """The expectation as something to time."""
        mode = "forward+backward" if self.gradients else "forward"
        sizes = f"{self.num_samples} samples of {self.k} of {self.items}, {self.depth} values each"
        return Case(
            op=self.op,
            name=f"expected_value, {sizes}, {mode}",
            input="{} rows of weighted values",
            mode=mode,
            dtype="float32",
            layout="contiguous",
            reference="the exact expectation",
            rival="published chain",
            tolerance=STANDARD_ERRORS,
            targets=targets,
            launch_bound=launch_bound,
            prepare=self.prepare,
            unit="standard errors",
            rival_waits=True,
        )

    def smaller(self) -> "Expectation":
        """The same of few samples, for which the rival needs gigabytes less."""
        return replace(self, num_samples=min(self.num_samples, 128))

    def prepare(self, device: torch.device) -> Prepared:
        """Both calls, ready to run, and the bytes that none can do without."""
        rows = shuffled_rows(self.num_rows or NUM_ROWS[device.type], self.items, device)
        generator = torch.Generator(device).manual_seed(1)
        random = functools.partial(torch.randn, generator=generator, device=device)
        values = random(*rows.weights.shape, self.depth).requires_grad_(self.gradients)
        weights = rows.weights.clone().requires_grad_(self.gradients)
        grad = random(len(values), self.depth)
        seed = torch.zeros(1, dtype=torch.int64, device=device)
        torch.manual_seed(0)

        def ours() -> Tensor:
            return expected_value(values, weights, self.k, num_samples=self.num_samples, seed=seed)

        def published() -> Tensor:
            return published_expectation(values, weights, self.k, self.num_samples)

        def passes(forward: Callable[[], Tensor]) -> tuple[Tensor, ...]:
            out = forward()
            return (out.detach(), *torch.autograd.grad(out, (values, weights), grad)) if self.gradients else (out,)

        calls = {OURS: functools.partial(passes, ours), "published chain": functools.partial(passes, published)}
        touched = values.nbytes + weights.nbytes + grad.nbytes  # the result is as large as its gradient
        inputs = rows, values.detach().double(), grad.double()
        return Prepared(calls, touched * (2 if self.gradients else 1), functools.partial(self.error, *inputs))

    def error(
        self, rows: Rows, values: Tensor, grad: Tensor, results: tuple[Tensor, ...], _expected: tuple[Tensor, ...]
    ) -> float:
        """Standard errors by which the mean over all rows of any item's coefficient is off, at most.

        The result is linear in the values, so that it tells the coefficients a of out[b] = sum over t of a[b, t]
        v[b, t]; their expectation is an item's inclusion probability over k, and they tell the gradients.

        Raises:
            MismatchError: the result is no such sum, or a gradient is not that of it.
        """
        out = results[0].double()
        if out.shape != grad.shape:
            raise MismatchError(f"gives a result of {tuple(out.shape)}, not {tuple(grad.shape)}")
        coefficients = torch.linalg.lstsq(values.transpose(1, 2), out[..., None]).solution[..., 0]  # [B, T]
        along_grad = (values @ grad[..., None])[..., 0]  # [B, T]
        sums = [((coefficients[:, None] @ values)[:, 0], out, "result")]
        if self.gradients:
            d_values, d_weights = results[1:]
            sums += [
                (coefficients[..., None] * grad[:, None], d_values, "gradient of the values"),
                (coefficients / rows.weights.double() * along_grad, d_weights, "gradient of the weights"),
            ]
        for expected, found, name in sums:
            if not (found - expected).abs().max() <= ROUNDING * expected.abs().max():
                raise MismatchError(f"does not give the {name} of a weighted sum of the values")
        coefficients = by_rank(rows, coefficients).cpu()
        weights = by_rank(rows, rows.weights)[0].cpu()
        exact = inclusion_probabilities(weights, self.k, range(self.items)) / self.k
        standard_error = coefficients.std(0) / len(coefficients) ** 0.5
        return ((coefficients.mean(0) - exact) / standard_error).abs().max().item()


def published_expectation(values: Tensor, weights: Tensor, k: int, num_samples: int) -> Tensor:
    """[B, D]: the expectation as in the published training code, with draws of their own for every step.

    Everything is repeated for every sample; the drawn items are masked out, and what is left is averaged by its
    weights, whose sum is taken as constant.
    """
    values, weights = (t.repeat_interleave(num_samples, 0) for t in (values, weights))  # [B M, T, D], [B M, T]
    total = torch.zeros_like(values[:, 0])
    for drawn in range(k):
        left = torch.ones_like(weights)
        if drawn:
            left.scatter_(1, torch.multinomial(weights.detach(), drawn), 0)
        left = left * weights
        total = total + (left[..., None] * values).sum(1) / left.sum(1, keepdim=True).detach()
    return (total / k).unflatten(0, (-1, num_samples)).mean(1)


CASES = [
    Expectation(16, 5, 200).case({"cuda": Targets(ratio=100, microseconds=15)}, launch_bound=True),
    Expectation(16, 5, 200, gradients=True).case({"cpu": Targets(ratio=200)}),
]


def expectation_series(rows: int, depths: Sequence[int], samples: Sequence[int]) -> list[Series]:
    """The series of expected_value of so many rows."""
    expectation = Expectation(16, 5, 200, num_rows=rows)
    return [
        Series("expected_value: samples", 1, {n: replace(expectation, num_samples=n) for n in samples}),
        # One small product grows with it; the draws do not.
        Series("expected_value: depth of the values", 0, {n: replace(expectation, depth=n) for n in depths}),
    ]


SERIES = {
    "cpu": expectation_series(64, depths=[25, 50, 100, 200], samples=[32, 128, 512]),
    "cuda": expectation_series(128, depths=[25, 50, 100, 200, 400], samples=[32, 128, 512, 2048, 8192]),
}

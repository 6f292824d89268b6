"""The cases of weighted_sample and expected_value, with what they replace.

Random results are held to what is known of them exactly: every row has the same weights in an order of its own, so
that the draws of all rows tell how often the item of a given weight is drawn, and how often it must be is an integral.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from _cases import OURS, Call, Case, MismatchError, Prepared, Targets
from adafocus_ops import expected_value, weighted_sample

NUM_ROWS = {"cpu": 64, "cuda": 128}
STANDARD_ERRORS = 5  # that a frequency may be off; of a thousand, one is with a probability of 1 in 1700
COMPARED_ITEMS = 32  # of a row, at most: the integral takes as long as there are items, for each
QUADRATURE_NODES = 256
ROUNDING = 1e-4  # of sums in float32


# --- what is known exactly -----------------------------------------------------------------------------------------


def inclusion_probabilities(weights: Tensor, k: int, items: Sequence[int]) -> Tensor:
    """How probable it is that an item is among the first k of T that are drawn without replacement; float64.

    Items arrive at times that are exponential with their weights as rates, and the first k are drawn. Item t does so
    if fewer than k others arrive before it: the mean of that over its quantile p of not having arrived yet, where the
    others have arrived with probabilities 1 - p^(w_j / w_t), independently.

    Args:
        weights: [T], positive.
        items: those that it is computed of.
    """
    nodes, node_weights = (torch.from_numpy(a) / 2 for a in np.polynomial.legendre.leggauss(QUADRATURE_NODES))
    log_p = (nodes + 0.5).log()
    items = torch.as_tensor(items)
    weights = weights.double()
    # [items, nodes, k]: the probability that 0, 1, .. k - 1 others have arrived.
    arrived = torch.zeros(len(items), QUADRATURE_NODES, k, dtype=torch.float64)
    arrived[..., 0] = 1
    for other, weight in enumerate(weights):
        arrives = 1 - (log_p * (weight / weights[items])[:, None]).exp()
        arrives = torch.where((items == other)[:, None], 0, arrives)[..., None]
        one_more = torch.nn.functional.pad(arrived[..., :-1] * arrives, (1, 0))
        arrived = arrived * (1 - arrives) + one_more
    return arrived.sum(-1) @ node_weights


@dataclass(frozen=True)
class Rows:
    """Rows of the same T weights, each in an order of its own."""

    weights: Tensor  # [B, T], of sum 1
    rank: Tensor  # [B, T]: which of the T an item is


def shuffled_rows(count: int, items: int, device: torch.device) -> Rows:
    """Always the same ones."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(items, generator=generator).softmax(0)
    rank = torch.rand(count, items, generator=generator).argsort(1)
    return Rows(weights[rank].to(device), rank.to(device))


def by_rank(rows: Rows, per_item: Tensor) -> Tensor:
    """[B, T] of [B, T]: in the order of the weights that all rows share."""
    return torch.empty_like(per_item).scatter_(1, rows.rank, per_item)


def compared_ranks(items: int) -> list[int]:
    """All, or some that are spread evenly."""
    return sorted(set(np.linspace(0, items - 1, min(items, COMPARED_ITEMS)).round().astype(int).tolist()))


# --- weighted_sample -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Draws:
    """weighted_sample of float32 rows."""

    items: int  # T
    k: int
    num_samples: int = 128  # M, of a row
    num_rows: int | None = None  # default: NUM_ROWS of the device

    op = "weighted_sample"

    def case(self, targets: Mapping[str, Targets], launch_bound: bool = False) -> Case:
        """The draws as something to time."""
        return Case(
            op=self.op,
            name=f"weighted_sample, {self.num_samples} samples of {self.k} of {self.items}",
            input="{} rows of weights",
            mode="forward",
            dtype="float32",
            layout="contiguous",
            baseline="torch.multinomial",
            tolerance=STANDARD_ERRORS,
            targets=targets,
            launch_bound=launch_bound,
            prepare=self.prepare,
            truth="the exact probabilities",
            unit="standard errors",
            waits=True,
        )

    def smaller(self) -> "Draws":
        """Of few samples."""
        return replace(self, num_samples=min(self.num_samples, 128))

    def prepare(self, device: torch.device) -> Prepared:
        """Both contenders, ready to run, and the bytes that none can do without."""
        rows = shuffled_rows(self.num_rows or NUM_ROWS[device.type], self.items, device)
        seed = torch.zeros(1, dtype=torch.int64, device=device)
        torch.manual_seed(0)
        calls: dict[str, Call] = {
            OURS: lambda: (weighted_sample(rows.weights, self.k, num_samples=self.num_samples, seed=seed),),
            "torch.multinomial": lambda: (multinomial(rows.weights, self.k, self.num_samples),),
        }
        written = len(rows.weights) * self.num_samples * self.k * 8
        return Prepared(calls, rows.weights.nbytes + written, functools.partial(self.error, rows))

    def error(self, rows: Rows, results: tuple[Tensor, ...], _expected: tuple[Tensor, ...]) -> float:
        """How many standard errors the frequency of any item is off: as the first draw, and among all k.

        Raises:
            MismatchError: an item is drawn twice, or something that is none.
        """
        (index,) = results  # [B, M, k]
        shape = (len(rows.rank), self.num_samples, self.k)
        if tuple(index.shape) != shape or index.min() < 0 or index.max() >= self.items:
            raise MismatchError(f"does not give {shape} indices of {self.items} items")
        if not (index.sort(-1).values.diff() > 0).all():
            raise MismatchError("draws an item twice")
        drawn = rows.rank.gather(1, index.flatten(1)).view(shape)
        weights = by_rank(rows, rows.weights)[0].double().cpu()
        ranks = compared_ranks(self.items)
        samples = shape[0] * shape[1]
        worst = 0.0
        for draws, exact in (
            (drawn[..., 0], weights[ranks] / weights.sum()),
            (drawn, inclusion_probabilities(weights, self.k, ranks)),
        ):
            counts = torch.bincount(draws.flatten(), minlength=self.items).cpu()[ranks]
            off = (counts / samples - exact) / (exact * (1 - exact) / samples).sqrt()
            worst = max(worst, off.abs().max().item())
        return worst


def multinomial(weights: Tensor, k: int, num_samples: int) -> Tensor:
    """[B, M, k]: torch's, of every row as often as there are samples."""
    rows = weights.repeat_interleave(num_samples, 0)
    return torch.multinomial(rows, k).unflatten(0, (-1, num_samples))


# --- expected_value ------------------------------------------------------------------------------------------------


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
            baseline="published chain",
            tolerance=STANDARD_ERRORS,
            targets=targets,
            launch_bound=launch_bound,
            prepare=self.prepare,
            truth="the exact expectation",
            unit="standard errors",
            waits=True,
        )

    def smaller(self) -> "Expectation":
        """Of few samples, for which the baseline needs gigabytes less."""
        return replace(self, num_samples=min(self.num_samples, 128))

    def prepare(self, device: torch.device) -> Prepared:
        """Both contenders, ready to run, and the bytes that none can do without."""
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

        def chain() -> Tensor:
            return published_chain(values, weights, self.k, self.num_samples)

        def passes(forward: Callable[[], Tensor]) -> tuple[Tensor, ...]:
            out = forward()
            return (out.detach(), *torch.autograd.grad(out, (values, weights), grad)) if self.gradients else (out,)

        calls = {OURS: functools.partial(passes, ours), "published chain": functools.partial(passes, chain)}
        touched = values.nbytes + weights.nbytes + grad.nbytes  # the result is as large as its gradient
        inputs = rows, values.detach().double(), grad.double()
        return Prepared(calls, touched * (2 if self.gradients else 1), functools.partial(self.error, *inputs))

    def error(
        self, rows: Rows, values: Tensor, grad: Tensor, results: tuple[Tensor, ...], _expected: tuple[Tensor, ...]
    ) -> float:
        """How many standard errors the mean over all rows of any item's coefficient is off.

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


def published_chain(values: Tensor, weights: Tensor, k: int, num_samples: int) -> Tensor:
    """[B, D]: as in the published training code, with draws of their own for every step.

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
    Draws(16, 5).case({"cpu": Targets(ratio=5)}),
    Draws(64, 16).case({"cuda": Targets(microseconds=15)}, launch_bound=True),
    Expectation(16, 5, 200).case({"cuda": Targets(ratio=100, microseconds=15)}, launch_bound=True),
    Expectation(16, 5, 200, gradients=True).case({"cpu": Targets(ratio=200)}),
]

"""Cases of weighted_sample, beside torch.multinomial.

Random results are held to what is known of them exactly: every row has the same weights in an order of its own, so
that the draws of all rows tell how often the item of a given weight is drawn, and how often it must be is an integral.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from adafocus_ops import weighted_sample
from bench.harness.case import OURS, Call, Case, MismatchError, Prepared, Targets
from bench.harness.scaling import Series

NUM_ROWS = {"cpu": 64, "cuda": 128}
STANDARD_ERRORS = 5  # that a frequency may be off; of a thousand, one is with a probability of 1 in 1700
COMPARED_ITEMS = 32  # of a row, at most: the integral takes as long as there are items, for each
QUADRATURE_NODES = 256


# --- what is known exactly -----------------------------------------------------------------------------------------


def inclusion_probabilities(weights: Tensor, k: int, items: Sequence[int]) -> Tensor:
    """The probability that an item is among the first k of T that are drawn without replacement; float64.

    Items arrive at times that are exponential with their weights as rates, and the first k are drawn. Item t does so
    if fewer than k others arrive before it: the mean of that over its quantile p of not having arrived yet, where the
    others have arrived with probabilities 1 - p^(w_j / w_t), independently.

    Args:
        weights: [T], positive.
        items: numbers of the items that it is computed of.
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
    rank: Tensor  # [B, T]: the place of an item among the T weights


def shuffled_rows(count: int, items: int, device: torch.device) -> Rows:
    """Rows of random weights, always the same."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(items, generator=generator).softmax(0)
    rank = torch.rand(count, items, generator=generator).argsort(1)
    return Rows(weights[rank].to(device), rank.to(device))


def by_rank(rows: Rows, per_item: Tensor) -> Tensor:
    """[B, T] from values [B, T] of the items: in the order of the weights that all rows share."""
    return torch.empty_like(per_item).scatter_(1, rows.rank, per_item)


def compared_ranks(items: int) -> list[int]:
    """Ranks that are compared: all, or some that are spread evenly."""
    return sorted(set(np.linspace(0, items - 1, min(items, COMPARED_ITEMS)).round().astype(int).tolist()))


# --- the cases -----------------------------------------------------------------------------------------------------


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
            reference="the exact probabilities",
            rival="torch.multinomial",
            tolerance=STANDARD_ERRORS,
            targets=targets,
            launch_bound=launch_bound,
            prepare=self.prepare,
            unit="standard errors",
            rival_waits=True,
        )

    def smaller(self) -> "Draws":
        """The same draws of few samples."""
        return replace(self, num_samples=min(self.num_samples, 128))

    def prepare(self, device: torch.device) -> Prepared:
        """Both calls, ready to run, and the bytes that none can do without."""
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
        """Standard errors by which the frequency of any item is off, at most: as the first draw, and among all k.

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
    """[B, M, k]: torch's draws, of every row as often as there are samples."""
    rows = weights.repeat_interleave(num_samples, 0)
    return torch.multinomial(rows, k).unflatten(0, (-1, num_samples))


CASES = [
    Draws(16, 5).case({"cpu": Targets(ratio=5)}),
    Draws(64, 16).case({"cuda": Targets(microseconds=15)}, launch_bound=True),
]


def draw_series(rows: int, samples: Sequence[int]) -> list[Series]:
    """The series of weighted_sample of so many rows."""
    draws = Draws(16, 5, num_rows=rows)
    items = (16, 64, 256, 1024)
    return [
        Series("weighted_sample: samples", 1, {n: replace(draws, num_samples=n) for n in samples}),
        Series("weighted_sample: items", 1, {n: replace(draws, items=n, num_samples=32) for n in items}),
    ]


SERIES = {
    "cpu": draw_series(64, samples=[32, 128, 512]),
    "cuda": draw_series(128, samples=[32, 128, 512, 2048, 8192]),
}

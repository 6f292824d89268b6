"""Variance of two estimators of the expected value of a sample without replacement: python bench/estimators.py

`expected_value` takes the prefixes of all steps from one sequence of draws; the published training code draws anew for
every step. Their expectations are equal. For the same number of samples the first is made in a fraction of the time,
but its steps are correlated; what counts is variance times time.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

sys.path.append(str(Path(__file__).resolve().parents[1]))  # where `bench` and the library are

from adafocus_ops import backends, expected_value, use_backend, weighted_sample
from bench.harness.arguments import measuring_parser
from bench.harness.console import print_table, progress, run_program
from bench.harness.environment import environment, header
from bench.harness.records import Record, default_path, write
from bench.harness.timing import interleave, stats

SAMPLES = 128  # M
ROWS, DEPTH = 16, 8  # distributions, and values of an item
SEEDS = 400
STANDARD_ERRORS = 5  # that the two means may be apart

Estimator = Callable[[Tensor, Tensor, int, int], Tensor]  # values, weights, k, seed -> [B, D]


@dataclass(frozen=True)
class Case:
    """Distributions over some items, and how many are drawn."""

    items: int
    k: int
    peak: float  # the standard deviation of the scores that a softmax makes weights of

    @property
    def name(self) -> str:
        return f"T={self.items}, k={self.k}, scores of deviation {self.peak:g}"

    def inputs(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """values [B, T, D] and weights [B, T], always the same."""
        generator = torch.Generator().manual_seed(0)
        values = torch.randn(ROWS, self.items, DEPTH, generator=generator)
        scores = self.peak * torch.randn(ROWS, self.items, generator=generator)
        return values.to(device), scores.softmax(1).to(device)


CASES = [Case(items, k, peak) for items, k in ((8, 2), (16, 5), (64, 21)) for peak in (0.5, 2)]


def one_sequence(values: Tensor, weights: Tensor, k: int, seed: int) -> Tensor:
    """The prefixes of all steps from one sequence of draws."""
    return expected_value(values, weights, k, num_samples=SAMPLES, seed=seed)


def anew_for_every_step(values: Tensor, weights: Tensor, k: int, seed: int) -> Tensor:
    """A sequence of draws of its own for every step, made and summed as quickly as the same ops allow."""
    coefficients = torch.ones_like(weights)  # of the first step, which has no prefix
    for step in range(1, k):
        prefix = weighted_sample(weights, step, num_samples=SAMPLES, seed=k * seed + step)
        picked = weights[:, None].expand(-1, SAMPLES, -1).gather(2, prefix)
        inverse = 1 / (1 - picked.sum(2))  # [B, M]
        drawn = torch.zeros_like(weights).scatter_add_(
            1, prefix.flatten(1), inverse[..., None].expand(prefix.shape).flatten(1)
        )
        coefficients += (inverse.sum(1, keepdim=True) - drawn) / SAMPLES
    return torch.einsum("bt,btd->bd", coefficients / k * weights, values)


ESTIMATORS: dict[str, Estimator] = {"one sequence": one_sequence, "anew for every step": anew_for_every_step}


def measure(case: Case, device: torch.device, backend: str, runs: int, env: dict) -> Record:
    """Mean and variance of both over many seeds, and their time."""
    values, weights = case.inputs(device)
    calls = {name: (lambda f=f, seed=0: f(values, weights, case.k, seed)) for name, f in ESTIMATORS.items()}
    results = {
        name: torch.stack([f(values, weights, case.k, seed) for seed in range(SEEDS)]).double()
        for name, f in ESTIMATORS.items()
    }
    variances = {name: result.var(0) for name, result in results.items()}
    apart = (results["one sequence"].mean(0) - results["anew for every step"].mean(0)).abs()
    error = (apart / (sum(variances.values()) / SEEDS).sqrt()).max().item()
    if not error <= STANDARD_ERRORS:
        raise SystemExit(f"{case.name}: the means are {error:.1f} standard errors apart")
    times = {name: stats(values) for name, values in interleave(calls, device, runs=runs).items()}
    ours, theirs = (times[name]["p50_ms"] for name in ESTIMATORS)
    at_equal_samples = float(variances["anew for every step"].mean() / variances["one sequence"].mean())
    return {
        "what": "estimators",
        "op": "expected_value",
        "case": case.name,
        "input": f"{ROWS} rows, {SAMPLES} samples, {DEPTH} values an item, {SEEDS} seeds",
        "device": env["device"],
        "dtype": "float32",
        "layout": "contiguous",
        "mode": "forward",
        "backend": backend,
        "threads": env["threads"],
        "stats": times["one sequence"],
        "others": {"anew for every step": times["anew for every step"]},
        "variance": {name: float(variance.mean()) for name, variance in variances.items()},
        "check": {"passed": True, "max_error": error, "tolerance": STANDARD_ERRORS},
        "ratios": {
            "variance at equal samples": at_equal_samples,
            "variance at equal time": at_equal_samples * theirs / ours,
        },
        "env": env,
    }


def table_line(record: Record) -> list[str]:
    """A record as the cells of a table."""
    times = record["stats"], record["others"]["anew for every step"]
    ratios = record["ratios"].values()
    return [record["case"], *(f"{time['p50_ms']:.3g}" for time in times), *(f"{ratio:.3g}x" for ratio in ratios)]


def main(arguments: Sequence[str] | None = None) -> int:
    args = measuring_parser(__doc__, threads=1).parse_args(arguments)
    try:
        backend = backends.choose("expected_value", args.device, args.backend)
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 2
    torch.set_num_threads(args.threads)
    env = environment(args.device)
    print("\n".join(header(env)))
    records = []
    with progress("measuring", len(CASES)) as step, use_backend(backend):
        for case in CASES:
            records.append(measure(case, args.device, backend, args.runs, env))
            step()
    path = args.json or default_path("estimators", env["device"])
    write(path, records)  # first, since nobody may read what is printed
    columns = ["case", "ms", "ms, anew", "variance, anew / ours: same samples", "same time"]
    title = f"Drawing anew for every step against one sequence: {records[0]['input']}"
    print_table(title, columns, [table_line(record) for record in records])
    print(f"records: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(run_program(main))

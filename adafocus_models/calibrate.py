"""Finds the thresholds of early exits: python -m adafocus_models.calibrate LIST --out curve.json

Runs a model to its last exit on labelled videos (or reads the logits of an earlier run), and writes the thresholds of
every budget, with their cost and accuracy, to one file: for predict --thresholds FILE --budget GFLOPS, and for
Engine.set_thresholds(FILE) and set_budget(GFLOPS).
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from adafocus_ops.checks import require

from . import command_line, labelled
from .exits import Curve, exit_curve
from .exits.scores import CRITERIA

SHOWN = 6  # budgets in the table


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line: 0 on success, 2 with a message where an argument, a file or too many videos do not fit."""
    return command_line.run(_run, _parser().parse_args(arguments))


def _parser() -> argparse.ArgumentParser:
    parser = labelled.make_parser("calibrate", __doc__)
    add = parser.add_argument
    add("--out", type=Path, required=True, metavar="FILE", help="the curve, as JSON")
    add("--criterion", choices=CRITERIA, default="entropy", help="how sure an answer is; default %(default)s")
    add("--budget", type=float, metavar="GFLOPS", help="tell what this budget gives")
    add("--plot", type=Path, metavar="FILE", help="draw accuracy against GFLOPs (.png, .svg or .pdf)")
    return parser


def _run(options: argparse.Namespace) -> int:
    labelled.check_arguments(options)
    stored = labelled.stored_logits(options)
    require(len(stored.costs) > 1, lambda: "thresholds need a model with an early exit; this one has one exit")
    curve = exit_curve(stored.scores(options.criterion), stored.costs, stored.correct, criterion=options.criterion)
    curve.save(options.out)
    print(f"{len(stored.labels)} videos, {len(stored.costs)} exits; of {len(curve.q)} thresholds some:")
    print(" GFLOPs  accuracy  left at each exit")
    least, most = curve.expected_cost.min().item(), curve.expected_cost.max().item()
    asked = [] if options.budget is None else [options.budget * 1e9]
    for budget in [*torch.linspace(least, most, SHOWN, dtype=torch.float64).tolist(), *asked]:
        _tell(curve, budget)
    print(f"written to {options.out}")
    if options.plot:
        from .pictures import plot_curve

        last = stored.correct[-1].double().mean().item(), stored.costs[-1].item()
        plot_curve(options.plot, curve.expected_cost / 1e9, curve.accuracy, without=(last[1] / 1e9, last[0]))
        print(f"drawn to {options.plot}")
    return 0


def _tell(curve: Curve, budget: float) -> None:
    chosen = curve.within(budget)
    accuracy = curve.accuracy[(curve.values == chosen.values).all(1)].max().item()
    shares = " ".join(f"{share:.0%}" for share in chosen.exit_fraction.tolist())
    print(f"{chosen.expected_cost / 1e9:7.2f}  {accuracy:8.1%}  {shares}")


if __name__ == "__main__":
    sys.exit(main())

"""Tells how good a model is, and how much of it videos need: python -m adafocus_models.evaluate LIST

With --thresholds videos leave early, online, and the figures are those of what they answered; with --logits it is
simulated on the logits of an earlier run.
"""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from . import command_line, labelled
from .exits import StoredLogits, Thresholds, evaluate_thresholds, mean_average_precision, top_k_accuracy


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line: 0 on success, 2 with a message where an argument, a file or too many videos do not fit."""
    return command_line.run(_run, _parser().parse_args(arguments))


def _parser() -> argparse.ArgumentParser:
    parser = labelled.make_parser("evaluate", __doc__)
    add = parser.add_argument
    add("--thresholds", type=Path, metavar="FILE", help="of Thresholds or a Curve, which calibrate writes")
    add("--budget", type=float, metavar="GFLOPS", help="of a Curve, the thresholds that cost this much a video")
    add("--json", action="store_true", help="print one line of JSON")
    add("--plot", type=Path, metavar="FILE", help="draw how many videos leave at each exit (.png, .svg or .pdf)")
    return parser


def _run(options: argparse.Namespace) -> int:
    labelled.check_arguments(options)
    thresholds = command_line.read_thresholds(options.thresholds, options.budget)
    if options.logits or options.save_logits or thresholds is None:
        figures = simulated(labelled.stored_logits(options), thresholds)
    else:
        engine, results = labelled.run(options, thresholds)
        logits, labels = (torch.stack([r.logits for r, _ in results]), torch.tensor([label for _, label in results]))
        stats = engine.stats()
        figures = {
            **qualities(logits, labels),
            "exits": list(stats.exits),
            "gflops": stats.mean_multiply_adds / 1e9,
            "videos_per_s": stats.videos_per_s,
        }
    print(json.dumps(figures) if options.json else _text(figures))
    if options.plot:
        from .pictures import plot_exits

        plot_exits(options.plot, figures["exits"])
        print(f"drawn to {options.plot}", file=sys.stderr)
    return 0


def simulated(stored: StoredLogits, thresholds: Thresholds | None) -> dict[str, Any]:
    """The figures of videos that leave by these thresholds, or all at the last exit."""
    exits = len(stored.costs)
    thresholds = thresholds or Thresholds.of([math.inf] * (exits - 1))
    logits = stored.exit_logits.transpose(0, 1)
    online = evaluate_thresholds(thresholds, stored.scores(thresholds.criterion), stored.costs, logits=logits)
    return {
        **qualities(online.logits, stored.labels),
        "exits": online.exit_counts.tolist(),
        "gflops": online.expected_cost / 1e9,
    }


def qualities(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Of answers [V, C] to videos of classes [V]; mAP as published, of probabilities."""
    probabilities = logits.float().softmax(1)
    return {
        "videos": len(labels),
        "top1": top_k_accuracy(logits, labels),
        "top5": top_k_accuracy(logits, labels, min(5, logits.shape[1])),
        "mAP": mean_average_precision(probabilities, labels),
    }


def _text(figures: dict[str, Any]) -> str:
    shares = ", ".join(f"{n}: {count / figures['videos']:.1%}" for n, count in enumerate(figures["exits"]))
    lines = [
        f"{figures['videos']} videos: top-1 {figures['top1']:.2%}, top-5 {figures['top5']:.2%},"
        f" mAP {figures['mAP']:.2%}",
        f"{figures['gflops']:.2f} GFLOPs (multiply-adds) a video; left at exit {shares}",
    ]
    if "videos_per_s" in figures:
        lines.append(f"{figures['videos_per_s']:.3g} videos/s, decoding included")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())

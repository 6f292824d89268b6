"""Plots of early exits: accuracy against cost, and how many videos leave where. Needs matplotlib."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

OURS, OTHER = "#0072b2", "#8c8c8c"


def plot_curve(
    path: str | Path, gflops: Sequence[float], accuracy: Sequence[float], *, without: tuple[float, float]
) -> None:
    """Draws accuracy [Q] against the billions of multiply-adds [Q] a video; without: those of no early exit."""
    figure, axes, close = _axes((6, 4))
    points = sorted(zip(map(float, gflops), map(float, accuracy), strict=True))
    axes.plot(*zip(*points, strict=True), ".-", color=OURS, label="early exit")
    axes.plot(*without, "D", color=OTHER, label="all to the last exit")
    axes.set_xlabel("GFLOPs (multiply-adds) a video")
    axes.set_ylabel("top-1 accuracy")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)
    close(figure)


def plot_exits(path: str | Path, counts: Sequence[int]) -> None:
    """Draws which share of the videos leaves at each exit."""
    figure, axes, close = _axes((6, 3))
    total = max(sum(counts), 1)
    bars = axes.bar(range(len(counts)), [count / total for count in counts], color=OURS)
    axes.bar_label(bars, [f"{count / total:.0%}" for count in counts], padding=2, fontsize=8)
    axes.set_xticks(range(len(counts)))
    axes.set_xlabel("exit")
    axes.set_ylabel("share of the videos")
    axes.margins(y=0.12)
    figure.savefig(path, dpi=150)
    close(figure)


def _axes(size: tuple[float, float]) -> tuple[Any, Any, Any]:
    try:
        import matplotlib
    except ImportError as error:
        raise ImportError(f'plots need matplotlib ({error}): pip install "adafocus[bench]"') from error
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=size, layout="constrained")
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes, plt.close

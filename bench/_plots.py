"""Rows as a plot."""

from collections.abc import Sequence
from pathlib import Path

from _environment import slug
from _rows import Row
from _tables import STAGE_LABELS, describe

OURS, BASELINE = "#0072b2", "#8c8c8c"
STAGE_COLOURS = {"read": "#e69f00", "glance": "#56b4e9", "policy": "#009e73", "focus": "#0072b2", "head": "#cc79a7"}


def plot_throughput(rows: Sequence[Row], folder: Path) -> Path:
    """Writes videos a second with the ratio to TSM+, and milliseconds by stage, as a PNG named after the rows."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    first = rows[0]
    threads = "" if "gpu" in first["env"] else f"{first['threads']} threads"
    name = slug(f"{first['device']} {first['dtype']} {threads}")
    path = folder / f"throughput_{name}.png"
    rows = list(reversed(rows))  # the first on top
    names = [row["case"].replace("/", "\n") for row in rows]
    style = {
        "axes.spines.top": False,
        "axes.spines.right": False,
        "font.size": 9,
        "axes.titlesize": 10,
        "legend.frameon": False,
    }
    with plt.rc_context(style):
        size = (11, 1.7 + 0.5 * len(rows))
        figure, (speed, stages) = plt.subplots(1, 2, figsize=size, sharey=True, layout="constrained")
        _bars(speed, names, rows)
        _stacks(stages, names, rows)
        figure.suptitle(describe(rows), fontsize=9, color="0.35")
        figure.legend(*stages.get_legend_handles_labels(), loc="outside lower right", ncols=len(STAGE_LABELS))
        folder.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
        plt.close(figure)
    return path


def _bars(axes, names: list[str], rows: list[Row]) -> None:
    values = [row["videos_per_s"] for row in rows]
    colours = [BASELINE if row["case"].startswith("tsm_plus") else OURS for row in rows]
    bars = axes.barh(names, values, color=colours, height=0.62)
    axes.bar_label(bars, [_speed_label(row) for row in rows], padding=4)
    axes.margins(x=0.45)
    axes.set_title("Throughput and ratio to TSM+ (the paper's ratio)", loc="left")
    axes.set_xlabel("videos/s")


def _speed_label(row: Row) -> str:
    label = f"{row['videos_per_s']:.3g}"
    for ratio in row["ratios"].values():
        paper = f" ({row['paper']['ratio']:.2f}x)" if row["paper"] else ""
        label += f",  {ratio:.2f}x{paper}"
    return label


def _stacks(axes, names: list[str], rows: list[Row]) -> None:
    left = [0.0] * len(rows)
    for stage, label in STAGE_LABELS.items():
        values = [row["stages_ms"].get(stage, 0.0) for row in rows]
        axes.barh(names, values, left=left, color=STAGE_COLOURS[stage], height=0.62, label=label)
        left = [a + b for a, b in zip(left, values, strict=True)]
    axes.tick_params(axis="y", left=False)
    axes.set_title("Time by stage", loc="left")
    axes.set_xlabel("milliseconds a video")

"""Tables and pictures from the results: written into README.md between markers, and beside it."""

import json
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev
from typing import Any

Lines = dict[str, list[dict[str, Any]]]  # row -> its results, one a seed

NAMES = {
    "learned": "learned",
    "place_random": "random",
    "place_centre": "in the middle",
    "place_gaussian": "random about the middle",
    "size_24": "24 px",
    "size_32": "32 px",
    "size_42": "42 px",
    "size_random": "random",
    "size_whole": "whole frame",
    "frames_uniform": "evenly spread",
    "frames_random": "random",
    "frames_centre": "four in the middle",
    "frames_gaussian": "random about the middle",
}
KINDS = {"place": "Where", "size": "How large", "frames": "When"}
# What is dynamic beside early exit -> the row that has it.
DYNAMIC = {"nothing": "nothing", "where": "frames_uniform", "when": "size_whole", "where and when": "learned"}


def write_report(folder: Path) -> None:
    """Everything that is made of the folder's results."""
    lines: Lines = defaultdict(list)
    for line in _lines(folder / "results.jsonl"):
        lines[line["row"]].append(line)
    tables = {"choices": _choices(lines), "dynamic": _dynamic(lines), "exits": _exits(lines), "looks": _looks(lines)}
    tables["reinforcement"] = _reinforcement(_lines(folder / "reinforcement.jsonl"))
    readme = folder / "README.md"
    text = readme.read_text()
    for name, table in tables.items():
        text = _between(text, name, table)
    readme.write_text(text)
    _plot_costs(folder / "cost.png", lines)
    _plot_frames(folder / "frames.png", lines)


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _between(text: str, name: str, table: str) -> str:
    """The text with a table between its markers."""
    opening, closing = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, _, rest = text.partition(opening)
    _, _, after = rest.partition(closing)
    return f"{before}{opening}\n{table}\n{closing}{after}"


def _percent(values: list[float]) -> str:
    """Mean and standard deviation over the seeds, in percent; nothing of no seeds."""
    if not values:
        return ""
    spread = f" ± {100 * stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * mean(values):.1f}{spread}"


def _table(header: list[str], rows: list[list[str]]) -> str:
    align = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [header, align, *rows])


def _choices(lines: Lines) -> str:
    """The paper's Table IX in small."""
    tables = []
    for kind, question in KINDS.items():
        rows = []
        for row in ["learned", *(name for name in NAMES if name.startswith(kind))]:
            if row in lines:
                focus = [line["test"]["focus"] for line in lines[row]]
                last = [line["test"]["exits"][-1] for line in lines[row]]
                cells = [*(_percent([x[n] for x in focus]) for n in (0, 1, 3)), _percent(last)]
                at_test = [line["swapped"][row]["focus"] for line in lines["learned"] if row in line["swapped"]]
                rows.append([NAMES[row], *cells, *(_percent([x[n] for x in at_test]) for n in (0, 1))])
        patches = ["1 patch", "2 patches"]
        header = [question, *patches, "4 patches", "with the glance", *(f"at test alone: {x}" for x in patches)]
        tables.append(_table(header, rows))
    return "\n\n".join(tables)


def _point(line: dict[str, Any], budget: float) -> dict[str, Any] | None:
    return next((point for point in line["early_exit"]["budgets"] if abs(point["budget"] - budget) < 1e-9), None)


def _dynamic(lines: Lines) -> str:
    """The paper's Table X in small: at the cost of two patches, all videos or the mean video."""
    rows = []
    for what, row in DYNAMIC.items():
        if row not in lines:
            continue
        fixed = [line["test"]["exits"][2] for line in lines[row]]
        early = [line["early_exit"]["two_patches"]["accuracy"] for line in lines[row]]
        cost = mean(line["exit_costs"][2] for line in lines[row]) / 1e6
        rows.append([what, f"{cost:.1f}", _percent(fixed), _percent(early)])
    return _table(["what is dynamic", "million multiply-adds", "two patches for all", "and early exit"], rows)


def _exits(lines: Lines) -> str:
    """Early exit along budgets, of the learned policies."""
    rows = []
    for point in lines["learned"][0]["early_exit"]["budgets"]:
        points = [_point(line, point["budget"]) for line in lines["learned"]]
        accuracy, drawn = ([x[name] for x in points] for name in ("accuracy", "random"))
        cost = mean(x["cost"] for x in points)
        rows.append([f"{point['budget']:.0%}", f"{cost:.0%}", _percent(accuracy), _percent(drawn)])
    everything = [line["test"]["exits"][-1] for line in lines["learned"]]
    rows.append(["no early exit", "100%", _percent(everything), ""])
    return _table(["budget", "spent", "surest first", "the same shares, drawn"], rows)


def _looks(lines: Lines) -> str:
    """Where the learned policies looked."""
    found = [line["looks"] for line in lines["learned"]]
    rows = [
        ["picked frames that show the digit (by chance 25%)", _percent([mean(x["shows"]) for x in found]) + " %"],
        [
            "median error of the place, down / across",
            " / ".join(f"{mean(x['place_error'][i] for x in found):.1f} px" for i in (0, 1)),
        ],
        ["geometric mean of the sides (of the digits 28 px)", f"{mean(x['side'] for x in found):.1f} px"],
        [
            "correlation with the digit's height / width / ratio",
            " / ".join(f"{mean(x['size_correlation'][i] for x in found):.2f}" for i in range(3)),
        ],
    ]
    truths = [line["truths"] for line in lines["learned"]]
    for name in truths[0]:
        cells = [_percent([x[name][n] for x in truths]) for n in (0, 1)]
        rows.append([f"focus after 1 / 2 patches with {name}", " / ".join(cells)])
    return _table(["learned policies", "test videos"], rows)


def _reinforcement(found: list[dict[str, Any]]) -> str:
    """AdaFocus by reinforcement, beside random places."""
    rows = [
        [where, *(_percent([line[name][what] for line in found]) for what in ("accuracy", "found"))]
        for name, where in (("learned", "where the policy looks"), ("random", "at random places"))
    ]
    return _table(["patches", "accuracy", "of the frames that show the digit, patches with its middle"], rows)


# ----------------------------------------------------------------------------------------------------
# Pictures


def subplots(rows: int, columns: int, width: float, height: float) -> tuple[Any, Any]:
    """A figure of this size in inches that is written, not shown, and its axes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(rows, columns, figsize=(width, height), layout="constrained")
    if rows == columns == 1:
        axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _plot_costs(path: Path, lines: Lines) -> None:
    """Accuracy against cost, of all dynamic parts and without them."""
    figure, axes = subplots(1, 1, 6.4, 4)
    colours = {"learned": "#0072b2", "frames_uniform": "#d55e00", "size_whole": "#009e73", "nothing": "#8c8c8c"}
    for what, row in DYNAMIC.items():
        if row not in lines:
            continue
        costs = [cost / 1e6 for cost in lines[row][0]["exit_costs"]]
        fixed = [mean(line["test"]["exits"][e] for line in lines[row]) for e in range(len(costs))]
        axes.plot(costs, fixed, "o--", color=colours[row], alpha=0.5, label=f"{what}: 0 to 4 patches for all")
        budgets = [point["budget"] for point in lines[row][0]["early_exit"]["budgets"]]
        early = [[_point(line, budget) for line in lines[row]] for budget in budgets]
        axes.plot(
            [mean(x["cost"] for x in points) * costs[-1] for points in early],
            [mean(x["accuracy"] for x in points) for points in early],
            ".-",
            color=colours[row],
            label=f"{what}, and early exit",
        )
    axes.set_xlabel("million multiply-adds a video")
    axes.set_ylabel("accuracy on test videos")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.legend(frameon=False, fontsize=7)
    figure.savefig(path, dpi=120)


def _plot_frames(path: Path, lines: Lines) -> None:
    """How often each frame was picked, by when the digit shows."""
    counts = [
        [sum(x) for x in zip(*rows, strict=True)]
        for rows in zip(*(line["looks"]["picked"] for line in lines["learned"]), strict=True)
    ]
    starts = [first for first, row in enumerate(counts) if sum(row)]
    figure, axes = subplots(1, 1, 6.4, 3)
    shares = [[4 * count / sum(counts[first]) for count in counts[first]] for first in starts]
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for i, first in enumerate(starts):
        axes.plot(
            [first - 0.5, first + 3.5, first + 3.5, first - 0.5, first - 0.5],
            [i - 0.5, i - 0.5, i + 0.5, i + 0.5, i - 0.5],
            color="#d55e00",
        )
    axes.set_xlabel("frame; the digit shows in those that are framed")
    axes.set_yticks(range(len(starts)), [str(first) for first in starts])
    axes.set_ylabel("first with the digit")
    figure.colorbar(image, label="share of videos that pick it")
    figure.savefig(path, dpi=120)

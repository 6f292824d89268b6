"""Records as a plot."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.harness.environment import slug
from bench.harness.records import Record
from bench.harness.tables import ModelNames, describe, is_compared

OURS, RIVAL = "#0072b2", "#8c8c8c"
STAGE_COLOURS = ("#e69f00", "#56b4e9", "#009e73", "#0072b2", "#cc79a7")  # in the order of their work


def plot_throughput(records: Sequence[Record], folder: Path, names: ModelNames) -> Path:
    """Writes videos a second with the ratio to the rival, and milliseconds by stage, as a PNG named like the device."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    first = records[0]
    threads = "" if "gpu" in first["env"] else f"{first['threads']} threads"
    engine = "" if first["engine"] == "eager" else first["engine"]
    file = slug(f"{first['device']} {first['dtype']} {threads} {engine} table {first['table']}")
    path = folder / f"throughput_{file}.png"
    records = list(reversed(records))  # the first on top
    cases = [record["case"].replace("/", "\n") for record in records]
    style = {
        "axes.spines.top": False,
        "axes.spines.right": False,
        "font.size": 9,
        "axes.titlesize": 10,
        "legend.frameon": False,
    }
    with plt.rc_context(style):
        size = (11, 1.7 + 0.5 * len(records))
        figure, (speed, stages) = plt.subplots(1, 2, figsize=size, sharey=True, layout="constrained")
        _bars(speed, cases, records, names)
        _stacks(stages, cases, records, names.stages)
        figure.suptitle(describe(records), fontsize=9, color="0.35")
        figure.legend(*stages.get_legend_handles_labels(), loc="outside lower right", ncols=len(names.stages))
        folder.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
        plt.close(figure)
    return path


def plot_engines(records: Sequence[Record], folder: Path, ours: str) -> Path:
    """Writes videos a second of every model by every engine, and the paper's, as a PNG named like the device."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    first = records[0]
    threads = "" if "gpu" in first["env"] else f"{first['threads']} threads"
    file = slug(f"{first['device']} {first['dtype']} {threads} table {first['table']}")
    path = folder / f"engines_{file}.png"
    cases = list(dict.fromkeys(record["case"] for record in records))
    engines = list(dict.fromkeys(record["engine"] for record in records))
    height = 0.8 / len(engines)
    figure, axes = plt.subplots(figsize=(9, 1.6 + 0.28 * len(cases) * len(engines)), layout="constrained")
    for number, engine in enumerate(engines):
        rows = [record for record in records if record["engine"] == engine]
        places = [cases.index(record["case"]) + (number - (len(engines) - 1) / 2) * height for record in rows]
        colour = OURS if engine == ours else plt.cm.Greys(0.3 + 0.5 * number / len(engines))
        bars = axes.barh(places, [record["videos_per_s"] for record in rows], height, color=colour, label=engine)
        axes.bar_label(bars, [f"{record['videos_per_s']:.3g}" for record in rows], padding=3, fontsize=8)
    stated = {record["case"]: (record["paper"] or {}).get("videos_per_s") for record in records}
    points = [(speed, cases.index(case)) for case, speed in stated.items() if speed]
    if points:
        axes.plot(*zip(*points, strict=True), "D", color=STAGE_COLOURS[-1], label="paper, RTX 3090")
    axes.set_xscale("log")
    axes.margins(x=0.12)
    axes.set_yticks(range(len(cases)), cases)
    axes.invert_yaxis()
    axes.set_xlabel("videos/s")
    axes.set_title(describe(records, engine=False), loc="left", fontsize=9, color="0.35")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)
    return path


def plot_streaming(records: Sequence[Record], folder: Path) -> Path:
    """Writes which share of the videos left at each exit, and how long they took, as a PNG named like the device."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    first = records[0]
    threads = "" if "gpu" in first["env"] else f"{first['threads']} threads"
    file = slug(f"{first['device']} {first['dtype']} {threads} batch {first['batch_size']}")
    path = folder / f"streaming_{file}.png"
    size = (11, 1.2 + 1.6 * len(records))
    figure, axes = plt.subplots(len(records), 2, figsize=size, layout="constrained", squeeze=False)
    for (exits, latency), record in zip(axes, records, strict=True):
        total = sum(record["exits"])
        shares = [count / total for count in record["exits"]]
        bars = exits.bar(range(len(shares)), shares, color=OURS)
        exits.bar_label(bars, [f"{share:.0%}" if share else "" for share in shares], padding=2, fontsize=8)
        exits.set_xticks(range(len(shares)))
        exits.margins(y=0.2)
        exits.set_title(f"{record['case']}: share of the videos by exit", loc="left", fontsize=9)
        names, values = zip(*record["latency_ms"].items(), strict=True)
        bars = latency.barh(names, values, color=RIVAL)
        latency.bar_label(bars, [f"{value:.0f}" for value in values], padding=3, fontsize=8)
        latency.invert_yaxis()
        latency.margins(x=0.15)
        latency.set_title("latency, ms", loc="left", fontsize=9)
        for each in (exits, latency):
            each.spines[["top", "right"]].set_visible(False)
    figure.suptitle(describe(records), fontsize=9, color="0.35")
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path


def _bars(axes, cases: list[str], records: list[Record], names: ModelNames) -> None:
    values = [record["videos_per_s"] for record in records]
    colours = [RIVAL if record["case"] == names.rival else OURS for record in records]
    bars = axes.barh(cases, values, color=colours, height=0.62)
    axes.bar_label(bars, [_speed_label(record, is_compared(records, names)) for record in records], padding=4)
    axes.margins(x=0.45)
    ratio = f" and ratio to {names.rival_label} (the paper's ratio)" if is_compared(records, names) else ""
    axes.set_title(f"Throughput{ratio}", loc="left")
    axes.set_xlabel("videos/s")


def _speed_label(record: Record, compared: bool) -> str:
    label = f"{record['videos_per_s']:.3g}"
    for ratio in record["ratios"].values() if compared else ():
        stated = (record["paper"] or {}).get("ratio")
        paper = f" ({stated:.2f}x)" if stated else ""
        label += f",  {ratio:.2f}x{paper}"
    return label


def _stacks(axes, cases: list[str], records: list[Record], labels: Mapping[str, str]) -> None:
    left = [0.0] * len(records)
    for (stage, label), colour in zip(labels.items(), STAGE_COLOURS, strict=False):
        values = [record["stages_ms"].get(stage, 0.0) for record in records]
        axes.barh(cases, values, left=left, color=colour, height=0.62, label=label)
        left = [a + b for a, b in zip(left, values, strict=True)]
    axes.tick_params(axis="y", left=False)
    axes.set_title("Time by stage", loc="left")
    axes.set_xlabel("milliseconds a video")

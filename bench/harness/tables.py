"""Records as tables of text, for the terminal and the documentation."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from bench.harness.case import OURS
from bench.harness.records import Record


class ModelNames(NamedTuple):
    """Names by which tables and plots of models go."""

    rival: str  # the case of the model that the others' ratios are to
    rival_label: str
    stages: Mapping[str, str]  # stage -> label, in the order of their work


# What models of one table have in common, beside the machine.
OF_MODELS = ("table", "engine", "dtype", "batch_size", "processes")


class Table(NamedTuple):
    """A title, the columns' names and the cells; the first column is text and the others are figures."""

    title: str
    columns: list[str]
    lines: list[list[str]]


def throughput_table(records: Sequence[Record], names: ModelNames) -> Table:
    """Videos a second, beside what the paper states."""
    compared = is_compared(records, names)
    ratio = [f"times {names.rival_label} (paper)"] * compared
    shares = any("roofline" in record for record in records)  # older records have none
    roof = ["of copy", "of matrix product"] * shares
    columns = ["model", "frames", "patch", "GFLOPs (paper)", "videos/s", *ratio, *roof, "paper, RTX 3090"]
    columns += ["predicted, RTX 3090"] * shares
    lines = []
    for record in records:
        paper = record["paper"] or {}
        lines.append(
            [
                record["case"],
                record["frames"],
                str(record["patch"]),
                f"{record['gflops']:.1f} {_bracket(paper.get('gflops'), '.1f')}",
                _three_digits(record["videos_per_s"]),
                *[f"{_or_dash(record['ratios'].get(names.rival), '.2f')} {_bracket(paper.get('ratio'), '.2f')}"]
                * compared,
                *_shares(record) * shares,
                _or_dash(paper.get("videos_per_s"), ".1f"),
                *[_or_dash(record.get("roofline", {}).get("predicted_rtx_3090"), ".0f")] * shares,
            ]
        )
    return Table(f"Throughput: {describe(records)}", columns, lines)


def _shares(record: Record) -> list[str]:
    """Of this device's measured rates: bytes moved, each layer's once, and multiply-adds."""
    roof = record.get("roofline", {})
    return [_or_dash(roof.get(name), ".0%") for name in ("copy_share", "matrix_share")]


def engines_table(records: Sequence[Record], ours: str) -> Table:
    """Videos a second of every model by every engine, and how many times the fastest other ours is."""
    engines = list(dict.fromkeys(record["engine"] for record in records))
    speeds: dict[str, dict[str, float]] = {}
    for record in records:
        speeds.setdefault(record["case"], {})[record["engine"]] = record["videos_per_s"]
    lines = []
    for case, by_engine in speeds.items():
        others = [speed for engine, speed in by_engine.items() if engine != ours]
        ratio = f"{by_engine[ours] / max(others):.2f}" if ours in by_engine and others else "-"
        lines.append([case, *(_or_dash(by_engine.get(engine), ".3g") for engine in engines), ratio])
    return Table(
        f"Videos/s by engine: {describe(records, engine=False)}", ["model", *engines, f"{ours} / fastest other"], lines
    )


def chosen_table(records: Sequence[Record], ours: str) -> Table:
    """Who computes each module by our choice."""
    chosen = {record["case"]: record["chosen"] for record in records if record["engine"] == ours}
    modules = list(dict.fromkeys(name for forms in chosen.values() for name in forms))
    lines = [[case, *(forms.get(name, "-") for name in modules)] for case, forms in chosen.items()]
    return Table(f"What the {ours} chose: {describe(records, engine=False)}", ["model", *modules], lines)


def is_compared(records: Sequence[Record], names: ModelNames) -> bool:
    """Tells if a model other than the rival has its ratio to it."""
    return any(names.rival in record["ratios"] for record in records if record["case"] != names.rival)


def stage_table(records: Sequence[Record], names: ModelNames) -> Table:
    """Milliseconds a video of every stage, from runs of their own, and the memory of a whole batch."""
    columns = ["model", *names.stages.values(), "peak MiB"]
    lines = []
    for record in records:
        stages = [_or_dash(record["stages_ms"].get(stage), ".2f") for stage in names.stages]
        lines.append([record["case"], *stages, _or_dash(record["peak_memory_mib"], ".0f")])
    return Table("Milliseconds a video by stage, and peak memory beyond weights and frames", columns, lines)


def ops_table(records: Sequence[Record]) -> Table:
    """Our median milliseconds, and the others' with how many times ours they are."""
    others = list(dict.fromkeys(name for record in records for name in record["others"]))
    shares = any("bandwidth" in record for record in records)  # older records have none
    lines = [
        [
            record["case"],
            _three_digits(record["stats"]["p50_ms"]),
            *([f"{record['bandwidth']['share']:.0%}" if "bandwidth" in record else "-"] if shares else []),
            *(_other(record, name) for name in others),
            verdict(record),
        ]
        for record in records
    ]
    return Table(f"Ops: {describe(records)}", ["case", "ms", *["of copy"] * shares, *others, "at least"], lines)


def verdict(record: Record) -> str:
    """Every target with whether it is reached: "5x (met), 60 % (not met)"."""
    words = []
    if record["at_least"] is not None:
        words.append((f"{record['at_least']:g}x", record["ratios"][record["rival"]] >= record["at_least"]))
    if record.get("bandwidth_at_least") is not None:
        words.append(
            (f"{record['bandwidth_at_least']:.0%}", record["bandwidth"]["share"] >= record["bandwidth_at_least"])
        )
    if record.get("at_most_us") is not None:
        words.append((f"{record['at_most_us']:g} us", record["stats"]["p50_ms"] * 1e3 <= record["at_most_us"]))
    if record.get("launches"):
        words.append(("one launch", record["launches"][OURS] == 1))
    return ", ".join(f"{what} ({'met' if met else 'not met'})" for what, met in words) or "-"


def headline_table(records: Sequence[Record]) -> Table:
    """Our time or speed, the rival's, and how many times better ours is, for ops and models in one table."""
    lines = []
    for record in records:
        if record["what"] == "ops":
            rival = record["rival"]
            ours, theirs = (f"{_three_digits(t['p50_ms'])} ms" for t in (record["stats"], record["others"][rival]))
        else:
            [(rival, ratio)] = record["ratios"].items()
            speeds = record["videos_per_s"], record["videos_per_s"] / ratio
            ours, theirs = (f"{_three_digits(speed)} videos/s" for speed in speeds)
        lines.append([record["case"], ours, f"{theirs} ({rival})", f"{record['ratios'][rival]:.1f}"])
    env = records[0]["env"]
    used = [f"{r['threads']} for {'ops' if r['what'] == 'ops' else 'models'}" for r in records]
    threads = [] if "gpu" in env else [f"threads: {_joined(used)}"]
    words = [records[0]["device"], *threads, f"torch {env['torch']}"]
    return Table("; ".join(words), ["case", "ours", "rival", "times faster"], lines)


def streaming_table(records: Sequence[Record]) -> Table:
    """Streams with and without early exits: the gain beside what the multiply-adds promise, fill, and latency."""
    columns = ["stream", "mode", "GFLOPs", "left at each exit", "videos/s", "times no exit", "multiply-adds say"]
    columns += ["focus batches full", "latency ms p50", "p95", "p99"]
    lines = []
    for record in records:
        total = sum(record["exits"])
        lines.append(
            [
                record["case"],
                record["mode"],
                f"{record['gflops']:.1f}",
                " ".join(f"{count / total:.0%}" for count in record["exits"]),
                _three_digits(record["videos_per_s"]),
                *(f"{record['ratios'][name]:.2f}" for name in ("all to the last exit", "multiply-adds")),
                _or_dash(record["fill"], ".0%"),
                *(f"{record['latency_ms'][name]:.0f}" for name in ("p50", "p95", "p99")),
            ]
        )
    return Table(f"Streams ({records[0]['input']}): {describe(records)}", columns, lines)


def training_table(records: Sequence[Record]) -> Table:
    """Training steps: time, speed beside the other way, memory, and the parts of one step."""
    parts = list(records[0]["stages_ms"])
    columns = ["step", "way", "ms", "videos/s", "times as fast", "peak MiB", *(f"{part} ms" for part in parts)]
    lines = [
        [
            record["case"],
            record["engine"],
            _three_digits(record["stats"]["p50_ms"]),
            _three_digits(record["videos_per_s"]),
            *(f"{ratio:.2f}" for ratio in record["ratios"].values()),
            _or_dash(record["peak_mib"], ".0f"),
            *(_three_digits(record["stages_ms"][part]) for part in parts),
        ]
        for record in records
    ]
    return Table(f"Training steps ({records[0]['input']}): {describe(records, engine=False)}", columns, lines)


def scaling_table(records: Sequence[Record]) -> Table:
    """The time along every series, and with which power of the value it grows."""
    lines, seen = [], set()
    for record in records:
        growth = (
            [f"{record['exponent']:.2f}", f"at most {record['law']:g}"] if record["series"] not in seen else ["", ""]
        )
        seen.add(record["series"])
        lines.append([record["series"], f"{record['value']:g}", _three_digits(record["stats"]["p50_ms"]), *growth])
    return Table(f"Growth: {describe(records)}", ["varied", "value", "ms", "power", "law"], lines)


def group_records(records: Iterable[Record]) -> list[list[Record]]:
    """Records by table: of one device, backend and number of threads, and of one input (ops) or all OF_MODELS."""
    groups: dict[tuple, list[Record]] = {}
    for record in records:
        kind = tuple(record[name] for name in OF_MODELS) if is_model(record) else record["input"]
        groups.setdefault((record["device"], kind, record["backend"], record["threads"]), []).append(record)
    return list(groups.values())


def group_engines(records: Iterable[Record]) -> list[list[Record]]:
    """Records of models that differ in the model and the engine alone, where more than one engine is among them."""
    groups: dict[tuple, list[Record]] = {}
    for record in records:
        names = {"device", "backend", "threads", *OF_MODELS} - {"engine"}
        key = tuple(record[name] for name in sorted(names))
        groups.setdefault(key, []).append(record)
    return [group for group in groups.values() if len({record["engine"] for record in group}) > 1]


def is_model(record: Record) -> bool:
    """Tells if a record is of a model, rather than of an op."""
    return record["what"] in ("throughput", "streaming", "training")


def describe(records: Sequence[Record], *, engine: bool = True) -> str:
    """All that the records of one table have in common; engine: that too."""
    first, env = records[0], records[0]["env"]
    words = [first["device"]]
    if is_model(first):
        words += [first["engine"]] * engine
        words += [first["dtype"], f"batch {_joined(sorted(record['batch_size'] for record in records))}"]
    if first["what"] == "ops":
        words.append(_joined(record["input"] for record in records))
    if "gpu" not in env:
        words.append(f"{env['threads']} thread{'s' if env['threads'] > 1 else ''}")
    commits = _joined((record["env"]["commit"] or "?")[:10] + "+" * record["env"]["dirty"] for record in records)
    return "; ".join([*words, f"backend {first['backend']}", f"torch {env['torch']}", f"commit {commits}"])


def _other(record: Record, name: str) -> str:
    if name not in record["others"]:
        return "-"
    return f"{_three_digits(record['others'][name]['p50_ms'])} ({record['ratios'][name]:.1f}x)"


def _joined(values: Iterable[object]) -> str:
    return ", ".join(dict.fromkeys(map(str, values)))


def _three_digits(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _or_dash(value: float | None, spec: str) -> str:
    return "-" if value is None else format(value, spec)


def _bracket(value: float | None, spec: str) -> str:
    return f"({_or_dash(value, spec)})"

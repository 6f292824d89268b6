"""Rows as tables of text: what the terminal shows and what the README holds."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from _cases import OURS
from _rows import Row

# In the order of their work.
STAGE_LABELS = {"read": "read and crop", "glance": "glance", "policy": "policy", "focus": "focus", "head": "head"}


class Table(NamedTuple):
    """A title, the columns' names and the cells; the first column is text and the others are figures."""

    title: str
    columns: list[str]
    lines: list[list[str]]


def throughput_table(rows: Sequence[Row]) -> Table:
    """Videos a second, beside what the paper states."""
    columns = ["model", "frames", "patch", "GFLOPs (paper)", "videos/s", "times TSM+ (paper)", "paper, RTX 3090"]
    lines = []
    for row in rows:
        paper = row["paper"] or {}
        lines.append(
            [
                row["case"],
                row["frames"],
                str(row["patch"]),
                f"{row['gflops']:.1f} {_bracket(paper.get('gflops'), '.1f')}",
                _three_digits(row["videos_per_s"]),
                f"{_or_dash(row['ratios'].get('tsm_plus_8+8'), '.2f')} {_bracket(paper.get('ratio'), '.2f')}",
                _or_dash(paper.get("videos_per_s"), ".1f"),
            ]
        )
    return Table(f"Throughput: {describe(rows)}", columns, lines)


def stage_table(rows: Sequence[Row]) -> Table:
    """Milliseconds a video of every stage, from runs of their own, and the memory of a whole batch."""
    columns = ["model", *STAGE_LABELS.values(), "peak MiB"]
    lines = []
    for row in rows:
        stages = [_or_dash(row["stages_ms"].get(stage), ".2f") for stage in STAGE_LABELS]
        lines.append([row["case"], *stages, _or_dash(row["peak_memory_mib"], ".0f")])
    return Table("Milliseconds a video by stage, and peak memory beyond weights and frames", columns, lines)


def ops_table(rows: Sequence[Row]) -> Table:
    """Our median milliseconds, and everyone else's with how many times ours they are."""
    names = list(dict.fromkeys(name for row in rows for name in row["contenders"]))
    shares = any("bandwidth" in row for row in rows)  # older rows have none
    lines = [
        [
            row["case"],
            _three_digits(row["stats"]["p50_ms"]),
            *([f"{row['bandwidth']['share']:.0%}" if "bandwidth" in row else "-"] if shares else []),
            *(_contender(row, name) for name in names),
            verdict(row),
        ]
        for row in rows
    ]
    return Table(f"Ops: {describe(rows)}", ["case", "ms", *["of copy"] * shares, *names, "at least"], lines)


def verdict(row: Row) -> str:
    """What was asked for, and whether it is reached: "5x (met), 60 % (not met)"."""
    words = []
    if row["at_least"] is not None:
        words.append((f"{row['at_least']:g}x", row["ratios"][row["baseline"]] >= row["at_least"]))
    if row.get("bandwidth_at_least") is not None:
        words.append((f"{row['bandwidth_at_least']:.0%}", row["bandwidth"]["share"] >= row["bandwidth_at_least"]))
    if row.get("at_most_us") is not None:
        words.append((f"{row['at_most_us']:g} us", row["stats"]["p50_ms"] * 1e3 <= row["at_most_us"]))
    if row.get("launches"):
        words.append(("one launch", row["launches"][OURS] == 1))
    return ", ".join(f"{what} ({'met' if met else 'not met'})" for what, met in words) or "-"


def scaling_table(rows: Sequence[Row]) -> Table:
    """The time along every series, and with which power of the value it grows."""
    lines, seen = [], set()
    for row in rows:
        growth = [f"{row['exponent']:.2f}", f"at most {row['law']:g}"] if row["series"] not in seen else ["", ""]
        seen.add(row["series"])
        lines.append([row["series"], f"{row['value']:g}", _three_digits(row["stats"]["p50_ms"]), *growth])
    return Table(f"Growth: {describe(rows)}", ["varied", "value", "ms", "power", "law"], lines)


def group_rows(rows: Iterable[Row]) -> list[list[Row]]:
    """Rows that belong into one table: of one device, dtype (models) or input (ops), backend and number of threads."""
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        kind = row["dtype"] if row["what"] == "throughput" else row["input"]
        groups.setdefault((row["device"], kind, row["backend"], row["threads"]), []).append(row)
    return list(groups.values())


def describe(rows: Sequence[Row]) -> str:
    """What the rows of one table have in common."""
    first, env = rows[0], rows[0]["env"]
    words = [first["device"]]
    if first["what"] == "throughput":
        words += [first["dtype"], f"batch {_joined(sorted(row['batch_size'] for row in rows))}"]
    if first["what"] == "ops":
        words.append(_joined(row["input"] for row in rows))
    if "gpu" not in env:
        words.append(f"{env['threads']} thread{'s' if env['threads'] > 1 else ''}")
    commits = _joined((row["env"]["commit"] or "?")[:10] + "+" * row["env"]["dirty"] for row in rows)
    return "; ".join([*words, f"backend {first['backend']}", f"torch {env['torch']}", f"commit {commits}"])


def _contender(row: Row, name: str) -> str:
    if name not in row["contenders"]:
        return "-"
    return f"{_three_digits(row['contenders'][name]['p50_ms'])} ({row['ratios'][name]:.1f}x)"


def _joined(values: Iterable[object]) -> str:
    return ", ".join(dict.fromkeys(map(str, values)))


def _three_digits(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _or_dash(value: float | None, spec: str) -> str:
    return "-" if value is None else format(value, spec)


def _bracket(value: float | None, spec: str) -> str:
    return f"({_or_dash(value, spec)})"

"""What an engine runs, and how fast: every stage, module and layer beside this device's floor."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..networks import VideoModel
from .choices import LAYERS, PLAIN, Choice, Choices
from .measuring import median_ms
from .stages import stage_ms, synchronise

COPIED_BYTES = {"cpu": 2**27, "cuda": 2**30}  # several times any cache
MATRIX_SIDE = {"cpu": 1024, "cuda": 8192}
STAGE_RUNS = 5


@dataclass(frozen=True)
class Rates:
    """What this device can do at most, measured."""

    gb_per_s: float  # of a copy, read and written
    gmac_per_s: float  # of a product of two large matrices in the engine's dtype

    def floor_ms(self, multiply_adds: int, num_bytes: int) -> float:
        """The least milliseconds of this much work."""
        return max(multiply_adds / self.gmac_per_s, num_bytes / self.gb_per_s) / 1e6


@dataclass(frozen=True)
class Row:
    """A module or layer: who runs it, and how near to the floor that is."""

    name: str
    form: str
    work: str  # the shape of its input, or the signature of a layer
    ms: float | None  # None where one form was there, which nobody timed
    plain_ms: float | None
    multiply_adds: int
    bytes: int
    floor_share: float | None  # of the time, that the device would need at least


@dataclass(frozen=True)
class Report:
    """The figures; `print(report)` shows them as tables."""

    choices: Choices
    rates: Rates
    batch_ms: float
    stages_ms: Mapping[str, float]
    modules: tuple[Row, ...]
    layers: tuple[Row, ...]  # of modules that are computed layer by layer
    left_out: Mapping[str, str]  # runtime, or module: form -> the reason why it does not run
    eager_because: str | None  # the reason why no CUDA graphs are used; None if they are

    @property
    def videos_per_s(self) -> float:
        return self.choices.made_for["batch_size"] / self.batch_ms * 1e3

    def __str__(self) -> str:
        made_for = self.choices.made_for
        lines = [
            f"{made_for['model']} in {made_for['dtype']} on {made_for['device']}, batch {made_for['batch_size']}"
            + (f", {made_for['threads']} threads" if made_for["threads"] else ""),
            f"{self.batch_ms:.1f} ms a batch, {self.videos_per_s:.3g} videos/s; this device copies"
            f" {self.rates.gb_per_s:.0f} GB/s and multiplies matrices at {self.rates.gmac_per_s:.0f} GMAC/s",
            f"CUDA graphs: {'yes' if self.eager_because is None else 'no, ' + self.eager_because}",
            "",
            *_table(["stage", "ms"], [[name, f"{ms:.2f}"] for name, ms in self.stages_ms.items()]),
            "",
            *_rows("module", self.modules),
        ]
        if self.layers:
            lines += ["", *_rows("layer", self.layers)]
        lines += ["", *(f"not {name}: {reason}" for name, reason in self.left_out.items())]
        return "\n".join(lines).rstrip()


def make_report(
    model: VideoModel,
    choices: Choices,
    example: tuple[Tensor, Tensor | None],
    left_out: Mapping[str, str],
    eager_because: str | None,
    run: Callable[..., object],
) -> Report:
    """Measures the device, the stages and the whole on an example batch, and puts them beside what was chosen."""
    device = example[0].device
    dtype = getattr(torch, choices.made_for["dtype"])
    rates = measure_rates(device, dtype)
    reasons = dict(left_out)
    for name, choice in choices.modules.items():
        reasons |= {f"{name}: {form}": reason for form, reason in choice.left_out.items()}
    layers = [
        _row(f"{name} {layer}", each, rates)
        for name, choice in choices.modules.items()
        if choice.form == LAYERS
        for layer, each in choice.layers.items()
    ]
    return Report(
        choices=choices,
        rates=rates,
        batch_ms=_ms(lambda: run(*example), device),
        stages_ms=stage_ms(model, lambda: model(*example), device, runs=STAGE_RUNS),
        modules=tuple(_row(name, choice, rates) for name, choice in choices.modules.items()),
        layers=tuple(layers),
        left_out=reasons,
        eager_because=eager_because,
    )


@torch.inference_mode()
def measure_rates(device: torch.device, dtype: torch.dtype) -> Rates:
    """How fast the device copies and multiplies, which takes about a second."""
    source = torch.ones(COPIED_BYTES[device.type], dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    side = MATRIX_SIDE[device.type]
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    ms = median_ms({"copy": lambda: target.copy_(source), "product": lambda: a @ b}, device, seconds=1)
    return Rates(2 * source.nbytes / ms["copy"] / 1e6, side**3 / ms["product"] / 1e6)


def _row(name: str, choice: Choice, rates: Rates) -> Row:
    ms = choice.ms.get(choice.form)
    floor = _floor_ms(choice, rates)
    return Row(
        name=name,
        form=choice.form,
        work=choice.signature,
        ms=ms,
        plain_ms=choice.ms.get(PLAIN),
        multiply_adds=choice.multiply_adds,
        bytes=choice.bytes,
        floor_share=floor / ms if ms else None,
    )


def _floor_ms(choice: Choice, rates: Rates) -> float:
    """Of a layer, or of a module whose layers each read and write memory."""
    if choice.layers:
        return sum(rates.floor_ms(layer.multiply_adds, layer.bytes) for layer in choice.layers.values())
    return rates.floor_ms(choice.multiply_adds, choice.bytes)


def _ms(call: Callable[[], object], device: torch.device) -> float:
    """Median milliseconds as its caller sees them."""
    times = []
    for _ in range(STAGE_RUNS + 1):
        synchronise(device)
        start = time.perf_counter()
        call()
        synchronise(device)
        times.append((time.perf_counter() - start) * 1e3)
    return sorted(times[1:])[STAGE_RUNS // 2]


def _rows(title: str, rows: tuple[Row, ...]) -> list[str]:
    cells = [
        [
            row.name,
            row.form,
            "-" if row.ms is None else f"{row.ms:.2f}",
            "-" if row.plain_ms is None else f"{row.plain_ms:.2f}",
            f"{row.multiply_adds / 1e6:.1f}",
            f"{row.bytes / 1e6:.1f}",
            "-" if row.floor_share is None else f"{row.floor_share:.0%}",
            row.work,
        ]
        for row in rows
    ]
    return _table([title, "runs as", "ms", "plain ms", "M mult-adds", "MB", "floor / time", "input"], cells)


def _table(columns: list[str], rows: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    lines = [columns, ["-" * width for width in widths], *rows]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]

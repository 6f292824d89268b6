"""Cases of the models: the paper's Tables II, IV and V, with inputs in place, tuned and checked."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from adafocus_models import (
    Output,
    VideoModel,
    architectures,
    configurations,
    create_model,
    list_models,
    multiply_adds,
)
from adafocus_models.engine import stage_ms
from bench.cases import engines
from bench.cases.engines import Runner, make_runner
from bench.cases.models_check import Gate, compare, forced_gate, leaving
from bench.harness.clip import sample_clip
from bench.harness.records import Record
from bench.harness.tables import ModelNames
from bench.harness.timing import stats

STAGES = {"read": "read and crop", "glance": "glance", "policy": "policy", "focus": "focus", "head": "head"}
# Table -> how its models go by name; their ratios are to the rival's speed.
NAMES = {
    "II": ModelNames("adafocus_v2_128_16", "AdaFocusV2", STAGES),
    "IV": ModelNames("tsm_plus_8+8", "TSM+", STAGES),
    "V": ModelNames("x3d_l_16", "X3D-L", STAGES),
}

CHECKED_VIDEOS = 4
STEP = 16  # pixels by which a video of the batch is moved against the one before it
DEFAULT_BATCH = {"cpu": 2, "cuda": 128}
EXIT_RATIO_TOLERANCE = 0.02  # distance of whole videos of a default batch from the exit ratio that is asked for

Clips = Callable[[int, int, int], tuple[Tensor, Tensor]]  # S, N, T0 -> uint8 frames [N, 3, S, S], [T0, 3, S, S]


@dataclass(frozen=True)
class ModelCase:
    """A model of list_models() and the share of its videos that is made to leave at the glance."""

    model: str
    exit_ratio: float = 0.0

    @classmethod
    def parse(cls, text: str) -> "ModelCase":
        model, _, ratio = text.partition("/exit=")
        return cls(model, float(ratio or 0))

    def __post_init__(self) -> None:
        if self.model not in list_models():
            raise ValueError(f"a model must be one of {', '.join(list_models())}, got {self.model!r}")
        if not 0 <= self.exit_ratio <= 1:
            raise ValueError(f"an exit ratio must be in [0, 1], got {self.exit_ratio}")
        if self.exit_ratio and not self.has_early_exit:
            raise ValueError(f"{self.model} has no early exit, so its exit ratio must be 0, got {self.exit_ratio}")

    @property
    def has_early_exit(self) -> bool:
        return architectures()[self.architecture].has_early_exit

    @property
    def architecture(self) -> str:
        configuration = configurations().get(self.model)
        return configuration.architecture if configuration else self.model

    @property
    def table(self) -> str:
        """The paper's table that has the model, or others of its architecture."""
        return next(made.table for made in configurations().values() if made.architecture == self.architecture)

    def __str__(self) -> str:
        return self.model + (f"/exit={self.exit_ratio:g}" if self.exit_ratio else "")


def cases_of(table: str) -> dict[str, Any]:
    """A table of the paper: case -> the published GFLOPs and videos/s, the rival first and early exits last."""
    made = [each for each in configurations().values() if each.table == table]
    made.sort(key=lambda each: each.name != NAMES[table].rival)
    exits = {str(ModelCase(each.name, share)): figures for each in made for share, figures in each.paper_exits.items()}
    return {each.name: each.paper for each in made} | exits


TABLES = {table: cases_of(table) for table in NAMES}
PAPER = {case: figures for cases in TABLES.values() for case, figures in cases.items()}

# Cases of a run without --configs: on a CPU those that take minutes, not an hour.
DEFAULT_CASES = {
    "cpu": (NAMES["IV"].rival, "uni_adafocus_tsm_96_8+8", "uni_adafocus_tsm_128_8+16"),
    "cuda": tuple(TABLES["IV"]),
}


def select(names: Sequence[str], exit_ratio: float | None, table: str | None = None) -> list[ModelCase]:
    """The cases of these names, or all by "all", of one table or any, with exit_ratio for those with an early exit."""
    every = TABLES[table] if table else PAPER
    chosen = [ModelCase.parse(name) for name in (every if "all" in names else names)]
    if table:
        chosen = [case for case in chosen if case.table == table]
    if exit_ratio is not None:
        if not any(case.has_early_exit for case in chosen):
            raise ValueError(f"an exit ratio of {exit_ratio} needs a model with an early exit, got {', '.join(names)}")
        chosen = [ModelCase(case.model, exit_ratio if case.has_early_exit else 0.0) for case in chosen]
    return list(dict.fromkeys(chosen))


def default_batch(cases: Sequence[ModelCase], device: torch.device) -> int:
    """One batch size for all: the device's, or more where whole videos could not make up an exit ratio."""
    size = DEFAULT_BATCH[device.type]
    ratios = {case.exit_ratio for case in cases}
    while any(abs(leaving(ratio, size) / size - ratio) > EXIT_RATIO_TOLERANCE for ratio in ratios):
        size += 1
    return size


# --- inputs and preparation ----------------------------------------------------------------------------------------


@dataclass
class PlainModel:
    """A case's model with random weights and calibrated statistics, and its batch."""

    case: ModelCase
    model: VideoModel
    inputs: list[Tensor]  # uint8: frames [B, N, 3, S, S], and if it glances, glance frames [B, T0, 3, S, S]

    @property
    def batch_size(self) -> int:
        return self.inputs[0].shape[0]


@dataclass
class PreparedModel:
    """A case ready to run in one of the ways that are compared."""

    case: ModelCase
    plain: VideoModel
    runner: Runner
    inputs: list[Tensor]
    gate: Gate | None
    check: dict[str, Any]

    @torch.inference_mode()
    def __call__(self) -> Output:
        return self.runner(*self.inputs, gate=self.gate)

    @property
    def batch_size(self) -> int:
        return self.inputs[0].shape[0]

    def stage_ms(self, device: torch.device, runs: int) -> dict[str, float]:
        """Median milliseconds a video of every stage, in runs of their own: timing a stage waits for the GPU."""
        model = self.runner.model
        times = stage_ms(model, lambda: model(*self.inputs, gate=self.gate), device, runs=runs)
        return {stage: ms / self.batch_size for stage, ms in times.items()}


def clips_from(video: str | None) -> Clips:
    """A function that gives a video's candidate and glance frames of S pixels; of random ones for None."""
    if video is None:
        return lambda size, *counts: tuple(
            torch.randint(256, (count, size, size, 3), dtype=torch.uint8).permute(0, 3, 1, 2) for count in counts
        )
    from adafocus_models.data import read_clip, short_side_for  # needs a decoder, which --synthetic does without

    path = Path(video) if Path(video).exists() else _sample_clip_or_missing(video)

    def read(size: int, *counts: int) -> tuple[Tensor, Tensor]:
        return tuple(clip.frames for clip in read_clip(path, *counts, frame_size=size, short_side=short_side_for(size)))

    return read


def _sample_clip_or_missing(name: str) -> Path:
    try:
        return sample_clip(name)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"there is no file {name}, nor a clip that ships with a package ({error})") from error


def repeat_to_batch(frames: Tensor, batch_size: int, device: torch.device) -> Tensor:
    """[B, N, 3, H, W], stored [B, N, H, W, 3] as decoders give it, from one clip's [N, 3, H, W].

    Each video is the clip moved by another distance, so that an answer for the wrong video is a wrong answer.
    """
    pixels = frames.permute(0, 2, 3, 1).to(device)
    moved = [pixels.roll((STEP * b, STEP * (b * STEP // pixels.shape[1])), (1, 2)) for b in range(batch_size)]
    return torch.stack(moved).permute(0, 1, 4, 2, 3)


def plain_model(case: ModelCase, clips: Clips, batch_size: int, device: torch.device) -> PlainModel:
    """The model and the batch in place."""
    torch.manual_seed(0)
    model = create_model(case.model).eval().to(device)
    read = clips(model.frame_size, model.num_candidate_frames, model.num_glance_frames)
    inputs = [repeat_to_batch(clip, batch_size, device) for clip in read if len(clip)]
    calibrate_batch_norm(model, *(frames[:2] for frames in inputs))
    return PlainModel(case, model, inputs)


def prepare(plain: PlainModel, engine: str, dtype: torch.dtype) -> PreparedModel:
    """A way to run it, checked."""
    runner = make_runner(engine, plain.model, plain.inputs, dtype)
    case, inputs = plain.case, plain.inputs
    check = compare(plain.model, runner, [frames[:CHECKED_VIDEOS] for frames in inputs], case.exit_ratio, dtype)
    gate = forced_gate(leaving(case.exit_ratio, plain.batch_size), plain.batch_size)
    return PreparedModel(case, plain.model, runner, runner.inputs(inputs, dtype), gate, check)


@torch.no_grad()
def calibrate_batch_norm(model: nn.Module, *inputs: Tensor) -> None:
    """Sets the running statistics of every BatchNorm to those of the inputs.

    With the initial ones, the activations of a network with random weights fade to nothing over its depth.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    model(*inputs)
    for norm in norms:
        norm.eval()


# --- records -------------------------------------------------------------------------------------------------------


def gflops(model: VideoModel, exit_ratio: float) -> float:
    """Billions of multiply-adds a video, at this share of videos that leave at the glance."""
    counts = multiply_adds(model)
    return (counts["total"] - exit_ratio * (counts["total"] - counts.get("exit0", 0))) / 1e9


def paper_figures(case: ModelCase) -> dict[str, float | None] | None:
    """Published figures of the case, and the ratio of its videos/s to the rival's, if there are any."""
    paper = PAPER.get(str(case))
    if paper is None:
        return None
    rival = PAPER[NAMES[case.table].rival].videos_per_s
    ratio = paper.videos_per_s / rival if paper.videos_per_s and rival else None
    return {"gflops": paper.gflops, "videos_per_s": paper.videos_per_s, "ratio": ratio}


def make_record(
    prepared: PreparedModel,
    times: list[float],
    stages: dict[str, float],
    memory: float | None,
    roof: dict[str, float],
    shared: dict[str, Any],
) -> Record:
    """The record of one case and engine; `shared` is what all records of the run have in common."""
    case, runner, batch_size = prepared.case, prepared.runner, prepared.batch_size
    model = prepared.plain
    realised = leaving(case.exit_ratio, batch_size) / batch_size
    timing = stats(times)
    return {
        "what": "throughput",
        "case": str(case),
        "table": case.table,
        "engine": runner.name,
        "chosen": runner.chosen,
        "made_s": runner.made_s,
        "mode": "inference",
        "layout": engines.LAYOUT.get(runner.name, "channels_last"),
        "batch_size": batch_size,
        "processes": 1,
        "frames": "+".join(str(count) for count in (model.num_glance_frames, model.num_focus_frames) if count),
        "patch": model.patch_size,
        "exit_ratio": {"asked": case.exit_ratio, "realised": realised},
        "gflops": gflops(model, realised),
        "paper": paper_figures(case),
        "stats": timing,
        "videos_per_s": batch_size / timing["p50_ms"] * 1e3,
        "stages_ms": stages,
        "peak_memory_mib": memory,
        "check": prepared.check,
        "roofline": roof,
        "ratios": {},
        "times_engine": {},
        **shared,
    }


def merged(of_ranks: Sequence[Sequence[Record]]) -> list[Record]:
    """One record of each model that every process has timed, at the same time and each on a device of its own: videos
    a second add up, and the time of a batch is that of the slowest."""
    same: dict[tuple[str, str], list[Record]] = {}
    for record in itertools.chain(*of_ranks):
        same.setdefault((record["case"], record["engine"]), []).append(record)
    records = []
    for each in same.values():
        if len(each) == len(of_ranks):
            slowest = max(each, key=lambda record: record["stats"]["p50_ms"])
            speed = sum(record["videos_per_s"] for record in each)
            records.append(slowest | {"videos_per_s": speed, "processes": len(each), "ratios": {}, "times_engine": {}})
    add_ratios(records)
    return records


def add_ratios(records: list[Record]) -> None:
    """Gives every record its ratio to its table's rival on the same engine, and to every engine on the same case."""
    speeds = {(record["case"], record["engine"]): record["videos_per_s"] for record in records}
    for record in records:
        rival = NAMES[record["table"]].rival
        if (rival, record["engine"]) in speeds:
            record["ratios"][rival] = record["videos_per_s"] / speeds[rival, record["engine"]]
        for (case, engine), speed in speeds.items():
            if case == record["case"]:
                record["times_engine"][engine] = record["videos_per_s"] / speed


def table_order(record: Record) -> tuple:
    """The place of a record in the paper's tables, to sort by."""
    early_exit = record["exit_ratio"]["asked"] > 0
    architecture = ModelCase.parse(record["case"]).architecture
    others = list(architectures())[::-1].index(architecture)  # the paper's own come last
    frames = tuple(map(int, record["frames"].split("+")))
    is_rival = record["case"] == NAMES[record["table"]].rival
    engine = engines.NAMES.index(record["engine"])
    return record["table"], engine, not is_rival, early_exit, others, record["patch"], frames

"""Cases of the models: the paper's Table IV, with inputs in place, tuned and checked."""

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
    fold_batch_norm,
    list_models,
    multiply_adds,
)
from bench.cases.models_check import Gate, compare, forced_gate, leaving
from bench.harness.clip import sample_clip
from bench.harness.records import Record
from bench.harness.tables import ModelNames
from bench.harness.timing import stats, timed_methods

NAMES = ModelNames(
    rival="tsm_plus_8+8",
    rival_label="TSM+",
    stages={"read": "read and crop", "glance": "glance", "policy": "policy", "focus": "focus", "head": "head"},
)

CHECKED_VIDEOS = 4
STEP = 16  # pixels by which a video of the batch is moved against the one before it
DEFAULT_BATCH = {"cpu": 2, "cuda": 128}
EXIT_RATIO_TOLERANCE = 0.02  # distance of whole videos of a default batch from the exit ratio that is asked for

Clips = Callable[[int, int], tuple[Tensor, Tensor]]  # N, T0 -> uint8 frames [N, 3, S, S], [T0, 3, S, S]


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
        configuration = configurations().get(self.model)
        return architectures()[configuration.architecture if configuration else self.model].has_early_exit

    def __str__(self) -> str:
        return self.model + (f"/exit={self.exit_ratio:g}" if self.exit_ratio else "")


def table_iv() -> dict[str, Any]:
    """The paper's Table IV: case -> its GFLOPs and videos/s, the rival first and early exits last."""
    stated = {name: made for name, made in configurations().items() if made.paper}
    names = sorted(stated, key=lambda name: name != NAMES.rival)
    exits = {
        str(ModelCase(name, ratio)): figures for name in names for ratio, figures in stated[name].paper_exits.items()
    }
    return {name: stated[name].paper for name in names} | exits


PAPER = table_iv()

# Cases of a run without --configs: on a CPU those that take minutes, not an hour.
DEFAULT_CASES = {"cpu": (NAMES.rival, "uni_adafocus_tsm_96_8+8", "uni_adafocus_tsm_128_8+16"), "cuda": tuple(PAPER)}


def select(names: Sequence[str], exit_ratio: float | None) -> list[ModelCase]:
    """The cases of these names, with exit_ratio for those that have an early exit."""
    chosen = [ModelCase.parse(name) for name in (PAPER if "all" in names else names)]
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
class PreparedModel:
    """A case ready to run."""

    case: ModelCase
    model: VideoModel  # tuned
    frames: Tensor  # [B, N, 3, 224, 224] uint8
    glance_frames: Tensor  # [B, T0, 3, 224, 224] uint8
    gate: Gate | None
    check: dict[str, Any]

    @torch.inference_mode()
    def __call__(self) -> Output:
        return self.model(self.frames, self.glance_frames, gate=self.gate)


def clips_from(video: str | None, frame_size: int = VideoModel.frame_size) -> Clips:
    """A function that gives a video's candidate and glance frames; of random ones for None."""
    if video is None:
        size = (frame_size, frame_size, 3)
        return lambda *counts: tuple(
            torch.randint(256, (count, *size), dtype=torch.uint8).permute(0, 3, 1, 2) for count in counts
        )
    from adafocus_models.data import read_clip  # needs a decoder, which --synthetic does without

    path = Path(video) if Path(video).exists() else _sample_clip_or_missing(video)
    return lambda *counts: tuple(clip.frames for clip in read_clip(path, *counts, frame_size=frame_size))


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


def prepare(case: ModelCase, clips: Clips, batch_size: int, device: torch.device, dtype: torch.dtype) -> PreparedModel:
    """The model with random weights and the batch in place, tuned and checked."""
    torch.manual_seed(0)
    model = create_model(case.model).eval().to(device)
    frames, glance_frames = (
        repeat_to_batch(clip, batch_size, device) for clip in clips(model.num_candidate_frames, model.num_glance_frames)
    )
    calibrate_batch_norm(model, frames[:2], glance_frames[:2])
    tuned = fold_batch_norm(model).to(device=device, dtype=dtype, memory_format=torch.channels_last)
    check = compare(model, tuned, frames[:CHECKED_VIDEOS], glance_frames[:CHECKED_VIDEOS], case.exit_ratio)
    gate = forced_gate(leaving(case.exit_ratio, batch_size), batch_size)
    return PreparedModel(case, tuned, frames, glance_frames, gate, check)


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


def stage_times(prepared: PreparedModel, device: torch.device, runs: int) -> dict[str, float]:
    """Median milliseconds a video of every stage, in runs of their own: timing a stage waits for the GPU."""
    stages = prepared.model.stage_methods
    measured = []
    for _ in range(runs):
        with timed_methods(prepared.model, stages, device) as totals:
            prepared()
        measured.append(totals)
    batch_size = prepared.frames.shape[0]
    return {stage: stats([totals[stage] for totals in measured])["p50_ms"] / batch_size for stage in stages}


def gflops(model: VideoModel, exit_ratio: float) -> float:
    """Billions of multiply-adds a video, at this share of videos that leave at the glance."""
    counts = multiply_adds(model)
    return (counts["total"] - exit_ratio * (counts["total"] - counts.get("exit0", 0))) / 1e9


def paper_figures(case: ModelCase) -> dict[str, float] | None:
    """Figures that Table IV states for the case, if it is in there."""
    paper = PAPER.get(str(case))
    if paper is None:
        return None
    ratio = paper.videos_per_s / PAPER[NAMES.rival].videos_per_s
    return {"gflops": paper.gflops, "videos_per_s": paper.videos_per_s, "ratio": ratio}


def make_record(
    prepared: PreparedModel, times: list[float], stages: dict[str, float], memory: float | None, shared: dict[str, Any]
) -> Record:
    """The record of one case; `shared` is what all records of the run have in common."""
    case, model, batch_size = prepared.case, prepared.model, prepared.frames.shape[0]
    realised = leaving(case.exit_ratio, batch_size) / batch_size
    timing = stats(times)
    return {
        "what": "throughput",
        "case": str(case),
        "mode": "inference",
        "layout": "channels_last",
        "batch_size": batch_size,
        "frames": f"{model.num_glance_frames}+{model.num_focus_frames}",
        "patch": model.patch_size,
        "exit_ratio": {"asked": case.exit_ratio, "realised": realised},
        "gflops": gflops(model, realised),
        "paper": paper_figures(case),
        "stats": timing,
        "videos_per_s": batch_size / timing["p50_ms"] * 1e3,
        "stages_ms": stages,
        "peak_memory_mib": memory,
        "check": prepared.check,
        "ratios": {},
        **shared,
    }


def add_ratios(records: list[Record]) -> None:
    """Gives every record its ratio to the rival of the same run."""
    rival = next((record for record in records if record["case"] == NAMES.rival), None)
    for record in records if rival else ():
        record["ratios"][NAMES.rival] = record["videos_per_s"] / rival["videos_per_s"]


def table_order(record: Record) -> tuple:
    """The place of a record in the paper's Table IV, to sort by."""
    early_exit = record["exit_ratio"]["asked"] > 0
    frames = tuple(map(int, record["frames"].split("+")))
    return record["case"] != NAMES.rival, early_exit, record["patch"], frames

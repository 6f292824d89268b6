"""The contract of every model: what goes in, what comes out, its stages, and its weights in files."""

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import adafocus_ops
from adafocus_ops.checks import check_positive_ints, describe, require

from ..exits import Gate
from . import checkpoints

# Stage -> the methods that do it, of which a model has those that it needs. `forward` calls each through the
# instance, so that wrapping them there (for timing, say) catches every call.
STAGES: Mapping[str, tuple[str, ...]] = {
    "read": ("read",),
    "glance": ("glance",),
    "policy": ("policy",),
    "focus": ("focus",),
    "head": ("early_head", "final_head"),
}

# ImageNet's, for frames in [0, 1].
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


class PaperFigures(NamedTuple):
    """The paper's figures of a configuration."""

    gflops: float  # billions of multiply-adds a video
    videos_per_s: float  # on an RTX 3090 at batch 128


@dataclass(frozen=True)
class Configuration:
    """One model of the paper: an architecture, its arguments, and the figures that the paper states."""

    name: str
    architecture: str
    arguments: Mapping[str, int] = field(default_factory=dict)
    paper: PaperFigures | None = None  # with all videos at the last exit; None where the paper states none
    paper_exits: Mapping[float, PaperFigures] = field(default_factory=dict)  # by the share that leaves at exit 0


class Output(NamedTuple):
    """Answers for B videos, and where the model looked."""

    logits: Tensor  # [B, C] of the last exit that each video reached
    exit_logits: Tensor  # [B, exits, C], NaN for an exit that a video did not reach
    frame_index: Tensor  # [B, K] int64 into the candidates, the frames that the focus saw; -1 where it saw none
    boxes: Tensor  # [B, 4] (cy, cx, h, w) in frame pixels, one patch position per video; NaN where there was none
    weights: Tensor  # [B, T0] of sum 1, what the temporal policy gives each glance frame; NaN where it did not run
    glance_index: Tensor | None  # [B, T0] int64 into the candidates; None if the glance frames were given


class VideoModel(nn.Module, ABC):
    """A glance encoder on whole frames and a focus encoder on patches of candidate frames.

    Args:
        glance_encoder, focus_encoder: from frames [B * T, 3, H, W] to maps [B * T, C, h, w], with
            attributes out_channels and reduction.
        num_classes: C.
        patch_size: side P in pixels of what the focus encoder sees.
        num_glance_frames: T0, whole frames that the glance encoder sees.
        num_focus_frames: K, frames that the focus encoder sees patches of.
        num_candidate_frames: N, frames that these K are picked from.
    """

    frame_size = 224
    mean = MEAN
    std = STD

    # Exits that an answer may come from; exit_logits has as many.
    num_exits: int = 1
    # Stage -> the child modules that do its work, for multiply_adds.
    stage_modules: Mapping[str, tuple[str, ...]] = {}
    # Child modules that an answer at exit 0 needs, for a model that has more than one exit.
    exit0_modules: tuple[str, ...] = ()
    # Child module -> its name in the published checkpoints, for load_checkpoint; empty if none is published.
    published_prefixes: Mapping[str, str] = {}

    # Properties of each class, derived from what it defines.
    stage_methods: Mapping[str, tuple[str, ...]]  # the part of STAGES that the model has
    has_early_exit: bool
    has_policy: bool

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own = {stage: tuple(name for name in names if hasattr(cls, name)) for stage, names in STAGES.items()}
        cls.stage_methods = {stage: names for stage, names in own.items() if names}
        cls.has_early_exit = cls.num_exits > 1
        cls.has_policy = "policy" in cls.stage_methods

    def __init__(
        self,
        glance_encoder: nn.Module,
        focus_encoder: nn.Module,
        *,
        num_classes: int,
        patch_size: int,
        num_glance_frames: int,
        num_focus_frames: int,
        num_candidate_frames: int,
    ) -> None:
        super().__init__()
        check_positive_ints(
            num_classes=num_classes,
            patch_size=patch_size,
            num_glance_frames=num_glance_frames,
            num_focus_frames=num_focus_frames,
            num_candidate_frames=num_candidate_frames,
        )
        require(
            num_candidate_frames >= num_focus_frames,
            lambda: (
                f"num_candidate_frames must be at least num_focus_frames={num_focus_frames}, got {num_candidate_frames}"
            ),
        )
        self.num_classes = num_classes
        self.patch_size = patch_size
        self.num_glance_frames = num_glance_frames
        self.num_focus_frames = num_focus_frames
        self.num_candidate_frames = num_candidate_frames
        self.glance_encoder = glance_encoder
        self.focus_encoder = focus_encoder

    @abstractmethod
    def forward(self, frames: Tensor, glance_frames: Tensor | None = None, *, gate: Gate | None = None) -> Output:
        """Recognises B videos.

        Args:
            frames: the candidates [B, N, 3, 224, 224], uint8 (0 to 255, normalised inside by ImageNet's mean
                and standard deviation) or floating point (already normalised). Any strides, read in place.
            glance_frames: [B, T0, 3, 224, 224] likewise, where they are sampled apart; None takes them from
                the candidates.
            gate: sorts the videos into those that leave at an early exit and those that go on, by its logits
                [B, C] (see `ExitLoop`): `Thresholds`, or a function; None sends all on to the last exit.
        """

    def read(
        self, frames: Tensor, boxes: Tensor, frame_index: Tensor | None, output_size: int, encoder: nn.Module
    ) -> Tensor:
        """Stage: crops, resizes and normalises in one pass, to patches as the encoder that takes them wants them.

        Args:
            frames: [B, N, 3, H, W], uint8 (normalised here) or floating point (already normalised), any strides.
            boxes: [M, 4] in pixels of the frames.
            frame_index: [M] into the flattened [B * N] frames; None cuts box m from frame m.
            output_size: P.
            encoder: its weights give the dtype and the memory format.

        Returns:
            [M, 3, P, P].
        """
        weight = next(encoder.parameters())  # of its first convolution
        channels_last = not weight.is_contiguous() and weight.is_contiguous(memory_format=torch.channels_last)
        normalise = frames.dtype == torch.uint8
        return adafocus_ops.crop_resize(
            frames,
            boxes.to(torch.promote_types(boxes.dtype, weight.dtype)),  # float64 weights: float64 arithmetic
            output_size,
            frame_index=frame_index,
            mean=self.mean if normalise else None,
            std=self.std if normalise else None,
            out_dtype=weight.dtype,
            memory_format=torch.channels_last if channels_last else torch.contiguous_format,
        )

    def read_whole(self, frames: Tensor, frame_index: Tensor | None, encoder: nn.Module) -> Tensor:
        """Reads whole frames, by the stage `read`.

        Args:
            frames: [B, N, 3, H, W].
            frame_index: [B, T] within each video; None for all its N frames.

        Returns:
            [B * T, 3, H, W].
        """
        flat = None if frame_index is None else flat_index(frame_index, frames.shape[1])  # [B * T]
        count = frames.shape[:2].numel() if flat is None else flat.shape[0]
        return self.read(frames, self.whole_frame_boxes(count, frames.device), flat, self.frame_size, encoder)

    def whole_frame_boxes(self, count: int, device: torch.device) -> Tensor:
        """[count, 4]: (cy, cx, h, w) of a whole frame, each time."""
        return adafocus_ops.boxes.full_frame(count, (self.frame_size, self.frame_size), device)

    def to(self, *args: Any, memory_format: torch.memory_format | None = None, **kwargs: Any) -> "VideoModel":
        """As nn.Module.to; memory_format=torch.channels_last makes five-dimensional weights channels_last_3d."""
        super().to(*args, **kwargs)
        if memory_format is None:
            return self
        formats = {4: memory_format, 5: memory_format}
        if memory_format == torch.channels_last:
            formats[5] = torch.channels_last_3d
        return self._apply(lambda t: t.contiguous(memory_format=formats.get(t.ndim, torch.contiguous_format)))

    def load_checkpoint(self, source: str | os.PathLike | Mapping[str, Tensor]) -> None:
        """Loads every weight, from our format or a published checkpoint, or changes nothing and raises.

        Args:
            source: a .safetensors file, a file of torch.save (read with weights_only=True), or a state
                dict. The weights may lie under "state_dict" or "model" and have a "module." prefix.

        Raises:
            ValueError: names that are missing or unexpected, or shapes that differ; the message lists them.
        """
        checkpoints.load_checkpoint(self, source)

    def save_checkpoint(self, path: str | os.PathLike) -> None:
        """Writes every weight to a .safetensors file under this model's own names."""
        checkpoints.save_checkpoint(self, path)

    def check_inputs(self, frames: Tensor, glance_frames: Tensor | None) -> None:
        """Raises TypeError or ValueError, with what arrived, unless both are what `forward` takes."""
        self._check_frames("frames", frames, self.num_candidate_frames)
        if glance_frames is None:
            require(
                self.num_candidate_frames >= self.num_glance_frames,
                lambda: (
                    f"glance_frames must be given when there are fewer candidates ({self.num_candidate_frames}) than"
                    f" glance frames ({self.num_glance_frames})"
                ),
            )
            return
        self._check_frames("glance_frames", glance_frames, self.num_glance_frames)
        require(
            glance_frames.shape[0] == frames.shape[0] and glance_frames.device == frames.device,
            lambda: (
                f"glance_frames must be of the {frames.shape[0]} videos of frames and on {frames.device},"
                f" got {describe(glance_frames)} on {glance_frames.device}"
            ),
        )

    def _check_frames(self, name: str, frames: object, count: int) -> None:
        side = self.frame_size
        require(isinstance(frames, Tensor), lambda: f"{name} must be a tensor, got {describe(frames)}", TypeError)
        require(
            frames.ndim == 5 and tuple(frames.shape[1:]) == (count, 3, side, side),
            lambda: f"{name} must be [B, {count}, 3, {side}, {side}], got {describe(frames)}",
        )
        require(
            frames.dtype == torch.uint8 or frames.is_floating_point(),
            lambda: f"{name} must be uint8 or floating point, got {describe(frames)}",
            TypeError,
        )


def flat_index(frame_index: Tensor, num_frames: int, videos: Tensor | None = None) -> Tensor:
    """Indices [B * K] into the flattened frames of a batch, from indices [B, K] within each video.

    Args:
        num_frames: N, frames of each video in the batch.
        videos: [B] int64, the place of each row's video in the batch; None for 0, 1, 2, ...
    """
    if videos is None:
        videos = torch.arange(frame_index.shape[0], device=frame_index.device)
    return (videos[:, None] * num_frames + frame_index).flatten()

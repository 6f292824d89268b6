"""The contract of every model: what goes in, what comes out, its stages, and its weights in files."""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import _register_namedtuple

import adafocus_ops
from adafocus_ops.checks import check_positive_ints, describe, require

from ..exits import ExitLoop, Gate
from . import checkpoints
from .arguments import check_encoder

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
    videos_per_s: float | None = None  # on an RTX 3090 at batch 128; None where none is stated


@dataclass(frozen=True)
class Configuration:
    """One model of the paper: an architecture, its arguments, and the figures that are published."""

    name: str
    architecture: str
    arguments: Mapping[str, int] = field(default_factory=dict)
    table: str | None = None  # the table of the paper that has it or those it is compared with: "II", "IV" or "V"
    paper: PaperFigures | None = None  # with all videos at the last exit; None where none are stated
    paper_exits: Mapping[float, PaperFigures] = field(default_factory=dict)  # by the share that leaves at exit 0


class Output(NamedTuple):
    """Answers for B videos, and where the model looked."""

    logits: Tensor  # [B, C] of the last exit that each video reached
    exit_logits: Tensor  # [B, exits, C], NaN for an exit that a video did not reach
    frame_index: Tensor  # [B, K] int64 into the candidates, the frames that the focus saw; -1 where it saw none
    boxes: Tensor  # [B, 4] (cy, cx, h, w) in frame pixels, the same in all K frames, or [B, K, 4]; NaN where none was
    weights: Tensor  # [B, T0] of sum 1, what the temporal policy gives each glance frame; NaN where it did not run
    glance_index: Tensor | None  # [B, T0] int64 into the candidates; None if the glance frames were given


class Decision(NamedTuple):
    """What a policy decides of B' videos: when and where to look, in n frames of each."""

    weights: Tensor  # [B', T0] of sum 1, of the glance frames
    frame_index: Tensor  # [B', n] int64 into the candidates
    boxes: Tensor  # [B', 4] (cy, cx, h, w) in frame pixels, the same in all n frames, or [B', n, 4]
    state: Tensor | None = None  # [B', hidden] of a recurrent policy


# Without a name, what torch.export makes of a model could not be saved.
_register_namedtuple(Output, serialized_type_name="adafocus_models.Output")


class VideoModel(nn.Module, ABC):
    """A network that sees videos: with a glance encoder on whole frames, a focus encoder on patches, or both.

    Args:
        glance_encoder, focus_encoder: from frames [B * T, 3, H, W] to maps [B * T, C, h, w], with
            attributes out_channels (C) and reduction (h = H / reduction, rounded up). A network without a glance
            has None.
        num_classes: C.
        patch_size: side P in pixels of what the focus encoder sees.
        num_glance_frames: T0, whole frames that the glance encoder sees; 0 without a glance.
        num_focus_frames: K, frames that the focus encoder sees patches of.
        num_candidate_frames: N, frames that these K are picked from.
        frame_size: S, a frame's side in pixels; None for that of the class.
    """

    frame_size = 224
    mean = MEAN
    std = STD

    # Exits that an answer may come from; exit_logits has as many. Some networks have one for each of their frames.
    num_exits: int = 1
    # Whether boxes are one of some places, which a rounding can exchange, rather than anywhere.
    picks_places = False
    # Whether the published training samples glance frames apart from the candidates.
    glances_apart = False
    # Stage -> the child modules that do its work, for multiply_adds.
    stage_modules: Mapping[str, tuple[str, ...]] = {}
    # How entries of published checkpoints begin that are of no use here.
    published_extras: tuple[str, ...] = ()
    # Where published checkpoints keep a part in a state dict of its own -> how its names begin in the whole.
    published_parts: Mapping[str, str] = {}

    # Properties of each class, derived from what it defines.
    stage_methods: Mapping[str, tuple[str, ...]]  # the part of STAGES that the model has
    has_early_exit: bool
    has_policy: bool
    has_glance: bool

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own = {stage: tuple(name for name in names if hasattr(cls, name)) for stage, names in STAGES.items()}
        cls.stage_methods = {stage: names for stage, names in own.items() if names}
        cls.has_early_exit = cls.num_exits != 1
        cls.has_policy = "policy" in cls.stage_methods
        cls.has_glance = "glance" in cls.stage_methods

    def __init__(
        self,
        glance_encoder: nn.Module | None,
        focus_encoder: nn.Module,
        *,
        num_classes: int,
        patch_size: int,
        num_glance_frames: int,
        num_focus_frames: int,
        num_candidate_frames: int,
        frame_size: int | None = None,
    ) -> None:
        super().__init__()
        self.frame_size = type(self).frame_size if frame_size is None else frame_size
        check_positive_ints(
            num_classes=num_classes,
            patch_size=patch_size,
            frame_size=self.frame_size,
            **({} if glance_encoder is None else {"num_glance_frames": num_glance_frames}),
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
        for name, encoder in (("glance_encoder", glance_encoder), ("focus_encoder", focus_encoder)):
            if encoder is not None:
                check_encoder(name, encoder)
                setattr(self, name, encoder)

    @abstractmethod
    def forward(self, frames: Tensor, glance_frames: Tensor | None = None, *, gate: Gate | None = None) -> Output:
        """Recognises B videos. Every network writes it out, so that it can be read from top to bottom in one file; what
        they have in common is in the stages and helpers that it calls.

        Args:
            frames: the candidates [B, N, 3, S, S] with S = frame_size, uint8 (0 to 255, normalised inside by ImageNet's
                mean and standard deviation) or floating point (already normalised). Any strides, read in place.
            glance_frames: [B, T0, 3, S, S] likewise, where they are sampled apart; None takes them from the candidates.
                A network without a glance takes None alone.
            gate: for a network with more than one exit, `Thresholds` of them; or a function that takes the logits
                [B', C] of each exit but the last and returns an `adafocus_ops.ExitGate` (without capacity). A video in
                `leave` answers there and costs nothing more; None sends all on to the last exit.

        Returns:
            Output. Of a video that left early, exit_logits of later exits and boxes of frames that nobody looked at
            are NaN and frame_index is -1 there; weights are NaN if the policy was not asked.

        Gradients: to all weights that the result depends on and to floating-point frames.

        Raises:
            TypeError, ValueError: an input of another type or shape.
        """

    def read(
        self,
        frames: Tensor,
        boxes: Tensor,
        frame_index: Tensor | None,
        output_size: int,
        encoder: nn.Module,
        *,
        out: Tensor | None = None,
    ) -> Tensor:
        """Stage: crops, resizes and normalises in one pass, to patches as the encoder that takes them wants them.

        Args:
            frames: [B, N, 3, H, W], uint8 (normalised here) or floating point (already normalised), any strides.
            boxes: [M, 4] in pixels of the frames.
            frame_index: [M] into the flattened [B * N] frames; None cuts box m from frame m.
            output_size: P.
            encoder: its weights give the dtype and the memory format.
            out: memory for the result, of that dtype and format; in inference only.

        Returns:
            [M, 3, P, P].
        """
        weight = next(encoder.parameters())  # of its first convolution
        channels_last = not weight.is_contiguous() and weight.movedim(1, -1).is_contiguous()
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
            out=out,
        )

    def read_whole(
        self,
        frames: Tensor,
        frame_index: Tensor | None,
        encoder: nn.Module,
        *,
        videos: Tensor | None = None,
        size: int | None = None,
    ) -> Tensor:
        """Reads whole frames, by the stage `read`.

        Args:
            frames: [B, N, 3, H, W].
            frame_index: [B', T] within each video; None for all its N frames.
            videos: [B'] the places of these videos in the batch; None for all.
            size: side in pixels of what comes out; None for that of the frames.

        Returns:
            [B' * T, 3, size, size].
        """
        batch_size, candidates = frames.shape[:2]
        if frame_index is None:
            boxes, flat = self.whole_frame_boxes(batch_size * candidates, frames.device), None  # [B * N, 4]
        else:
            whole = self.whole_frame_boxes(frame_index.shape[0], frames.device)
            boxes, flat = adafocus_ops.boxes.for_frames(whole, frame_index, candidates, videos=videos)
        size = size or self.frame_size
        if size != self.frame_size and next(encoder.parameters()).dtype == torch.float32:
            boxes = boxes.double()  # else the rounding of positions would be the largest error of a glance
        return self.read(frames, boxes, flat, size, encoder)

    def read_patches(self, frames: Tensor, boxes: Tensor, frame_index: Tensor, videos: Tensor) -> Tensor:
        """Reads what the focus encoder sees, by the stage `read`.

        Args:
            frames: [B, N, 3, H, W], of the whole batch.
            boxes: [B', 4] for all frames of a video, or [B', n, 4].
            frame_index: [B', n] within each video.
            videos: [B'] the places of these videos in the batch.

        Returns:
            [B' * n, 3, P, P].
        """
        one = boxes if boxes.ndim == 2 else boxes[:, 0]
        each, flat = adafocus_ops.boxes.for_frames(one, frame_index, frames.shape[1], videos=videos)
        each = each if boxes.ndim == 2 else boxes.flatten(0, 1)  # [B' * n, 4]
        return self.read(frames, each, flat, self.patch_size, self.focus_encoder)

    def pick_glance_frames(self, frames: Tensor) -> Tensor:
        """[B, T0] int64: the candidates that are glanced at where no glance frames are given."""
        step = self.num_candidate_frames // self.num_glance_frames
        positions = 1 + step * torch.arange(self.num_glance_frames, device=frames.device)  # [T0]
        return positions.clamp(max=self.num_candidate_frames - 1).expand(frames.shape[0], -1)

    def all_candidates(self, frames: Tensor) -> Tensor:
        """[B, N] int64: 0..N-1 for every video."""
        return torch.arange(self.num_candidate_frames, device=frames.device).expand(frames.shape[0], -1)

    def no_decision(self, exits: ExitLoop, *, each_frame: bool = False) -> Decision:
        """Of no video, where all have left and no policy runs; each_frame: with boxes for every frame."""
        none = exits.logits[:0]
        weights = none.new_empty((0, self.num_glance_frames), dtype=torch.promote_types(none.dtype, torch.float32))
        frame_index = none.new_empty((0, self.num_focus_frames), dtype=torch.int64)
        boxes = weights.new_empty((0, self.num_focus_frames, 4) if each_frame else (0, 4))
        return Decision(weights, frame_index, boxes)

    def in_batch(self, exits: ExitLoop, decision: Decision) -> Decision:
        """Of all B videos, from that of the B' inside: NaN and -1 of those that have left."""
        weights, boxes = (exits.in_batch(x, torch.nan) for x in (decision.weights, decision.boxes))
        return Decision(weights, exits.in_batch(decision.frame_index, -1), boxes)

    def output(self, exits: ExitLoop, decision: Decision, glance_index: Tensor | None) -> Output:
        """What the model answers, once all have left: with the decision of all B videos."""
        weights, frame_index, boxes, _ = decision
        return Output(exits.logits, exits.exit_logits, frame_index, boxes, weights, glance_index)

    def seen_alone(self, decision: Decision, seen: Tensor) -> Decision:
        """Without the frames that nobody looked at: NaN and -1 beyond the first seen [B] of a video's n frames."""
        looked = torch.arange(self.num_focus_frames, device=seen.device) < seen[:, None]  # [B, n]
        frame_index = decision.frame_index.where(looked, -1)
        return decision._replace(frame_index=frame_index, boxes=decision.boxes.where(looked[..., None], torch.nan))

    def pad_steps(self, boxes: list[Tensor]) -> Tensor:
        """[B, K, 4] of boxes [B, n, 4] step by step: NaN for the steps that no video has reached."""
        reached = torch.cat(boxes, 1)
        missing = self.num_focus_frames - reached.shape[1]
        return nn.functional.pad(reached, (0, 0, 0, missing), value=torch.nan)

    def uniform_weights(self, like: Tensor) -> Tensor:
        """[B', T0]: 1 / T0 each, for a network that does not weigh its glance frames; like [B', ...] it."""
        dtype = torch.promote_types(like.dtype, torch.float32)
        return like.new_full((like.shape[0], self.num_glance_frames), 1 / max(self.num_glance_frames, 1), dtype=dtype)

    def whole_frames_output(self, logits: Tensor, frames: Tensor, glance_index: Tensor | None) -> Output:
        """The Output of a network with one exit that has seen all of the frames [B, K, 3, H, W], and all of each."""
        boxes = self.whole_frame_boxes(logits.shape[0], logits.device)  # [B, 4]
        frame_index = self.all_candidates(frames)  # [B, K]
        return Output(logits, logits[:, None], frame_index, boxes, self.uniform_weights(logits), glance_index)

    def whole_frame_boxes(self, count: int, device: torch.device) -> Tensor:
        """[count, 4]: (cy, cx, h, w) of a whole frame, each time."""
        return adafocus_ops.boxes.full_frame(count, (self.frame_size, self.frame_size), device)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "VideoModel":
        """As nn.Module._apply, which every conversion of this module, or of one that holds it, goes through.

        A five-dimensional weight is shown to `fn` with two of its dimensions as one, since channels_last is of four:
        in memory this is channels_last_3d.
        """

        def apply(t: Tensor) -> Tensor:
            if t.ndim != 5:
                return fn(t)
            return fn(t.flatten(2, 3)).unflatten(2, t.shape[2:4])

        return super()._apply(apply, recurse)

    def published_prefixes(self) -> Mapping[str, str]:
        """Child module, or a layer of one -> its name in the published checkpoints; empty if none is published."""
        return {}

    def load_checkpoint(
        self, source: str | os.PathLike | Mapping[str, Tensor], *, new_heads: bool = False
    ) -> list[str]:
        """Loads every weight, from our format or a published checkpoint, or changes nothing and raises.

        Args:
            source: a .safetensors file, a file of torch.save (read with weights_only=True) whatever their names, or
                a state dict. The weights may lie under "state_dict", "model_state_dict", "model_state", "model",
                "module", "state_dict_ema", "model_ema" or "ema" (the first of these that is there), and their names
                may have a prefix ("module.", "model." of Lightning, "_orig_mod." of torch.compile, ...), entries
                without which are not looked at. num_batches_tracked may be missing.
            new_heads: the layers that give a number for every class stay as they are, for fine-tuning on another
                number of classes, or other classes; everything else must fit.

        Returns:
            names of the entries that stayed as they are: with new_heads those of the heads, else none.

        Raises:
            OSError: the file cannot be opened.
            ValueError: it is no checkpoint or holds more than weights and numbers; names that are missing or
                unexpected, or shapes that differ, which the message lists.
        """
        return checkpoints.load_checkpoint(self, source, new_heads=new_heads)

    def save_checkpoint(self, path: str | os.PathLike) -> None:
        """Writes every weight to a .safetensors file under this model's own names."""
        checkpoints.save_checkpoint(self, path)

    def check_inputs(self, frames: Tensor, glance_frames: Tensor | None) -> None:
        """Raises TypeError or ValueError, with what arrived, unless both are what `forward` takes."""
        self._check_frames("frames", frames, self.num_candidate_frames)
        if not self.has_glance:
            require(
                glance_frames is None,
                lambda: (
                    f"glance_frames must be None: {type(self).__name__} has no glance, got {describe(glance_frames)}"
                ),
            )
            return
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

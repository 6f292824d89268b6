"""Uni-AdaFocus-TSM: one deformable patch per video, in frames picked by a temporal policy, with an early exit."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from adafocus_ops import ExitGate, boxes, quantile_frames
from adafocus_ops.checks import require

from ..backbones.mobilenet_v2 import MobileNetV2
from ..backbones.resnet import ResNet50
from .policies import SpatialPolicy, TemporalPolicy
from .video_model import Output, VideoModel, flat_index

# Smallest and largest side of a patch in frame pixels, whatever its size after resizing.
MIN_SIDE, MAX_SIDE = 96, 224


class UniAdaFocusTSM(VideoModel):
    """MobileNetV2-TSM glances at T0 whole frames; ResNet50-TSM sees one patch position in K of N frames.

    Exit 0 is the mean over frames of an auxiliary head on the glance's features, exit 1 the sum of the
    means of a head on the glance's and a head on the focus's features.

    Args:
        num_classes: C; 174 in Something-Something V1 and V2.
        patch_size: P, a patch's side in pixels after resizing; 96 or 128 in the paper.
        num_glance_frames: T0.
        num_focus_frames: K.
        num_candidate_frames: N; None for 3 K as in the paper.

    Source: Uni-AdaFocus, Section 4 and Appendix H.1.
    """

    stage_modules = {
        "glance": ("glance_encoder",),
        "policy": ("temporal_policy", "spatial_policy"),
        "focus": ("focus_encoder",),
        "head": ("glance_head", "focus_head"),
    }
    exit0_modules = ("glance_encoder", "glance_aux_head")
    published_prefixes = {
        "glance_encoder": "global_CNN.base_model",
        "glance_head": "global_CNN.new_fc",
        "glance_aux_head": "global_CNN.new_new_fc",
        "focus_encoder": "local_CNN.base_model",
        "focus_head": "local_CNN.new_fc",
        "focus_aux_head": "local_CNN.new_new_fc",
        "spatial_aux_head": "aux_fc",
        "spatial_policy.layers": "spatial_policy.encoder",
        "temporal_policy.layers": "temporal_policy.Tconv",
    }

    def __init__(
        self,
        num_classes: int = 174,
        patch_size: int = 128,
        num_glance_frames: int = 8,
        num_focus_frames: int = 12,
        num_candidate_frames: int | None = None,
    ) -> None:
        super().__init__(
            MobileNetV2(num_glance_frames),
            ResNet50(num_focus_frames),
            num_classes=num_classes,
            patch_size=patch_size,
            num_glance_frames=num_glance_frames,
            num_focus_frames=num_focus_frames,
            num_candidate_frames=3 * num_focus_frames if num_candidate_frames is None else num_candidate_frames,
        )
        glance_channels, focus_channels = self.glance_encoder.out_channels, self.focus_encoder.out_channels
        map_size = self.frame_size // self.glance_encoder.reduction
        self.spatial_policy = SpatialPolicy(glance_channels, num_glance_frames, map_size)
        self.temporal_policy = TemporalPolicy(glance_channels)
        self.glance_head = nn.Linear(glance_channels, num_classes)
        self.focus_head = nn.Linear(focus_channels, num_classes)
        # Auxiliary supervision. Exit 0 answers with the first; the other two serve training alone.
        self.glance_aux_head = nn.Linear(glance_channels, num_classes)
        self.focus_aux_head = nn.Linear(focus_channels, num_classes)
        self.spatial_aux_head = nn.Linear(glance_channels, num_classes)

    def policy(self, maps: Tensor, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Stage: when and where to look.

        Args:
            maps, features: of the glance, [B, T0, 1280, 7, 7] and [B, T0, 1280].

        Returns:
            weights [B, T0], frame_index [B, K] int64 into the candidates, boxes [B, 4] in frame pixels.
        """
        weights = self.temporal_policy(features)
        frame_index = quantile_frames(weights, self.num_candidate_frames, self.num_focus_frames)
        action = self.spatial_policy(maps)
        return weights, frame_index, boxes.from_action(action, (self.frame_size,) * 2, MIN_SIDE, MAX_SIDE)

    def head(self, glance_features: Tensor, focus_features: Tensor | None = None) -> Tensor:
        """Stage: logits [B, C] of exit 0, or with the focus's features [B, K, 2048] of exit 1."""
        if focus_features is None:
            return self.glance_aux_head(glance_features).mean(1)
        return self.glance_head(glance_features).mean(1) + self.focus_head(focus_features).mean(1)

    def forward(
        self,
        frames: Tensor,
        glance_frames: Tensor | None = None,
        *,
        gate: Callable[[Tensor], ExitGate] | None = None,
    ) -> Output:
        """Recognises B videos.

        Args:
            frames: the candidates [B, N, 3, 224, 224], uint8 (0 to 255, normalised inside by ImageNet's mean
                and standard deviation) or floating point (already normalised). Any strides, read in place.
            glance_frames: [B, T0, 3, 224, 224] likewise, where they are sampled apart; None takes the
                candidates 1 + i (N // T0) for i = 0..T0-1, the last one where that is beyond it.
            gate: takes the logits [B, C] of exit 0 and returns an `adafocus_ops.ExitGate` (without capacity).
                Rows in `leave` answer at exit 0 and cost nothing more; None sends all on to exit 1.

        Returns:
            Output with two exits. Of a video that left at exit 0, exit_logits[:, 1], boxes and weights
            are NaN and frame_index is -1.

        Gradients: to all weights that the result depends on and to floating-point frames.

        Raises:
            TypeError, ValueError: an input of another type or shape.
        """
        self._check_inputs(frames, glance_frames)
        maps, features, glance_index = self._glance_at(frames, glance_frames)
        exit0 = self.head(features)
        if gate is None:
            looked = self._look_closer(frames, maps, features)
            logits = looked[0]
        else:
            keep = _staying(gate(exit0), exit0.shape[0])
            looked = self._nobody_looked(exit0)
            if keep.numel():
                for rows, kept in zip(looked, self._look_closer(frames, maps[keep], features[keep], keep), strict=True):
                    rows[keep] = kept
            logits = exit0.index_copy(0, keep, looked[0][keep])
        exit1, frame_index, box, weights = looked
        return Output(logits, torch.stack([exit0, exit1], 1), frame_index, box, weights, glance_index)

    def _look_closer(
        self, frames: Tensor, maps: Tensor, features: Tensor, videos: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Policy, focus and exit 1 for the videos with these maps and features.

        Args:
            frames: the candidates of the whole batch.
            videos: [B'] places in the batch of the videos that maps and features belong to; None for all.

        Returns:
            logits [B', C] of exit 1, frame_index [B', K], boxes [B', 4], weights [B', T0].
        """
        weights, frame_index, box = self.policy(maps, features)
        patches = self.read(
            frames,
            box.repeat_interleave(self.num_focus_frames, 0),
            flat_index(frame_index, frames.shape[1], videos),
            self.patch_size,
            self.focus_encoder,
        )
        return self.head(features, self.focus(patches)), frame_index, box, weights

    def _nobody_looked(self, exit0: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What _look_closer returns, for videos that all left at exit 0."""
        videos = exit0.shape[0]
        dtype = torch.promote_types(exit0.dtype, torch.float32)
        return (
            torch.full_like(exit0, torch.nan),
            exit0.new_full((videos, self.num_focus_frames), -1, dtype=torch.int64),
            exit0.new_full((videos, 4), torch.nan, dtype=dtype),
            exit0.new_full((videos, self.num_glance_frames), torch.nan, dtype=dtype),
        )

    def _glance_positions(self, device: torch.device) -> Tensor:
        step = self.num_candidate_frames // self.num_glance_frames
        positions = 1 + step * torch.arange(self.num_glance_frames, device=device)
        return positions.clamp(max=self.num_candidate_frames - 1)


def _staying(gate: ExitGate, num_videos: int) -> Tensor:
    """[B'] int64: the videos that go on, once it is clear that every other one leaves."""
    keep, leave = gate.keep, gate.leave
    listed = torch.cat([keep, leave]).sort().values
    require(
        torch.equal(listed, torch.arange(num_videos, device=listed.device)),
        lambda: (
            f"gate must sort each of the {num_videos} videos into keep or leave (no capacity, no active),"
            f" got {keep.tolist()} and {leave.tolist()}"
        ),
    )
    return keep

"""Uni-AdaFocus-X3D: Uni-AdaFocus-TSM's course with three-dimensional convolutions as encoders."""

from collections.abc import Mapping

from torch import Tensor, nn

from adafocus_ops import quantile_frames
from adafocus_ops.boxes import from_action

from ..backbones import X3D
from ..exits import ExitLoop, Gate
from .arguments import map_side, sides_of_patches
from .checkpoints import beneath, published_layers
from .heads import ClipHead
from .policies import SpatialPolicy, TemporalPolicy
from .video_model import Configuration, Decision, Output, PaperFigures, VideoModel

# Table V, a view. The share that leaves early is the one that these GFLOPs come from.
CONFIGURATIONS = (
    Configuration(
        "uni_adafocus_x3d_128_16+32",
        "uni_adafocus_x3d",
        table="V",
        paper=PaperFigures(8.8),
        paper_exits={0.612: PaperFigures(4.9)},
    ),
)


class UniAdaFocusX3D(VideoModel):
    """X3D-S glances at T0 whole frames of 160 pixels; X3D-L sees one patch position in K of N frames.

    Exit 0 is the mean over frames of a frame head on the glance's features, exit 1 the sum of a clip head on the
    glance's and a clip head on the focus's features.

    Args:
        num_classes: C; 400 in Kinetics-400.
        patch_size: P, a patch's side in pixels after resizing; 128 in the paper.
        num_glance_frames: T0.
        num_focus_frames: K.
        num_candidate_frames: N; None for 3 K as in the paper.
        glance_encoder, focus_encoder: in the place of X3D-S and X3D-L, modules from frames [M, 3, h, w] to maps
            maps [M, C, h / reduction, w / reduction] (rounded up), with attributes out_channels (C) and reduction.
            Frames come clip by clip.
        frame_size: S, a frame's side in pixels.
        glance_size: side in pixels of what the glance sees, resized from the frames.
        min_side, max_side: of a patch in pixels of the frame; None for 96 / 224 of the frame's side, and all of it.
        policy_width: channels within the spatial policy.

    Source: Uni-AdaFocus, Section 5.2 and Appendix H.
    """

    num_exits = 2
    glances_apart = True
    stage_modules = {
        "glance": ("glance_encoder",),
        "policy": ("temporal_policy", "spatial_policy"),
        "focus": ("focus_encoder",),
        "head": ("glance_head", "focus_head"),
    }

    def __init__(
        self,
        num_classes: int = 400,
        patch_size: int = 128,
        num_glance_frames: int = 16,
        num_focus_frames: int = 32,
        num_candidate_frames: int | None = None,
        *,
        glance_encoder: nn.Module | None = None,
        focus_encoder: nn.Module | None = None,
        frame_size: int = 224,
        glance_size: int = 160,
        min_side: float | None = None,
        max_side: float | None = None,
        policy_width: int = 128,
    ) -> None:
        super().__init__(
            X3D("s", num_glance_frames) if glance_encoder is None else glance_encoder,
            X3D("l", num_focus_frames) if focus_encoder is None else focus_encoder,
            num_classes=num_classes,
            patch_size=patch_size,
            num_glance_frames=num_glance_frames,
            num_focus_frames=num_focus_frames,
            num_candidate_frames=3 * num_focus_frames if num_candidate_frames is None else num_candidate_frames,
            frame_size=frame_size,
        )
        self.glance_size = glance_size
        self.sides = sides_of_patches(frame_size, min_side, max_side)
        channels, focus_channels = self.glance_encoder.out_channels, self.focus_encoder.out_channels
        map_size = map_side(glance_size, self.glance_encoder)
        self.spatial_policy = SpatialPolicy(channels, num_glance_frames, map_size, hidden=policy_width)
        self.temporal_policy = TemporalPolicy(channels)
        self.glance_head, self.focus_head = ClipHead(channels, num_classes), ClipHead(focus_channels, num_classes)
        # Auxiliary supervision. Exit 0 answers with the first; the other two serve training alone.
        self.glance_aux_head = frame_head(channels, num_classes)
        self.focus_aux_head = frame_head(focus_channels, num_classes)
        self.spatial_aux_head = nn.Linear(channels, num_classes)

    def forward(self, frames: Tensor, glance_frames: Tensor | None = None, *, gate: Gate | None = None) -> Output:
        """Recognises B videos, as `VideoModel.forward` says: with two exits and boxes [B, 4].

        Without glance_frames the glance sees the candidates 1 + i (N // T0) for i = 0..T0-1, the last one where that is
        beyond it.
        """
        self.check_inputs(frames, glance_frames)
        exits = ExitLoop(gate, self.num_exits)

        # A glance at whole frames, smaller than they are, and exit 0.
        glance_index = self.pick_glance_frames(frames) if glance_frames is None else None  # [B, T0]
        glanced = frames if glance_frames is None else glance_frames
        whole = self.read_whole(glanced, glance_index, self.glance_encoder, size=self.glance_size)
        maps, features = self.glance(whole)  # [B, T0, 432, 5, 5], [B, T0, 432]
        exits.answer(self.early_head(features))  # [B, C]

        # A closer look at all videos, or at the B' that the gate sends on, and exit 1.
        maps, features = exits.keep(maps), exits.keep(features)  # [B', T0, 432, 5, 5], [B', T0, 432]
        decision = self.no_decision(exits) if exits.is_empty else self.policy(maps, features)
        if not exits.is_empty:
            patches = self.read_patches(frames, decision.boxes, decision.frame_index, exits.rows)  # [B' * K, 3, P, P]
            exits.answer(self.final_head(features, self.focus(patches)))  # [B', C]

        return self.output(exits, self.in_batch(exits, decision), glance_index)

    def glance(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Stage: maps [B, T0, 432, 5, 5] and features [B, T0, 432] of whole frames [B * T0, 3, 160, 160]."""
        maps = self.glance_encoder(frames).unflatten(0, (-1, self.num_glance_frames))
        return maps, maps.mean((-2, -1))

    def policy(self, maps: Tensor, features: Tensor) -> Decision:
        """Stage: when and where to look; one box a video.

        Args:
            maps, features: of the glance, [B, T0, 432, 5, 5] and [B, T0, 432].
        """
        weights = self.temporal_policy(features)  # [B, T0]
        frame_index = quantile_frames(weights, self.num_candidate_frames, self.num_focus_frames)  # [B, K]
        action = self.spatial_policy(maps)  # [B, 4]
        boxes = from_action(action, (self.frame_size,) * 2, *self.sides)  # [B, 4]
        return Decision(weights, frame_index, boxes)

    def focus(self, patches: Tensor) -> Tensor:
        """Stage: features [B, K, 432] of patches [B * K, 3, P, P]."""
        maps = self.focus_encoder(patches).unflatten(0, (-1, self.num_focus_frames))  # [B, K, 432, h, w]
        return maps.mean((-2, -1))

    def early_head(self, glance_features: Tensor) -> Tensor:
        """Stage: logits [B, C] of exit 0, from the glance's features [B, T0, 432]."""
        return self.glance_aux_head(glance_features).mean(1)

    def final_head(self, glance_features: Tensor, focus_features: Tensor) -> Tensor:
        """Stage: logits [B, C] of exit 1, from the features [B, T0, 432] and [B, K, 432] of both encoders."""
        return self.glance_head(glance_features) + self.focus_head(focus_features)

    def published_prefixes(self) -> Mapping[str, str]:
        return {
            **beneath("glance_encoder", "global_CNN", published_layers(self.glance_encoder)),
            **beneath("focus_encoder", "local_CNN", published_layers(self.focus_encoder)),
            "glance_head": "global_CNN.head",
            "focus_head": "local_CNN.head",
            **beneath("glance_aux_head", "global_CNN_head", {"2": "3"}),
            **beneath("focus_aux_head", "local_CNN_head", {"2": "3"}),
            "spatial_aux_head": "aux_head.0",
            "spatial_policy.layers": "spatial_policy.encoder",
            "temporal_policy.layers": "temporal_policy.Tconv",
        }


def frame_head(channels: int, num_classes: int) -> nn.Sequential:
    """The layers of a clip head, for the features of every frame."""
    return nn.Sequential(
        nn.Linear(channels, ClipHead.hidden, bias=False),
        nn.Sequential(nn.ReLU(inplace=True), nn.Dropout(0.0)),
        nn.Linear(ClipHead.hidden, num_classes),
    )

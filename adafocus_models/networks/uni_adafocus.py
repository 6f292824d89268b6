"""Uni-AdaFocus: a deformable patch in every frame that a temporal policy picks, and an exit after each."""

from collections.abc import Mapping

from torch import Tensor, nn

from adafocus_ops import quantile_frames
from adafocus_ops.boxes import for_frames, from_action

from ..backbones import MobileNetV2, ResNet50
from ..exits import ExitLoop, Gate
from .arguments import map_side, sides_of_patches
from .checkpoints import beneath, published_layers
from .heads import MaxPoolingHead
from .policies import SpatialPolicy, TemporalPolicy
from .video_model import Configuration, Decision, Output, PaperFigures, VideoModel


def _configuration(patch_size: int, *figures: PaperFigures | dict[float, PaperFigures]) -> Configuration:
    name = f"uni_adafocus_{patch_size}_16+16"
    return Configuration(name, "uni_adafocus", {"patch_size": patch_size}, "II", *figures)


# Tables II and III. The share that leaves at the glance is one that gives these mean GFLOPs.
CONFIGURATIONS = (
    _configuration(96),
    _configuration(128, PaperFigures(27.2), {0.408: PaperFigures(18.1), 0.811: PaperFigures(9.1)}),
    _configuration(160),
)


class UniAdaFocus(VideoModel):
    """MobileNetV2 glances at T0 whole frames; ResNet50 sees one patch in each of K of N frames.

    Exit 0 answers after the glance and exit k after k patches, by accumulated max-pooling: each has a linear
    classifier of its own on the maximum of all features so far.

    Args:
        num_classes: C; 200 in ActivityNet.
        patch_size: P, a patch's side in pixels after resizing; 96, 128 or 160 in the paper.
        num_glance_frames: T0.
        num_focus_frames: K; there are K + 1 exits.
        num_candidate_frames: N; None for 3 K as in the paper.
        glance_encoder, focus_encoder: in the place of MobileNetV2 and ResNet50, modules from frames [M, 3, h, w] to
            maps [M, C, h / reduction, w / reduction] (rounded up), with attributes out_channels (C) and reduction.
        frame_size: S, a frame's side in pixels.
        glance_size: side in pixels of what the glance sees; None for that of the frames.
        min_side, max_side: of a patch in pixels of the frame; None for 96 / 224 of the frame's side, and all of it.
        policy_width: channels within the spatial policy.
        head_width: of the head's state.

    Source: Uni-AdaFocus, Section 4 and Appendix H.1.
    """

    num_exits = 17
    stage_modules = {
        "glance": ("glance_encoder",),
        "policy": ("temporal_policy", "spatial_policy"),
        "focus": ("focus_encoder",),
        "head": ("glance_head", "focus_head"),
    }
    published_extras = ("global_CNN.classifier.", "local_CNN.fc.")  # of ImageNet's 1000 classes

    def __init__(
        self,
        num_classes: int = 200,
        patch_size: int = 128,
        num_glance_frames: int = 16,
        num_focus_frames: int = 16,
        num_candidate_frames: int | None = None,
        *,
        glance_encoder: nn.Module | None = None,
        focus_encoder: nn.Module | None = None,
        frame_size: int = 224,
        glance_size: int | None = None,
        min_side: float | None = None,
        max_side: float | None = None,
        policy_width: int = 128,
        head_width: int = 4096,
    ) -> None:
        super().__init__(
            MobileNetV2() if glance_encoder is None else glance_encoder,
            ResNet50() if focus_encoder is None else focus_encoder,
            num_classes=num_classes,
            patch_size=patch_size,
            num_glance_frames=num_glance_frames,
            num_focus_frames=num_focus_frames,
            num_candidate_frames=3 * num_focus_frames if num_candidate_frames is None else num_candidate_frames,
            frame_size=frame_size,
        )
        self.glance_size = frame_size if glance_size is None else glance_size
        self.sides = sides_of_patches(frame_size, min_side, max_side)
        self.num_exits = num_focus_frames + 1
        glance_channels, focus_channels = self.glance_encoder.out_channels, self.focus_encoder.out_channels
        map_size = map_side(self.glance_size, self.glance_encoder)
        self.spatial_policy = SpatialPolicy(
            glance_channels, num_glance_frames, map_size, each_frame=True, hidden=policy_width
        )
        self.temporal_policy = TemporalPolicy(glance_channels)
        # Classifiers of 1 to T0 glance frames, of which only the last answers: the others serve training.
        self.glance_head = MaxPoolingHead(glance_channels, num_classes, num_glance_frames, hidden=head_width)
        self.focus_head = MaxPoolingHead(
            focus_channels, num_classes, num_focus_frames, beside=head_width, hidden=head_width
        )
        # Auxiliary supervision, for training alone.
        self.glance_aux_head = nn.Linear(glance_channels, num_classes)
        self.focus_aux_head = nn.Linear(focus_channels, num_classes)
        self.spatial_aux_head = nn.Linear(glance_channels, num_classes)
        self.dropout = nn.Dropout(0.0)  # before the first two

    def forward(self, frames: Tensor, glance_frames: Tensor | None = None, *, gate: Gate | None = None) -> Output:
        """Recognises B videos, as `VideoModel.forward` says: with K + 1 exits and boxes [B, K, 4].

        Without glance_frames the glance sees the candidates 1 + i (N // T0) for i = 0..T0-1, the last one where that is
        beyond it. With a gate, patches are read and seen one after the other, else all K at once.
        """
        self.check_inputs(frames, glance_frames)
        exits = ExitLoop(gate, self.num_exits)

        # A glance at whole frames, and exit 0.
        glance_index = self.pick_glance_frames(frames) if glance_frames is None else None  # [B, T0]
        glanced = frames if glance_frames is None else glance_frames
        whole = self.read_whole(
            glanced, glance_index, self.glance_encoder, size=self.glance_size
        )  # [B * T0, 3, 224, 224]
        maps, features = self.glance(whole)  # [B, T0, 1280, 7, 7], [B, T0, 1280]
        glanced_max, logits = self.early_head(features)  # [B, 4096], [B, C]
        exits.answer(logits)

        # When and where to look, in the B' videos that the gate sends on.
        maps, features = exits.keep(maps), exits.keep(features)
        glanced_max, focus_max = exits.keep(glanced_max), None  # [B', 4096]
        asked = self.no_decision(exits, each_frame=True) if exits.is_empty else self.policy(maps, features)
        decision = self.in_batch(exits, asked)  # frame_index [B, K], boxes [B, K, 4]

        # A closer look at one patch after the other, and an exit after each.
        for steps in exits.steps(self.num_focus_frames):
            boxes, frame_index = (x[exits.rows, steps] for x in (decision.boxes, decision.frame_index))  # [B', n, 4]
            patches = self.read_patches(frames, boxes, frame_index, exits.rows)  # [B' * n, 3, P, P]
            seen = self.focus(patches).unflatten(0, frame_index.shape)  # [B', n, 2048]
            logits, focus_max = self.final_head(seen, glanced_max, focus_max, steps)  # [B', n, C], [B', 4096]
            exits.answer_each(logits)
            glanced_max, focus_max = exits.keep(glanced_max), exits.keep(focus_max)

        if gate is not None:
            decision = self.seen_alone(decision, exits.exit_index)
        return self.output(exits, decision, glance_index)

    def glance(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Stage: maps [B, T0, 1280, 7, 7] and features [B, T0, 1280] of whole frames [B * T0, 3, 224, 224]."""
        maps = self.glance_encoder(frames).unflatten(0, (-1, self.num_glance_frames))
        return maps, maps.mean((-2, -1))

    def policy(self, maps: Tensor, features: Tensor) -> Decision:
        """Stage: when and where to look.

        Args:
            maps, features: of the glance, [B, T0, 1280, 7, 7] and [B, T0, 1280].
        """
        weights = self.temporal_policy(features)  # [B, T0]
        frame_index = quantile_frames(weights, self.num_candidate_frames, self.num_focus_frames)  # [B, K]
        # Actions, not boxes, are interpolated between the glance frames.
        actions, _ = for_frames(self.spatial_policy(maps), frame_index, self.num_candidate_frames)  # [B * K, 4]
        boxes = from_action(actions, (self.frame_size,) * 2, *self.sides).unflatten(0, frame_index.shape)
        return Decision(weights, frame_index, boxes)

    def focus(self, patches: Tensor) -> Tensor:
        """Stage: features [M, 2048] of patches [M, 3, P, P], each for itself."""
        return self.focus_encoder(patches).mean((-2, -1))

    def early_head(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Stage: the maximum [B, 4096] over the glance's features [B, T0, 1280], and the logits [B, C] of exit 0."""
        maximum = self.glance_head.pool(features)[-1]
        return maximum, self.glance_head.answer([maximum], slice(-1, None))[:, 0]

    def final_head(
        self, features: Tensor, glanced_max: Tensor, focus_max: Tensor | None, steps: slice
    ) -> tuple[Tensor, Tensor]:
        """Stage: the logits [B', n, C] after each of n more patches, and the maximum [B', 4096] after all of them.

        Args:
            features: [B', n, 2048] of these patches.
            glanced_max: [B', 4096] of the glance.
            focus_max: [B', 4096] of the patches before; None if there were none.
            steps: the numbers of these patches.
        """
        maxima = self.focus_head.pool(features, focus_max)
        return self.focus_head.answer(maxima, steps, glanced_max), maxima[-1]

    def published_prefixes(self) -> Mapping[str, str]:
        return {
            **beneath("glance_encoder", "global_CNN", published_layers(self.glance_encoder)),
            **beneath("focus_encoder", "local_CNN", published_layers(self.focus_encoder)),
            "glance_aux_head": "global_CNN_fc.1",
            "focus_aux_head": "local_CNN_fc.1",
            "spatial_aux_head": "aux_fc",
            "spatial_policy.layers": "spatial_policy.encoder",
            "temporal_policy.layers": "temporal_policy.Tconv",
            **self.glance_head.published_layers(
                "glance_head", "classifier.global_mlp", "classifier.global_classifiers"
            ),
            **self.focus_head.published_layers("focus_head", "classifier.local_mlp", "classifier.local_classifiers"),
        }

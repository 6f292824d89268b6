"""AdaFocusV2: a patch of fixed size in every frame, placed by a recurrent policy, and an exit after each frame."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..backbones import MobileNetV2, ResNet50
from ..exits import ExitLoop, Gate
from .arguments import check_same_frames, map_side
from .checkpoints import beneath, published_layers
from .heads import MaxPoolingHead
from .policies import GRU_LAYERS, at_least_float32, fixed_boxes, run_gru, state_encoder
from .video_model import Configuration, Decision, Output, PaperFigures, VideoModel

# Table III, beside Table II; GFLOPs of the published models.
CONFIGURATIONS = tuple(
    Configuration(f"adafocus_v2_{size}_16", "adafocus_v2", {"patch_size": size}, "II", PaperFigures(gflops))
    for size, gflops in ((96, 17.6), (128, 27.0), (160, 39.0))
)


class AdaFocusV2(VideoModel):
    """MobileNetV2 glances at every frame; ResNet50 sees one patch of P x P pixels in each.

    Exit k answers after frames 0 to k by accumulated max-pooling: a linear classifier of its own on the maximum of
    both encoders' features so far.

    Args:
        num_classes: C; 200 in ActivityNet.
        patch_size: P, a patch's side in frame pixels; 96, 128 or 160.
        num_focus_frames: K, of which there are K exits.
        num_glance_frames, num_candidate_frames: None or K, since the glance sees the same frames, and all of them.
        glance_encoder, focus_encoder: in the place of MobileNetV2 and ResNet50, modules from frames [M, 3, h, w] to
            maps [M, C, h / reduction, w / reduction] (rounded up), with attributes out_channels (C) and reduction.
        frame_size: S, a frame's side in pixels.
        policy_width: of the policy's state.
        head_width: of the head's state.

    Source: Wang et al., AdaFocus V2, 2022; Uni-AdaFocus, Table III and Figure 10.
    """

    num_exits = 16
    stage_modules = {
        "glance": ("glance_encoder",),
        "policy": ("spatial_policy",),
        "focus": ("focus_encoder",),
        "head": ("head",),
    }
    published_extras = ("global_CNN.classifier.", "local_CNN.fc.")  # of ImageNet's 1000 classes

    def __init__(
        self,
        num_classes: int = 200,
        patch_size: int = 128,
        num_glance_frames: int | None = None,
        num_focus_frames: int = 16,
        num_candidate_frames: int | None = None,
        *,
        glance_encoder: nn.Module | None = None,
        focus_encoder: nn.Module | None = None,
        frame_size: int = 224,
        policy_width: int = 2048,
        head_width: int = 4096,
    ) -> None:
        check_same_frames(
            num_focus_frames, num_glance_frames=num_glance_frames, num_candidate_frames=num_candidate_frames
        )
        super().__init__(
            MobileNetV2() if glance_encoder is None else glance_encoder,
            ResNet50() if focus_encoder is None else focus_encoder,
            num_classes=num_classes,
            patch_size=patch_size,
            num_glance_frames=num_focus_frames,
            num_focus_frames=num_focus_frames,
            num_candidate_frames=num_focus_frames,
            frame_size=frame_size,
        )
        self.num_exits = num_focus_frames
        glance_channels, focus_channels = self.glance_encoder.out_channels, self.focus_encoder.out_channels
        map_size = map_side(frame_size, self.glance_encoder)
        self.spatial_policy = RecurrentPolicy(glance_channels, map_size, policy_width)
        channels = glance_channels + focus_channels
        self.head = MaxPoolingHead(channels, num_classes, num_focus_frames, hidden=head_width)
        # Auxiliary supervision, for training alone.
        self.glance_aux_head = nn.Linear(glance_channels, num_classes)
        self.focus_aux_head = nn.Linear(focus_channels, num_classes)
        self.dropout = nn.Dropout(0.0)  # before these

    def forward(self, frames: Tensor, glance_frames: Tensor | None = None, *, gate: Gate | None = None) -> Output:
        """Recognises B videos, as `VideoModel.forward` says: with K exits, boxes [B, K, 4] and uniform weights.

        Without glance_frames the glance sees all K candidates. With a gate, frames go through all
        stages one after the other, else stage by stage.
        """
        self.check_inputs(frames, glance_frames)
        exits = ExitLoop(gate, self.num_exits, frames)
        glanced, all_frames = frames if glance_frames is None else glance_frames, self.all_candidates(frames)
        state = maximum = None  # [B', 2048] of the policy, [B', 4096] of the head
        looked: list[Tensor] = []  # boxes [B, n, 4]

        # A glance at a frame, and a closer look at a patch of it, and an exit; or n frames at once.
        for steps in exits.steps(self.num_focus_frames):
            index = all_frames[exits.rows, steps]  # [B', n]
            whole = self.read_whole(glanced, index, self.glance_encoder, videos=exits.rows)  # [B' * n, 3, 224, 224]
            maps, features = (x.unflatten(0, index.shape) for x in self.glance(whole))  # [B', n, 1280, 7, 7]
            decision = self.policy(maps, index, state)  # boxes [B', n, 4]
            looked.append(exits.in_batch(decision.boxes, torch.nan))
            patches = self.read_patches(frames, decision.boxes, index, exits.rows)  # [B' * n, 3, P, P]
            seen = self.focus(patches).unflatten(0, index.shape)  # [B', n, 2048]
            logits, maximum = self.final_head(features, seen, maximum, steps)  # [B', n, C], [B', 4096]
            exits.answer_each(logits)
            state, maximum = exits.keep(decision.state), exits.keep(maximum)

        decision = Decision(self.uniform_weights(exits.logits), all_frames, self.pad_steps(looked))
        if gate is not None:
            decision = self.seen_alone(decision, exits.exit_index + 1)
        glance_index = all_frames if glance_frames is None else None  # [B, T0]
        return self.output(exits, decision, glance_index)

    def glance(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Stage: maps [M, 1280, 7, 7] and features [M, 1280] of whole frames [M, 3, 224, 224], each for itself."""
        maps = self.glance_encoder(frames)
        return maps, maps.mean((-2, -1))

    def policy(self, maps: Tensor, frame_index: Tensor, state: Tensor | None) -> Decision:
        """Stage: where to look in n more frames.

        Args:
            maps: of the glance at these frames, [B', n, 1280, 7, 7].
            frame_index: [B', n].
            state: [B', 2048] after the frames before; None if there were none.
        """
        actions, state = self.spatial_policy(maps, state)  # [B', n, 2], [B', 2048]
        boxes = fixed_boxes(actions, self.frame_size, self.patch_size)  # [B', n, 4]
        return Decision(self.uniform_weights(maps), frame_index, boxes, state)

    def focus(self, patches: Tensor) -> Tensor:
        """Stage: features [M, 2048] of patches [M, 3, P, P], each for itself."""
        return self.focus_encoder(patches).mean((-2, -1))

    def final_head(
        self, glance_features: Tensor, focus_features: Tensor, maximum: Tensor | None, steps: slice
    ) -> tuple[Tensor, Tensor]:
        """Stage: the logits [B', n, C] after each of n more frames, and the maximum [B', 4096] after all of them.

        Args:
            glance_features, focus_features: [B', n, 1280] and [B', n, 2048] of these frames.
            maximum: [B', 4096] of the frames before; None if there were none.
            steps: the numbers of these frames.
        """
        maxima = self.head.pool(torch.cat([glance_features, focus_features], 2), maximum)
        return self.head.answer(maxima, steps), maxima[-1]

    def published_prefixes(self) -> Mapping[str, str]:
        return {
            **beneath("glance_encoder", "global_CNN", published_layers(self.glance_encoder)),
            **beneath("focus_encoder", "local_CNN", published_layers(self.focus_encoder)),
            "glance_aux_head": "global_CNN_fc.1",
            "focus_aux_head": "local_CNN_fc.1",
            "spatial_policy": "policy_stn",
            **beneath("spatial_policy.gru", "policy_stn.gru", GRU_LAYERS),
            "spatial_policy.actor": "policy_stn.fc.0",
            **self.head.published_layers("head", "classifier.mlp", "classifier.classifiers"),
        }


class RecurrentPolicy(nn.Module):
    """A place in every frame, from its glance and those before it.

    Source: Wang et al., AdaFocus V2, 2022, Section 4, in the published implementation's form.
    """

    def __init__(self, channels: int, map_size: int, hidden: int = 2048) -> None:
        super().__init__()
        self.encoder = state_encoder(channels, map_size, hidden, nn.Tanh)
        self.gru = nn.GRUCell(hidden, hidden)
        self.actor = nn.Linear(hidden, 2)

    def forward(self, maps: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """Actions [B, n, 2], (a_y, a_x) in (0, 1), float32 at least, and the state [B, 2048] after the last frame.

        Args:
            maps: [B, n, channels, F, F] of n frames.
            state: [B, 2048] after the frames before; None if there were none.
        """
        states = run_gru(self.gru, self.encoder(maps.flatten(0, 1)).unflatten(0, maps.shape[:2]), state)
        return at_least_float32(self.actor(states)).sigmoid(), states[:, -1]

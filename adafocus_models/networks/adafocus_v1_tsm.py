"""AdaFocus-TSM: one patch of fixed size per video, placed anywhere by a policy learned by reinforcement."""

from collections.abc import Mapping

from torch import Tensor, nn

from ..backbones import MobileNetV2, ResNet50
from ..exits import ExitLoop, Gate
from .adafocus_v1 import AdaFocusV1, published_policy
from .arguments import check_same_frames, map_side
from .checkpoints import beneath, published_layers
from .policies import at_least_float32, fixed_corners, state_encoder
from .video_model import Configuration, Decision, Output, VideoModel

# Figure 11, beside Table IV.
CONFIGURATIONS = tuple(
    Configuration(f"adafocus_v1_tsm_{size}_8+12", "adafocus_v1_tsm", {"patch_size": size}, "IV")
    for size in (144, 160, 176)
)


class AdaFocusV1TSM(VideoModel):
    """MobileNetV2-TSM glances at T0 whole frames; ResNet50-TSM sees one patch of P x P whole pixels in K others.

    Exit 0 is the mean over frames of a head on the glance's features, exit 1 that and the mean of a head on the
    focus's features.

    Args:
        num_classes: C; 174 in Something-Something V1 and V2.
        patch_size: P, a patch's side in frame pixels; 144, 160 or 176.
        num_glance_frames: T0.
        num_focus_frames: K.
        num_candidate_frames: None or K, since all of them are looked at.
        glance_encoder, focus_encoder: in the place of MobileNetV2 and ResNet50, modules from frames [M, 3, h, w] to
            maps [M, C, h / reduction, w / reduction] (rounded up), with attributes out_channels (C) and reduction.
            Frames come clip by clip.
        frame_size: S, a frame's side in pixels.
        policy_width: of the policy's state.

    Source: Wang et al., AdaFocus, 2021; Uni-AdaFocus, Figure 11.
    """

    num_exits = 2
    glances_apart = True
    picks_places = True
    stage_modules = {
        "glance": ("glance_encoder",),
        "policy": ("spatial_policy",),
        "focus": ("focus_encoder",),
        "head": ("glance_head", "focus_head"),
    }
    published_extras = AdaFocusV1.published_extras
    published_parts = AdaFocusV1.published_parts

    def __init__(
        self,
        num_classes: int = 174,
        patch_size: int = 144,
        num_glance_frames: int = 8,
        num_focus_frames: int = 12,
        num_candidate_frames: int | None = None,
        *,
        glance_encoder: nn.Module | None = None,
        focus_encoder: nn.Module | None = None,
        frame_size: int = 224,
        policy_width: int = 1024,
    ) -> None:
        check_same_frames(num_focus_frames, num_candidate_frames=num_candidate_frames)
        super().__init__(
            MobileNetV2(num_glance_frames) if glance_encoder is None else glance_encoder,
            ResNet50(num_focus_frames) if focus_encoder is None else focus_encoder,
            num_classes=num_classes,
            patch_size=patch_size,
            num_glance_frames=num_glance_frames,
            num_focus_frames=num_focus_frames,
            num_candidate_frames=num_focus_frames,
            frame_size=frame_size,
        )
        glance_channels, focus_channels = self.glance_encoder.out_channels, self.focus_encoder.out_channels
        map_size = map_side(frame_size, self.glance_encoder)
        self.spatial_policy = PlacePolicy(num_glance_frames * glance_channels, map_size, policy_width)
        self.glance_head = nn.Linear(glance_channels, num_classes)
        self.focus_head = nn.Linear(focus_channels, num_classes)

    def forward(self, frames: Tensor, glance_frames: Tensor | None = None, *, gate: Gate | None = None) -> Output:
        """Recognises B videos, as `VideoModel.forward` says: with two exits, boxes [B, 4] and uniform weights.

        Without glance_frames the glance sees the candidates 1 + i (N // T0) for i = 0..T0-1, the last one where that is
        beyond it.
        """
        self.check_inputs(frames, glance_frames)
        exits = ExitLoop(gate, self.num_exits)

        # A glance at whole frames, and exit 0.
        glance_index = self.pick_glance_frames(frames) if glance_frames is None else None  # [B, T0]
        glanced = frames if glance_frames is None else glance_frames
        whole = self.read_whole(glanced, glance_index, self.glance_encoder)  # [B * T0, 3, 224, 224]
        maps, features = self.glance(whole)  # [B, T0, 1280, 7, 7], [B, T0, 1280]
        exits.answer(self.early_head(features))  # [B, C]

        # A closer look at all videos, or at the B' that the gate sends on, and exit 1.
        maps, features = exits.keep(maps), exits.keep(features)  # [B', T0, 1280, 7, 7], [B', T0, 1280]
        decision = self.no_decision(exits) if exits.is_empty else self.policy(maps, features)
        if not exits.is_empty:
            patches = self.read_patches(frames, decision.boxes, decision.frame_index, exits.rows)  # [B' * K, 3, P, P]
            exits.answer(self.final_head(features, self.focus(patches)))  # [B', C]

        return self.output(exits, self.in_batch(exits, decision), glance_index)

    def glance(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Stage: maps [B, T0, 1280, 7, 7] and features [B, T0, 1280] of whole frames [B * T0, 3, 224, 224]."""
        maps = self.glance_encoder(frames).unflatten(0, (-1, self.num_glance_frames))
        return maps, maps.mean((-2, -1))

    def policy(self, maps: Tensor, features: Tensor) -> Decision:
        """Stage: where to look in all frames; one box a video.

        Args:
            maps, features: of the glance, [B, T0, 1280, 7, 7] and [B, T0, 1280].
        """
        action = self.spatial_policy(maps.flatten(1, 2))  # [B, 2]
        boxes = fixed_corners(action, self.frame_size, self.patch_size)  # [B, 4]
        return Decision(self.uniform_weights(features), self.all_candidates(maps), boxes)

    def focus(self, patches: Tensor) -> Tensor:
        """Stage: features [B, K, 2048] of patches [B * K, 3, P, P]."""
        maps = self.focus_encoder(patches).unflatten(0, (-1, self.num_focus_frames))  # [B, K, 2048, h, w]
        return maps.mean((-2, -1))

    def early_head(self, glance_features: Tensor) -> Tensor:
        """Stage: logits [B, C] of exit 0, from the glance's features [B, T0, 1280]."""
        return self.glance_head(glance_features).mean(1)

    def final_head(self, glance_features: Tensor, focus_features: Tensor) -> Tensor:
        """Stage: logits [B, C] of exit 1, from the features [B, T0, 1280] and [B, K, 2048] of both encoders."""
        return self.glance_head(glance_features).mean(1) + self.focus_head(focus_features).mean(1)

    def published_prefixes(self) -> Mapping[str, str]:
        # They number the parts of the focus encoder.
        numbers = {"conv1": "0", "bn1": "1", **{f"layer{i}": f"{i + 3}" for i in range(1, 5)}}
        shifted = {
            layer: ".".join([numbers[layer.partition(".")[0]], *published.split(".")[1:]])
            for layer, published in published_layers(self.focus_encoder).items()
        }
        return {
            **beneath("glance_encoder", "glancer.net", published_layers(self.glance_encoder)),
            "glance_head": "glancer.net.classifier",
            **beneath("focus_encoder", "focuser.net.base_model", numbers | shifted),
            "focus_head": "classifier",
            **published_policy("spatial_policy"),
        }


class PlacePolicy(nn.Module):
    """A place for the whole video: the mean of the distribution from which training draws.

    Source: Wang et al., AdaFocus, 2021, in the published implementation's form for TSM.
    """

    def __init__(self, channels: int, map_size: int, hidden: int = 1024) -> None:
        super().__init__()
        self.encoder = state_encoder(channels, map_size, hidden, nn.ReLU)
        self.gru = nn.GRUCell(hidden, hidden)  # of one step here
        self.actor = nn.Linear(hidden, 2)
        self.critic = nn.Linear(hidden, 1)  # of training alone

    def forward(self, maps: Tensor) -> Tensor:
        """Actions [B, 2], (a_y, a_x) in (0, 1), float32 at least, from maps [B, T0 * 1280, F, F]."""
        return self.act(maps)[0]

    def act(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """For training: actions as `forward` has them, and the critic's values [B]."""
        state = self.gru(self.encoder(maps))
        return at_least_float32(self.actor(state)).sigmoid(), self.critic(state)[:, 0]

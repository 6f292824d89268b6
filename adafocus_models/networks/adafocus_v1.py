"""AdaFocus: a patch of fixed size at one of 49 places in every frame, by a policy learned by reinforcement."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from adafocus_ops.checks import require

from ..backbones import MobileNetV2, ResNet50
from ..exits import ExitLoop, Gate
from .arguments import check_same_frames, map_side
from .checkpoints import beneath
from .policies import GRU_LAYERS, fixed_corners, run_gru
from .video_model import Configuration, Decision, Output, VideoModel

# Table III, beside Table II.
CONFIGURATIONS = tuple(
    Configuration(f"adafocus_v1_{size}_16", "adafocus_v1", {"patch_size": size}, "II") for size in (96, 128, 160)
)


class AdaFocusV1(VideoModel):
    """MobileNetV2 glances at every frame; ResNet50 sees one patch of P x P whole pixels in each.

    Exit k answers after frames 0 to k by a recurrent classifier on both encoders' features.

    Args:
        num_classes: C; 200 in ActivityNet.
        patch_size: P, a patch's side in frame pixels; 96, 128 or 160.
        num_focus_frames: K, of which there are K exits.
        num_glance_frames, num_candidate_frames: None or K, since the glance sees the same frames, and all of them.
        num_places: of a patch, equally spaced on a square; 25, 36, 49 or 64 in the published code.
        glance_encoder, focus_encoder: in the place of MobileNetV2 and ResNet50, modules from frames [M, 3, h, w] to
            maps [M, C, h / reduction, w / reduction] (rounded up), with attributes out_channels (C) and reduction.
        frame_size: S, a frame's side in pixels.
        policy_width: of the policy's state.
        head_width: of the head's state.

    Source: Wang et al., AdaFocus, 2021; Uni-AdaFocus, Table III and Figure 10.
    """

    num_exits = 16
    picks_places = True
    stage_modules = {
        "glance": ("glance_encoder",),
        "policy": ("spatial_policy",),
        "focus": ("focus_encoder",),
        "head": ("head",),
    }
    published_extras = ("focuser.policy.policy.",)  # a copy of the policy, of the step before the last in training
    published_parts = {
        "glancer": "glancer.",
        "focuser": "focuser.",
        "fc": "classifier.",
        "policy": "focuser.policy.policy_old.",
    }

    def __init__(
        self,
        num_classes: int = 200,
        patch_size: int = 128,
        num_glance_frames: int | None = None,
        num_focus_frames: int = 16,
        num_candidate_frames: int | None = None,
        num_places: int = 49,
        *,
        glance_encoder: nn.Module | None = None,
        focus_encoder: nn.Module | None = None,
        frame_size: int = 224,
        policy_width: int = 1024,
        head_width: int = 1024,
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
        require(
            patch_size <= self.frame_size,
            lambda: f"patch_size must be at most the frame's {self.frame_size}, got {patch_size}",
        )
        self.num_exits = num_focus_frames
        glance_channels, focus_channels = self.glance_encoder.out_channels, self.focus_encoder.out_channels
        map_size = map_side(frame_size, self.glance_encoder)
        self.spatial_policy = GridPolicy(glance_channels, map_size, num_places, policy_width)
        self.head = RecurrentHead(glance_channels + focus_channels, num_classes, head_width)
        # Of the first stage of training, in which each encoder learns for itself.
        self.glance_aux_head = nn.Linear(glance_channels, num_classes)
        self.focus_aux_head = nn.Linear(focus_channels, num_classes)

    def forward(self, frames: Tensor, glance_frames: Tensor | None = None, *, gate: Gate | None = None) -> Output:
        """Recognises B videos, as `VideoModel.forward` says: with K exits, boxes [B, K, 4] and uniform weights.

        Without glance_frames the glance sees all K candidates. With a gate, frames go through all
        stages one after the other, else stage by stage.
        """
        self.check_inputs(frames, glance_frames)
        exits = ExitLoop(gate, self.num_exits, frames)
        glanced, all_frames = frames if glance_frames is None else glance_frames, self.all_candidates(frames)
        policy_state = head_state = None  # [B', 1024] each
        looked: list[Tensor] = []  # boxes [B, n, 4]

        # A glance at a frame, and a closer look at a patch of it, and an exit; or n frames at once.
        for steps in exits.steps(self.num_focus_frames):
            index = all_frames[exits.rows, steps]  # [B', n]
            whole = self.read_whole(glanced, index, self.glance_encoder, videos=exits.rows)  # [B' * n, 3, 224, 224]
            maps, features = (x.unflatten(0, index.shape) for x in self.glance(whole))  # [B', n, 1280, 7, 7]
            decision = self.policy(maps, index, policy_state)  # boxes [B', n, 4]
            looked.append(exits.in_batch(decision.boxes, torch.nan))
            patches = self.read_patches(frames, decision.boxes, index, exits.rows)  # [B' * n, 3, P, P]
            seen = self.focus(patches).unflatten(0, index.shape)  # [B', n, 2048]
            logits, head_state = self.final_head(features, seen, head_state)  # [B', n, C], [B', 1024]
            exits.answer_each(logits)
            policy_state, head_state = exits.keep(decision.state), exits.keep(head_state)

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
        """Stage: where to look in n more frames: the likeliest place.

        Args:
            maps: of the glance at these frames, [B', n, 1280, 7, 7].
            frame_index: [B', n].
            state: [B', 1024] after the frames before; None if there were none.
        """
        scores, state = self.spatial_policy(maps, state)  # [B', n, 49], [B', 1024]
        boxes = fixed_corners(self.spatial_policy.actions(scores.argmax(2)), self.frame_size, self.patch_size)
        return Decision(self.uniform_weights(maps), frame_index, boxes, state)

    def focus(self, patches: Tensor) -> Tensor:
        """Stage: features [M, 2048] of patches [M, 3, P, P], each for itself."""
        return self.focus_encoder(patches).mean((-2, -1))

    def final_head(
        self, glance_features: Tensor, focus_features: Tensor, state: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Stage: the logits [B', n, C] after each of n more frames, and the state [B', 1024] after all of them.

        Args:
            glance_features, focus_features: [B', n, 1280] and [B', n, 2048] of these frames.
            state: [B', 1024] after the frames before; None if there were none.
        """
        return self.head(torch.cat([glance_features, focus_features], 2), state)

    def published_prefixes(self) -> Mapping[str, str]:
        return {
            "glance_encoder": "glancer.net",  # in torchvision's names
            "glance_aux_head": "glancer.net.classifier.1",
            "focus_encoder": "focuser.net",
            "focus_aux_head": "focuser.net.fc",
            **published_policy("spatial_policy"),
            "head": "classifier",
            **beneath("head.gru", "classifier.gru", GRU_LAYERS),
        }


class GridPolicy(nn.Module):
    """One of n x n places in every frame, from its glance and those before it.

    Source: Wang et al., AdaFocus, 2021, Section 3.2, in the published implementation's form.
    """

    width = 32

    def __init__(self, channels: int, map_size: int, num_places: int, hidden: int = 1024) -> None:
        super().__init__()
        self.side = round(num_places**0.5)
        require(
            self.side**2 == num_places and num_places >= 4,
            lambda: f"num_places must be 4, 9, 16, 25, ..., got {num_places}",
        )
        self.encoder = nn.Sequential(
            nn.Conv2d(channels, self.width, 1, bias=False),
            nn.ReLU(inplace=True),
            nn.Flatten(),
            nn.Linear(self.width * map_size**2, hidden),
            nn.ReLU(inplace=True),
        )
        self.gru = nn.GRUCell(hidden, hidden)
        self.actor = nn.Linear(hidden, num_places)
        self.critic = nn.Linear(hidden, 1)  # of training alone

    def forward(self, maps: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """Scores [B, n, places], whose softmax are the probabilities, and the state [B, 1024] after the last frame.

        Args:
            maps: [B, n, channels, F, F] of n frames.
            state: [B, 1024] after the frames before; None if there were none.
        """
        states = self._states(maps, state)
        return self.actor(states), states[:, -1]

    def act(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """For training: scores [B, n, places] and the critic's values [B, n], of whole videos' maps."""
        states = self._states(maps, None)
        return self.actor(states), self.critic(states)[..., 0]

    def _states(self, maps: Tensor, state: Tensor | None) -> Tensor:
        return run_gru(self.gru, self.encoder(maps.flatten(0, 1)).unflatten(0, maps.shape[:2]), state)

    def actions(self, places: Tensor) -> Tensor:
        """[..., 2] float32: the fractions (a_y, a_x) of their way at which the places [...] lie, row by row."""
        row, column = places.div(self.side, rounding_mode="floor"), places % self.side
        return torch.stack([row, column], -1).float() / (self.side - 1)


class RecurrentHead(nn.Module):
    """A GRU and a linear layer on its state after every frame.

    Source: Wang et al., AdaFocus, 2021, Section 3.1.
    """

    def __init__(self, channels: int, num_classes: int, hidden: int = 1024) -> None:
        super().__init__()
        self.gru = nn.GRUCell(channels, hidden)
        self.fc = nn.Linear(hidden, num_classes)

    def forward(self, features: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """Logits [B, n, C] and the state [B, 1024] after the last frame, of features [B, n, channels]."""
        states = run_gru(self.gru, features, state)
        return self.fc(states), states[:, -1]


def published_policy(ours: str) -> dict[str, str]:
    """Names of the parts of AdaFocus's policies, of which the published code acts by the "old" one."""
    theirs = "focuser.policy.policy_old"
    return {
        f"{ours}.encoder": f"{theirs}.state_encoder",
        **beneath(f"{ours}.gru", f"{theirs}.gru", GRU_LAYERS),
        f"{ours}.actor": f"{theirs}.actor.0",
        f"{ours}.critic": f"{theirs}.critic.0",
    }

"""TSM+: the baseline that sees K whole frames where Uni-AdaFocus-TSM sees patches."""

import torch
from torch import Tensor, nn

from adafocus_ops.checks import require

from ..backbones import MobileNetV2, ResNet50
from .video_model import Configuration, Output, PaperFigures, VideoModel

# Table IV.
CONFIGURATIONS = (Configuration("tsm_plus_8+8", "tsm_plus", table="IV", paper=PaperFigures(35.1, 218.2)),)


class TSMPlus(VideoModel):
    """MobileNetV2-TSM and ResNet50-TSM on whole frames, their features concatenated into a linear layer.

    Args:
        num_classes: C; 174 in Something-Something V1 and V2.
        num_glance_frames, num_focus_frames: T0 == K, since features are concatenated frame by frame. The
            candidates are the K frames, and what the focus encoder sees of them is all 224 x 224 pixels.
        glance_encoder, focus_encoder: in the place of MobileNetV2 and ResNet50, modules from frames [M, 3, h, w] to
            maps [M, C, h / reduction, w / reduction] (rounded up), with attributes out_channels (C) and reduction.
            Frames come clip by clip.
        frame_size: S, a frame's side in pixels.

    Source: Uni-AdaFocus, Section 5 (Table IV) and Appendix H.1.
    """

    stage_modules = {"glance": ("glance_encoder",), "focus": ("focus_encoder",), "head": ("classifier",)}

    def __init__(
        self,
        num_classes: int = 174,
        num_glance_frames: int = 8,
        num_focus_frames: int = 8,
        *,
        glance_encoder: nn.Module | None = None,
        focus_encoder: nn.Module | None = None,
        frame_size: int = 224,
    ) -> None:
        super().__init__(
            MobileNetV2(num_glance_frames) if glance_encoder is None else glance_encoder,
            ResNet50(num_focus_frames) if focus_encoder is None else focus_encoder,
            num_classes=num_classes,
            patch_size=frame_size,
            num_glance_frames=num_glance_frames,
            num_focus_frames=num_focus_frames,
            num_candidate_frames=num_focus_frames,
            frame_size=frame_size,
        )
        require(
            num_focus_frames == num_glance_frames,
            lambda: f"num_focus_frames must equal num_glance_frames={num_glance_frames}, got {num_focus_frames}",
        )
        channels = self.glance_encoder.out_channels + self.focus_encoder.out_channels
        self.dropout = nn.Dropout(0.0)  # of the features
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, frames: Tensor, glance_frames: Tensor | None = None, *, gate: None = None) -> Output:
        """Recognises B videos, as `VideoModel.forward` says: boxes [B, 4] are whole frames, weights uniform.

        Without glance_frames the glance sees the candidates: segment i's centre, floor((i + 1/2) K / T0), is frame i
        for T0 == K.
        """
        require(gate is None, lambda: "gate must be None: this model has one exit")
        self.check_inputs(frames, glance_frames)

        glance_index = self.all_candidates(frames) if glance_frames is None else None  # [B, T0]
        glanced = frames if glance_frames is None else glance_frames
        whole = self.read_whole(glanced, glance_index, self.glance_encoder)  # [B * T0, 3, 224, 224]
        glance_features = self.glance(whole)  # [B, T0, 1280]
        patches = self.read_whole(frames, None, self.focus_encoder)  # [B * K, 3, 224, 224]
        focus_features = self.focus(patches)  # [B, K, 2048]
        logits = self.final_head(glance_features, focus_features)  # [B, C]
        return self.whole_frames_output(logits, frames, glance_index)

    def glance(self, frames: Tensor) -> Tensor:
        """Stage: features [B, T0, 1280] of whole frames [B * T0, 3, 224, 224]."""
        maps = self.glance_encoder(frames).unflatten(0, (-1, self.num_glance_frames))  # [B, T0, 1280, 7, 7]
        return self.dropout(maps.mean((-2, -1)))

    def focus(self, patches: Tensor) -> Tensor:
        """Stage: features [B, K, 2048] of whole frames [B * K, 3, 224, 224]."""
        maps = self.focus_encoder(patches).unflatten(0, (-1, self.num_focus_frames))  # [B, K, 2048, 7, 7]
        return self.dropout(maps.mean((-2, -1)))

    def final_head(self, glance_features: Tensor, focus_features: Tensor) -> Tensor:
        """Stage: logits [B, C] from features [B, T0, 1280] and [B, K, 2048]."""
        return self.classifier(torch.cat([glance_features, focus_features], 2)).mean(1)

"""TSM+: the baseline that sees K whole frames where Uni-AdaFocus-TSM sees patches."""

import torch
from torch import Tensor, nn

from adafocus_ops.checks import require

from ..backbones.mobilenet_v2 import MobileNetV2
from ..backbones.resnet import ResNet50
from .video_model import Output, VideoModel


class TSMPlus(VideoModel):
    """MobileNetV2-TSM and ResNet50-TSM on whole frames, their features concatenated into a linear layer.

    Args:
        num_classes: C; 174 in Something-Something V1 and V2.
        num_glance_frames, num_focus_frames: T0 == K, since features are concatenated frame by frame. The
            candidates are the K frames, and what the focus encoder sees of them is all 224 x 224 pixels.

    Source: Uni-AdaFocus, Section 5 (Table IV) and Appendix H.1.
    """

    stage_modules = {"glance": ("glance_encoder",), "focus": ("focus_encoder",), "head": ("classifier",)}

    def __init__(self, num_classes: int = 174, num_glance_frames: int = 8, num_focus_frames: int = 8) -> None:
        super().__init__(
            MobileNetV2(num_glance_frames),
            ResNet50(num_focus_frames),
            num_classes=num_classes,
            patch_size=self.frame_size,
            num_glance_frames=num_glance_frames,
            num_focus_frames=num_focus_frames,
            num_candidate_frames=num_focus_frames,
        )
        require(
            num_focus_frames == num_glance_frames,
            lambda: f"num_focus_frames must equal num_glance_frames={num_glance_frames}, got {num_focus_frames}",
        )
        channels = self.glance_encoder.out_channels + self.focus_encoder.out_channels
        self.classifier = nn.Linear(channels, num_classes)

    def head(self, glance_features: Tensor, focus_features: Tensor) -> Tensor:
        """Stage: logits [B, C] from features [B, T0, 1280] and [B, K, 2048]."""
        return self.classifier(torch.cat([glance_features, focus_features], 2)).mean(1)

    def forward(self, frames: Tensor, glance_frames: Tensor | None = None, *, gate: None = None) -> Output:
        """Recognises B videos.

        Args:
            frames: [B, K, 3, 224, 224], uint8 (0 to 255, normalised inside by ImageNet's mean and standard
                deviation) or floating point (already normalised). Any strides, read in place.
            glance_frames: [B, T0, 3, 224, 224] likewise, where they are sampled apart; None takes the same
                frames, since segment i's centre, floor((i + 1/2) K / T0), is frame i for T0 == K.
            gate: None; there is one exit.

        Returns:
            Output with one exit; frame_index is 0..K-1, boxes are whole frames, weights are uniform.

        Gradients: to all weights and to floating-point frames.

        Raises:
            TypeError, ValueError: an input of another type or shape.
        """
        require(gate is None, lambda: "gate must be None: this model has one exit")
        self._check_inputs(frames, glance_frames)
        _, features, glance_index = self._glance_at(frames, glance_frames)
        patches = self._read_whole(frames, None, self.focus_encoder)
        logits = self.head(features, self.focus(patches))

        videos, device = logits.shape[0], logits.device
        frame_index = torch.arange(self.num_focus_frames, device=device).expand(videos, -1)
        weights = torch.full((videos, self.num_glance_frames), 1 / self.num_glance_frames, device=device)
        boxes = self._full_frames(videos, device)
        return Output(logits, logits[:, None], frame_index, boxes, weights, glance_index)

    def _glance_positions(self, device: torch.device) -> Tensor:
        return torch.arange(self.num_glance_frames, device=device)

"""TSM: the baseline that sees K whole frames with ResNet50-TSM alone."""

from collections.abc import Mapping

from torch import Tensor, nn

from adafocus_ops.checks import require

from ..backbones import ResNet50
from .checkpoints import beneath, published_layers
from .video_model import Configuration, Output, PaperFigures, VideoModel

# Table IV.
CONFIGURATIONS = (Configuration("tsm_8", "tsm", table="IV", paper=PaperFigures(32.7)),)


class TSM(VideoModel):
    """ResNet50-TSM on whole frames, a linear layer on the features of each, and the mean of its answers.

    Args:
        num_classes: C; 174 in Something-Something V1 and V2.
        num_focus_frames: K, which are the candidates.
        focus_encoder: in the place of ResNet50, a module from frames [M, 3, h, w] to maps
            maps [M, C, h / reduction, w / reduction] (rounded up), with attributes out_channels (C) and reduction.
            Frames come clip by clip.
        frame_size: S, a frame's side in pixels.

    Source: Lin et al., TSM, 2019; Uni-AdaFocus, Table IV.
    """

    stage_modules = {"focus": ("focus_encoder",), "head": ("classifier",)}

    def __init__(
        self,
        num_classes: int = 174,
        num_focus_frames: int = 8,
        *,
        focus_encoder: nn.Module | None = None,
        frame_size: int = 224,
    ) -> None:
        super().__init__(
            None,
            ResNet50(num_focus_frames) if focus_encoder is None else focus_encoder,
            num_classes=num_classes,
            patch_size=frame_size,
            num_glance_frames=0,
            num_focus_frames=num_focus_frames,
            num_candidate_frames=num_focus_frames,
            frame_size=frame_size,
        )
        self.dropout = nn.Dropout(0.0)  # of the features
        self.classifier = nn.Linear(self.focus_encoder.out_channels, num_classes)

    def forward(self, frames: Tensor, glance_frames: None = None, *, gate: None = None) -> Output:
        """Recognises B videos, as `VideoModel.forward` says: boxes [B, 4] are whole frames, weights are [B, 0]."""
        require(gate is None, lambda: "gate must be None: this model has one exit")
        self.check_inputs(frames, glance_frames)
        patches = self.read_whole(frames, None, self.focus_encoder)  # [B * K, 3, 224, 224]
        logits = self.final_head(self.focus(patches))  # [B, C]
        return self.whole_frames_output(logits, frames, None)

    def focus(self, patches: Tensor) -> Tensor:
        """Stage: features [B, K, 2048] of whole frames [B * K, 3, 224, 224]."""
        maps = self.focus_encoder(patches).unflatten(0, (-1, self.num_focus_frames))  # [B, K, 2048, 7, 7]
        return self.dropout(maps.mean((-2, -1)))

    def final_head(self, features: Tensor) -> Tensor:
        """Stage: logits [B, C] from features [B, K, 2048]."""
        return self.classifier(features).mean(1)

    def published_prefixes(self) -> Mapping[str, str]:
        return {
            **beneath("focus_encoder", "base_model", published_layers(self.focus_encoder)),
            "classifier": "new_fc",
        }

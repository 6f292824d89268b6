"""X3D-S, X3D-M and X3D-L: the baselines of Uni-AdaFocus-X3D."""

from collections.abc import Mapping

from torch import Tensor

from adafocus_ops.checks import require

from ..backbones import X3D
from .checkpoints import beneath
from .heads import ClipHead
from .video_model import Configuration, Output, PaperFigures, VideoModel

# Table V, a view.
CONFIGURATIONS = (
    Configuration("x3d_s_13", "x3d_s", table="V", paper=PaperFigures(2.0)),
    Configuration("x3d_m_16", "x3d_m", table="V", paper=PaperFigures(4.7)),
    Configuration("x3d_l_16", "x3d_l", table="V", paper=PaperFigures(18.4)),
)


class X3DClassifier(VideoModel):
    """An X3D on K whole frames, all of whose features are pooled before its classifier.

    Args:
        num_classes: C; 400 in Kinetics-400.
        num_focus_frames: K, which are the candidates.

    Source: Feichtenhofer, X3D, 2020, in SlowFast's form, without its softmax; Uni-AdaFocus, Table V.
    """

    size: str  # of the encoder
    stage_modules = {"focus": ("focus_encoder",), "head": ("classifier",)}

    def __init__(self, num_classes: int, num_focus_frames: int) -> None:
        super().__init__(
            None,
            X3D(self.size, num_focus_frames),
            num_classes=num_classes,
            patch_size=self.frame_size,
            num_glance_frames=0,
            num_focus_frames=num_focus_frames,
            num_candidate_frames=num_focus_frames,
        )
        self.classifier = ClipHead(self.focus_encoder.out_channels, num_classes)

    def forward(self, frames: Tensor, glance_frames: None = None, *, gate: None = None) -> Output:
        """Recognises B videos, as `VideoModel.forward` says: boxes [B, 4] are whole frames, weights are [B, 0]."""
        require(gate is None, lambda: "gate must be None: this model has one exit")
        self.check_inputs(frames, glance_frames)
        patches = self.read_whole(frames, None, self.focus_encoder)  # [B * K, 3, S, S]
        logits = self.final_head(self.focus(patches))  # [B, C]
        return self.whole_frames_output(logits, frames, None)

    def focus(self, patches: Tensor) -> Tensor:
        """Stage: features [B, K, 432] of whole frames [B * K, 3, S, S]."""
        maps = self.focus_encoder(patches).unflatten(0, (-1, self.num_focus_frames))  # [B, K, 432, h, w]
        return maps.mean((-2, -1))

    def final_head(self, features: Tensor) -> Tensor:
        """Stage: logits [B, C] from features [B, K, 432]."""
        return self.classifier(features)

    def published_prefixes(self) -> Mapping[str, str]:
        return {**beneath("focus_encoder", "", self.focus_encoder.published_layers()), "classifier": "head"}


class X3DS(X3DClassifier):
    """X3D-S, on 13 frames of 160 pixels."""

    size, frame_size = "s", 160

    def __init__(self, num_classes: int = 400, num_focus_frames: int = 13) -> None:
        super().__init__(num_classes, num_focus_frames)


class X3DM(X3DClassifier):
    """X3D-M: the layers of X3D-S, on 16 frames of 224 pixels."""

    size, frame_size = "m", 224

    def __init__(self, num_classes: int = 400, num_focus_frames: int = 16) -> None:
        super().__init__(num_classes, num_focus_frames)


class X3DL(X3DClassifier):
    """X3D-L, on 16 frames of 312 pixels."""

    size, frame_size = "l", 312

    def __init__(self, num_classes: int = 400, num_focus_frames: int = 16) -> None:
        super().__init__(num_classes, num_focus_frames)

"""Networks with encoders of one layer: thousands of videos in seconds, through the networks' own forwards."""

import inspect
import sys
from functools import cache

import torch
from oracle_models import SMALL, fill
from torch import Tensor, nn

from adafocus_models import VideoModel, architectures, create_model

CHANNELS, REDUCTION = 6, 32


class TinyEncoder(nn.Module):
    """One convolution; with num_frames, each frame sees those before it, of its own clip alone."""

    out_channels, reduction = CHANNELS, REDUCTION

    def __init__(self, *arguments: str | int) -> None:
        super().__init__()
        numbers = [argument for argument in arguments if isinstance(argument, int)]
        self.num_frames = numbers[-1] if numbers else None
        self.conv = nn.Conv2d(3, CHANNELS, REDUCTION, REDUCTION)

    def forward(self, frames: Tensor) -> Tensor:
        maps = self.conv(frames).tanh()
        if self.num_frames is None:
            return maps
        clips = maps.unflatten(0, (-1, self.num_frames))
        return (clips.cumsum(1) / self.num_frames).flatten(0, 1)

    def published_layers(self) -> dict[str, str]:
        return {}


@cache
def tiny(architecture: str, num_classes: int = 5) -> VideoModel:
    """A network of `SMALL` sizes, whose logits are large enough for videos to differ; not to be changed."""
    module = sys.modules[architectures()[architecture].__module__]
    encoders = {name: getattr(module, name) for name in ("MobileNetV2", "ResNet50", "X3D") if hasattr(module, name)}
    try:
        for name in encoders:
            setattr(module, name, TinyEncoder)
        model = fill(create_model(architecture, num_classes=num_classes, **SMALL[architecture]))
    finally:
        for name, encoder in encoders.items():
            setattr(module, name, encoder)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 2 and weight.shape[0] == num_classes:  # of a head
                weight.mul_(5)
    return model.float()


def fresh(architecture: str, num_classes: int = 5, seed: int = 0) -> VideoModel:
    """A network of `SMALL` sizes as it is before training, of small frames, narrow heads and policies; in training
    mode."""
    sizes = SMALL[architecture]
    clips = any(part in architecture for part in ("tsm", "x3d"))  # whose encoders see whole clips
    parameters = inspect.signature(architectures()[architecture]).parameters
    counts = {
        "glance_encoder": sizes.get("num_glance_frames", sizes["num_focus_frames"]),
        "focus_encoder": sizes["num_focus_frames"],
    }
    torch.manual_seed(seed)
    encoders = {name: TinyEncoder(*([count] if clips else [])) for name, count in counts.items() if name in parameters}
    small = {"policy_width": 8, "head_width": 8, "frame_size": 64, "glance_size": 64}
    small = {name: value for name, value in small.items() if name in parameters}
    return create_model(architecture, num_classes=num_classes, **sizes, **encoders, **small)


def tiny_clips(model: VideoModel, videos: int, seed: int = 0) -> tuple[Tensor, Tensor | None]:
    """Frames [videos, N, 3, S, S] and glance frames of smooth noise, as bytes: edges would make much of a rounding."""
    generator = torch.Generator().manual_seed(seed)

    def clips(count: int) -> Tensor:
        coarse = torch.rand(videos * count, 3, 4, 4, generator=generator) * 255
        size = (model.frame_size,) * 2
        fine = nn.functional.interpolate(coarse, size=size, mode="bilinear").to(torch.uint8)
        return fine.unflatten(0, (videos, count))

    return clips(model.num_candidate_frames), clips(model.num_glance_frames) if model.has_glance else None

"""MobileNetV2 without its classifier, with TSM's temporal shift; the glance encoder."""

from torch import Tensor, nn

from adafocus_ops import temporal_shift

# (expansion, channels, blocks, stride of the first block), in order.
BLOCKS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class ConvBNReLU(nn.Sequential):
    """A convolution that keeps the size (divided by its stride), batch normalisation and ReLU6."""

    def __init__(self, channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(
            nn.Conv2d(channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU6(inplace=True),
        )


class InvertedResidual(nn.Module):
    """Expansion (1x1), depthwise 3x3 and linear projection (1x1), with a skip where the shapes allow it.

    Args:
        num_frames: frames of a clip that the shift before the expansion acts on; 0 for none. A block
            without expansion or skip is never shifted.
    """

    def __init__(self, channels: int, out_channels: int, stride: int, expansion: int, num_frames: int = 0) -> None:
        super().__init__()
        hidden = channels * expansion
        self.skip = stride == 1 and channels == out_channels
        self.num_frames = num_frames if self.skip and expansion > 1 else 0
        layers = [ConvBNReLU(channels, hidden, 1)] if expansion > 1 else []
        layers += [
            ConvBNReLU(hidden, hidden, 3, stride, groups=hidden),
            nn.Conv2d(hidden, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
        ]
        self.conv = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:  # [B * T, channels, H, W]
        shifted = temporal_shift(x, self.num_frames) if self.num_frames else x
        out = self.conv(shifted)
        return out.add_(x) if self.skip else out


class MobileNetV2(nn.Module):
    """The convolutional part of MobileNetV2 (width 1); torchvision's names in the state dict.

    Args:
        num_frames: frames of a clip. The temporal shift then precedes the expansion of every block that
            has both an expansion and a skip. 0 leaves frames independent of each other.

    Source: Uni-AdaFocus, Appendix H.1.
    """

    out_channels = 1280
    reduction = 32  # of height and width

    def __init__(self, num_frames: int = 0) -> None:
        super().__init__()
        channels = 32
        features: list[nn.Module] = [ConvBNReLU(3, channels, 3, stride=2)]
        for expansion, out_channels, blocks, first_stride in BLOCKS:
            for i in range(blocks):
                stride = first_stride if i == 0 else 1
                features.append(InvertedResidual(channels, out_channels, stride, expansion, num_frames))
                channels = out_channels
        features.append(ConvBNReLU(channels, self.out_channels, 1))
        self.features = nn.Sequential(*features)

    def forward(self, frames: Tensor) -> Tensor:
        """Feature maps [B * T, 1280, H / 32, W / 32] of normalised frames [B * T, 3, H, W]."""
        return self.features(frames)

    def published_layers(self) -> dict[str, str]:
        """Layer -> its name in published checkpoints, for the layers that are called otherwise there.

        They number the layers of a block flatly, and put a convolution that the shift precedes into a wrapper "net".
        """
        names = {}
        for i, block in enumerate(self.features[1:-1], start=1):
            leaves = [name for name, child in block.conv.named_modules() if not any(child.children())]
            for position, leaf in enumerate(leaves):
                wrapper = ".net" if position == 0 and block.num_frames else ""
                names[f"features.{i}.conv.{leaf}"] = f"features.{i}.conv.{position}{wrapper}"
        return names

"""ResNet-50 without its classifier, with TSM's temporal shift; the focus encoder."""

from torch import Tensor, nn

from adafocus_ops import temporal_shift

# (width, blocks, stride of the first block), in order.
LAYERS = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))
EXPANSION = 4


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolution with a skip, which is projected where the shape changes.

    Args:
        num_frames: frames of a clip that the shift before conv1 (not before the skip) acts on; 0 for none.
    """

    def __init__(self, channels: int, width: int, stride: int, num_frames: int = 0) -> None:
        super().__init__()
        out_channels = width * EXPANSION
        self.num_frames = num_frames
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or channels != out_channels:
            projection = nn.Conv2d(channels, out_channels, 1, stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(out_channels))

    def forward(self, x: Tensor) -> Tensor:  # [B * T, channels, H, W]
        skip = x if self.downsample is None else self.downsample(x)
        shifted = temporal_shift(x, self.num_frames) if self.num_frames else x
        out = self.relu(self.bn1(self.conv1(shifted)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return self.relu(out.add_(skip))


class ResNet50(nn.Module):
    """The convolutional part of ResNet-50; torchvision's names in the state dict.

    Args:
        num_frames: frames of a clip. The temporal shift then precedes conv1 of every bottleneck
            ("blockres"). 0 leaves frames independent of each other.

    Source: Uni-AdaFocus, Appendix H.1.
    """

    out_channels = 2048
    reduction = 32  # of height and width

    def __init__(self, num_frames: int = 0) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        channels = 64
        for number, (width, blocks, stride) in enumerate(LAYERS, start=1):
            layer = [Bottleneck(channels, width, stride, num_frames)]
            channels = width * EXPANSION
            layer += [Bottleneck(channels, width, 1, num_frames) for _ in range(blocks - 1)]
            self.add_module(f"layer{number}", nn.Sequential(*layer))

    def forward(self, frames: Tensor) -> Tensor:
        """Feature maps [B * T, 2048, H / 32, W / 32] of normalised frames [B * T, 3, H, W]."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(frames))))
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))

    def published_layers(self) -> dict[str, str]:
        """Layer -> its name in published checkpoints, for the layers that are called otherwise there.

        They put a convolution that the shift precedes into a wrapper "net".
        """
        layers = [f"layer{number}" for number in range(1, 1 + len(LAYERS))]
        blocks = [
            f"{layer}.{i}" for layer in layers for i, block in enumerate(getattr(self, layer)) if block.num_frames
        ]
        return {f"{block}.conv1": f"{block}.conv1.net" for block in blocks}

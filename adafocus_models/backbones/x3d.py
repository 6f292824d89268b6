"""X3D without its classifier: three-dimensional convolutions over clips; the encoders of Uni-AdaFocus-X3D."""

from torch import Tensor, nn

from adafocus_ops import depthwise_conv3d

# Size -> blocks of s2 to s5.
BLOCKS = {"s": (3, 5, 11, 7), "m": (3, 5, 11, 7), "l": (5, 10, 25, 15)}
CHANNELS = (24, 48, 96, 192)  # of s2 to s5
STEM_CHANNELS = 24
BOTTLENECK = 2.25  # channels within a block, times those around it
SQUEEZE = 16  # times fewer channels in the middle of a squeeze and excitation


class X3D(nn.Module):
    """The convolutional part of X3D-S, X3D-M (the same layers, for larger frames) or X3D-L; SlowFast's names.

    Args:
        size: "s", "m" or "l".
        num_frames: T of a clip, all of which every map depends on.

    Source: Uni-AdaFocus, Appendix H.1; Feichtenhofer, X3D, 2020, in SlowFast's form.
    """

    out_channels = 432
    reduction = 32  # of height and width; time is kept

    def __init__(self, size: str, num_frames: int) -> None:
        super().__init__()
        self.num_frames = num_frames
        self.s1 = Stem()
        channels = STEM_CHANNELS
        for stage, (out_channels, blocks) in enumerate(zip(CHANNELS, BLOCKS[size], strict=True), start=2):
            self.add_module(f"s{stage}", Stage(channels, out_channels, blocks))
            channels = out_channels
        self.head = Widening(channels, self.out_channels)

    def forward(self, frames: Tensor) -> Tensor:
        """Feature maps [B * T, 432, H / 32, W / 32], rounded up, of normalised frames [B * T, 3, H, W]."""
        x = frames.unflatten(0, (-1, self.num_frames)).transpose(1, 2)  # [B, 3, T, H, W]
        x = self.head(self.s5(self.s4(self.s3(self.s2(self.s1(x))))))  # [B, 432, T, h, w]
        return x.transpose(1, 2).flatten(0, 1)

    def published_layers(self) -> dict[str, str]:
        """Layer -> its name in published checkpoints, for the layers that are called otherwise there: none."""
        return {}


class Stem(nn.Module):
    """s1: a convolution in space, one along time for each channel, normalisation and ReLU."""

    def __init__(self) -> None:
        super().__init__()
        stem = nn.Module()
        stem.conv_xy = nn.Conv3d(3, STEM_CHANNELS, (1, 3, 3), (1, 2, 2), (0, 1, 1), bias=False)
        stem.conv = Depthwise(STEM_CHANNELS, (5, 1, 1))
        stem.bn = nn.BatchNorm3d(STEM_CHANNELS)
        self.pathway0_stem = stem
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:  # [B, 3, T, H, W]
        stem = self.pathway0_stem
        return self.relu(stem.bn(stem.conv(stem.conv_xy(x))))


class Stage(nn.Module):
    """Blocks of one width, of which the first halves height and width; every other one weighs its channels."""

    def __init__(self, channels: int, out_channels: int, blocks: int) -> None:
        super().__init__()
        for i in range(blocks):
            block = Block(channels if i == 0 else out_channels, out_channels, 2 if i == 0 else 1, weighed=i % 2 == 0)
            self.add_module(f"pathway0_res{i}", block)

    def forward(self, x: Tensor) -> Tensor:  # [B, channels, T, H, W]
        for block in self.children():
            x = block(x)
        return x


class Block(nn.Module):
    """A bottleneck with a skip, which is projected where the shape changes."""

    def __init__(self, channels: int, out_channels: int, stride: int, weighed: bool) -> None:
        super().__init__()
        self.branch1 = None
        if stride != 1 or channels != out_channels:
            self.branch1 = nn.Conv3d(channels, out_channels, 1, (1, stride, stride), bias=False)
            self.branch1_bn = nn.BatchNorm3d(out_channels)
        self.branch2 = Bottleneck(channels, out_channels, stride, weighed)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:  # [B, channels, T, H, W]
        skip = x if self.branch1 is None else self.branch1_bn(self.branch1(x))
        return self.relu(self.branch2(x).add_(skip))


class Bottleneck(nn.Module):
    """1x1x1, depthwise 3x3x3 and 1x1x1 convolution, the middle one with or without squeeze and excitation."""

    def __init__(self, channels: int, out_channels: int, stride: int, weighed: bool) -> None:
        super().__init__()
        hidden = int(out_channels * BOTTLENECK)
        self.a = nn.Conv3d(channels, hidden, 1, bias=False)
        self.a_bn = nn.BatchNorm3d(hidden)
        self.a_relu = nn.ReLU(inplace=True)
        self.b = Depthwise(hidden, (3, 3, 3), stride)
        self.b_bn = nn.BatchNorm3d(hidden)
        self.se = SqueezeExcitation(hidden) if weighed else nn.Identity()
        self.b_relu = nn.SiLU(inplace=True)
        self.c = nn.Conv3d(hidden, out_channels, 1, bias=False)
        self.c_bn = nn.BatchNorm3d(out_channels)

    def forward(self, x: Tensor) -> Tensor:  # [B, channels, T, H, W]
        x = self.a_relu(self.a_bn(self.a(x)))
        x = self.b_relu(self.se(self.b_bn(self.b(x))))
        return self.c_bn(self.c(x))


class SqueezeExcitation(nn.Module):
    """Every channel times a weight in (0, 1) that depends on the means of all."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        middle = rounded_width(channels / SQUEEZE)
        self.fc1 = nn.Conv3d(channels, middle, 1)
        self.relu = nn.ReLU(inplace=True)
        self.fc2 = nn.Conv3d(middle, channels, 1)

    def forward(self, x: Tensor) -> Tensor:  # [B, channels, T, H, W]
        weights = self.fc2(self.relu(self.fc1(x.mean((2, 3, 4), keepdim=True)))).sigmoid()  # [B, channels, 1, 1, 1]
        return x * weights


class Widening(nn.Module):
    """conv_5 of SlowFast's head: the last convolution before pooling."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv_5 = nn.Conv3d(channels, out_channels, 1, bias=False)
        self.conv_5_bn = nn.BatchNorm3d(out_channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:  # [B, channels, T, h, w]
        return self.relu(self.conv_5_bn(self.conv_5(x)))


class Depthwise(nn.Conv3d):
    """A convolution of every channel with a filter of its own, which keeps the size (divided by its stride)."""

    def __init__(self, channels: int, kernel: tuple[int, int, int], stride: int = 1) -> None:
        padding = tuple(k // 2 for k in kernel)
        super().__init__(channels, channels, kernel, (1, stride, stride), padding, groups=channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:  # [B, channels, T, H, W]
        return depthwise_conv3d(x, self.weight, self.bias, stride=self.stride, padding=self.padding)


def rounded_width(width: float, multiple: int = 8) -> int:
    """The multiple that is nearest to the width; the next one where that takes away more than a tenth."""
    rounded = max(multiple, int(width + multiple / 2) // multiple * multiple)
    return rounded + multiple if rounded < 0.9 * width else rounded

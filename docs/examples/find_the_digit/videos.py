"""Videos of clutter in which one handwritten digit appears: when, where and how large changes from video to video."""

import math
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from adafocus_models.data import Sample
from adafocus_ops import crop_resize

FRAMES, SIDE = 16, 96  # of a video; a frame's side in pixels
LIFE = 4  # frames that the digit, and each piece of clutter, stays for
SHORTEST, LONGEST = 14.0, 56.0  # sides in pixels of what appears, height and width drawn apart
CLUTTER = 5  # pieces in a video
SPLITS = {"train": (0, 1200), "validation": (1200, 1450), "test": (1450, 1797)}


class Videos(NamedTuple):
    """n videos, and what is to be found in them."""

    frames: Tensor  # [n, 16, 96, 96] uint8, grey
    labels: Tensor  # [n] int64, 0 to 9
    boxes: Tensor  # [n, 4] (cy, cx, h, w) of the digit, in pixels
    starts: Tensor  # [n] int64, the first of the LIFE frames that show it

    def batch(self, rows: Tensor | slice) -> Tensor:
        """Frames [B, 16, 3, 96, 96] as models take them; the three channels are one in memory."""
        return self.frames[rows].unsqueeze(2).expand(-1, -1, 3, -1, -1)


@dataclass(frozen=True)
class Clips:
    """Videos as the library's loop takes them; an epoch is a part of them, and the next epoch another."""

    videos: Videos
    an_epoch: int
    every: int = 1  # frame of a video is a candidate

    def __len__(self) -> int:
        return self.an_epoch

    def __getitem__(self, place: tuple[int, int]) -> Sample:
        epoch, index = place
        row = (epoch * self.an_epoch + index) % len(self.videos.labels)
        frames = self.videos.batch(slice(row, row + 1))[0, :: self.every]
        return Sample(frames, None, None, int(self.videos.labels[row]), row, 0)


@cache
def digits(split: str) -> tuple[Tensor, Tensor]:
    """Images [n, 8, 8] float32, 0 to 255, and labels [n]; each split has digits of its own."""
    from sklearn.datasets import load_digits

    source = load_digits()
    order = torch.randperm(len(source.target), generator=torch.Generator().manual_seed(123))[slice(*SPLITS[split])]
    return torch.tensor(source.images / 16 * 255).float()[order], torch.tensor(source.target)[order].long()


def make_videos(split: str, count: int, seed: int, batch_size: int = 64) -> Videos:
    """Makes videos of the digits of a split; the same seed gives the same videos."""
    generator = torch.Generator().manual_seed(seed)
    background = _background(64, generator)
    parts = [
        _make_batch(split, min(batch_size, count - first), background, generator)
        for first in range(0, count, batch_size)
    ]
    return Videos(*map(torch.cat, zip(*parts, strict=True)))


def _make_batch(split: str, count: int, background: Tensor, generator: torch.Generator) -> Videos:
    images, labels = digits(split)
    which = torch.randint(len(labels), (count,), generator=generator)
    sprites = torch.cat([images[which][:, None], _clutter(images, count, generator)], 1)  # [B, 6, 8, 8]
    pieces = sprites.shape[1]
    sprites = sprites * (0.6 + 0.3 * _uniform(generator, count, pieces, 1, 1))

    # Sides: log-uniform, so that every factor is as frequent as the next.
    spread = math.log(LONGEST / SHORTEST)
    sides = SHORTEST * (spread * _uniform(generator, count, pieces, 2)).exp()  # [B, 6, 2]
    centres = sides / 2 + _uniform(generator, count, pieces, 2) * (SIDE - sides)
    # The digit comes and goes with the pairs of frames that a glance sees one of; clutter at any time.
    starts = torch.randint(1 - LIFE, FRAMES, (count, pieces), generator=generator)
    starts[:, 0] = 2 * torch.randint((FRAMES - LIFE) // 2 + 1, (count,), generator=generator)

    # Pasting is cropping the whole frame out of a sprite, with nothing around it.
    frame_on_sprite = torch.cat([4 + (SIDE / 2 - centres) * 8 / sides, SIDE * 8 / sides], -1)  # [B, 6, 4]
    pasted = crop_resize(sprites.view(-1, 1, 8, 8), frame_on_sprite.view(-1, 4), SIDE)
    pasted = pasted.view(count, pieces, SIDE, SIDE)
    age = torch.arange(FRAMES) - starts[..., None]  # [B, 6, 16]
    shows = (age >= 0) & (age < LIFE)
    frames = torch.zeros(count, FRAMES, SIDE, SIDE)
    for piece in range(pieces):
        video, frame = shows[:, piece].nonzero(as_tuple=True)
        frames[video, frame] = torch.maximum(frames[video, frame], pasted[video, piece])
    shift = torch.randint(SIDE, (2,), generator=generator).tolist()
    frames += background[torch.randint(len(background), (count,), generator=generator)].roll(shift, (2, 3))
    boxes = torch.cat([centres[:, 0], sides[:, 0]], 1)
    return Videos(frames.clamp_(0, 255).to(torch.uint8), labels[which], boxes, starts[:, 0])


def _background(count: int, generator: torch.Generator) -> Tensor:
    """[count, 16, 96, 96]: smooth and white noise."""
    smooth = torch.randn(count * FRAMES, 1, 9, 9, generator=generator)
    smooth = torch.nn.functional.interpolate(smooth, SIDE, mode="bicubic").view(count, FRAMES, SIDE, SIDE)
    return 30 + 14 * smooth + 18 * torch.randn(count, FRAMES, SIDE, SIDE, generator=generator)


def _clutter(images: Tensor, videos: int, generator: torch.Generator) -> Tensor:
    """[videos, 5, 8, 8] that are no digits: parts of one, quarters of four, and blobs."""
    count = videos * CLUTTER
    place = torch.arange(8.0)

    def drawn() -> Tensor:
        return images[torch.randint(len(images), (count,), generator=generator)]

    # Parts: 4 or 5 pixels of one side and 4 to 8 of the other.
    sides = torch.stack([4 + (_uniform(generator, count) < 0.5), (4 + 4 * _uniform(generator, count)).floor()])
    turned = _uniform(generator, count) < 0.5
    height, width = torch.where(turned, sides.flip(0), sides)
    top, left = ((_uniform(generator, count) * (9 - side)).floor() for side in (height, width))
    rows, columns = (
        (place >= first[:, None]) & (place < (first + side)[:, None]) for first, side in ((top, height), (left, width))
    )
    part = drawn() * (rows[:, :, None] & columns[:, None])

    def quarter() -> Tensor:
        quarters = drawn().unfold(1, 4, 4).unfold(2, 4, 4)  # [count, 2, 2, 4, 4]
        row, column = torch.randint(2, (2, count), generator=generator)
        return quarters[torch.arange(count), row, column]

    mixed = torch.cat([torch.cat([quarter(), quarter()], 2), torch.cat([quarter(), quarter()], 2)], 1)
    width = 1.2 + 1.3 * _uniform(generator, count)
    centre = 2.5 + 2 * _uniform(generator, count, 2)
    bumps = (-((place - centre[..., None]) ** 2) / (2 * width[:, None, None] ** 2)).exp()  # [count, 2, 8]
    blob = 255 * bumps[:, 0, :, None] * bumps[:, 1, None]
    kind = _uniform(generator, count)[:, None, None]
    return torch.where(kind < 0.4, part, torch.where(kind < 0.6, mixed, blob)).view(videos, CLUTTER, 8, 8)


def _uniform(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.rand(shape, generator=generator)

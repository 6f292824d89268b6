"""Labelled videos that can be learned from, made when they are asked for."""

import torch
from torch import Tensor

from adafocus_models import VideoModel
from adafocus_models.data import Sample


class MadeUpClips:
    """Videos whose class is the colour of a stripe; a random one of noise in every epoch.

    Args:
        when: called with (epoch, index) before a sample is made; it may raise.
    """

    def __init__(self, model: VideoModel, count: int, when=lambda epoch, index: None) -> None:
        self.count, self.when, self.num_classes = count, when, model.num_classes
        self.candidates, self.side = model.num_candidate_frames, model.frame_size
        self.glances = model.num_glance_frames if model.glances_apart else 0

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, place: tuple[int, int]) -> Sample:
        epoch, index = place
        self.when(epoch, index)
        generator = torch.Generator().manual_seed(1000 * epoch + index)
        label = index % self.num_classes

        def frames(count: int) -> Tensor:
            pixels = torch.randint(100, 156, (count, 3, self.side, self.side), generator=generator, dtype=torch.uint8)
            pixels[:, label % 3, :, : self.side // 2] += 40 * (1 + label // 3)
            return pixels.to(memory_format=torch.channels_last)

        glance_frames = frames(self.glances) if self.glances else None
        return Sample(frames(self.candidates), glance_frames, None, label, index, 0)

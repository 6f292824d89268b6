"""A model that answers what its tests know, and frames that it may be shown."""

import torch
from PIL import Image
from torch import nn

from adafocus_models import ExitLoop, Output

CANDIDATES, GLANCES, CLASSES, PATCH = 6, 2, 7, 96
PICKED = (1, 4, 5)
BOX = (90.0, 130.0, 100.0, 120.0)  # rows 40 to 139, columns 70 to 189


class Stub(nn.Module):
    """A model that answers what the test knows."""

    num_classes, patch_size, frame_size = CLASSES, PATCH, 224
    num_glance_frames, num_focus_frames, num_candidate_frames = GLANCES, len(PICKED), CANDIDATES
    has_policy = has_early_exit = True
    num_exits = 2

    def __init__(self):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def policy(self):
        raise AssertionError("predict must not call a stage itself")

    def load_checkpoint(self, path):
        self.loaded = path

    def forward(self, frames, glance_frames, *, gate=None):
        assert frames.shape == (1, CANDIDATES, 3, 224, 224)
        assert glance_frames.shape == (1, GLANCES, 3, 224, 224)
        assert frames.dtype == glance_frames.dtype == torch.uint8
        logits = torch.arange(CLASSES).float()[None]
        weights = torch.tensor([[0.25, 0.75]])
        exits = logits.repeat(1, 2, 1)
        exits_by = ExitLoop(gate, self.num_exits)
        exits_by.answer(logits)
        if exits_by.is_empty:
            exits[:, 1] = torch.nan
            nowhere = torch.full((1, len(PICKED)), -1)
            return Output(
                logits, exits, nowhere, torch.full((1, 4), torch.nan), torch.full_like(weights, torch.nan), None
            )
        return Output(logits, exits, torch.tensor([PICKED]), torch.tensor([BOX]), weights, None)


def colour(i):
    """The colour of frame i's edge, which no other part of a picture has."""
    return (40 * i, 255 - 40 * i, 77)


def framed(i):
    """[3, 224, 224] uint8: black, with an edge 8 pixels wide in frame i's colour, which no patch includes."""
    frame = torch.zeros(224, 224, 3, dtype=torch.uint8)
    edge = torch.ones(224, 224, dtype=torch.bool)
    edge[8:-8, 8:-8] = False
    frame[edge] = torch.tensor(colour(i), dtype=torch.uint8)
    return frame.permute(2, 0, 1)


def write_frames(path):
    """Twelve frames as images, so that the six candidates are frames 1, 3, ..., 11 exactly."""
    path.mkdir()
    for i in range(12):
        whole = nn.functional.pad(framed(i // 2), (16, 16, 16, 16))  # 256 x 256, which the centre crop undoes
        Image.fromarray(whole.permute(1, 2, 0).contiguous().numpy()).save(path / f"{i}.png")
    return path

"""Data of exits and metrics: what the published implementation computed, and random scores."""

import json

import numpy as np
import torch
from torch import Tensor

from conftest import ORACLES

INDEX = json.loads((ORACLES / "ops" / "index.json").read_text())


def arrays(name: str, case: str) -> dict[str, Tensor]:
    """Entries of one case in a file of the oracles."""
    data = np.load(ORACLES / "ops" / f"{name}.npz")
    return {
        k.removeprefix(case + "."): torch.as_tensor(data[k])  # scalars too
        for k in data.files
        if k.startswith(case + ".")
    }


def random_scores(exits: int = 5, videos: int = 300, seed: int = 0) -> tuple[Tensor, list[float], Tensor]:
    """Scores, costs, and answers that are the more often right, the later the exit and the larger the score."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(exits, videos, generator=generator) + torch.randn(videos, generator=generator)
    correct = torch.rand(exits, videos, generator=generator) < (scores + torch.arange(exits)[:, None] / 2).sigmoid()
    return scores, [2.0 + 3.0 * e for e in range(exits)], correct

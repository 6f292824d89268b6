"""A small model, and checkpoints of it: what is read does not depend on the network."""

import argparse

import numpy as np
import torch
from torch import nn

from adafocus_models.networks.checkpoints import load_checkpoint


class Small(nn.Module):
    """Two layers under names of their own."""

    def __init__(self, num_classes: int = 5) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.body = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
        self.head = nn.Linear(4, num_classes)

    def published_prefixes(self) -> dict[str, str]:
        return {}


def weights(num_classes: int = 5, seed: int = 1) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    state = Small(num_classes).state_dict()
    return {name: torch.rand(value.shape, generator=generator).to(value.dtype) for name, value in state.items()}


def prefixed(prefix: str, state: dict) -> dict:
    return {prefix + name: value for name, value in state.items()}


def assert_loads(source: object) -> None:
    model = Small()
    assert load_checkpoint(model, source) == []
    for name, value in weights().items():
        assert torch.equal(model.state_dict()[name], value), name


OPTIONS = argparse.Namespace(lr=0.1, dataset="kinetics", milestones=[20, 40], best=np.float32(71.5))

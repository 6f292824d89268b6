"""The published implementation's outputs for single ops."""

import json

import numpy as np
import torch

from conftest import ORACLES

INDEX = json.loads((ORACLES / "ops" / "index.json").read_text())


def arrays(name: str, case: str) -> dict[str, torch.Tensor]:
    """The arrays of a case by name."""
    data = np.load(ORACLES / "ops" / f"{name}.npz")
    return {k.removeprefix(case + "."): torch.from_numpy(data[k]) for k in data.files if k.startswith(case + ".")}

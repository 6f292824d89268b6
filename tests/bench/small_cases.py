"""Cases that take no time, and their records."""

import pytest
import torch

from bench.cases import crop_resize as crop_cases
from bench.harness import environment, measuring
from bench.harness.case import Case, Targets

CPU = torch.device("cpu")
U8, F16, F32 = torch.uint8, torch.float16, torch.float32


def tiny(dtype=F32, make=crop_cases.Crop, **options) -> Case:
    """A case with targets that every run reaches but for the second."""
    targets = Targets(ratio=1e-6, bandwidth=1e6, microseconds=1e9)
    return make(4, dtype, frame_size=16, sides=(5, 12), num_boxes=3, **options).case({"cpu": targets})


def measure(case: Case) -> dict:
    env = environment.environment(CPU) | {"copy_gb_per_s": 10.0}
    return measuring.measure(case, CPU, "reference", runs=2, env=env)


def never(*_args, **_kwargs):
    pytest.fail("timed what does not match")

"""Models with the weights of the oracles, and the cases computed by the published implementation with them."""

import json
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from adafocus_models import UniAdaFocusTSM, VideoModel
from conftest import ORACLES
from oracles import oracle_rules

CASES = ("p96_k8", "p128_k12")


@cache
def manifest() -> dict[str, tuple[int, ...]]:
    """Published name -> shape, of every entry of the published Uni-AdaFocus-TSM's state dict, in its order."""
    entries = json.loads((ORACLES / "manifests" / "uni_adafocus_tsm_c174.json").read_text())["entries"]
    return {name: tuple(entry["shape"]) for name, entry in entries.items()}


@cache
def published_weights() -> dict[str, Tensor]:
    """The oracles' weights under their published names; not to be written to."""
    return {name: torch.from_numpy(oracle_rules.fill(name, shape)) for name, shape in manifest().items()}


def fill(module: nn.Module) -> nn.Module:
    """Fills a module with weights made from its own names, by the oracles' rules, and sets it to eval mode."""
    state = module.state_dict()
    module.load_state_dict({name: torch.from_numpy(oracle_rules.fill(name, state[name].shape)) for name in state})
    return module.eval()


def small_model(dtype: torch.dtype = torch.float64, **overrides: int) -> UniAdaFocusTSM:
    """Uni-AdaFocus-TSM on 2 + 2 of 5 frames, patches of 32 pixels and 6 classes."""
    sizes = {"num_glance_frames": 2, "num_focus_frames": 2, "num_candidate_frames": 5, "patch_size": 32}
    return fill(UniAdaFocusTSM(**({"num_classes": 6} | sizes | overrides))).to(dtype)


@dataclass(frozen=True)
class Case:
    config: dict[str, Any]
    arrays: dict[str, np.ndarray]
    float32_error: dict[str, float]  # largest difference of the published float32 run from its float64 run
    glance_frames: Tensor  # [2, T0, 3, 224, 224] float32
    frames: Tensor  # [2, N, 3, 224, 224] float32

    def model(self, dtype: torch.dtype) -> UniAdaFocusTSM:
        model = UniAdaFocusTSM(
            num_classes=self.config["num_classes"],
            patch_size=self.config["patch_size"],
            num_glance_frames=self.config["num_glance_segments"],
            num_focus_frames=self.config["num_focus_segments"],
            num_candidate_frames=self.config["num_input_focus_segments"],
        )
        model.load_checkpoint(published_weights())
        return model.eval().to(dtype)


@cache
def load_case(name: str) -> Case:
    path = ORACLES / "models" / f"uni_adafocus_tsm_{name}"
    info = json.loads(path.with_suffix(".json").read_text())
    config, seed, batch = info["config"], info["seed"], info["batch"]
    counts = {"glance": config["num_glance_segments"], "focus": config["num_input_focus_segments"]}
    clips = {key: oracle_rules.clips(seed, batch, count, stream) for stream, (key, count) in enumerate(counts.items())}
    for key, clip in clips.items():
        assert list(oracle_rules.checksum(clip)) == info["input_checksum"][key]
    return Case(
        config=config,
        arrays=dict(np.load(path.with_suffix(".npz"))),
        float32_error=info["max_abs_difference_float32_vs_float64"],
        glance_frames=torch.from_numpy(clips["glance"]),
        frames=torch.from_numpy(clips["focus"]),
    )


def record_stages(model: VideoModel) -> dict[str, list]:
    """Stage -> results of its calls in their order, filled from now on."""
    returned: dict[str, list] = {}

    def call(stage: str, method: Any, *args: Any) -> Any:
        returned[stage].append(method(*args))
        return returned[stage][-1]

    for stage, methods in model.stage_methods.items():
        returned[stage] = []
        for name in methods:
            setattr(model, name, partial(call, stage, getattr(model, name)))
    return returned

"""Models with the weights of the oracles, and the cases computed by the published implementation with them."""

import json
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from adafocus_models import UniAdaFocusTSM, VideoModel, create_model
from conftest import ORACLES
from oracles import oracle_rules

# Architecture -> its manifest.
MANIFESTS = {
    "uni_adafocus": "uni_adafocus_k16_c200",
    "uni_adafocus_tsm": "uni_adafocus_tsm_c174",
    "uni_adafocus_x3d": "uni_adafocus_x3d_c400",
    "adafocus_v2": "adafocus_v2_c200",
    "adafocus_v2_tsm": "adafocus_v2_tsm_c174",
    "adafocus_v1": "adafocus_v1_c200",
    "adafocus_v1_tsm": "adafocus_v1_tsm_c174",
}
CASES = sorted(path.stem for path in (ORACLES / "models").glob("*.json"))
# Argument of create_model -> what the cases call it, of which the first that is there counts.
ARGUMENTS = {
    "num_classes": ("num_classes",),
    "patch_size": ("patch_size",),
    "num_glance_frames": ("num_glance_segments",),
    "num_focus_frames": ("num_focus_segments", "num_segments"),
    "num_candidate_frames": ("num_input_focus_segments", "num_segments"),
}


@cache
def manifest(architecture: str = "uni_adafocus_tsm") -> dict[str, tuple[int, ...]]:
    """Published name -> shape, of every entry of the published state dict, in its order."""
    entries = json.loads((ORACLES / "manifests" / f"{MANIFESTS[architecture]}.json").read_text())["entries"]
    return {name: tuple(entry["shape"]) for name, entry in entries.items()}


@lru_cache(maxsize=1)  # each takes a third of a gigabyte
def published_weights(architecture: str = "uni_adafocus_tsm") -> dict[str, Tensor]:
    """The oracles' weights under their published names; not to be written to."""
    shapes = manifest(architecture)
    return {name: torch.from_numpy(oracle_rules.fill(name, shape)) for name, shape in shapes.items()}


def fill(module: nn.Module) -> nn.Module:
    """Fills a module with weights made from its own names, by the oracles' rules, and sets it to eval mode."""
    state = module.state_dict()
    module.load_state_dict({name: torch.from_numpy(oracle_rules.fill(name, state[name].shape)) for name in state})
    return module.eval()


def small_model(dtype: torch.dtype = torch.float64, **overrides: int) -> UniAdaFocusTSM:
    """Uni-AdaFocus-TSM on 2 + 2 of 5 frames, patches of 32 pixels and 6 classes."""
    sizes = {"num_glance_frames": 2, "num_focus_frames": 2, "num_candidate_frames": 5, "patch_size": 32}
    return fill(UniAdaFocusTSM(**({"num_classes": 6} | sizes | overrides))).to(dtype)


# Architecture -> arguments that make it small.
SMALL = {
    "uni_adafocus": {"num_glance_frames": 2, "num_focus_frames": 3, "num_candidate_frames": 7, "patch_size": 32},
    "uni_adafocus_tsm": {"num_glance_frames": 2, "num_focus_frames": 2, "num_candidate_frames": 5, "patch_size": 32},
    "uni_adafocus_x3d": {"num_glance_frames": 2, "num_focus_frames": 2, "num_candidate_frames": 5, "patch_size": 32},
    "adafocus_v2": {"num_focus_frames": 3, "patch_size": 32},
    "adafocus_v2_tsm": {"num_glance_frames": 2, "num_focus_frames": 3, "patch_size": 32},
    "adafocus_v1": {"num_focus_frames": 3, "patch_size": 32},
    "adafocus_v1_tsm": {"num_glance_frames": 2, "num_focus_frames": 3, "patch_size": 32},
    "tsm": {"num_focus_frames": 2},
    "tsm_plus": {"num_glance_frames": 2, "num_focus_frames": 2},
    "x3d_s": {"num_focus_frames": 2},
    "x3d_m": {"num_focus_frames": 2},
    "x3d_l": {"num_focus_frames": 2},
}


@cache
def filled_state(architecture: str) -> dict[str, Tensor]:
    """The weights of a small model, which take longer to make than the model; not to be written to."""
    return fill(create_model(architecture, num_classes=6, **SMALL[architecture])).state_dict()


def small(architecture: str, dtype: torch.dtype = torch.float64) -> VideoModel:
    """A network on two or three frames, patches of 32 pixels and 6 classes."""
    model = create_model(architecture, num_classes=6, **SMALL[architecture])
    model.load_state_dict(filled_state(architecture))
    return model.eval().to(dtype)


def inputs_of(model: VideoModel, videos: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> list[Tensor]:
    """Frames of smooth noise [videos, N, 3, S, S], and glance frames if the model glances."""
    generator = torch.Generator().manual_seed(seed)

    def clips(count: int) -> Tensor:
        coarse = torch.randn(videos * count, 3, 14, 14, generator=generator, dtype=dtype)
        size = (model.frame_size,) * 2
        return nn.functional.interpolate(coarse, size=size, mode="bilinear").unflatten(0, (videos, count))

    return [clips(count) for count in (model.num_candidate_frames, model.num_glance_frames) if count]


@dataclass(frozen=True)
class Case:
    architecture: str
    config: dict[str, Any]
    arrays: dict[str, np.ndarray]
    float32_error: dict[str, float]  # largest difference of the published float32 run from its float64 run
    inputs: list[Tensor]  # [2, N, 3, 224, 224] float32, and [2, T0, 3, 224, 224] where they are sampled apart

    def model(self, dtype: torch.dtype) -> VideoModel:
        there = {name: [self.config[key] for key in keys if key in self.config] for name, keys in ARGUMENTS.items()}
        if len(self.inputs) == 2 or self.architecture.startswith("adafocus"):  # the candidates are the focus frames
            there["num_candidate_frames"] = [n for n in [self.config.get("num_input_focus_segments")] if n]
        model = create_model(self.architecture, **{name: found[0] for name, found in there.items() if found})
        model.load_checkpoint(published_weights(self.architecture))
        return model.eval().to(dtype)


def load_info(name: str) -> dict[str, Any]:
    """All about a case but its arrays."""
    return json.loads((ORACLES / "models" / f"{name}.json").read_text())


@lru_cache(maxsize=1)
def load_case(name: str) -> Case:
    info = load_info(name)
    config, seed, batch = info["config"], info["seed"], info["batch"]
    if isinstance(info["input_checksum"], dict):
        candidates = config.get("num_input_focus_segments", config["num_focus_segments"])
        counts = {"focus": (candidates, 1), "glance": (config["num_glance_segments"], 0)}
        checksums = info["input_checksum"]
    else:
        counts, checksums = {"all": (config["num_segments"], 0)}, {"all": info["input_checksum"]}
    clips = {key: oracle_rules.clips(seed, batch, count, stream) for key, (count, stream) in counts.items()}
    for key, clip in clips.items():
        assert list(oracle_rules.checksum(clip)) == checksums[key]
    return Case(
        architecture=info["arch"],
        config=config,
        arrays=dict(np.load(ORACLES / "models" / f"{name}.npz")),
        float32_error=info["max_abs_difference_float32_vs_float64"],
        inputs=[torch.from_numpy(clip) for clip in clips.values()],
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

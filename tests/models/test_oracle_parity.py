"""Every network against the published implementation, number by number."""

import numpy as np
import pytest
import torch
from oracle_models import CASES, Case, load_case, load_info, record_stages
from torch import Tensor

from adafocus_models import VideoModel

# One case of each network; the others, of other sizes, are slow: run with -m slow.
ONE_OF_EACH = {load_info(name)["arch"]: name for name in CASES}.values()  # of the smallest patches
CASES_BY_SPEED = [pytest.param(name, marks=[] if name in ONE_OF_EACH else pytest.mark.slow) for name in CASES]
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def run(case: Case, dtype: torch.dtype, memory_format: torch.memory_format) -> dict[str, np.ndarray]:
    """Results of the model for a case, under the oracles' names."""
    model = case.model(dtype).to(memory_format=memory_format)
    stages = record_stages(model)
    with torch.inference_mode():
        output = model(*(frames.to(dtype) for frames in case.inputs))
        maps, features = (per_frame(x, model.num_glance_frames) for x in stages["glance"][0])
        seen = per_frame(stages["focus"][0], model.num_focus_frames)
        patches = per_frame(stages["read"][1], model.num_focus_frames)
        found = {
            "temporal_weights": output.weights,
            "focus_boxes": corner_boxes(output.boxes),
            "final_logits": output.logits,
            "crop_slice": patches[:, :: 2 if case.architecture == "uni_adafocus_x3d" else 1, :, 3::16, 5::16],
            "focus_indices": output.frame_index,
            "glance_indices": output.glance_index,
            "exit0_logits": output.exit_logits[:, 0],
            "global_mean_aux_logits": output.exit_logits[:, 0],
            **OWN[case.architecture](model, maps, features, seen),
        }
    boxes = found["focus_boxes"].double()
    if case.architecture.startswith("adafocus"):
        found["crop_corner"] = boxes[..., :2]
        found.setdefault("focus_actions", boxes[..., :2] / (model.frame_size - model.patch_size))
    if model.num_exits > 2:
        found["step_logits"] = output.exit_logits
    assert torch.equal(output.logits, output.exit_logits[:, -1])
    assert (output.glance_index is None) == (len(case.inputs) == 2)
    return {name: value.double().numpy() for name, value in found.items() if value is not None}


def per_frame(x: Tensor, count: int) -> Tensor:
    """[2, count, ...] of what some networks compute flat."""
    return x if x.shape[:2] == (2, count) else x.unflatten(0, (2, count))


def corner_boxes(boxes: Tensor) -> Tensor:
    """(y0, x0, h, w) of boxes (cy, cx, h, w)."""
    cy, cx, h, w = boxes.unbind(-1)
    return torch.stack([cy - h / 2, cx - w / 2, h, w], -1)


# Architecture -> (model, maps and features of the glance, features of the focus) -> what no Output has.
OWN = {
    "uni_adafocus": lambda m, maps, features, seen: {
        "global_logits": m.glance_aux_head(features),
        "local_logits": m.focus_aux_head(seen),
    },
    "uni_adafocus_tsm": lambda m, maps, features, seen: {
        "global_logits_main": m.glance_head(features),
        "global_logits_aux": m.glance_aux_head(features),
        "local_logits_main": m.focus_head(seen),
        "local_logits_aux": m.focus_aux_head(seen),
    },
    "uni_adafocus_x3d": lambda m, maps, features, seen: {
        "global_clip_logits": m.glance_head(features),
        "global_frame_logits": m.glance_aux_head(features),
        "local_clip_logits": m.focus_head(seen),
        "local_frame_logits": m.focus_aux_head(seen),
    },
    "adafocus_v2": lambda m, maps, features, seen: {
        "global_logits": m.glance_aux_head(features),
        "local_logits": m.focus_aux_head(seen),
    },
    "adafocus_v2_tsm": lambda m, maps, features, seen: {
        "global_logits_main": m.glance_head(features),
        "global_logits_aux": m.glance_aux_head(features),
        "local_logits_main": m.focus_head(seen),
        "local_logits_aux": m.focus_aux_head(seen),
    },
    "adafocus_v1": lambda m, maps, features, seen: {
        "action_probs": m.spatial_policy(maps, None)[0].softmax(-1),
        "action_index": m.spatial_policy(maps, None)[0].argmax(-1),
        "focus_actions": m.spatial_policy.actions(m.spatial_policy(maps, None)[0].argmax(-1)),
    },
    "adafocus_v1_tsm": lambda m, maps, features, seen: {
        "global_logits": m.glance_head(features),
        "local_logits": m.focus_head(seen),
        "focus_actions": m.spatial_policy(maps.flatten(1, 2)),
    },
}
# Whole numbers, and what is computed from them alone.
EXACT = ("focus_indices", "glance_indices", "action_index", "crop_corner")


def expected(case: Case, model_exits: int) -> dict[str, np.ndarray]:
    """The published float64 run; its boxes by the oracles' formula from its actions."""
    arrays = {name.removeprefix("f64_"): a for name, a in case.arrays.items() if name.startswith("f64_")}
    arrays |= {name: case.arrays[name] for name in EXACT if name in case.arrays}
    if "focus_boxes" in case.arrays:
        a_y, a_x, a_h, a_w = np.moveaxis(arrays.pop("focus_actions"), -1, 0)
        h, w = 96 + 128 * a_h, 96 + 128 * a_w
        arrays["focus_boxes"] = np.stack([a_y * (224 - h), a_x * (224 - w), h, w], -1)
    if "step_logits" in arrays:  # of which the first are no exits
        arrays["step_logits"] = arrays["step_logits"][:, -model_exits:]
    return arrays


def compared(case: Case, dtype: torch.dtype, memory_format: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Name -> what we found and what is right, after what must be equal was."""
    found = run(case, dtype, FORMATS[memory_format])
    want = expected(case, found["step_logits"].shape[1] if "step_logits" in found else 1)
    for name in EXACT:
        if name in want:
            assert np.array_equal(found[name], want.pop(name)), name
    common = [name for name in want if name in found]
    assert {"final_logits", "step_logits"} & set(common)
    return {name: (found[name], want[name]) for name in common}


@pytest.mark.parametrize("name", CASES_BY_SPEED)
def test_float64(name):
    pairs = compared(load_case(name), torch.float64, "contiguous")
    error = {key: np.linalg.norm(found - want) / np.linalg.norm(want) for key, (found, want) in pairs.items()}
    assert max(error.values()) <= 1e-7, error


@pytest.mark.parametrize("name", CASES_BY_SPEED)
def test_float32(name):
    """At most twice as far from the float64 run as the published code in float32."""
    case = load_case(name)
    pairs = compared(case, torch.float32, "channels_last")
    ratio = {key: np.abs(found - want).max() / case.float32_error[key] for key, (found, want) in pairs.items()}
    assert max(ratio.values()) <= 2, ratio


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_the_other_layouts(name):
    pairs = compared(load_case(name), torch.float64, "channels_last")
    assert max(np.linalg.norm(found - want) / np.linalg.norm(want) for found, want in pairs.values()) <= 1e-7
    case = load_case(name)
    pairs = compared(case, torch.float32, "contiguous")
    assert max(np.abs(found - want).max() / case.float32_error[key] for key, (found, want) in pairs.items()) <= 2


@pytest.mark.parametrize("name", ["adafocus_v1_p128", "adafocus_v1_tsm_p144"])
def test_patches_of_whole_pixels_are_slices(name):
    """To the last bit."""
    case = load_case(name)
    model: VideoModel = case.model(torch.float32)
    corners = torch.from_numpy(case.arrays["crop_corner"])
    size, frames = model.patch_size, case.inputs[0]
    boxes = torch.cat([corners + size / 2, torch.full_like(corners, size)], -1).float()
    patches = model.read_patches(frames, boxes, model.all_candidates(frames), torch.arange(2)).unflatten(0, (2, -1))
    assert np.array_equal(patches[..., 3::16, 5::16].numpy(), case.arrays["crop_slice"])

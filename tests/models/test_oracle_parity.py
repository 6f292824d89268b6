"""Uni-AdaFocus-TSM against the published implementation, number by number."""

import numpy as np
import pytest
import torch
from oracle_models import CASES, Case, load_case, record_stages
from torch import Tensor

FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def run(case: Case, dtype: torch.dtype, memory_format: torch.memory_format) -> dict[str, np.ndarray]:
    """Results of the model for a case, in float64, under the oracles' names."""
    model = case.model(dtype).to(memory_format=memory_format)
    stages = record_stages(model)
    with torch.inference_mode():
        output = model(case.frames.to(dtype), case.glance_frames.to(dtype))
        [(_, glance_features)], [focus_features] = stages["glance"], stages["focus"]
        _, patches = stages["read"]
        found = {
            "global_logits_aux": model.glance_aux_head(glance_features),
            "global_logits_main": model.glance_head(glance_features),
            "local_logits_aux": model.focus_aux_head(focus_features),
            "local_logits_main": model.focus_head(focus_features),
            "temporal_weights": output.weights,
            "focus_boxes": corner_boxes(output.boxes),
            "crop_slice": patches.unflatten(0, (-1, model.num_focus_frames))[..., 3::16, 5::16],
            "exit0_logits": output.exit_logits[:, 0],
            "final_logits": output.logits,
        }
        assert torch.equal(output.logits, output.exit_logits[:, 1])
        assert output.glance_index is None
    return {name: value.double().numpy() for name, value in found.items()} | {"focus_indices": output.frame_index}


def corner_boxes(boxes: Tensor) -> Tensor:
    """(y0, x0, h, w) of boxes (cy, cx, h, w)."""
    cy, cx, h, w = boxes.unbind(-1)
    return torch.stack([cy - h / 2, cx - w / 2, h, w], -1)


def expected(case: Case) -> dict[str, np.ndarray]:
    """The published float64 run; its boxes by the oracles' formula from its actions."""
    arrays = {name.removeprefix("f64_"): a for name, a in case.arrays.items() if name.startswith("f64_")}
    a_y, a_x, a_h, a_w = arrays["focus_actions"].T
    h, w = 96 + 128 * a_h, 96 + 128 * a_w
    return arrays | {"focus_boxes": np.stack([a_y * (224 - h), a_x * (224 - w), h, w], -1)}


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("name", CASES)
def test_float64(name, memory_format):
    case = load_case(name)
    found, want = run(case, torch.float64, FORMATS[memory_format]), expected(case)
    assert np.array_equal(found.pop("focus_indices"), case.arrays["focus_indices"])
    error = {key: np.linalg.norm(value - want[key]) / np.linalg.norm(want[key]) for key, value in found.items()}
    assert max(error.values()) <= 1e-7, error


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("name", CASES)
def test_float32(name, memory_format):
    """At most twice as far from the float64 run as the published code in float32."""
    case = load_case(name)
    found, want = run(case, torch.float32, FORMATS[memory_format]), expected(case)
    assert np.array_equal(found.pop("focus_indices"), case.arrays["focus_indices"])
    ratio = {key: np.abs(value - want[key]).max() / case.float32_error[key] for key, value in found.items()}
    assert max(ratio.values()) <= 2, ratio

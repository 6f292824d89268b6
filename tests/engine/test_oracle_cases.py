"""The engine on the oracles' cases, with the published weights: as the model, where both look at the same places."""

import pytest
import torch
from engine_models import engine_of, quick  # noqa: F401
from oracle_models import CASES, load_case, record_stages

from adafocus_models import Decision, Output, VideoModel

pytestmark = pytest.mark.usefixtures("quick")
BY_DEFAULT = ("uni_adafocus_tsm_p96_k8",)  # the others are slow: run with -m slow


def looks_where(model: VideoModel, output: Output) -> None:
    """From now on the model's policy decides as it did for this output."""
    decision = Decision(output.weights, output.frame_index, output.boxes)
    if model.has_policy:
        policy = model.policy
        model.policy = lambda *args: policy(*args)._replace(**dict(zip(decision._fields[:3], decision, strict=False)))


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in BY_DEFAULT else pytest.mark.slow) for n in CASES])
@torch.inference_mode()
def test_equal_where_boxes_are_given(name):
    case = load_case(name)
    model = case.model(torch.float32)
    expected = model(*case.inputs)
    engine = engine_of(model, check=True)
    own = engine(*case.inputs)
    assert torch.equal(own.frame_index, expected.frame_index)
    # Pixels: either may be as far from the exact boxes as the published code's float32 is, or a little farther.
    allowed = max(0.01, 3 * case.float32_error.get("focus_boxes", 0.0))
    torch.testing.assert_close(own.boxes, expected.boxes, rtol=0, atol=allowed)
    looks_where(engine.model, expected)
    found = engine(*case.inputs)
    error = (found.exit_logits - expected.exit_logits).abs().max() / expected.exit_logits.abs().max()
    assert error <= 1e-4


@torch.inference_mode()
def test_stages_run_once():
    """Nothing that is only for training, and no stage twice."""
    case = load_case(BY_DEFAULT[0])
    engine = engine_of(case.model(torch.float32))
    stages = record_stages(engine.model)
    engine(*case.inputs)
    assert {stage: len(calls) for stage, calls in stages.items()} == {
        "read": 2,
        "glance": 1,
        "policy": 1,
        "focus": 1,
        "head": 2,
    }

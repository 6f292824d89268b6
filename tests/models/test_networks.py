"""All networks: what comes out, who leaves at which exit, what is not run, other dtypes and layouts, compiling."""

import io
import warnings
from collections import Counter
from functools import lru_cache
from itertools import pairwise

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oracle_models import SMALL, inputs_of, record_stages, small

from adafocus_models import Output, VideoModel, architectures, create_model, exit_costs, fold_batch_norm, multiply_adds
from adafocus_ops import ExitGate

WITH_EXITS = [name for name, network in architectures().items() if network.has_early_exit]
EACH_FRAME = ("uni_adafocus", "adafocus_v2", "adafocus_v1")  # have an exit after each frame, and a box in each
# X3D-M and X3D-L go X3D-S's course on more pixels, and Uni-AdaFocus-X3D has X3D-L's layers.
each_network = pytest.mark.parametrize("name", [name for name in architectures() if name not in ("x3d_m", "x3d_l")])
each_with_exits = pytest.mark.parametrize("name", WITH_EXITS)


class Leaving:
    """A gate that lets every video leave at the exit that is wanted of it."""

    def __init__(self, exit_of: list[int]) -> None:
        self.exit_of, self.inside, self.exit_number = exit_of, list(range(len(exit_of))), 0

    def __call__(self, logits: torch.Tensor) -> ExitGate:
        assert len(logits) == len(self.inside)
        leave = [row for row, video in enumerate(self.inside) if self.exit_of[video] <= self.exit_number]
        keep = [row for row in range(len(self.inside)) if row not in leave]
        self.inside, self.exit_number = [self.inside[row] for row in keep], self.exit_number + 1
        keep, leave = (torch.tensor(rows, dtype=torch.int64) for rows in (keep, leave))
        return ExitGate(score=None, exited=None, keep=keep, leave=leave, counts=None)


def frames_seen(name: str, model: VideoModel, exit_number: int) -> int:
    """Of a video that leaves at this exit, in how many of its K frames the focus looked."""
    if name not in EACH_FRAME:
        return exit_number * model.num_focus_frames
    return exit_number + 1 + model.num_focus_frames - model.num_exits


@each_network
@torch.inference_mode()
def test_output(name):
    model = small(name, torch.float32)
    output = model(*inputs_of(model, 2, torch.float32))
    exits, focused = model.num_exits, model.num_focus_frames
    assert output.logits.shape == (2, 6)
    assert output.exit_logits.shape == (2, exits, 6)
    assert torch.equal(output.logits, output.exit_logits[:, -1])
    assert output.frame_index.shape == (2, focused)
    assert output.frame_index.dtype == torch.int64
    assert output.boxes.shape == ((2, focused, 4) if name in EACH_FRAME else (2, 4))
    assert output.weights.shape == (2, model.num_glance_frames)
    if model.has_glance:
        torch.testing.assert_close(output.weights.sum(1), torch.ones(2))
    assert (output.boxes[..., :2] - output.boxes[..., 2:] / 2).min() >= 0
    assert (output.boxes[..., :2] + output.boxes[..., 2:] / 2).max() <= model.frame_size
    assert not any(x.isnan().any() for x in (output.exit_logits, output.boxes, output.weights))


@each_network
@torch.inference_mode()
def test_videos_do_not_mix_and_bytes_are_normalised(name):
    model = small(name)
    inputs = [(x * 50 + 128).clamp(0, 255).to(torch.uint8) for x in inputs_of(model, 2)]
    whole = model(*inputs)
    mean, std = (torch.tensor(x, dtype=torch.float64)[:, None, None] for x in (model.mean, model.std))
    for video in range(2):
        alone = model(*(((x[video : video + 1].double() / 255) - mean) / std for x in inputs))
        torch.testing.assert_close(alone.exit_logits[0], whole.exit_logits[video], rtol=1e-6, atol=1e-8)
        torch.testing.assert_close(alone.boxes[0], whole.boxes[video], rtol=1e-6, atol=1e-6)


@each_network
@torch.inference_mode()
@pytest.mark.parametrize("gated", [False, True])
def test_no_videos(name, gated):
    model = small(name, torch.float32)
    gate = {"gate": Leaving([])} if gated and model.has_early_exit else {}
    output = model(*inputs_of(model, 0, torch.float32), **gate)
    assert output.exit_logits.shape == (0, model.num_exits, 6)
    assert output.frame_index.shape == (0, model.num_focus_frames)
    assert output.boxes.shape[0] == 0


# ----------------------------------------------------------------------------------------------------
# Exits


@each_with_exits
@settings(max_examples=3, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
@torch.inference_mode()
def test_whoever_leaves_has_the_answer_of_that_exit(name, data):
    model, ungated = with_ungated(name)
    videos, last = len(ungated.logits), model.num_exits - 1
    exit_of = data.draw(st.lists(st.integers(0, last), min_size=videos, max_size=videos))
    output = model(*inputs_of(model, videos), gate=Leaving(exit_of))
    for video, exit_number in enumerate(exit_of):
        reached = slice(0, exit_number + 1)
        close = {"rtol": 1e-6, "atol": 1e-9}
        torch.testing.assert_close(output.logits[video], ungated.exit_logits[video, exit_number], **close)
        torch.testing.assert_close(output.exit_logits[video, reached], ungated.exit_logits[video, reached], **close)
        assert output.exit_logits[video, exit_number + 1 :].isnan().all()
        seen = frames_seen(name, model, exit_number)
        assert torch.equal(output.frame_index[video, :seen], ungated.frame_index[video, :seen])
        assert (output.frame_index[video, seen:] == -1).all()
        if output.boxes.ndim == 3:
            torch.testing.assert_close(output.boxes[video, :seen], ungated.boxes[video, :seen], **close)
            assert output.boxes[video, seen:].isnan().all()
        elif seen:
            torch.testing.assert_close(output.boxes[video], ungated.boxes[video], **close)
        else:
            assert output.boxes[video].isnan().all()
    assert [x.dtype for x in output[:5]] == [x.dtype for x in ungated[:5]]


@lru_cache(maxsize=1)  # for all examples of a test
def with_ungated(name: str) -> tuple[VideoModel, Output]:
    """The model, and what it answers for three videos without a gate."""
    model = small(name)
    return model, model(*inputs_of(model, 3))


@each_with_exits
@torch.inference_mode()
def test_whoever_has_left_costs_nothing_more(name):
    model = small(name, torch.float32)
    seen = Counter()
    for encoder in ("glance_encoder", "focus_encoder"):
        getattr(model, encoder).register_forward_pre_hook(lambda _, x, name=encoder: seen.update({name: len(x[0])}))
    last = model.num_exits - 1
    exit_of = [0, last, min(1, last)]
    model(*inputs_of(model, 3, torch.float32), gate=Leaving(exit_of))
    assert seen["focus_encoder"] == sum(frames_seen(name, model, exit_number) for exit_number in exit_of)
    each = frames_seen(name, model, 0) > 0  # a glance at a frame is followed by a look at it
    glanced = [exit_number + 1 if each else model.num_glance_frames for exit_number in exit_of]
    assert seen["glance_encoder"] == sum(glanced)


@each_with_exits
@torch.inference_mode()
def test_nothing_runs_where_all_have_left(name):
    model = small(name, torch.float32)
    stages = record_stages(model)
    model(*inputs_of(model, 2, torch.float32), gate=Leaving([0, 0]))
    seen = frames_seen(name, model, 0)
    assert len(stages["glance"]) == 1
    assert len(stages["focus"]) == len(stages["policy"]) == seen
    assert len(stages["head"]) == 1


@each_with_exits
def test_costs_of_the_exits_add_up(name):
    with torch.device("meta"):
        model = create_model(name, num_classes=6, **SMALL[name])
    costs, counts = exit_costs(model), multiply_adds(model)
    assert len(costs) == model.num_exits
    assert (costs[0], costs[-1]) == (counts["exit0"], counts["total"])
    steps = [after - before for before, after in pairwise(costs)]
    assert min(steps) > 0
    if name in EACH_FRAME:  # the first patch comes with the policy's work, every other costs what one costs
        assert max(steps[1:]) == min(steps[1:])


# ----------------------------------------------------------------------------------------------------
# Dtypes, layouts, tuning


@each_network
@torch.inference_mode()
def test_channels_last_and_16_bits(name):
    """Parity with the published code is tested in channels_last, in float32."""
    model = small(name, torch.bfloat16).to(memory_format=torch.channels_last)
    reads = record_stages(model)["read"]
    output = model(*inputs_of(model, 2, torch.float32))
    assert reads
    for patches in reads:
        assert patches.dtype == torch.bfloat16
        assert patches.is_contiguous(memory_format=torch.channels_last)
    assert output.logits.dtype == torch.bfloat16
    assert output.boxes.dtype == output.weights.dtype == torch.float32
    assert output.exit_logits.isfinite().all()


@each_network
@torch.inference_mode()
def test_folding_changes_no_result(name):
    model = small(name).to(memory_format=torch.channels_last)
    folded = fold_batch_norm(model)
    norms = (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d, torch.nn.BatchNorm3d)
    assert not any(isinstance(module, norms) for module in folded.modules())
    inputs = inputs_of(model, 2)
    want, found = model(*inputs), folded(*inputs)
    assert torch.equal(found.frame_index, want.frame_index)
    for field in ("exit_logits", "boxes"):
        a, b = getattr(found, field), getattr(want, field)
        assert (a - b).norm() / b.norm() <= 1e-8, field


@pytest.mark.slow
@each_network
@torch.inference_mode()
def test_compiles_in_full(name):
    model = small(name, torch.float32)
    inputs = inputs_of(model, 2, torch.float32)
    want = model(*inputs)
    torch._dynamo.reset()
    found = torch.compile(model, fullgraph=True, backend="aot_eager")(*inputs)
    assert torch.equal(found.frame_index, want.frame_index)
    torch.testing.assert_close(found.exit_logits, want.exit_logits, rtol=1e-2, atol=1e-3)


@pytest.mark.slow
@each_network
@torch.inference_mode()
def test_exports(name):
    """With a batch that may change; saved, and loaded."""
    model = small(name, torch.float32)
    inputs = tuple(inputs_of(model, 2, torch.float32))
    batch = torch.export.Dim("batch", min=2, max=64)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(model, inputs, dynamic_shapes=tuple({0: batch} for _ in inputs))
        torch.export.save(program, buffer)
        buffer.seek(0)
        loaded = torch.export.load(buffer).module()
    more = inputs_of(model, 3, torch.float32)
    torch.testing.assert_close(loaded(*more).exit_logits, model(*more).exit_logits, rtol=1e-2, atol=1e-3)

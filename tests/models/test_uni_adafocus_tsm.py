"""Uni-AdaFocus-TSM: what goes in, who leaves early, and what is not run."""

from collections import Counter
from functools import partial

import pytest
import torch
from oracle_models import fill, record_stages, small_model
from torch import nn

from adafocus_models import MobileNetV2, ResNet50
from adafocus_ops import entropy, exit_gate

SIDE = 224


def clips(videos: int, frames: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> torch.Tensor:
    """[videos, frames, 3, 224, 224] smooth noise that differs between videos and frames."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(videos * frames, 3, 14, 14, generator=generator, dtype=dtype)
    return nn.functional.interpolate(coarse, size=(SIDE, SIDE), mode="bilinear").unflatten(0, (videos, frames))


def uint8_clips(videos: int, frames: int, seed: int = 0) -> torch.Tensor:
    return (clips(videos, frames, seed=seed) * 50 + 128).clamp(0, 255).to(torch.uint8)


def assert_same(a, b, **tolerance) -> None:
    """Two outputs agree in every field, NaN and None included."""
    for field, x, y in zip(a._fields, a, b, strict=True):
        if x is None or y is None:
            assert x is y, field
        else:
            torch.testing.assert_close(x, y, equal_nan=True, **tolerance, msg=lambda m, field=field: f"{field}: {m}")


@torch.inference_mode()
def test_output_shapes_and_dtypes():
    model = small_model(torch.float32)
    output = model(clips(3, 5, torch.float32))
    assert output.logits.shape == (3, 6)
    assert output.exit_logits.shape == (3, 2, 6)
    assert output.frame_index.shape == (3, 2)
    assert output.frame_index.dtype == torch.int64
    assert output.boxes.shape == (3, 4)
    assert output.weights.shape == (3, 2)
    torch.testing.assert_close(output.weights.sum(1), torch.ones(3))
    corners = torch.cat([output.boxes[:, :2] - output.boxes[:, 2:] / 2, output.boxes[:, :2] + output.boxes[:, 2:] / 2])
    assert corners.min() >= 0
    assert corners.max() <= SIDE
    assert output.boxes[:, 2:].min() >= 96


@torch.inference_mode()
def test_uint8_equals_normalised_float():
    model = small_model()
    frames, glance = uint8_clips(2, 5), uint8_clips(2, 2, seed=1)
    mean, std = (torch.tensor(x, dtype=torch.float64)[:, None, None] for x in (model.mean, model.std))
    normalised = [(x.double() / 255 - mean) / std for x in (frames, glance)]
    assert_same(model(frames, glance), model(*normalised), rtol=1e-9, atol=1e-9)


@torch.inference_mode()
@pytest.mark.parametrize("make", [clips, uint8_clips])
def test_any_strides(make):
    """Frames with channels last, and a part of larger frames, give what contiguous ones give."""
    model = small_model()
    frames, glance = make(2, 5), make(2, 2, seed=1)
    output = model(frames, glance)

    def channels_last(x):
        return x.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)

    def part_of_larger(x):
        larger = x.new_zeros(2, 2 * x.shape[1], 3, SIDE + 9, SIDE + 5)
        part = larger[:, ::2, :, 4 : SIDE + 4, 3 : SIDE + 3]
        part.copy_(x)
        return part

    assert_same(model(channels_last(frames), channels_last(glance)), output, rtol=0, atol=0)
    assert_same(model(part_of_larger(frames), part_of_larger(glance)), output, rtol=0, atol=0)


@torch.inference_mode()
@pytest.mark.parametrize(("candidates", "positions"), [(5, [1, 3]), (8, [1, 5]), (2, [1, 1])])
def test_glance_frames_from_candidates(candidates, positions):
    """1 + i (N // T0), and no further than the last candidate."""
    model = small_model(num_candidate_frames=candidates)
    frames = clips(2, candidates)
    output = model(frames)
    assert output.glance_index.tolist() == [positions] * 2
    assert_same(output._replace(glance_index=None), model(frames, frames[:, positions]), rtol=0, atol=0)


@torch.inference_mode()
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_reads_follow_the_weights(dtype, memory_format):
    model = small_model(dtype).to(memory_format=memory_format)
    stages = record_stages(model)
    output = model(uint8_clips(2, 5))
    for patches in stages["read"]:
        assert patches.dtype == dtype
        assert patches.is_contiguous(memory_format=memory_format)
    assert output.logits.dtype == dtype
    assert output.boxes.dtype == output.weights.dtype == torch.float32


@torch.inference_mode()
def test_channels_last_model():
    """Reaches the five-dimensional weights too, and changes no result."""
    model = small_model()
    frames = clips(2, 5)
    output = model(frames)
    assert model.to(memory_format=torch.channels_last) is model
    convolution = model.spatial_policy.layers[3].weight
    assert convolution.is_contiguous(memory_format=torch.channels_last_3d)
    assert_same(model(frames), output, rtol=1e-9, atol=1e-9)
    assert model.to(torch.float32, memory_format=torch.contiguous_format).focus_head.weight.dtype == torch.float32
    assert convolution.is_contiguous()


@torch.inference_mode()
def test_batch_does_not_mix_videos():
    model = small_model()
    frames = clips(3, 5)
    whole = model(frames)
    for video in range(3):
        alone = model(frames[video : video + 1])
        assert_same(alone, type(whole)(*(field[video : video + 1] for field in whole)), rtol=1e-9, atol=1e-9)


# ----------------------------------------------------------------------------------------------------
# The gate


def gate_at(threshold):
    return partial(exit_gate, threshold=threshold)


@torch.inference_mode()
@pytest.mark.parametrize("leave", ["none", "all", "some"])
def test_gate(leave):
    model = small_model()
    frames, glance = clips(4, 5), clips(4, 2, seed=1)
    free = model(frames, glance)
    scores = entropy(free.exit_logits[:, 0]).sort().values
    threshold = {"none": scores[0] - 1, "all": scores[-1] + 1, "some": (scores[1] + scores[2]) / 2}[leave]
    left = entropy(free.exit_logits[:, 0]) <= threshold
    assert int(left.sum()) == {"none": 0, "all": 4, "some": 2}[leave]

    stages = record_stages(model)
    output = model(frames, glance, gate=gate_at(threshold))
    calls = {stage: len(returned) for stage, returned in stages.items()}
    closer = 0 if leave == "all" else 1
    assert calls == {"read": 1 + closer, "glance": 1, "policy": closer, "focus": closer, "head": 1 + closer}
    if closer:
        assert stages["focus"][0].shape[0] == 4 - int(left.sum())

    torch.testing.assert_close(output.exit_logits[:, 0], free.exit_logits[:, 0], rtol=0, atol=0)
    torch.testing.assert_close(output.logits[left], free.exit_logits[left, 0], rtol=0, atol=0)
    assert output.exit_logits[left, 1].isnan().all()
    assert output.boxes[left].isnan().all()
    assert output.weights[left].isnan().all()
    assert (output.frame_index[left] == -1).all()
    stayed = ~left
    torch.testing.assert_close(output.logits[stayed], free.logits[stayed], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(output.exit_logits[stayed], free.exit_logits[stayed], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(output.boxes[stayed], free.boxes[stayed], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(output.weights[stayed], free.weights[stayed], rtol=1e-9, atol=1e-9)
    assert torch.equal(output.frame_index[stayed], free.frame_index[stayed])
    assert [x.dtype for x in output[:5]] == [x.dtype for x in free[:5]]


@torch.inference_mode()
@pytest.mark.parametrize("gate", [None, gate_at(0.5)])
def test_no_videos(gate):
    output = small_model(torch.float32)(torch.zeros(0, 5, 3, SIDE, SIDE), gate=gate)
    assert output.exit_logits.shape == (0, 2, 6)
    assert output.frame_index.shape == (0, 2)
    assert output.boxes.shape == (0, 4)


@torch.inference_mode()
def test_gate_must_sort_every_video():
    model = small_model(torch.float32)
    for capacity in (1, 2, 3):  # cut off, both -1 and rows, only padded
        with pytest.raises(ValueError, match=r"gate must sort each of the 2 videos .* got \[.*-1.*\]|got \[0\] and"):
            model(clips(2, 5, torch.float32), gate=partial(exit_gate, threshold=0.5, capacity=capacity))


# ----------------------------------------------------------------------------------------------------
# Inference and training


@torch.inference_mode()
def test_inference_runs_every_layer_once_and_no_training_head():
    model = small_model(torch.float32)
    calls: Counter = Counter()
    for name, module in model.named_modules():
        if next(module.parameters(recurse=False), None) is not None:
            module.register_forward_hook(lambda *_, name=name: calls.update([name]))
    model(clips(1, 5, torch.float32))
    with_weights = {name.rpartition(".")[0] for name, _ in model.named_parameters()}
    assert with_weights - calls.keys() == {"focus_aux_head", "spatial_aux_head"}
    assert set(calls.values()) == {1}


def test_gradients_reach_encoders_and_spatial_policy():
    model = small_model(torch.float32).train()
    model(clips(2, 5, torch.float32)).logits.square().sum().backward()
    gradients = {name: [p.grad for p in child.parameters()] for name, child in model.named_children()}
    without = {name for name, found in gradients.items() if found and all(gradient is None for gradient in found)}
    # The pick of frames is discrete, and auxiliary heads are not part of the answer.
    assert without == {"temporal_policy", "glance_aux_head", "focus_aux_head", "spatial_aux_head"}
    assert model.spatial_policy.layers[0].weight.grad.abs().max() > 0
    assert model.glance_encoder.features[0][0].weight.grad.abs().max() > 0


# ----------------------------------------------------------------------------------------------------
# The shift


@torch.inference_mode()
@pytest.mark.parametrize("encoder", [MobileNetV2, ResNet50])
def test_shift_mixes_frames_of_a_clip_only(encoder):
    x = clips(2, 3)[..., :64, :64].flatten(0, 1)
    changed = x.clone()
    changed[1] += 1  # the middle frame of clip 0
    for num_frames, affected in ((0, [False, True, False]), (3, [True, True, True])):
        model = fill(encoder(num_frames)).double()
        moved = (model(changed) - model(x)).abs().amax((1, 2, 3)) > 0
        assert moved.tolist() == affected + [False] * 3
    assert encoder(0).state_dict().keys() == encoder(3).state_dict().keys()


# ----------------------------------------------------------------------------------------------------
# Bad input


@pytest.mark.parametrize(
    ("frames", "glance_frames", "error", "message"),
    [
        ((1, 4, 3, SIDE, SIDE), None, ValueError, r"frames must be \[B, 5, 3, 224, 224\], got \(1, 4, 3, 224, 224\)"),
        ((5, 3, SIDE, SIDE), None, ValueError, r"frames must be \[B, 5, 3, 224, 224\], got \(5, 3, 224, 224\)"),
        ((1, 5, SIDE, SIDE, 3), None, ValueError, r"frames must be .* got \(1, 5, 224, 224, 3\) float32"),
        ((1, 5, 3, SIDE, SIDE), (1, 3, 3, SIDE, SIDE), ValueError, r"glance_frames must be \[B, 2, 3, 224, 224\]"),
        ((1, 5, 3, SIDE, SIDE), (2, 2, 3, SIDE, SIDE), ValueError, r"glance_frames must be of the 1 videos of frames"),
    ],
)
def test_wrong_shapes(frames, glance_frames, error, message):
    model = small_model(torch.float32)
    with pytest.raises(error, match=message):
        model(torch.zeros(frames), None if glance_frames is None else torch.zeros(glance_frames))


def test_wrong_types():
    model = small_model(torch.float32)
    with pytest.raises(TypeError, match="frames must be a tensor, got list"):
        model([[0]])
    with pytest.raises(TypeError, match=r"frames must be uint8 or floating point, got .* int64"):
        model(torch.zeros(1, 5, 3, SIDE, SIDE, dtype=torch.int64))


def test_fewer_candidates_than_glance_frames():
    model = small_model(torch.float32, num_glance_frames=3, num_candidate_frames=2)
    with pytest.raises(ValueError, match=r"glance_frames must be given when there are fewer candidates \(2\)"):
        model(torch.zeros(1, 2, 3, SIDE, SIDE))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"num_focus_frames": 6}, ValueError, "num_candidate_frames must be at least num_focus_frames=6, got 5"),
        ({"num_classes": 0}, ValueError, "num_classes must be at least 1, got 0"),
        ({"patch_size": 96.0}, TypeError, "patch_size must be an int, got float"),
    ],
)
def test_wrong_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        small_model(**arguments)

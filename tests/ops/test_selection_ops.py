"""quantile_frames, exit_gate, temporal_shift, entropy, confidence: published values and degenerate inputs."""

import json

import numpy as np
import pytest
import torch

import adafocus_ops
from adafocus_ops import confidence, entropy, exit_gate, quantile_frames, temporal_shift
from conftest import ORACLES

INDEX = json.loads((ORACLES / "ops" / "index.json").read_text())


def arrays(name: str, case: str) -> dict[str, torch.Tensor]:
    data = np.load(ORACLES / "ops" / f"{name}.npz")
    return {k.removeprefix(case + "."): torch.from_numpy(data[k]) for k in data.files if k.startswith(case + ".")}


# ----------------------------------------------------------------------------------------------------
# quantile_frames


@pytest.mark.parametrize("case", INDEX["frame_indices"])
def test_quantile_frames_are_the_published_ones(case):
    config, data = INDEX["frame_indices"][case], arrays("frame_indices", case)
    count, k = config["N_candidates"], config["K_selected"]
    sure = data["unambiguous"]
    assert sure.sum() > 0.9 * len(sure)
    assert torch.equal(quantile_frames(data["weights"], count, k)[sure], data["indices"][sure])
    if "jitter" in data:
        sure = data["jitter_unambiguous"]
        got = quantile_frames(data["weights"], count, k, jitter=data["jitter"])
        assert torch.equal(got[sure], data["jitter_indices"][sure])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("count", "k"), [(24, 8), (8, 8), (48, 1), (5, 3)])
def test_degenerate_weights_give_distinct_frames_in_range(count, k, dtype):
    nan, inf = float("nan"), float("inf")
    rows = [[1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0], [nan] * 4, [nan, 1, nan, 0], [-1, 2, -3, 4], [inf, 1, inf, 0],
            [1e-30, 0, 0, 1e-30], [0.25] * 4, [100.0] * 4]  # fmt: skip
    index = quantile_frames(torch.tensor(rows, dtype=dtype), count, k)
    assert index.shape == (len(rows), k)
    assert index.min() >= 0
    assert index.max() < count
    assert (index.diff(dim=1) > 0).all()


def test_nan_jitter_gives_distinct_frames_in_range():
    index = quantile_frames(torch.ones(1, 4), 24, 3, jitter=torch.tensor([[0.5, float("nan"), 7.0]]))
    assert index.min() >= 0
    assert index.max() < 24
    assert (index.diff() > 0).all()


def test_one_hot_weights_pick_neighbours():
    assert quantile_frames(torch.eye(4)[2:3], 16, 4).tolist() == [[8, 9, 10, 11]]
    assert quantile_frames(torch.eye(4)[3:], 16, 6).tolist() == [[10, 11, 12, 13, 14, 15]]


def test_quantile_frames_draws_from_the_generator():
    weights = torch.rand(50, 8).softmax(1)
    runs = [quantile_frames(weights, 24, 8, generator=torch.Generator().manual_seed(seed)) for seed in (3, 3, 4)]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((torch.ones(3), 8, 2), {}, r"weights must be \[B, T\], got \(3,\) float32"),
        ((torch.ones(3, 4), 8, 9), {}, "k must be at most num_frames=8, got 9"),
        ((torch.ones(3, 4), 8, 0), {}, "k must be at least 1, got 0"),
        ((torch.ones(3, 4), 8, 2), {"jitter": torch.zeros(3, 3)}, r"jitter must be \[B, k\] with B=3 .* and k=2"),
    ],
)
def test_quantile_frames_bad_arguments(args, kwargs, message):
    with pytest.raises(ValueError, match=message):
        quantile_frames(*args, **kwargs)


# ----------------------------------------------------------------------------------------------------
# entropy, confidence, exit_gate


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_entropy_is_finite_for_any_gap(dtype):
    logits = torch.tensor([[0.0, 200.0, -200.0], [0.0, 20.0, 30000.0], [1.0, 1.0, 1.0]], dtype=dtype)
    logits.requires_grad_()
    values = entropy(logits)
    values.sum().backward()
    assert logits.grad.isfinite().all()
    assert values[0] <= 1e-80
    assert values[1] == 0
    torch.testing.assert_close(values[2], torch.tensor(3.0, dtype=values.dtype).log())
    torch.testing.assert_close(confidence(logits.detach())[2], torch.tensor(1 / 3, dtype=values.dtype))


def test_entropy_equals_its_definition_and_skips_masked_classes():
    logits = torch.randn(20, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(entropy(logits), torch.distributions.Categorical(logits=logits).entropy())
    masked = torch.cat([logits, torch.full((20, 1), float("-inf"))], 1)
    torch.testing.assert_close(entropy(masked), entropy(logits))
    leaf = logits.clone().requires_grad_()
    assert torch.autograd.gradcheck(entropy, (leaf,))
    assert torch.autograd.gradcheck(confidence, (leaf,))


@pytest.mark.parametrize(
    ("threshold", "keep", "leave"),
    [(-1.0, [0, 1, 2, 3], []), (10.0, [1], [0, 2, 3]), (0.5, [1, 3], [0, 2])],
    ids=["none leave", "all leave but NaN", "some leave"],
)
def test_exit_gate_keeps_the_order(threshold, keep, leave):
    logits = torch.tensor([[9.0, 0.0], [float("nan"), 1.0], [0.0, 9.0], [0.0, 0.1]])
    gate = exit_gate(logits, threshold)
    assert gate.keep.tolist() == keep
    assert gate.leave.tolist() == leave
    assert gate.counts.tolist() == [len(keep), len(leave)]
    assert gate.exited.nonzero().flatten().tolist() == leave


def test_exit_gate_at_the_threshold_leaves():
    logits = torch.zeros(1, 4, dtype=torch.float64)
    at = entropy(logits)[0]
    assert exit_gate(logits, at).exited.all()
    assert exit_gate(logits, 0.25, criterion="confidence").exited.all()
    assert not exit_gate(logits, 0.2500001, criterion="confidence").exited.any()


def test_exit_gate_with_capacity_pads_and_cuts_off():
    logits = torch.tensor([[9.0, 0.0], [0.0, 0.0], [0.0, 9.0], [0.0, 0.1]])
    gate = exit_gate(logits, 0.5, capacity=3)
    assert gate.keep.tolist() == [1, 3, -1]
    assert gate.leave.tolist() == [0, 2, -1]
    assert exit_gate(logits, 0.5, capacity=1).leave.tolist() == [0]
    assert exit_gate(logits, 0.5, capacity=1).counts.tolist() == [2, 2]


@pytest.mark.parametrize(
    "active", [torch.tensor([True, True, False, True]), torch.tensor([3, 0, 1, -1])], ids=["mask", "rows"]
)
def test_exit_gate_leaves_inactive_rows_alone(active):
    logits = torch.tensor([[9.0, 0.0], [0.0, 0.0], [0.0, 9.0], [0.0, 0.1]])
    gate = exit_gate(logits, 0.5, active=active)
    assert gate.keep.tolist() == [1, 3]
    assert gate.leave.tolist() == [0]
    assert gate.counts.tolist() == [2, 1]


@pytest.mark.parametrize("rows", [0, 1])
def test_exit_gate_of_few_rows(rows):
    gate = exit_gate(torch.zeros(rows, 3), 0.0)
    assert gate.keep.tolist() == list(range(rows))
    assert gate.counts.tolist() == [rows, 0]
    assert exit_gate(torch.zeros(rows, 3), 0.0, capacity=2).keep.tolist() == [*range(rows), -1, -1][:2]


@pytest.mark.parametrize(
    ("args", "kwargs", "error", "message"),
    [
        ((torch.zeros(3), 1.0), {}, ValueError, r"logits must be \[N, C\], got \(3,\) float32"),
        ((torch.zeros(3, 2).int(), 1.0), {}, TypeError, "logits must have dtype"),
        (
            (torch.zeros(3, 2), 1.0),
            {"criterion": "margin"},
            ValueError,
            "criterion must be one of 'entropy', 'confidence'",
        ),
        ((torch.zeros(3, 2), torch.zeros(3)), {}, ValueError, "threshold must be a number or a 0-dimensional tensor"),
        ((torch.zeros(3, 2), 1.0), {"active": torch.zeros(2).bool()}, ValueError, r"active must be \[N\] with N=3"),
        ((torch.zeros(3, 2), 1.0), {"capacity": 0}, ValueError, "capacity must be at least 1, got 0"),
    ],
)
def test_exit_gate_bad_arguments(args, kwargs, error, message):
    with pytest.raises(error, match=message):
        exit_gate(*args, **kwargs)


# ----------------------------------------------------------------------------------------------------
# temporal_shift


@pytest.mark.parametrize("case", INDEX["temporal_shift"])
def test_temporal_shift_is_the_published_one(case):
    config, data = INDEX["temporal_shift"][case], arrays("temporal_shift", case)
    frames = next(config[key] for key in ("segments", "num_segments", "n_segment") if key in config)
    got = temporal_shift(data["x"], frames, fold_div=config.get("fold_div", 8))
    assert torch.equal(got, data["out"])


def test_temporal_shift_keeps_channels_last():
    x = torch.rand(4, 16, 3, 5).contiguous(memory_format=torch.channels_last)
    assert temporal_shift(x, 2).is_contiguous(memory_format=torch.channels_last)


def test_temporal_shift_bad_arguments():
    with pytest.raises(
        ValueError, match=r"x must be \[B \* num_frames, C, H, W\] with num_frames=3, got \(4, 8, 2, 2\)"
    ):
        temporal_shift(torch.zeros(4, 8, 2, 2), 3)
    with pytest.raises(ValueError, match="fold_div must be at least 2, got 1"):
        temporal_shift(torch.zeros(4, 8, 2, 2), 2, fold_div=1)


# ----------------------------------------------------------------------------------------------------
# Choosing a backend


def test_explicit_beats_context_beats_environment_beats_best(monkeypatch):
    choose = adafocus_ops.backends.choose
    best = choose("crop_resize", "cpu", None)
    monkeypatch.setenv("ADAFOCUS_BACKEND", "reference")
    assert choose("crop_resize", "cpu", None) == "reference"
    monkeypatch.delenv("ADAFOCUS_BACKEND")
    with adafocus_ops.use_backend("reference"):
        assert choose("crop_resize", "cpu", None) == "reference"
        if best == "cpu":
            assert choose("crop_resize", "cpu", "cpu") == "cpu"
    assert choose("crop_resize", "cpu", None) == best


def test_use_backend_rejects_an_unknown_name():
    with pytest.raises(ValueError, match="name must be one of cuda, cpu, triton, reference, got 'gpu'"):  # noqa: SIM117
        with adafocus_ops.use_backend("gpu"):
            pass


def test_a_named_backend_never_falls_back():
    with pytest.raises(RuntimeError, match="backend 'cuda' cannot run crop_resize: it needs CUDA tensors, got cpu"):
        adafocus_ops.crop_resize(torch.zeros(1, 1, 4, 4), torch.ones(1, 4), 2, backend="cuda")

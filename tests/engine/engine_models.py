"""Small models and engines for the tests of the engine."""

import pytest
import torch
from oracle_models import inputs_of, small
from torch import Tensor

from adafocus_models import Output, VideoModel
from adafocus_models.engine import Engine, candidates, tuning


@pytest.fixture
def quick(monkeypatch):
    quick_tuning(monkeypatch)


def quick_tuning(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is timed: the last form is taken for the fastest, so that the plain one is never chosen."""
    last_wins = lambda calls, *_, **__: {name: 1 / number for number, name in enumerate(calls, 1)}  # noqa: E731
    monkeypatch.setattr(candidates, "median_ms", last_wins)
    monkeypatch.setattr(tuning, "_is_slower", lambda *_: False)


def bytes_of(model: VideoModel, videos: int) -> list[Tensor]:
    """Inputs of smooth noise as bytes."""
    return [(x * 50 + 128).clamp(0, 255).to(torch.uint8) for x in inputs_of(model, videos, torch.float32)]


def engine_of(model: VideoModel, **options) -> Engine:
    """An engine for two videos at a time, of what torch brings."""
    return Engine(model, **({"batch_size": 2, "runtime": "library", "check": False, "keep_memory": False} | options))


def assert_equal_outputs(found: Output, expected: Output) -> None:
    """Frames and what is missing exactly, boxes to a hundredth of a pixel, logits to a thousandth of the largest: a
    thousandth of a pixel changes the logits of random weights by as much."""
    for name in ("logits", "exit_logits"):
        ours, theirs = getattr(found, name), getattr(expected, name)
        assert ours.dtype == theirs.dtype
        assert torch.equal(ours.isnan(), theirs.isnan())
        scale = theirs.nan_to_num().abs().max() if theirs.numel() else 1.0
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-3 * float(scale), equal_nan=True)
    assert torch.equal(found.frame_index, expected.frame_index)
    torch.testing.assert_close(found.boxes, expected.boxes, rtol=0, atol=1e-2, equal_nan=True)
    torch.testing.assert_close(found.weights, expected.weights, rtol=0, atol=1e-4, equal_nan=True)
    assert (found.glance_index is None) == (expected.glance_index is None)
    if found.glance_index is not None:
        assert torch.equal(found.glance_index, expected.glance_index)


def small_tsm(dtype: torch.dtype = torch.float32) -> VideoModel:
    return small("uni_adafocus_tsm", dtype)

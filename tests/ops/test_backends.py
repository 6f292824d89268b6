"""Which backend answers a call."""

import pytest
import torch

import adafocus_ops


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

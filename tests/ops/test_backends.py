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


def test_the_reference_takes_tensors_without_memory():
    frames, boxes = torch.empty(2, 3, 8, 8, device="meta"), torch.empty(2, 4, device="meta")
    assert adafocus_ops.crop_resize(frames, boxes, 4, backend="reference").shape == (2, 3, 4, 4)
    assert adafocus_ops.temporal_shift(frames, 2, backend="reference").device.type == "meta"


def test_use_backend_rejects_an_unknown_name():
    with pytest.raises(ValueError, match="name must be one of cuda, cpu, triton, reference, got 'gpu'"):  # noqa: SIM117
        with adafocus_ops.use_backend("gpu"):
            pass


def test_a_named_backend_never_falls_back():
    with pytest.raises(RuntimeError, match="backend 'cuda' cannot run crop_resize: it needs CUDA tensors, got cpu"):
        adafocus_ops.crop_resize(torch.zeros(1, 1, 4, 4), torch.ones(1, 4), 2, backend="cuda")


@pytest.mark.parametrize("name", ["backends", "boxes", "checks"])
def test_public_modules_list_what_is_public(name):
    module = getattr(adafocus_ops, name)
    assert module.__all__ == sorted(module.__all__)
    for public in module.__all__:
        assert getattr(module, public).__doc__
    if name != "checks":  # which shows the two packages its helpers
        assert dir(module) == module.__all__
        assert "require" not in dir(module)

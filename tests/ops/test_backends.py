"""Which backend answers a call."""

import pytest
import torch

import adafocus_ops
from adafocus_ops import backends


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


@pytest.mark.parametrize(
    ("capability", "torch_cuda", "built", "reason"),
    [
        ((8, 6), "13.2", "13.0, sm_86 sm_90", None),
        ((8, 9), "13.2", "13.0, sm_86 sm_90", None),  # machine code of the same major version, of a lower minor one
        ((9, 0), "12.8", "12.4, sm_80 compute_80", None),  # PTX, which the driver compiles
        ((10, 0), "13.2", "13.0, sm_80 sm_90 compute_80", None),
        ((12, 1), "13.2", "13.0, sm_120", None),
        ((8, 0), "13.2", "13.0, sm_86 sm_90", "built for sm_86 sm_90, and this GPU has compute capability 8.0"),
        ((8, 6), "13.2", "13.0, sm_90", "build it with ADAFOCUS_CUDA_ARCHS=8.6"),
        ((8, 6), "13.2", "13.0, sm_90 compute_90", "compute capability 8.6"),
        ((10, 0), "13.2", "13.0, sm_90", "compute capability 10.0"),
        ((8, 6), "12.8", "13.0, sm_86", "built with CUDA 13.0, and this torch has CUDA 12.8"),
    ],
)
def test_cuda_kernels_run_on_gpus_that_they_were_built_for(capability, torch_cuda, built, reason):
    found = backends._extension.why_no_code_for(capability, torch_cuda, built)
    assert found is None if reason is None else reason in found


def test_a_gpu_without_code_gets_the_next_backend(monkeypatch):
    monkeypatch.setattr(backends, "_why_not_compiled", lambda op, key: None)
    monkeypatch.setattr(backends, "_why_not_triton", lambda device: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(backends._extension, "build_info", lambda: {"cuda": "13.0, sm_90"})
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 6) if device.index == 1 else (9, 0))
    backends.why_not.cache_clear()
    try:
        devices = [torch.device("cuda", index) for index in (0, 1)]
        assert [backends.choose("crop_resize", device, None) for device in devices] == ["cuda", "triton"]
        with pytest.raises(RuntimeError, match=r"cannot run crop_resize: the extension was built for sm_90, and this"):
            backends.choose("crop_resize", devices[1], "cuda")
    finally:
        backends.why_not.cache_clear()


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

"""temporal_shift: published values, layouts, gradients."""

import pytest
import torch
from op_oracles import INDEX, arrays

from adafocus_ops import temporal_shift
from conftest import device_of, require_backend


@pytest.mark.parametrize("case", INDEX["temporal_shift"])
def test_values_are_the_published_ones(request, backend, case):
    device = device_of(backend)
    require_backend(request, "temporal_shift", backend, device)
    config, data = INDEX["temporal_shift"][case], arrays("temporal_shift", case)
    frames = next(config[key] for key in ("segments", "num_segments", "n_segment") if key in config)
    for memory_format in (torch.contiguous_format, torch.channels_last):
        x = data["x"].to(device).contiguous(memory_format=memory_format)
        got = temporal_shift(x, frames, fold_div=config.get("fold_div", 8), backend=backend)
        assert got.is_contiguous(memory_format=memory_format)
        assert torch.equal(got.cpu(), data["out"])


@pytest.mark.parametrize("channels", [3, 9, 24, 64])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float64], ids=str)
def test_any_fold_in_both_layouts(request, backend, dtype, channels):
    """Folds that end inside a vector of channels, planes that begin at odd addresses."""
    device = device_of(backend)
    require_backend(request, "temporal_shift", backend, device)
    x = torch.randn(6, channels, 3, 5, dtype=torch.float64).to(dtype)
    for memory_format in (torch.contiguous_format, torch.channels_last):
        there = x.to(device).contiguous(memory_format=memory_format)
        for fold_div in (2, 3, 8):
            for inverse in (False, True):
                how = {"fold_div": fold_div, "inverse": inverse}
                expected = temporal_shift(x, 3, backend="reference", **how)
                assert torch.equal(temporal_shift(there, 3, backend=backend, **how).cpu(), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("fold_div", [2, 3, 40])
def test_what_is_larger_than_the_caches(request, dtype, fold_div):
    """It takes another way through memory on a CPU: runs that begin anywhere, and are shorter than a line or longer."""
    require_backend(request, "temporal_shift", "cpu", "cpu")
    x = torch.randn(6, 33, 150, 300, generator=torch.Generator().manual_seed(0)).to(dtype)
    for memory_format in (torch.contiguous_format, torch.channels_last):
        there = x.contiguous(memory_format=memory_format)
        expected = temporal_shift(there, 3, fold_div=fold_div, backend="reference")
        got = temporal_shift(there, 3, fold_div=fold_div, backend="cpu")
        assert got.nbytes > 2**24
        assert torch.equal(got, expected)
    wide = torch.randn(6, 33, 151, 301).to(dtype)
    for cut in (wide[:, :, :-1], wide[..., :-1], wide[:, :-1, 1:], wide.transpose(2, 3)):
        expected = temporal_shift(cut, 3, fold_div=fold_div, backend="reference")
        assert torch.equal(temporal_shift(cut, 3, fold_div=fold_div, backend="cpu"), expected)


def test_the_inverse_takes_back_what_did_not_leave_the_clip():
    x = torch.randn(4, 8, 2, 2)
    back = temporal_shift(temporal_shift(x, 4, fold_div=4), 4, fold_div=4, inverse=True)
    lost = torch.zeros_like(x, dtype=torch.bool)
    lost[0, :2], lost[3, 2:4] = True, True
    assert torch.equal(back, x.masked_fill(lost, 0))


def test_derivatives_of_any_order():
    x = torch.randn(4, 6, 2, 1, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: temporal_shift(x, 2, fold_div=3), x)
    assert torch.autograd.gradgradcheck(lambda x: temporal_shift(x, 2, fold_div=3), x)


def test_bad_arguments():
    with pytest.raises(TypeError, match=r"x must have dtype float16, .*, got uint8"):
        temporal_shift(torch.zeros(2, 8, 1, 1, dtype=torch.uint8), 2)
    with pytest.raises(
        ValueError, match=r"x must be \[B \* num_frames, C, H, W\] with num_frames=3, got \(4, 8, 2, 2\)"
    ):
        temporal_shift(torch.zeros(4, 8, 2, 2), 3)
    with pytest.raises(ValueError, match="fold_div must be at least 2, got 1"):
        temporal_shift(torch.zeros(4, 8, 2, 2), 2, fold_div=1)

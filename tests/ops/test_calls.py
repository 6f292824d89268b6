"""What every op does with the forms in which people pass arguments, and with the settings they make around a call."""

import asyncio
import contextlib
import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

import adafocus_ops
from adafocus_ops import (
    backends,
    crop_mean,
    crop_resize,
    exit_gate,
    expected_value,
    gather_rows,
    quantile_frames,
    temporal_shift,
    use_backend,
    weighted_sample,
)
from adafocus_ops.examples import EXAMPLES
from conftest import device_of, is_emulated, require_backend

FRAMES, BOXES = torch.rand(2, 3, 8, 9), torch.tensor([[4, 4, 5, 6], [3, 5, 4, 4.0]])
WEIGHTS = torch.full((2, 250), 1 / 250)


@contextlib.contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


SETTINGS = {
    "device meta": lambda: torch.device("meta"),
    "dtype float64": lambda: default_dtype(torch.float64),
    "dtype float16": lambda: default_dtype(torch.float16),
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "inference mode": torch.inference_mode,
}


def results(op, example, backend):
    out = EXAMPLES[op].call(*example.args, backend=backend, **example.kwargs)
    return out if isinstance(out, tuple) else (out,)


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("op", backends.ops())
def test_settings_of_the_program_change_nothing(request, op, setting, backend):
    """Constants are built on the device of the tensors and of the type of the arithmetic, whatever the defaults are."""
    require_backend(request, op, backend, device_of(backend))
    if device_of(backend) != "cpu":
        pytest.skip("the settings are the CPU's")
    for example in itertools.islice(
        EXAMPLES[op].small(torch.float32, "contiguous"), 1 if is_emulated(backend) else None
    ):
        expected = results(op, example, backend)
        with SETTINGS[setting]():
            got = results(op, example, backend)
        for g, e in zip(got, expected, strict=True):
            assert (g.dtype, g.device) == (e.dtype, e.device)
            assert torch.equal(g.nan_to_num(7), e.nan_to_num(7)), example.name


@pytest.mark.parametrize("mean", [0.31, [0.1, 0.2, 0.3], np.float32(0.31), np.array([0.1, 0.2, 0.3])])
def test_constants_of_crops_follow_the_frames(mean):
    expected = crop_resize(FRAMES, BOXES, 4, mean=mean, std=0.5)
    for setting in SETTINGS.values():
        backends_of_constants = adafocus_ops._affine._constant_affines
        backends_of_constants.clear()  # or the first call's would be found
        with setting():
            assert torch.equal(crop_resize(FRAMES, BOXES, 4, mean=mean, std=0.5), expected)


@pytest.mark.parametrize("backend", ["cpu", "reference"])  # integers are made before a backend is chosen
@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.int16, np.uint64, np.int64])
def test_integers_of_numpy_are_as_good_as_pythons(request, kind, backend):
    for op in backends.ops():
        require_backend(request, op, backend, device_of(backend))
    device = device_of(backend)
    big = kind(120) if kind is np.int8 else kind(200)
    weights, values = WEIGHTS.to(device), torch.arange(500.0, device=device).view(2, 250) / 500
    how = {"seed": 3, "backend": backend}
    assert torch.equal(
        expected_value(values, weights, big, num_samples=kind(100), **how),
        expected_value(values, weights, int(big), num_samples=100, **how),
    )
    assert torch.equal(weighted_sample(weights, big, **how), weighted_sample(weights, int(big), **how))
    assert torch.equal(quantile_frames(weights, big, kind(9), **how), quantile_frames(weights, int(big), 9, **how))
    frames, boxes = FRAMES.to(device), BOXES.to(device)
    crop = crop_resize(frames, boxes, (kind(100), kind(3)), backend=backend)
    assert torch.equal(crop, crop_resize(frames, boxes, (100, 3), backend=backend))
    crop = crop_mean(frames, boxes, kind(100), backend=backend)
    assert torch.equal(crop, crop_mean(frames, boxes, 100, backend=backend))
    x = torch.rand(100, 4, 1, 1, device=device)
    shifted = temporal_shift(x, kind(100), fold_div=kind(2), backend=backend)
    assert torch.equal(shifted, temporal_shift(x, 100, fold_div=2, backend=backend))
    keep = exit_gate(x[..., 0, 0], 0.3, capacity=kind(120), backend=backend).keep
    assert torch.equal(keep, exit_gate(x[..., 0, 0], 0.3, capacity=120, backend=backend).keep)


NESTED = torch.nested.nested_tensor([torch.rand(3, 8, 9), torch.rand(3, 8, 9)])
BAD = {
    "mean of letters": (lambda: crop_resize(FRAMES, BOXES, 4, mean="abc"), TypeError, "mean must be a number.*'abc'"),
    "std of lists": (lambda: crop_resize(FRAMES, BOXES, 4, std=[[1], [2, 3]]), TypeError, "std must be a number"),
    "mean of None": (lambda: crop_resize(FRAMES, BOXES, 4, mean=[None, 1, 2]), TypeError, "mean must be a number"),
    "std of zero": (lambda: crop_resize(FRAMES, BOXES, 4, std=[1, 0, 1]), ValueError, "std must not be 0"),
    "inverse": (lambda: temporal_shift(FRAMES, 2, inverse="x"), TypeError, "inverse must be a bool, got str"),
    "normaliser_grad": (
        lambda: expected_value(WEIGHTS, WEIGHTS, 2, normaliser_grad=None),
        TypeError,
        "normaliser_grad must be a bool, got NoneType",
    ),
    "antialias": (lambda: crop_resize(FRAMES, BOXES, 4, antialias=1), TypeError, "antialias must be a bool, got int"),
    "nested frames": (lambda: crop_resize(NESTED, BOXES, 4), TypeError, "frames must be dense, got a nested"),
    "nested weights": (lambda: weighted_sample(NESTED, 1), TypeError, "weights must be dense, got a nested"),
    "nested rows": (lambda: gather_rows(NESTED, torch.tensor([0])), TypeError, "x must be dense, got a nested"),
    "size of True": (
        lambda: crop_resize(FRAMES, BOXES, True),
        TypeError,
        "output_size height must be an int, got bool",
    ),
    "k of a float": (lambda: weighted_sample(WEIGHTS, 2.0), TypeError, "k must be an int, got float"),
    "k of numpy": (lambda: weighted_sample(WEIGHTS, np.uint8(0)), ValueError, "k must be at least 1, got 0"),
    "capacity": (lambda: exit_gate(WEIGHTS, 0.5, capacity=np.int8(-1)), ValueError, "capacity must be at least 1"),
}


@pytest.mark.parametrize("name", BAD)
def test_messages_name_the_argument(name):
    call, error, message = BAD[name]
    with pytest.raises(error, match=message):
        call()


def test_a_threshold_beyond_all_floats_is_infinite():
    for criterion, leaves in (("entropy", True), ("confidence", False)):
        assert bool(exit_gate(WEIGHTS, 10**400, criterion=criterion).exited.all()) == leaves
        assert bool(exit_gate(WEIGHTS, -(10**400), criterion=criterion).exited.all()) != leaves


@pytest.mark.parametrize("through", ["dual numbers", "torch.func.jvp"])
def test_forward_mode_names_the_op(through):
    def tangent(function, x):
        if through == "torch.func.jvp":
            return torch.func.jvp(function, (x,), (torch.ones_like(x),))[1]
        with torch.autograd.forward_ad.dual_level():
            dual = torch.autograd.forward_ad.make_dual(x, torch.ones_like(x))
            return torch.autograd.forward_ad.unpack_dual(function(dual)).tangent

    for name, function, x in (
        ("crop_resize", lambda b: crop_resize(FRAMES, b, 4), BOXES),
        ("crop_mean", lambda f: crop_mean(f, BOXES, 4), FRAMES),
        ("expected_value", lambda w: expected_value(WEIGHTS, w, 2, seed=1), WEIGHTS),
        ("temporal_shift", lambda x: temporal_shift(x, 2), FRAMES),
        ("gather_rows", lambda x: gather_rows(x, torch.tensor([1, -1])), FRAMES),
    ):
        with pytest.raises(NotImplementedError, match=f"{name} has no forward-mode derivative: use reverse mode"):
            tangent(function, x)


@pytest.mark.parametrize(
    ("value", "on"),
    [("1", True), ("true", True), ("ON", True), ("0", False), ("false", False), ("No", False), ("", False)],
)
def test_the_debug_variable(monkeypatch, value, on):
    monkeypatch.setenv("ADAFOCUS_DEBUG", value)
    assert adafocus_ops.checks._flag("ADAFOCUS_DEBUG") == on


def test_the_debug_variable_counts_from_the_start():
    code = "import adafocus_ops.checks as c; print(c._debug)"
    environment = os.environ | {"ADAFOCUS_DEBUG": "yes"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == "True", done.stderr


def test_a_debug_variable_that_is_neither(monkeypatch):
    monkeypatch.setenv("ADAFOCUS_DEBUG", "maybe")
    with pytest.raises(ValueError, match=r"ADAFOCUS_DEBUG must be 1 \(on\) or 0 \(off\), got 'maybe'"):
        adafocus_ops.checks._flag("ADAFOCUS_DEBUG")


def test_blocks_of_use_backend_end_in_any_order():
    def generator(name):
        with use_backend(name):
            yield

    first, second = generator("reference"), generator("cpu")
    next(first)
    next(second)
    assert backends.requested() == "cpu"
    first.close()
    assert backends.requested() == "cpu"
    second.close()
    assert backends.requested() is None
    with use_backend("reference"):
        held = generator("cpu")
        next(held)
    assert backends.requested() == "cpu"  # as of any context manager whose block is open
    held.close()
    assert backends.requested() is None


def test_a_task_keeps_its_own_backend():
    async def task(name, other):
        with use_backend(name):
            await other.wait()
            return backends.requested()

    async def both():
        event = asyncio.Event()
        tasks = [asyncio.create_task(task(name, event)) for name in ("reference", "cpu")]
        await asyncio.sleep(0)
        assert backends.requested() is None
        event.set()
        return await asyncio.gather(*tasks)

    assert asyncio.run(both()) == ["reference", "cpu"]

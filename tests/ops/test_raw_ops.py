"""The raw ops: registered as torch wants them, traced, and safe with arguments of any kind."""

from collections.abc import Iterator

import pytest
import torch
from raw_calls import raw_calls
from torch._subclasses.fake_tensor import FakeTensorMode

from adafocus_ops import (
    backends,
    exit_gate,
    expected_value,
    gather_rows,
    quantile_frames,
    scatter_rows,
    weighted_sample,
)
from adafocus_ops.examples import EXAMPLES
from adafocus_ops.examples.tensors import distributions, random_rows
from conftest import device_of, require_backend

SEED, IDS = torch.tensor(3), torch.tensor([4, 0, 9])


def traced(layout: str) -> Iterator:
    """Every part of every op on the examples that show all optional arguments, given and not."""
    for op in backends.ops():
        if layout not in EXAMPLES[op].layouts:
            continue
        found = {example.name: example for example in EXAMPLES[op].small(torch.float32, layout)}
        for name in EXAMPLES[op].traced:
            yield pytest.param(op, found[name], id=f"{op}-{layout}-{name}")


@pytest.mark.slow_if_interpreted("schema, fake kernel and vmap rule are those of the reference; the next test calls it")
@pytest.mark.parametrize(
    ("op", "example"), [*traced("contiguous"), *(p for p in traced("strided") if "crop" not in p.values[0])]
)
def test_opcheck(request, op, example, backend):
    device = device_of(backend)
    require_backend(request, op, backend, device)
    for call in raw_calls(op, example):
        arguments = {name: a.to(device) if isinstance(a, torch.Tensor) else a for name, a in call.arguments.items()}
        torch.library.opcheck(backends.kernel(op, call.part, backend).function, (), arguments)


@pytest.mark.parametrize(("op", "example"), [*traced("contiguous"), *traced("channels_last"), *traced("strided")])
def test_results_lie_as_the_fake_kernel_says(request, op, example, backend):
    """Shape, dtype and strides of every result, on every backend: what torch.compile relies on."""
    device = device_of(backend)
    require_backend(request, op, backend, device)
    for call in raw_calls(op, example):
        arguments = {name: a.to(device) if isinstance(a, torch.Tensor) else a for name, a in call.arguments.items()}
        got = backends.kernel(op, call.part, backend)(**arguments)
        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            fakes = {name: mode.from_tensor(a) if isinstance(a, torch.Tensor) else a for name, a in arguments.items()}
            fake = backends.kernel(op, call.part, backend)(**fakes)
        if got is None:
            assert fake is None
            continue
        for real, expected in zip(*((r if isinstance(r, tuple) else (r,)) for r in (got, fake)), strict=True):
            assert (real.shape, real.dtype, real.stride()) == (expected.shape, expected.dtype, expected.stride()), call


def test_everything_without_a_gradient_compiles_in_full(request, backend):
    """One graph for any number of rows, with the seed an input of it."""
    device = device_of(backend)
    for op in ("weighted_sample", "quantile_frames", "exit_gate", "gather_rows", "scatter_rows"):
        require_backend(request, op, backend, device)

    def chain(weights, logits, seed):
        drawn = weighted_sample(weights, 2, seed=seed, backend=backend)
        frames = quantile_frames(weights, 12, 3, seed=seed, backend=backend)
        gate = exit_gate(logits, 0.9, capacity=4, backend=backend)
        rows = gather_rows(logits, gate.keep, gate.counts[0], backend=backend)
        back = scatter_rows(torch.zeros_like(logits), gate.keep, rows, gate.counts[0], backend=backend)
        return drawn, frames, gate.score, back

    torch._dynamo.reset()
    compiled = torch.compile(chain, fullgraph=True, dynamic=True, backend="aot_eager")
    for rows in (3, 5, 1):
        weights = distributions(rows, 6, torch.float32, "contiguous").to(device)
        logits = random_rows((rows, 5), torch.float32, "contiguous", scale=2).to(device)
        for seed in (1, 2):
            arguments = (weights, logits, torch.tensor(seed, device=device))
            for got, expected in zip(compiled(*arguments), chain(*arguments), strict=True):
                assert torch.equal(got, expected)


def test_a_compiled_loss_draws_anew_for_every_seed(request, backend):
    device = device_of(backend)
    require_backend(request, "expected_value", backend, device)
    values = random_rows((3, 8), torch.float32, "contiguous").to(device)
    weights = distributions(3, 8, torch.float32, "contiguous").to(device).requires_grad_()

    def loss(weights, seed):
        return expected_value(values, weights, 4, num_samples=3, seed=seed, backend=backend).sum()

    torch._dynamo.reset()
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    losses = []
    for seed in (1, 2):
        seed = torch.tensor(seed, device=device)
        assert torch.equal(compiled(weights, seed), loss(weights, seed))
        gradients = [torch.autograd.grad(f(weights, seed), weights)[0] for f in (compiled, loss)]
        assert torch.equal(*gradients)
        losses.append(loss(weights, seed).item())
    assert losses[0] != losses[1]


# Calls of raw ops that would read or write where they must not, were they carried out.
FRAMES, BOXES = torch.ones(2, 3, 8, 8), torch.ones(2, 4)
SIZE, HOW = (4, 4), ("zeros", False, torch.float32, False)
CLIP, CONV_WEIGHT, CONV_STEPS = torch.ones(1, 2, 3, 4, 5), torch.ones(2, 1, 3, 3, 3), (1, 1, 1, 1, 1, 1)
UNSAFE = {
    "crop_resize": [
        (FRAMES[0], BOXES, None, None, *SIZE, *HOW),
        (FRAMES, BOXES[:, :3], None, None, *SIZE, *HOW),
        (FRAMES, BOXES.half(), None, None, *SIZE, *HOW),
        (FRAMES, torch.ones(4, 2).mT, None, None, *SIZE, *HOW),
        (FRAMES, BOXES, torch.tensor([0]), None, *SIZE, *HOW),
        (FRAMES, BOXES, torch.tensor([0.0, 1.0]), None, *SIZE, *HOW),
        (FRAMES, BOXES, None, torch.ones(2, 2), *SIZE, *HOW),
        (FRAMES, BOXES, None, torch.ones(2, 3).double(), *SIZE, *HOW),
        (FRAMES, BOXES, None, None, 0, 4, *HOW),
        (FRAMES, BOXES, None, None, *SIZE, "reflect", *HOW[1:]),
        (FRAMES.int(), BOXES, None, None, *SIZE, *HOW),
    ],
    "crop_mean": [
        (FRAMES[0], BOXES, None, None, *SIZE, "zeros", torch.float32),
        (FRAMES, BOXES[:, :3], None, None, *SIZE, "zeros", torch.float32),
        (FRAMES, BOXES, torch.tensor([0]), None, *SIZE, "zeros", torch.float32),
        (FRAMES, BOXES, None, torch.ones(2, 2), *SIZE, "zeros", torch.float32),
        (FRAMES, BOXES, None, None, 4, 0, "zeros", torch.float32),
        (FRAMES, BOXES, None, None, *SIZE, "reflect", torch.float32),
    ],
    "weighted_sample": [
        (torch.ones(2, 3), 4, 1, SEED, None),
        (torch.ones(2, 3), 0, 1, SEED, None),
        (torch.ones(2, 3), 1, 0, SEED, None),
        (torch.ones(3), 1, 1, SEED, None),
        (torch.ones(2, 3), 1, 1, SEED[None][:0], None),
        (torch.ones(2, 3), 1, 1, SEED.int(), None),
        (torch.ones(2, 3), 1, 1, SEED, IDS),
        (torch.ones(2, 3).int(), 1, 1, SEED, None),
    ],
    "expected_value": [
        (torch.ones(2, 3, 4), torch.ones(2, 2), 1, 1, SEED, None),
        (torch.ones(2, 3), torch.ones(2, 3), 1, 1, SEED, None),
        (torch.ones(2, 3, 4), torch.ones(2, 3), 4, 1, SEED, None),
        (torch.ones(2, 3, 4), torch.ones(2, 3), 3, 0, None, None),
        (torch.ones(2, 3, 4), torch.ones(2, 3), 1, 1, None, None),
        (torch.ones(2, 3, 4), torch.ones(2, 3), 1, 1, SEED, IDS),
    ],
    "quantile_frames": [
        (torch.ones(2, 3), 2, 3, None, None, None),
        (torch.ones(2, 3), 8, 3, torch.ones(2, 2), None, None),
        (torch.ones(2, 3), 8, 0, None, None, None),
        (torch.ones(2, 0), 8, 1, None, None, None),
        (torch.ones(2, 3), 8, 3, None, SEED, IDS),
    ],
    "exit_gate": [
        (torch.ones(3), None, 1.0, "entropy", None, 3),
        (torch.ones(3, 0), None, 1.0, "entropy", None, 3),
        (torch.ones(3, 2), torch.ones(0), 1.0, "entropy", None, 3),
        (torch.ones(3, 2), None, 1.0, "margin", None, 3),
        (torch.ones(3, 2), None, 1.0, "entropy", torch.ones(2).bool(), 3),
        (torch.ones(3, 2), None, 1.0, "entropy", torch.ones(2), 3),
        (torch.ones(3, 2), None, 1.0, "entropy", None, -1),
    ],
    "gather_rows": [
        (torch.ones(3, 2), torch.tensor([[0]]), None),
        (torch.ones(3, 2), torch.tensor([0.0]), None),
        (torch.ones(3, 2), torch.tensor([0]), torch.tensor([1])[:0]),
        (torch.ones(3, 2), torch.tensor([0]), torch.tensor(1).int()),
    ],
    "scatter_rows": [
        (torch.ones(3, 2), torch.tensor([0]), torch.ones(2, 2), None),
        (torch.ones(3, 2), torch.tensor([0]), torch.ones(1, 3), None),
        (torch.ones(3, 2), torch.tensor([0]), torch.ones(1, 2).double(), None),
    ],
    "temporal_shift": [
        (torch.ones(3, 4, 1, 1), 2, 1, False),
        (torch.ones(3, 4, 1, 1), 0, 1, False),
        (torch.ones(3, 4, 1, 1), 3, 3, False),
        (torch.ones(3, 4, 1, 1), 3, -1, False),
        (torch.ones(3, 4, 1), 3, 1, False),
    ],
    "depthwise_conv3d": [
        (CLIP[0], CONV_WEIGHT, None, *CONV_STEPS, False),
        (CLIP, CONV_WEIGHT[:1], None, *CONV_STEPS, False),
        (CLIP, CONV_WEIGHT.mT.double(), None, *CONV_STEPS, False),
        (CLIP, CONV_WEIGHT.mT, None, *CONV_STEPS, False),
        (CLIP, torch.ones(2, 1, 3, 3, 8), None, *CONV_STEPS, False),
        (CLIP, CONV_WEIGHT, torch.ones(3), *CONV_STEPS, False),
        (CLIP, CONV_WEIGHT, torch.ones(2).double(), *CONV_STEPS, False),
        (CLIP, CONV_WEIGHT, None, 0, 1, 1, 1, 1, 1, False),
        (CLIP, CONV_WEIGHT, None, 1, 1, 1, 3, 1, 1, False),
        (CLIP, CONV_WEIGHT, None, 1, 1, 1, -1, 1, 1, False),
        (CLIP[:, :, :1], CONV_WEIGHT, None, 1, 1, 1, 0, 1, 1, False),
        (CLIP.int(), CONV_WEIGHT, None, *CONV_STEPS, False),
    ],
}


@pytest.mark.parametrize("backend", ["cpu", "cuda"])
@pytest.mark.parametrize("op", UNSAFE)
def test_the_extension_checks_what_it_is_given(request, op, backend):
    """Whoever calls a raw op directly gets an error, not another's memory."""
    device = device_of(backend)
    require_backend(request, op, backend, device)
    kernel = backends.kernel(op, "fwd", backend)
    for call in UNSAFE[op]:
        with pytest.raises(RuntimeError):
            kernel(*(a.to(device) if isinstance(a, torch.Tensor) else a for a in call))


@pytest.mark.parametrize("backend", ["cpu", "cuda"])
@pytest.mark.parametrize("shape", [(1, 3, 4, 4), (2, 4, 4, 4), (2, 3, 4), (2, 3, 0, 4), (1, 2, 3, 4, 4)], ids=str)
def test_the_extension_checks_where_it_is_to_write(request, shape, backend):
    device = device_of(backend)
    require_backend(request, "crop_resize", backend, device)
    kernel = backends.kernel("crop_resize", "fwd_out", backend)
    frames, boxes = FRAMES.to(device), BOXES.to(device)
    kernel(torch.ones(2, 3, 4, 4, device=device), frames, boxes, None, None, "zeros", False)
    with pytest.raises(RuntimeError, match=r"out must|output size"):
        kernel(torch.ones(shape, device=device), frames, boxes, None, None, "zeros", False)
    with pytest.raises(RuntimeError, match="must be uint8, float16, bfloat16, float32 or float64"):
        kernel(torch.ones(2, 3, 4, 4, device=device).int(), frames, boxes, None, None, "zeros", False)

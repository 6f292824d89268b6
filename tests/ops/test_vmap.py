"""torch.func.vmap of every op equals a loop over the entries."""

import pytest
import torch

from adafocus_ops import (
    backends,
    crop_resize,
    exit_gate,
    expected_value,
    gather_rows,
    quantile_frames,
    scatter_rows,
    temporal_shift,
    weighted_sample,
)
from adafocus_ops.examples.tensors import distributions, random_rows
from conftest import device_of, require_backend

ENTRIES = 3


def assert_like_a_loop(function, in_dims: tuple, *tensors, randomness: str = "error") -> None:
    """vmap(function) gives what the calls on each entry give, stacked."""
    got = torch.func.vmap(function, in_dims, randomness=randomness)(*tensors)
    entries = [
        function(*(t if dim is None else t.select(dim, i) for t, dim in zip(tensors, in_dims, strict=True)))
        for i in range(ENTRIES)
    ]
    if isinstance(got, torch.Tensor):
        got, entries = (got,), [(entry,) for entry in entries]
    for g, *e in zip(got, *entries, strict=True):
        torch.testing.assert_close(g, torch.stack(e), rtol=0, atol=0, equal_nan=True)


@pytest.fixture
def on(request, backend):
    """Skips unless all ops run; the device of the backend."""
    device = device_of(backend)
    for op in backends.ops():
        require_backend(request, op, backend, device)
    return device


def seeds(device) -> torch.Tensor:
    return torch.tensor([5, -1, 2**40], device=device)


def test_samplers_with_one_seed_draw_the_same_in_each_entry(backend, on):
    weights = distributions(ENTRIES * 2, 6, torch.float32, "contiguous").to(on).view(ENTRIES, 2, 6)
    seed = torch.tensor(3, device=on)
    assert_like_a_loop(lambda w: weighted_sample(w, 2, num_samples=2, seed=seed, backend=backend), (0,), weights)
    assert_like_a_loop(lambda w: quantile_frames(w, 12, 3, seed=seed, backend=backend), (0,), weights)


@pytest.mark.parametrize("mapped", [True, False], ids=["mapped weights", "shared weights"])
def test_samplers_take_a_seed_for_each_entry(backend, on, mapped):
    weights = distributions(ENTRIES * 2, 6, torch.float32, "contiguous").to(on).view(ENTRIES, 2, 6)
    dims = (0, 0) if mapped else (None, 0)
    weights = weights if mapped else weights[0]
    values = random_rows((2, 6, 4), torch.float32, "contiguous").to(on)
    assert_like_a_loop(lambda w, s: weighted_sample(w, 2, seed=s, backend=backend), dims, weights, seeds(on))
    assert_like_a_loop(lambda w, s: quantile_frames(w, 12, 3, seed=s, backend=backend), dims, weights, seeds(on))
    assert_like_a_loop(
        lambda w, s: expected_value(values, w, 3, num_samples=2, seed=s, backend=backend), dims, weights, seeds(on)
    )


def test_the_gradient_of_an_expectation_takes_a_seed_for_each_entry(backend, on):
    weights = distributions(ENTRIES * 2, 6, torch.float32, "contiguous").to(on).view(ENTRIES, 2, 6)
    values = random_rows((2, 6, 4), torch.float32, "contiguous").to(on)

    def gradient(w, s):
        return torch.func.grad(
            lambda w: expected_value(values, w, 3, num_samples=2, seed=s, normaliser_grad=True, backend=backend).sum()
        )(w)

    assert_like_a_loop(gradient, (0, 0), weights, seeds(on))


@pytest.mark.parametrize("how", ["default", "generator"])
def test_randomness_is_as_torch_has_it(backend, on, how):
    """As torch.multinomial: with "different" each entry has a draw of its own, with "same" all have one."""
    weights = torch.ones(40, 2, 12, device=on)
    generator = torch.Generator(on).manual_seed(1) if how == "generator" else None

    def ops(w):
        return (
            weighted_sample(w, 4, generator=generator, backend=backend),
            expected_value(
                w[..., None] * torch.arange(12.0, device=on)[:, None], w / 12, 4, num_samples=2, backend=backend
            ),
            quantile_frames(w / 12, 48, 4, generator=generator or torch.default_generator, backend=backend),
        )

    if on != "cpu":
        pytest.skip("default_generator is the CPU's") if generator is None else None
    for result in torch.func.vmap(ops, randomness="different")(weights):
        assert len(result[:, 0].unique(dim=0)) > 30
    for result in torch.func.vmap(ops, randomness="same")(weights):
        assert len(result[:, 0].unique(dim=0)) == 1
    with pytest.raises(RuntimeError, match="randomness"):
        torch.func.vmap(ops)(weights)


@pytest.mark.parametrize("dims", [(0, 0, None), (1, 1, 0), (None, 0, 0), (0, None, None), (0, 0, "none"), (2, 0, 0)])
def test_gather_rows(backend, on, dims):
    x = random_rows((4, 5, 6), torch.float32, "contiguous").to(on)
    index = torch.tensor([[0, 3, -1, 1], [2, 2, 9, 0], [1, 0, 3, 3]], device=on)
    count = torch.tensor([4, 2, 0], device=on)
    x = torch.stack([x, x + 1, x + 2], dims[0]) if dims[0] is not None else x
    index = index[1] if dims[1] is None else index.movedim(0, dims[1]).contiguous()
    if dims[2] == "none":
        assert_like_a_loop(lambda x, i: gather_rows(x, i, backend=backend), dims[:2], x, index)
        return
    count = count[1] if dims[2] is None else count
    assert_like_a_loop(lambda x, i, c: gather_rows(x, i, c, backend=backend), dims, x, index, count)


def test_gradients_of_gather_rows(backend, on):
    x = random_rows((ENTRIES, 4, 5), torch.float64, "contiguous").to(on)
    index = torch.tensor([[0, 3, -1, 1], [2, 2, 9, 0], [1, 0, 3, 3]], device=on)

    def gradient(x, i):
        return torch.func.grad(lambda x: gather_rows(x, i, backend=backend).square().sum())(x)

    assert_like_a_loop(gradient, (0, 0), x, index)


@pytest.mark.parametrize("dim", [0, 1, 2])
def test_scatter_rows(backend, on, dim):
    out = random_rows((ENTRIES, 4, 5), torch.float32, "contiguous").to(on)
    index = torch.tensor([[0, 3, -1], [2, 1, 9], [1, 0, 3]], device=on)
    rows, count = torch.arange(15.0, device=on).view(3, 5), torch.tensor([3, 2, 0], device=on)
    expected = torch.stack([scatter_rows(out[i].clone(), index[i], rows, count[i]) for i in range(ENTRIES)])
    mapped = out.movedim(0, dim).contiguous()
    write = torch.func.vmap(lambda o, i, c: scatter_rows(o, i, rows, c, backend=backend), (dim, 0, 0))
    assert torch.equal(write(mapped, index, count), expected)
    assert torch.equal(mapped.movedim(dim, 0), expected)
    with pytest.raises(ValueError, match="out must be mapped"):
        torch.func.vmap(lambda i: scatter_rows(out[0], i, rows, backend=backend))(index)


def test_exit_gate(backend, on):
    logits = random_rows((ENTRIES, 5, 4), torch.float32, "contiguous", scale=3).to(on)
    threshold = torch.tensor([0.1, 0.7, 2.0], device=on)
    active = torch.tensor([4, 1, -1, 2], device=on)
    gate = torch.func.vmap(lambda z, t: exit_gate(z, t, active=active, capacity=6, backend=backend))(logits, threshold)
    for i in range(ENTRIES):
        alone = exit_gate(logits[i], threshold[i], active=active, capacity=6, backend=backend)
        assert all(torch.equal(a[i], b) for a, b in zip(gate, alone, strict=True))
    with pytest.raises(ValueError, match="capacity must be given under vmap"):
        torch.func.vmap(lambda z: exit_gate(z, 0.5, backend=backend))(logits)


def test_temporal_shift(backend, on):
    x = random_rows((4, ENTRIES, 8, 2, 3), torch.float32, "contiguous").to(on)
    assert_like_a_loop(lambda x: temporal_shift(x, 2, fold_div=4, backend=backend), (1,), x)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_crop_resize_in_a_memory_format(backend, on, memory_format):
    frames = random_rows((ENTRIES, 2, 3, 8, 9), torch.float32, "contiguous").to(on)
    boxes = torch.tensor([[4, 4, 5, 6], [3, 5, 4, 4.0]], device=on).expand(ENTRIES, 2, 4)
    assert_like_a_loop(
        lambda f, b: crop_resize(f, b, 4, memory_format=memory_format, backend=backend), (0, 0), frames, boxes
    )


def test_a_compiled_vmap_keeps_the_gradient(backend, on):
    frames = random_rows((ENTRIES, 2, 3, 8, 9), torch.float32, "contiguous").to(on)
    boxes = torch.tensor([[4, 4, 5, 6], [3, 5, 4, 4.5]], device=on).repeat(ENTRIES, 1, 1)

    def loss(frames, boxes):
        each = torch.func.vmap(lambda f, b: crop_resize(f, b, 4, backend=backend).square().sum())(frames, boxes)
        return each.sum()

    torch._dynamo.reset()
    for function in (loss, torch.compile(loss, backend="aot_eager")):
        inputs = [frames.clone().requires_grad_(), boxes.clone().requires_grad_()]
        gradients = torch.autograd.grad(function(*inputs), inputs)
        expected = torch.func.grad(loss, (0, 1))(frames, boxes)
        for g, e in zip(gradients, expected, strict=True):
            torch.testing.assert_close(g, e)
    with torch.no_grad():  # nothing to keep: one graph
        whole = torch.compile(loss, backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(whole(frames, boxes), loss(frames, boxes))

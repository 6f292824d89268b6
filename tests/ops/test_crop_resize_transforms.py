"""crop_resize: vmap, torch.compile, deterministic mode, garbage."""

import gc
import weakref
from functools import partial

import pytest
import torch
from torch._dynamo.backends.common import aot_autograd

import adafocus_ops
from adafocus_ops import crop_resize
from adafocus_ops.examples.tensors import IMAGENET, random_images, smooth_boxes

pytestmark = pytest.mark.usefixtures("crop_resize_runs")


def test_vmap_folds_into_the_batch(backend, device):
    frames = random_images((4, 2, 3, 12, 13), torch.float64, "contiguous").to(device)
    boxes = smooth_boxes(8, (4, 4), (12, 13), seed=0).view(4, 2, 4).to(device)
    index = torch.tensor([[0, 1], [1, 1], [0, -1], [5, 0]], device=device)

    def crop(frames, boxes, index=None):
        return crop_resize(frames, boxes, 4, frame_index=index, backend=backend, **IMAGENET)

    each = torch.stack([crop(f, b, i) for f, b, i in zip(frames, boxes, index, strict=True)])
    torch.testing.assert_close(torch.vmap(crop)(frames, boxes, index), each, equal_nan=True)
    shared = torch.stack([crop(frames[0], b) for b in boxes])
    torch.testing.assert_close(torch.vmap(crop, in_dims=(None, 0))(frames[0], boxes), shared)
    last = torch.vmap(crop, in_dims=(1, 2))(frames.transpose(0, 1), boxes.permute(1, 2, 0))
    torch.testing.assert_close(last, torch.stack([crop(f, b) for f, b in zip(frames, boxes, strict=True)]))

    def loss(frames, boxes):
        return crop(frames, boxes).square().sum()

    gradients = torch.func.vmap(torch.func.grad(loss, argnums=(0, 1)))(frames, boxes)
    for k in range(4):
        one = torch.func.grad(loss, argnums=(0, 1))(frames[k], boxes[k])
        for all_of_them, alone in zip(gradients, one, strict=True):
            torch.testing.assert_close(all_of_them[k], alone)


@pytest.mark.parametrize("op", [crop_resize, adafocus_ops.crop_mean], ids=lambda op: op.__name__)
def test_gradients_pass_through_vmap(op, backend, device):
    frames = random_images((3, 2, 3, 8, 8), torch.float64, "contiguous").to(device)
    boxes = torch.stack([smooth_boxes(2, (4, 4), (8, 8), seed) for seed in range(3)]).to(device)

    def total(frames, boxes, mapped):
        call = partial(op, output_size=4, backend=backend)
        return (
            (torch.vmap(call)(frames, boxes) if mapped else torch.stack(list(map(call, frames, boxes)))).square().sum()
        )

    inputs = frames.requires_grad_(), boxes.requires_grad_()
    expected = torch.autograd.grad(total(*inputs, mapped=False), inputs)
    got = torch.autograd.grad(total(*inputs, mapped=True), inputs)
    in_function = torch.func.grad(total, argnums=(0, 1))(*(t.detach() for t in inputs), mapped=True)
    for g, f, e in zip(got, in_function, expected, strict=True):
        torch.testing.assert_close(g, e)
        torch.testing.assert_close(f, e)


@pytest.mark.parametrize("shape", [(1, 3, 8, 2000), (1, 1, 2000, 2)])
def test_long_frames(shape, backend, device):
    """Tables of an axis fill whatever a kernel keeps them in."""
    frames = random_images(shape, torch.float32, "contiguous").to(device).requires_grad_()
    boxes = torch.tensor([[shape[2] / 2 + 0.1, shape[3] / 2 + 0.1, shape[2] * 0.9, shape[3] * 0.9]], device=device)
    index = torch.zeros(1, dtype=torch.int64, device=device)
    out = (3, 50) if shape[3] > 2 else (50, 3)
    upstream = torch.rand(1, shape[1], *out, generator=torch.Generator().manual_seed(0)).to(device)
    gradients = [
        torch.autograd.grad(crop_resize(frames, boxes, out, frame_index=index, backend=name), frames, upstream)[0]
        for name in (backend, "reference")
    ]
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-3)


def test_a_compiled_call_has_no_constants_of_the_host(backend, device):
    """Which a GPU would wait for in every call, and which no CUDA graph may hold."""
    graphs = []

    def keep(graph, _inputs):
        graphs.append(graph)
        return graph.forward

    def crop(frames, boxes):
        return crop_resize(frames, boxes, 4, mean=[0.1, 0.2, 0.3], std=0.5, backend=backend)

    frames, boxes = torch.rand(2, 3, 9, 9, device=device), torch.tensor([[4.0, 4.0, 6.0, 5.0]] * 2, device=device)
    compiled = torch.compile(crop, fullgraph=True, backend=aot_autograd(fw_compiler=keep))
    torch.testing.assert_close(compiled(frames, boxes), crop(frames, boxes), rtol=0, atol=0)
    assert "get_attr" not in {node.op for graph in graphs for node in graph.graph.nodes}


def test_dynamic_sizes_compile_once(backend, device):
    """Sizes above one share one graph: nothing, error messages included, fixes them."""
    from torch._dynamo.testing import CompileCounterWithBackend

    counter, graphs = CompileCounterWithBackend("aot_eager"), []
    torch._dynamo.reset()
    compiled = torch.compile(
        lambda f, b, i: crop_resize(f, b, 4, frame_index=i, backend=backend, **IMAGENET),
        fullgraph=True,
        dynamic=True,
        backend=counter,
    )
    for count, number, size in ((2, 11, 9), (5, 2, 12), (7, 6, 30)):  # no two sizes alike: those would share a symbol
        frames = torch.rand(number, 3, size, size + 1, device=device)
        boxes = torch.rand(count, 4, device=device) * 6 + 2
        index = torch.zeros(count, dtype=torch.int64, device=device)
        torch.testing.assert_close(
            compiled(frames, boxes, index),
            crop_resize(frames, boxes, 4, frame_index=index, backend=backend, **IMAGENET),
        )
        graphs.append(counter.frame_count)
    assert graphs[0] == graphs[-1]


def test_deterministic_mode_is_accepted(backend, device):
    frames = torch.rand(2, 3, 12, 12, device=device, requires_grad=True)
    boxes = torch.tensor([[6.0, 6.0, 7.0, 7.0]] * 5, device=device, requires_grad=True)
    index = torch.tensor([0, 1, 1, 0, 1], device=device)
    torch.use_deterministic_algorithms(True)
    try:
        runs = []
        for _ in range(2):
            out = crop_resize(frames, boxes, 4, frame_index=index, backend=backend)
            runs.append(torch.autograd.grad(out.square().sum(), [frames, boxes]))
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(map(torch.equal, *runs))


def test_a_step_leaves_no_reference_cycle(backend, device):
    """Nothing is kept for the garbage collector: tensors are freed as soon as the last user drops them."""
    boxes = torch.tensor([[6.0, 6.0, 7.0, 7.0]] * 2, device=device, requires_grad=True)
    gc.collect()
    gc.disable()
    try:
        frames = torch.rand(2, 3, 12, 12, device=device, requires_grad=True)
        alive = weakref.ref(frames)
        torch.autograd.grad(crop_resize(frames, boxes, 4, backend=backend).sum(), [frames, boxes])
        del frames
        assert alive() is None
    finally:
        gc.enable()

"""What only a GPU shows: streams, devices, graphs, hidden synchronisation; and a step of data-parallel training."""

import pytest
import torch
import torch.distributed as dist

import adafocus_ops
from adafocus_ops.examples.tensors import IMAGENET, random_images, smooth_boxes
from conftest import require_backend

OPS = {"crop_resize": adafocus_ops.crop_resize, "crop_mean": adafocus_ops.crop_mean}
gpu_backend = pytest.mark.parametrize("backend", ["cuda", "triton"])
each_op = pytest.mark.parametrize("op", OPS)


def inputs(device: str, count: int = 8, size: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    frames = random_images((count, 3, size, size), torch.float32, "channels_last").to(device)
    return frames.requires_grad_(), smooth_boxes(count, (24, 24), (size, size), seed=1).float().to(
        device
    ).requires_grad_()


def step(op: str, frames: torch.Tensor, boxes: torch.Tensor, backend: str) -> list[torch.Tensor]:
    """The result and both gradients."""
    out = OPS[op](frames, boxes, 24, backend=backend, **IMAGENET)
    return [out.detach(), *torch.autograd.grad(out.square().sum(), [frames, boxes])]


@gpu_backend
@each_op
def test_a_side_stream_waits_for_its_own_producer(request, op, backend):
    require_backend(request, op, backend, "cuda")
    frames, boxes = inputs("cuda")
    expected = step(op, frames, boxes, backend)
    late = torch.zeros_like(frames).requires_grad_()
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(100_000_000)  # tens of milliseconds: a kernel on another stream would read zeros
        late.data.copy_(frames.data)
        got = step(op, late, boxes, backend)
    stream.synchronize()
    assert all(map(torch.equal, got, expected))


@gpu_backend
@each_op
def test_a_device_that_is_not_the_current_one(request, op, backend):
    require_backend(request, op, backend, "cuda")
    if torch.cuda.device_count() < 2:
        pytest.skip("there is one device")
    expected = step(op, *inputs("cuda:0"), backend)
    with torch.cuda.device(0):
        got = step(op, *inputs("cuda:1"), backend)
    assert all(t.device.index == 1 for t in got)
    assert all(torch.equal(g.cpu(), e.cpu()) for g, e in zip(got, expected, strict=True))


@gpu_backend
@each_op
def test_a_graph_captures_and_replays_forward_and_backward(request, op, backend):
    require_backend(request, op, backend, "cuda")
    frames, boxes = inputs("cuda")
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # kernels are compiled, and constants sent, before the capture
        step(op, frames, boxes, backend)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step(op, frames, boxes, backend)
    for seed in (1, 2):
        with torch.no_grad():
            frames.copy_(random_images(tuple(frames.shape), torch.float32, "contiguous", seed=seed))
            boxes.copy_(smooth_boxes(len(boxes), (24, 24), (64, 64), seed=seed).float())
        graph.replay()
        assert all(map(torch.equal, captured, step(op, frames, boxes, backend)))


@gpu_backend
@each_op
def test_nothing_waits_for_the_device(request, op, backend):
    require_backend(request, op, backend, "cuda")
    frames, boxes = inputs("cuda")
    index = torch.arange(len(boxes), device="cuda")
    step(op, frames, boxes, backend)
    torch.cuda.set_sync_debug_mode("error")
    try:
        step(op, frames, boxes, backend)
        OPS[op](frames, boxes, 24, frame_index=index, backend=backend)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@gpu_backend
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
def test_a_graph_writes_where_the_caller_wants_it(request, memory_format, backend):
    """Without waiting, and without memory of its own."""
    require_backend(request, "crop_resize", backend, "cuda")
    frames, boxes = (t.detach() for t in inputs("cuda"))
    out = torch.empty(8, 3, 24, 24, device="cuda", memory_format=memory_format)

    def crop() -> torch.Tensor:
        return adafocus_ops.crop_resize(frames, boxes, 24, out=out, backend=backend, **IMAGENET)

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # kernels are compiled, and constants sent, before the capture
        crop()
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    torch.cuda.set_sync_debug_mode("error")
    try:
        crop()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.cuda.max_memory_allocated() == before
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        assert crop() is out
    for seed in (1, 2):
        frames.copy_(random_images(tuple(frames.shape), torch.float32, "contiguous", seed=seed))
        out.fill_(float("nan"))
        graph.replay()
        expected = adafocus_ops.crop_resize(frames, boxes, 24, memory_format=memory_format, backend=backend, **IMAGENET)
        assert torch.equal(out, expected)


# ----------------------------------------------------------------------------------------------------
# The ops over rows


def selection(backend: str, weights: torch.Tensor, logits: torch.Tensor, seed: torch.Tensor) -> list[torch.Tensor]:
    """Every op over rows once, with static shapes; gradients too."""
    how = {"backend": backend}
    leaves = [t.detach().requires_grad_() for t in (logits, weights)]
    loss = adafocus_ops.expected_value(*leaves, 4, seed=seed, normaliser_grad=True, **how)
    gate = adafocus_ops.exit_gate(logits, logits[0, 0].abs(), capacity=len(logits), **how)
    again = adafocus_ops.exit_gate(logits, 1.5, active=gate.keep, capacity=len(logits), **how)
    masked = adafocus_ops.exit_gate(logits, 1.5, active=~gate.exited, capacity=len(logits), **how)
    rows = adafocus_ops.gather_rows(leaves[0], again.keep, again.counts[0], **how)
    shifted = adafocus_ops.temporal_shift(leaves[0][..., None, None].expand(-1, -1, 3, 3), 4, **how)
    return [
        adafocus_ops.weighted_sample(weights, 3, num_samples=5, seed=seed, **how),
        adafocus_ops.quantile_frames(weights, 48, 12, seed=seed, **how),
        loss.detach(),
        *torch.autograd.grad(loss.sum(), leaves),
        *again,
        *masked,
        adafocus_ops.scatter_rows(torch.zeros_like(logits), again.keep, rows.detach(), again.counts[0], **how),
        *torch.autograd.grad(rows.square().sum(), leaves[0]),
        shifted.detach(),
        *torch.autograd.grad(shifted.square().sum(), leaves[0]),
        adafocus_ops.entropy(logits),
        adafocus_ops.confidence(logits),
    ]


def selection_inputs(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    weights, logits = (torch.randn(16, 16, generator=generator) for _ in range(2))
    return weights.softmax(1).cuda(), logits.mul(2).cuda(), torch.tensor(seed).cuda()


def require_selection(request, backend: str) -> None:
    for op in ("weighted_sample", "expected_value", "quantile_frames", "exit_gate", "gather_rows", "temporal_shift"):
        require_backend(request, op, backend, "cuda")


@gpu_backend
def test_selection_never_waits_for_the_device(request, backend):
    require_selection(request, backend)
    inputs = selection_inputs(0)
    selection(backend, *inputs)
    torch.cuda.set_sync_debug_mode("error")
    try:
        selection(backend, *inputs)
        adafocus_ops.weighted_sample(inputs[0], 3, backend=backend)  # a seed from the device's generator
        adafocus_ops.quantile_frames(inputs[0], 48, 12, backend=backend)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@gpu_backend
def test_a_graph_replays_selection_with_new_seeds(request, backend):
    require_selection(request, backend)
    inputs = selection_inputs(0)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        selection(backend, *inputs)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = selection(backend, *inputs)
    for seed in (1, 2, 3):
        for into, new in zip(inputs, selection_inputs(seed), strict=True):
            into.copy_(new)
        graph.replay()
        assert all(map(torch.equal, captured, selection(backend, *inputs)))


@gpu_backend
@pytest.mark.parametrize("rows", [2048, 4096])
def test_gates_of_two_streams_do_not_mix(request, backend, rows):
    """Many gates in flight at once: each counts its own blocks, or has the flags of its own rows."""
    require_backend(request, "exit_gate", backend, "cuda")
    logits = torch.randn(rows, 100, device="cuda").mul(2)
    expected = adafocus_ops.exit_gate(logits, 2.0, capacity=rows, backend=backend)
    torch.cuda.synchronize()
    streams, results = [torch.cuda.Stream() for _ in range(4)], []
    for _ in range(25):
        for stream in streams:
            with torch.cuda.stream(stream):
                results.append(adafocus_ops.exit_gate(logits, 2.0, capacity=rows, backend=backend))
    torch.cuda.synchronize()
    assert all(all(map(torch.equal, result, expected)) for result in results)


@gpu_backend
def test_a_graph_replays_a_gate_of_many_rows(request, backend):
    """More rows than one block lists, of which a list says who runs; nothing waits for the device."""
    require_backend(request, "exit_gate", backend, "cuda")
    logits, listed = torch.randn(5000, 20, device="cuda"), torch.arange(5000, device="cuda")

    def gate(backend):
        return adafocus_ops.exit_gate(logits, 2.5, active=listed, capacity=5000, backend=backend)

    torch.cuda.set_sync_debug_mode("error")
    try:
        gate(backend)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = gate(backend)
    for _ in range(3):
        logits.normal_()
        listed.random_(-1, 5000)
        graph.replay()
        assert all(map(torch.equal, captured, gate(backend)))


@pytest.mark.parametrize("backend", ["cpu", "cuda", "triton"])
def test_a_step_of_data_parallel_training_moves_the_boxes(request, backend, tmp_path):
    device = "cpu" if backend == "cpu" else "cuda"
    require_backend(request, "crop_resize", backend, device)
    if not dist.is_available():
        pytest.skip("torch was built without distributed")
    frames, boxes = inputs(device)

    class Cropper(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.boxes = torch.nn.Parameter(boxes.detach().clone())

        def forward(self, frames):
            return adafocus_ops.crop_resize(frames, self.boxes, 24, backend=backend)

    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        model = torch.nn.parallel.DistributedDataParallel(Cropper().to(device))
        model(frames.detach()).square().sum().backward()
        expected = adafocus_ops.crop_resize(frames.detach(), boxes, 24, backend="reference").square().sum()
        torch.testing.assert_close(
            model.module.boxes.grad, torch.autograd.grad(expected, boxes)[0], rtol=1e-3, atol=1e-2
        )
    finally:
        dist.destroy_process_group()

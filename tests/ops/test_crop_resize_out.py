"""crop_resize into memory of the caller's, out=: the same bits, and nothing written elsewhere."""

import pytest
import torch
from torch import Tensor

from adafocus_ops import crop_resize
from adafocus_ops.examples.tensors import FLOATS, IMAGENET, random_images, smooth_boxes
from conftest import on_device

pytestmark = pytest.mark.usefixtures("crop_resize_runs")

MEMORY_FORMATS = (torch.contiguous_format, torch.channels_last)
SIZE = (6, 5)


def inputs(device: str, dtype: torch.dtype = torch.uint8, channels: int = 3, count: int = 3) -> tuple[Tensor, Tensor]:
    """Frames and a box in each, of which one lies partly outside."""
    frames = random_images((count, channels, 14, 12), dtype, "contiguous", seed=2)
    return frames.to(device), smooth_boxes(count, SIZE, (14, 12), seed=3).float().to(device)


def poison(out: Tensor) -> Tensor:
    """`out`, with what no element may keep."""
    return out.fill_(float("nan") if out.is_floating_point() else 255)


def assert_same_bits(got: Tensor, expected: Tensor) -> None:
    assert (got.shape, got.dtype) == (expected.shape, expected.dtype)
    assert torch.equal(*(t.clone(memory_format=torch.contiguous_format).view(torch.uint8) for t in (got, expected)))


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("memory_format", MEMORY_FORMATS, ids=str)
@pytest.mark.parametrize("dtype", [torch.uint8, *FLOATS], ids=str)
def test_dtype_and_layout_are_those_of_out(dtype, memory_format, antialias, backend, device):
    frames, boxes = inputs(device)
    affine = IMAGENET if dtype.is_floating_point else {}
    how = {"antialias": antialias, "backend": backend, **affine}
    asked = {"out_dtype": dtype, "memory_format": memory_format}
    expected = crop_resize(frames, boxes, SIZE, **asked, **how)
    out = poison(torch.empty_like(expected))
    where = out.data_ptr(), out.stride()
    assert crop_resize(frames, boxes, SIZE, out=out, **how) is out
    assert (out.data_ptr(), out.stride()) == where
    assert_same_bits(out, expected)
    assert_same_bits(crop_resize(frames, boxes, SIZE, out=poison(out), **asked, **how), expected)


@pytest.mark.parametrize("channels", [1, 3, 4, 6])
@pytest.mark.parametrize("memory_format", MEMORY_FORMATS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
def test_what_surrounds_out_stays(dtype, memory_format, channels, backend, device):
    """In the middle of a buffer, where no element is aligned to more than its own size."""
    frames, boxes = inputs(device, torch.float32, channels)
    how = {"out_dtype": dtype, "memory_format": memory_format, "backend": backend}
    expected = crop_resize(frames, boxes, SIZE, **how)
    for start in (1, 3):
        buffer = torch.full((expected.numel() + 9,), 7, dtype=dtype, device=device)
        out = buffer.as_strided(expected.shape, expected.stride(), start)
        assert_same_bits(crop_resize(frames, boxes, SIZE, out=poison(out), **how), expected)
        assert (buffer[:start] == 7).all()
        assert (buffer[start + expected.numel() :] == 7).all()


def test_strides_that_lead_nowhere_may_be_any(backend, device):
    """From one patch to the next where there is one, or from column to column of one: the kernel stays the same."""
    frames, boxes = inputs(device, count=1)
    expected = crop_resize(frames, boxes, SIZE, backend=backend)
    out = poison(torch.empty(3, 1, *SIZE, device=device).transpose(0, 1))
    assert_same_bits(crop_resize(frames, boxes, SIZE, out=out, backend=backend), expected)
    column = poison(torch.empty(1, 3, 1, 6, device=device).mT)
    expected = crop_resize(frames, boxes, (6, 1), backend=backend)
    assert_same_bits(crop_resize(frames, boxes, (6, 1), out=column, backend=backend), expected)


def test_boxes_and_frames_that_do_not_exist(backend, device):
    frames, boxes = inputs(device)
    none = torch.empty(0, dtype=torch.int64, device=device)
    buffer = torch.full((2, 3, *SIZE), 7.0, device=device)
    out = buffer[:0]
    assert crop_resize(frames, boxes[:0], SIZE, frame_index=none, out=out, backend=backend) is out
    assert (buffer == 7).all()
    lost = torch.tensor([-1, 99], device=device)
    assert crop_resize(frames, boxes[:2], SIZE, frame_index=lost, out=buffer, backend=backend).isnan().all()
    buffer.fill_(7)
    assert crop_resize(frames[..., :0], boxes[:2], SIZE, frame_index=lost, out=buffer, backend=backend).isnan().all()


def new(*shape: int, dtype: torch.dtype = torch.float32, memory_format=torch.contiguous_format) -> Tensor:
    return torch.empty(shape, dtype=dtype, memory_format=memory_format)


@pytest.mark.parametrize(
    ("out", "kwargs", "error", "message"),
    [
        ([1], {}, TypeError, "out must be a tensor, got list"),
        (new(3, 3, 6, 5, dtype=torch.int32), {}, TypeError, "out must have dtype uint8, .*, got int32"),
        (
            new(3, 3, 6, 5),
            {"out_dtype": torch.float16},
            TypeError,
            "out must have dtype float16, got float32",
        ),
        (new(3, 3, 6, 5), {"out_dtype": torch.int64}, TypeError, "out_dtype must be uint8, .*, got torch.int64"),
        (
            new(3, 3, 5, 6),
            {},
            ValueError,
            r"out must be \[K, C, P_h, P_w\] = \(3, 3, 6, 5\), got \(3, 3, 5, 6\) float32",
        ),
        (new(4, 3, 6, 5), {}, ValueError, r"out must be .* = \(3, 3, 6, 5\), got \(4, 3, 6, 5\)"),
        (new(3, 6, 5), {}, ValueError, r"out must be .* = \(3, 3, 6, 5\), got \(3, 6, 5\)"),
        (new(3, 3, 6, 5).to("meta"), {}, ValueError, r"out must be on the device of frames \(.+\), got meta"),
        (
            new(3, 3, 6, 10)[..., ::2],
            {},
            ValueError,
            r"out must be torch.contiguous_format or torch.channels_last without gaps, got strides \(180, 60, 10, 2\)",
        ),
        (new(3, 3, 5, 6).mT, {}, ValueError, "out must be torch.contiguous_format or .* without gaps, got strides"),
        (new(1, 1, 1, 1).expand(3, 3, 6, 5), {}, ValueError, r"without gaps, got strides \(0, 0, 0, 0\)"),
        (
            new(3, 3, 6, 5),
            {"memory_format": torch.channels_last},
            ValueError,
            r"out must be torch.channels_last without gaps, got strides \(90, 30, 5, 1\)",
        ),
        (
            new(3, 3, 6, 5, memory_format=torch.channels_last),
            {"memory_format": torch.contiguous_format},
            ValueError,
            r"out must be torch.contiguous_format without gaps, got strides \(90, 1, 15, 3\)",
        ),
        (new(3, 3, 6, 5), {"memory_format": torch.channels_last_3d}, ValueError, "memory_format must be"),
    ],
)
def test_bad_arguments_say_what_was_wrong(out, kwargs, error, message, backend, device):
    with pytest.raises(error, match=message):
        crop_resize(*inputs(device), SIZE, out=on_device(device, out), backend=backend, **kwargs)


def test_out_is_apart_from_what_is_read(backend, device):
    """Whatever the types: the bytes count."""
    memory = torch.zeros(4096, dtype=torch.uint8, device=device)

    def at(start: int, dtype: torch.dtype, *shape: int) -> Tensor:
        return memory[start:].view(dtype)[: torch.Size(shape).numel()].view(shape)

    places = {  # of 432 bytes, then 48, 24, 12 and 12: next to one another, and to the 1080 of `out`
        "frames": at(0, torch.uint8, 3, 3, 6, 8),
        "boxes": at(1512, torch.float32, 3, 4),
        "frame_index": at(1560, torch.int64, 3),
        "mean": at(1584, torch.float32, 3),
        "std": at(1596, torch.float32, 3),
    }
    out = at(432, torch.float32, 3, 3, 6, 5)
    places["std"].fill_(1)
    crop_resize(output_size=SIZE, out=out, backend=backend, **places)
    for name, value in places.items():
        own = {other: there.clone() for other, there in places.items() if other != name}
        begin = value.storage_offset() * value.element_size()
        for start in (max(0, begin - 1076), begin, begin + value.nbytes - 4):
            over = at(start // 4 * 4, torch.float32, 3, 3, 6, 5)
            with pytest.raises(ValueError, match=f"{name} must not share memory with out, which is written to"):
                crop_resize(output_size=SIZE, out=over, backend=backend, **{name: value}, **own)


def test_empty_tensors_share_no_memory(backend, device):
    frames = torch.rand(4, 3, 6, 5, device=device)
    none, index = frames.new_empty(0, 4), torch.empty(0, dtype=torch.int64, device=device)
    out = crop_resize(frames, none, SIZE, frame_index=index, out=frames[2:2], backend=backend)
    assert out.shape == (0, 3, 6, 5)


@pytest.mark.parametrize("name", ["frames", "boxes", "out"])
def test_gradients_are_refused_not_dropped(name, backend, device):
    frames, boxes = inputs(device, torch.float32)
    tensors = {"frames": frames, "boxes": boxes, "out": torch.empty(3, 3, *SIZE, device=device)}
    expected = crop_resize(frames, boxes, SIZE, backend=backend)
    tensors[name].requires_grad_()
    refused = r"crop_resize has no gradient with out=: use torch.no_grad\(\)"
    with pytest.raises(RuntimeError, match=refused):
        crop_resize(output_size=SIZE, backend=backend, **tensors)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            assert_same_bits(crop_resize(output_size=SIZE, backend=backend, **tensors), expected)
    if name != "out":  # bytes have no gradient that could be dropped
        tensors["out"] = poison(torch.empty(3, 3, *SIZE, dtype=torch.uint8, device=device))
        got = crop_resize(output_size=SIZE, backend=backend, **tensors)
        assert_same_bits(got, crop_resize(frames, boxes, SIZE, out_dtype=torch.uint8, backend=backend))


def test_functional_gradients_are_refused(backend, device):
    frames, boxes = inputs(device, torch.float32)
    out = torch.empty(3, 3, *SIZE, device=device)

    def crop(boxes):
        return crop_resize(frames, boxes, SIZE, out=out, backend=backend).sum()

    with pytest.raises(RuntimeError, match="crop_resize has no gradient with out="):
        torch.func.grad(crop)(boxes)
    with pytest.raises(NotImplementedError, match="crop_resize has no forward-mode derivative"):
        torch.func.jvp(crop, (boxes,), (torch.ones_like(boxes),))


def test_autograd_notices_that_out_has_changed(backend, device):
    frames, boxes = inputs(device, torch.float32)
    leaf = torch.zeros(3, 3, *SIZE, device=device, requires_grad=True)
    saved = leaf.exp()
    with torch.no_grad():
        crop_resize(frames, boxes, SIZE, out=saved, backend=backend)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        saved.sum().backward()


def test_an_inference_tensor_is_written_in_inference_mode(backend, device):
    frames, boxes = inputs(device)
    with torch.inference_mode():
        out = poison(torch.empty(3, 3, *SIZE, device=device))
        assert crop_resize(frames, boxes, SIZE, out=out, backend=backend) is out
    assert_same_bits(out.clone(), crop_resize(frames, boxes, SIZE, backend=backend))


def test_compiles_in_full_for_any_number_of_boxes(backend, device):
    frames = inputs(device)[0]

    def crop(boxes, index, out):
        return crop_resize(frames, boxes, SIZE, frame_index=index, out=out, backend=backend, **IMAGENET)

    torch._dynamo.reset()
    compiled = torch.compile(crop, fullgraph=True, dynamic=True, backend="aot_eager")
    for memory_format in MEMORY_FORMATS:
        for count in (3, 7, 1, 0):
            boxes = smooth_boxes(max(count, 1), SIZE, (14, 12), seed=count).float()[:count].to(device)
            index = (torch.arange(count) % 3).to(device)
            out = torch.empty(count, 3, *SIZE, device=device, memory_format=memory_format)
            version = out._version
            assert compiled(boxes, index, poison(out)) is out
            assert out._version > version
            assert_same_bits(out, crop(boxes, index, torch.empty_like(out)))


@pytest.mark.parametrize("memory_format", MEMORY_FORMATS, ids=str)
def test_vmap_writes_each_entry(memory_format, backend, device):
    frames = random_images((4, 2, 3, 14, 12), torch.float32, "contiguous").to(device)
    boxes = smooth_boxes(8, SIZE, (14, 12), seed=0).float().view(4, 2, 4).to(device)
    out = torch.empty(8, 3, *SIZE, device=device, memory_format=memory_format).unflatten(0, (4, 2))

    def crop(frames, boxes, out):
        return crop_resize(frames, boxes, SIZE, out=out, backend=backend, **IMAGENET)

    expected = torch.stack([crop(*each) for each in zip(frames, boxes, torch.empty_like(out), strict=True)])
    assert_same_bits(torch.vmap(crop)(frames, boxes, poison(out)), expected)
    assert_same_bits(out, expected)
    last = frames.movedim(0, 1), boxes.permute(1, 2, 0).contiguous()
    torch.vmap(crop, (1, 2, 0))(*last, poison(out))
    assert_same_bits(out, expected)
    with pytest.raises(ValueError, match="out must be mapped by vmap where other arguments are"):
        torch.vmap(lambda frames, boxes: crop(frames, boxes, out[0]))(frames, boxes)


def test_no_patches_are_made_beside_out(backend, device):
    if backend != "cpu":
        pytest.skip("the reference and the harness make some; a GPU's memory is looked at in test_cuda.py")
    frames, boxes = inputs(device)
    out = torch.empty(3, 3, 256, 256)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        crop_resize(frames, boxes, 256, out=out, backend=backend)
    allocated = sum(max(event.self_cpu_memory_usage, 0) for event in profile.key_averages())
    assert allocated < out.nbytes / 100

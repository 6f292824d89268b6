"""adafocus_ops.boxes.for_frames: from glance frames and picked frames to what crop_resize takes."""

import pytest
import torch
from torch.nn.functional import interpolate

from adafocus_ops import boxes, crop_resize, quantile_frames, set_debug

SIZES = ((8, 24), (16, 16), (5, 7), (1, 4), (8, 3), (7, 100))  # T glance frames of N


def some_boxes(rows, items, dtype=torch.float64):
    return torch.rand(rows, items, 4, generator=torch.Generator().manual_seed(0), dtype=dtype) * 20 + 10


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("mode", ["linear", "nearest"])
@pytest.mark.parametrize(("items", "count"), SIZES)
def test_all_frames_are_those_of_interpolate(items, count, mode, dtype):
    """Which the published networks call, on the actions."""
    given, index = some_boxes(2, items, dtype), torch.arange(count).expand(2, count)
    how = {"mode": "linear", "align_corners": False} if mode == "linear" else {"mode": "nearest-exact"}
    wanted = interpolate(given.transpose(1, 2), count, **how).transpose(1, 2).flatten(0, 1)
    found, flat = boxes.for_frames(given, index, count, interpolation=mode)
    assert found.dtype == dtype
    torch.testing.assert_close(found, wanted, rtol=8 * torch.finfo(dtype).eps, atol=0)
    assert flat.tolist() == list(range(2 * count))


def test_by_hand():
    given = torch.arange(4.0).view(1, 4, 1).expand(1, 4, 4)  # glance frame t says t
    index = torch.tensor([[0, 1, 4, 5, 6, 11]], dtype=torch.int32)
    found, flat = boxes.for_frames(given, index, 12)
    torch.testing.assert_close(found[:, 2], torch.tensor([0, 0, 1, 4 / 3, 5 / 3, 3]))
    found, flat = boxes.for_frames(given, index, 12, interpolation="nearest")
    assert found[:, 2].tolist() == [0, 0, 1, 1, 2, 3]
    assert flat.tolist() == index[0].tolist()


def test_one_box_a_video_is_that_of_all_its_frames():
    given, index = torch.rand(2, 4), torch.tensor([[3, 5, 0], [1, 1, 2]])
    found, flat = boxes.for_frames(given, index, 6)
    assert torch.equal(found, given.repeat_interleave(3, 0))
    assert torch.equal(found, boxes.for_frames(given[:, None], index, 6)[0])
    assert flat.tolist() == [3, 5, 0, 7, 7, 8]


@pytest.mark.parametrize("rows", [1, 2])
def test_boxes_are_a_copy_whatever_the_batch(rows):
    """Of one video too: kernels take contiguous boxes, and an exported program is one for every batch."""
    found, _ = boxes.for_frames(torch.rand(rows, 4), torch.tensor([[3, 5, 0]] * rows), 6)
    assert found.stride() == (4, 1)


def test_videos_are_where_they_are_in_the_batch():
    index = torch.tensor([[3, 5], [1, 2]])
    for videos in (torch.tensor([4, 1]), torch.tensor([4, 1], dtype=torch.int32)):
        assert boxes.for_frames(torch.ones(2, 4), index, 6, videos=videos)[1].tolist() == [27, 29, 7, 8]


def test_the_patches_are_those_of_a_loop():
    frames = torch.rand(2, 12, 3, 40, 40)
    index = quantile_frames(torch.rand(2, 4).softmax(1), 12, 5)
    given = some_boxes(2, 4, torch.float32)
    picked, flat = boxes.for_frames(given, index, 12)
    patches = crop_resize(frames, picked, 8, frame_index=flat).unflatten(0, (2, 5))
    each = interpolate(given.transpose(1, 2), 12, mode="linear", align_corners=False).transpose(1, 2)
    for video in range(2):
        alone = crop_resize(frames[video, index[video]], each[video, index[video]], 8)
        torch.testing.assert_close(patches[video], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("interpolation", ["linear", "nearest"])
def test_an_index_out_of_range_reads_no_other_video(interpolation):
    given = some_boxes(3, 4, torch.float32)
    index = torch.tensor([[0, 12], [-1, 2**62], [-(2**63), 11]])
    picked, flat = boxes.for_frames(given, index, 12, interpolation=interpolation)
    assert flat.tolist() == [0, -1, -1, -1, -1, 35]
    assert picked.isfinite().all()
    patches = crop_resize(torch.rand(3, 12, 1, 30, 30), picked, 4, frame_index=flat)
    assert patches.isnan().flatten(1).all(1).tolist() == [False, True, True, True, True, False]
    set_debug(True)
    try:
        with pytest.raises(ValueError, match=r"frame_index must be in \[0, 12\) \(num_frames\), got values from -9"):
            boxes.for_frames(given, index, 12)
    finally:
        set_debug(False)


def test_a_box_without_a_value_stays_with_its_glance_frame():
    given = some_boxes(1, 4)
    given[0, 0], given[0, 3, 1] = torch.nan, torch.inf
    given.requires_grad_()
    found, _ = boxes.for_frames(given, torch.arange(12)[None], 12)
    assert found.isfinite().all(1).tolist() == [False] * 4 + [True] * 4 + [False] * 4
    found[4:8].sum().backward()
    assert given.grad.isfinite().all()


@pytest.mark.parametrize("interpolation", ["linear", "nearest"])
def test_gradients(interpolation):
    given, index = some_boxes(2, 5).requires_grad_(), torch.tensor([[0, 3, 3], [13, 7, 8]])
    run = lambda b: boxes.for_frames(b, index, 14, interpolation=interpolation)[0]  # noqa: E731
    assert torch.autograd.gradcheck(run, (given,))
    assert torch.autograd.gradgradcheck(run, (given,))


def test_inside_transforms():
    given, index = some_boxes(6, 5, torch.float32).view(3, 2, 5, 4), torch.randint(0, 14, (3, 2, 4))
    run = lambda b, i: boxes.for_frames(b, i, 14)  # noqa: E731
    mapped = torch.vmap(run)(given, index)
    for entry in range(3):
        for found, wanted in zip(mapped, run(given[entry], index[entry]), strict=True):
            assert torch.equal(found[entry], wanted)
    torch.compiler.reset()
    compiled = torch.compile(boxes.for_frames, fullgraph=True, dynamic=True, backend="aot_eager")
    for count in (14, 20):
        for found, wanted in zip(
            compiled(given[0], index[0], count), boxes.for_frames(given[0], index[0], count), strict=True
        ):
            assert torch.equal(found, wanted)
    with torch.device("meta"):
        assert torch.equal(run(given[0], index[0])[0], mapped[0][0])
    assert [t.shape for t in run(given[0].to("meta"), index[0].to("meta"))] == [(8, 4), (8,)]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision_is_interpolated_in_float32(dtype, autocast):
    given, index = some_boxes(2, 5).to(dtype), torch.tensor([[0, 3, 3], [13, 7, 8]])
    with torch.autocast("cpu", dtype=dtype, enabled=autocast):
        found, _ = boxes.for_frames(given, index, 14)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), boxes.for_frames(given.double(), index, 14)[0], rtol=1e-6, atol=0)


ONES, INDEX = torch.ones(2, 5, 4), torch.zeros(2, 3, dtype=torch.int64)


@pytest.mark.parametrize(
    ("args", "kwargs", "error", "message"),
    [
        ((ONES[0], INDEX, 14), {}, ValueError, r"boxes must be \[B, T, 4\] or \[B, 4\] with B=2 .*, got \(5, 4\)"),
        ((ONES[:, :, :3], INDEX, 14), {}, ValueError, r"boxes must be \[B, T, 4\] .*, got \(2, 5, 3\)"),
        ((ONES[:, :0], INDEX, 14), {}, ValueError, r"boxes must be \[B, T, 4\] .*, got \(2, 0, 4\)"),
        ((ONES, INDEX[0], 14), {}, ValueError, r"frame_index must be \[B, K\], got \(3,\) int64"),
        ((ONES, INDEX.float(), 14), {}, TypeError, "frame_index must have dtype int32, int64, got float32"),
        ((ONES, INDEX, 0), {}, ValueError, "num_frames must be at least 1, got 0"),
        ((ONES, INDEX, 14.0), {}, TypeError, "num_frames must be an int, got float"),
        ((ONES, INDEX, 14), {"interpolation": "cubic"}, ValueError, "interpolation must be one of 'linear', 'nearest'"),
        ((ONES, INDEX, 14), {"videos": torch.arange(3)}, ValueError, r"videos must be \[B\] with B=2 .*, got \(3,\)"),
        ((ONES.to("meta"), INDEX, 14), {}, ValueError, "boxes must be on the device of frame_index"),
    ],
)
def test_bad_arguments_say_what_was_wrong(args, kwargs, error, message):
    with pytest.raises(error, match=message):
        boxes.for_frames(*args, **kwargs)

"""crop_resize: bad arguments say what was wrong."""

import pytest
import torch

import adafocus_ops
from adafocus_ops import crop_resize
from conftest import on_device

pytestmark = pytest.mark.usefixtures("crop_resize_runs")


FRAMES, BOXES = torch.zeros(2, 3, 8, 8), torch.ones(2, 4)


@pytest.mark.parametrize(
    ("args", "kwargs", "error", "message"),
    [
        (([1], BOXES, 4), {}, TypeError, "frames must be a tensor, got list"),
        ((FRAMES.int(), BOXES, 4), {}, TypeError, "frames must have dtype uint8, .*, got int32"),
        ((FRAMES.to_sparse(), BOXES, 4), {}, TypeError, "frames must be dense, got layout torch.sparse_coo"),
        ((FRAMES[0], BOXES, 4), {}, ValueError, r"frames must be \[..., C, H, W\] .*, got \(3, 8, 8\) float32"),
        ((FRAMES, BOXES[:, :3], 4), {}, ValueError, r"boxes must be \[K, 4\], got \(2, 3\) float32"),
        ((FRAMES, BOXES[0], 4), {}, ValueError, r"boxes must be \[K, 4\], got \(4,\) float32"),
        (
            (FRAMES, BOXES[None], 4),
            {},
            ValueError,
            r"got \(1, 2, 4\) float32: boxes.flatten\(0, -2\) .*boxes.for_frames",
        ),
        ((FRAMES, BOXES.int(), 4), {}, TypeError, "boxes must have dtype .*, got int32"),
        ((FRAMES, torch.ones(3, 4), 4), {}, ValueError, r"boxes .* K == N == 2 \(frames\) unless frame_index is given"),
        (
            (FRAMES, torch.ones(6, 4), 4),
            {},
            ValueError,
            r"\(6, 4\) .* beside frames \[..., C, H, W\] of \(2, 3, 8, 8\)",
        ),
        (
            (FRAMES, BOXES, 4),
            {"frame_index": torch.zeros(1, 2, dtype=torch.int64)},
            ValueError,
            r"frame_index must be \[K\] with K=2 \(boxes\), got \(1, 2\) int64; .*boxes.for_frames",
        ),
        ((FRAMES, BOXES, 0), {}, ValueError, "output_size height must be at least 1, got 0"),
        ((FRAMES, BOXES, (4, 5, 6)), {}, ValueError, r"output_size must be P or \(P_h, P_w\), got \(4, 5, 6\)"),
        ((FRAMES, BOXES, 4.0), {}, TypeError, "output_size height must be an int, got float"),
        (
            (FRAMES, BOXES, 4),
            {"padding": "reflect"},
            ValueError,
            "padding must be one of 'zeros', 'border', got 'reflect'",
        ),
        ((FRAMES, BOXES, 4), {"antialias": "yes"}, TypeError, "antialias must be a bool, got str"),
        ((FRAMES, BOXES, 4), {"out_dtype": torch.int64}, TypeError, "out_dtype must be .*, got torch.int64"),
        (
            (FRAMES, BOXES, 4),
            {"mean": (1, 2)},
            ValueError,
            r"mean must be .* each of 3 channels \(C of frames .*\), got \(2,\)",
        ),
        ((FRAMES, BOXES, 4), {"std": ((1, 2, 3),)}, ValueError, r"std must be .* each of 3 channels .*, got \(1, 3\)"),
        ((FRAMES, BOXES, 4), {"memory_format": torch.channels_last_3d}, ValueError, "memory_format must be"),
        ((FRAMES, BOXES, 4), {"frame_index": torch.tensor([0.0, 1.0])}, TypeError, "frame_index must have dtype int32"),
        ((FRAMES, BOXES, 4), {"frame_index": torch.tensor([0])}, ValueError, r"frame_index must be \[K\] with K=2"),
        ((FRAMES, BOXES, 4), {"frame_index": torch.tensor([[0], [1]])}, ValueError, r"frame_index must be \[K\]"),
        ((FRAMES, BOXES.to("meta"), 4), {}, ValueError, r"boxes must be on the device of frames \(.+\), got meta"),
        (
            (FRAMES, BOXES, 4),
            {"frame_index": torch.tensor([0, 1], device="meta")},
            ValueError,
            "frame_index must be on",
        ),
    ],
)
def test_bad_arguments_say_what_was_wrong(args, kwargs, error, message, backend, device):
    args = [on_device(device, value) for value in args]
    kwargs = {name: on_device(device, value) for name, value in kwargs.items()}
    with pytest.raises(error, match=message):
        crop_resize(*args, backend=backend, **kwargs)


def test_debug_mode_looks_at_values(backend, device):
    frames, boxes = FRAMES.to(device), BOXES.to(device)
    adafocus_ops.set_debug(True)
    try:
        with pytest.raises(ValueError, match="boxes must be finite; the first that is not is box 1"):
            crop_resize(frames, boxes * torch.tensor([[1.0], [float("nan")]], device=device), 4, backend=backend)
        with pytest.raises(ValueError, match=r"frame_index must be in \[0, 2\) \(frames\), got values from 0 to 7"):
            crop_resize(frames, boxes, 4, frame_index=torch.tensor([0, 7], device=device), backend=backend)
    finally:
        adafocus_ops.set_debug(False)

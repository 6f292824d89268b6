"""crop_resize: batched, deformable, differentiable crop-and-resize."""

from collections.abc import Sequence

import torch
from torch import Tensor

from . import _crop_autograd, backends
from ._crop_arguments import FRAME_DTYPES, check_arguments, check_out, check_output_size, wants_channels_last
from ._overridable import overridable
from .checks import check_bool, names, require


@overridable
def crop_resize(
    frames: Tensor,
    boxes: Tensor,
    output_size: int | tuple[int, int],
    *,
    frame_index: Tensor | None = None,
    mean: float | Sequence[float] | Tensor | None = None,
    std: float | Sequence[float] | Tensor | None = None,
    padding: str = "zeros",
    antialias: bool = False,
    out_dtype: torch.dtype | None = None,
    memory_format: torch.memory_format | None = None,
    out: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """Cuts one box per output from a batch of frames and resizes it bilinearly to a common size.

    Output pixel (i, j) of box (cy, cx, h, w) samples the frame, whose pixel (r, c) covers
    [r, r+1) x [c, c+1), with bilinear weights at

        y_i = cy + (2 i + 1 - P_h) / (2 P_h) h - 1/2,    x_j = cx + (2 j + 1 - P_w) / (2 P_w) w - 1/2

    as pixel indices: the positions of affine_grid and grid_sample with align_corners=False.

    Args:
        frames: [N, C, H, W], or [..., C, H, W] with leading dimensions flattened to N; uint8, float16,
            bfloat16, float32 or float64. Any strides are read in place; contiguous and channels_last
            are the fast ones. The last but two is always C: grey videos [B, N, H, W] are read as B
            frames of N channels, and frames.unsqueeze(-3) makes them B N frames of one.
        boxes: [K, 4] floating point (cy, cx, h, w): centre row, centre column, height, width in pixels
            of the frame. Their dtype is independent of the frames'.
        output_size: P or (P_h, P_w) in pixels.
        frame_index: [K] int32 or int64 into the flattened frames; None cuts box k from frame k (K == N). For picks
            [B, K] of videos [B, N, C, H, W], `boxes.for_frames` makes the boxes and the index.
        mean, std: per channel (a number, C numbers or a tensor [C]), for frames scaled to [0, 1]:
            uint8 pixels become (x / 255 - mean) / std, floating-point pixels (x - mean) / std, inside
            the read. Without both, pixels keep their scale. They are constants without gradient; tensors
            should lie on the device of the frames, or every call copies them.
        padding: "zeros" (0 outside the frame, after normalisation) or "border" (the nearest edge pixel).
        antialias: along each axis where the box is larger than the output, average over the downscaling with a
            triangle filter, as torchvision and PIL do. The box is cut out first, pixels at its ends by the part of
            them that it covers, and the weights are normalised: a box of whole pixels inside the frame gives
            exactly the antialiased bilinear resize of that slice, whatever lies around it.
        out_dtype: any dtype that frames may have; default the frames' if floating point, else float32.
            uint8 output is rounded and saturated and has no gradient.
        memory_format: torch.contiguous_format or torch.channels_last; default like the frames.
        out: [K, C, P_h, P_w], contiguous or channels_last without gaps, on the device of the frames: written in place
            and returned, so that memory made once serves every call. out_dtype and memory_format are its own, and must
            say so if they are given. It may not share memory with frames, boxes, frame_index, mean or std, nor lie
            between their elements (under torch.compile nobody looks). vmap must map it if it maps another argument.
        backend: "cuda", "cpu", "triton" or "reference"; default the best that can run.

    Returns:
        [K, C, P_h, P_w] of out_dtype: `out` if it is given, with the bits that a new tensor would have. In
        channels_last, K consecutive crops are also a channels_last_3d video, without a copy.

    Gradients: to boxes (all four numbers) and to frames (floating point), each only if asked for; once
    differentiable, in reverse mode. A sample exactly on a pixel takes the derivative on its right-hand side;
    with antialias, an end of the box exactly on a pixel's edge takes that on the inner side. With out= none: it
    raises where autograd would record one.

    Determinism: forward and both gradients are bitwise reproducible.

    Defined for all values: a box partly or wholly outside reads padding; h or w of 0 or less collapses
    or mirrors as the formula says; a box with NaN or infinity, or a frame_index out of range, gives a
    patch of NaN (0 in integer output) and zero gradients. Coordinates and accumulation are float32
    (float64 if frames or boxes are), whatever the dtype of the frames.

    Raises:
        TypeError: a dtype or type that is not listed above.
        ValueError: a shape, device or choice that is not; an `out` with gaps, of another layout than memory_format, or
            in the memory of another argument; under set_debug(True) also a non-finite box and an index out of range.
        RuntimeError: the backend asked for cannot run; the message says why. A gradient would be needed with out=.

    Source: Uni-AdaFocus, Sections 3.1 and 4.1.2 (Eqs. 5 to 9, 13).
    """
    check_arguments(frames, boxes, frame_index, padding)
    check_bool("antialias", antialias)
    out_h, out_w = check_output_size(output_size)
    require(
        out_dtype is None or out_dtype in FRAME_DTYPES,
        lambda: f"out_dtype must be {names(FRAME_DTYPES)}, got {out_dtype}",
        TypeError,
    )
    chosen = backends.choose("crop_resize", frames.device, backend)
    tensors = (frames, boxes, frame_index, mean, std)
    shared = {"padding": padding, "antialias": antialias}
    if out is not None:
        check_out(out, frames, (boxes.shape[0], frames.shape[-3], out_h, out_w), out_dtype, memory_format)
        return _crop_autograd.run_into(out, "crop_resize", chosen, *tensors, **shared)
    if out_dtype is None:
        out_dtype = frames.dtype if frames.is_floating_point() else torch.float32
    channels_last = wants_channels_last(frames, memory_format)
    call = _crop_autograd.CropCall(
        op="crop_resize",
        backend=chosen,
        forward={"out_h": out_h, "out_w": out_w, "out_dtype": out_dtype, "channels_last": channels_last, **shared},
        backward=shared,
    )
    return _crop_autograd.run(call, out_dtype, *tensors)

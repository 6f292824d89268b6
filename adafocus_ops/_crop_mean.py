"""crop_mean: the mean over each crop, without making the crops."""

from collections.abc import Sequence

import torch
from torch import Tensor

from . import _crop_autograd, backends
from ._crop_arguments import check_arguments, check_output_size
from ._overridable import overridable


@overridable
def crop_mean(
    frames: Tensor,
    boxes: Tensor,
    output_size: int | tuple[int, int],
    *,
    frame_index: Tensor | None = None,
    mean: float | Sequence[float] | Tensor | None = None,
    std: float | Sequence[float] | Tensor | None = None,
    padding: str = "zeros",
    backend: str | None = None,
) -> Tensor:
    """The mean over each crop that crop_resize would make: crop_resize(...).mean((-2, -1)).

    Resampling is a product with one weight matrix for each axis, so the mean of a crop is a pool of the frame
    with the mean rows of the two, w_y [H] and w_x [W]; the crops are not made:

        out[c] = sum over r, s of w_y[r] w_x[s] v[c, r, s],    w_y[r] = (1 / P_h) sum over i of A_y[i, r]

    Args:
        frames: [N, C, H, W], or [..., C, H, W] with leading dimensions flattened to N; uint8, float16,
            bfloat16, float32 or float64. Any strides are read in place. The last but two is always C.
        boxes: [K, 4] floating point (cy, cx, h, w), in pixels of the frame, as crop_resize's.
        output_size: P or (P_h, P_w) in pixels, of the crops that are averaged: how densely the box is sampled. On a
            small map take at least twice the pixels of the map that a box spans; it costs next to nothing.
        frame_index: [K] int32 or int64 into the flattened frames; None takes box k from frame k (K == N).
        mean, std: per channel, as crop_resize's.
        padding: "zeros" (0 outside the frame, after normalisation) or "border" (the nearest edge pixel).
        backend: "cuda", "cpu", "triton" or "reference"; default the best that can run.

    Returns:
        [K, C] of the frames' dtype if floating point, else float32.

    Gradients: to boxes (all four numbers) and to frames (floating point), each only if asked for; once
    differentiable, in reverse mode. A sample exactly on a pixel takes the derivative on its right-hand side.

    How dense: P samples of a box see P differences of neighbouring pixels on each axis, so that few of them make the
    gradient of a box noise. On maps of 7 x 7 with boxes of 3 to 7 pixels, d cy against that of a dense mean:

        samples              3     4     6     8     16
        correlation, white   .62   .51   .81   .80   .93    (maps of independent pixels)
        size of it, white    3.0   1.9   1.3   1.4   1.0
        correlation, smooth  .84   .92   .96   .95   .99    (3 x 3 means of them)

    The published code samples 3 x 3 for patches of 96 pixels; 8 or 16 give a policy more to learn from.

    Determinism: forward and both gradients are bitwise reproducible.

    Defined for all values: as crop_resize; where that gives a patch of NaN, the mean is NaN.

    Raises:
        TypeError, ValueError, RuntimeError: as crop_resize.

    Source: Uni-AdaFocus, Section 4.1.2 (Eqs. 13, 14): the deep features that train the spatial policy.
    """
    check_arguments(frames, boxes, frame_index, padding)
    out_h, out_w = check_output_size(output_size)
    out_dtype = frames.dtype if frames.is_floating_point() else torch.float32
    shared = {"out_h": out_h, "out_w": out_w, "padding": padding}
    call = _crop_autograd.CropCall(
        op="crop_mean",
        backend=backends.choose("crop_mean", frames.device, backend),
        forward={"out_dtype": out_dtype, **shared},
        backward=shared,
    )
    return _crop_autograd.run(call, out_dtype, frames, boxes, frame_index, mean, std)

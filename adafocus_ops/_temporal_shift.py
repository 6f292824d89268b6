"""temporal_shift: TSM's shift of channels along time."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import backends
from ._autograd import differentiable
from ._overridable import overridable
from .checks import FLOAT_DTYPES, check_bool, check_tensor, describe, positive_int, require


@overridable
def temporal_shift(
    x: Tensor, num_frames: int, *, fold_div: int = 8, inverse: bool = False, backend: str | None = None
) -> Tensor:
    """Moves a part of the channels one frame along time, in every clip of a batch.

    With f = C // fold_div, channels [0, f) are taken from frame t + 1, channels [f, 2f) from frame
    t - 1 (zero beyond the ends of the clip), and the others stay.

    Args:
        x: [B * num_frames, C, H, W] floating point, the frames of a clip one after another; any strides are read
            in place.
        num_frames: frames in a clip.
        fold_div: which part of the channels moves each way; 8 moves an eighth each way. At least 2.
        inverse: moves them back: channels [0, f) from frame t - 1, [f, 2f) from t + 1. What the shift moved beyond
            the ends of the clip is lost, so this is its transpose, not more.
        backend: "cuda", "cpu", "triton" or "reference"; default the best that can run.

    Returns:
        a new tensor like x: channels_last if x is, else contiguous.

    Gradients: to x, of any order, in reverse mode. Determinism: exact, a copy of values.

    Raises:
        TypeError: x is not floating point. ValueError: its first dimension is no multiple of num_frames.

    Source: TSM, used by Uni-AdaFocus-TSM (Appendix H.1).
    """
    check_tensor("x", x, FLOAT_DTYPES)
    check_bool("inverse", inverse)
    num_frames, fold_div = positive_int("num_frames", num_frames), positive_int("fold_div", fold_div)
    require(fold_div >= 2, lambda: f"fold_div must be at least 2, got {fold_div}")
    require(
        x.ndim == 4 and x.shape[0] % num_frames == 0,
        lambda: f"x must be [B * num_frames, C, H, W] with num_frames={num_frames}, got {describe(x)}",
    )
    backend = backends.choose("temporal_shift", x.device, backend)
    call = _ShiftCall(backend, num_frames, x.shape[1] // fold_div, inverse)
    return _Shift.apply(x, call) if differentiable("temporal_shift", x) else call.fwd(x.detach())


class _ShiftCall(NamedTuple):
    """The kernel of one call, and its arguments besides x; the gradient is the shift back."""

    backend: str
    num_frames: int
    fold: int
    inverse: bool

    def fwd(self, x: Tensor) -> Tensor:
        kernel = backends.kernel("temporal_shift", "fwd", self.backend)
        return kernel(x, num_frames=self.num_frames, fold=self.fold, inverse=self.inverse)


class _Shift(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, call: _ShiftCall) -> Tensor:
        return call.fwd(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        _, ctx.call = inputs

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple:
        return _Shift.apply(grad, ctx.call._replace(inverse=not ctx.call.inverse)), None

"""temporal_shift: TSM's shift of channels along time."""

from torch import Tensor

from . import backends
from ._checks import check_positive_int, check_tensor, describe, require
from ._crops import BOX_DTYPES
from ._reference.temporal_shift import temporal_shift as reference

backends.register("temporal_shift", reference=(reference,))


def temporal_shift(x: Tensor, num_frames: int, *, fold_div: int = 8, backend: str | None = None) -> Tensor:
    """Moves a part of the channels one frame along time, in every clip of a batch.

    With f = C // fold_div, channels [0, f) are taken from frame t + 1, channels [f, 2f) from frame
    t - 1 (zero beyond the ends of the clip), and the others stay.

    Args:
        x: [B * num_frames, C, H, W] floating point, the frames of a clip one after another.
        num_frames: frames in a clip.
        fold_div: which part of the channels moves each way; 8 moves an eighth each way. At least 2.
        backend: "cuda", "cpu", "triton" or "reference"; default the best that can run.

    Returns:
        a new tensor like x, in its memory format.

    Gradients: to x. Determinism: bitwise reproducible.

    Raises:
        TypeError: x is not floating point. ValueError: its first dimension is no multiple of num_frames.

    Source: TSM, used by Uni-AdaFocus-TSM (Appendix H.1).
    """
    check_tensor("x", x, BOX_DTYPES)
    check_positive_int("num_frames", num_frames)
    check_positive_int("fold_div", fold_div)
    require(fold_div >= 2, lambda: f"fold_div must be at least 2, got {fold_div}")
    require(
        x.ndim == 4 and x.shape[0] % num_frames == 0,
        lambda: f"x must be [B * num_frames, C, H, W] with num_frames={num_frames}, got {describe(x)}",
    )
    (kernel,) = backends.kernels("temporal_shift", backends.choose("temporal_shift", x.device.type, backend))
    return kernel(x, num_frames, x.shape[1] // fold_div)

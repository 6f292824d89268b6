"""quantile_frames: which frames the strong network looks at."""

import torch
from torch import Tensor

from . import backends
from ._checks import check_positive_int, check_same_device, check_tensor, checks_values, describe, require
from ._crops import BOX_DTYPES
from ._reference.quantile_frames import quantile_frames as reference

backends.register("quantile_frames", reference=(reference,))


def quantile_frames(
    weights: Tensor,
    num_frames: int,
    k: int,
    *,
    jitter: Tensor | None = None,
    generator: torch.Generator | None = None,
    backend: str | None = None,
) -> Tensor:
    """Picks k of num_frames frames at the quantiles of per-segment weights, in order and distinct.

    The cumulative distribution of the weights is piecewise linear over [0, 1] with a knot at each
    t / T. For i = 0..k-1 the position where it reaches (i + 1/2) / k, times num_frames, rounded down, is
    the index; then, left to right, an index not greater than its left neighbour becomes neighbour + 1;
    last, index i is limited to num_frames - k + i.

    Args:
        weights: [B, T] floating point, one distribution a row (sum 1). Negative and NaN count as zero.
        num_frames: N, how many frames there are to pick from.
        k: how many to pick, at most num_frames.
        jitter: [B, k] in [0, 1), what replaces the 1/2 above (training); None for the midpoints.
        generator: draws the jitter uniformly from it.
        backend: "cuda", "cpu", "triton" or "reference"; default the best that can run.

    Returns:
        int64 [B, k], strictly increasing in each row, in [0, num_frames).

    Gradients: none. Determinism: exact; positions are computed in float32 (float64 for float64).

    Raises:
        ValueError: a shape or device that does not fit, k > num_frames, both jitter and generator;
            under set_debug(True) also negative or NaN weights.

    Source: Uni-AdaFocus, Appendix C.
    """
    check_tensor("weights", weights, BOX_DTYPES)
    require(weights.ndim == 2 and weights.shape[1] >= 1, lambda: f"weights must be [B, T], got {describe(weights)}")
    check_positive_int("num_frames", num_frames)
    check_positive_int("k", k)
    require(k <= num_frames, lambda: f"k must be at most num_frames={num_frames}, got {k}")
    require(jitter is None or generator is None, lambda: "jitter and generator must not both be given")
    if checks_values(weights):
        require(bool((weights >= 0).all()), lambda: "weights must be neither negative nor NaN")
    if generator is not None:
        jitter = torch.rand(weights.shape[0], k, device=weights.device, generator=generator)
    if jitter is not None:
        check_tensor("jitter", jitter, BOX_DTYPES)
        check_same_device("jitter", jitter, "weights", weights)
        rows = weights.shape[0]
        require(
            tuple(jitter.shape) == (rows, k),
            lambda: f"jitter must be [B, k] with B={rows} (weights) and k={k}, got {describe(jitter)}",
        )
        jitter = jitter.detach()
        if checks_values(jitter):
            require(bool(((jitter >= 0) & (jitter < 1)).all()), lambda: "jitter must be in [0, 1)")
    backend = backends.choose("quantile_frames", weights.device.type, backend)
    (kernel,) = backends.kernels("quantile_frames", backend)
    return kernel(weights.detach(), num_frames, k, jitter)

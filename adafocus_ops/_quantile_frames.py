"""quantile_frames: which frames the strong network looks at."""

import torch
from torch import Tensor

from . import backends
from ._overridable import overridable
from ._random import check_row_id, seed_tensor
from ._weighted_sample import check_distributions
from .checks import (
    FLOAT_DTYPES,
    check_same_device,
    check_tensor,
    checks_values,
    describe,
    positive_int,
    require,
)


@overridable
def quantile_frames(
    weights: Tensor,
    num_frames: int,
    k: int,
    *,
    jitter: bool | Tensor | None = None,
    generator: torch.Generator | None = None,
    seed: int | Tensor | None = None,
    row_id: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """Picks k of num_frames frames at the quantiles of per-segment weights, in order and distinct.

    The cumulative distribution of the weights is piecewise linear over [0, 1] with a knot at each
    t / T. For i = 0..k-1 the position where it reaches (i + 1/2) / k, times num_frames, rounded down, is
    the index; then, left to right, an index not greater than its left neighbour becomes neighbour + 1;
    last, index i is limited to num_frames - k + i.

    Args:
        weights: [B, T] floating point, one distribution a row (sum 1: a softmax, no raw scores), taken as it comes,
            any strides. Negative and NaN count as zero.
        num_frames: N, how many frames there are to pick from.
        k: how many to pick, at most num_frames.
        jitter: what replaces the 1/2 above (training): [B, k] in [0, 1), or True to draw it uniformly, so that each
            position is a random one of its stratum. False takes the midpoints, whatever generator there is; None
            draws where a generator or seed is given.
        generator, seed: what the jitter is drawn from, keyed as `weighted_sample`'s draws; default the generator of
            the device, as there.
        row_id: [B] int64, the key of each row's random stream; default 0, 1, ...
        backend: "cuda", "cpu", "triton" or "reference"; default the best that can run.

    Returns:
        int64 [B, k], strictly increasing in each row, in [0, num_frames).

    Gradients: none. Determinism: exact, the same on every backend; positions are computed in float32 (float64
    for float64).

    Raises:
        TypeError, ValueError: a dtype, shape or device that does not fit, k > num_frames, more than one of a jitter
            tensor, generator and seed; under set_debug(True) also negative or NaN weights, rows that do not sum to 1
            (to 0.01) and jitter outside [0, 1).

    Source: Uni-AdaFocus, Appendix C.
    """
    check_tensor("weights", weights, FLOAT_DTYPES)
    require(weights.ndim == 2 and weights.shape[1] >= 1, lambda: f"weights must be [B, T], got {describe(weights)}")
    num_frames, k = positive_int("num_frames", num_frames), positive_int("k", k)
    require(k <= num_frames, lambda: f"k must be at most num_frames={num_frames}, got {k}")
    drawn = jitter is True or (jitter is None and (generator is not None or seed is not None))
    jitter = None if isinstance(jitter, bool) else jitter
    given = [
        name for name, value in (("jitter", jitter), ("generator", generator), ("seed", seed)) if value is not None
    ]
    require(len(given) <= 1, lambda: f"{' and '.join(given)} must not both be given")
    row_id = check_row_id(row_id, weights.shape[:1], "weights", weights)
    check_distributions(weights)
    if jitter is not None:
        _check_jitter(jitter, weights, k)
        jitter = jitter.detach()
    seed = seed_tensor(seed, generator, "weights", weights) if drawn else None
    backend = backends.choose("quantile_frames", weights.device, backend)
    kernel = backends.kernel("quantile_frames", "fwd", backend)
    return kernel(weights.detach(), num_frames=num_frames, k=k, jitter=jitter, seed=seed, row_id=row_id)


def _check_jitter(jitter: Tensor, weights: Tensor, k: int) -> None:
    check_tensor("jitter", jitter, FLOAT_DTYPES)
    check_same_device("jitter", jitter, "weights", weights)
    rows = weights.shape[0]
    require(
        tuple(jitter.shape) == (rows, k),
        lambda: f"jitter must be [B, k] with B={rows} (weights) and k={k}, got {describe(jitter)}",
    )
    if checks_values(jitter):
        require(bool(((jitter >= 0) & (jitter < 1)).all()), lambda: "jitter must be in [0, 1)")

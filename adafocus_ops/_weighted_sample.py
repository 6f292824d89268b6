"""weighted_sample: sampling without replacement."""

import torch
from torch import Tensor

from . import backends
from ._overridable import overridable
from ._random import check_row_id, seed_tensor
from .checks import FLOAT_DTYPES, check_bool, check_tensor, checks_values, describe, positive_int, require


@overridable
def weighted_sample(
    weights: Tensor,
    k: int,
    *,
    num_samples: int | None = None,
    sorted: bool = False,
    generator: torch.Generator | None = None,
    seed: int | Tensor | None = None,
    row_id: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """Draws k of T items without replacement, one after another, each in proportion to its weight.

        P(a_i = t | a_1 .. a_{i-1}) = w_t / (sum of the weights that are left)

    Item t arrives at time E_t / w_t with E_t exponential, and the first k to arrive are drawn, in this order; so
    the first i draws are a sample of size i. E_t comes from Philox4x32-10, a counter-based generator, keyed by
    (seed, row_id, sample, t): a row's draws depend neither on the batch that it is in nor on the backend.

    Args:
        weights: [..., T] floating point, any strides; need not be normalised. Negative and NaN count as zero,
            infinity as the largest number of the dtype. Weights below 2^-120 of the row's largest count as that.
        k: how many to draw, 1 <= k <= T.
        num_samples: how many independent samples of each row; None for one without a dimension of its own.
        sorted: whether each sample's items come in ascending order of index, as frames of a video are wanted,
            rather than in that of their draw.
        generator: what a seed is drawn from; default the generator of the device, which torch.manual_seed sets. Not
            inside torch.compile(fullgraph=True): pass a seed tensor there.
        seed: an int, or an int64 tensor of one element on the device of weights, which a captured CUDA graph
            reads at every replay. The same seed gives the same draws.
        row_id: [...] int64, the key of each row's random stream; default 0, 1, ... through all rows.
        backend: "cuda", "cpu", "triton" or "reference"; default the best that can run.

    Returns:
        int64 [..., k], or [..., num_samples, k] if that is given: distinct indices in the order of their draw, or
        sorted. An item of weight zero is drawn only after every item of positive weight, and among themselves in
        index order.

    Gradients: none (see `expected_value`). Determinism: exact, the same on every backend.

    Raises:
        TypeError, ValueError: a dtype, shape or device that does not fit, k > T, both seed and generator; under
            set_debug(True) also negative or NaN weights.

    Source: Uni-AdaFocus, Section 4.2 (Eq. 16); Efraimidis and Spirakis, "Weighted random sampling with a reservoir".
    """
    check_tensor("weights", weights, FLOAT_DTYPES)
    require(weights.ndim >= 1, lambda: f"weights must be [..., T], got {describe(weights)}")
    k = positive_int("k", k)
    require(k <= weights.shape[-1], lambda: f"k must be at most T={weights.shape[-1]} (weights), got {k}")
    samples = 1 if num_samples is None else positive_int("num_samples", num_samples)
    check_bool("sorted", sorted)
    lead = weights.shape[:-1]
    row_id = check_row_id(row_id, lead, "weights", weights)
    check_weights(weights)
    seed = seed_tensor(seed, generator, "weights", weights)
    rows = weights.detach().flatten(0, -2) if weights.ndim > 1 else weights.detach()[None]  # [B, T]
    kernel = backends.kernel("weighted_sample", "fwd", backends.choose("weighted_sample", weights.device, backend))
    drawn = kernel(rows, k=k, num_samples=samples, seed=seed, row_id=row_id)
    if sorted:
        drawn = drawn.sort(-1).values
    return drawn.view(*lead, *(drawn.shape[1:] if num_samples is not None else drawn.shape[2:]))


def check_weights(weights: Tensor) -> None:
    """Debug mode: negative and NaN weights raise."""
    if checks_values(weights):
        require(bool((weights >= 0).all()), lambda: "weights must be neither negative nor NaN")


# By how much a row may miss the sum 1: more than the rounding of any dtype, or of a model in half precision.
SUM_TOLERANCE = 0.01


def check_distributions(weights: Tensor) -> None:
    """Debug mode: weights of which a row is no distribution raise."""
    check_weights(weights)
    if checks_values(weights):
        sums = weights.sum(-1, dtype=torch.promote_types(weights.dtype, torch.float32))
        wrong = ~((sums - 1).abs() <= SUM_TOLERANCE)
        require(
            not bool(wrong.any()),
            lambda: (
                f"weights must sum to 1 in each row, as those of a softmax do; row {int(wrong.int().argmax())} sums"
                f" to {float(sums[wrong][0]):.6g}"
            ),
        )

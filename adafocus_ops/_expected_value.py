"""expected_value: the mean value of a sample without replacement, differentiable in values and weights."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import backends
from ._autograd import differentiable, gradient
from ._overridable import overridable
from ._random import check_row_id, seed_tensor
from ._reference import expected_value as reference
from ._weighted_sample import check_distributions
from .checks import (
    FLOAT_DTYPES,
    check_bool,
    check_choice,
    check_same_device,
    check_tensor,
    describe,
    positive_int,
    require,
)

MODES = ("sampled", "exact")
MAX_ITEMS = 1024  # T
CLOSED_FORM = 2  # largest k whose expectation every backend knows


@overridable
def expected_value(
    values: Tensor,
    weights: Tensor,
    k: int,
    *,
    num_samples: int = 128,
    mode: str = "sampled",
    generator: torch.Generator | None = None,
    seed: int | Tensor | None = None,
    row_id: Tensor | None = None,
    normaliser_grad: bool = False,
    backend: str | None = None,
) -> Tensor:
    """The mean value of k items drawn without replacement: a loss for what picks them.

        out[b] = 1 / k sum over i = 1..k of E[ v[b, a_i] ]
               = sum over t of q[b, t] w[b, t] v[b, t],
        q[b, t] = 1 / (k M) sum over samples m, steps i of [t not in prefix_{m,i}] / S_{m,i}

    where prefix_{m,i} are the first i - 1 draws of sample m (those of `weighted_sample` with the same seed) and
    S_{m,i} = 1 - the sum of their weights. The last draw of each step is averaged over exactly, which is what
    makes it differentiable; only q needs the samples, so that nothing of size B x M x T exists.

    Args:
        values: [B, T, D], or [B, T], floating point, any strides; T <= 1024.
        weights: [B, T] floating point, each row a distribution (sum 1: a softmax, no raw scores), taken as it
            comes. Negative and NaN count as zero.
        k: how many items are drawn, 1 <= k <= T.
        num_samples: M, samples of a row.
        mode: "sampled", or "exact" for the expectation itself: k <= 2 in closed form on every backend, else by
            enumeration on the reference, for small T, which waits for the device.
        generator, seed, row_id: as `weighted_sample`'s.
        normaliser_grad: whether to differentiate S too. It goes with what the values are, see below.
        backend: "cuda", "cpu", "triton" or "reference"; default the best that can run.

    Returns:
        [B, D], or [B] for values [B, T], of the values' dtype.

    Gradients: to values and weights, each only if asked for; once differentiable, in reverse mode. The draws are
    constants: the probability of a prefix is not differentiated.

    Which normaliser goes with which values: with per-frame losses (values [B, T], minimised themselves: the paper's
    form) take normaliser_grad=True, and k = 2. With S constant, the large weight of one frame makes the q of all
    others large, and minimising q w l takes still more weight from them: the winner takes all. With logits (values
    [B, T, D], then one loss of the expectation: the published code's form) either holds; the default is the
    published one. docs/method, section 7, has figures.

    Determinism: bitwise reproducible for a seed, however the batch is split as long as each row keeps its row_id.

    Defined for all weights: where the drawn weights sum to 1 up to rounding, S is the sum of those left; where that
    is zero or below 2^-64 (nothing is left to average) the step adds nothing.

    Raises:
        TypeError, ValueError: a dtype, shape or device that does not fit, k > T, mode="exact" for a k or T that
            cannot be had; under set_debug(True) also negative or NaN weights and rows that do not sum to 1 (to
            0.01).

    Source: Uni-AdaFocus, Section 4.2 (Eqs. 17 to 21).
    """
    check_tensor("values", values, FLOAT_DTYPES)
    check_tensor("weights", weights, FLOAT_DTYPES)
    require(weights.ndim == 2, lambda: f"weights must be [B, T], got {describe(weights)}")
    require(
        values.ndim in (2, 3) and values.shape[:2] == weights.shape,
        lambda: (
            f"values must be [B, T, D] or [B, T] with B={weights.shape[0]} and T={weights.shape[1]} (weights),"
            f" got {describe(values)}"
        ),
    )
    check_same_device("values", values, "weights", weights)
    items = weights.shape[1]
    require(items <= MAX_ITEMS, lambda: f"weights must have T <= {MAX_ITEMS} items, got {describe(weights)}")
    k = positive_int("k", k)
    require(k <= items, lambda: f"k must be at most T={items} (weights), got {k}")
    num_samples = positive_int("num_samples", num_samples)
    check_choice("mode", mode, MODES)
    check_bool("normaliser_grad", normaliser_grad)
    row_id = check_row_id(row_id, weights.shape[:1], "weights", weights)
    check_distributions(weights)
    if mode == "exact":
        require(seed is None and generator is None, lambda: "mode='exact' draws nothing: no seed and no generator")
        backend = _backend_of_exact(items, k, backend)
        num_samples, seed, row_id = 0, None, None
    else:
        seed = seed_tensor(seed, generator, "weights", weights)
    backend = backends.choose("expected_value", weights.device, backend)
    call = _ExpectationCall(backend, k, num_samples, normaliser_grad)
    value = values if values.ndim == 3 else values[..., None]
    if differentiable("expected_value", values, weights):
        out, _ = _ExpectedValue.apply(value, weights, seed, row_id, call)
    else:
        out, _ = call.fwd(value.detach(), weights.detach(), seed, row_id)
    return out if values.ndim == 3 else out[:, 0]


def _backend_of_exact(items: int, k: int, backend: str | None) -> str | None:
    """The backend that a call with mode="exact" must ask for."""
    if k <= CLOSED_FORM:
        return backend
    wanted = backend or backends.requested() or "reference"
    require(
        wanted == "reference",
        lambda: f"k must be at most {CLOSED_FORM} with mode='exact' (backend 'reference' enumerates more), got {k}",
    )
    reason = reference.why_not_exact(items, k)
    require(reason is None, lambda: f"mode='exact' cannot enumerate k={k} of T={items} (weights): {reason}")
    return wanted


class _ExpectationCall(NamedTuple):
    """The kernels of one call, and their arguments besides its tensors."""

    backend: str
    k: int
    num_samples: int
    normaliser_grad: bool

    def fwd(self, values: Tensor, weights: Tensor, seed: Tensor | None, row_id: Tensor | None) -> tuple[Tensor, Tensor]:
        kernel = backends.kernel("expected_value", "fwd", self.backend)
        return kernel(values, weights, k=self.k, num_samples=self.num_samples, seed=seed, row_id=row_id)

    def bwd_values(self, grad: Tensor, weights: Tensor, coefficients: Tensor, dtype: torch.dtype) -> Tensor:
        return backends.kernel("expected_value", "bwd_values", self.backend)(grad, weights, coefficients, dtype=dtype)

    def bwd_weights(
        self,
        grad: Tensor,
        values: Tensor,
        weights: Tensor,
        coefficients: Tensor,
        seed: Tensor | None,
        row_id: Tensor | None,
    ) -> Tensor:
        kernel = backends.kernel("expected_value", "bwd_weights", self.backend)
        return kernel(
            grad,
            values,
            weights,
            coefficients,
            k=self.k,
            num_samples=self.num_samples,
            seed=seed,
            row_id=row_id,
            normaliser_grad=self.normaliser_grad,
        )


class _ExpectedValue(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(
        values: Tensor, weights: Tensor, seed: Tensor | None, row_id: Tensor | None, call: _ExpectationCall
    ) -> tuple[Tensor, Tensor]:
        return call.fwd(values, weights, seed, row_id)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        values, weights, seed, row_id, ctx.call = inputs
        _, coefficients = output
        ctx.mark_non_differentiable(coefficients)
        ctx.save_for_backward(values, weights, coefficients, seed, row_id)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple:
        (values, weights, coefficients, *draws), call = ctx.saved_tensors, ctx.call
        d_values = d_weights = None
        if ctx.needs_input_grad[0]:
            arguments = (grad, weights, coefficients, values.dtype)
            d_values = gradient("expected_value", call.bwd_values, *arguments)
        if ctx.needs_input_grad[1]:
            arguments = (grad, values, weights, coefficients, *draws)
            d_weights = gradient("expected_value", call.bwd_weights, *arguments)
        return d_values, d_weights, None, None, None

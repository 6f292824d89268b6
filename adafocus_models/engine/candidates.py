"""Forms that compete for the place of a layer or a module: checked, timed, the fastest right one kept."""

import copy
import itertools
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .choices import PLAIN
from .measuring import Call, copies_beyond_cache, error_limit, form_error, median_ms, poison

FASTER = 0.97  # of the plain form's time: what another must take at most to be worth a change


class Contest(NamedTuple):
    """How forms of the same work did."""

    form: str  # the name of the fastest
    ms: dict[str, float]  # form -> milliseconds, of those that are right; none where there is one alone
    left_out: dict[str, str]  # form -> the reason why it does not count
    result: Tensor  # of the work


def contest(
    plain: nn.Module,
    forms: Mapping[str, nn.Module],
    inputs: tuple[Tensor, ...],
    *,
    seconds: float,
    check: bool = True,
) -> Contest:
    """Lets forms compete.

    Args:
        plain: the folded layer or module: the specification.
        forms: name -> what competes; the one called PLAIN stays if none is faster by some percent.
        inputs: x, and for a layer with a sum `other`, which forms may overwrite.
        seconds: about how long they take turns.
        check: compare results with the plain one's first.
    """
    result = plain(*_fresh(inputs))
    left_out = wrong_forms(plain, forms, inputs) if check else {}
    calls = {name: _call(form, inputs) for name, form in forms.items() if name not in left_out}
    ms = median_ms(calls, result.device, seconds=seconds) if len(calls) > 1 else {}
    return Contest(fastest(ms) if ms else next(iter(calls), PLAIN), ms, left_out, result)


def fastest(ms: Mapping[str, float]) -> str:
    """The fastest, unless the plain one nearly is."""
    best = min(ms, key=ms.__getitem__)
    return PLAIN if PLAIN in ms and ms[best] > FASTER * ms[PLAIN] else best


def wrong_forms(plain: nn.Module, forms: Mapping[str, nn.Module], inputs: tuple[Tensor, ...]) -> dict[str, str]:
    """Form -> the reason why it is none, of those that raise or do not give what the plain one gives in float32.

    Where one of them seems to be wrong in float32, float64 decides: what is rounded in many layers after one another is
    no nearer to the exact result in the plain form than in others.

    Memory that results are likely to be given is NaN before, so that what a form does not write shows.
    """
    own = plain(*_fresh(inputs))
    results, reasons = {}, {}
    for name, form in forms.items():
        given = _fresh(inputs)
        poison(own)
        try:
            results[name] = form(*given)
        except Exception as raised:  # of a library, whatever its kind: it is then no candidate, and the report says why
            reasons[name] = reason_of(raised)
    too_far = _too_far(results, plain, own, inputs, torch.promote_types(own.dtype, torch.float32))
    if too_far and own.dtype == torch.float32:
        too_far = _too_far(results, plain, own, inputs, torch.float64)
    return reasons | too_far


def _too_far(
    results: Mapping[str, Tensor], plain: nn.Module, own: Tensor, inputs: tuple[Tensor, ...], precise: torch.dtype
) -> dict[str, str]:
    """Form -> by how much its result differs, where that is too much, from the plain one's in a precise dtype.

    Args:
        own: the plain one's result in the dtype of the inputs.
    """
    if own.dtype == precise and not own.is_cuda:
        expected, plain_error = own, 0.0
    else:  # in float32 too, since a GPU may round to TF32 where it is not told otherwise
        exact = copy.deepcopy(plain).to(precise)
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            expected = exact(*(x.to(precise) for x in _fresh(inputs)))
        plain_error = form_error(own, expected)
    allowed = error_limit(own.dtype, plain_error)
    errors = {name: form_error(result, expected) for name, result in results.items()}
    return {
        name: f"differs from the plain form by {error:.2g} of its size, allowed {allowed:.2g}"
        for name, error in errors.items()
        if error > allowed
    }


def reason_of(error: Exception) -> str:
    """An exception in one line."""
    return ": ".join([type(error).__name__, *str(error).splitlines()[:1]])


def _fresh(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The inputs with copies of those that a form may overwrite: all but the first."""
    return inputs[0], *(x.clone() for x in inputs[1:])


def _call(form: nn.Module, inputs: tuple[Tensor, ...]) -> Call:
    rest = _fresh(inputs)[1:]
    xs = itertools.cycle(copies_beyond_cache(inputs[0]))
    return lambda: form(next(xs), *rest)

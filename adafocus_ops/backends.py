"""Which implementation answers a call: explicit argument > use_backend > ADAFOCUS_BACKEND > the best.

A backend that cannot run says why in a sentence; one that was asked for by name raises with it.
"""

import contextlib
import contextvars
import functools
import importlib.metadata
import importlib.util
import os
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any

import torch

from . import _extension
from ._raw_ops import RAW_OPS
from ._registration import argument_names, overload, raw_op

__all__ = [
    "BACKENDS",
    "choose",
    "extend",
    "implements",
    "kernel",
    "ops",
    "parts",
    "requested",
    "use_backend",
    "why_not",
]

# Best first.
BACKENDS = ("cuda", "cpu", "triton", "reference")
MIN_TRITON = (3, 6)

# The choices of the `with use_backend` blocks that are open, innermost last. Each is a list of its name, which no
# other choice is: blocks that generators hold open may end in any order.
_chosen: contextvars.ContextVar[tuple[list[str], ...]] = contextvars.ContextVar("adafocus_backends", default=())

# Backends beside BACKENDS, chosen only by name: name -> (device type, why it cannot run or None).
_extra: dict[str, tuple[str, str | None]] = {}


def __dir__() -> list[str]:
    return __all__


class Kernel:
    """A part of an op on one backend, which takes the arguments of the raw op by position or by name.

    Names are put in order here: torch would take several times as long to do it.
    """

    def __init__(self, op: str, part: str, function: Callable):
        self.function = function  # the raw op, or an overload of it
        self.names = argument_names(raw_op(op, part))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if kwargs:
            rest = self.names[len(args) :]
            if len(kwargs) != len(rest):
                raise TypeError(f"the arguments must be {', '.join(self.names)}; of {rest} came {', '.join(kwargs)}")
            args += tuple([kwargs[name] for name in rest])
        return self.function(*args)


def _as_kernels_run(function: Callable) -> Callable:
    """The function unseen by autograd, and inside autocast with the arithmetic that it asks for."""

    @functools.wraps(function)
    @torch.no_grad()
    def run(*args: Any) -> Any:
        device = args[0].device.type
        if not torch.amp.is_autocast_available(device):  # a meta tensor's, for one
            return function(*args)
        with torch.autocast(device, enabled=False):
            return function(*args)

    return run


def _imported_when_called(module: str, name: str) -> Callable:
    def run(*args: Any) -> Any:
        return getattr(import_module(module), name)(*args)

    return run


def _kernels_of(op: str, part: str) -> dict[str, Kernel]:
    """The kernels of a part by backend, as far as the library has them."""
    reference = import_module(f"adafocus_ops._reference.{op}")
    functions = {
        "reference": overload(op, part, "reference", _as_kernels_run(getattr(reference, part))),
        "cpu": raw_op(op, part),
        "cuda": raw_op(op, part),
        "triton": overload(op, part, "triton", _imported_when_called(f"adafocus_ops._triton.{op}", part)),
    }
    return {backend: Kernel(op, part, function) for backend, function in functions.items()}


# op -> part -> backend -> kernel
_kernels: dict[str, dict[str, dict[str, Kernel]]] = {
    op: {part: _kernels_of(op, part) for part in declared.parts} for op, declared in RAW_OPS.items()
}


def extend(name: str, device: str, kernels: Mapping[str, Mapping[str, Callable]], reason: str | None = None) -> None:
    """Adds a backend that runs when it is asked for by name: a test harness, or kernels from elsewhere.

    Args:
        name: letters, digits, underscores and dashes.
        device: the device type of the tensors that it takes, such as "cpu".
        kernels: op -> part -> function with the signature of the raw op; an op comes with all of its `parts`.
        reason: why it cannot run here, a sentence, if it cannot.

    Raises:
        ValueError: kernels of an op that does not exist.
    """
    unknown = [op for op in kernels if op not in RAW_OPS]
    if unknown:
        raise ValueError(f"kernels must be of ops that adafocus_ops/_raw_ops.py declares, got {', '.join(unknown)}")
    _extra[name] = (device, reason)
    for op, functions in kernels.items():
        for part in parts(op):
            _kernels[op][part][name] = Kernel(op, part, overload(op, part, name, functions[part]))
    why_not.cache_clear()


def ops() -> tuple[str, ...]:
    """Names of the ops."""
    return tuple(RAW_OPS)


def parts(op: str) -> tuple[str, ...]:
    """Names of the functions that make up an op: its forward, and its gradients if it has kernels for them."""
    return tuple(RAW_OPS[op].parts)


def kernel(op: str, part: str, backend: str) -> Kernel:
    """A part of an op on a backend."""
    return _kernels[op][part][backend]


def implements(backend: str, op: str) -> bool:
    """Tells if this version has kernels of the op for the backend, built or not."""
    return all(backend in kernels for kernels in _kernels[op].values())


def _why_not_compiled(op: str, key: str) -> str | None:
    """The reason why the extension cannot run the op for a dispatch key ("CPU" or "CUDA")."""
    if _extension.MISSING:
        return _extension.MISSING
    has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key
    names = [raw_op(op, part).name() for part in parts(op)]
    lacking = [name for name in names if not has_kernel(name, key)]
    return f"the extension was built without the {key} kernel of {', '.join(lacking)}" if lacking else None


def _why_not_triton(device: str) -> str | None:
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed (the CUDA builds of torch bring it)"
    version = importlib.metadata.version("triton")
    if tuple(map(int, version.split(".")[:2])) < MIN_TRITON:
        return f"it needs triton {'.'.join(map(str, MIN_TRITON))} or newer, got {version}"
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if device == "cuda" or (device == "cpu" and interpreted):
        return None
    return f"it needs CUDA tensors, or CPU tensors under Triton's interpreter (TRITON_INTERPRET=1), got {device}"


@functools.cache
def why_not(backend: str, op: str, device: torch.device | str) -> str | None:
    """None if `backend` can run `op` on tensors of this device, else the reason as a sentence."""
    if backend not in (*BACKENDS, *_extra):
        return f"there is no backend {backend!r}; the backends are {', '.join(BACKENDS)}"
    if backend == "reference":
        return None
    if not implements(backend, op):
        return f"{op} has no {backend} kernel in this version"
    kind = torch.device(device).type
    if backend in _extra:
        takes, reason = _extra[backend]
        return reason if kind == takes else f"it needs {takes} tensors, got {kind}"
    if backend == "cpu":
        return _why_not_compiled(op, "CPU") if kind == "cpu" else f"it needs CPU tensors, got {kind}"
    if backend == "triton":
        return _why_not_triton(kind)
    if kind != "cuda":
        return f"it needs CUDA tensors, got {kind}"
    return _why_not_compiled(op, "CUDA") or _extension.why_no_code(torch.device(device))


def requested() -> str | None:
    """The backend asked for by use_backend or ADAFOCUS_BACKEND, if any."""
    blocks = _chosen.get()
    return blocks[-1][0] if blocks else os.environ.get("ADAFOCUS_BACKEND") or None


def choose(op: str, device: torch.device | str, explicit: str | None) -> str:
    """Name of the backend that runs `op` on tensors of a device; torch.compile chooses once, when it compiles.

    Raises:
        RuntimeError: the backend asked for cannot run; the message says why.
    """
    wanted = explicit or requested()
    if wanted is None:
        return next(backend for backend in BACKENDS if why_not(backend, op, device) is None)
    reason = why_not(wanted, op, device)
    if reason is None:
        return wanted
    usable = [backend for backend in BACKENDS if why_not(backend, op, device) is None]
    raise RuntimeError(f"backend {wanted!r} cannot run {op}: {reason}. Usable here: {', '.join(usable)}")


# This is all that torch.compiler.assume_constant_result does, without importing the whole compiler with the package.
choose._dynamo_marked_constant = True


@contextlib.contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Runs every op inside the `with` block on the named backend, or raises with the reason it cannot.

    A function compiled with torch.compile keeps the backend that was chosen when it was compiled. A generator that
    yields inside the block leaves its choice to whoever resumes it later, as contextlib.contextmanager needs it; one
    that must not, passes backend= to each call.

    Args:
        name: one of "cuda", "cpu", "triton", "reference".

    Raises:
        ValueError: there is no such backend.
    """
    if name not in (*BACKENDS, *_extra):
        raise ValueError(f"use_backend: name must be one of {', '.join(BACKENDS)}, got {name!r}")
    choice = [name]
    _chosen.set((*_chosen.get(), choice))
    try:
        yield
    finally:
        _chosen.set(tuple(block for block in _chosen.get() if block is not choice))

"""Makes torch know the raw ops that `_raw_ops` declares.

The extension implements a raw op itself for CPU and CUDA tensors; a backend that is written in Python is an overload
of it, with the same schema, fake kernel and vmap rule.
"""

from collections.abc import Callable
from typing import Any

import torch

from ._raw_ops import RAW_OPS, Part

_library = torch.library.Library("adafocus", "DEF")
_library.define("_build_info() -> str")


def raw_op(op: str, part: str, overload: str = "default") -> torch._ops.OpOverload:
    """The raw op of a part, which the extension implements, or an overload of it."""
    return getattr(getattr(torch.ops.adafocus, f"_{op}_{part}"), overload)


def argument_names(raw: torch._ops.OpOverload) -> tuple[str, ...]:
    """The names of a raw op's arguments, in their order."""
    return tuple(argument.name for argument in raw._schema.arguments)


def overload(op: str, part: str, backend: str, function: Callable) -> torch._ops.OpOverload:
    """Adds a backend's Python function to a raw op as the overload of its name, and returns that."""
    name = backend.replace("-", "_")
    _library.define(f"_{op}_{part}.{name}{RAW_OPS[op].parts[part].schema}")
    # What torch runs around a graph break must not be traced by its compiler, which knows the raw op instead.
    untraced = torch._disable_dynamo(function)
    _library.impl(f"_{op}_{part}.{name}", untraced, "CompositeExplicitAutograd")
    raw = raw_op(op, part, name)
    _complete(raw, op, RAW_OPS[op].parts[part])
    return raw


def _complete(raw: torch._ops.OpOverload, op: str, part: Part) -> None:
    """Registers the fake kernel and the vmap rule."""
    torch.library.register_fake(raw, part.fake)
    rule = RAW_OPS[op].vmap
    names = argument_names(raw)

    def run(info: Any, in_dims: tuple, *args: Any) -> tuple[Any, Any]:
        given, dims = dict(zip(names, args, strict=True)), dict(zip(names, in_dims, strict=True))
        return rule(raw, given, dims, info.batch_size)

    torch.library.register_vmap(raw, run)


for _op, _declared in RAW_OPS.items():
    for _name, _part in _declared.parts.items():
        _library.define(f"_{_op}_{_name}{_part.schema}")
        _complete(raw_op(_op, _name), _op, _part)

"""Public ops obey __torch_function__, as torch's own functions do."""

import functools
from collections.abc import Callable
from typing import TypeVar

from torch.overrides import handle_torch_function, has_torch_function

Op = TypeVar("Op", bound=Callable)


def overridable(op: Op) -> Op:
    """The op, whose call the arguments may take over: torch.fx records it as one node, whatever it was imported as,
    and tensor subclasses and modes see it as one function."""

    @functools.wraps(op)
    def run(*args, **kwargs):
        given = (*args, *kwargs.values()) if kwargs else args
        if has_torch_function(given):
            return handle_torch_function(run, given, *args, **kwargs)
        return op(*args, **kwargs)

    return run

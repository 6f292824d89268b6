"""Every op by example: one record that the self-check and the tests of all backends are derived from.

`EXAMPLES[op]` says how to call the op, on which dtypes and layouts, and where it is differentiable; its calls are
small ones that show every argument at work, one of any size, and some of the sizes of real use, without memory.
Whoever adds a backend (`backends.extend`) can check it on them.
"""

from collections.abc import Mapping
from importlib import import_module

from .. import backends
from .record import Example, OpExamples

__all__ = ["EXAMPLES", "Example", "OpExamples"]

EXAMPLES: Mapping[str, OpExamples] = {op: import_module(f"{__name__}.{op}").EXAMPLES for op in backends.ops()}

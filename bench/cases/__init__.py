"""Cases of the ops, one file an op and named like it, and of the models."""

from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from adafocus_ops import backends
from bench.cases import byte_crops
from bench.harness.case import Case
from bench.harness.scaling import Series

# Op -> the module with its cases, as far as it has one.
BY_OP: dict[str, ModuleType] = {
    op: import_module(f"{__name__}.{op}") for op in backends.ops() if find_spec(f"{__name__}.{op}")
}

CASES: list[Case] = [case for module in (*BY_OP.values(), byte_crops) for case in module.CASES]

# Device type -> the series of every op that has some.
SERIES: dict[str, list[Series]] = {
    device: [series for module in BY_OP.values() for series in getattr(module, "SERIES", {}).get(device, ())]
    for device in ("cpu", "cuda")
}

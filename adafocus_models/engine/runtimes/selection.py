"""Which runtimes may compute here, and why others may not."""

from collections.abc import Sequence

import torch

from adafocus_ops.checks import require

from . import RUNTIMES
from .runtime import Runtime


def runtimes_for(
    runtime: str | Sequence[str], device: torch.device, dtype: torch.dtype
) -> tuple[list[Runtime], dict[str, str]]:
    """The runtimes that may compute, and why the others may not.

    Raises:
        ValueError: an unknown name. RuntimeError: one of those asked for cannot run.
    """
    reasons = {name: each.why_not(device, dtype) for name, each in RUNTIMES.items()}
    able = [name for name, reason in reasons.items() if reason is None]
    if runtime == "auto":
        left_out = {name: reason or RUNTIMES[name].asked_only(device) for name, reason in reasons.items()}
        left_out = {name: reason for name, reason in left_out.items() if reason}
        return [each for name, each in RUNTIMES.items() if name not in left_out], left_out
    names = [runtime] if isinstance(runtime, str) else list(runtime)
    unknown = [name for name in names if name not in RUNTIMES]
    require(names and not unknown, lambda: f'runtime must be "auto" or of {", ".join(RUNTIMES)}, got {runtime!r}')
    for name in names:
        require(
            reasons[name] is None,
            lambda name=name: f"runtime {name!r} cannot run here: {reasons[name]}; can: {', '.join(able)}",
            RuntimeError,
        )
    return [RUNTIMES[name] for name in names], {name: "not asked for" for name in RUNTIMES if name not in names}

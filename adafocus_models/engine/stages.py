"""Time of the stages of a model."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ..networks import VideoModel


@torch.inference_mode()
def stage_ms(model: VideoModel, run: Callable[[], Any], device: torch.device, *, runs: int) -> dict[str, float]:
    """Stage -> median milliseconds of all its calls in one run.

    Args:
        model: whose stages are timed; each waits for the device, so that a run takes longer than without.
        run: a call that runs it, and replays no graph.
    """
    measured = []
    for _ in range(runs):
        with _timed_stages(model, device) as totals:
            run()
        measured.append(totals)
    return {stage: sorted(each[stage] for each in measured)[runs // 2] for stage in model.stage_methods}


def synchronise(device: torch.device) -> None:
    """Waits for the device's work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def _timed_stages(model: VideoModel, device: torch.device) -> Iterator[dict[str, float]]:
    """Within the block, calls of the model's stages add their milliseconds to the yielded {stage: sum}."""
    totals = dict.fromkeys(model.stage_methods, 0.0)
    names = [name for methods in model.stage_methods.values() for name in methods]
    own = {name: vars(model)[name] for name in names if name in vars(model)}

    def timed(stage: str, method: Callable) -> Callable:
        def call(*args: Any, **kwargs: Any) -> Any:
            synchronise(device)
            start = time.perf_counter()
            result = method(*args, **kwargs)
            synchronise(device)
            totals[stage] += (time.perf_counter() - start) * 1e3
            return result

        return call

    for stage, methods in model.stage_methods.items():
        for name in methods:
            setattr(model, name, timed(stage, getattr(model, name)))
    try:
        yield totals
    finally:
        for name in names:
            delattr(model, name)  # the class's method shows again
        vars(model).update(own)

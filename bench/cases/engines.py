"""Ways to run a model that are compared: the engine, what it stands on, and what a user would pick instead."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from adafocus_models import Output, VideoModel, fold_batch_norm
from adafocus_models.engine import RUNTIMES, Engine, Runtime
from adafocus_models.engine.tuning import ENCODERS, Tuned, module_inputs
from bench.cases.models_check import Gate
from bench.cases.published import normalised, published_style

OURS, LIBRARY, EAGER, PUBLISHED = "engine", "library", "eager", "published"
PEERS = ("compile", "openvino", "onnxruntime")
NAMES = (PUBLISHED, EAGER, *PEERS, LIBRARY, OURS)
LAYOUT = {PUBLISHED: "contiguous"}  # of the others channels_last, or what a runtime makes of it


@dataclass
class Runner:
    """A model in one of these ways."""

    name: str
    model: VideoModel  # whose stages can be timed
    run: Callable[..., Output]  # frames, and glance frames if it glances; gate
    engine: Engine | None = None
    made_s: float | None = None  # seconds that an engine took to be made

    def __call__(self, *inputs: Tensor, gate: Gate | None = None) -> Output:
        return self.run(*inputs, gate=gate)

    def inputs(self, frames: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
        """What lies ready before the time runs: bytes, or what the published code's data loader gives."""
        if self.name == PUBLISHED:
            return [normalised(x, self.model, dtype) for x in frames]
        return list(frames)

    @property
    def chosen(self) -> dict[str, str] | None:
        """Hot module -> who computes it."""
        return {name: choice.form for name, choice in self.engine.choices.modules.items()} if self.engine else None


def why_not(name: str, device: torch.device, dtype: torch.dtype) -> str | None:
    """The reason why a way cannot be taken here; None if it can."""
    return RUNTIMES[name].why_not(device, dtype) if name in PEERS else None


def make_runner(name: str, model: VideoModel, inputs: Sequence[Tensor], dtype: torch.dtype) -> Runner:
    """A way to run the plain model, on its device, for batches like the inputs."""
    if name == PUBLISHED:
        made = published_style(model, dtype)
        return Runner(name, made, made)
    if name not in (OURS, LIBRARY):
        made = fold_batch_norm(model).requires_grad_(False).to(dtype=dtype, memory_format=torch.channels_last)
        if name in PEERS:
            replace_encoders(made, RUNTIMES[name], inputs)
        return Runner(name, made, made)
    start = time.perf_counter()
    runtime = LIBRARY if name == LIBRARY else "auto"
    engine = Engine(model, batch_size=inputs[0].shape[0], dtype=dtype, runtime=runtime)

    def run(*inputs: Tensor, gate: Any = None) -> Output:
        if engine.thresholds is not gate:
            engine.set_thresholds(gate)
        return engine(*inputs)

    return Runner(name, engine.model, run, engine, time.perf_counter() - start)


@torch.inference_mode()
def replace_encoders(model: VideoModel, runtime: Runtime, inputs: Sequence[Tensor]) -> None:
    """Puts what a runtime makes of the encoders in their places; the rest of the pipeline stays eager."""
    for name, x in module_inputs(model, inputs).items():
        if name in ENCODERS:
            encoder = model.get_submodule(name)
            setattr(model, name, Tuned(runtime.module_form(encoder, x), encoder, x))

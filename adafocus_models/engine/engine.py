"""The engine: a model that computes what it did, as fast as this machine can."""

import itertools
import os
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from adafocus_ops.checks import check_bool, describe, positive_int, require

from ..exits import ExitLoop, Gate
from ..networks import Output, VideoModel, fold_batch_norm
from .buffers import read_into_buffers
from .choices import Choices
from .facts import computes_with, facts
from .graphs import Graphs
from .measuring import cudnn_searches
from .memory import keep_freed_memory
from .progress import show_progress
from .report import Report, make_report
from .runtimes import RUNTIMES, Runtime
from .tuning import tune_model

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


class Engine:
    """A model made fast for inference: the same answers, computed by whatever is fastest here.

    It copies the model, folds BatchNorm, and puts the fastest right form of every encoder and of other hot modules in
    their place; forward, policy and heads stay the model's own code. Every form is checked against the folded module
    on memory full of NaN, and timed on this machine on the shapes of this batch. On a GPU whole forwards are
    captured as CUDA graphs, for batches of 1, 2, 4, ... videos up to batch_size, when the first of a kind comes.

        engine = Engine(model.eval(), batch_size=8)
        output = engine(frames)

    Args:
        model: in evaluation mode, which stays as it is. It is the specification.
        batch_size: videos at a time. More are split, fewer are padded where forwards are captured.
        dtype: of weights and activations; None for the model's. 16 bits only where they are asked for: answers
            then differ by their rounding. A CPU without instructions for them warns.
        device: None for the model's.
        thresholds: with which videos leave early, for a model with exits, or any other `gate` that the model takes;
            None sends all to the last exit. Who has left is known on the host, so such forwards are not captured.
        runtime: "auto" for the fastest of all that can run here; or the name, or a list of names, of those that
            may run the encoders: "library" (oneDNN, cuDNN), "compile" (torch.compile), "openvino" and "onnxruntime"
            (pip install "adafocus[cpu]").
        graphs: "auto" captures on a GPU, and says in report() why where that fails; True raises then; False never.
        choices: who computes what, from `engine.choices`, or the path of a file that its `save` wrote, so
            that nothing is timed again; None measures.
        check: compare every form with the folded module. Without, an engine is made a little faster.
        keep_memory: on a CPU with glibc, freed memory stays with the process, all of it, not only this engine's:
            on some machines the pages of fresh memory take longer than the convolution that fills them.
        progress: show what is being done, where standard error is a terminal.

    Attributes:
        choices: what was chosen, with the times, to be saved.
        batch_size, dtype, device: as above.

    Threads: as many as torch has when the engine is made; other runtimes keep them. One call at a time.

    Determinism: that of the runtimes chosen; the same on every call.

    Raises:
        TypeError, ValueError: an argument that does not fit; a model in training mode; choices that were made for
            something else, with all that changed.
        RuntimeError: a runtime that was asked for by name cannot run here; the message says which can.

    Source: Uni-AdaFocus, Section 5.2 and Table IV (throughput).
    """

    def __init__(
        self,
        model: VideoModel,
        *,
        batch_size: int,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        thresholds: Gate | None = None,
        runtime: str | Sequence[str] = "auto",
        graphs: str | bool = "auto",
        choices: Choices | str | os.PathLike | None = None,
        check: bool = True,
        keep_memory: bool = True,
        progress: bool = True,
    ) -> None:
        is_model = isinstance(model, VideoModel)
        require(is_model, lambda: f"model must be a VideoModel, got {describe(model)}", TypeError)
        weight = next(model.parameters())
        self.batch_size = positive_int("batch_size", batch_size)
        self.device = torch.empty(0, device=weight.device if device is None else device).device  # with its index
        self.dtype = weight.dtype if dtype is None else dtype
        require(self.dtype in DTYPES, lambda: f"dtype must be one of {', '.join(map(str, DTYPES))}, got {dtype!r}")
        if self.device.type == "cpu" and not computes_with(self.dtype):
            name = str(self.dtype).removeprefix("torch.")
            warnings.warn(f"this processor has no {name} arithmetic: float32 is many times as fast", stacklevel=2)
        require(
            isinstance(graphs, bool) or graphs == "auto", lambda: f'graphs must be "auto" or a bool, got {graphs!r}'
        )
        for name, value in (("check", check), ("keep_memory", keep_memory), ("progress", progress)):
            check_bool(name, value)
        self._source, self._check, self._progress = model, check, progress
        self._runtimes, self._left_out = runtimes_for(runtime, self.device, self.dtype)
        self._named = runtime != "auto"
        if keep_memory and self.device.type == "cpu":
            keep_freed_memory()
        given = choices if choices is None or isinstance(choices, Choices) else Choices.load(choices)
        if given is not None:
            given.check(self._made_for(), "choices" if given is choices else choices)
        self._graphs_asked = graphs
        self.set_thresholds(thresholds)
        self._make(given)

    def __call__(self, frames: Tensor, glance_frames: Tensor | None = None) -> Output:
        """Recognises B videos, as the model does (see `VideoModel.forward`).

        Args:
            frames, glance_frames: as the model takes them, on the engine's device, of any B. uint8 is read as it
                is, any strides.

        Returns:
            Output, in memory of its own.

        Raises:
            TypeError, ValueError: an input of another type, shape or device, or that requires a gradient.
            RuntimeError: the model's weights have changed since the engine was made (see `refresh`).
        """
        self._check_inputs(frames, glance_frames)
        require(
            self._versions == _versions(self._source),
            lambda: "the model's weights have changed since this engine was made: call engine.refresh()",
            RuntimeError,
        )
        videos = frames.shape[0]
        parts = [
            self._run(*(None if x is None else x[begin : begin + self.batch_size] for x in (frames, glance_frames)))
            for begin in range(0, max(videos, 1), self.batch_size)
        ]
        if len(parts) == 1:
            return parts[0]
        return Output(*(None if field[0] is None else torch.cat(field) for field in zip(*parts, strict=True)))

    def set_thresholds(self, thresholds: Gate | None) -> None:
        """Lets videos leave early by these from now on, or none of them."""
        exits = self._source.num_exits
        ExitLoop(thresholds, exits)  # raises where they are none, or of another number of exits
        require(thresholds is None or exits > 1, lambda: "thresholds must be None: this model has one exit")
        self.thresholds = thresholds
        self._graphs, self._eager_because = self._capturing()

    def refresh(self) -> None:
        """Takes the model's weights as they are now, in the forms that were chosen before."""
        self._make(self.choices)
        self._graphs, self._eager_because = self._capturing()  # of the new weights

    def report(self) -> Report:
        """What runs where, and how fast: a table for every stage, module and layer; takes seconds to measure."""
        return make_report(self.model, self.choices, self._example(), self._left_out, self._eager_because, self._run)

    # --- how it is made ------------------------------------------------------------------------------------------

    def _make(self, given: Choices | None) -> None:
        """Folds and tunes, or rebuilds what was chosen."""
        model = self._source
        require(not model.training, lambda: "model must be in evaluation mode: call model.eval()")
        with torch.inference_mode(False), torch.no_grad():
            folded = fold_batch_norm(model).requires_grad_(False)
            folded.to(device=self.device, dtype=self.dtype, memory_format=torch.channels_last)
        self._versions = _versions(model)
        with torch.inference_mode(), cudnn_searches(), show_progress("engine", self._progress) as step:
            found = tune_model(
                folded,
                self._example(),
                self._runtimes,
                named=self._named,
                check=self._check,
                known=None if given is None else given.modules,
                step=step,
            )
        if self.device.type == "cpu":  # elsewhere the graphs' memory stays in place
            folded.read = read_into_buffers(folded)
        self.model = folded
        self.choices = Choices(self._made_for(), found)

    def _made_for(self) -> dict[str, Any]:
        model = self._source
        sizes = {name: getattr(model, name) for name in ("num_classes", "patch_size", "frame_size")}
        frames = {
            name: getattr(model, name) for name in ("num_glance_frames", "num_focus_frames", "num_candidate_frames")
        }
        return {
            "model": type(model).__name__,
            **sizes,
            **frames,
            "batch_size": self.batch_size,
            "dtype": str(self.dtype).removeprefix("torch."),
            **facts(self.device, {runtime.name: runtime.version() for runtime in self._runtimes}),
        }

    def _example(self) -> tuple[Tensor, Tensor | None]:
        """Random bytes for a whole batch of videos."""
        model, generator = self._source, torch.Generator().manual_seed(0)

        def clips(count: int) -> Tensor:
            size = (self.batch_size, count, model.frame_size, model.frame_size, 3)
            pixels = torch.randint(256, size, dtype=torch.uint8, generator=generator)
            return pixels.to(self.device).movedim(-1, 2)  # [B, count, 3, S, S]

        return clips(model.num_candidate_frames), clips(model.num_glance_frames) if model.has_glance else None

    # --- how it runs ---------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def _run(self, frames: Tensor, glance_frames: Tensor | None) -> Output:
        """At most batch_size videos."""
        if not frames.shape[0]:  # forms need not take an empty batch
            none = self._run(*(x if x is None else x.new_zeros((1, *x.shape[1:])) for x in (frames, glance_frames)))
            return Output(*(x if x is None else x[:0] for x in none))
        if self._graphs is None:
            return self._forward(frames, glance_frames)
        try:
            return Output(*self._graphs(frames, glance_frames))
        except RuntimeError as error:
            if self._graphs_asked is True:
                raise
            self._graphs, self._eager_because = None, f"a capture failed: {error}".splitlines()[0]
            return self._forward(frames, glance_frames)

    def _forward(self, frames: Tensor, glance_frames: Tensor | None) -> Output:
        return self.model(frames, glance_frames, gate=self.thresholds)

    def _capturing(self) -> tuple[Graphs | None, str | None]:
        """The graphs, or the reason why there are none."""
        reason = self._why_not_captured()
        require(
            reason is None or self._graphs_asked is not True,
            lambda: f"graphs=True cannot be: {reason}",
            RuntimeError,
        )
        return (Graphs(self._forward, self.batch_size), None) if reason is None else (None, reason)

    def _why_not_captured(self) -> str | None:
        if self.device.type != "cuda":
            return "CUDA graphs are of GPUs"
        if self.thresholds is not None:
            return "with thresholds, the host learns at every exit who has left"
        return "graphs=False" if self._graphs_asked is False else None

    def _check_inputs(self, frames: Tensor, glance_frames: Tensor | None) -> None:
        self._source.check_inputs(frames, glance_frames)
        for name, x in (("frames", frames), ("glance_frames", glance_frames)):
            if x is None:
                continue
            require(
                x.device == self.device,
                lambda name=name, x=x: f"{name} must be on the engine's {self.device}, got {x.device}",
            )
            require(
                not x.requires_grad,
                lambda name=name: f"{name} must not require a gradient, which an engine has none of: use the model",
            )


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


def _versions(model: VideoModel) -> list[tuple[int, int]]:
    """Whatever changes when a weight or a running statistic does."""
    tensors = itertools.chain(model.parameters(), model.buffers())
    return [(x.data_ptr(), 0 if x.is_inference() else x._version) for x in tensors]

"""The engine: a model that computes what it did, as fast as this machine can."""

import itertools
import math
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from adafocus_ops.checks import check_bool, check_positive_ints, describe, positive_int, require

from ..exits import Curve, ExitLoop, Gate, Thresholds, load_thresholds
from ..networks import Output, VideoModel, exit_costs, fold_batch_norm
from .buffers import read_into_buffers
from .choices import Choices
from .facts import computes_with, facts
from .graphs import Calls
from .measuring import cudnn_searches
from .memory import keep_freed_memory
from .progress import show_progress
from .refill import Refill
from .report import Report, make_report
from .runtimes.selection import runtimes_for
from .sources import Source
from .stats import Stats, Tally
from .streams import Result, Stream
from .transfers import Upload
from .tuning import tune_model
from .waves import ENCODER_STAGES, Wave

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
        thresholds: with which videos leave early (see `set_thresholds`); None sends all to the last exit. Then only
            encoders are captured, and they run full batches as far as several batches of videos are under way.
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
        thresholds: Gate | Curve | Sequence[float] | str | os.PathLike | None = None,
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
        self._tally: Tally | None = None
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
        self._check_versions()
        videos = frames.shape[0]
        batches = [
            tuple(None if x is None else x[begin : begin + self.batch_size] for x in (frames, glance_frames))
            for begin in range(0, max(videos, 1), self.batch_size)
        ]
        leaving = self.thresholds is not None and videos > 0
        parts = self._run_leaving(batches) if leaving else [self._run(*batch) for batch in batches]
        if len(parts) == 1:
            return parts[0]
        return Output(*(None if field[0] is None else torch.cat(field) for field in zip(*parts, strict=True)))

    def stream(
        self,
        videos: Iterable,
        *,
        ordered: bool = True,
        max_delay: float | None = None,
        ring: int = 16,
        workers: int | None = None,
    ) -> Iterator[Result]:
        """Recognises any number of videos, which leave when they are sure.

        Clips are read and decoded ahead by threads. As soon as a batch of them is there it is glanced at; whoever is
        not sure waits for the focus encoder, which runs as soon as batch_size videos wait for it, of whatever batch,
        and step where a network looks frame by frame. So it runs full batches, however many videos leave.

            for result in engine.stream(Path("videos").iterdir()):
                print(result.id, result.logits.argmax().item() if result.error is None else result.error)

        Args:
            videos: any iterable of paths (as `read_clip` takes them), (id, path), (id, bytes of a video file), or (id,
                clip), where a clip is frames [N, 3, S, S], or a pair of these and the glance frames [T0, 3, S, S],
                uint8 or floating point, on the CPU. It is iterated in a thread, no further ahead than there is room.
            ordered: results come in the order of the videos; else as soon as they are there.
            max_delay: seconds that a video waits for a batch to be full; None for as long as it takes, until the
                videos end. A batch that runs is not interrupted.
            ring: batches of videos under way at most. It bounds the memory: that many batches of frames. One begins
                only where those under way do not fill a batch of the focus encoder, so that few are.
            workers: threads that decode; None for one a processor core.

        Yields:
            Result of every video, once. A clip that cannot be read or does not fit has its `error`, and the rest go on.

        Thresholds that are set while a stream runs hold for the batches that begin afterwards. Closing the generator,
        or an interrupt, ends all at once. It is to be iterated in one thread. `stats` tells how it goes.

        Determinism: logits may differ in their last bits with who shares a batch, as the runtimes that compute them.

        Raises:
            TypeError, ValueError: an argument that does not fit.
            ImportError: with thresholds, greenlet is not installed; for paths, PyAV and Pillow are not.
            Exception: what the iterable itself raises, after the results of all that it had given.
        """
        check_bool("ordered", ordered)
        check_positive_ints(ring=ring, **({} if workers is None else {"workers": workers}))
        require(
            max_delay is None or (isinstance(max_delay, int | float) and max_delay >= 0),
            lambda: f"max_delay must be None or seconds of at least 0, got {max_delay!r}",
        )
        self._check_versions()
        workers = workers or os.cpu_count() or 1
        self._tally = Tally(self._source.num_exits)
        source = Source(
            videos, self._source, workers=workers, ahead=self.batch_size + workers, pin=self.device.type == "cuda"
        )
        return iter(
            Stream(
                source,
                self.model,
                self._refill(),
                self._run,
                lambda: self.thresholds,
                Upload(self.device),
                ordered=ordered,
                max_delay=max_delay,
                ring=ring,
                tally=self._tally,
            )
        )

    @cached_property
    def exit_costs(self) -> list[int]:
        """Multiply-adds of a video that leaves at each exit; of a model with one exit, of every video."""
        return exit_costs(self._source)

    def stats(self) -> Stats:
        """How the latest stream goes, or went: exits, cost, speed, latency.

        Raises:
            RuntimeError: there has been none.
        """
        require(self._tally is not None, lambda: "there has been no stream yet", RuntimeError)
        return self._tally.stats(self.exit_costs)

    def set_thresholds(self, thresholds: Gate | Curve | Sequence[float] | str | os.PathLike | None) -> None:
        """Lets videos leave early by these from now on, without a new capture.

        Args:
            thresholds: `Thresholds`; the least scores of all exits but the last (`Thresholds.of`); a `Curve`, of which
                the most accurate ones are taken until `set_budget` chooses others; the path of a file that either
                of these wrote; or any other `gate` that the model takes; None for none of them.

        Raises:
            TypeError, ValueError: they are none of these, or of another number of exits.
            OSError: a file cannot be opened.
        """
        exits = self._source.num_exits
        if isinstance(thresholds, str | os.PathLike):
            thresholds = load_thresholds(thresholds)
        elif isinstance(thresholds, list | tuple) and not isinstance(thresholds, Thresholds | Curve):
            thresholds = Thresholds.of(thresholds)
        curve = thresholds if isinstance(thresholds, Curve) else None
        gate = thresholds if curve is None else curve.within(math.inf)
        ExitLoop(gate, exits)  # raises where they are none, or of another number of exits
        require(gate is None or exits > 1, lambda: "thresholds must be None: this model has one exit")
        self.thresholds, self._curve = gate, curve

    def set_budget(self, gflops: float) -> None:
        """Lets videos leave so early that they cost this much on average: by the best thresholds of the `Curve` that
        was set.

        Args:
            gflops: billions of multiply-adds a video, as in the paper.

        Raises:
            RuntimeError: no curve was set. ValueError: no thresholds of it keep to the budget; it says the least.
        """
        require(
            self._curve is not None,
            lambda: "a budget needs the curve of many thresholds: set_thresholds(a Curve, or a file of Curve.save)",
            RuntimeError,
        )
        self.thresholds = self._curve.within(gflops * 1e9)

    def refresh(self) -> None:
        """Takes the model's weights as they are now, in the forms that were chosen before."""
        self._make(self.choices)

    def report(self) -> Report:
        """What runs where, and how fast: a table for every stage, module and layer; takes seconds to measure."""
        return make_report(
            self.model, self.choices, self._example(), self._left_out, self._calls.eager_because, self._run
        )

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
        self._capture_anew()

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
        """At most batch_size videos, all to the last exit."""
        if not frames.shape[0]:  # forms need not take an empty batch
            none = self._run(*(x if x is None else x.new_zeros((1, *x.shape[1:])) for x in (frames, glance_frames)))
            return Output(*(x if x is None else x[:0] for x in none))
        return Output(*self._calls.forward(frames, glance_frames))

    def _run_leaving(self, batches: list[tuple[Tensor, Tensor | None]]) -> list[Output]:
        """Batches of at most batch_size videos, which leave when they are sure."""
        refill = self._refill()
        waves = [Wave(self.model, *batch, self.thresholds) for batch in batches]
        try:
            for wave in waves:
                refill.begin(wave)
                while refill.work():
                    pass
            while refill.work(flush=True):
                pass
        finally:
            refill.stop()
        return [wave.output for wave in waves]

    def _refill(self) -> Refill:
        return Refill(self._calls.stages, self.batch_size)

    def _capture_anew(self) -> None:
        """Graphs of the model as it is now, which are captured when a kind of input first comes."""
        reason = self._why_not_captured()
        asked = self._graphs_asked is True
        require(reason is None or not asked, lambda: f"graphs=True cannot be: {reason}", RuntimeError)
        self._calls = Calls(self.model, ENCODER_STAGES, self.batch_size, eager_because=reason, strict=asked)

    def _why_not_captured(self) -> str | None:
        if self.device.type != "cuda":
            return "CUDA graphs are of GPUs"
        return "graphs=False" if self._graphs_asked is False else None

    def _check_versions(self) -> None:
        require(
            self._versions == _versions(self._source),
            lambda: "the model's weights have changed since this engine was made: call engine.refresh()",
            RuntimeError,
        )

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


def _versions(model: VideoModel) -> list[tuple[int, int]]:
    """Whatever changes when a weight or a running statistic does."""
    tensors = itertools.chain(model.parameters(), model.buffers())
    return [(x.data_ptr(), 0 if x.is_inference() else x._version) for x in tensors]

"""A forward as CUDA graphs: one for each kind of input and bucket of batch size, without work of the host on replay."""

from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..networks import VideoModel
from .buffers import batch_memory
from .measuring import cudnn_searches

WARM_UP = 3  # runs before a capture, in which libraries choose algorithms and fill caches

Forward = Callable[..., tuple]  # frames, and glance frames or None -> tensors or None
Captured = tuple[Callable[[], Any], tuple]  # replay, and the static results that it fills


def bucket_of(videos: int, batch_size: int) -> int:
    """The batch that so many videos are padded to: the next power of two, at most batch_size."""
    return min(1 << (videos - 1).bit_length(), batch_size)


class Graphs:
    """A forward that is captured when a kind of input first comes, and replayed from then on.

    Args:
        forward: without host synchronisation or control flow that depends on values.
        batch_size: the largest batch.
        capture: from a call without arguments to its replay and static results; a `CudaCapture` but in tests.
    """

    def __init__(
        self, forward: Forward, batch_size: int, capture: Callable[[Callable[[], tuple]], Captured] | None = None
    ) -> None:
        self.forward = forward
        self.batch_size = batch_size
        self._capture = capture or CudaCapture()
        self._graphs: dict[Hashable, tuple[tuple[Tensor | None, ...], Captured]] = {}

    def __call__(self, *inputs: Tensor | None) -> tuple:
        """The results for B <= batch_size videos, in memory of their own."""
        videos = inputs[0].shape[0]
        bucket = bucket_of(videos, self.batch_size)
        key = bucket, *(None if x is None else (x.dtype, x.dim_order()) for x in inputs)
        if key not in self._graphs:
            static = tuple(None if x is None else batch_memory(x, bucket, x.device).zero_() for x in inputs)
            self._graphs[key] = static, self._capture(lambda: self.forward(*static))
        static, (replay, results) = self._graphs[key]
        for memory, x in zip(static, inputs, strict=True):
            if x is not None:
                memory[:videos].copy_(x)  # the rest of the bucket keeps what was there: finite, and nobody's
        replay()
        return tuple(None if result is None else result[:videos].clone() for result in results)


class StageGraphs:
    """A stage of an encoder as graphs: what it takes [videos * n, ...] is padded to a bucket of videos."""

    def __init__(self, stage: Callable[[Tensor], Any], batch_size: int) -> None:
        self._stage = stage
        self._graphs = Graphs(self._each_video, batch_size)
        self._gives_several = False

    def __call__(self, x: Tensor, videos: int) -> Any:
        results = tuple(y.flatten(0, 1) for y in self._graphs(x.unflatten(0, (videos, -1))))
        return results if self._gives_several else results[0]

    def _each_video(self, x: Tensor) -> tuple[Tensor, ...]:
        """The results [videos, m, ...] of x [videos, n, ...]."""
        result = self._stage(x.flatten(0, 1))
        self._gives_several = isinstance(result, tuple)
        return tuple(y.unflatten(0, (x.shape[0], -1)) for y in (result if self._gives_several else (result,)))


class Calls:
    """A model's forward, and its encoders' stages: through graphs as long as captures succeed, else plainly.

    Args:
        model: as it is now.
        stages: names of methods, of those that it may have.
        batch_size: the most videos at a time.
        eager_because: the reason why nothing can be captured; None to capture.
        strict: a capture that fails raises.

    Attributes:
        stages: name -> call, of the stages that the model has.
        eager_because: also once a capture has failed.
    """

    def __init__(
        self, model: VideoModel, stages: Sequence[str], batch_size: int, *, eager_because: str | None, strict: bool
    ) -> None:
        self.eager_because, self._strict = eager_because, strict
        self._model = model
        names = [name for name in stages if any(name in methods for methods in model.stage_methods.values())]
        captures = eager_because is None
        self._forward = Graphs(model, batch_size) if captures else None
        self._stages = {name: StageGraphs(getattr(model, name), batch_size) if captures else None for name in names}
        self.stages: dict[str, Callable[[Tensor, int], Any]] = {name: partial(self._stage, name) for name in names}

    def forward(self, frames: Tensor, glance_frames: Tensor | None) -> tuple:
        """The model's output for at most batch_size videos."""
        return self._call(self._forward, self._model, frames, glance_frames)

    def _stage(self, name: str, x: Tensor, videos: int) -> Any:
        return self._call(self._stages[name], lambda x, _: getattr(self._model, name)(x), x, videos)

    def _call(self, graphs: Callable | None, call: Callable, *inputs: Any) -> Any:
        if self.eager_because is not None:
            return call(*inputs)
        try:
            return graphs(*inputs)
        except RuntimeError as error:
            if self._strict:
                raise
            self.eager_because = f"a capture failed: {error}".splitlines()[0]
            return call(*inputs)


class CudaCapture:
    """Captures calls; all graphs share one pool of memory, since they run one after the other."""

    def __init__(self) -> None:
        self.pool = torch.cuda.graph_pool_handle()

    def __call__(self, call: Callable[[], tuple]) -> Captured:
        with cudnn_searches():
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(WARM_UP):
                    call()
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self.pool):
                results = call()
        return graph.replay, results

"""A forward as CUDA graphs: one for each kind of input and bucket of batch size, without work of the host on replay."""

from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor

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
            static = tuple(None if x is None else _static(x, bucket) for x in inputs)
            self._graphs[key] = static, self._capture(lambda: self.forward(*static))
        static, (replay, results) = self._graphs[key]
        for memory, x in zip(static, inputs, strict=True):
            if x is not None:
                memory[:videos].copy_(x)  # the rest of the bucket keeps what was there: finite, and nobody's
        replay()
        return tuple(None if result is None else result[:videos].clone() for result in results)


def _static(x: Tensor, bucket: int) -> Tensor:
    """Zeros for a bucket of videos like x [B, N, 3, H, W], in its order of dimensions."""
    order = x.dim_order()
    shape = (bucket, *x.shape[1:])
    places = [order.index(d) for d in range(x.ndim)]
    return torch.zeros([shape[d] for d in order], dtype=x.dtype, device=x.device).permute(places)


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

"""Between the host and a device, without waiting for it."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .buffers import batch_memory


class OnItsWay:
    """Tensors on their way from a device to the host, into pinned memory; on a CPU they are there."""

    def __init__(self, *tensors: Tensor) -> None:
        self._event: torch.cuda.Event | None = None
        self._on_host = tensors
        if tensors[0].is_cuda:
            pinned = (torch.empty_like(x, device="cpu", pin_memory=True) for x in tensors)
            self._on_host = tuple(memory.copy_(x, non_blocking=True) for memory, x in zip(pinned, tensors, strict=True))
            self._event = torch.cuda.Event()
            self._event.record()

    def has_arrived(self) -> bool:
        return self._event is None or self._event.query()

    def wait(self) -> tuple[Tensor, ...]:
        """The tensors on the host, once they are there."""
        if self._event is not None:
            self._event.synchronize()
        return self._on_host


class Upload:
    """Clips to batches on a device; on a GPU from a stream of its own, so that copies and kernels run side by side."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def __call__(self, clips: Sequence[Tensor]) -> Tensor:
        """[B, N, 3, S, S] on the device, stored like the first of the clips [N, 3, S, S], which are pinned on a GPU."""
        if self._stream is None:
            return self._fill(clips)
        with torch.cuda.stream(self._stream):
            batch = self._fill(clips)
        current = torch.cuda.current_stream(self._device)
        current.wait_stream(self._stream)
        batch.record_stream(current)
        return batch

    def _fill(self, clips: Sequence[Tensor]) -> Tensor:
        batch = batch_memory(clips[0][None], len(clips), self._device)
        for memory, clip in zip(batch, clips, strict=True):
            memory.copy_(clip, non_blocking=True)
        return batch

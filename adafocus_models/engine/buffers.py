"""Memory of batches, and memory that is made once: what an encoder is fed from."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..networks import VideoModel


def batch_memory(like: Tensor, videos: int, device: torch.device) -> Tensor:
    """Memory [videos, N, 3, S, S] that is not filled, in the order of dimensions of like [B, N, 3, S, S]."""
    order = like.dim_order()
    shape = (videos, *like.shape[1:])
    places = [order.index(d) for d in range(like.ndim)]
    return torch.empty([shape[d] for d in order], dtype=like.dtype, device=device).permute(places)


def read_into_buffers(model: VideoModel) -> Callable[..., Tensor]:
    """A `read` for the model into one buffer for each encoder, which the next read for that encoder overwrites."""
    buffers: dict[tuple[int, int], Tensor] = {}

    def read(frames: Tensor, boxes: Tensor, frame_index: Tensor | None, output_size: int, encoder: nn.Module) -> Tensor:
        like, count = next(encoder.parameters()), boxes.shape[0]
        key = id(encoder), output_size
        if key not in buffers or buffers[key].shape[0] < count:
            memory_format = torch.contiguous_format if like.is_contiguous() else torch.channels_last
            size = (count, 3, output_size, output_size)
            memory = torch.empty(size, dtype=like.dtype, device=like.device, memory_format=memory_format)
            buffers[key] = memory.fill_(torch.nan)  # whatever is not written shows
        out = buffers[key][:count]  # [M, 3, P, P]
        return type(model).read(model, frames, boxes, frame_index, output_size, encoder, out=out)

    return read

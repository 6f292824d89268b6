"""A model in the style of the published code: the pipeline that ours is measured against.

Frames lie ready as normalised floating point, NCHW. Whole frames are gathered, then cropped by affine_grid and
grid_sample; the temporal shift is zeros and three copies; BatchNorm is a layer of its own. What its evaluation does
beside inference (checks for NaN that wait for the device, the sampled loss) is left out.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional

from adafocus_models import VideoModel
from adafocus_models.engine import portable


def published_style(model: VideoModel, dtype: torch.dtype, *, training: bool = False) -> VideoModel:
    """A copy of the model that computes as the published code does; to be trained, if so."""
    model = copy.deepcopy(model).train(training).requires_grad_(training).to(dtype)
    for name in ("glance_encoder", "focus_encoder"):
        if hasattr(model, name):
            encoder = getattr(model, name)
            setattr(model, name, _with_attributes(portable(encoder), encoder))

    def read(frames: Tensor, boxes: Tensor, frame_index: Tensor | None, output_size: int, encoder: nn.Module) -> Tensor:
        images = frames.flatten(0, 1)  # [B * N, 3, H, W]
        if frame_index is not None:
            images = images[frame_index]
        images = normalised(images, model, dtype)
        whole = encoder is getattr(model, "glance_encoder", None) or not model.has_policy
        size = images.shape[-1]
        if whole and output_size == size:
            return images
        if whole:
            return functional.interpolate(images, size=(output_size,) * 2, mode="bilinear", align_corners=False)
        (cy, cx), (h, w) = boxes[:, :2].unbind(1), boxes[:, 2:].unbind(1)
        theta = boxes.new_zeros(len(boxes), 2, 3)
        theta[:, 0, 0], theta[:, 0, 2] = w / size, 2 * cx / size - 1
        theta[:, 1, 1], theta[:, 1, 2] = h / size, 2 * cy / size - 1
        grid = functional.affine_grid(theta, (len(boxes), 3, output_size, output_size), align_corners=False)
        return functional.grid_sample(images, grid.to(dtype), align_corners=False)

    model.read = read
    return model


def normalised(images: Tensor, model: VideoModel, dtype: torch.dtype) -> Tensor:
    """[..., 3, H, W] of the dtype, contiguous, as a data loader gives them; of bytes, or of what is normalised."""
    if images.dtype == torch.uint8:
        mean, std = (torch.tensor(x, device=images.device).view(-1, 1, 1) for x in (model.mean, model.std))
        images = (images / 255 - mean) / std
    return images.to(dtype).contiguous()


def _with_attributes(module: nn.Module, encoder: nn.Module) -> nn.Module:
    for name in ("out_channels", "reduction", "num_frames"):
        if hasattr(encoder, name):
            setattr(module, name, getattr(encoder, name))
    return module

"""OpenCV's ways to cut and resize, with this library's boxes: of bytes, box k of [K, 4] (cy, cx, h, w) from frame k."""

from collections.abc import Sequence
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from adafocus_ops import boxes as box_ops


def resize(frames: Tensor, boxes: Tensor, patch: int) -> Tensor:
    """Patches [K, C, P, P] uint8 of frames [K, C, H, W] uint8, by cv2.resize of slices; boxes of whole pixels.

    Positions are rounded to 1/2048 of a pixel. A sample beyond the slice's outermost pixels reads these, not the
    frame's next ones, which concerns boxes smaller than the patch.

    Raises:
        ImportError: OpenCV is not installed.
    """
    cv2 = _cv2()
    images, out = _images(frames, patch)
    for image, result, (x0, y0, x1, y1) in zip(images, out, _corners(boxes), strict=True):
        if image.shape[-1] == frames.shape[1]:
            cv2.resize(image[y0:y1, x0:x1], (patch, patch), dst=result, interpolation=cv2.INTER_LINEAR)
        else:
            for plane, part in zip(image, result, strict=True):
                cv2.resize(plane[y0:y1, x0:x1], (patch, patch), dst=part, interpolation=cv2.INTER_LINEAR)
    return _tensor(out, frames)


def warp_affine(frames: Tensor, boxes: Tensor, patch: int) -> Tensor:
    """The same by cv2.warpAffine, of any boxes; positions are rounded to 1/32 of a pixel.

    Raises:
        ImportError: OpenCV is not installed.
        NotImplementedError: the frames are not stored channels_last.
    """
    cv2 = _cv2()
    images, out = _images(frames, patch)
    _must_be_interleaved("warpAffine", frames)
    step = (boxes[:, 2:] / patch).tolist()
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    for image, result, (h, w), (x0, y0, _, _) in zip(images, out, step, box_ops.to_xyxy(boxes).tolist(), strict=True):
        matrix = np.array([[w, 0, x0 + w / 2 - 0.5], [0, h, y0 + h / 2 - 0.5]])
        cv2.warpAffine(image, matrix, (patch, patch), dst=result, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return _tensor(out, frames)


def blob_from_images(frames: Tensor, boxes: Tensor, patch: int, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Normalised patches [K, C, P, P] float32, contiguous, by cv2.dnn.blobFromImages of slices, which resizes bytes to
    bytes, and a division by std.

    Raises:
        ImportError: OpenCV is not installed.
        NotImplementedError: the frames are not stored channels_last.
    """
    cv2 = _cv2()
    _must_be_interleaved("blobFromImages", frames)
    slices = [
        image[y0:y1, x0:x1] for image, (x0, y0, x1, y1) in zip(_images(frames, 1)[0], _corners(boxes), strict=True)
    ]
    blob = cv2.dnn.blobFromImages(slices, 1 / 255, (patch, patch), [255 * value for value in mean])
    return torch.from_numpy(blob).div_(torch.tensor(std).view(-1, 1, 1))


def _cv2() -> ModuleType:
    try:
        import cv2
    except ImportError as error:
        message = f"OpenCV is not installed ({error}): pip install -r third_party/requirements-peers.txt"
        raise ImportError(message) from error
    cv2.setNumThreads(torch.get_num_threads())
    return cv2


def _interleaved(frames: Tensor) -> bool:
    return frames.is_contiguous(memory_format=torch.channels_last)


def _must_be_interleaved(what: str, frames: Tensor) -> None:
    if not _interleaved(frames):
        raise NotImplementedError(f"OpenCV's {what} takes channels that lie side by side")


def _images(frames: Tensor, patch: int) -> tuple[np.ndarray, np.ndarray]:
    """The frames' memory as [K, H, W, C] or [K, C, H, W], and room for patches that lie alike."""
    if _interleaved(frames):
        return frames.permute(0, 2, 3, 1).numpy(), np.empty((len(frames), patch, patch, frames.shape[1]), np.uint8)
    return frames.numpy(), np.empty((*frames.shape[:2], patch, patch), np.uint8)


def _tensor(patches: np.ndarray, frames: Tensor) -> Tensor:
    out = torch.from_numpy(patches)
    return out.permute(0, 3, 1, 2) if _interleaved(frames) else out


def _corners(boxes: Tensor) -> list[list[int]]:
    return box_ops.to_xyxy(boxes).round().int().tolist()

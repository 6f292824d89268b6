"""One picture of a prediction."""

import torch
from PIL import Image, ImageOps
from torch import Tensor

from adafocus_ops import crop_resize

from ..data import Clip
from . import canvas

_MARGIN, _GAP = 24, 16
_COLUMNS = 4  # of picked frames
_MIN_WIDTH = 900


def contact_sheet(
    candidates: Clip,
    glance: Clip,
    frame_index: Tensor,
    boxes: Tensor,
    patch_size: int,
    *,
    weights: Tensor | None = None,
    title: str = "",
    note: str = "",
) -> Image.Image:
    """One picture of a prediction: the glance frames, and the picked frames with their boxes and patches.

    Args:
        candidates, glance: the frames that the model was given, N and T0 of them.
        frame_index: [K] int64 into the candidates: the picked frames.
        boxes: [4] for all picked frames, or [K, 4]: (cy, cx, h, w) in pixels of the frames.
        patch_size: side in pixels of the patches that the focus network sees, shown beside their frames.
        weights: [T0] the temporal policy's weights of the glance frames, shown as bars.
        title: the first line.
        note: a line in red below it.

    Returns:
        An RGB image.
    """
    picked, count = len(frame_index), len(glance.frames)
    boxes = boxes.expand(picked, 4)
    patches = crop_resize(candidates.frames, boxes, patch_size, frame_index=frame_index, out_dtype=torch.uint8)
    cells = [_focus_cell(candidates, i, boxes[k], patches[k]) for k, i in enumerate(frame_index.tolist())]
    focus = canvas.stack([canvas.beside(cells[k : k + _COLUMNS], _GAP) for k in range(0, picked, _COLUMNS)], _GAP)
    width = max(focus.width, _MIN_WIDTH)

    thumb = min(glance.frames.shape[-1], (width + _GAP) // count - _GAP)
    bars = [0.0] * count if weights is None else (weights / weights.max()).tolist()
    glances = canvas.beside([_glance_cell(glance, i, thumb, bars[i]) for i in range(count)], _GAP)

    def part(text: str, *images: Image.Image) -> Image.Image:
        return canvas.stack([canvas.label(text, canvas.HEADING, canvas.INK, width), *images], _GAP // 2)

    legend = "" if weights is None else "; bars: the temporal policy's weights"
    patch = f"patches of {patch_size} x {patch_size}"
    sheet = canvas.stack(
        [
            canvas.stack(
                [
                    canvas.label(title, canvas.TITLE, canvas.INK, width),
                    canvas.label(note, canvas.TEXT, canvas.ALERT, width),
                ],
                _GAP // 2,
            ),
            part(f"Glance at {count} frames{legend}", glances),
            part(f"Focus on {picked} of {len(candidates.frames)} candidates, in {patch}", focus),
        ],
        _GAP,
    )
    return ImageOps.expand(sheet, _MARGIN, canvas.PAPER)


def _glance_cell(clip: Clip, i: int, side: int, bar_length: float) -> Image.Image:
    """One glance frame at side x side pixels, a bar of that fraction of its width, and its caption."""
    bar = Image.new("RGB", (side, 6), canvas.PAPER)
    bar.paste(canvas.BOX_COLOUR, (0, 0, round(bar_length * side), bar.height))
    image = canvas.image_of(clip.frames[i]).resize((side, side), Image.Resampling.BILINEAR)
    return canvas.stack([image, bar, *_caption_labels(clip, i, side)], 2)


def _focus_cell(clip: Clip, i: int, box: Tensor, patch: Tensor) -> Image.Image:
    """One picked frame with its box; beside it the patch and the caption."""
    image = canvas.with_box(canvas.image_of(clip.frames[i]), box)
    seen = canvas.image_of(patch)
    return canvas.beside([image, canvas.stack([seen, *_caption_labels(clip, i, seen.width)], 2)], _GAP // 2)


def _caption_labels(clip: Clip, i: int, width: int) -> list[Image.Image]:
    return [canvas.label(text, canvas.TEXT, canvas.GREY, width) for text in canvas.caption(clip, i)]

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
        candidates, glance: the frames that the model was given, N and T0 of them, of which T0 may be 0.
        frame_index: [K] int64 into the candidates: the picked frames; -1 where there are none, since the glance's
            answer was sure enough.
        boxes: [4] for all picked frames, or [K, 4]: (cy, cx, h, w) in pixels of the frames.
        patch_size: side in pixels of the patches that the focus network sees, shown beside their frames.
        weights: [T0] the temporal policy's weights of the glance frames, shown as bars; None or NaN shows none.
        title: the first line.
        note: a line in red below it.

    Returns:
        An RGB image.
    """
    boxes = boxes.expand(len(frame_index), 4)[frame_index >= 0]
    frame_index = frame_index[frame_index >= 0]
    patches = crop_resize(candidates.frames, boxes, patch_size, frame_index=frame_index, out_dtype=torch.uint8)
    cells = [_focus_cell(candidates, i, boxes[k], patches[k]) for k, i in enumerate(frame_index.tolist())]
    rows = [canvas.beside(cells[k : k + _COLUMNS], _GAP) for k in range(0, len(cells), _COLUMNS)]
    focus = [canvas.stack(rows, _GAP)] if rows else []
    width = max([_MIN_WIDTH, *(row.width for row in rows)])

    def part(text: str, *images: Image.Image) -> Image.Image:
        return canvas.stack([canvas.label(text, canvas.HEADING, canvas.INK, width), *images], _GAP // 2)

    what = f"Focus on {len(cells)} of {len(candidates.frames)} candidates, in patches of {patch_size} x {patch_size}"
    sheet = canvas.stack(
        [
            canvas.stack(
                [
                    canvas.label(title, canvas.TITLE, canvas.INK, width),
                    canvas.label(note, canvas.TEXT, canvas.ALERT, width),
                ],
                _GAP // 2,
            ),
            *([part(*_glances(glance, weights, width))] if len(glance.frames) else []),
            part(what if focus else "No focus: the answer at the glance was sure enough", *focus),
        ],
        _GAP,
    )
    return ImageOps.expand(sheet, _MARGIN, canvas.PAPER)


def _glances(clip: Clip, weights: Tensor | None, width: int) -> tuple[str, Image.Image]:
    """The glance frames in one row, and what to say of them."""
    count = len(clip.frames)
    thumb = min(clip.frames.shape[-1], (width + _GAP) // count - _GAP)
    weighed = weights is not None and not weights.isnan().any()
    bars = (weights / weights.max()).tolist() if weighed else [0.0] * count
    legend = "; bars: the temporal policy's weights" if weighed else ""
    cells = [_glance_cell(clip, i, thumb, bars[i]) for i in range(count)]
    return f"Glance at {count} frames{legend}", canvas.beside(cells, _GAP)


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

"""Prediction out: which frames and boxes the model looked at, as one picture or as a video.

Needs PyAV and Pillow: pip install "adafocus[video]".
"""

import math
from collections.abc import Sequence
from pathlib import Path

import av
import torch
from PIL import Image, ImageDraw, ImageFont, ImageOps
from torch import Tensor

from adafocus_ops import crop_resize
from adafocus_ops.boxes import to_xyxy

from .video import Clip

BOX_COLOUR = (255, 159, 10)
_PAPER, _INK, _GREY, _ALERT = (250, 250, 248), (28, 30, 33), (112, 117, 124), (196, 43, 28)
_TITLE, _HEADING, _TEXT = 24, 18, 14  # type sizes in pixels
_MARGIN, _GAP = 24, 16
_COLUMNS = 4  # of picked frames
_MIN_WIDTH = 900
_BOX_LINE = 3

_VIDEO_SCALE = 2
_VIDEO_RATE = 4  # frames a second
_DIMMED = 0.35
_ENCODERS = ("libx264", "mpeg4")  # the first that this FFmpeg has


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
    focus = _stack([_row(cells[k : k + _COLUMNS], _GAP) for k in range(0, picked, _COLUMNS)], _GAP)
    width = max(focus.width, _MIN_WIDTH)

    thumb = min(glance.frames.shape[-1], (width + _GAP) // count - _GAP)
    bars = [0.0] * count if weights is None else (weights / weights.max()).tolist()
    glances = _row([_glance_cell(glance, i, thumb, bars[i]) for i in range(count)], _GAP)

    def part(text: str, *images: Image.Image) -> Image.Image:
        return _stack([_label(text, _HEADING, _INK, width), *images], _GAP // 2)

    legend = "" if weights is None else "; bars: the temporal policy's weights"
    patch = f"patches of {patch_size} x {patch_size}"
    sheet = _stack(
        [
            _stack([_label(title, _TITLE, _INK, width), _label(note, _TEXT, _ALERT, width)], _GAP // 2),
            part(f"Glance at {count} frames{legend}", glances),
            part(f"Focus on {picked} of {len(candidates.frames)} candidates, in {patch}", focus),
        ],
        _GAP,
    )
    return ImageOps.expand(sheet, _MARGIN, _PAPER)


def write_video(
    path: str | Path, candidates: Clip, frame_index: Tensor, boxes: Tensor, *, title: str = "", note: str = ""
) -> None:
    """Writes the candidates in order as an MP4: the picked ones with their boxes, the others dimmed.

    Args:
        path: file to write.
        candidates, frame_index, boxes, title, note: as in `contact_sheet`.
    """
    boxes = boxes.expand(len(frame_index), 4)
    box_of = dict(zip(frame_index.tolist(), boxes, strict=True))
    pages = [_video_page(candidates, i, box_of.get(i), title, note) for i in range(len(candidates.frames))]
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream(next(e for e in _ENCODERS if e in av.codecs_available), rate=_VIDEO_RATE)
        stream.width, stream.height = pages[0].size
        stream.pix_fmt = "yuv420p"
        for page in pages:
            container.mux(stream.encode(av.VideoFrame.from_image(page)))
        container.mux(stream.encode())


def _video_page(clip: Clip, i: int, box: Tensor | None, title: str, note: str) -> Image.Image:
    """One candidate frame, enlarged, and what it is; box is None where it was not picked."""
    side = clip.frames.shape[-1] * _VIDEO_SCALE
    image = _image(clip.frames[i]).resize((side, side), Image.Resampling.BICUBIC)
    if box is None:
        role, image = "skipped", image.point(lambda value: value * _DIMMED)
    else:
        role, image = "picked", _with_box(image, box * _VIDEO_SCALE)
    where = ", ".join(filter(None, _caption(clip, i)))
    lines = (title, _INK), (f"{where}: {role}", _GREY), (note, _ALERT)
    return _stack([image, *(_label(text, _HEADING, colour, side) for text, colour in lines)], 0)


def _glance_cell(clip: Clip, i: int, side: int, bar_length: float) -> Image.Image:
    """One glance frame at side x side pixels, a bar of that fraction of its width, and its caption."""
    bar = Image.new("RGB", (side, 6), _PAPER)
    bar.paste(BOX_COLOUR, (0, 0, round(bar_length * side), bar.height))
    image = _image(clip.frames[i]).resize((side, side), Image.Resampling.BILINEAR)
    return _stack([image, bar, *_caption_labels(clip, i, side)], 2)


def _focus_cell(clip: Clip, i: int, box: Tensor, patch: Tensor) -> Image.Image:
    """One picked frame with its box; beside it the patch and the caption."""
    image = _with_box(_image(clip.frames[i]), box)
    seen = _image(patch)
    return _row([image, _stack([seen, *_caption_labels(clip, i, seen.width)], 2)], _GAP // 2)


def _caption(clip: Clip, i: int) -> list[str]:
    """The frame's number in the video, and its time if known."""
    time = float(clip.time[i])
    return [f"frame {int(clip.source_index[i])}", "" if math.isnan(time) else f"{time:.2f} s"]


def _caption_labels(clip: Clip, i: int, width: int) -> list[Image.Image]:
    return [_label(text, _TEXT, _GREY, width) for text in _caption(clip, i)]


def _image(frame: Tensor) -> Image.Image:
    """A [3, H, W] uint8 frame as an image."""
    return Image.fromarray(frame.permute(1, 2, 0).contiguous().numpy())


def _with_box(image: Image.Image, box: Tensor) -> Image.Image:
    """The image with a box (cy, cx, h, w) drawn just inside its edge, and a dark line inside that sets it off."""
    left, top, right, bottom = (round(side) for side in to_xyxy(box).tolist())
    draw = ImageDraw.Draw(image)
    draw.rectangle((left, top, right - 1, bottom - 1), outline=BOX_COLOUR, width=_BOX_LINE)
    inset = _BOX_LINE
    draw.rectangle((left + inset, top + inset, right - 1 - inset, bottom - 1 - inset), outline=_INK)
    return image


def _label(text: str, size: int, colour: Sequence[int], width: int) -> Image.Image:
    """One line of text on paper, cut off with an ellipsis where it would be wider than `width`."""
    font = ImageFont.load_default(size)
    if font.getlength(text) > width:
        fits = max(n for n in range(len(text)) if n == 0 or font.getlength(text[:n] + "...") <= width)
        text = text[:fits] + "..."
    label = Image.new("RGB", (width, 2 * math.ceil(0.7 * size)), _PAPER)  # even, as video frames have to be
    ImageDraw.Draw(label).text((0, 1), text, fill=tuple(colour), font=font)
    return label


def _stack(images: list[Image.Image], gap: int) -> Image.Image:
    """The images below one another, flush left."""
    height = sum(image.height + gap for image in images) - gap
    page = Image.new("RGB", (max(image.width for image in images), height), _PAPER)
    top = 0
    for image in images:
        page.paste(image, (0, top))
        top += image.height + gap
    return page


def _row(images: list[Image.Image], gap: int) -> Image.Image:
    """The images beside one another, flush at the top."""
    width = sum(image.width + gap for image in images) - gap
    page = Image.new("RGB", (width, max(image.height for image in images)), _PAPER)
    left = 0
    for image in images:
        page.paste(image, (left, 0))
        left += image.width + gap
    return page

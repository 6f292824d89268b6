"""Prediction out: which frames and boxes the model looked at, as one picture or as a video.

Needs PyAV and Pillow: pip install "adafocus[video]".
"""

import math
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, uint8

from adafocus_ops import crop_resize
from adafocus_ops.boxes import to_xyxy

from .video import Clip

BOX_COLOUR = (255, 159, 10)
_PAPER, _INK, _GREY, _ALERT = (250, 250, 248), (28, 30, 33), (112, 117, 124), (196, 43, 28)
_TITLE, _HEADING, _TEXT = 24, 17, 14  # type sizes in pixels
_MARGIN, _GAP = 24, 10
_MAX_COLUMNS = 8

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
    """One picture of a prediction: the glance frames, the picked frames with their boxes, and their patches.

    Args:
        candidates, glance: the frames that the model was given, of N and T0 frames.
        frame_index: [K] int64 into the candidates: the picked frames.
        boxes: [4] for all picked frames or [K, 4], (cy, cx, h, w) in pixels of the frames.
        patch_size: side in pixels of the patches that the focus network sees, shown below their frames.
        weights: [T0], the temporal policy's weights of the glance frames, shown as bars below them.
        title: first line.
        note: a second line, to be noticed.

    Returns:
        An RGB image.
    """
    picked, size = len(frame_index), candidates.frames.shape[-1]
    boxes = boxes.expand(picked, 4)
    patches = crop_resize(candidates.frames, boxes, patch_size, frame_index=frame_index, out_dtype=uint8)
    rows = math.ceil(picked / _MAX_COLUMNS)
    columns = math.ceil(picked / rows)
    thumb = size // 2
    widest = max(columns * (size + _GAP), len(glance.frames) * (thumb + _GAP)) - _GAP
    line, row = _TEXT + 6, size + patch_size + 2 * _GAP + _TEXT + 6
    height = 2 * _MARGIN + _TITLE + 10 + line + 2 * (_HEADING + 12) + thumb + 2 * line + _GAP + rows * (row + _GAP)
    sheet = Image.new("RGB", (widest + 2 * _MARGIN, height), _PAPER)
    draw = ImageDraw.Draw(sheet)

    y = _MARGIN
    _text(draw, (_MARGIN, y), title, _TITLE, _INK, widest)
    y += _TITLE + 10
    _text(draw, (_MARGIN, y), note, _TEXT, _ALERT, widest)
    y += line

    heading = f"glance: {len(glance.frames)} frames" + ("" if weights is None else ", bars: temporal policy's weights")
    _text(draw, (_MARGIN, y), heading, _HEADING, _INK, widest)
    y += _HEADING + 12
    for i, frame in enumerate(glance.frames):
        x = _MARGIN + i * (thumb + _GAP)
        sheet.paste(_image(frame).resize((thumb, thumb), Image.Resampling.BILINEAR), (x, y))
        _text(draw, (x, y + thumb + 5), _caption(glance, i), _TEXT, _GREY, thumb)
        if weights is not None:
            length = round(float(weights[i] / weights.max()) * thumb)
            draw.rectangle((x, y + thumb + line + 4, x + max(length, 1) - 1, y + thumb + line + 9), BOX_COLOUR)
    y += thumb + 2 * line + _GAP

    heading = f"focus: {picked} of {len(candidates.frames)} candidates, patches of {patch_size} x {patch_size}"
    _text(draw, (_MARGIN, y), heading, _HEADING, _INK, widest)
    y += _HEADING + 12
    for k, index in enumerate(frame_index.tolist()):
        left, top = _MARGIN + k % columns * (size + _GAP), y + k // columns * (row + _GAP)
        sheet.paste(_with_box(_image(candidates.frames[index]), boxes[k]), (left, top))
        sheet.paste(_image(patches[k]), (left + (size - patch_size) // 2, top + size + _GAP))
        _text(draw, (left, top + size + patch_size + 2 * _GAP), _caption(candidates, index), _TEXT, _GREY, size)
    return sheet


def write_video(
    path: str | Path, candidates: Clip, frame_index: Tensor, boxes: Tensor, *, title: str = "", note: str = ""
) -> None:
    """Writes the candidates in order as an MP4: the picked ones with their boxes, the others dimmed.

    Args:
        path: file to write.
        candidates, frame_index, boxes, title, note: as in `contact_sheet`.
    """
    boxes = boxes.expand(len(frame_index), 4) * _VIDEO_SCALE
    box_of = dict(zip(frame_index.tolist(), boxes, strict=True))
    side = candidates.frames.shape[-1] * _VIDEO_SCALE
    line = _HEADING + 8
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream(_encoder(), rate=_VIDEO_RATE)
        stream.width, stream.height, stream.pix_fmt = side, side + 4 * line, "yuv420p"
        for i, frame in enumerate(candidates.frames):
            image = _image(frame).resize((side, side), Image.Resampling.BICUBIC)
            if i in box_of:
                image, role = _with_box(image, box_of[i]), "picked"
            else:
                image, role = image.point(lambda value: value * _DIMMED), "skipped"
            canvas = Image.new("RGB", (stream.width, stream.height), _PAPER)
            canvas.paste(image)
            lines = ((title, _INK), (f"{_caption(candidates, i)}: {role}", _GREY), (note, _ALERT))
            for row, (text, colour) in enumerate(lines):
                where = (_GAP, side + _GAP + row * line)
                _text(ImageDraw.Draw(canvas), where, text, _HEADING, colour, side - 2 * _GAP)
            container.mux(stream.encode(av.VideoFrame.from_image(canvas)))
        container.mux(stream.encode())


def _encoder() -> str:
    return next(name for name in _ENCODERS if name in av.codecs_available)


def _image(frame: Tensor) -> Image.Image:
    """A [3, H, W] uint8 frame as an image."""
    return Image.fromarray(np.ascontiguousarray(frame.permute(1, 2, 0).numpy()))


def _with_box(image: Image.Image, box: Tensor) -> Image.Image:
    """The image with a box (cy, cx, h, w) drawn just inside its edge, on a dark line that sets it off."""
    left, top, right, bottom = (round(side) for side in to_xyxy(box).tolist())
    draw = ImageDraw.Draw(image)
    draw.rectangle((left, top, right - 1, bottom - 1), outline=BOX_COLOUR, width=3)
    draw.rectangle((left + 3, top + 3, right - 4, bottom - 4), outline=_INK)
    return image


def _caption(clip: Clip, i: int) -> str:
    time = float(clip.time[i])
    return f"frame {int(clip.source_index[i])}" + ("" if math.isnan(time) else f", {time:.2f} s")


def _text(
    draw: ImageDraw.ImageDraw, where: tuple[int, int], text: str, size: int, colour: Sequence[int], width: int
) -> None:
    """One line of text, cut off with an ellipsis where it would be wider than `width`."""
    font = ImageFont.load_default(size)
    if font.getlength(text) > width:
        while text and font.getlength(text + "...") > width:
            text = text[:-1]
        text += "..."
    draw.text(where, text, fill=tuple(colour), font=font)

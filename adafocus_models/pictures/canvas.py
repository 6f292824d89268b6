"""Pieces of both pictures: a frame with its box and caption, lines of text, and images put together."""

import math
from collections.abc import Sequence

from PIL import Image, ImageDraw
from torch import Tensor

from adafocus_ops.boxes import to_xyxy

from ..data import Clip
from .fonts import font_for

BOX_COLOUR = (255, 159, 10)
PAPER, INK, GREY, ALERT = (250, 250, 248), (28, 30, 33), (112, 117, 124), (196, 43, 28)
TITLE, HEADING, TEXT = 24, 18, 14  # type sizes in pixels
_BOX_LINE = 3


def caption(clip: Clip, i: int) -> list[str]:
    """The frame's number in the video, and its time if known."""
    time = float(clip.time[i])
    return [f"frame {int(clip.source_index[i])}", "" if math.isnan(time) else f"{time:.2f} s"]


def image_of(frame: Tensor) -> Image.Image:
    """A [3, H, W] uint8 frame as an image."""
    return Image.fromarray(frame.permute(1, 2, 0).contiguous().numpy())


def with_box(image: Image.Image, box: Tensor) -> Image.Image:
    """The image with a box (cy, cx, h, w) drawn just inside its edge, and a dark line inside that sets it off."""
    left, top, right, bottom = (round(side) for side in to_xyxy(box).tolist())
    draw = ImageDraw.Draw(image)
    draw.rectangle((left, top, right - 1, bottom - 1), outline=BOX_COLOUR, width=_BOX_LINE)
    inset = _BOX_LINE
    draw.rectangle((left + inset, top + inset, right - 1 - inset, bottom - 1 - inset), outline=INK)
    return image


def label(text: str, size: int, colour: Sequence[int], width: int) -> Image.Image:
    """One line of text on paper, cut off with an ellipsis where it would be wider than `width`."""
    font, text = font_for(text, size)
    if font.getlength(text) > width:
        fits = max(n for n in range(len(text)) if n == 0 or font.getlength(text[:n] + "...") <= width)
        text = text[:fits] + "..."
    line = Image.new("RGB", (width, 2 * math.ceil(0.7 * size)), PAPER)  # even, as video frames have to be
    ImageDraw.Draw(line).text((0, 1), text, fill=tuple(colour), font=font)
    return line


def stack(images: list[Image.Image], gap: int) -> Image.Image:
    """The images below one another, flush left."""
    height = sum(image.height + gap for image in images) - gap
    page = Image.new("RGB", (max(image.width for image in images), height), PAPER)
    top = 0
    for image in images:
        page.paste(image, (0, top))
        top += image.height + gap
    return page


def beside(images: list[Image.Image], gap: int) -> Image.Image:
    """The images beside one another, flush at the top."""
    width = sum(image.width + gap for image in images) - gap
    page = Image.new("RGB", (width, max(image.height for image in images)), PAPER)
    left = 0
    for image in images:
        page.paste(image, (left, 0))
        left += image.width + gap
    return page

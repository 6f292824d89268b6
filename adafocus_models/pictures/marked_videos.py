"""One video of a prediction."""

from pathlib import Path

import av
from PIL import Image
from torch import Tensor

from ..data import Clip
from . import canvas

_SCALE = 2
_RATE = 4  # frames a second
_DIMMED = 0.35
_ENCODERS = ("libx264", "mpeg4")  # the first that this FFmpeg has


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
    pages = [_page(candidates, i, box_of.get(i), title, note) for i in range(len(candidates.frames))]
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream(next(e for e in _ENCODERS if e in av.codecs_available), rate=_RATE)
        stream.width, stream.height = pages[0].size
        stream.pix_fmt = "yuv420p"
        for page in pages:
            container.mux(stream.encode(av.VideoFrame.from_image(page)))
        container.mux(stream.encode())


def _page(clip: Clip, i: int, box: Tensor | None, title: str, note: str) -> Image.Image:
    """One candidate frame, enlarged, and what it is; box is None where it was not picked."""
    side = clip.frames.shape[-1] * _SCALE
    image = canvas.image_of(clip.frames[i]).resize((side, side), Image.Resampling.BICUBIC)
    if box is None:
        role, image = "skipped", image.point(lambda value: value * _DIMMED)
    else:
        role, image = "picked", canvas.with_box(image, box * _SCALE)
    where = ", ".join(filter(None, canvas.caption(clip, i)))
    lines = (title, canvas.INK), (f"{where}: {role}", canvas.GREY), (note, canvas.ALERT)
    return canvas.stack([image, *(canvas.label(text, canvas.HEADING, colour, side) for text, colour in lines)], 0)

"""Frames of a folder of images."""

import re
from pathlib import Path

from PIL import Image

from adafocus_ops.checks import require

from .frames import Frame, Frames, Prepare, Wanted

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")


def read_folder(path: Path, wanted: Wanted, prepare: Prepare) -> Frames:
    """The wanted frames of a folder of images."""
    visible = (f for f in path.iterdir() if not f.name.startswith("."))  # some systems keep notes beside images
    files = sorted((f for f in visible if f.suffix.lower() in IMAGE_SUFFIXES), key=_natural_order)
    suffixes = ", ".join(IMAGE_SUFFIXES)
    require(
        bool(files), lambda: f"{path} holds no frames: put images ({suffixes}) directly in it, or give a video file"
    )
    frames = {}
    for index in wanted(len(files)):
        try:
            with Image.open(files[index]) as image:
                frames[index] = Frame(prepare(image.convert("RGB")), float("nan"))
        except (OSError, SyntaxError) as error:  # Pillow raises the latter for a broken PNG
            raise ValueError(f"{files[index]} cannot be read as an image ({error}): replace or remove it") from error
    return len(files), frames


def _natural_order(path: Path) -> list[str | int]:
    """Sort key that takes runs of digits as numbers; text and numbers alternate, so that like meets like."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", path.name)]

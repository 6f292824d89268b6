"""Frames of a folder of images."""

import re
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from adafocus_ops.checks import require

from .frames import Frame, Frames, Prepare, Wanted

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")


def read_folder(path: Path, wanted: Wanted, prepare: Prepare) -> Frames:
    """The wanted frames of a folder of images."""
    visible = (f for f in path.iterdir() if not f.name.startswith("."))  # some systems keep notes beside images
    images = (f for f in visible if f.suffix.lower() in IMAGE_SUFFIXES and f.is_file())
    files = sorted(images, key=natural_order)
    suffixes = ", ".join(IMAGE_SUFFIXES)
    require(
        bool(files), lambda: f"{path} holds no frames: put images ({suffixes}) directly in it, or give a video file"
    )
    times = [float("nan")] * len(files)
    return times, {i: Frame(prepare(_read_image(files[i])), times[i]) for i in wanted(times)}


def natural_order(path: Path) -> list[str | int]:
    """Sort key that takes runs of digits as numbers; text and numbers alternate, so that like meets like."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", path.name)]


def _read_image(file: Path) -> Image.Image:
    """An image in RGB, turned and mirrored as its EXIF data asks of a viewer."""
    try:
        with Image.open(file) as image:
            sixteen_bits = image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG")
            upright = ImageOps.exif_transpose(image)
            return _high_bytes(upright) if sixteen_bits else _rgb(upright)
    except Image.DecompressionBombError as error:
        raise ValueError(f"{file} has too many pixels to be read ({error}): resize it") from error
    except Exception as error:  # Pillow lets errors of many types out of its decoders
        raise ValueError(f"{file} cannot be read as an image ({error}): replace or remove it") from error


def _high_bytes(image: Image.Image) -> Image.Image:
    """A grey image of 16 bits a pixel in RGB; Pillow itself does the same with 16 bits a colour."""
    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")


def _rgb(image: Image.Image) -> Image.Image:
    require(image.mode not in ("I", "F"), lambda: "32 bits a pixel, of which no range is known: save it with 8 or 16")
    image.info.pop("transparency", None)  # it is not applied, and Pillow would warn about it
    return image.convert("RGB")

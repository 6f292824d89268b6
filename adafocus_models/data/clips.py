"""Clips: the candidate and glance frames of a video, sampled and cropped as the published data loader does it."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from adafocus_ops.checks import check_positive_ints, require

from .frames import Frame, Prepare, Times
from .image_folders import read_folder
from .video_files import read_video

# Longest side of a frame in shortest ones. A strip, resized by its short side, would take gigabytes.
MAX_ASPECT = 100

Choose = Callable[[int], Sequence[Sequence[int]]]  # number of frames -> of which of them each clip is


class Clip(NamedTuple):
    """Frames sampled from one video."""

    frames: Tensor  # [N, 3, S, S] uint8, stored channels_last
    source_index: Tensor  # [N] int64, number of the frame in the video, from 0
    time: Tensor  # [N] float64, seconds after the video's first frame; NaN where the source has no times


def read_clip(
    path: str | Path,
    num_candidate_frames: int,
    num_glance_frames: int,
    *,
    frame_size: int = 224,
    short_side: int = 256,
) -> tuple[Clip, Clip]:
    """Reads a video's candidate frames and its glance frames, each set at its own segment centres.

    Each frame's short side is resized to `short_side` (bilinear with antialias), then the centre
    frame_size x frame_size is cut out. A video with fewer frames than asked for repeats frames.

    A video file is decoded to its end, since what a file says about its length is often wrong, and a
    second time where it was; only the frames asked for stay in memory. Turns and mirroring that a file asks
    of a player or viewer are applied; pixels are taken as square; transparency is not applied.

    No file but this one is opened, whatever it holds: formats that point to other files or addresses
    (playlists, scripts, image sequences), and URLs, are refused.

    Args:
        path: a video file, of the formats that hold the whole video, or a folder of frames (JPEG, PNG, WebP,
            BMP or TIFF), taken in the natural order of their names (frame2 before frame10).
        num_candidate_frames, num_glance_frames: N and T0, as the model has them; T0 is 0 without a glance.
        frame_size, short_side: in pixels.

    Returns:
        (candidates, glance): `Clip`s of N and T0 frames, uint8; not normalised, since the model's fused
        read does that. `frames` are permuted views of [N, S, S, 3], that is channels_last.

    Warns:
        UserWarning: the video is damaged or cut off; the frames are sampled from those that decode.

    Raises:
        FileNotFoundError: there is no such file or folder.
        OSError: it cannot be opened.
        ValueError: no frame can be read from it; the message says why and what to do.

    Source: Uni-AdaFocus, Section 5 and the published data loader.
    """
    check_positive_ints(
        num_candidate_frames=num_candidate_frames,
        **({} if num_glance_frames == 0 else {"num_glance_frames": num_glance_frames}),
        frame_size=frame_size,
        short_side=short_side,
    )
    require(frame_size <= short_side, lambda: f"frame_size must be at most short_side={short_side}, got {frame_size}")
    path = existing(path)

    def choose(num_frames: int) -> list[list[int]]:
        return [segment_centres(num_frames, count) for count in (num_candidate_frames, num_glance_frames)]

    def prepare(image: Image.Image) -> np.ndarray:
        return _centre_crop(resize_short_side(image, short_side, path), frame_size)

    candidates, glance = read_chosen(path, choose, prepare)
    return candidates, glance


def read_chosen(
    path: Path, choose: Choose, prepare: Prepare, *, start: float | None = None, end: float | None = None
) -> list[Clip]:
    """Several clips of one video, of the frames of a part of it, by one decoding.

    Args:
        path: of a video file or a folder of frames that is there.
        choose: of which frames of the part each clip is. It is asked more than once, and must answer alike to an equal
            number of frames.
        prepare: makes pixels of an image, all of one shape.
        start, end: the part is of the frames at start <= position < end; None does not bound it. The position of a
            frame is its number in a folder, from 0, and in a file the seconds after the first one.

    Raises:
        OSError: it cannot be opened.
        ValueError: no frame can be read from it, none is in the part, or their shapes differ.
    """
    in_folder = path.is_dir()

    def chosen(times: Times) -> list[list[int]]:
        part = _inside(range(len(times)) if in_folder else times, start, end)
        return [[part[i] for i in clip] for clip in choose(len(part))] if part else []

    read = read_folder if in_folder else read_video
    times, frames = read(path, lambda times: {number for clip in chosen(times) for number in clip}, prepare)
    clips = chosen(times)
    require(bool(clips), lambda: _without_frames(path, times, start, end))
    shapes = sorted({frame.pixels.shape[:2] for frame in frames.values()})
    require(
        len(shapes) == 1,
        lambda: f"{path} has frames of several shapes (H, W), {shapes[0]} and {shapes[-1]}: they must have one",
    )
    return [_clip(numbers, frames) for numbers in clips]


def _inside(positions: Sequence[float], start: float | None, end: float | None) -> Sequence[int]:
    """The numbers of those positions that are in the part, in their order; all of them if it is no part."""
    if start is None and end is None:
        return range(len(positions))
    first, behind = 0 if start is None else start, math.inf if end is None else end
    return [number for number, position in enumerate(positions) if first <= position < behind]


def _without_frames(path: Path, times: Times, start: float | None, end: float | None) -> str:
    """Says that no frame of a video is in the part."""
    part = f"from {start or 0:g}" + ("" if end is None else f" to {end:g}")
    if path.is_dir():
        return f"{path} has no frame in the part that counts, {part}: its {len(times)} frames are numbered from 0"
    known = "states no times" if math.isnan(times[-1]) else f"has its last frame at {times[-1]:g} s"
    return f"{path} has no frame in the part that counts, {part} s: it {known}"


def _clip(numbers: Sequence[int], frames: Mapping[int, Frame]) -> Clip:
    """Those of the frames with these numbers, of which there may be none."""
    shape = next(iter(frames.values())).pixels.shape
    pixels = np.empty((len(numbers), *shape), np.uint8)
    for i, number in enumerate(numbers):
        pixels[i] = frames[number].pixels
    times = torch.tensor([frames[number].time for number in numbers], dtype=torch.float64)
    return Clip(torch.from_numpy(pixels).permute(0, 3, 1, 2), torch.tensor(numbers, dtype=torch.int64), times)


def short_side_for(frame_size: int) -> int:
    """The short side that frames of this size are cut from as published: 256 for 224, others in proportion."""
    return frame_size * 256 // 224


def existing(path: str | Path) -> Path:
    """The path, if a file or folder is there."""
    require(str(path) != "", lambda: "path must name a video file or a folder of frames, got ''")
    there = Path(path)
    is_url = re.match(r"[A-Za-z][\w+.-]+:/", str(path)) and not there.exists()
    require(not is_url, lambda: f"{path} is a URL, and these are not read: download the video, and give the file")
    require(there.exists(), lambda: f"{path} does not exist: check the path", FileNotFoundError)
    return there


def segment_centres(num_frames: int, num_segments: int) -> list[int]:
    """The frames (from 0) at the centres of equal segments: floor((i + 1/2) / num_segments * num_frames)."""
    return [(2 * i + 1) * num_frames // (2 * num_segments) for i in range(num_segments)]


def random_segments(num_frames: int, num_segments: int, rng: np.random.Generator) -> list[int]:
    """Frames (from 0) at random places in equal segments, one in each, in order.

        i * d + randint(d), with d = floor(num_frames / num_segments)

    as published for TSM: frame i of each num_segments, which never draws the frames that the division leaves over. With
    fewer frames than segments, where the published loader takes the first frame alone,

        floor((i + u) / num_segments * num_frames), with u uniform in [0, 1)

    which is how the published loader for the longer videos (ActivityNet, FCVID, Mini-Kinetics) draws of any number.

    Args:
        num_frames: of the video, at least 1.
        rng: what is drawn with: num_segments numbers.

    Source: TSM's data loader, and that of Uni-AdaFocus.
    """
    check_positive_ints(num_frames=num_frames, num_segments=num_segments)
    first = np.arange(num_segments)
    length = num_frames // num_segments
    if length > 0:
        return (first * length + rng.integers(length, size=num_segments)).tolist()
    drawn = np.floor((first + rng.random(num_segments)) / num_segments * num_frames)
    return np.minimum(drawn.astype(int), num_frames - 1).tolist()  # i + u rounds to i + 1 for the largest u


def resize_short_side(image: Image.Image, short_side: int, path: Path) -> Image.Image:
    """The image, of the video at `path`, with its short side at `short_side` and its long side in proportion, rounded
    down (bilinear with antialias).

    Raises:
        ValueError: it is a strip.
    """
    width, height = image.size
    shorter, longer = sorted(image.size)
    require(
        longer <= MAX_ASPECT * shorter,
        lambda: f"{path} has a frame of {width} x {height} pixels: a side must be at most {MAX_ASPECT} times the other",
    )
    size = (width * short_side // shorter, height * short_side // shorter)
    return image.resize(size, Image.Resampling.BILINEAR)


def centre_offset(side: int, size: int) -> int:
    """Where `size` pixels in the middle of `side` begin; half a pixel rounds to even, as in the published loader."""
    return round((side - size) / 2)


def _centre_crop(image: Image.Image, size: int) -> np.ndarray:
    """[size, size, 3] uint8: the centre of an RGB image."""
    left, top = (centre_offset(side, size) for side in image.size)
    return np.asarray(image.crop((left, top, left + size, top + size)))

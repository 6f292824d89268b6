"""Clips: the candidate and glance frames of a video, sampled and cropped as the published data loader does it."""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from adafocus_ops.checks import check_positive_ints, require

from .image_folders import read_folder
from .video_files import read_video

# Longest side of a frame in shortest ones. A strip, resized by its short side, would take gigabytes.
MAX_ASPECT = 100


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
    path = _existing(path)

    def wanted(num_frames: int) -> set[int]:
        counts = (num_candidate_frames, num_glance_frames)
        return {index for count in counts for index in segment_centres(num_frames, count)}

    def prepare(image: Image.Image) -> np.ndarray:
        shorter, longer = sorted(image.size)
        require(
            longer <= MAX_ASPECT * shorter,
            lambda: (
                f"{path} has a frame of {image.width} x {image.height} pixels: a side must be at most {MAX_ASPECT}"
                " times the other"
            ),
        )
        return _centre_crop(_resize_short_side(image, short_side), frame_size)

    read = read_folder if path.is_dir() else read_video
    num_frames, frames = read(path, wanted, prepare)

    def clip(count: int) -> Clip:
        indices = segment_centres(num_frames, count)
        pixels = np.empty((count, frame_size, frame_size, 3), np.uint8)
        for i, index in enumerate(indices):
            pixels[i] = frames[index].pixels
        times = torch.tensor([frames[i].time for i in indices], dtype=torch.float64)
        return Clip(torch.from_numpy(pixels).permute(0, 3, 1, 2), torch.tensor(indices, dtype=torch.int64), times)

    return clip(num_candidate_frames), clip(num_glance_frames)


def short_side_for(frame_size: int) -> int:
    """The short side that frames of this size are cut from as published: 256 for 224, others in proportion."""
    return frame_size * 256 // 224


def _existing(path: str | Path) -> Path:
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


def _resize_short_side(image: Image.Image, short_side: int) -> Image.Image:
    """The image with its short side at `short_side` and its long side in proportion, rounded down."""
    width, height = image.size
    shorter = min(width, height)
    size = (width * short_side // shorter, height * short_side // shorter)
    return image.resize(size, Image.Resampling.BILINEAR)


def _centre_crop(image: Image.Image, size: int) -> np.ndarray:
    """[size, size, 3] uint8: the centre of an RGB image; half a pixel rounds to even, as in the published loader."""
    left, top = (round((side - size) / 2) for side in image.size)
    return np.asarray(image.crop((left, top, left + size, top + size)))

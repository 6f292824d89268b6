"""Video in: the candidate and glance frames of a clip, sampled and cropped as the published data loader does it.

Needs PyAV and Pillow: pip install "adafocus[video]".
"""

import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ._checks import check_positive_ints, require

try:
    import av
    from PIL import Image
except ImportError as error:
    raise ImportError(f'reading videos needs PyAV and Pillow ({error}): pip install "adafocus[video]"') from error

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")

# FFmpeg plays text files as character art, at 25 frames a second.
_CHARACTER_ART = ("ansi", "bintext", "idf", "xbin")

# A file whose last frame ends this long before the duration that its header states is reported as cut off.
_MISSING_SECONDS = 0.5

_GET_ANOTHER = "copy or download the file again, or convert it with `ffmpeg -i IN OUT.mp4`"


class Clip(NamedTuple):
    """Frames sampled from one video."""

    frames: Tensor  # [N, 3, S, S] uint8, stored channels_last
    source_index: Tensor  # [N] int64, number of the frame in the video, from 0
    time: Tensor  # [N] float64, seconds after the video's first frame; NaN where the source has no times


class _Frame(NamedTuple):
    pixels: np.ndarray  # [S, S, 3] uint8
    time: float


_Wanted = Callable[[int], set[int]]  # the numbers of the frames to keep, of so many
_Prepare = Callable[[Image.Image], np.ndarray]  # an RGB image of any size to pixels [S, S, 3]
_Frames = tuple[int, dict[int, _Frame]]  # how many frames the video has, and those kept, by number


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
    second time where it was; only the frames asked for stay in memory. Rotation that the file asks of
    a player is applied; pixels are taken as square.

    Args:
        path: a video file that FFmpeg can read, or a folder of JPEG or PNG frames, taken in the natural
            order of their names (frame2 before frame10).
        num_candidate_frames, num_glance_frames: N and T0, as the model has them.
        frame_size, short_side: in pixels.

    Returns:
        (candidates, glance): `Clip`s of N and T0 frames, uint8; not normalised, since the model's fused
        read does that. `frames` are permuted views of [N, S, S, 3], that is channels_last.

    Warns:
        UserWarning: the video is damaged or cut off; the frames are sampled from those that decode.

    Raises:
        FileNotFoundError: there is no such file or folder.
        ValueError: no frame can be read from it; the message says why and what to do.

    Source: Uni-AdaFocus, Section 5 and the published data loader.
    """
    path = Path(path)
    check_positive_ints(
        num_candidate_frames=num_candidate_frames,
        num_glance_frames=num_glance_frames,
        frame_size=frame_size,
        short_side=short_side,
    )
    require(frame_size <= short_side, f"frame_size must be at most short_side={short_side}, got {frame_size}")
    require(path.exists(), f"{path} does not exist: check the path", FileNotFoundError)

    def wanted(num_frames: int) -> set[int]:
        counts = (num_candidate_frames, num_glance_frames)
        return {index for count in counts for index in segment_centres(num_frames, count)}

    def prepare(image: Image.Image) -> np.ndarray:
        return _centre_crop(_resize_short_side(image, short_side), frame_size)

    read = _read_folder if path.is_dir() else _read_video
    num_frames, frames = read(path, wanted, prepare)

    def clip(count: int) -> Clip:
        indices = segment_centres(num_frames, count)
        pixels = torch.from_numpy(np.stack([frames[i].pixels for i in indices]))  # [count, S, S, 3]
        times = torch.tensor([frames[i].time for i in indices], dtype=torch.float64)
        return Clip(pixels.permute(0, 3, 1, 2), torch.tensor(indices), times)

    return clip(num_candidate_frames), clip(num_glance_frames)


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


def _read_folder(path: Path, wanted: _Wanted, prepare: _Prepare) -> _Frames:
    """The wanted frames of a folder of images."""
    visible = (f for f in path.iterdir() if not f.name.startswith("."))  # some systems keep notes beside images
    files = sorted((f for f in visible if f.suffix.lower() in IMAGE_SUFFIXES), key=_natural_order)
    suffixes = ", ".join(IMAGE_SUFFIXES)
    require(bool(files), f"{path} holds no frames: put images ({suffixes}) directly in it, or give a video file")
    frames = {}
    for index in wanted(len(files)):
        try:
            with Image.open(files[index]) as image:
                frames[index] = _Frame(prepare(image.convert("RGB")), float("nan"))
        except (OSError, SyntaxError) as error:  # Pillow raises the latter for a broken PNG
            raise ValueError(f"{files[index]} cannot be read as an image ({error}): replace or remove it") from error
    return len(files), frames


def _natural_order(path: Path) -> list[str | int]:
    """Sort key that takes runs of digits as numbers; text and numbers alternate, so that like meets like."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", path.name)]


def _read_video(path: Path, wanted: _Wanted, prepare: _Prepare) -> _Frames:
    """The wanted frames of a video file, however wrong its header is about their number."""
    stated = _stated_frames(path)
    num_frames, frames, damage = _decode(path, wanted(stated), prepare)
    found = f" ({', '.join(damage)})" if damage else ""
    require(num_frames > 0, f"{path} holds no frame that can be decoded{found}: {_GET_ANOTHER}")
    if damage:
        warnings.warn(
            f"{path} is damaged or cut off{found}: sampling from the {num_frames} frames that decode", stacklevel=3
        )
    if num_frames != stated:
        again, frames, _ = _decode(path, wanted(num_frames), prepare)
        require(again == num_frames, f"{path} decodes differently each time: {_GET_ANOTHER}")
    return num_frames, frames


def _stated_frames(path: Path) -> int:
    """How many frames the file claims to hold: from its header, or else its number of packets."""
    with _open(path) as stream:
        return stream.frames or sum(packet is not None for packet in _packets(stream, Counter()))


def _decode(path: Path, wanted: set[int], prepare: _Prepare) -> tuple[int, dict[int, _Frame], list[str]]:
    """The number of frames that decode, the wanted ones of them, and a phrase for every kind of damage."""
    frames, num_frames, tally = {}, 0, Counter()
    first = last = float("nan")
    with _open(path) as stream:
        for frame in _decoded(stream, tally):
            last = float("nan") if frame.pts is None else float(frame.pts * stream.time_base)
            if num_frames == 0:
                first = last
            if num_frames in wanted:
                frames[num_frames] = _Frame(prepare(_upright(frame)), last - first)
            num_frames += 1
        return num_frames, frames, list(_damage(stream, tally, last - first))


def _decoded(stream: av.VideoStream, tally: Counter) -> Iterator[av.VideoFrame]:
    """Every frame that decodes, in the order of display; what fails is skipped and counted in `tally`."""
    for packet in _packets(stream, tally):
        try:
            for frame in stream.decode(packet):
                tally["damaged frames"] += frame.is_corrupt
                yield frame
        except av.error.FFmpegError:
            tally["unreadable packets"] += 1


def _packets(stream: av.VideoStream, tally: Counter) -> Iterator[av.Packet | None]:
    """The stream's packets as far as they can be read, then None, which drains the decoder."""
    try:
        for packet in stream.container.demux(stream):
            if packet.size:  # an empty one would drain the decoder too early
                tally["packets"] += 1
                yield packet
    except av.error.FFmpegError:
        tally["unreadable packets"] += 1
    yield None


def _damage(stream: av.VideoStream, tally: Counter, last_time: float) -> Iterator[str]:
    """A phrase for every sign that the stream is not whole; last_time in seconds after the first frame."""
    for kind in ("unreadable packets", "damaged frames"):
        if tally[kind]:
            yield f"{kind}: {tally[kind]}"
    if stream.frames:
        if tally["packets"] < stream.frames:
            yield f"the file states {stream.frames} frames and holds {tally['packets']}"
        return
    duration = _seconds(stream.duration, stream.time_base) or _seconds(stream.container.duration, 1 / av.time_base)
    if duration - last_time > _MISSING_SECONDS + 1 / (stream.average_rate or 1):
        yield f"the file states {duration:.1f} s and its last frame is at {last_time:.1f} s"


def _seconds(duration: int | None, unit: float) -> float:
    return float((duration or 0) * unit)


def _upright(frame: av.VideoFrame) -> Image.Image:
    """The frame in RGB, turned as the file asks, by quarter turns counterclockwise."""
    return Image.fromarray(np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90)))


@contextmanager
def _open(path: Path) -> Iterator[av.VideoStream]:
    """The video stream of a file, or a ValueError that says why there is none."""
    require(path.stat().st_size > 0, f"{path} is empty (0 bytes): {_GET_ANOTHER}")
    try:
        container = av.open(f"file:{path}", metadata_errors="replace")
    except av.error.FFmpegError as error:
        raise ValueError(
            f"{path} cannot be read as a video ({error.strerror}): {_GET_ANOTHER}; "
            "an MP4 that is cut off before its index cannot be read even in part"
        ) from error
    with container:
        stream = container.streams.best("video")
        require(
            stream is not None and not stream.disposition & av.stream.Disposition.attached_pic,
            f"{path} holds no video stream: give a whole video file, or a folder of frames",
        )
        codec = stream.codec_context
        require(codec is not None, f"{path} is in a coding that this FFmpeg has no decoder for: {_GET_ANOTHER}")
        require(codec.name not in _CHARACTER_ART, f"{path} is a text file: give a video file, or a folder of frames")
        still = container.format.name == "image2" or container.format.name.endswith("_pipe")
        require(not still, f"{path} is a still image: give a video file, or a folder of frames")
        yield stream  # decoded without frame threads, which lose good frames before a damaged one

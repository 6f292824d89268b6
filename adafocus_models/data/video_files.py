"""Frames of a video file, as far as it decodes."""

import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
from PIL import Image

from adafocus_ops.checks import require

from .frames import Frame, Frames, Prepare, Wanted

# FFmpeg plays text files as character art, at 25 frames a second.
_CHARACTER_ART = ("ansi", "bintext", "idf", "xbin")

# A file whose last frame ends this long before the duration that its header states is reported as cut off.
_MISSING_SECONDS = 0.5

_GET_ANOTHER = "copy or download the file again, or convert it with `ffmpeg -i IN OUT.mp4`"


def read_video(path: Path, wanted: Wanted, prepare: Prepare) -> Frames:
    """The wanted frames of a video file, however wrong its header is about their number."""
    stated = _stated_frames(path)
    num_frames, frames, damage = _decode(path, wanted(stated), prepare)
    found = f" ({', '.join(damage)})" if damage else ""
    require(num_frames > 0, lambda: f"{path} holds no frame that can be decoded{found}: {_GET_ANOTHER}")
    if damage:
        warnings.warn(
            f"{path} is damaged or cut off{found}: sampling from the {num_frames} frames that decode", stacklevel=3
        )
    if num_frames != stated:
        again, frames, _ = _decode(path, wanted(num_frames), prepare)
        require(again == num_frames, lambda: f"{path} decodes differently each time: {_GET_ANOTHER}")
    return num_frames, frames


def _stated_frames(path: Path) -> int:
    """Number of frames that the file claims to hold: from its header, or else its number of packets."""
    with _open(path) as stream:
        return stream.frames or sum(packet is not None for packet in _packets(stream, Counter()))


def _decode(path: Path, wanted: set[int], prepare: Prepare) -> tuple[int, dict[int, Frame], list[str]]:
    """The number of frames that decode, the wanted ones of them, and a phrase for every kind of damage."""
    frames, num_frames, tally = {}, 0, Counter()
    first = last = float("nan")
    with _open(path) as stream:
        for frame in _decoded(stream, tally):
            last = float("nan") if frame.pts is None else float(frame.pts * stream.time_base)
            if num_frames == 0:
                first = last
            if num_frames in wanted:
                frames[num_frames] = Frame(prepare(_upright(frame)), last - first)
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
    require(path.stat().st_size > 0, lambda: f"{path} is empty (0 bytes): {_GET_ANOTHER}")
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
            lambda: f"{path} holds no video stream: give a whole video file, or a folder of frames",
        )
        codec = stream.codec_context
        require(codec is not None, lambda: f"{path} is in a coding that this FFmpeg has no decoder for: {_GET_ANOTHER}")
        require(
            codec.name not in _CHARACTER_ART, lambda: f"{path} is a text file: give a video file, or a folder of frames"
        )
        still = container.format.name == "image2" or container.format.name.endswith("_pipe")
        require(not still, lambda: f"{path} is a still image: give a video file, or a folder of frames")
        yield stream  # decoded without frame threads, which lose good frames before a damaged one

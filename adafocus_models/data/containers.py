"""Opening a video file, and no other: what a file's content names is never opened.

FFmpeg knows formats whose files name other files or addresses (playlists, scripts, sessions, patterns of names), and
knows them by content, whatever a file is called. Who reads videos of others must not follow them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NoReturn

import av

from adafocus_ops.checks import require

# Formats that hold all of their video, by FFmpeg's names. One that is not here is refused before it is looked into.
FORMATS = (
    *("mov", "matroska", "avi", "flv", "asf", "ogg", "nut", "mxf", "gxf", "rm", "wtv", "swf", "nsv", "nuv", "ivf"),
    *("mpeg", "mpegts", "mpegvideo", "m4v", "h261", "h263", "h264", "hevc", "vvc", "vc1", "vc1test", "av1", "obu"),
    *("mjpeg", "mjpeg_2000", "dirac", "cavsvideo", "avs2", "avs3", "evc", "apv", "dnxhd", "dv", "yuv4mpegpipe"),
    *("gif", "apng", "jpegxl_anim", "flic", "smk", "bink", "roq", "kux", "live_flv", "mlv", "cine", "lmlm4", "pva"),
    *("aac", "aiff", "flac", "mp3", "wav"),  # sound, of which can be said that it holds no picture
)

# Formats in which FFmpeg plays any text, as character art.
_TEXT = ("adf", "bin", "idf", "tty", "xbin")

GET_ANOTHER = "copy or download the file again, or convert it with `ffmpeg -i IN OUT.mp4`"
_GIVE = "give a video file, or a folder of frames"


@contextmanager
def open_video(path: Path) -> Iterator[av.VideoStream]:
    """The video stream of a file, or a ValueError that says why there is none."""
    require(path.is_file(), lambda: f"{path} is no regular file (a pipe, say): copy what it holds into a file")
    require(path.stat().st_size > 0, lambda: f"{path} is empty (0 bytes): {GET_ANOTHER}")
    with path.open("rb") as file, _open_container(path, file) as container:
        yield _video_stream(path, container)  # decoded without frame threads, which lose good frames before a bad one


def _open_container(path: Path, file: BinaryIO) -> av.container.InputContainer:
    """The container that a file's content is, if its format is one of FORMATS."""
    try:
        return _open_alone(file)
    except av.error.FFmpegError as error:
        name = _refused_format(file)
        require(name not in _TEXT, lambda: f"{path} is a text file: {_GIVE}")
        require(name != "webp_pipe", lambda: f"{path} is a WebP image: {_GIVE}; animations are read as GIF or APNG")
        require(not (name == "image2" or name.endswith("_pipe")), lambda: f"{path} is a still image: {_GIVE}")
        require(
            not name,
            lambda: (
                f"{path} is in the format {name!r}, which is none of those that hold a whole video and name no"
                f" other file: {_GIVE}"
            ),
        )
        raise ValueError(
            f"{path} cannot be read as a video ({error.strerror}): {GET_ANOTHER}; "
            "an MP4 that is cut off before its index cannot be read even in part"
        ) from error


def _open_alone(file: BinaryIO) -> av.container.InputContainer:
    """Opens the file, in one of FORMATS, so that nothing in it can make FFmpeg open anything else."""
    file.seek(0)
    only = {"format_whitelist": ",".join(FORMATS), "protocol_whitelist": ""}
    return av.open(file, container_options=only, io_open=_open_nothing, metadata_errors="replace")


def _open_nothing(url: str, flags: int, options: dict[str, str]) -> NoReturn:
    raise ValueError(f"the file refers to {url}, which is not opened: {_GIVE} that needs no other file")


def _refused_format(file: BinaryIO) -> str:
    """The name of the format that FFmpeg takes the file for, if it is none of FORMATS; only its log tells."""
    level = av.logging.get_level()
    av.logging.set_level(av.logging.ERROR)
    try:
        with av.logging.Capture():
            _open_alone(file).close()
    except av.error.FFmpegError as error:
        _, name, message = error.log or ("", "", "")
        return name if "whitelist" in message else ""
    finally:
        av.logging.set_level(level)
    return ""


def _video_stream(path: Path, container: av.container.InputContainer) -> av.VideoStream:
    """The stream that a player would show, which is no cover picture."""
    pictures = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    require(bool(pictures), lambda: f"{path} holds no video stream: give a whole video file, or a folder of frames")
    best = container.streams.best("video")
    stream = best if best in pictures else pictures[0]
    known = stream.codec_context is not None
    require(known, lambda: f"{path} is in a coding that this FFmpeg has no decoder for: {GET_ANOTHER}")
    return stream

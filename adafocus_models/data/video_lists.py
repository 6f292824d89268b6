"""Which videos: of a folder, a list file or standard input, with labels where they have them."""

import csv
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from adafocus_ops.checks import require

from .image_folders import IMAGE_SUFFIXES, natural_order

VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".flv", ".wmv", ".asf", ".ogv", ".mpg", ".mpeg", ".ts", ".m2ts"),
    *(".3gp", ".vob", ".mjpeg", ".mjpg", ".gif", ".apng", ".y4m", ".h264", ".h265", ".hevc", ".ivf"),
)
LIST_SUFFIXES = (".txt", ".csv", ".tsv", ".lst")
STANDARD_INPUT = "-"
# Share of the videos that may be unreadable; with more of them, what is found would not be of this list.
MOST_ERRORS = 0.01


class Video(NamedTuple):
    """A video that a list names, or the part of one: all frames at start <= position < end."""

    path: str  # as the list has it, or the folder found it: what tells it from others
    file: Path  # where it is
    label: str | None = None
    start: float | None = None  # seconds after the first frame of a file, or the number of a folder's frame, from 0
    end: float | None = None  # the same


def list_videos(source: str | Path, *, labels: bool = False) -> list[Video]:
    """The videos that a folder, a list file or standard input names, or the one that it is.

    A folder that holds images is one video; of any other one, all video files and folders of images in it, at any
    depth, in the natural order of their names.

    A list has a video a line: its path, relative to the list's folder (or, of standard input, to the working one), and
    with `labels` its label. Tabs part the columns, or in a .csv file commas; else the label is what follows the last
    space. Empty lines, and those that begin with #, are left out.

    With `labels` two more columns, start and end, may say which part of the video the line is about, and a path may
    be there several times with different parts. A frame is in the part if start <= its position < end: of a video
    file its seconds after the first frame, of a folder of images its number, from 0. Either may be left empty, for
    where the video starts or ends. So a line of TSM's lists, `path num_frames label`, becomes path, label, 0,
    num_frames, and one of mmaction2's, `path offset num_frames label`, path, label, offset, offset + num_frames.

    Args:
        source: a folder; a file of one of LIST_SUFFIXES; "-" for standard input; or a video file.
        labels: every video must have one.

    Raises:
        FileNotFoundError: there is no such file or folder.
        ValueError: it names no video, one (or one part) twice, one without a label, or a part that is none; the
            message says where.
    """
    require(str(source) != "", lambda: "path must name a video file or a folder of frames, got ''")
    path = Path(source)
    if str(source) == STANDARD_INPUT:
        found = list(_of_lines(sys.stdin, Path(), "standard input", labels))
    elif path.suffix.lower() in LIST_SUFFIXES and not path.is_dir():
        with path.open(newline="", encoding="utf-8", errors="surrogateescape") as lines:
            found = list(_of_lines(lines, path.parent, str(path), labels))
    else:
        require(path.exists(), lambda: f"{source} does not exist: check the path", FileNotFoundError)
        require(not labels, lambda: f"{source} has no labels: give a list file, of a path and a label a line")
        found = list(_of_folder(path)) if path.is_dir() else [Video(str(source), path)]
    require(bool(found), lambda: f"{source} names no videos")
    _check_each_once(source, found)
    return found


def _of_folder(folder: Path) -> Iterator[Video]:
    """The folder itself, if images lie in it; else what is in it."""
    inside = sorted((x for x in folder.iterdir() if not x.name.startswith(".")), key=natural_order)
    if any(x.suffix.lower() in IMAGE_SUFFIXES for x in inside):
        yield Video(str(folder), folder)
        return
    for x in inside:
        if x.is_dir():
            yield from _of_folder(x)
        elif x.suffix.lower() in VIDEO_SUFFIXES:
            yield Video(str(x), x)


def _of_lines(lines: Iterable[str], folder: Path, name: str, labels: bool) -> Iterator[Video]:
    for number, columns in enumerate(_columns(lines, name, labels), 1):
        if not columns or not columns[0].strip() or columns[0].startswith("#"):
            continue
        path, label, *part = (*(column.strip() for column in columns[:4]), "", "", "")[:4]
        where = f"{name}, line {number}: {path}"
        require(bool(label) or not labels, lambda where=where: f"{where} has no label: a path and a label a line")
        yield Video(path, folder / path, label or None, *(_part(where, *part) if labels else ()))


def _part(where: str, *columns: str) -> tuple[float | None, float | None]:
    """Start and end, of the two columns that say them."""
    try:
        start, end = (float(column) if column else None for column in columns)
    except ValueError:
        start, end = math.nan, math.nan
    first, behind = start or 0, math.inf if end is None else end
    require(
        0 <= first < behind and first < math.inf,
        lambda: (
            f"{where}: start and end must be numbers with 0 <= start < end, or empty, got {columns[0]!r} and"
            f" {columns[1]!r}"
        ),
    )
    return start, end


def _columns(lines: Iterable[str], name: str, labels: bool) -> Iterator[Sequence[str]]:
    if name.lower().endswith(".csv"):
        yield from csv.reader(lines)
        return
    for line in lines:
        line = line.rstrip("\r\n")
        if "\t" in line:
            yield line.split("\t")
        else:
            yield line.rstrip().rsplit(maxsplit=1) if labels else [line]


def _check_each_once(source: str | Path, videos: Sequence[Video]) -> None:
    seen: set[tuple] = set()
    for video in videos:
        part = (video.path, video.start or 0, video.end)
        require(part not in seen, lambda video=video: f"{source} names {video.path} twice")
        seen.add(part)

"""Frames of a video file, as far as it decodes."""

import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from av.sidedata.sidedata import SideDataContainer
from av.sidedata.sidedata import Type as SideData
from PIL import Image

from adafocus_ops.checks import require

from .containers import GET_ANOTHER, open_video
from .frames import Frame, Frames, Prepare, Times, Wanted

# How much earlier than stated a file may end before it is reported as cut off, for what its header has rounded:
# in frames where it states the picture's own length, in seconds where only that of the whole.
_MISSING_FRAMES = 1.5
_MISSING_SECONDS = 0.5

# PyAV converts in as many threads as there are cores, made anew for every frame; whoever reads many videos has threads
# or processes already. (Before 17 it had one thread, and no argument.)
_ONE_THREAD = {"threads": 1} if int(av.__version__.split(".")[0]) >= 17 else {}


def read_video(path: Path, wanted: Wanted, prepare: Prepare) -> Frames:
    """The wanted frames of a video file, however wrong its header is about their number and times."""
    guessed = wanted(_stated_times(path))
    times, frames, damage = _decode(path, guessed, prepare)
    found = f" ({', '.join(damage)})" if damage else ""
    require(len(times) > 0, lambda: f"{path} holds no frame that can be decoded{found}: {GET_ANOTHER}")
    if damage:
        warnings.warn(
            f"{path} is damaged or cut off{found}: sampling from the {len(times)} frames that decode", stacklevel=4
        )
    right = wanted(times)
    if right != guessed:
        again, frames, _ = _decode(path, right, prepare)
        require(len(again) == len(times), lambda: f"{path} decodes differently each time: {GET_ANOTHER}")
    return times, frames


def _stated_times(path: Path) -> Times:
    """Times of the frames that the file claims to hold, at its mean rate; their number is that of the header, or else
    of its packets."""
    with open_video(path) as stream:
        num_frames = stream.frames or sum(packet is not None for packet in _Pass(stream).packets())
        rate = stream.average_rate
        if not rate:
            return [float("nan")] * num_frames
        return [i * rate.denominator / rate.numerator for i in range(num_frames)]


def _decode(path: Path, wanted: set[int], prepare: Prepare) -> tuple[Times, dict[int, Frame], list[str]]:
    """The times of the frames that decode, the wanted ones of them, and a phrase for every kind of damage."""
    frames, times, first = {}, [], None
    with open_video(path) as stream:
        one_pass = _Pass(stream)
        for frame in one_pass.frames():
            if not times:
                first = frame.pts
            unknown = frame.pts is None or first is None
            # The difference is exact, and rounded then: 3.3 - 2.5 is less than the 0.8 that a list says.
            times.append(float("nan") if unknown else float((frame.pts - first) * stream.time_base))
            number = len(times) - 1
            if number in wanted:
                frames[number] = Frame(prepare(_upright(frame)), times[number])
        return times, frames, list(one_pass.damage())


class _Pass:
    """One pass through a file from its first packet to its last, and what was met on it."""

    def __init__(self, stream: av.VideoStream) -> None:
        self.stream = stream
        self.tally: Counter[str] = Counter()
        self.ends: dict[int, float] = {}  # stream -> seconds on the file's clock at which its last packet ends

    def frames(self) -> Iterator[av.VideoFrame]:
        """Every frame that decodes, in the order of display; what fails is skipped and counted."""
        for packet in self.packets():
            try:
                for frame in self.stream.decode(packet):
                    self.tally["damaged frames"] += frame.is_corrupt
                    yield frame
            except av.error.FFmpegError:
                self.tally["unreadable packets"] += 1

    def packets(self) -> Iterator[av.Packet | None]:
        """The stream's packets as far as they can be read, then None, which drains the decoder."""
        try:
            for packet in self.stream.container.demux():
                if packet.size:  # an empty one would drain the decoder too early
                    self._note_end(packet)
                    if packet.stream is self.stream:
                        self.tally["packets"] += 1
                        yield packet
        except av.error.FFmpegError:
            self.tally["unreadable packets"] += 1
        yield None

    def _note_end(self, packet: av.Packet) -> None:
        start = packet.dts if packet.pts is None else packet.pts
        if start is not None:
            end = float((start + (packet.duration or 0)) * packet.time_base)
            self.ends[packet.stream.index] = max(end, self.ends.get(packet.stream.index, end))

    def damage(self) -> Iterator[str]:
        """A phrase for every sign that the picture is not whole."""
        for kind in ("unreadable packets", "damaged frames"):
            if self.tally[kind]:
                yield f"{kind}: {self.tally[kind]}"
        stream, held = self.stream, self.tally["packets"]
        if stream.frames:
            # Fewer packets are no damage by themselves: AVI counts dropped frames, and edits leave some out.
            if held < stream.frames and self._missing_of_picture() > _MISSING_FRAMES / (stream.average_rate or 1):
                yield f"the file states {stream.frames} frames and holds {held}"
        elif self._missing_of_all() > _MISSING_SECONDS:
            yield f"the file states {self._duration():.1f} s and ends at {self._end_of_all():.1f} s"

    def _missing_of_picture(self) -> float:
        """Seconds that the picture ends before the header says, which tells its number of frames too."""
        stream = self.stream
        # What FFmpeg gives as the duration of an AVI is an estimate from the file's size.
        units = stream.frames if stream.container.format.name == "avi" else stream.duration or 0
        start = stream.start_time or 0
        return float((start + units) * stream.time_base) - self.ends.get(stream.index, 0.0)

    def _missing_of_all(self) -> float:
        """Seconds that all streams end before the header says, which may count sound or text that goes on."""
        return self._duration() - self._end_of_all()

    def _duration(self) -> float:
        """Seconds that the header states, most often counted from 0 for the whole file; 0 if it states none."""
        stream = self.stream
        return float((stream.duration or 0) * stream.time_base) or (stream.container.duration or 0) / av.time_base

    def _end_of_all(self) -> float:
        start = (self.stream.container.start_time or 0) / av.time_base
        return max(self.ends.values(), default=0.0) - min(start, 0.0)


def _upright(frame: av.VideoFrame) -> Image.Image:
    """The frame in RGB, turned and mirrored as the file asks of a player, to the nearest of the eight ways."""
    pixels = frame.to_ndarray(format="rgb24", **_ONE_THREAD)
    try:
        # By frame.side_data, which keeps what it returns, a frame would refer to itself: all of its memory would wait
        # for the garbage collector, which may run in a process that was forked, without the threads that it waits for.
        matrix = SideDataContainer(frame).get(SideData.DISPLAYMATRIX)
    except ValueError:  # beside side data that PyAV has no name for, it tells the turn alone
        return Image.fromarray(np.rot90(pixels, round(frame.rotation / 90)))
    if matrix is not None:
        a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()  # x' = a x + c y, y' = b x + d y
        if abs(a) + abs(d) < abs(b) + abs(c):
            pixels, a, d = pixels.swapaxes(0, 1), c, b
        pixels = pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
    return Image.fromarray(pixels)

"""Clips for a stream: taken from an iterator and decoded ahead, in order, by threads."""

import queue
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from os import PathLike
from typing import Any, NamedTuple

from torch import Tensor

from adafocus_ops.checks import describe, require

from ..networks import VideoModel

# How often a thread that waits for room looks whether the stream has ended.
LOOKS_EVERY = 0.1  # seconds


class Loaded(NamedTuple):
    """A clip that is there, or the reason why it is not."""

    id: Any
    frames: Tensor | None = None  # [N, 3, S, S]
    glance_frames: Tensor | None = None  # [T0, 3, S, S]; None if they are among the frames, or there is no glance
    error: Exception | None = None
    time: float = 0.0  # when it was there, of time.perf_counter

    @property
    def kind(self) -> tuple:
        """What clips of one batch have in common."""
        return self.frames.dtype, None if self.glance_frames is None else self.glance_frames.dtype


def read_clips(model: VideoModel, source: str | PathLike | bytes) -> tuple[Any, Any]:
    """The candidates and the glance (`Clip`s) of a video file, its content, or a folder of frames, as a model takes
    them; raises as `read_clip`."""
    from ..data import read_clip, short_side_for  # which need an extra

    if isinstance(source, bytes):
        with tempfile.NamedTemporaryFile(prefix="adafocus-") as file:
            file.write(source)
            file.flush()
            try:
                return read_clips(model, file.name)
            except ValueError as error:
                raise ValueError(str(error).replace(file.name, f"a video of {len(source)} bytes")) from None
    counts = model.num_candidate_frames, model.num_glance_frames
    return read_clip(source, *counts, frame_size=model.frame_size, short_side=short_side_for(model.frame_size))


class Source:
    """Reads ahead of a stream: one thread takes from the iterator, others decode.

    Args:
        videos: of paths, (id, path), (id, bytes of a file), or (id, clip); a clip is the frames [N, 3, S, S], or a
            pair of these and the glance frames [T0, 3, S, S], as tensors or `Clip`s.
        model: whose clips they must be.
        workers: threads that decode.
        ahead: clips that may be there, or be decoded, and nobody has taken; the iterator waits then.
        pin: puts clips into memory that a GPU can copy from.
    """

    def __init__(self, videos: Iterable, model: VideoModel, *, workers: int, ahead: int, pin: bool) -> None:
        require(
            not isinstance(videos, str | bytes | PathLike),
            lambda: f"videos must be an iterable of them, got {videos!r} alone: give [{videos!r}]",
            TypeError,
        )
        self._model, self._pin = model, pin
        self._ready: queue.Queue[Future | BaseException | None] = queue.Queue(maxsize=ahead)
        self._stopped = threading.Event()
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="adafocus-decode")
        self._reader = threading.Thread(target=self._read, args=(iter(videos),), name="adafocus-read", daemon=True)
        self._head: Future | None = None  # taken from the queue, and not done

    def start(self) -> None:
        self._reader.start()

    def get(self, timeout: float | None = None) -> Loaded | None:
        """The next clip, or its error; None at the end.

        Args:
            timeout: seconds; None waits for as long as it takes.

        Raises:
            TimeoutError: it is not there yet.
            Exception: the iterator raised it, after all that it had given before.
        """
        deadline = None if timeout is None else time.perf_counter() + timeout
        if self._head is None:
            try:
                self._head = self._ready.get(block=timeout != 0, timeout=timeout or None)
            except queue.Empty:
                raise TimeoutError from None
        if not isinstance(self._head, Future):
            end, self._head = self._head, None
            self._ready.put(None)  # whoever asks again hears the same
            if end is not None:
                raise end
            return None
        remaining = None if deadline is None else max(deadline - time.perf_counter(), 0)
        try:
            loaded = self._head.result(remaining)
        except futures.TimeoutError:  # not the built-in one before Python 3.11
            raise TimeoutError from None
        self._head = None
        return loaded

    def close(self) -> None:
        """Ends the threads, as soon as they have what they are at; what was read ahead is dropped."""
        self._stopped.set()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _read(self, videos: Iterator) -> None:
        end: BaseException | None = None
        try:
            for item in videos:
                if self._stopped.is_set():
                    break
                self._put(self._pool.submit(self._load, item))
        except Exception as error:
            end = error
        finally:
            if self._stopped.is_set() and hasattr(videos, "close"):  # a generator's own clean-up
                with suppress(Exception):
                    videos.close()
            self._put(end)

    def _put(self, what: Future | BaseException | None) -> None:
        while not self._stopped.is_set():
            with suppress(queue.Full):
                self._ready.put(what, timeout=LOOKS_EVERY)
                return

    def _load(self, item: Any) -> Loaded:
        """Of one item, whatever is wrong with it."""
        name = item[0] if isinstance(item, tuple) and len(item) == 2 else item
        try:
            frames, glance_frames = self._clip_of(item)
            glances = None if glance_frames is None else glance_frames[None]
            self._model.check_inputs(frames[None], glances)
        except Exception as error:
            return Loaded(name, error=error)
        if self._pin:
            frames = frames.pin_memory()
            glance_frames = None if glance_frames is None else glance_frames.pin_memory()
        return Loaded(name, frames, glance_frames, time=time.perf_counter())

    def _clip_of(self, item: Any) -> tuple[Tensor, Tensor | None]:
        if isinstance(item, str | PathLike):
            clip = read_clips(self._model, item)
        else:
            require(
                isinstance(item, tuple) and len(item) == 2,
                lambda: f"videos must give paths, or (id, path, bytes or clip), got {describe(item)}",
                TypeError,
            )
            clip = item[1]
            if isinstance(clip, str | PathLike | bytes):
                clip = read_clips(self._model, clip)
        pair = clip if isinstance(clip, tuple) and not hasattr(clip, "frames") else (clip, None)
        require(len(pair) == 2, lambda: f"a clip must be frames, or (frames, glance_frames), got {describe(clip)}")
        frames, glance_frames = (getattr(part, "frames", part) for part in pair)
        for part in (frames, glance_frames):
            require(
                part is None or isinstance(part, Tensor),
                lambda part=part: f"a clip must be of tensors, got {describe(part)}",
                TypeError,
            )
            require(
                part is None or part.device.type == "cpu",
                lambda part=part: f"a clip must be on the CPU, from where it is uploaded, got {part.device}",
            )
        no_glance = glance_frames is None or not self._model.has_glance
        return frames, None if no_glance else glance_frames

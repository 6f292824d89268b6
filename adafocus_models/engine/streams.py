"""Streams: any number of videos through an engine, which leave when they are sure, their places taken by others."""

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from adafocus_ops.checks import require

from ..exits import Gate
from ..networks import Output, VideoModel
from .refill import Refill
from .sources import Loaded, Source
from .stats import Tally
from .transfers import OnItsWay, Upload
from .waves import Answer, Wave, answers_of, on_its_way


class Result(NamedTuple):
    """What a stream gives for a video: an answer, or the error that kept it from one. Tensors are on the CPU."""

    id: Any  # as the stream was given it; of a path alone, that path
    logits: Tensor | None = None  # [C] of the exit at which it left
    exit: int | None = None
    frame_index: Tensor | None = None  # [n] int64 into the candidates: the frames that were looked at, 0 to K
    boxes: Tensor | None = None  # [n, 4] (cy, cx, h, w) in frame pixels: where, in each
    error: Exception | None = None
    exit_logits: Tensor | None = None  # [exit + 1, C] of every exit that it reached

    def top(self, count: int) -> list[tuple[int, float]]:
        """The likeliest classes, and how likely they are.

        Raises:
            Exception: the error of a video without an answer.
            ValueError: the logits are no numbers (NaN).
        """
        if self.error is not None:
            raise self.error
        probabilities = self.logits.float().softmax(0)
        require(not probabilities.isnan().any(), lambda: f"{self.id} gives no numbers (NaN): are the weights damaged?")
        ranked = probabilities.topk(min(count, len(probabilities)))
        return list(zip(ranked.indices.tolist(), ranked.values.tolist(), strict=True))


class _Clip(NamedTuple):
    """A clip on its way to its answer."""

    number: int  # in the order of the input
    loaded: Loaded


class Stream:
    """One run of an engine over videos. Iterating it does the work; `close` ends it at once.

    Args:
        source: of the clips.
        model: whose stages compute.
        refill: for what a gate sends on.
        run: the whole forward of a batch, for when there is no gate.
        gate: asked for the one of every new batch.
        upload: clips to a batch on the device.
        ordered, max_delay, ring: as of `Engine.stream`.
        tally: counts.
    """

    def __init__(
        self,
        source: Source,
        model: VideoModel,
        refill: Refill,
        run: Callable[[Tensor, Tensor | None], Output],
        gate: Callable[[], Gate | None],
        upload: Upload,
        *,
        ordered: bool,
        max_delay: float | None,
        ring: int,
        tally: Tally,
    ) -> None:
        self._source, self._model, self._refill, self._run, self._gate = source, model, refill, run, gate
        self._upload, self._ordered, self._max_delay, self._ring = upload, ordered, max_delay, ring
        self._tally = tally
        self._waiting: list[_Clip] = []  # for a batch to be full
        self._under_way: dict[int, float] = {}  # number of a clip -> when it was there
        self._ending: list[tuple[list[_Clip], OnItsWay]] = []  # whole batches without a gate
        self._done: dict[int, Result] = {}  # number -> result, that nobody has taken
        self._taken = 0  # clips, of the source
        self._next = 0  # number of the result that is due, if they are in order
        self._ended = False
        self._failure: Exception | None = None  # of the iterator

    def __iter__(self) -> Iterator[Result]:
        self._tally.begin()
        self._source.start()
        try:
            while True:
                yield from self._hand_out()
                if not self._step():
                    break
            yield from self._hand_out()
            if self._failure is not None:
                raise self._failure
        finally:
            self.close()

    def close(self) -> None:
        """Ends what is under way."""
        self._source.close()
        self._refill.stop()
        self._tally.end()

    # --- what is next ----------------------------------------------------------------------------------------------

    def _step(self) -> bool:
        """Does one piece of work; False if nothing is left to do. What keeps the device busy comes first."""
        if self._refill.work():
            return self._collect()
        if self._has_room():
            if not self._ended and self._read():
                return True
            if self._waiting and (self._ended or self._is_late(self._waiting[0].loaded.time)):
                return self._begin()
        return self._finish_something()

    def _has_room(self) -> bool:
        return len(self._refill.waves) + len(self._ending) < self._ring

    def _read(self) -> bool:
        """Takes a clip, and begins a batch that is full; False if none is there and something else is more urgent."""
        started = time.perf_counter()
        try:
            loaded = self._source.get(self._patience())
        except TimeoutError:
            return False
        except Exception as error:
            loaded, self._failure = None, error
        finally:
            self._tally.waited += time.perf_counter() - started
        if loaded is None:
            self._ended = True
            return True
        clip = _Clip(self._taken, loaded)
        self._taken += 1
        if loaded.error is not None:
            self._tally.errors += 1
            self._done[clip.number] = Result(loaded.id, error=loaded.error)
            return True
        if self._waiting and self._waiting[0].loaded.kind != loaded.kind:
            self._begin()  # bytes and floats are read differently
        self._under_way[clip.number] = loaded.time
        self._waiting.append(clip)
        if len(self._waiting) == self._refill.batch_size:
            self._begin()
        return True

    def _patience(self) -> float | None:
        """How many seconds to wait for the next clip: forever if nothing else is to be done."""
        if self._refill.awaits_decisions or self._ending:
            return 0.0
        if self._max_delay is None or not self._under_way:
            return None
        return max(next(iter(self._under_way.values())) + self._max_delay - time.perf_counter(), 0.0)

    def _is_late(self, since: float) -> bool:
        return self._max_delay is not None and time.perf_counter() - since >= self._max_delay

    def _begin(self) -> bool:
        """Sends the clips that wait, as one batch, on their way."""
        clips, self._waiting = self._waiting, []
        with torch.inference_mode():
            frames = self._upload([clip.loaded.frames for clip in clips])
            glances = [clip.loaded.glance_frames for clip in clips]
            glance_frames = None if glances[0] is None else self._upload(glances)
        clips = [_Clip(clip.number, Loaded(clip.loaded.id, time=clip.loaded.time)) for clip in clips]  # without frames
        gate = self._gate()
        if gate is None:
            self._ending.append((clips, on_its_way(self._run(frames, glance_frames))))
        else:
            self._refill.begin(Wave(self._model, frames, glance_frames, gate, tag=clips))
        return self._collect()

    def _finish_something(self) -> bool:
        """Waits for a decision or runs a batch that is not full; False if all is done."""
        if self._ending:
            self._end_first()
            return True
        return self._refill.work(flush=True) and self._collect()

    # --- what is done ----------------------------------------------------------------------------------------------

    def _collect(self) -> bool:
        """Takes all answers that are there."""
        while self._ending and self._ending[0][1].has_arrived():
            self._end_first()
        answers = self._refill.answers
        while answers:
            self._take(answers.popleft())
        if self._refill.focus_batches:
            full = self._refill.focus_batches * self._refill.batch_size
            self._tally.fill = self._refill.focus_videos / full
        return True

    def _end_first(self) -> None:
        clips, told = self._ending.pop(0)
        for answer in answers_of(*told.wait(), range(len(clips)), clips):
            self._take(answer)

    def _take(self, answer: Answer) -> None:
        number, loaded = answer.tag[answer.position]
        exit_number = answer.exit_logits.shape[0] - 1
        self._tally.add(exit_number, time.perf_counter() - self._under_way.pop(number))
        # Memory of its own holds on to no batch, and is outside of inference mode.
        logits, frame_index, boxes = (x.clone() for x in (answer.exit_logits, answer.frame_index, answer.boxes))
        self._done[number] = Result(loaded.id, logits[-1], exit_number, frame_index, boxes, exit_logits=logits)

    def _hand_out(self) -> Iterator[Result]:
        """Results that are due."""
        if not self._ordered:
            while self._done:
                yield self._done.pop(next(iter(self._done)))
        while self._next in self._done:
            self._next += 1
            yield self._done.pop(self._next - 1)

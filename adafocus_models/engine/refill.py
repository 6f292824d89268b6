"""Encoders that run full batches: of what the forwards of several batches of videos ask for at the same time."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from adafocus_ops import ExitGate

from ..exits import Thresholds, decide
from .transfers import OnItsWay
from .waves import ENCODER_STAGES, GATE, Answer, Question, Wave, answers_of, on_its_way

# A stage of an encoder: what it takes [videos * n, ...], and of how many videos, to what it gives, in order of them.
Stage = Callable[[Tensor, int], Any]


@dataclass
class _Part:
    """What a wave asked of an encoder, which may be answered in pieces."""

    wave: Wave
    x: Tensor  # [videos * n, ...]
    videos: int
    taken: int = 0
    pieces: list[tuple[Tensor, ...]] = field(default_factory=list)


class _Undecided(NamedTuple):
    """A gate's decision on its way to the host."""

    wave: Wave
    decision: ExitGate  # keep and leave with room for all rows
    told: OnItsWay  # exited [B'], logits [B', C]


class Refill:
    """Waves under way. Each piece of work is one batch of an encoder, full where there is enough to do.

    Args:
        stages: name -> what computes it, of ENCODER_STAGES.
        batch_size: the most videos whose frames or patches an encoder sees at a time.

    Attributes:
        answers: of videos that have left, to be taken out by whoever reads them.
        focus_batches, focus_videos: how often the focus encoder ran, and of how many videos in all.
    """

    def __init__(self, stages: dict[str, Stage], batch_size: int) -> None:
        self.batch_size = batch_size
        self.answers: deque[Answer] = deque()
        self.focus_batches = self.focus_videos = 0
        self.waves: list[Wave] = []
        self._stages = stages
        self._queues: dict[str, deque[_Part]] = {stage: deque() for stage in ENCODER_STAGES}
        self._undecided: deque[_Undecided] = deque()
        self._ending: deque[tuple[Wave, OnItsWay]] = deque()

    @torch.inference_mode()
    def begin(self, wave: Wave) -> None:
        """Sends a wave on its way."""
        self.waves.append(wave)
        self._go_on(wave, None)

    @torch.inference_mode()
    def work(self, *, flush: bool = False) -> bool:
        """Does a piece of work: what has been decided, or a full batch; False if there is neither.

        Args:
            flush: else waits for the oldest decision, or runs a batch that is not full. False if nothing is left.
        """
        if self._take(wait=False):
            return True
        for stage in ENCODER_STAGES:
            if self._waiting(stage) >= self.batch_size:
                self._run(stage)
                return True
        if not flush:
            return False
        if self._take(wait=True):
            return True
        for stage in ENCODER_STAGES:
            if self._queues[stage]:
                self._run(stage)
                return True
        return False

    @property
    def awaits_decisions(self) -> bool:
        """Tells that something is on its way to the host."""
        return bool(self._undecided or self._ending)

    def stop(self) -> None:
        """Ends all that is under way."""
        for wave in self.waves:
            wave.stop()
        self.waves.clear()

    # --- waves -----------------------------------------------------------------------------------------------------

    def _go_on(self, wave: Wave, answer: Any) -> None:
        question = wave.resume(answer)
        if question is None:
            self._end(wave)
        elif question.stage == GATE:
            self._ask_gate(wave, question)
        else:
            self._queues[question.stage].append(_Part(wave, question.x, len(wave.inside)))

    def _end(self, wave: Wave) -> None:
        if wave.inside:
            self._ending.append((wave, on_its_way(wave.output)))
        else:
            self.waves.remove(wave)

    def _ask_gate(self, wave: Wave, question: Question) -> None:
        gate, logits, exit_number = wave.decider, question.x, question.exit_number
        if isinstance(gate, Thresholds):
            decision = gate.gate(logits, exit_number, exact=False)
        else:  # of exact sizes, and it need not say more than the rows
            decision = decide(gate, logits, exit_number)
            exited = torch.zeros(logits.shape[0], dtype=torch.bool, device=logits.device)
            decision = decision._replace(exited=exited.index_fill(0, decision.leave, True))
        self._undecided.append(_Undecided(wave, decision, OnItsWay(decision.exited, logits)))

    def _take(self, *, wait: bool) -> bool:
        """Goes on with what has been decided first, or hands out what has ended; False if nothing has arrived."""
        if self._ending and (wait or self._ending[0][1].has_arrived()):
            wave, told = self._ending.popleft()
            self.answers += answers_of(*told.wait(), wave.inside, wave.tag)
            self.waves.remove(wave)
            return True
        if self._undecided and (wait or self._undecided[0].told.has_arrived()):
            wave, decision, told = self._undecided.popleft()
            exited, logits = told.wait()
            self.answers += wave.let_go(exited, logits)
            staying = len(wave.inside)
            exact = decision._replace(keep=decision.keep[:staying], leave=decision.leave[: exited.shape[0] - staying])
            self._go_on(wave, exact)
            return True
        return False

    # --- encoders --------------------------------------------------------------------------------------------------

    def _waiting(self, stage: str) -> int:
        return sum(part.videos - part.taken for part in self._queues[stage])

    def _run(self, stage: str) -> None:
        """Runs an encoder on the oldest work of at most batch_size videos, and goes on with waves that have it all."""
        taken = self._next_batch(self._queues[stage])
        videos = sum(end - begin for _, begin, end in taken)
        x = _joined([_rows(part.x, part.videos, begin, end) for part, begin, end in taken])
        if stage == "focus":
            self.focus_batches, self.focus_videos = self.focus_batches + 1, self.focus_videos + videos
        result = self._stages[stage](x, videos)
        several = isinstance(result, tuple)
        results = result if several else (result,)
        at = 0
        for part, begin, end in taken:
            part.pieces.append(tuple(_rows(y, videos, at, at + end - begin) for y in results))
            at += end - begin
        for part in [part for part, _, end in taken if end == part.videos]:
            whole = tuple(_joined(pieces) for pieces in zip(*part.pieces, strict=True))
            self._go_on(part.wave, whole if several else whole[0])

    def _next_batch(self, queue: deque[_Part]) -> list[tuple[_Part, int, int]]:
        """(part, begin, end): of which parts, the videos from begin on to end."""
        taken, room = [], self.batch_size
        while queue and room:
            part = queue[0]
            begin, part.taken = part.taken, min(part.taken + room, part.videos)
            room -= part.taken - begin
            taken.append((part, begin, part.taken))
            if part.taken == part.videos:
                queue.popleft()
        return taken


def _rows(x: Tensor, videos: int, begin: int, end: int) -> Tensor:
    """What x [videos * n, ...] has of the videos from begin on to end."""
    each = x.shape[0] // videos
    return x[begin * each : end * each]


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))

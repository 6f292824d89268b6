"""Forwards that pause: where one asks for an encoder or a decision, the work of others goes on."""

import contextvars
import copy
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from adafocus_ops import ExitGate
from adafocus_ops.checks import require

from ..exits import Gate
from ..networks import Decision, Output, VideoModel
from .transfers import OnItsWay

try:
    import greenlet
except ImportError:  # only what leaves early needs it
    greenlet = None

ENCODER_STAGES = ("focus", "glance")  # whose work several waves may share; the later one first
GATE = "gate"


class Question(NamedTuple):
    """What a paused forward waits for."""

    stage: str  # of ENCODER_STAGES, or GATE
    x: Tensor  # [videos * n, ...] what the stage takes of the videos inside; or their logits [videos, C]
    exit_number: int = -1  # of a gate


class Answer(NamedTuple):
    """Of one video, on the host, when it leaves."""

    tag: Any  # of its wave
    position: int  # in its batch
    exit_logits: Tensor  # [exit + 1, C] of every exit that it reached
    frame_index: Tensor  # [n] the frames that were looked at
    boxes: Tensor  # [n, 4] where, in each


class Wave:
    """A batch of videos on its way through the model's own forward, which pauses at encoders and gates.

    The forward runs in a coroutine (a greenlet), with the same arguments and code as always: only what it calls for
    the stages of encoders and for decisions hands over to whoever resumes it. So every network streams, and nothing
    in it knows of that.

    Args:
        model: its stages do the work; it is not changed.
        frames, glance_frames: as its forward takes them, of one batch.
        decider: what is asked at its exits.
        tag: comes back with every answer.

    Attributes:
        inside: places in the batch of the videos that no gate has let go.
        output: of the forward, once it has ended.
    """

    def __init__(
        self, model: VideoModel, frames: Tensor, glance_frames: Tensor | None, decider: Gate, tag: Any = None
    ) -> None:
        require(
            greenlet is not None,
            lambda: 'leaving early needs the package greenlet: pip install "adafocus[models]"',
            ImportError,
        )
        self.decider, self.tag = decider, tag
        self.inside = list(range(frames.shape[0]))
        self.output: Output | None = None
        self._answered: list[tuple[Tensor, dict[int, int]]] = []  # logits [B', C] of each exit; place -> row
        self._seen = 0  # frames that the videos inside have been looked at in
        self._looked: list[tuple[OnItsWay, dict[int, int]]] = []  # frame_index and boxes; place in the batch -> row
        view = copy.copy(model)
        view.read = partial(type(model).read, model)  # into memory of its own, that stays while it waits
        view.policy = partial(self._decide_where, model)
        for stage in ENCODER_STAGES:
            setattr(view, stage, partial(self._ask, stage))
        self._forward = greenlet.greenlet(partial(view.forward, frames, glance_frames, gate=self))
        self._forward.gr_context = contextvars.copy_context()

    def resume(self, answer: Any = None) -> Question | None:
        """Goes on with the answer to the last question, to the next one; None at the end."""
        result = self._forward.switch(*([] if answer is None else [answer]))
        if not self._forward.dead:
            return result
        self.output = result
        return None

    def stop(self) -> None:
        """Ends the forward where it is."""
        if not self._forward.dead:
            self._forward.throw()

    def let_go(self, exited: Tensor, logits: Tensor) -> list[Answer]:
        """The answers of the videos that leave: of those inside, the ones with exited [B'], at logits [B', C]."""
        self._answered.append((logits, self._rows()))
        leaves = exited.tolist()
        answers = [self._answer(position) for position, left in zip(self.inside, leaves, strict=True) if left]
        self.inside = [position for position, left in zip(self.inside, leaves, strict=True) if not left]
        return answers

    # --- called by the forward, in the coroutine -------------------------------------------------------------------

    def gate(self, logits: Tensor, exit_number: int) -> ExitGate:
        """The decision of exact sizes, as of `Thresholds`."""
        return greenlet.getcurrent().parent.switch(Question(GATE, logits, exit_number))

    def _ask(self, stage: str, x: Tensor) -> Any:
        if stage == "focus":
            self._seen += self._frames_each(x)
        return greenlet.getcurrent().parent.switch(Question(stage, x))

    def _frames_each(self, x: Tensor) -> int:
        return x.shape[0] // len(self.inside)

    def _decide_where(self, model: VideoModel, *args: Any) -> Decision:
        decision = model.policy(*args)
        self._looked.append((OnItsWay(decision.frame_index, decision.boxes), self._rows()))
        return decision

    def _rows(self) -> dict[int, int]:
        """Place in the batch -> row among the videos inside."""
        return {position: row for row, position in enumerate(self.inside)}

    # --- on the host -----------------------------------------------------------------------------------------------

    def _answer(self, position: int) -> Answer:
        """Of a video that leaves at the last exit that has answered."""
        exit_logits = torch.stack([logits[rows[position]] for logits, rows in self._answered])
        frame_index, boxes = torch.empty(0, dtype=torch.int64), torch.empty(0, 4)
        if self._seen:
            parts = [(on_its_way.wait(), rows[position]) for on_its_way, rows in self._looked]
            frame_index = torch.cat([index[row] for (index, _), row in parts])[: self._seen]
            boxes = torch.cat([_each(boxes[row], index.shape[1]) for (index, boxes), row in parts])[: self._seen]
        return Answer(self.tag, position, exit_logits, frame_index, boxes)


def on_its_way(output: Output) -> OnItsWay:
    """What `answers_of` needs of an output."""
    return OnItsWay(output.exit_logits, output.frame_index, output.boxes)


def answers_of(
    exit_logits: Tensor, frame_index: Tensor, boxes: Tensor, positions: Sequence[int], tag: Any
) -> list[Answer]:
    """The answers at the last exit of the videos at these places of a batch, from its output on the host."""
    answers = []
    for position in positions:
        index = frame_index[position]  # [K]
        looked = index >= 0
        each = _each(boxes[position], len(index))[looked]
        answers.append(Answer(tag, position, exit_logits[position], index[looked], each))
    return answers


def _each(boxes: Tensor, frames: int) -> Tensor:
    """[n, 4]: of a box [4] for all n frames, or one for each."""
    return boxes.expand(frames, 4)

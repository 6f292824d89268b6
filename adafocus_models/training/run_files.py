"""Files of a run: what it goes on from, the best weights, and its log."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from adafocus_ops.checks import require

from ..exits.whole_files import written_whole
from ..networks import VideoModel
from ..networks.checkpoint_files import read_file

FORMAT, VERSION = "adafocus training run", 1


class RunFiles:
    """A folder with last.pt (all that a run goes on from), best.safetensors (weights, as `load_checkpoint` takes them)
    and log.jsonl; each written whole or not at all."""

    def __init__(self, folder: str | os.PathLike) -> None:
        self.folder = Path(folder)
        self.last, self.best, self.log = (self.folder / name for name in ("last.pt", "best.safetensors", "log.jsonl"))

    def begin(self, resume: bool, *, alone: bool = True) -> dict[str, Any] | None:
        """What an earlier run left, to go on from; None to begin.

        Args:
            resume: a run may be there.
            alone: this is the process that writes, which takes out of the log what will be done again.

        Raises:
            FileExistsError: there is a run, and resume is False.
            ValueError: last.pt is damaged, or none of ours.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self.last.exists():
            return None
        require(resume, lambda: f"{self.folder} holds a run: give --resume, or another --out", FileExistsError)
        state = read_file(str(self.last))
        ours = isinstance(state, dict) and (state.get("format"), state.get("version")) == (FORMAT, VERSION)
        require(ours, lambda: f"{self.last} is no run of this version")
        if alone:
            self._forget_after(state["step"])
        return state

    def save(self, state: Mapping[str, Any]) -> None:
        """Replaces what the run goes on from."""
        with written_whole(self.last) as unfinished:
            torch.save({"format": FORMAT, "version": VERSION, **state}, unfinished)

    def save_best(self, model: VideoModel) -> None:
        with written_whole(self.best) as unfinished:
            model.save_checkpoint(unfinished)

    def write(self, line: Mapping[str, Any]) -> None:
        """Adds a line to the log."""
        with self.log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def _forget_after(self, step: int) -> None:
        """Takes out of the log what will be done again, and a line that was cut off."""
        if not self.log.exists():
            return
        lines = self.log.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
        with written_whole(self.log) as unfinished:
            unfinished.write_text("".join(kept), encoding="utf-8")


class TensorBoard:
    """The same numbers as the log's, for TensorBoard where it is installed."""

    def __init__(self, folder: Path, step: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            self._writer = None
        else:
            self._writer = SummaryWriter(str(folder), purge_step=step)

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        if self._writer is not None:
            for name, number in numbers.items():
                self._writer.add_scalar(name, number, step)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()

"""Logits of every exit on labelled videos, in a file: what thresholds are solved on, and methods compared."""

import os
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from adafocus_ops.checks import describe, require

from .scores import exit_score
from .whole_files import written_whole

FILE_FORMAT = "adafocus exit logits"


class StoredLogits(NamedTuple):
    """Of V videos at E exits of a model."""

    exit_logits: Tensor  # [V, E, C] floating point
    labels: Tensor  # [V] int64, one class a video
    costs: Tensor  # [E] float64, multiply-adds of a video that leaves at each exit

    def save(self, path: str | os.PathLike) -> None:
        """Writes a .safetensors file, whole or not at all."""
        from safetensors.torch import save_file

        with written_whole(path) as unfinished:
            tensors = {name: value.contiguous() for name, value in self._asdict().items()}
            save_file(tensors, unfinished, metadata={"format": FILE_FORMAT})

    @classmethod
    def load(cls, path: str | os.PathLike) -> "StoredLogits":
        """Reads what `save` wrote, or another program with tensors of these names.

        Raises:
            OSError: the file cannot be opened.
            ValueError: it holds something else; the message says what.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        require(Path(path).is_file(), lambda: f"{path} is no file", FileNotFoundError)
        try:
            tensors = load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path} must be a .safetensors file of logits, but it cannot be read: {error}") from error
        missing = [name for name in cls._fields if name not in tensors]
        require(not missing, lambda: f"{path} must hold {', '.join(cls._fields)}, but has no {', '.join(missing)}")
        stored = cls(*(tensors[name] for name in cls._fields))
        logits, labels, costs = stored
        require(
            logits.ndim == 3 and logits.is_floating_point() and logits.shape[0] >= 1,
            lambda: (
                f"{path}: exit_logits must be [V, E, C] floating point of at least one video, got {describe(logits)}"
            ),
        )
        require(
            labels.shape == logits.shape[:1] and labels.dtype == torch.int64,
            lambda: f"{path}: labels must be [V] int64 with V={logits.shape[0]} (exit_logits), got {describe(labels)}",
        )
        require(
            bool(((labels >= 0) & (labels < logits.shape[2])).all()),
            lambda: f"{path}: labels must be in [0, {logits.shape[2]}) (exit_logits)",
        )
        require(
            costs.shape == logits.shape[1:2],
            lambda: f"{path}: costs must be [E] with E={logits.shape[1]} (exit_logits), got {describe(costs)}",
        )
        return stored

    def scores(self, criterion: str) -> Tensor:
        """[E, V], larger is surer."""
        return exit_score(self.exit_logits.transpose(0, 1), criterion)

    @property
    def correct(self) -> Tensor:
        """[E, V] bool: the answer at this exit is right."""
        return self.exit_logits.argmax(2).transpose(0, 1) == self.labels

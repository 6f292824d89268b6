"""Choices of an engine: who computes what, with the times that they were made by, and their file."""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from adafocus_ops.checks import require

from ..exits.json_files import read_json, write_json

FILE_FORMAT = "adafocus engine choices"
FILE_VERSION = 1
PLAIN = "plain"  # the form that the folded model itself has
LAYERS = "layers"  # of a module: every layer in the form that was chosen for it


@dataclass(frozen=True)
class Choice:
    """What was chosen for a layer or a module, and why."""

    form: str  # PLAIN, LAYERS, or "runtime" or "runtime: form"
    ms: Mapping[str, float] = field(default_factory=dict)  # form -> milliseconds, of those that are right
    left_out: Mapping[str, str] = field(default_factory=dict)  # form -> the reason why it was not timed
    signature: str = ""  # the work that was timed
    multiply_adds: int = 0
    bytes: int = 0  # of inputs, weights and results, each once
    layers: Mapping[str, "Choice"] = field(default_factory=dict)  # of a module: layer -> its choice


@dataclass(frozen=True)
class Choices:
    """Choices for every tuned module of a model, and what they were made for."""

    made_for: Mapping[str, Any]  # device, versions, dtype, threads and shapes: whatever makes other choices right
    modules: Mapping[str, Choice]

    def check(self, made_for: Mapping[str, Any], path: object = "choices") -> None:
        """Raises ValueError, naming each fact that differs, unless they were made for this."""
        names = [name for name in {**self.made_for, **made_for} if self.made_for.get(name) != made_for.get(name)]
        changed = "; ".join(f"{name} is {made_for.get(name)!r}, was {self.made_for.get(name)!r}" for name in names)
        require(not names, lambda: f"{path} must be made for this engine, but {changed}: measure again (choices=None)")

    def save(self, path: str | os.PathLike) -> None:
        """Writes a JSON file, whole or not at all."""
        write_json(path, FILE_FORMAT, FILE_VERSION, asdict(self))

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Choices":
        """Reads what `save` wrote.

        Raises:
            OSError: the file cannot be opened.
            ValueError: it holds something else; the message says what.
        """
        content = read_json(path, FILE_FORMAT, FILE_VERSION, "choices")
        try:
            return cls(dict(content["made_for"]), {name: _choice(each) for name, each in content["modules"].items()})
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} must hold made_for and modules as they were saved: {error!r}") from error


def _choice(content: Mapping[str, Any]) -> Choice:
    return Choice(**{**content, "layers": {name: _choice(each) for name, each in content["layers"].items()}})

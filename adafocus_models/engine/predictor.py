"""The engine as a stage of another system's: batches of rows in, rows with answers out."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from adafocus_ops.checks import describe, require

from ..networks import VideoModel
from .engine import Engine
from .streams import Result

SOURCES = ("bytes", "path")  # columns that a video may come from, the first that is there
ANSWERS = ("class", "probability", "top_classes", "top_probabilities", "exit", "frame_index", "boxes", "error")


class VideoPredictor:
    """Loads a model once, and then maps batches of rows to rows with answers.

    That is what Ray Data's `map_batches` takes as a class, and, as an instance, `map(batched=True)` of Hugging Face's
    datasets and an iterator of pandas batches of Spark:

        ray.data.from_items(rows).map_batches(VideoPredictor, fn_constructor_kwargs={"model": make}, batch_size=32, ...)
        dataset.map(VideoPredictor(make), batched=True, remove_columns=["bytes"])

    A batch is a mapping of columns (lists or numpy arrays), a pandas DataFrame, or a list of rows, and comes back as
    the same. Of each row `bytes` (a video file's content), or else `path` (a file or a folder of frames), is read; the
    other columns stay, `bytes` does not, and these are added: class and probability of the likeliest class;
    top_classes and top_probabilities of the likeliest ones; exit; frame_index, the candidates that were looked at, and
    boxes (cy, cx, h, w) in each; and error, None for a video that has an answer; one that has none has -1, NaN and
    empty lists, and does not keep the others from theirs.

    Args:
        model: a model in evaluation mode; or a function that makes one, which is what is sent to another process.
        top: how many of the likeliest classes.
        workers: threads that decode; None for one a processor core.
        options: of `Engine`: batch_size (default 8), device, dtype, thresholds, choices, ...

    Raises:
        TypeError, ValueError: an argument that does not fit, or a batch without a column to read.
    """

    def __init__(
        self,
        model: VideoModel | Callable[[], VideoModel],
        *,
        top: int = 5,
        workers: int | None = None,
        **options: Any,
    ) -> None:
        made = model if isinstance(model, VideoModel) else model()
        self.engine = Engine(made, **({"batch_size": 8} | options))
        self.top, self.workers = top, workers

    def __call__(self, batch: Any) -> Any:
        if isinstance(batch, Mapping):
            return self._columns(batch)
        if hasattr(batch, "to_dict"):  # a DataFrame, of a package that need not be installed
            return type(batch)(self._columns(batch.to_dict("list")))
        is_rows = isinstance(batch, Sequence) and all(isinstance(row, Mapping) for row in batch)
        require(
            is_rows,
            lambda: f"batch must be columns, a DataFrame or a list of rows, got {describe(batch)}",
            TypeError,
        )
        if not batch:
            return []
        columns = self._columns({name: [row.get(name) for row in batch] for name in batch[0]})
        return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]

    def _columns(self, batch: Mapping[str, Sequence]) -> dict[str, Any]:
        source = next((name for name in SOURCES if name in batch), None)
        require(
            source is not None,
            lambda: f"batch must have a column 'path' or 'bytes', got {', '.join(map(repr, batch)) or 'none'}",
        )
        videos = enumerate(_plain(value) for value in batch[source])
        rows = [self._row(result) for result in self.engine.stream(videos, workers=self.workers)]
        kept = {name: column for name, column in batch.items() if name != "bytes"}
        # Ray Data takes rows of any length apart; a column of lists is then a list.
        return kept | {name: [row[name] for row in rows] for name in ANSWERS}

    def _row(self, result: Result) -> dict[str, Any]:
        try:
            top = result.top(self.top)
        except Exception as error:  # whatever a clip has raised is said of it
            nothing: dict[str, Any] = {"class": -1, "probability": float("nan"), "exit": -1, "error": str(error)}
            return {name: nothing.get(name, []) for name in ANSWERS}
        classes, probabilities = ([each[i] for each in top] for i in (0, 1))
        return {
            "class": classes[0],
            "probability": probabilities[0],
            "top_classes": classes,
            "top_probabilities": probabilities,
            "exit": result.exit,
            "frame_index": result.frame_index.tolist(),
            "boxes": result.boxes.tolist(),
            "error": None,
        }


def _plain(value: Any) -> Any:
    """A path or bytes, of what columns hold them as."""
    if isinstance(value, np.generic):
        value = value.item()
    return value if isinstance(value, str | bytes | os.PathLike) else bytes(value) if _is_buffer(value) else value


def _is_buffer(value: Any) -> bool:
    return isinstance(value, bytearray | memoryview)

"""Labelled videos through an engine: what the commands that know the right answers have in common."""

import argparse
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from adafocus_ops.checks import require

from . import bulk
from .chosen_model import add_engine_arguments, add_model_arguments, make_model
from .data import MOST_ERRORS, Video, list_videos
from .engine import Engine, Result
from .exits import StoredLogits, Thresholds


def make_parser(command: str, description: str) -> argparse.ArgumentParser:
    """Of a command, with the arguments that say which videos, and what computes."""
    formatter = argparse.RawDescriptionHelpFormatter
    prog = f"python -m adafocus_models.{command}"
    parser = argparse.ArgumentParser(prog=prog, description=description, formatter_class=formatter)
    add = parser.add_argument
    add(
        "videos",
        metavar="LIST",
        nargs="?",
        help="labelled videos, a path and a label a line: .txt, .tsv (with tabs), .csv, or - for standard input; a "
        "label is the number of a class, or with --labels its name",
    )
    add(
        "--logits",
        type=Path,
        metavar="FILE",
        help="the logits of all exits that --save-logits wrote, in place of videos",
    )
    add("--save-logits", type=Path, metavar="FILE", help="write the logits of all exits, and the labels (.safetensors)")
    add_model_arguments(parser)
    add_engine_arguments(parser)
    return parser


def check_arguments(options: argparse.Namespace) -> None:
    require((options.videos is None) != (options.logits is None), lambda: "give a LIST of videos, or --logits FILE")


def stored_logits(options: argparse.Namespace) -> StoredLogits:
    """Of the file that was given, or of the videos, which all go to the last exit."""
    if options.logits:
        return StoredLogits.load(options.logits)
    engine, results = run(options, None)
    exit_logits, labels = zip(*((result.exit_logits, label) for result, label in results), strict=True)
    costs = torch.tensor(engine.exit_costs, dtype=torch.float64)
    stored = StoredLogits(torch.stack(exit_logits), torch.tensor(labels), costs)
    if options.save_logits:
        stored.save(options.save_logits)
    return stored


def run(options: argparse.Namespace, thresholds: Thresholds | None) -> tuple[Engine, list[tuple[Result, int]]]:
    """The results of all labelled videos, with their classes; those that cannot be read are told, and left out."""
    videos = list_videos(options.videos, labels=True)
    for video in videos:
        require(
            video.start is None and video.end is None,
            lambda video=video: f"{video.path}: a part of a video (start, end) is for training; here it is read whole",
        )
    model, names = make_model(options)
    classes = classes_of(videos, names, model.num_classes)
    engine = bulk.make_engine(model, thresholds, options.batch_size, options.choices)
    results = list(_results(engine, videos, classes, options.workers))
    require(bool(results), lambda: "none of the videos could be read")
    return engine, results


def _results(
    engine: Engine, videos: Sequence[Video], classes: Sequence[int], workers: int | None
) -> Iterator[tuple[Result, int]]:
    errors = 0
    numbered = ((number, video.file) for number, video in enumerate(videos))
    stream = engine.stream(numbered, ordered=False, workers=workers)
    for result in bulk.shown(engine, stream, len(videos)):
        if result.error is None:
            yield result, classes[result.id]
            continue
        errors += 1
        warnings.warn(f"left out: {result.error}", stacklevel=2)
        require(
            errors <= max(MOST_ERRORS * len(videos), 1),
            lambda: f"more than {MOST_ERRORS:.0%} of the videos cannot be read: the figures would not be theirs",
        )


def classes_of(videos: Sequence[Video], names: Sequence[str] | None, num_classes: int) -> list[int]:
    """The class of every video: its label is a name, where there are names, else a number.

    Raises:
        ValueError: a label that is none; the message says whose.
    """
    numbers = {str(number): number for number in range(num_classes)}
    known = {name: number for number, name in enumerate(names)} if names else {}
    classes = []
    for video in videos:
        found = known.get(video.label, numbers.get(video.label))
        require(
            found is not None,
            lambda video=video: (
                f"{video.path}: the label {video.label!r} is no class: it must be 0 to {num_classes - 1}"
                + (", or a name of --labels" if names else " (--labels gives names to classes)")
            ),
        )
        classes.append(found)
    return classes

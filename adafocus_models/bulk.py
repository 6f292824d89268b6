"""Answers to many videos in one file: as fast as the engine goes, and from where an earlier run ended."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .command_line import EXPECTED, INTERRUPTED
from .data import Video
from .engine import Engine, Result, Stats
from .engine.progress import show_progress
from .exits import Thresholds
from .json_lines import JsonLines
from .networks import VideoModel
from .ranks import Ranks

BATCH_SIZE = {"cpu": 8, "cuda": 64}
TELLS_EVERY = 0.5  # seconds


Answer = Mapping[str, Any]  # a line, with the "id" that names the video; with "error" where there is no answer
Prepare = Callable[[], tuple[Engine, Callable[[Result], Answer]]]


def answer_all(find: Callable[[], Sequence[Video]], path: Path, prepare: Prepare, *, workers: int | None = None) -> int:
    """Writes a line of JSON for every video that has none yet.

    Under torchrun each process does its share, into a part of its own; what a lost one left is done by running again.

    Args:
        find: gives all videos, also those that have a line; rank 0 asks.
        path: of the file.
        prepare: gives what computes, and what makes a line of a result; called where there is something to do.
        workers: threads that decode.

    Returns:
        the exit code: 0; 2 where one of them could not be read; 130 where it was interrupted.
    """
    here = Ranks.of_torchrun()
    lines = JsonLines(path, here.rank, here.world_size)

    def find_left() -> list[Video]:
        videos = {video.path: video for video in find()}.values()  # whatever is named twice, once
        done = lines.merge()
        left = [video for video in videos if video.path not in done]
        if done:
            print(f"{len(videos) - len(left)} of {len(videos)} videos are in {path}", file=sys.stderr)
        return left

    with here.joined():
        share = here.share(here.of_first(find_left, expected=EXPECTED))
        errors, interrupted = _write(share, lines, prepare, workers) if share else (0, False)
        if interrupted:
            print(f"interrupted: what is done is in {path}, and the same command goes on from there", file=sys.stderr)
            return INTERRUPTED
        everyone = here.gather(errors)
        if everyone and here.world_size > 1:
            lines.merge()
    return 2 if sum(everyone) else 0


def make_engine(
    model: VideoModel, thresholds: Thresholds | None, batch_size: int | None, choices: Path | None
) -> Engine:
    """An engine for many videos; its choices are read if the file is there, else written."""
    device = next(model.parameters()).device
    size = batch_size or BATCH_SIZE[device.type]
    known = choices if choices is not None and choices.exists() else None
    engine = Engine(model, batch_size=size, thresholds=thresholds, choices=known)
    if choices is not None and known is None and Ranks.of_torchrun().rank == 0:
        engine.choices.save(choices)
    return engine


def _write(
    videos: Sequence[Video],
    lines: JsonLines,
    prepare: Prepare,
    workers: int | None,
) -> tuple[int, bool]:
    """The number of errors, and whether Ctrl-C ended it."""
    engine, to_answer = prepare()
    errors = 0
    stream = engine.stream(((video.path, video.file) for video in videos), ordered=False, workers=workers)
    try:
        with contextlib.closing(stream), lines.open() as file:
            for result in shown(engine, stream, len(videos)):
                answer = to_answer(result)
                errors += "error" in answer
                file.write(answer)
    except KeyboardInterrupt:
        return errors, True
    print(engine.stats(), file=sys.stderr)
    return errors, False


def shown(engine: Engine, stream: Iterable[Result], total: int) -> Iterator[Result]:
    """The results of a stream of so many videos, with its progress on a terminal."""
    told = 0.0
    with show_progress("videos", True) as say:
        for result in stream:
            yield result
            if time.monotonic() - told >= TELLS_EVERY:
                told = time.monotonic()
                say(_progress(engine.stats(), total))


def _progress(stats: Stats, total: int) -> str:
    """How far it is, in one line."""
    done = stats.videos + stats.errors
    seconds = (total - done) / stats.videos_per_s if stats.videos_per_s else 0
    return (
        f"{done}/{total} videos, {stats.videos_per_s:.3g} videos/s, {stats.mean_multiply_adds / 1e9:.1f} GFLOPs each,"
        f" {stats.waited_share:.0%} waiting for clips, {seconds:.0f} s left"
    )

"""Predicts what happens in videos: python -m adafocus_models.predict VIDEO...

With --jsonl, of as many as there are: by the engine, into a file that a later run goes on with.
"""

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from adafocus_ops.checks import require

from . import bulk, command_line
from .chosen_model import add_engine_arguments, add_model_arguments, make_model
from .data import Clip, Video, list_videos
from .engine import Engine, Result, read_clips
from .exits import Gate, Thresholds
from .networks import Output, VideoModel
from .pictures import contact_sheet, write_video
from .ranks import Ranks

OVERLAYS = (".png", ".mp4")
RANDOM_WEIGHTS = "random weights: the prediction means nothing"


def predict(model: VideoModel, path: str | Path, *, gate: Gate | None = None) -> tuple[Clip, Clip, Output]:
    """Runs a model, on the device that it is on, on one video.

    Args:
        model: from `create_model`, in evaluation mode.
        path: a video file or a folder of frames (see `read_clip`).
        gate: decides if the video leaves at an early exit (see `VideoModel.forward`); None sends it on to the last.

    Returns:
        (candidates, glance, output): what the model was shown, and its output for this batch of one video; a model
            without a glance has one of no frames.

    Raises:
        OSError, ValueError: as `read_clip`.
    """
    require(not model.training, lambda: "model must be in evaluation mode: call model.eval()")
    candidates, glance = read_clips(model, path)
    device = next(model.parameters()).device
    glance_frames = glance.frames[None].to(device) if model.num_glance_frames else None
    with torch.inference_mode():
        output = model(candidates.frames[None].to(device), glance_frames, gate=gate)
    return candidates, glance, output


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line: 0 on success, 2 with a message where an argument, a file or one of the clips does not fit."""
    return command_line.run(_run, _parser().parse_args(arguments))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m adafocus_models.predict", description=__doc__)
    add = parser.add_argument
    add(
        "videos",
        metavar="VIDEO",
        nargs="+",
        help="a video file, a folder of frames (JPEG, PNG, WebP, BMP or TIFF), a folder with any of these in it at any "
        "depth, a list (.txt, .csv, .tsv) of a path a line, or - for such a list on standard input",
    )
    add_model_arguments(parser)
    add("--top", type=command_line.count, default=5, metavar="K", help="how many of the likeliest to print; default 5")
    add(
        "--thresholds",
        type=_threshold,
        metavar="SCORE|FILE",
        help="answer at the glance if that is sure enough: the least score, which is minus the entropy in nats "
        "(--thresholds=-0.5), or a file of Thresholds or of a Curve, which adafocus_models.calibrate writes",
    )
    add("--budget", type=float, metavar="GFLOPS", help="of a Curve, the thresholds that cost this much a video")
    add("--overlay", type=_overlay, help="draw where the model looked, to a .png or .mp4 file; for one clip")
    add("--json", action="store_true", help="print one line of JSON per clip")
    add(
        "--jsonl",
        type=Path,
        metavar="FILE",
        help="write one line of JSON per video to this file, by the engine, batch after batch; videos that have a line "
        "are left out, so the same command goes on where it ended. Under torchrun the processes share the videos",
    )
    add_engine_arguments(parser.add_argument_group("with --jsonl"))
    return parser


def _threshold(text: str) -> float | Path:
    try:
        score = float(text)
    except ValueError:
        return Path(text)
    if not (math.isfinite(score) and score <= 0):
        raise argparse.ArgumentTypeError(f"must be minus an entropy, which is at most 0, or a file; got {text!r}")
    return score


def _overlay(text: str) -> Path:
    path = Path(text)
    if path.suffix.lower() not in OVERLAYS:
        raise argparse.ArgumentTypeError(f"must end in {' or '.join(OVERLAYS)}, got {text!r}")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"its folder {str(path.parent)!r} does not exist")
    return path


class _Said(NamedTuple):
    """What there is to print of a clip."""

    answer: str | None
    error: str | None = None


def _run(options: argparse.Namespace) -> int:
    """The exit code: 2 if one of several clips could not be read, which keeps none of the others from it."""
    find = partial(_videos, options)
    if options.jsonl:
        require(not options.overlay, lambda: "--overlay draws one clip, not those of --jsonl")
        return bulk.answer_all(find, options.jsonl, partial(_bulk, options), workers=options.workers)
    here = Ranks.of_torchrun()
    exit_code = 0
    with here.joined():
        paths = [video.path for video in here.of_first(find, expected=command_line.EXPECTED)]
        for said in here.in_order(partial(_answers, options), paths, expected=command_line.EXPECTED):
            if said.error is not None:
                print(f"error: {said.error}", file=sys.stderr)
                exit_code = 2
            if said.answer is not None:
                print(said.answer, flush=True)
    return exit_code


def _videos(options: argparse.Namespace) -> list[Video]:
    """All that the arguments name; an argument that cannot be opened is said so when it is its turn."""
    found: list[Video] = []
    for source in options.videos:
        try:
            found += list_videos(source)
        except FileNotFoundError:
            found.append(Video(source, Path(source)))
    return found


def _bulk(options: argparse.Namespace) -> tuple[Engine, Callable[[Result], dict[str, Any]]]:
    """What computes, and what makes a line of a result."""
    model, names, gate = _model(options)
    return bulk.make_engine(model, gate, options.batch_size, options.choices), partial(_line, options, names)


def _line(options: argparse.Namespace, names: Sequence[str], result: Result) -> dict[str, Any]:
    """What there is to say of a video among many."""
    try:
        top = result.top(options.top)
    except Exception as error:  # whatever a clip has raised is said of it
        return {"id": result.id, "error": str(error)}
    return {
        "id": result.id,
        "model": options.model,
        "random_weights": options.checkpoint is None,
        "top": [{"class": c, "name": names[c], "probability": p} for c, p in top],
        "exit": result.exit,
        "candidates": result.frame_index.tolist(),
        "boxes": [_rounded(box) for box in result.boxes.tolist()],
    }


def _model(options: argparse.Namespace) -> tuple[VideoModel, Sequence[str], Thresholds | None]:
    """The model, the names of its classes, and its gate."""
    model, names = make_model(options)
    return model, names or [f"class {c}" for c in range(model.num_classes)], _gate(options, model)


def _answers(options: argparse.Namespace, clips: Sequence[str]) -> Iterator[_Said]:
    """Of each of these clips, one after the other."""
    if options.overlay:
        require(len(clips) == 1, lambda: f"--overlay draws one clip, got {len(clips)}")
        same = options.overlay.resolve() == Path(clips[0]).resolve()
        require(not same, lambda: f"--overlay must not be the clip itself, got {options.overlay}")
    model, names, gate = _model(options)
    for clip in clips:
        try:
            candidates, glance, output = predict(model, clip, gate=gate)
            answer = _answer(options, clip, candidates, output, names)
            if options.overlay:
                _draw(options, model, candidates, glance, output, answer)
            said = _Said(json.dumps(answer) if options.json else _text(answer, model))
        except (OSError, ValueError) as error:
            answer = {"clip": clip, "error": str(error)}
            said = _Said(json.dumps(answer) if options.json else None, str(error))
        yield said


def _gate(options: argparse.Namespace, model: VideoModel) -> Thresholds | None:
    given = options.thresholds
    require(
        given is None or model.has_early_exit,
        lambda: f"--thresholds needs a model with an early exit; {options.model} has none",
    )
    if isinstance(given, float):
        require(options.budget is None, lambda: "--budget needs --thresholds FILE, of a Curve")
        return Thresholds.of([given] * (model.num_exits - 1))
    return command_line.read_thresholds(given, options.budget)


def _answer(
    options: argparse.Namespace, clip: str, candidates: Clip, output: Output, names: Sequence[str]
) -> dict[str, Any]:
    """What there is to say of a clip, as JSON has it."""
    probabilities = output.logits[0].float().softmax(0)
    require(not probabilities.isnan().any(), lambda: f"{clip} gives no numbers (NaN): are the weights damaged?")
    ranked = probabilities.topk(min(options.top, len(names)))
    reached = int((~output.exit_logits[0].isnan().all(-1)).sum())
    looked = output.frame_index[0].cpu()
    looked = looked[looked >= 0]
    seconds = candidates.time[looked].tolist()
    return {
        "clip": clip,
        "model": options.model,
        "random_weights": options.checkpoint is None,
        "top": [
            {"class": c, "name": names[c], "probability": p}
            for p, c in zip(ranked.values.tolist(), ranked.indices.tolist(), strict=True)
        ],
        "exit": reached - 1,
        "frames": candidates.source_index[looked].tolist(),
        "seconds": [None if math.isnan(time) else time for time in seconds],
        **_boxes(output, len(looked)),
        **({"overlay": str(options.overlay)} if options.overlay else {}),
    }


def _boxes(output: Output, looked: int) -> dict[str, Any]:
    """(cy, cx, h, w) to a tenth of a pixel: "box" of all frames that were looked at, or "boxes", one of each."""
    boxes = [_rounded(box) for box in output.boxes[0].float().reshape(-1, 4).tolist()]
    if output.boxes.ndim == 3:
        return {"boxes": boxes[:looked]}
    return {"box": boxes[0] if looked else None}


def _rounded(box: Sequence[float]) -> list[float]:
    return [round(side, 1) for side in box]


def _text(answer: dict[str, Any], model: VideoModel) -> str:
    lines = [f"{answer['model']} on {answer['clip']}"]
    if answer["random_weights"]:
        lines.append(f"{RANDOM_WEIGHTS}; give --checkpoint")
    for rank, of_class in enumerate(answer["top"], 1):
        lines.append(f"  {rank}. {of_class['name']}, {of_class['probability']:.1%}")
    pixels = f"{model.frame_size} x {model.frame_size} pixels"
    if answer.get("box"):
        lines.append(" ".join(map(str, ["looked at frames", *answer["frames"]])))
        lines.append(f"in the box (cy, cx, h, w) = {tuple(answer['box'])} of {pixels}")
    elif answer["frames"]:
        lines.append(f"looked at boxes (cy, cx, h, w) of {pixels}")
        lines += [
            f"  {tuple(box)} in frame {frame}" for frame, box in zip(answer["frames"], answer["boxes"], strict=True)
        ]
    if answer["exit"] < model.num_exits - 1:
        lines.append(f"sure enough at exit {answer['exit']}: no {'further' if answer['frames'] else 'closer'} look")
    if "overlay" in answer:
        lines.append(f"drawn to {answer['overlay']}")
    return "\n".join(lines)


def _draw(
    options: argparse.Namespace,
    model: VideoModel,
    candidates: Clip,
    glance: Clip,
    output: Output,
    answer: dict[str, Any],
) -> None:
    first = answer["top"][0]
    title = f"{options.model}: {first['probability']:.1%} {first['name']}"  # in this order a long name cuts off nothing
    note = RANDOM_WEIGHTS if answer["random_weights"] else ""
    frame_index, box = output.frame_index[0].cpu(), output.boxes[0].float().cpu()
    if options.overlay.suffix.lower() == ".mp4":
        write_video(options.overlay, candidates, frame_index, box, title=title, note=note)
        return
    weights = output.weights[0].float().cpu()
    weights = None if (weights == weights[:1]).all() else weights  # nothing weighs them
    sheet = contact_sheet(
        candidates, glance, frame_index, box, model.patch_size, weights=weights, title=title, note=note
    )
    sheet.save(options.overlay)


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")  # whatever a file or a class is called can be printed
    sys.exit(main())

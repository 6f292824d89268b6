"""Predicts what happens in one video: python -m adafocus_models.predict CLIP."""

import argparse
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch

from adafocus_ops.checks import require

from .data import Clip, read_clip
from .networks import Output, VideoModel
from .pictures import contact_sheet, write_video
from .registry import create_model

OVERLAYS = (".png", ".mp4")
TOP = 5
RANDOM_WEIGHTS = "random weights: the prediction means nothing"


def predict(model: VideoModel, path: str | Path) -> tuple[Clip, Clip, Output]:
    """Runs a model, on the device that it is on, on one video.

    Args:
        model: from `create_model`, in evaluation mode.
        path: a video file or a folder of frames (see `read_clip`).

    Returns:
        (candidates, glance, output): what the model was shown, and its output for this batch of one video.

    Raises:
        FileNotFoundError, ValueError: as `read_clip`.
    """
    require(not model.training, lambda: "model must be in evaluation mode: call model.eval()")
    candidates, glance = read_clip(path, model.num_candidate_frames, model.num_glance_frames)
    device = next(model.parameters()).device
    with torch.inference_mode():
        output = model(candidates.frames[None].to(device), glance.frames[None].to(device))
    return candidates, glance, output


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line: 0 on success, 2 with a message where an argument or a file does not fit."""
    options = _parser().parse_args(arguments)
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr)
        try:
            _run(options)
        except (ImportError, OSError, ValueError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m adafocus_models.predict", description=__doc__)
    parser.add_argument("clip", metavar="CLIP", type=Path, help="a video file, or a folder of JPEG or PNG frames")
    parser.add_argument("--model", default="uni_adafocus_tsm_96_8+8", help="a name of adafocus_models.list_models()")
    parser.add_argument("--checkpoint", type=Path, help="weights: ours or the published ones; random without")
    parser.add_argument(
        "--labels", type=Path, help="text file with one class name per line, as many as the model has classes"
    )
    parser.add_argument("--overlay", type=_overlay, help="draw where the model looked, to a .png or .mp4 file")
    parser.add_argument("--device", type=_device, default="cpu", help="cpu (the default), cuda, cuda:1, ...")
    return parser


def _overlay(text: str) -> Path:
    path = Path(text)
    if path.suffix.lower() not in OVERLAYS:
        raise argparse.ArgumentTypeError(f"must end in {' or '.join(OVERLAYS)}, got {text!r}")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"its folder {str(path.parent)!r} does not exist")
    return path


def _device(text: str) -> torch.device:
    try:
        device = torch.device(text)
        torch.empty(0, device=device)
    except (AssertionError, RuntimeError) as error:  # torch was built without it, or there is none
        raise argparse.ArgumentTypeError(f"cannot use {text!r}: {str(error).splitlines()[0]}") from error
    return device


def _run(options: argparse.Namespace) -> None:
    if options.overlay:
        same = options.overlay.resolve() == options.clip.resolve()
        require(not same, lambda: f"--overlay must not be the clip itself, got {options.overlay}")
    torch.manual_seed(0)  # the random weights, if they stay, are the same every time
    labels = options.labels and _labels(options.labels)
    model = create_model(options.model, **({"num_classes": len(labels)} if labels else {})).eval()
    labels = labels or [f"class {c}" for c in range(model.num_classes)]
    note = RANDOM_WEIGHTS
    if options.checkpoint:
        model.load_checkpoint(options.checkpoint)
        note = ""
    candidates, glance, output = predict(model.to(options.device), options.clip)

    answers = _answers(output, labels)
    _print(options, candidates, output, answers, note)
    if options.overlay:
        _draw(options, model, candidates, glance, output, title=f"{options.model}: {answers[0]}", note=note)
        print(f"drawn to {options.overlay}")


def _answers(output: Output, labels: Sequence[str]) -> list[str]:
    """The likeliest classes and their probabilities, the first of them first."""
    ranked = output.logits[0].float().softmax(0).topk(min(TOP, len(output.logits[0])))
    return [f"{labels[c]}, {p:.1%}" for p, c in zip(ranked.values.tolist(), ranked.indices.tolist(), strict=True)]


def _print(options: argparse.Namespace, candidates: Clip, output: Output, answers: Sequence[str], note: str) -> None:
    print(f"{options.model} on {options.clip}")
    if note:
        print(f"{note}; give --checkpoint")
    for rank, answer in enumerate(answers, 1):
        print(f"  {rank}. {answer}")
    print("looked at frames", *candidates.source_index[output.frame_index[0].cpu()].tolist())
    box = tuple(round(side, 1) for side in output.boxes[0].float().tolist())
    print("in the box (cy, cx, h, w) =", box, "of 224 x 224 pixels")


def _draw(
    options: argparse.Namespace,
    model: VideoModel,
    candidates: Clip,
    glance: Clip,
    output: Output,
    *,
    title: str,
    note: str,
) -> None:
    frame_index, box = output.frame_index[0].cpu(), output.boxes[0].float().cpu()
    if options.overlay.suffix.lower() == ".mp4":
        write_video(options.overlay, candidates, frame_index, box, title=title, note=note)
        return
    weights = output.weights[0].float().cpu() if model.has_policy else None
    sheet = contact_sheet(
        candidates, glance, frame_index, box, model.patch_size, weights=weights, title=title, note=note
    )
    sheet.save(options.overlay)


def _labels(path: Path) -> list[str]:
    """A name for every class, which says how many there are."""
    labels = path.read_text(encoding="utf-8-sig", errors="replace").rstrip().splitlines()
    require(len(labels) > 0, lambda: f"{path} must have a line for each class, but it is empty")
    return labels


if __name__ == "__main__":
    sys.exit(main())

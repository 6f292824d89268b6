"""Trains a model on labelled videos: python -m adafocus_models.train RECIPE --data LIST --val LIST --out DIR

A recipe is how the paper trains on one of its data sets; every number of it can be set to another. A run that was
stopped, or killed, goes on with --resume. Under torchrun all processes train together:

  torchrun --nproc-per-node 4 -m adafocus_models.train something_v1 --data train.txt --val val.txt --device cuda
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from adafocus_ops.checks import require

from . import command_line
from .class_names import read_class_names
from .data import TrainingClips, list_videos
from .engine.progress import show_progress
from .labelled import classes_of
from .networks import VideoModel, load_backbone
from .ranks import Ranks
from .registry import architecture_of, create_model, list_models
from .training import RECIPES, Recipe, changed, rates_of
from .training.loop import Group, Trained, train


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line: 0 on success, 2 with a message where an argument, a file or the loss does not fit, 130 where it
    was interrupted and can be resumed."""
    return command_line.run(_run, _parser().parse_args(arguments))


def _parser() -> argparse.ArgumentParser:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m adafocus_models.train", description=__doc__, formatter_class=formatter)
    add = parser.add_argument
    add("recipe", metavar="RECIPE", choices=list(RECIPES), help=f"one of {', '.join(RECIPES)}")
    add(
        "--data",
        metavar="LIST",
        required=True,
        help="videos to learn from, a path and a label a line (.txt, .tsv, .csv); a label is the number of a class, or "
        "with --labels its name",
    )
    add("--val", metavar="LIST", help="videos to choose the best weights by, likewise")
    add("--labels", type=Path, metavar="FILE", help="text file with one class name per line; gives num_classes too")
    add("--out", type=Path, default=Path("run"), metavar="DIR", help="what is written; default %(default)s")
    add(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        dest="changes",
        help=f"another number than the recipe's: {', '.join(Recipe.__dataclass_fields__)}; arguments.patch_size=96, "
        "rates.focus_encoder=0.1 and objective.size_weight=0.25 for single entries; model is one of "
        f"{', '.join(list_models())}",
    )
    add("--checkpoint", type=Path, help="weights to begin with: ours or the published ones")
    add("--new-heads", action="store_true", help="of the checkpoint, all but the heads: for other classes than its own")
    add("--glance-weights", type=Path, metavar="FILE", help="weights of the glance encoder: torchvision's, TSM's, ...")
    add("--focus-weights", type=Path, metavar="FILE", help="weights of the focus encoder, likewise")
    add("--resume", action="store_true", help="go on with the run in --out, or begin where there is none")
    add("--workers", type=int, default=4, metavar="N", help="processes that read clips; default %(default)s")
    add("--device", type=command_line.device, default="cpu", help="cpu (the default), cuda, cuda:1, ...")
    return parser


def _run(options: argparse.Namespace) -> int:
    here = Ranks.of_torchrun()
    with here.joined(options.device):
        recipe, names = _recipe(options, told=here.rank == 0)
        model = _model(options, recipe)
        training = _clips(options.data, recipe, model, names, training=True)
        validation = _clips(options.val, recipe, model, names, training=False) if options.val else None
        with show_progress("training", here.rank == 0) as say:
            trained = train(
                model,
                recipe,
                training,
                validation,
                out=options.out,
                rates=rates_of(recipe, architecture_of(recipe.model)),
                resume=options.resume,
                group=Group(here.rank, here.world_size),
                workers=options.workers,
                say=say,
            )
    if here.rank == 0:
        print(_told(trained, options.out))
    return 0 if trained.finished else command_line.INTERRUPTED


def _recipe(options: argparse.Namespace, *, told: bool) -> tuple[Recipe, list[str] | None]:
    """With what was set, and the names of the classes where they are given."""
    changes = {}
    for text in options.changes:
        name, equals, value = text.partition("=")
        require(bool(equals), lambda text=text: f"--set must be NAME=VALUE, got {text!r}")
        changes[name] = value
    names = read_class_names(options.labels) if options.labels else None
    if names:
        changes.setdefault("num_classes", str(len(names)))
    recipe, notes = changed(RECIPES[options.recipe], changes)
    if told:
        for note in notes:
            print(note, file=sys.stderr)
    return recipe, names


def _model(options: argparse.Namespace, recipe: Recipe) -> VideoModel:
    """With the weights that it begins with, the same on all processes."""
    torch.manual_seed(recipe.seed)
    model = create_model(recipe.model, num_classes=recipe.num_classes, **recipe.arguments)
    if options.checkpoint:
        model.load_checkpoint(options.checkpoint, new_heads=options.new_heads)
    for file, name in ((options.glance_weights, "glance_encoder"), (options.focus_weights, "focus_encoder")):
        if file:
            require(hasattr(model, name), lambda name=name: f"{recipe.model} has no {name} to load weights into")
            load_backbone(getattr(model, name), file)
    return model.to(options.device, memory_format=torch.channels_last)


def _clips(
    source: str, recipe: Recipe, model: VideoModel, names: Sequence[str] | None, *, training: bool
) -> TrainingClips:
    videos = list_videos(source, labels=True)
    return TrainingClips(
        videos,
        classes_of(videos, names, recipe.num_classes),
        num_candidate_frames=model.num_candidate_frames,
        num_glance_frames=model.num_glance_frames if model.glances_apart else 0,
        frame_size=model.frame_size,
        flip=recipe.flip,
        training=training,
        seed=recipe.seed,
    )


def _told(trained: Trained, out: Path) -> str:
    figures = ", ".join(f"{name} {value:.2%}" for name, value in trained.figures.items())
    done = f"{trained.epoch} epochs, {trained.step} steps{': ' + figures if figures else ''}"
    if trained.finished:
        return f"{done}; the best weights are in {out / 'best.safetensors'}"
    return f"interrupted after {done}; the same command with --resume goes on"


if __name__ == "__main__":
    sys.exit(main())

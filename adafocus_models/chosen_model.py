"""The arguments by which commands choose a model and what computes it, and the model."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from . import command_line
from .class_names import read_class_names
from .networks import VideoModel
from .registry import create_model, list_models


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Which model, of what weights and classes, and where it runs."""
    add = parser.add_argument
    add("--model", default="uni_adafocus_tsm_96_8+8", help=f"one of {', '.join(list_models())}; default %(default)s")
    add("--checkpoint", type=Path, help="weights: ours or the published ones; random without")
    add("--labels", type=Path, help="text file with one class name per line, as many as the model has classes")
    add("--device", type=command_line.device, default="cpu", help="cpu (the default), cuda, cuda:1, ...")


def add_engine_arguments(parser: argparse._ActionsContainer) -> None:
    """How an engine runs it, of many videos."""
    add = parser.add_argument
    add("--batch-size", type=command_line.count, metavar="B", help="videos at a time; default 8, on a GPU 64")
    add("--workers", type=command_line.count, metavar="N", help="threads that decode; default one a processor core")
    add(
        "--choices", type=Path, metavar="FILE", help="who computes what: read if it is there, else measured and written"
    )


def make_model(options: argparse.Namespace) -> tuple[VideoModel, Sequence[str] | None]:
    """What the arguments choose, in evaluation mode on its device; and its classes' names, where they are given."""
    torch.manual_seed(0)  # the random weights, if they stay, are the same every time
    names = options.labels and read_class_names(options.labels)
    model = create_model(options.model, **({"num_classes": len(names)} if names else {})).eval()
    if options.checkpoint:
        model.load_checkpoint(options.checkpoint)
    return model.to(options.device), names

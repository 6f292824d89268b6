"""Where a trained model looked, as a picture."""

from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from measure import look
from model import FindTheDigit
from PIL import Image
from torch import Tensor
from videos import LIFE, Videos

from report import subplots

LEARNED, TRUE = "#56b4e9", "#e69f00"


def plot_boxes(model: FindTheDigit, videos: Videos, path: Path, count: int = 4) -> None:
    """The four frames that were picked from each of some videos, with the boxes, and the digit's where it shows."""
    videos = Videos(*(x[:count] for x in videos))
    seen = look(model, videos)
    figure, axes = subplots(count, 4, 6.4, 1.65 * count)
    for i, row in enumerate(axes):
        for k, place in enumerate(row):
            frame = seen.frame_index[i, k].item()
            place.imshow(videos.frames[i, frame], cmap="gray", vmin=0, vmax=255)
            place.set(xticks=[], yticks=[])
            age = frame - videos.starts[i].item()
            if 0 <= age < LIFE:
                _draw(place, videos.boxes[i], TRUE)
            _draw(place, seen.boxes[i, k], LEARNED)
            guess = seen.focus[i, : k + 1].mean(0).argmax().item()
            place.set_xlabel(f"frame {frame}: {guess}", fontsize=7, labelpad=2)
        row[0].set_ylabel(f"a {videos.labels[i].item()}")
    figure.savefig(path, dpi=90)
    Image.open(path).quantize(64).save(path)


def _draw(axes: Axes, box: Tensor, colour: str) -> None:
    cy, cx, height, width = box.tolist()
    # A pixel's centre is a whole number here, and half of one in a box.
    corner = (cx - width / 2 - 0.5, cy - height / 2 - 0.5)
    axes.add_patch(Rectangle(corner, width, height, fill=False, edgecolor=colour, linewidth=1.2))


def plot_learned(weights: Path, videos: Videos, path: Path) -> None:
    """`plot_boxes` of a model that a run has trained."""
    model = FindTheDigit().to(memory_format=torch.channels_last)
    model.load_checkpoint(weights)
    plot_boxes(model, videos, path)

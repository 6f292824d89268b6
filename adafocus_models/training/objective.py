"""What one step of training minimises, for every network."""

from typing import Any

import torch
from torch import Tensor, nn

from adafocus_ops.checks import describe, require

from ..networks import (
    AdaFocusV1,
    AdaFocusV1TSM,
    AdaFocusV2,
    AdaFocusV2TSM,
    UniAdaFocus,
    UniAdaFocusTSM,
    UniAdaFocusX3D,
    VideoModel,
)
from .adafocus_v1 import v1_objective, v1_tsm_objective
from .adafocus_v2 import v2_objective, v2_tsm_objective
from .draws import Draws
from .losses import Losses
from .uni_adafocus import uni_objective


def objective(
    model: VideoModel,
    frames: Tensor,
    glance_frames: Tensor | None,
    labels: Tensor,
    *,
    generator: torch.Generator | None = None,
    rows: tuple[int, int] | None = None,
    **options: Any,
) -> Losses:
    """The losses of a batch, by the published code's rules for the network that it is.

    Args:
        model: any network of `create_model`.
        frames, glance_frames: as `forward` takes them.
        labels: [B] int64, a class a video.
        generator: for all that is random but dropout; default the device's.
        rows: (first, total), where these videos are a part of a batch that several processes share: with equal
            generators each draws for a video what one process would have drawn.
        options: of the network's own objective: `uni_objective` (size_weight, diversity, num_samples, policies,
            weigh_frames, cells), `v2_objective` (diversity), `v1_objective` (stage and more). Networks that see whole
            frames have none: theirs is the cross-entropy of their answers.

    Returns:
        Losses, whose `total` is to be minimised.

    Gradients: to all weights that learn from a term, as published, and to floating-point frames of the encoders.

    Raises:
        TypeError, ValueError: inputs, labels or options that do not fit.
    """
    require(
        isinstance(model, VideoModel), lambda: f"model must be of create_model, got {type(model).__name__}", TypeError
    )
    model.check_inputs(frames, glance_frames)
    fits = isinstance(labels, Tensor) and labels.dtype == torch.int64 and labels.shape == frames.shape[:1]
    require(fits, lambda: f"labels must be [B] int64 with B={frames.shape[0]} (frames), got {describe(labels)}")
    first, total = (0, frames.shape[0]) if rows is None else rows
    require(
        0 <= first <= total - frames.shape[0],
        lambda: f"rows must be (first, total) with first + {frames.shape[0]} videos <= total, got {rows}",
    )
    terms = next(terms for network, terms in _OBJECTIVES if isinstance(model, network))
    return terms(model, frames, glance_frames, labels, draws=Draws(generator, first, total), **options)


def _whole_frames_objective(
    model: VideoModel,
    frames: Tensor,
    glance_frames: Tensor | None,
    labels: Tensor,
    *,
    draws: Draws,
) -> Losses:
    """The cross-entropy of a baseline's answers."""
    logits = model(frames, glance_frames).logits
    return Losses.of(classification=nn.functional.cross_entropy(logits, labels))


# Network -> its objective; the first that fits counts.
_OBJECTIVES = (
    (UniAdaFocus | UniAdaFocusTSM | UniAdaFocusX3D, uni_objective),
    (AdaFocusV2, v2_objective),
    (AdaFocusV2TSM, v2_tsm_objective),
    (AdaFocusV1, v1_objective),
    (AdaFocusV1TSM, v1_tsm_objective),
    (VideoModel, _whole_frames_objective),
)

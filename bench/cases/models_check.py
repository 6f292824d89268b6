"""A tuned model's check: it must answer as the plain one does, with as many videos leaving early as are asked for."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from adafocus_models import Decision, Output, VideoModel
from adafocus_ops import ExitGate, exit_gate, use_backend

# Largest difference from the plain float32 model: of a logit, as a share of the largest; of a box, in pixels. Twice or
# more the largest seen, of any network, on a CPU and a GPU alike: 4e-4 and 0.0008, 0.07 and 11, 0.19 and 36. Rounding
# grows through random weights, most where the maximum of many features is classified, or an MLP places the box.
TOLERANCE = {torch.float32: (1e-3, 0.005), torch.float16: (0.15, 24.0), torch.bfloat16: (0.4, 80.0)}

Gate = Callable[[Tensor], ExitGate]


def leaving(exit_ratio: float, batch_size: int) -> int:
    """The number of videos of a batch that leave at the glance."""
    return round(exit_ratio * batch_size)


def forced_gate(num_leaving: int, batch_size: int) -> Gate | None:
    """A gate that the first videos pass at exit 0 whatever the untrained logits say, at the price of the real one."""
    if not num_leaving:
        return None

    def gate(logits: Tensor) -> ExitGate:
        forced = torch.zeros_like(logits)
        if len(logits) == batch_size:  # who is inside at a later exit stays
            forced[:num_leaving, 0] = 100.0  # entropy 0, and log C of the others
        return exit_gate(forced, threshold=1.0)

    return gate


class OverruledPolicy:
    """A policy that answers with given decisions, and keeps what its own would have been."""

    def __init__(self, policy: Callable[..., Decision], decision: Decision) -> None:
        self.policy = policy
        self.decision = decision
        self.own: list[Decision] = []

    def __call__(self, *inputs: Any) -> Decision:
        own = self.policy(*inputs)
        self.own.append(own)
        frames = own.frame_index.shape[1]  # one, where exits follow one another and a video leaves at the first
        boxes = self.decision.boxes if own.boxes.ndim == 2 else self.decision.boxes[:, :frames]
        return own._replace(
            weights=self.decision.weights, frame_index=self.decision.frame_index[:, :frames], boxes=boxes
        )


@contextmanager
def overruled(model: nn.Module, decision: Decision) -> Iterator[list[Decision]]:
    """Within the block the model looks where the decision says; its policy's own go to the list that is yielded."""
    if not model.has_policy:
        yield []
        return
    model.policy = OverruledPolicy(model.policy, decision)
    try:
        yield model.policy.own
    finally:
        del model.policy  # the class's method shows again


@torch.inference_mode()
def compare(
    model: VideoModel,
    tuned: Callable[..., Output],
    inputs: Sequence[Tensor],
    exit_ratio: float,
    dtype: torch.dtype = torch.float32,
) -> dict[str, Any]:
    """Checks a tuned model, or another way to run it in a dtype, against the plain one in float32, contiguous, on the
    reference backend, one video at a time, so that mixing up the videos of a batch shows.

    The plain model's policy is compared with the tuned one's, then takes its decisions, so that both look at
    the same patches: where to look is a matter of rounding (a thousandth of a pixel in float32 changes the
    logits of random weights by a thousandth), what is seen there is not. float32 must also pick equal frames;
    where places are picked, too, another precision may pick others.
    """
    videos = len(inputs[0])
    gate = forced_gate(leaving(exit_ratio, videos), videos)
    result = tuned(*inputs, gate=gate)
    stay = result.frame_index[:, -1] >= 0  # [B]
    expected, own = answers_alone(model, inputs, stay, result)
    error = float((result.logits.float() - expected).abs().max() / expected.abs().max())
    same_frames, box_error = videos, 0.0
    if own:
        frame_index, boxes = torch.cat([d.frame_index for d in own]), torch.cat([d.boxes for d in own])
        same_frames -= int((frame_index != result.frame_index[stay]).any(1).sum())
        box_error = float((boxes - result.boxes[stay]).abs().max())
    precision = arithmetic(dtype, inputs[0].device)
    tolerance, box_tolerance = TOLERANCE[precision]
    must_pick_the_same = precision == torch.float32
    if model.picks_places and not must_pick_the_same:
        box_tolerance = float(model.frame_size)
    return {
        "passed": error <= tolerance
        and box_error <= box_tolerance
        and (same_frames == videos or not must_pick_the_same),
        "max_error": error,
        "tolerance": tolerance,
        "box_error_px": box_error,
        "box_tolerance_px": box_tolerance,
        "videos": videos,
        "same_frames": same_frames,
    }


def answers_alone(
    model: VideoModel, inputs: Sequence[Tensor], stay: Tensor, seen: Output
) -> tuple[Tensor, list[Decision]]:
    """Logits [B, C] of the plain model, for one video after the other, where another model has looked.

    Args:
        stay: [B] bool, the videos that do not leave at the glance.
        seen: Output of the other model.

    Returns:
        The logits, and the decisions of the model's own policy, of each video that stays.
    """
    logits, own = [], []
    for b, stays in enumerate(stay.tolist()):
        one = slice(b, b + 1)
        decision = Decision(seen.weights[one], seen.frame_index[one], seen.boxes[one])
        with (
            overruled(model, decision) as decided,
            use_backend("reference"),
            torch.backends.cudnn.flags(enabled=True, allow_tf32=False),
        ):
            alone = forced_gate(int(not stays), 1)
            logits.append(model(*(frames[one].contiguous() for frames in inputs), gate=alone).logits)
        own += decided if stays else []
    return torch.cat(logits), own


def arithmetic(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """The dtype whose precision a model computes with: TF32 rounds like float16."""
    tf32 = device.type == "cuda" and dtype == torch.float32 and torch.backends.cudnn.allow_tf32
    return torch.float16 if tf32 else dtype

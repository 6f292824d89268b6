"""What a trained model can do, as numbers for the tables."""

import copy
from typing import Any

import torch
from choices import ROWS, fix
from model import FindTheDigit
from torch import Tensor
from videos import FRAMES, LIFE, SIDE, Videos

from adafocus_models import evaluate_thresholds, exit_costs, exit_score, multiply_adds, solve_thresholds
from adafocus_ops.boxes import for_frames, from_action, to_xyxy

BUDGETS = (0.4, 0.45, 0.5, 0.55, 0.6, 0.7, 0.8, 0.9, 1.0)  # of the full cost


class Seen:
    """Answers for videos, and where the model looked."""

    def __init__(self, parts: list[tuple[Tensor, ...]]) -> None:
        # [n, 5, 10], [n, 4, 10], [n, 4], [n, 4, 4]
        self.exits, self.focus, self.frame_index, self.boxes = map(torch.cat, zip(*parts, strict=True))


@torch.inference_mode()
def look(model: FindTheDigit, videos: Videos, *, frames: str = "", boxes: str = "", batch: int = 128) -> Seen:
    """The model on all videos; frames="true", boxes="true", "true sides" or "mean sides" put truths in their place."""
    model.eval()
    parts = []
    for first in range(0, len(videos.labels), batch):
        part = Videos(*(x[first : first + batch] for x in videos))
        clips = part.batch(slice(None))
        whole = model.read_whole(clips, model.pick_glance_frames(clips), model.glance_encoder, size=model.glance_size)
        maps, features = model.glance(whole)
        glanced, first_answer = model.early_head(features)
        _, index, where, _ = model.policy(maps, features)
        if frames == "true":
            index = part.starts[:, None] + torch.arange(LIFE)
            actions, _ = for_frames(model.spatial_policy(maps), index, FRAMES)
            where = from_action(actions, (SIDE, SIDE), *model.sides).unflatten(0, index.shape)
        true = part.boxes[:, None].expand_as(where) * torch.tensor([1, 1, 1.2, 1.2])
        if boxes == "true":
            where = true
        elif boxes == "true sides":
            where = torch.cat([where[..., :2], true[..., 2:]], -1)
        elif boxes == "mean sides":
            where = torch.cat([where[..., :2], where[..., 2:].log().mean((0, 1)).exp().expand_as(where[..., 2:])], -1)
        patches = model.read_patches(clips, where.contiguous(), index, torch.arange(len(clips)))
        seen = model.focus(patches).unflatten(0, index.shape)
        answers, _ = model.final_head(seen, glanced, None, slice(0, model.num_focus_frames))
        exits = torch.cat([first_answer[:, None], answers], 1)
        parts.append((exits, model.focus_aux_head(seen), index, where))
    return Seen(parts)


def measure(model: FindTheDigit, row_name: str, validation: Videos, test: Videos | None) -> dict[str, Any]:
    """All numbers of a row; without test videos those of validation alone, for choosing settings."""
    costs = exit_costs(model)
    result: dict[str, Any] = {"multiply_adds": multiply_adds(model), "exit_costs": costs}
    on_validation = look(model, validation)
    result["validation"] = _accuracies(on_validation, validation.labels)
    videos, seen = (validation, on_validation) if test is None else (test, look(model, test))
    if test is not None:
        result["test"] = _accuracies(seen, test.labels)
    result["early_exit"] = _early_exit(on_validation, validation.labels, seen, videos.labels, costs)
    result["looks"] = _looks(seen, videos)
    if row_name == "learned":
        for name, truths in {
            "true frames and boxes": {"frames": "true", "boxes": "true"},
            "true frames": {"frames": "true"},
            "true frames and sides": {"frames": "true", "boxes": "true sides"},
            "true sides": {"boxes": "true sides"},
            "mean sides": {"boxes": "mean sides"},
        }.items():
            result.setdefault("truths", {})[name] = _accuracies(look(model, videos, **truths), videos.labels)["focus"]
        result["swapped"] = swapped(model, videos)
    return result


def swapped(model: FindTheDigit, videos: Videos) -> dict[str, Any]:
    """Row -> accuracies of the learned model with the fixed choices of the row at test alone."""
    result = {}
    for name, row in ROWS.items():
        if name != "learned":
            changed = copy.deepcopy(model)
            fix(changed, row)
            result[name] = _accuracies(look(changed, videos), videos.labels)
    return result


def _accuracies(seen: Seen, labels: Tensor) -> dict[str, list[float]]:
    """Of the focus alone after 1 to 4 patches, of each patch for itself, and of all at the five exits."""
    steps = range(1, seen.focus.shape[1] + 1)
    return {
        "focus": [_accuracy(seen.focus[:, :n].mean(1), labels) for n in steps],
        "each": [_accuracy(x, labels) for x in seen.focus.unbind(1)],
        "exits": [_accuracy(x, labels) for x in seen.exits.unbind(1)],
    }


def _accuracy(logits: Tensor, labels: Tensor) -> float:
    return (logits.argmax(-1) == labels).double().mean().item()


def _early_exit(solved_on: Seen, solved_labels: Tensor, seen: Seen, labels: Tensor, costs: list[int]) -> dict[str, Any]:
    """For each budget: thresholds that were solved on some videos, at work on others; and exits drawn by the same
    fractions, whatever the video."""
    solved_logits, logits = solved_on.exits.transpose(0, 1), seen.exits.transpose(0, 1)  # [5, n, 10]
    each = (logits.argmax(-1) == labels).double().mean(1)  # [5]
    correct, solved_correct = logits.argmax(-1) == labels, solved_logits.argmax(-1) == solved_labels

    def at(budget: float) -> dict[str, Any]:
        thresholds = solve_thresholds(exit_score(solved_logits), costs, budget=budget, correct=solved_correct)
        found = evaluate_thresholds(thresholds, exit_score(logits), costs, correct=correct)
        return {
            "budget": budget / costs[-1],
            "cost": found.expected_cost / costs[-1],
            "accuracy": found.accuracy,
            "random": (found.exit_fraction @ each).item(),
            "left": found.exit_fraction.tolist(),
        }

    budgets = [share * costs[-1] for share in BUDGETS if share * costs[-1] >= costs[0]]
    return {"budgets": [at(budget) for budget in budgets], "two_patches": at(costs[2])}


def _looks(seen: Seen, videos: Videos) -> dict[str, Any]:
    """Whether the model looked when, where and as large as the digit shows."""
    index, boxes, truth = seen.frame_index, seen.boxes, videos.boxes[:, None].expand_as(seen.boxes)
    shows = (index >= videos.starts[:, None]) & (index < videos.starts[:, None] + LIFE)  # [n, 4]
    if not shows.any():
        return {"shows": [0.0] * shows.shape[1]}
    first, second = to_xyxy(boxes), to_xyxy(truth)
    overlap = torch.minimum(first[..., 2:], second[..., 2:]) - torch.maximum(first[..., :2], second[..., :2])
    covered = overlap.clamp(min=0).prod(-1) / truth[..., 2:].prod(-1)
    sides, true_sides = (x[..., 2:][shows].log() for x in (boxes, truth))  # [m, 2]
    aspect, true_aspect = (x[:, 0] - x[:, 1] for x in (sides, true_sides))
    pairs = [*zip(sides.unbind(1), true_sides.unbind(1), strict=True), (aspect, true_aspect)]
    counts = torch.zeros(FRAMES - LIFE + 1, FRAMES, dtype=torch.int64)
    counts.index_put_((videos.starts[:, None].expand_as(index), index), torch.tensor(1), accumulate=True)
    return {
        "shows": shows.double().mean(0).tolist(),
        "covered": covered[shows].mean().item(),
        "place_error": (boxes[..., :2] - truth[..., :2]).abs()[shows].median(0).values.tolist(),
        "side": sides.mean().exp().item(),
        # Of the logarithms of height, width and height / width with the true ones.
        "size_correlation": [_correlation(*pair) for pair in pairs],
        "size_slope": [_slope(*pair) for pair in pairs],
        "picked": counts.tolist(),  # [first frame with the digit, frame that was picked]
    }


def _slope(values: Tensor, on: Tensor) -> float:
    values, on = values - values.mean(), on - on.mean()
    return ((values * on).mean() / on.square().mean()).item()


def _correlation(values: Tensor, on: Tensor) -> float:
    """0 where one of them does not vary."""
    if values.std() < 1e-4:
        return 0.0
    return torch.corrcoef(torch.stack([values, on]))[0, 1].item()

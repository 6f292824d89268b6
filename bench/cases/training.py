"""A training step, beside the same step in the style of the published code."""

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from adafocus_models import UniAdaFocusTSM
from adafocus_models.training import Losses, objective
from bench.cases.crop_resize import grid_sample_crop
from bench.cases.expected_value import published_expectation
from bench.cases.published import normalised, published_style
from bench.cases.quantile_frames import published_frames

OURS, PUBLISHED = "ours", "published style"
LEARNING_RATE, MOMENTUM = 1e-3, 0.9
WATCHED = ("glance_encoder", "temporal_policy", "spatial_policy", "focus_encoder")
SAMPLES = 128  # of the temporal loss
# How far the two may be apart in evaluation mode, without random patches: rounding, and for the temporal term that one
# of them draws.
TOLERANCE, DRAWN_TOLERANCE = 1e-3, 5e-2


@dataclass
class Steps:
    """Both ways to take a step, each with weights of its own that began equal.

    Args:
        model: in training mode, on its device.
        frames, glance_frames: [B, N, 3, S, S] and [B, T0, 3, S, S] uint8. The published style begins with what its
            data loader gives, which is normalised floating point; ours with the bytes.
        labels: [B].
    """

    model: UniAdaFocusTSM
    frames: Tensor
    glance_frames: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        self.published = published_style(self.model, torch.float32, training=True)
        self.ours = copy.deepcopy(self.model).to(memory_format=torch.channels_last)
        self.floats = [normalised(x, self.model, torch.float32) for x in (self.frames, self.glance_frames)]
        self.optimizers = {
            name: torch.optim.SGD(model.parameters(), LEARNING_RATE, MOMENTUM)
            for name, model in ((OURS, self.ours), (PUBLISHED, self.published))
        }

    def losses(self, way: str, *, random: bool = True) -> Losses:
        """The terms of a step; random: with patches at random places, as training has them."""
        if way == OURS:
            return objective(self.ours, self.frames, self.glance_frames, self.labels, diversity=random)
        return published_losses(self.published, *self.floats, self.labels, random=random)

    def frames_mib(self, way: str) -> float:
        """Memory of the frames that a step begins with."""
        frames = (self.frames, self.glance_frames) if way == OURS else self.floats
        return sum(x.nbytes for x in frames) / 2**20

    def calls(self) -> dict[str, Callable[[], Any]]:
        """A step of each way: losses, gradients, weights."""

        def step(way: str) -> None:
            self.losses(way).total.backward()
            self.optimizers[way].step()
            self.optimizers[way].zero_grad(set_to_none=True)

        return {way: lambda way=way: step(way) for way in (OURS, PUBLISHED)}

    def stage_ms(self, way: str) -> dict[str, float]:
        """Milliseconds of the parts of one step; of the forward pass also those of its modules."""
        model = self.ours if way == OURS else self.published
        device = self.labels.device
        spent: dict[str, float] = {}

        def now() -> float:
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            return time.perf_counter() * 1e3

        def watch(name: str, module: nn.Module) -> list[Any]:
            began: list[float] = []
            before = module.register_forward_pre_hook(lambda *_: began.append(now()))
            after = module.register_forward_hook(
                lambda *_: spent.update({name: spent.get(name, 0.0) + now() - began.pop()})
            )
            return [before, after]

        hooks = [hook for name in WATCHED for hook in watch(name, getattr(model, name))]
        start = now()
        losses = self.losses(way)
        forward = now()
        losses.total.backward()
        backward = now()
        self.optimizers[way].step()
        self.optimizers[way].zero_grad(set_to_none=True)
        end = now()
        for hook in hooks:
            hook.remove()
        return {"forward": forward - start, **spent, "backward": backward - forward, "optimizer": end - backward}

    def check(self) -> dict[str, Any]:
        """Whether both have the same losses and gradients where nothing is random but what the temporal term draws."""
        found, gradients = {}, {}
        for way, model in ((OURS, self.ours), (PUBLISHED, self.published)):
            model.eval()
            found[way] = self.losses(way, random=False)
            found[way].total.backward()
            gradients[way] = torch.stack(
                [
                    sum(p.grad.norm() ** 2 for p in child.parameters() if p.grad is not None) ** 0.5
                    for name, child in model.named_children()
                    if name not in ("temporal_policy", "dropout")  # what is drawn, and what has no weights
                ]
            )
            model.zero_grad(set_to_none=True)
            model.train()
        errors = {
            name: ((a - b).abs() / b.abs().clamp(min=1e-6)).item()
            for name, a, b in zip(Losses._fields, found[OURS], found[PUBLISHED], strict=True)
        }
        drawn = errors.pop("temporal")
        of_gradients = float(((gradients[OURS] - gradients[PUBLISHED]).abs() / gradients[PUBLISHED]).max())
        passed = max(errors.values()) <= TOLERANCE and drawn <= DRAWN_TOLERANCE and of_gradients <= 10 * TOLERANCE
        return {
            "passed": passed,
            "max_error": max(errors.values()),
            "temporal_error": drawn,
            "gradient_error": of_gradients,
            "tolerance": TOLERANCE,
        }


def published_losses(
    model: UniAdaFocusTSM, frames: Tensor, glance_frames: Tensor, labels: Tensor, *, random: bool
) -> Losses:
    """The objective as a chain of generic operations: frames gathered, affine_grid and grid_sample for both crops, the
    temporal loss by samples of every video, and the spatial policy asked twice.

    Args:
        frames, glance_frames: normalised floating point, contiguous.
    """
    maps, features = model.glance(glance_frames.flatten(0, 1))  # [B, T0, C, F, F], [B, T0, C]
    weights = model.temporal_policy(features.detach())
    glance_logits = model.glance_aux_head(features)
    index = published_frames(weights.detach(), model.num_candidate_frames, model.num_focus_frames)  # [B, K]
    videos = torch.arange(len(frames), device=frames.device)[:, None]
    actions = model.spatial_policy(maps.detach())
    smallest, largest = model.sides
    fixed = (model.patch_size - smallest) / (largest - smallest)
    places = torch.cat([torch.rand_like(actions[:, :2]), torch.full_like(actions[:, 2:], fixed)], 1)
    classification, focus = [], []
    for looked in [places, actions.detach()] if random else [actions.detach()]:
        each = looked.repeat_interleave(model.num_focus_frames, 0)  # [B * K, 4]
        sides = smallest + each[:, 2:] * (largest - smallest)
        patches = crop(frames[videos, index].flatten(0, 1), each, sides, model.patch_size)
        seen = model.focus(patches)  # [B, K, channels]
        classification.append(functional.cross_entropy(model.final_head(features.detach(), seen.detach()), labels))
        focus.append(functional.cross_entropy(model.focus_aux_head(seen).mean(1), labels))
    again = model.spatial_policy(maps.detach())
    cells = int(model.patch_size / (model.frame_size / maps.shape[-1]))
    each = again.repeat_interleave(model.num_glance_frames, 0)  # [B * T0, 4]
    sides = (smallest + each[:, 2:] * (largest - smallest)) * cells / model.patch_size
    inside = crop(maps.detach().flatten(0, 1), each, sides, cells).unflatten(0, maps.shape[:2])
    drawn = published_expectation(glance_logits.detach(), weights, max(1, model.num_glance_frames // 3), SAMPLES)
    return Losses(
        classification=torch.stack(classification).mean(),
        glance=functional.cross_entropy(glance_logits.mean(1), labels),
        focus=torch.stack(focus).mean(),
        temporal=functional.cross_entropy(drawn, labels),
        spatial=functional.cross_entropy(model.spatial_aux_head(inside.mean((1, 3, 4))), labels),
        size=(1 - again[:, 2:]).square().mean(),
    )


def crop(images: Tensor, actions: Tensor, sides: Tensor, size: int) -> Tensor:
    """[M, C, size, size]: of images [M, C, S, S], at actions [M, 4], of sides [M, 2] in pixels."""
    centres = actions[:, :2] * (images.shape[-1] - sides) + sides / 2
    return grid_sample_crop(images, torch.cat([centres, sides], 1), size)

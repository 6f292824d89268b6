"""Trains one row: encoders on still pictures once a seed, then all of the model on videos."""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from choices import LEARNED, ROWS, fix
from model import GLANCE_SIDE, FindTheDigit
from torch import Tensor, nn
from videos import LIFE, SIDE, Clips, Videos, make_videos

from adafocus_models.training import Recipe, loop
from adafocus_models.training.losses import size_loss, spatial_loss
from adafocus_ops import crop_mean
from adafocus_ops.boxes import full_frame, scale

RECIPE = Recipe(
    model="uni_adafocus",
    num_classes=10,
    batch_size=32,
    learning_rate=3e-3,
    weight_decay=1e-3,
    epochs=48,
    policy_warmup=4,  # the heads learn before
    rates={"glance_encoder": 0.3, "focus_encoder": 0.3},
    # Of the diversity augmentation nothing is left to do: the focus has seen cut-outs of all sizes.
    objective={"size_weight": 0.1, "diversity": False, "num_samples": 64, "weigh_frames": True, "cells": 8},
    optimizer="adamw",
)


@dataclass(frozen=True)
class Settings:
    """Of all trainings alike; chosen on validation videos of one seed."""

    training_videos: int = 5120
    still_steps: int = 3000
    first_policy_still: int = 1000
    still_batch: int = 96
    still_rate: float = 4e-3
    recipe: Recipe = RECIPE
    videos_an_epoch: int = 320
    last_rate: float = 0.1  # share of the spatial policy's last layer, of which a little moves a box far


def train(row_name: str, seed: int, folder: Path, settings: Settings) -> tuple[FindTheDigit, float]:
    """A trained model, and the seconds of processor time that its own training took, since it was last resumed."""
    videos = training_videos(seed, folder, settings)
    row = ROWS[row_name]
    model = FindTheDigit().to(memory_format=torch.channels_last)
    model.load_state_dict(pretrained(seed, folder, settings, videos))
    fix(model, row)
    recipe = replace(settings.recipe, seed=seed)
    if row.size != LEARNED:
        recipe = replace(recipe, objective={**recipe.objective, "size_weight": 0.0})
    last = [name for name, _ in model.named_parameters() if name.endswith("layers.9.weight")]
    rates = {**recipe.rates, **dict.fromkeys(last, settings.last_rate)}
    clips = Clips(videos, settings.videos_an_epoch)
    start = time.process_time()
    loop.train(model, recipe, clips, None, out=folder / f"{row_name}_{seed}", rates=rates, resume=True)
    return model, time.process_time() - start


def training_videos(seed: int, folder: Path, settings: Settings) -> Videos:
    """Made once a seed."""
    path = folder / f"videos_{seed}_{settings.training_videos}.pt"
    if not path.exists():
        save(tuple(make_videos("train", settings.training_videos, 1000 + seed)), path)
    return Videos(*torch.load(path, mmap=True))


def pretrained(seed: int, folder: Path, settings: Settings, videos: Videos) -> dict[str, Tensor]:
    """The weights that all rows of a seed start from."""
    path = folder / f"stills_{seed}.pt"
    if not path.exists():
        torch.manual_seed(seed)
        model = FindTheDigit().to(memory_format=torch.channels_last)
        _train_on_stills(model, videos, settings)
        save(model.state_dict(), path)
    return torch.load(path)


def save(what: Any, path: Path) -> None:
    """Whole or not at all."""
    unfinished = path.with_suffix(".unfinished")
    torch.save(what, unfinished)
    unfinished.replace(path)


# ----------------------------------------------------------------------------------------------------
# Stills, which do what ImageNet does for the paper's encoders


def _train_on_stills(model: FindTheDigit, videos: Videos, settings: Settings) -> None:
    """Both encoders learn digits from still pictures: whole frames that show one, and cut-outs that one fills.

    So the features mean something before a policy asks them where to look.
    """
    count, options = settings.still_batch, settings.recipe.objective
    cells, size_weight = options["cells"], options["size_weight"]
    optimizer = torch.optim.AdamW(
        model.parameters(), settings.still_rate, weight_decay=settings.recipe.weight_decay, fused=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.still_rate, total_steps=settings.still_steps, pct_start=0.15
    )
    for step in range(settings.still_steps):
        rows = torch.randint(len(videos.labels), (count,))
        frames = videos.frames[rows, videos.starts[rows] + torch.randint(LIFE, (count,))]
        frames, labels = frames[:, None].expand(-1, 3, -1, -1), videos.labels[rows]  # [B, 3, 96, 96]
        whole = model.read(frames, full_frame(count, (SIDE, SIDE)), None, GLANCE_SIDE, model.glance_encoder)
        maps, features = (x.flatten(0, 1) for x in model.glance(whole))  # one still each: [B, 25, 12, 12], [B, 25]
        on_maps = scale(_cut_out(videos.boxes[rows], 0.0, 0.3), (SIDE, SIDE), maps.shape[-2:])
        inside = crop_mean(maps, on_maps, cells)  # [B, 25]
        patches = model.read(
            frames, _cut_out(videos.boxes[rows], 0.1, 0.9), None, model.patch_size, model.focus_encoder
        )
        loss = (
            nn.functional.cross_entropy(model.glance_aux_head(features), labels)
            + nn.functional.cross_entropy(model.spatial_aux_head(inside), labels)
            + nn.functional.cross_entropy(model.focus_aux_head(model.focus(patches)), labels)
        )
        if step >= settings.first_policy_still:
            actions = model.spatial_policy(maps[:, None].detach())  # [B, 1, 4]
            pixel = maps.shape[-1] / SIDE
            loss = loss + spatial_loss(model, maps[:, None], actions, labels, None, cells, pixel)
            loss = loss + size_weight * size_loss(actions)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def _cut_out(boxes: Tensor, enlarged: float, spread: float) -> Tensor:
    """Boxes about these [B, 4]: sides apart times exp(enlarged +- spread / 2), centres a tenth of a side off."""
    places, sides = boxes[:, :2], boxes[:, 2:]
    factors = (enlarged + spread * (torch.rand_like(sides) - 0.5)).exp()
    return torch.cat([places + 0.1 * sides * torch.randn_like(sides), sides * factors], 1)

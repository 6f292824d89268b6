"""Trains one row: encoders on still pictures once a seed, then all of the model on videos."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from choices import LEARNED, ROWS, Row, fix
from model import GLANCE_SIDE, FindTheDigit
from torch import Tensor, nn
from videos import LIFE, SIDE, Videos, make_videos

from adafocus_models.training import objective
from adafocus_models.training.losses import size_loss, spatial_loss
from adafocus_ops import crop_mean
from adafocus_ops.boxes import full_frame, scale


@dataclass(frozen=True)
class Settings:
    """Of all trainings alike; chosen on validation videos of one seed."""

    training_videos: int = 5120
    still_steps: int = 3000
    first_policy_still: int = 1000
    still_batch: int = 96
    still_rate: float = 4e-3
    steps: int = 240
    batch: int = 32
    rate: float = 3e-3
    # Learning rates of parts, as fractions of `rate`; the rest learns at 1.
    encoder_rate: float = 0.3
    policy_rate: float = 1.0
    last_rate: float = 0.1  # of the spatial policy's last layer, of which a little moves a box far
    weight_decay: float = 1e-3
    first_policy_step: int = 20  # the heads learn before
    size_weight: float = 0.1
    cells: int = 8
    num_samples: int = 64


def train(row_name: str, seed: int, folder: Path, settings: Settings) -> tuple[FindTheDigit, float]:
    """A trained model, and the seconds of processor time that its own training took."""
    videos = training_videos(seed, folder, settings)
    row = ROWS[row_name]
    torch.manual_seed(seed)
    model = FindTheDigit().to(memory_format=torch.channels_last)
    model.load_state_dict(pretrained(seed, folder, settings, videos))
    torch.manual_seed(seed)
    fix(model, row)
    start = time.process_time()
    _train_on_videos(model, row, videos, settings)
    return model, time.process_time() - start


def training_videos(seed: int, folder: Path, settings: Settings) -> Videos:
    """Made once a seed."""
    path = folder / f"videos_{seed}_{settings.training_videos}.pt"
    if not path.exists():
        torch.save(tuple(make_videos("train", settings.training_videos, 1000 + seed)), path)
    return Videos(*torch.load(path, mmap=True))


def pretrained(seed: int, folder: Path, settings: Settings, videos: Videos) -> dict[str, Tensor]:
    """The weights that all rows of a seed start from."""
    path = folder / f"stills_{seed}.pt"
    if not path.exists():
        model = FindTheDigit().to(memory_format=torch.channels_last)
        _train_on_stills(model, videos, settings)
        torch.save(model.state_dict(), path)
    return torch.load(path)


# ----------------------------------------------------------------------------------------------------
# Stills, which do what ImageNet does for the paper's encoders


def _train_on_stills(model: FindTheDigit, videos: Videos, settings: Settings) -> None:
    """Both encoders learn digits from still pictures: whole frames that show one, and cut-outs that one fills.

    So the features mean something before a policy asks them where to look.
    """
    count = settings.still_batch
    optimizer, schedule = _optimizer(model, settings, settings.still_rate, 1.0, settings.still_steps)
    for step, rows in enumerate(_batches(len(videos.labels), count, settings.still_steps)):
        frames = videos.frames[rows, videos.starts[rows] + torch.randint(LIFE, (count,))]
        frames, labels = frames[:, None].expand(-1, 3, -1, -1), videos.labels[rows]  # [B, 3, 96, 96]
        whole = model.read(frames, full_frame(count, (SIDE, SIDE)), None, GLANCE_SIDE, model.glance_encoder)
        maps, features = (x.flatten(0, 1) for x in model.glance(whole))  # one still each: [B, 25, 12, 12], [B, 25]
        on_maps = scale(_cut_out(videos.boxes[rows], 0.0, 0.3), (SIDE, SIDE), maps.shape[-2:])
        inside = crop_mean(maps, on_maps, settings.cells)  # [B, 25]
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
            loss = loss + spatial_loss(model, maps[:, None], actions, labels, None, settings.cells, pixel)
            loss = loss + settings.size_weight * size_loss(actions)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def _cut_out(boxes: Tensor, enlarged: float, spread: float) -> Tensor:
    """Boxes about these [B, 4]: sides apart times exp(enlarged +- spread / 2), centres a tenth of a side off."""
    places, sides = boxes[:, :2], boxes[:, 2:]
    factors = (enlarged + spread * (torch.rand_like(sides) - 0.5)).exp()
    return torch.cat([places + 0.1 * sides * torch.randn_like(sides), sides * factors], 1)


# ----------------------------------------------------------------------------------------------------
# Videos, of which only the classes are known


def _train_on_videos(model: FindTheDigit, row: Row, videos: Videos, settings: Settings) -> None:
    optimizer, schedule = _optimizer(model, settings, settings.rate, settings.encoder_rate, settings.steps)
    for step, rows in enumerate(_batches(len(videos.labels), settings.batch, settings.steps)):
        losses = objective(
            model,
            videos.batch(rows),
            None,
            videos.labels[rows],
            size_weight=settings.size_weight,
            diversity=False,  # the focus has seen cut-outs of all sizes
            num_samples=settings.num_samples,
            policies=step >= settings.first_policy_step,
            weigh_frames=True,
            cells=settings.cells,
        )
        # Of a fixed choice no loss.
        unused = {
            "temporal": row.frames != LEARNED,
            "spatial": row.size == "whole",
            "size": row.size != LEARNED,
        }
        loss = sum(value for name, value in losses._asdict().items() if not unused.get(name))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def _optimizer(
    model: FindTheDigit, settings: Settings, rate: float, encoder_rate: float, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """AdamW and one cycle, with a learning rate for each part of the model."""
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        part = 1.0
        if "encoder" in name:
            part = encoder_rate
        elif name.startswith(("spatial_policy", "temporal_policy")):
            part = settings.last_rate if name.endswith("layers.9.weight") else settings.policy_rate
        groups.setdefault(part * rate, []).append(parameter)
    optimizer = torch.optim.AdamW(
        [{"params": parameters, "lr": rate} for rate, parameters in groups.items()],
        weight_decay=settings.weight_decay,
        fused=True,
    )
    return optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, list(groups), total_steps=steps, pct_start=0.15)


def _batches(videos: int, batch: int, steps: int) -> Iterator[Tensor]:
    """Rows [batch] of each step: all videos in random order, again and again."""
    order = torch.empty(0, dtype=torch.int64)
    for _ in range(steps):
        if len(order) < batch:
            order = torch.randperm(videos)
        rows, order = order[:batch], order[batch:]
        yield rows

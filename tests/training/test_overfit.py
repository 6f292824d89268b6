"""Every term of every objective can be lowered: twenty steps on two clips."""

import pytest
import torch
from tiny_models import fresh, tiny_clips

from adafocus_models.training import Losses, objective

STEPS = 20
# The published optimizer. Adam moves the maps faster than the spatial head, which sees them detached, can follow.
SGD = {"lr": 0.03, "momentum": 0.9}


def first_and_last(name: str, seed: int, **options) -> tuple[Losses, Losses]:
    """The losses before and after, of the same random numbers."""
    model = fresh(name, seed=seed)
    frames, glance_frames = tiny_clips(model, 2)
    optimizer = torch.optim.SGD(model.parameters(), **SGD)

    def losses() -> Losses:
        generator = torch.Generator().manual_seed(0)
        return objective(model, frames, glance_frames, torch.tensor([0, 1]), generator=generator, **options)

    first = losses()
    for _ in range(STEPS):
        optimizer.zero_grad()
        losses().total.backward()
        optimizer.step()
    return first, losses()


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((name, {}) for name in ("uni_adafocus", "uni_adafocus_tsm", "uni_adafocus_x3d")),
        *((name, {}) for name in ("adafocus_v2", "adafocus_v2_tsm", "tsm", "tsm_plus")),
        *((name, {"stage": stage}) for name in ("adafocus_v1", "adafocus_v1_tsm") for stage in (0, 1, 3)),
    ],
)
def test_twenty_steps_on_two_clips_lower_every_term(name, options, seed):
    first, last = first_and_last(name, seed, **options)
    for term, before, after in zip(Losses._fields, first, last, strict=True):
        assert after < before or before == after == 0, f"{term}: {before:.3f} -> {after:.3f}"
    assert last.total < first.total

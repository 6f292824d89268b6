"""The same task for AdaFocus, whose policy learns by reinforcement: its stages, and what the learned places are worth.

    python docs/examples/find_the_digit/reinforcement.py --seeds 0 1 2

It sees every second frame, in each a patch of 40 x 40 pixels at one of 49 places, and answers after all of them. Its
encoders begin with stills. Then the library's loop runs the three stages: patches at random places; the policy, by the
confidence that a place brings over a random one; the head again, where the policy looks. To compare, the first stage
goes on with random places for as long as the last.
"""

import argparse
import copy
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from model import Encoder, ScoredEncoder, weigh
from torch import Tensor, nn
from videos import FRAMES, LIFE, SIDE, Clips, Videos, make_videos

from adafocus_models import AdaFocusV1
from adafocus_models.networks.policies import fixed_corners
from adafocus_models.training import Recipe
from adafocus_models.training.loop import train
from adafocus_ops.boxes import full_frame
from report import write_report

RESULTS = Path(__file__).with_name("reinforcement.jsonl")
EVERY = 2  # frame of a video is looked at
PATCH = 40
STILLS, STILL_BATCH, STILL_RATE = 1500, 96, 4e-3
VIDEOS_AN_EPOCH = 640
EPOCHS = {1: 30, 2: 30, 3: 10}  # of each stage
RECIPE = Recipe("adafocus_v1", 10, batch_size=32, learning_rate=3e-3, weight_decay=1e-3, optimizer="adamw")
# At the head's rate the focus, of whose random patches most show nothing, forgets what it knows from stills.
STAGE_1 = {"rates": {"focus_encoder": 0.1}}


class Halved(nn.Sequential):
    """An encoder that sees frames of half the side."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__(nn.AvgPool2d(2), encoder)
        self.out_channels, self.reduction = encoder.out_channels, 2 * encoder.reduction


class FindByReward(AdaFocusV1):
    """AdaFocus with small encoders, on 8 frames."""

    mean, std = (0.15,) * 3, (0.2,) * 3

    def __init__(self) -> None:
        super().__init__(
            num_classes=10,
            patch_size=PATCH,
            num_focus_frames=FRAMES // EVERY,
            num_places=49,
            glance_encoder=ScoredEncoder(Halved(Encoder((8, 12, 24), (2, 2, 1)))),
            focus_encoder=ScoredEncoder(Encoder((16, 24, 32, 48), (2, 1, 2, 1))),
            frame_size=SIDE,
            policy_width=64,
            head_width=64,
        )

    def glance(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Stage: maps [M, 25, 12, 12] and features [M, 25], each for itself."""
        return weigh(self.glance_encoder(frames))

    def focus(self, patches: Tensor) -> Tensor:
        """Stage: features [M, 49] of patches, each for itself."""
        _, features = weigh(self.focus_encoder(patches))
        return features


def train_on_stills(model: FindByReward, videos: Videos) -> None:
    """Both encoders learn digits from still pictures: whole frames, and patches that show the digit."""
    optimizer = torch.optim.AdamW(model.parameters(), STILL_RATE, weight_decay=RECIPE.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, STILL_RATE, total_steps=STILLS)
    whole = full_frame(STILL_BATCH, (SIDE, SIDE))
    for _ in range(STILLS):
        rows = torch.randint(len(videos.labels), (STILL_BATCH,))
        stills = videos.frames[rows, videos.starts[rows] + torch.randint(LIFE, (STILL_BATCH,))]
        stills, labels = stills[:, None].expand(-1, 3, -1, -1), videos.labels[rows]
        _, features = model.glance(model.read(stills, whole, None, SIDE, model.glance_encoder))
        corners = videos.boxes[rows, :2] - PATCH / 2 + 0.15 * PATCH * torch.randn(STILL_BATCH, 2)
        centres = corners.clamp(0, SIDE - PATCH).round() + PATCH / 2
        boxes = torch.cat([centres, torch.full_like(centres, PATCH)], 1)
        seen = model.focus(model.read(stills, boxes, None, PATCH, model.focus_encoder))
        loss = sum(
            nn.functional.cross_entropy(logits, labels)
            for logits in (model.glance_aux_head(features), model.focus_aux_head(seen))
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


@torch.inference_mode()
def measure(model: FindByReward, videos: Videos, *, random: bool, batch: int = 128) -> dict[str, float]:
    """The share of right answers after all frames, and of digits in the frames looked at that the patch has the
    centre of; random: at random places."""
    model.eval()
    right = found = shown = 0
    for first in range(0, len(videos.labels), batch):
        part = Videos(*(x[first : first + batch] for x in videos))
        frames = part.batch(slice(None))[:, ::EVERY]
        index, rows = model.all_candidates(frames), torch.arange(len(frames))
        whole = model.read_whole(frames, None, model.glance_encoder)
        maps, features = (x.unflatten(0, frames.shape[:2]) for x in model.glance(whole))
        boxes = anywhere(len(frames)) if random else model.policy(maps, index, None).boxes  # [B, 8, 4]
        seen = model.focus(model.read_patches(frames, boxes, index, rows)).unflatten(0, frames.shape[:2])
        logits, _ = model.final_head(features, seen, None)
        right += int((logits[:, -1].argmax(1) == part.labels).sum())
        age = torch.arange(0, FRAMES, EVERY) - part.starts[:, None]
        shows = (age >= 0) & (age < LIFE)
        near = ((boxes - part.boxes[:, None])[..., :2].abs() < PATCH / 2).all(-1)
        found, shown = found + int((near & shows).sum()), shown + int(shows.sum())
    return {"accuracy": right / len(videos.labels), "found": found / shown}


def anywhere(count: int) -> Tensor:
    """[count, 8, 4]: boxes at random places."""
    return fixed_corners(torch.rand(count, FRAMES // EVERY, 2), SIDE, PATCH)


def run(seed: int, training_videos: int = 5120, test_videos: int = 2048) -> dict:
    """Trains both, and measures them on test videos."""
    videos, test = make_videos("train", training_videos, 1000 + seed), make_videos("test", test_videos, 99)
    torch.manual_seed(seed)
    model = FindByReward().to(memory_format=torch.channels_last)
    train_on_stills(model, videos)
    clips = Clips(videos, VIDEOS_AN_EPOCH, every=EVERY)

    def stage(model: FindByReward, number: int, epochs: int, **changes: Any) -> None:
        options = {"stage": number, **changes.pop("objective", {})}
        recipe = replace(RECIPE, epochs=epochs, objective=options, seed=seed, **changes)
        with tempfile.TemporaryDirectory() as folder:
            train(model, recipe, clips, None, out=folder)

    stage(model, 1, EPOCHS[1], **STAGE_1)
    random = copy.deepcopy(model)
    stage(random, 1, EPOCHS[3], **STAGE_1)
    # A frame's place earns nothing in later frames: what these bring would be noise in its reward.
    stage(model, 2, EPOCHS[2], objective={"discount": 0.0})
    stage(model, 3, EPOCHS[3])
    torch.manual_seed(seed)
    result = {"learned": measure(model, test, random=False), "random": measure(random, test, random=True)}
    return {"seed": seed, "torch": torch.__version__, **result}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    lines = RESULTS.read_text().splitlines() if RESULTS.exists() else []
    done = {json.loads(line)["seed"] for line in lines}
    for seed in (seed for seed in options.seeds if seed not in done):
        result = run(seed)
        with RESULTS.open("a") as file:
            file.write(json.dumps(result) + "\n")
        print(result, flush=True)
    write_report(RESULTS.parent)
    return 0


if __name__ == "__main__":
    sys.exit(main())

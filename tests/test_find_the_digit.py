"""The experiment in docs/examples/find_the_digit, with a few steps of everything: it runs, and says what it must."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("sklearn", reason="the experiment's digits are scikit-learn's")
ROOT = Path(__file__).parents[1]

FEW_STEPS = """
import sys
from dataclasses import replace
from pathlib import Path
import torch
torch.set_num_threads(1)
from choices import ROWS
from measure import measure
from train import RECIPE, Settings, train
from videos import LIFE, make_videos

settings = Settings(
    training_videos=64, still_steps=2, first_policy_still=1, still_batch=8,
    recipe=replace(RECIPE, batch_size=8, epochs=2, policy_warmup=1), videos_an_epoch=8,
)
videos = make_videos("validation", 16, 3)
again = make_videos("validation", 16, 3)
assert all(torch.equal(a, b) for a, b in zip(videos, again))
shown = videos.frames[torch.arange(16), videos.starts].float()
top = (videos.boxes[:, :2] - videos.boxes[:, 2:] / 2).clamp(min=0)
assert (top + videos.boxes[:, 2:] <= 96.001).all() and (videos.starts + LIFE <= 16).all()
for row in ("learned", "place_random", "size_whole", "frames_uniform", "nothing"):
    model, _ = train(row, 0, Path(sys.argv[1]), settings)
    numbers = measure(model, row, videos, videos)
    assert len(numbers["test"]["focus"]) == 4 and len(numbers["test"]["exits"]) == 5, numbers
    assert numbers["exit_costs"][-1] > numbers["exit_costs"][0]
    spatial = any("spatial_policy" in name and p.requires_grad for name, p in model.named_parameters())
    assert spatial == (ROWS[row].size != "whole"), row
"""

REINFORCEMENT = """
import reinforcement
reinforcement.STILLS, reinforcement.EPOCHS, reinforcement.VIDEOS_AN_EPOCH = 2, {1: 1, 2: 1, 3: 1}, 32
result = reinforcement.run(0, training_videos=64, test_videos=16)
assert result["learned"].keys() == result["random"].keys() == {"accuracy", "found"}, result
"""


@pytest.mark.parametrize("program", [FEW_STEPS, REINFORCEMENT], ids=["end to end", "by reinforcement"])
def test_a_few_steps_of_everything(program, tmp_path):
    folder = ROOT / "docs" / "examples" / "find_the_digit"
    paths = f"{ROOT}:{folder}"
    command = [sys.executable, "-c", program, str(tmp_path)]
    subprocess.run(command, check=True, timeout=300, env={"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "PATH": ""})

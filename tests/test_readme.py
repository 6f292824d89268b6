"""What README shows runs."""

import re
from pathlib import Path

import torch

README = (Path(__file__).parents[1] / "README.md").read_text()


def run_example(heading: str) -> dict:
    """Runs the first example below a heading; returns its variables."""
    section = README.split(f"## {heading}\n", 1)[1]
    names = {}
    exec(re.search(r"```python\n(.*?)```", section, re.DOTALL)[1], names)
    return names


def test_the_ten_lines_of_crop_resize():
    names = run_example("crop_resize in ten lines")
    assert names["patches"].shape == (3, 3, 96, 96)
    assert names["boxes"].grad.abs().sum() > 0


def test_antialiasing_and_the_mean_of_a_crop():
    assert run_example("Without aliasing, and without the crop")["thumbnail"].requires_grad


def test_only_images_that_are_unsure_reach_the_second_stage():
    names = run_example("Early exit in any classifier")
    model, images, thresholds = names["model"], names["images"], names["thresholds"]
    assert thresholds.expected_cost == 2.5
    batches = []
    model.layers.register_forward_hook(lambda module, inputs, output: batches.append(len(inputs[0])))
    max_entropy = -thresholds.values[0].item()
    with torch.no_grad():
        assert torch.equal(model(images, max_entropy), names["logits"])
        features, early = model.first(images)
        late = model.second(features)
    entropy = torch.distributions.Categorical(logits=early).entropy()
    assert (entropy - max_entropy).abs().min() > 1e-6  # rounding decides nothing
    unsure = entropy > max_entropy
    assert batches == [int(unsure.sum()), len(images)]
    assert 16 < batches[0] < 48
    torch.testing.assert_close(names["logits"], torch.where(unsure[:, None], late, early))


def test_selector_learns_to_pick_what_shows_the_class():
    names = run_example("Learning what to pick")
    assert names["right"] > 0.95
    assert names["loss"].isfinite()

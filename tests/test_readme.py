"""What README shows runs."""

import re
from pathlib import Path

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

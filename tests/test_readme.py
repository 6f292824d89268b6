"""What README shows runs."""

import re
from pathlib import Path

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_the_ten_lines_of_crop_resize():
    (block,) = re.findall(r"## crop_resize in ten lines\n```python\n(.*?)```", README, re.DOTALL)
    names = {}
    exec(block, names)
    assert names["patches"].shape == (3, 3, 96, 96)
    assert names["boxes"].grad.abs().sum() > 0

"""Files of thresholds: whole or not at all, and a clear error for what is none."""

import json

import pytest
import torch
from exit_data import random_scores

from adafocus_models import Thresholds, solve_thresholds

NAN = float("nan")


def test_files_hold_everything(tmp_path):
    scores, costs, _ = random_scores()
    solved = solve_thresholds(scores, costs, q=0.3, criterion="confidence")
    path = tmp_path / "thresholds.json"
    solved.save(path)
    solved.save(str(path))  # over the old one
    loaded = Thresholds.load(path)
    assert torch.equal(loaded.values, solved.values)
    assert torch.equal(loaded.exit_fraction, solved.exit_fraction)
    assert loaded.expected_cost == solved.expected_cost
    assert loaded.criterion == "confidence"
    content = json.loads(path.read_text())
    assert list(content) == ["format", "version", "values", "exit_fraction", "expected_cost", "criterion"]
    assert content["version"] == 1
    assert list(tmp_path.iterdir()) == [path]


def test_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "thresholds.json"
    solved = solve_thresholds(torch.rand(2, 9), [1.0, 2.0], q=1.0)
    solved.save(path)
    before = path.read_text()
    with pytest.raises(ValueError, match="not JSON compliant"):
        solved._replace(expected_cost=NAN).save(path)

    def full(self, text):
        with self.open("w") as file:
            file.write(text[:20])
        raise OSError("no space left")

    monkeypatch.setattr("pathlib.Path.write_text", full)
    with pytest.raises(OSError, match="no space left"):
        solved.save(path)
    assert path.read_text() == before
    assert list(tmp_path.iterdir()) == [path]


GOOD = {
    "format": "adafocus exit thresholds",
    "version": 1,
    "values": [0.5, -1e8],
    "exit_fraction": [0.25, 0.75],
    "expected_cost": 3.5,
}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "must be a JSON file of thresholds, but it cannot be read: Expecting"),
        ("[1, 2]", 'must be a file of thresholds, with "format": "adafocus exit thresholds"'),
        ("{}", 'with "format"'),
        (json.dumps(GOOD | {"version": 2}), "must be of version 1, got 2"),
        (
            json.dumps({k: v for k, v in GOOD.items() if k != "values"}),
            "values must be a list of finite numbers, got None",
        ),
        (json.dumps(GOOD | {"values": [0.5, "x"]}), "values must be a list of finite numbers, got .*'x'"),
        (json.dumps(GOOD | {"values": [NAN, 1.0]}), "values must be a list of finite numbers, got .*nan"),
        (json.dumps(GOOD | {"exit_fraction": 1.0}), "exit_fraction must be a list of finite numbers, got 1.0"),
        (json.dumps(GOOD | {"values": [1.0]}), "one number an exit, got 1 and 2"),
        (json.dumps(GOOD | {"values": [], "exit_fraction": []}), "one number an exit, got 0 and 0"),
        (json.dumps(GOOD | {"criterion": "margin"}), "criterion must be one of 'entropy', .* got 'margin'"),
        (json.dumps(GOOD | {"expected_cost": True}), "expected_cost must be a finite number, got True"),
    ],
)
def test_bad_files_say_what_is_wrong(tmp_path, text, message):
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        Thresholds.load(path)
    assert str(path) in str(error.value)


def test_file_that_is_no_text_or_not_there(tmp_path):
    path = tmp_path / "bad.json"
    path.write_bytes(bytes(range(128, 256)))
    with pytest.raises(ValueError, match="cannot be read"):
        Thresholds.load(path)
    with pytest.raises(FileNotFoundError):
        Thresholds.load(tmp_path / "absent.json")
    path.write_text(json.dumps(GOOD))
    assert Thresholds.load(path).values.tolist() == [0.5, -1e8]
    assert Thresholds.load(path).criterion == "entropy"  # of a file that doesn't say

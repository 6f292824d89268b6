"""bench/estimators.py: that its two estimators estimate the same, and what it writes."""

import pytest
import torch

from bench import estimators
from bench.harness import records


@pytest.fixture
def few_seeds(monkeypatch):
    monkeypatch.setattr(estimators, "SEEDS", 30)
    monkeypatch.setattr(estimators, "CASES", estimators.CASES[:1])


def test_a_record_has_both_variances(few_seeds, tmp_path):
    path = tmp_path / "records.jsonl"
    assert estimators.main(["--device", "cpu", "--backend", "reference", "--runs", "1", "--json", str(path)]) == 0
    (record,) = records.read(path)
    assert record["check"]["passed"]
    assert set(record["variance"]) == {"one sequence", "anew for every step"}
    assert all(value > 0 for value in (*record["variance"].values(), *record["ratios"].values()))


def test_estimators_that_disagree_are_not_reported(few_seeds, monkeypatch, tmp_path):
    wrong = {**estimators.ESTIMATORS, "one sequence": lambda *call: estimators.one_sequence(*call) * 1.2}
    monkeypatch.setattr(estimators, "ESTIMATORS", wrong)
    with pytest.raises(SystemExit, match="standard errors apart"):
        estimators.main(["--device", "cpu", "--backend", "reference", "--json", str(tmp_path / "records.jsonl")])


def test_two_steps_of_both_have_the_same_expectation():
    values, weights = estimators.CASES[0].inputs(torch.device("cpu"))
    exact = estimators.expected_value(values, weights, 2, mode="exact", backend="reference")
    for estimate in estimators.ESTIMATORS.values():
        mean = torch.stack([estimate(values, weights, 2, seed) for seed in range(50)]).mean(0)
        torch.testing.assert_close(mean, exact, rtol=0, atol=0.02)

"""Curves: thresholds of every budget in one file, and which of them a budget takes."""

import json

import pytest
import torch
from exit_data import random_scores
from test_exit_loop import random_logits

from adafocus_models import Curve, Thresholds, evaluate_thresholds, exit_curve, load_thresholds, solve_thresholds
from adafocus_models.exits import StoredLogits
from adafocus_models.exits.scores import CRITERIA


def made(**options) -> Curve:
    scores, costs, correct = random_scores()
    return exit_curve(scores, costs, correct, **options)


def test_a_budget_takes_the_most_accurate_that_keeps_to_it():
    scores, costs, correct = random_scores()
    curve = made()
    for budget in (2.5, 4.0, 7.7, float("inf")):
        chosen = curve.within(budget)
        found = evaluate_thresholds(chosen, scores, costs, correct=correct)
        assert found.expected_cost == chosen.expected_cost <= budget
        assert found.accuracy == curve.accuracy[curve.expected_cost <= budget].max()
    with pytest.raises(ValueError, match="budget must be at least 2 "):
        curve.within(1.0)


def test_where_no_answer_is_known_a_budget_is_spent():
    scores, costs, _ = random_scores()
    curve = exit_curve(scores, costs)
    assert curve.accuracy.isnan().all()
    assert curve.within(5.0).expected_cost == curve.expected_cost[curve.expected_cost <= 5.0].max()


@pytest.mark.parametrize("known", [True, False])
def test_files_hold_everything(tmp_path, known):
    curve = made(criterion="confidence") if known else exit_curve(*random_scores()[:2], criterion="confidence")
    path = tmp_path / "curve.json"
    curve.save(path)
    for loaded in (Curve.load(path), load_thresholds(path)):
        assert isinstance(loaded, Curve)
        for ours, theirs in zip(loaded[:-1], curve[:-1], strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=0, equal_nan=True)
        assert loaded.criterion == "confidence"
    solve_thresholds(*random_scores()[:2], q=0.5).save(path)
    assert isinstance(load_thresholds(path), Thresholds)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "must be of version 1, got 2"),
        ({"q": None}, "must hold numbers for q, expected_cost"),
        ({"accuracy": ["good"]}, "must hold numbers for q, expected_cost"),
        ({"q": [1.0]}, "must hold a number for each point"),
        ({"values": [[[0.0]]]}, "must hold a number for each point"),
        ({"criterion": "mood"}, "criterion must be one of"),
    ],
)
def test_files_of_something_else(tmp_path, change, message):
    path = tmp_path / "curve.json"
    made().save(path)
    content = json.loads(path.read_text()) | change
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        load_thresholds(path)


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("rows", [0, 1, 40])
def test_decisions_without_waiting_are_those_of_exact_sizes(criterion, rows):
    logits = random_logits(1, rows)[0]
    if rows > 3:
        logits[3] = float("nan")
    value = {"entropy": -1.5, "confidence": 0.6, "max_logit": 1.0}[criterion]
    thresholds = Thresholds.of([value], criterion)
    exact, loose = thresholds.gate(logits), thresholds.gate(logits, exact=False)
    staying, leaving = loose.counts.tolist()
    assert torch.equal(loose.exited, exact.exited)
    assert torch.equal(loose.keep[:staying], exact.keep)
    assert torch.equal(loose.leave[:leaving], exact.leave)
    assert torch.equal(loose.counts, exact.counts)
    if rows > 3:
        assert 3 in exact.keep
        assert 0 < leaving < rows


def test_stored_logits(tmp_path):
    logits, path = random_logits(3, 8).transpose(0, 1), tmp_path / "logits.safetensors"
    stored = StoredLogits(logits, torch.arange(8) % 7, torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))
    stored.save(path)
    loaded = StoredLogits.load(path)
    assert all(torch.equal(a, b) for a, b in zip(loaded, stored, strict=True))
    assert list(tmp_path.iterdir()) == [path]
    assert loaded.scores("entropy").shape == loaded.correct.shape == (3, 8)
    assert loaded.correct[2, 5] == (logits[5, 2].argmax() == 5)
    for change, message in (
        ({"labels": torch.full((8,), 7)}, r"labels must be in \[0, 7\)"),
        ({"labels": torch.zeros(7, dtype=torch.int64)}, r"labels must be \[V\] int64 with V=8"),
        ({"costs": torch.ones(2)}, r"costs must be \[E\] with E=3"),
        ({"exit_logits": torch.zeros(8, 3)}, r"exit_logits must be \[V, E, C\]"),
    ):
        stored._replace(**change).save(path)
        with pytest.raises(ValueError, match=message):
            StoredLogits.load(path)

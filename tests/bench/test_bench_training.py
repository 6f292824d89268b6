"""bench/training.py: both ways to take a step compute the same, and its records make a table."""

import json

import pytest
import torch
from tiny_models import fresh, tiny_clips

from bench import report, training
from bench.cases import training as cases


@pytest.fixture
def steps(monkeypatch):
    model = fresh("uni_adafocus_tsm")
    return cases.Steps(model, *tiny_clips(model, 2), torch.tensor([0, 1]))


def test_both_ways_have_the_same_losses_and_gradients(steps):
    check = steps.check()
    assert check["passed"], check
    assert check["gradient_error"] < 1e-3


@pytest.mark.parametrize("term", ["glance", "spatial", "size"])
def test_a_term_that_is_wrong_is_noticed(steps, monkeypatch, term):
    right = cases.published_losses

    def wrong(*arguments, **options):
        losses = right(*arguments, **options)
        return losses._replace(**{term: getattr(losses, term) * 1.01})

    monkeypatch.setattr(cases, "published_losses", wrong)
    assert not steps.check()["passed"]


def test_a_step_moves_the_weights_of_its_own_way(steps):
    for way, call in steps.calls().items():
        before = {name: value.clone() for name, value in steps.ours.named_parameters()}
        call()
        moved = any(not torch.equal(value, before[name]) for name, value in steps.ours.named_parameters())
        assert moved == (way == cases.OURS)
    parts = steps.stage_ms(cases.OURS)
    assert set(parts) == {"forward", *cases.WATCHED, "backward", "optimizer"}
    assert parts["forward"] > parts["focus_encoder"] > 0


def test_rows_and_their_table(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("bench.cases.models.create_model", lambda name: fresh("uni_adafocus_tsm"))
    path = tmp_path / "training_made-up.jsonl"
    arguments = ["--synthetic", "--runs", "2", "--threads", "1", "--device", "cpu", "--json", str(path)]
    assert training.main(arguments) == 0
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["engine"] for row in rows] == [cases.OURS, cases.PUBLISHED]
    assert rows[1]["ratios"] == {cases.PUBLISHED: 1.0}
    assert "published style" in capsys.readouterr().out
    table = report.section("training", tmp_path)
    assert "| uni_adafocus_tsm_96_8+8 | ours |" in table


def test_other_networks_have_no_published_style(capsys):
    with pytest.raises(SystemExit):
        training.main(["--configs", "uni_adafocus_128_16+16"])
    assert "for uni_adafocus_tsm alone, got uni_adafocus_128_16+16" in capsys.readouterr().err

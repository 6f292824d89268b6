"""The loop over exits: who leaves, whose number a row has, and thresholds as the gate."""

import math
from functools import partial

import pytest
import torch
from exit_data import random_scores
from oracle_models import small_model

from adafocus_models import ExitLoop, Thresholds, evaluate_thresholds, exit_score, solve_thresholds
from adafocus_models.exits.scores import CRITERIA
from adafocus_ops import exit_gate

NAN = float("nan")


def random_logits(exits: int, rows: int, classes: int = 7) -> torch.Tensor:
    """[E, B, C], surer from exit to exit."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(exits, rows, classes, generator=generator) * torch.linspace(1, 3, exits)[:, None, None]


def go_through(logits: torch.Tensor, gate) -> tuple[ExitLoop, list[list[int]]]:
    """A loop as a user writes it, and the rows inside before each exit; `x` has their numbers all the way."""
    exits = ExitLoop(gate, len(logits))
    x, inside = torch.arange(logits.shape[1]), []
    for answers in logits:
        inside.append(x.tolist())
        exits.answer(answers[x])
        x = exits.keep(x)
        assert x.tolist() == exits.rows.tolist()
        if exits.is_empty:
            break
    return exits, inside


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("num_exits", [1, 2, 5, 16])
def test_thresholds_decide_online_as_in_the_simulation(num_exits, criterion):
    """To the last video, whose score is the threshold."""
    logits = random_logits(num_exits, 300)
    logits[0, 3] = NAN
    scores, costs = exit_score(logits, criterion), list(range(1, num_exits + 1))
    solved = solve_thresholds(scores, costs, q=0.9, criterion=criterion)
    offline = evaluate_thresholds(solved, scores, costs, logits=logits)
    exits, inside = go_through(logits, solved)
    assert torch.equal(exits.exit_index, offline.exit_index)
    torch.testing.assert_close(exits.logits, offline.logits, rtol=0, atol=0, equal_nan=True)
    assert exits.exit_logits.shape == (300, num_exits, 7)
    for e, rows in enumerate(inside):
        assert rows == (offline.exit_index >= e).nonzero()[:, 0].tolist()
        assert torch.equal(exits.exit_logits[rows, e].nan_to_num(9), logits[e, rows].nan_to_num(9))
        left = (offline.exit_index < e).nonzero()[:, 0]
        assert exits.exit_logits[left, e].isnan().all()


def test_a_function_is_asked_at_every_exit_but_the_last():
    logits = random_logits(4, 50)
    asked = []

    def gate(answers):
        asked.append(len(answers))
        return exit_gate(answers, 0.7)

    exits, inside = go_through(logits, gate)
    assert asked == [len(rows) for rows in inside[:-1]]
    assert 50 == len(inside[0]) > len(inside[1]) > len(inside[3]) > 0
    by_hand = exit_score(logits) >= -0.7
    by_hand[-1] = True
    assert torch.equal(exits.exit_index, by_hand.int().argmax(0))


def test_without_a_gate_all_go_to_the_last_exit():
    logits = random_logits(3, 4)
    exits, inside = go_through(logits, None)
    assert inside == [[0, 1, 2, 3]] * 3
    assert torch.equal(exits.logits, logits[-1])
    assert torch.equal(exits.exit_logits, logits.transpose(0, 1))
    assert exits.exit_index.tolist() == [2] * 4
    x = torch.rand(4, 2)
    assert exits.keep(x) is x
    assert exits.in_batch(x, NAN) is x


@pytest.mark.parametrize("rows", [0, 3])
def test_when_all_have_left_the_other_exits_are_unreached(rows):
    exits, inside = go_through(random_logits(3, rows), Thresholds.of([-9.0, -9.0]))
    assert len(inside) == 1
    assert exits.is_empty
    assert exits.exit_index.tolist() == [0] * rows
    assert exits.exit_logits.shape == (rows, 3, 7)
    assert exits.exit_logits[:, 1:].isnan().all()
    assert exits.in_batch(torch.zeros(0, 2, dtype=torch.int64), -1).tolist() == [[-1, -1]] * rows


def test_rows_keep_their_place_and_their_gradient():
    logits = random_logits(2, 5).requires_grad_()
    exits = ExitLoop(lambda _: exit_gate(torch.tensor([[0.0, 0], [0, 90], [0, 90], [0, 0], [0, 90]]), 0.1), 2)
    exits.answer(logits[0])
    assert exits.rows.tolist() == [0, 3]
    assert exits.in_batch(torch.tensor([[7], [8]]), -1)[:, 0].tolist() == [7, -1, -1, 8, -1]
    exits.answer(exits.keep(logits[1]))
    exits.logits.sum().backward()
    assert logits.grad[:, :, 0].tolist() == [[0, 1, 1, 0, 1], [1, 0, 0, 1, 0]]


def wrong_gate(logits):
    return logits.argmax(1)


@pytest.mark.parametrize(
    ("gate", "error", "message"),
    [
        (
            [0.5, 0.1],
            TypeError,
            r"gate must be Thresholds, a function from logits \[B, C\] to .*ExitGate, or None, got l",
        ),
        (0.5, TypeError, "gate must be Thresholds, .* got float"),
        (torch.tensor([0.5, 0.1]), TypeError, r"gate must be Thresholds, .* got \(2,\) float32"),
        (Thresholds.of([-0.5, -0.5]), ValueError, r"thresholds must be of E=2 exits \(num_exits\), got \(3,\) float64"),
        (Thresholds([-0.5, -1e8], [0.5, 0.5], 1.0), ValueError, "thresholds must be of E=2 exits .*, got list"),
        (wrong_gate, TypeError, r"gate must return an adafocus_ops.ExitGate, got \(2,\) int64"),
        (lambda _: None, TypeError, "gate must return an adafocus_ops.ExitGate, got NoneType"),
        (
            partial(exit_gate, threshold=0.5, capacity=1),
            ValueError,
            "gate must sort each of the 2 videos .*no capacity",
        ),
        (Thresholds.of([0.5]), ValueError, "values must be at most 0 as scores of criterion 'entropy' are, got 0.5 at"),
        (Thresholds.of([-0.5], "confidence"), ValueError, "values must be at least 0 as scores of criterion 'conf"),
        (Thresholds.of([0.5], "margin"), ValueError, "criterion must be one of 'entropy', .* got 'margin'"),
    ],
)
def test_a_gate_that_does_not_fit(gate, error, message):
    with pytest.raises(error, match=message):
        go_through(random_logits(2, 2), gate)


def test_answers_that_do_not_fit():
    exits = ExitLoop(Thresholds.of([-9.0]), 2)
    exits.answer(torch.zeros(3, 4))
    with pytest.raises(ValueError, match=r"logits must be \[B', C\] with B'=0 rows still inside, got \(3, 4\) float32"):
        exits.answer(torch.zeros(3, 4))
    exits.answer(torch.zeros(0, 4))
    with pytest.raises(ValueError, match="there are 2 exits, and all have answered"):
        exits.answer(torch.zeros(0, 4))
    with pytest.raises(ValueError, match="num_exits must be at least 1, got 0"):
        ExitLoop(None, 0)


def test_thresholds_that_were_chosen():
    chosen = Thresholds.of([-0.5, -0.25])
    assert chosen.values.tolist() == [-0.5, -0.25, -1e8]
    assert chosen.exit_fraction.isnan().tolist() == [True] * 3
    assert math.isnan(chosen.expected_cost)
    assert chosen.criterion == "entropy"
    scores, costs, _ = random_scores(exits=3)
    assert evaluate_thresholds(chosen, scores, costs).exit_counts.sum() == scores.shape[1]
    assert solve_thresholds(scores, costs, q=1.0, criterion="max_logit").criterion == "max_logit"
    with pytest.raises(ValueError, match="criterion must be one of"):
        solve_thresholds(scores, costs, q=1.0, criterion="margin")
    with pytest.raises(TypeError, match=r"thresholds must be Thresholds, which solve_thresholds .* make, got list"):
        evaluate_thresholds([0.5, 0.5, -1e8], scores, costs)


@torch.inference_mode()
def test_thresholds_are_the_gate_of_a_model():
    """Solved on a model's own answers they send on whom they say."""
    model = small_model(torch.float32)
    frames = torch.randn(4, 5, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    free = model(frames)
    scores = exit_score(free.exit_logits.transpose(0, 1))
    solved = solve_thresholds(scores, [1.0, 3.0], q=[0.5, 0.5])
    output = model(frames, gate=solved)
    left = output.exit_logits[:, 1, 0].isnan()
    assert left.tolist() == (scores[0] >= solved.values[0]).tolist()
    assert left.sum() == 2
    with pytest.raises(TypeError, match=r"gate must be Thresholds, .* got list"):
        model(frames, gate=solved.values.tolist())
    as_function = model(frames, gate=partial(exit_gate, threshold=-solved.values[0].item()))
    torch.testing.assert_close(output, as_function, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("criterion", ["entropy", "confidence"])
@pytest.mark.parametrize("shape", [(3,), (2, 5, 3), (0, 3), (2, 0, 3)])
def test_scores_are_those_of_the_gate_and_differentiable(shape, criterion):
    logits = 3 * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    score = exit_score(logits, criterion)
    assert score.shape == shape[:-1]
    sign = -1 if criterion == "entropy" else 1
    assert torch.equal(sign * score.flatten(), exit_gate(logits.reshape(-1, 3), 0.0, criterion=criterion).score)
    differentiable = exit_score(logits.requires_grad_(), criterion)
    torch.testing.assert_close(differentiable, score, rtol=1e-6, atol=1e-6)
    differentiable.sum().backward()
    assert logits.grad.shape == shape

"""Exit thresholds: the published numbers, budgets, degenerate input, and the online exit."""

import numpy as np
import pytest
import torch
from exit_data import INDEX, arrays, random_scores
from torch import Tensor
from torch.testing import assert_close

from adafocus_models import evaluate_thresholds, exit_curve, exit_score, solve_thresholds, top_k_accuracy
from adafocus_models.exits.scores import CRITERIA
from adafocus_models.exits.solve import Q_SWEEP
from adafocus_models.exits.thresholds import UNREACHED
from adafocus_ops import exit_gate

PUBLISHED = {"max_logit": "confidence", "entropy": "entropy"}  # ours -> what the published code calls it
NAN = float("nan")


def oracle_logits(case: str) -> tuple[Tensor, Tensor]:
    """Training and evaluation logits [E, V, C], from the rule in the oracles' README."""
    config = INDEX["early_exit"][case]
    rng = np.random.default_rng(config["seed"])
    exits, classes = config["exits"], config["classes"]
    gain = np.linspace(0.6, 2.0, exits)[:, None, None]
    train, val = (
        (rng.standard_normal((exits, n, classes)) * gain + rng.standard_normal((1, n, classes)) * gain).astype("f4")
        for n in (config["train_samples"], config["val_samples"])
    )
    return torch.from_numpy(train), torch.from_numpy(val)


# --- the published numbers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("criterion", PUBLISHED)
@pytest.mark.parametrize("case", INDEX["early_exit"])
def test_scores_are_the_published_ones(case, criterion):
    data = arrays("early_exit", case)
    for part, logits in zip(("train", "val"), oracle_logits(case), strict=True):
        assert_close(logits.double().square().sum((1, 2)).sqrt(), data[f"{part}_logits_l2"])
        expected = data[f"{PUBLISHED[criterion]}.{part}_scores"]
        atol = 0 if criterion == "max_logit" else 1e-6
        assert_close(exit_score(logits, criterion), expected, atol=atol, rtol=0)


@pytest.mark.parametrize("given", ["ratio", "fractions"])
@pytest.mark.parametrize("criterion", PUBLISHED.values())
@pytest.mark.parametrize("case", INDEX["early_exit"])
def test_thresholds_are_the_published_ones(case, criterion, given):
    data = arrays("early_exit", case)
    targets = data["p"].tolist() if given == "ratio" else data["target_exit_fractions"]
    assert len(targets) >= 6
    _, val_logits = oracle_logits(case)
    for i, q in enumerate(targets):
        solved = solve_thresholds(data[f"{criterion}.train_scores"], data["cost"], q=q)
        assert torch.equal(solved.values, data[f"{criterion}.thresholds"][i].double())
        found = evaluate_thresholds(solved, data[f"{criterion}.val_scores"], data["cost"], logits=val_logits)
        assert torch.equal(found.exit_counts, data[f"{criterion}.exit_counts"][i])
        assert torch.equal(found.predictions, data[f"{criterion}.predictions"][i].long())
        expected = data[f"{criterion}.expected_cost"][i].item()
        assert found.expected_cost == pytest.approx(expected, rel=1e-6)  # summed in float32 there


def test_our_entropy_exits_whom_theirs_exits():
    data = arrays("early_exit", "exits17")
    train, val = oracle_logits("exits17")
    for i, q in enumerate(data["p"].tolist()):
        solved = solve_thresholds(exit_score(train), data["cost"], q=q)
        found = evaluate_thresholds(solved, exit_score(val), data["cost"])
        assert torch.equal(found.exit_counts, data["entropy.exit_counts"][i])


# --- solving ----------------------------------------------------------------------------------------------------


def test_scores_by_criterion():
    logits = torch.tensor([[2.0, 0.0, 0.0], [50.0, -1e4, 0.0], [NAN, 1.0, 0.0], [float("inf"), 1.0, 0.0]])
    logits = torch.cat([logits, torch.full((1, 3), -float("inf"))])
    z = np.exp(2) + 2
    assert exit_score(logits, "confidence")[0].item() == pytest.approx(np.exp(2) / z)
    assert exit_score(logits, "entropy")[0].item() == pytest.approx(2 * np.exp(2) / z - np.log(z))
    assert exit_score(logits, "max_logit")[:2].tolist() == [2, 50]
    for criterion in CRITERIA:
        score = exit_score(logits, criterion)
        assert score[1] > score[0]
        assert score.isnan().tolist() == [False, False, True, True, True]
        assert exit_score(logits.half(), criterion).dtype == torch.float32
        assert exit_score(logits.double(), criterion).dtype == torch.float64
    with pytest.raises(ValueError, match="criterion must be one of 'entropy', 'confidence', 'max_logit', got 'margin'"):
        exit_score(logits, "margin")


def solved_by_hand(scores: Tensor, fractions: list[float]) -> list[float]:
    """One video after the other."""
    exits, videos = scores.shape
    values, inside = [], set(range(videos))
    for e in range(exits - 1):
        surest = sorted((v for v in inside if not scores[e, v].isnan()), key=lambda v: -scores[e, v].item())
        surest = surest[: int(np.floor(np.float32(videos) * np.float32(fractions[e])))]
        values.append(scores[e, surest[-1]].item() if surest else UNREACHED)
        inside -= {v for v in inside if scores[e, v] >= values[-1]}
    return [*values, -UNREACHED]


@pytest.mark.parametrize("seed", range(6))
def test_solver_walks_the_exits(seed):
    """With NaN, with equal scores, and with more asked for than there are."""
    scores, costs, _ = random_scores(videos=40, seed=seed)
    scores[torch.rand_like(scores) < 0.2] = NAN
    if seed % 2:
        scores = (2 * scores).round() / 2
    fractions = torch.rand(5, generator=torch.Generator().manual_seed(seed)).softmax(0)
    solved = solve_thresholds(scores, costs, q=fractions)
    assert solved.values.tolist() == solved_by_hand(scores, (fractions / fractions.sum()).tolist())
    found = evaluate_thresholds(solved, scores, costs)
    assert torch.equal(solved.exit_fraction, found.exit_fraction)
    assert solved.expected_cost == found.expected_cost
    assert solved.expected_cost == pytest.approx(np.mean([costs[e] for e in found.exit_index]))


def test_fractions_are_shares():
    scores, costs, _ = random_scores()
    given = solve_thresholds(scores, costs, q=[3.0, 1.0, 0.0, 0.0, 2.0])
    assert given.exit_fraction.tolist() == [0.5, 50 / 300, 0, 0, 100 / 300]
    assert given.values[2:].tolist() == [1e8, 1e8, -1e8]


@pytest.mark.parametrize("q", [1e-30, 1e30])
def test_extreme_ratios_leave_at_the_ends(q):
    scores, costs, _ = random_scores(exits=17)
    at = 0 if q < 1 else 16
    assert solve_thresholds(scores, costs, q=q).exit_fraction.tolist() == [float(e == at) for e in range(17)]


def test_one_exit():
    solved = solve_thresholds(torch.tensor([[0.3, NAN]]), [7.0], q=0.5)
    assert solved.values.tolist() == [-1e8]
    assert solved.exit_fraction.tolist() == [1]
    assert solved.expected_cost == 7
    assert solve_thresholds(torch.tensor([[0.3, NAN]]), [7.0], budget=7.0).expected_cost == 7


def test_nobody_is_sure():
    solved = solve_thresholds(torch.full((3, 4), NAN), [1.0, 2.0, 4.0], q=0.1)
    assert solved.values.tolist() == [1e8, 1e8, -1e8]
    assert solved.expected_cost == 4


def test_equal_scores_leave_together():
    solved = solve_thresholds(torch.tensor([[0.5, 0.5, 0.5, 0.1], [1.0, 2.0, 3.0, 4.0]]), [1.0, 2.0], q=[0.5, 0.5])
    assert solved.values.tolist() == [0.5, -1e8]
    assert solved.exit_fraction.tolist() == [0.75, 0.25]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_scores_of_any_type(dtype):
    scores, costs, _ = random_scores()
    scores = scores.to(dtype)
    scores[0, :9] = NAN
    solved = solve_thresholds(scores, costs, q=0.7)
    assert torch.equal(solved.values, solve_thresholds(scores.double(), costs, q=0.7).values)
    assert 0 < solved.exit_fraction[0] < 1


def test_no_videos():
    empty = torch.zeros(2, 0)
    with pytest.raises(ValueError, match="scores must be of at least one video to solve thresholds on"):
        solve_thresholds(empty, [1.0, 2.0], q=1.0)
    solved = solve_thresholds(torch.rand(2, 3), [1.0, 2.0], q=1.0)
    found = evaluate_thresholds(
        solved, empty, [1.0, 2.0], logits=torch.zeros(2, 0, 3), labels=torch.zeros(0, dtype=torch.int64)
    )
    assert found.exit_counts.tolist() == [0, 0]
    assert found.predictions.shape == (0,)
    assert np.isnan([found.expected_cost, found.accuracy]).all()


@pytest.mark.parametrize("budget", [2.0, 2.5, 4.0, 7.7, 11.3, 14.0, 100.0])
def test_budget_is_spent_but_not_exceeded(budget):
    scores, costs, _ = random_scores()
    found = solve_thresholds(scores, costs, budget=budget)
    assert found.expected_cost <= budget
    assert found.expected_cost >= min(budget, costs[-1]) - 3 * (costs[1] - costs[0]) / 300


def test_budget_with_two_exits_is_spent_to_the_last_video():
    scores, _, _ = random_scores(exits=2, videos=200)
    for budget in np.linspace(1, 5, 9):
        goes_on = int(200 * (budget - 1) / 4 + 1e-9)
        assert solve_thresholds(scores, [1.0, 5.0], budget=budget).exit_fraction[1].item() == goes_on / 200


@pytest.mark.parametrize("budget", [2.5, 4.0, 7.7])
def test_budget_gives_the_most_accurate_of_the_sweep(budget):
    scores, costs, correct = random_scores()
    solved = solve_thresholds(scores, costs, budget=budget, correct=correct)
    found = evaluate_thresholds(solved, scores, costs, correct=correct)
    curve = exit_curve(scores, costs, correct)
    best = curve.accuracy[curve.expected_cost <= budget].max().item()
    assert found.expected_cost <= budget
    assert found.accuracy >= best
    spent = evaluate_thresholds(solve_thresholds(scores, costs, budget=budget), scores, costs, correct=correct)
    assert found.accuracy >= spent.accuracy or found.accuracy == pytest.approx(spent.accuracy, abs=1 / 300)


def test_right_answers_matter_and_cost_decides_between_equals():
    """Where going on spoils the answers, a large budget stays unspent."""
    scores, costs, correct = random_scores()
    assert solve_thresholds(scores, costs, budget=14.0, correct=correct.flip(0)).expected_cost < 5
    always = torch.ones_like(correct)
    assert solve_thresholds(scores, costs, budget=14.0, correct=always).expected_cost == costs[0]


def test_curve_goes_from_cheap_to_good():
    scores, costs, correct = random_scores(videos=2000)
    training, _, _ = random_scores(videos=2000, seed=1)
    curve = exit_curve(scores, costs, correct, solved_on=training)
    assert curve.q.shape == curve.expected_cost.shape == curve.accuracy.shape == (len(Q_SWEEP),)
    assert curve.exit_fraction.shape == (len(Q_SWEEP), 5)
    assert (curve.expected_cost.diff() >= -0.02).all()
    assert curve.expected_cost[-1] == costs[-1]
    assert curve.accuracy[-1] == correct[-1].double().mean()
    assert curve.accuracy[0] == pytest.approx(correct[0].double().mean().item(), abs=5e-3)
    one = exit_curve(scores, costs, correct, q=[0.7], solved_on=training)
    expected = evaluate_thresholds(solve_thresholds(training, costs, q=0.7), scores, costs, correct=correct)
    assert one.accuracy.item() == expected.accuracy
    assert torch.equal(one.exit_fraction[0], expected.exit_fraction)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, "one of q and budget must be given"),
        ({"q": 1.0, "budget": 2.0}, "one of q and budget must be given"),
        ({"q": 0.0}, "q must be positive and finite, got 0"),
        ({"q": NAN}, "q must be positive and finite, got nan"),
        ({"q": [0.5, 0.5]}, r"q must be a number or \[E\] with E=5 \(scores\), got \(2,\) float64"),
        ({"q": [0.5, 0.5, 0.5, -1.0, 0.5]}, r"q must hold finite shares of at least 0, .*-1"),
        ({"q": [0.0] * 5}, "not all of them 0"),
        ({"q": 1.0, "costs": [1.0, 2.0]}, r"costs must be \[E\] with E=5 \(scores\), got \(2,\)"),
        (
            {"q": 1.0, "costs": [3.0, 1.0, 1.0, 1.0, 1.0]},
            "costs must be finite and non-decreasing, the whole cost up to",
        ),
        ({"q": 1.0, "costs": [1.0, 1.0, 1.0, 1.0, NAN]}, "costs must be finite and non-decreasing"),
        ({"q": 1.0, "scores": torch.rand(5)}, r"scores must be \[E, V\] floating point, got \(5,\) float32"),
        ({"q": 1.0, "scores": torch.ones(5, 3).long()}, r"scores must be .* got \(5, 3\) int64"),
        ({"q": 1.0, "scores": torch.full((5, 3), np.inf)}, r"scores must be smaller than 1e\+08 in size"),
        ({"q": 1.0, "correct": torch.ones(5, 300, dtype=torch.bool)}, "correct must be None without a budget"),
        ({"budget": 9.0, "correct": torch.ones(5, 3, dtype=torch.bool)}, r"correct must be bool of .* \(5, 300\), got"),
        ({"budget": 1.0}, r"budget must be at least 2 \(all that can leave early do\), got 1"),
        ({"budget": NAN}, "budget must be at least 2"),
    ],
)
def test_bad_arguments(change, message):
    scores, costs, _ = random_scores()
    arguments = {"scores": scores, "costs": costs} | change
    with pytest.raises(ValueError, match=message):
        solve_thresholds(arguments.pop("scores"), arguments.pop("costs"), **arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scores": torch.rand(4, 6), "costs": [1.0] * 4}, r"thresholds must be of E=4 exits \(scores\), got \(5,\)"),
        ({"logits": torch.rand(5, 7, 3)}, r"logits must be \[E, V, C\] with E=5 and V=6 \(scores\), got \(5, 7, 3\)"),
        ({"labels": torch.zeros(6).long()}, "labels must come with logits and without correct"),
        ({"logits": torch.rand(5, 6, 3), "labels": torch.zeros(5).long()}, r"labels must be \[V\] with V=6 .*\(5,\)"),
        ({"correct": torch.zeros(5, 6)}, r"correct must be bool .* got \(5, 6\) float32"),
    ],
)
def test_bad_arguments_of_the_evaluation(change, message):
    scores, costs, _ = random_scores(videos=6)
    arguments = {"scores": scores, "costs": costs} | change
    with pytest.raises(ValueError, match=message):
        evaluate_thresholds(solve_thresholds(scores, costs, q=1.0), **arguments)


def test_accuracy_of_labels_is_that_of_right_answers():
    train, val = oracle_logits("exits17")
    labels = val.sum(0).argmax(1)
    costs = range(1, 18)
    solved = solve_thresholds(exit_score(train), costs, q=0.9)
    from_labels = evaluate_thresholds(solved, exit_score(val), costs, logits=val, labels=labels)
    from_answers = evaluate_thresholds(solved, exit_score(val), costs, correct=val.argmax(2) == labels)
    assert from_labels.accuracy == from_answers.accuracy
    assert 0 < from_labels.accuracy < 1
    assert top_k_accuracy(from_labels.logits, labels) == from_labels.accuracy
    assert from_answers.predictions is None


# --- the online exit --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("criterion", ["entropy", "confidence"])
@pytest.mark.parametrize("split", [[217], [1, 216], [100, 0, 17, 100], [1] * 217], ids=len)
@pytest.mark.parametrize("case", INDEX["early_exit"])
def test_simulation_is_what_the_gate_does_online(case, split, criterion):
    """Whoever stays after an exit goes on in a smaller batch, as online."""
    train, val = oracle_logits(case)
    train[0, :3], val[0, 5] = NAN, NAN
    costs = torch.arange(1.0, len(val) + 1)
    solved = solve_thresholds(exit_score(train, criterion), costs, q=0.8)
    scores = exit_score(val, criterion)
    margin = (scores - solved.values[:, None]).abs().nan_to_num(nan=1).min().item()
    assert margin > 5e-6  # no answer so near a threshold that rounding (5e-7) could decide
    offline = evaluate_thresholds(solved, scores, costs, logits=val)
    # The gate takes the entropy itself, where less is surer.
    bounds = (-solved.values if criterion == "entropy" else solved.values).tolist()
    logits, exit_index, start = [], [], 0
    for size in split:
        running = torch.arange(start, start + size)
        batch_logits, batch_exit = val[-1, running], torch.full((size,), len(val) - 1)
        for e, bound in enumerate(bounds[:-1]):
            gate = exit_gate(val[e, running], bound, criterion=criterion)
            leaves = running[gate.leave]
            batch_logits[leaves - start], batch_exit[leaves - start] = val[e, leaves], e
            running = running[gate.keep]
        logits.append(batch_logits)
        exit_index.append(batch_exit)
        start += size
    assert torch.equal(torch.cat(exit_index), offline.exit_index)
    assert torch.equal(torch.cat(logits), offline.logits)
    assert offline.exit_index[5] > 0
    assert len(offline.exit_index.unique()) > 1


# --- extreme q ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("q", [5e-324, 1e-46, 1e-38, 1e38, 1e39, 1.7e308])
@pytest.mark.parametrize("exits", [2, 17])
def test_a_ratio_that_float32_does_not_hold_leaves_at_the_ends(q, exits):
    scores, costs, _ = random_scores(exits=exits)
    at = 0 if q < 1 else exits - 1
    fraction = solve_thresholds(scores, costs, q=q).exit_fraction
    assert fraction.tolist() == [float(e == at) for e in range(exits)]


@pytest.mark.parametrize("factor", [2.0**-1000, 2.0**-160, 2.0**-140, 1.0, 2.0**140, 2.0**1022])
def test_shares_of_any_size_are_shares(factor):
    scores, costs, _ = random_scores()
    shares = torch.tensor([3.0, 1.0, 0.0, 0.0, 2.0], dtype=torch.float64)
    assert solve_thresholds(scores, costs, q=factor * shares).exit_fraction.tolist() == [0.5, 50 / 300, 0, 0, 100 / 300]

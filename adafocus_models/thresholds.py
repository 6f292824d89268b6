"""When to stop: how sure an answer must be at each exit, so that the videos' mean cost keeps to a budget."""

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

import adafocus_ops

from ._checks import describe, require

CRITERIA = ("entropy", "confidence", "max_logit")

# A threshold that no score reaches, and its negative one that every score does.
UNREACHED = 1e8

# From all that leave at the first exit to all that go on to the last, finely enough to refine around the best.
Q_SWEEP = tuple(torch.logspace(-8, 8, 161, dtype=torch.float64).tolist())

FILE_FORMAT = "adafocus exit thresholds"
FILE_VERSION = 1


class Thresholds(NamedTuple):
    """How sure an answer must be to end at each of E exits, and what that gave on the videos it was solved on."""

    values: Tensor  # [E] float64: leave at exit e if the score is at least values[e]
    exit_fraction: Tensor  # [E] float64, the share of the videos that leave at exit e
    expected_cost: float  # of a video, in the unit of the costs

    def save(self, path: str | os.PathLike) -> None:
        """Writes a JSON file, whole or not at all."""
        content = {
            "format": FILE_FORMAT,
            "version": FILE_VERSION,
            "values": self.values.tolist(),
            "exit_fraction": self.exit_fraction.tolist(),
            "expected_cost": self.expected_cost,
        }
        path = Path(path)
        unfinished = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            unfinished.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Thresholds":
        """Reads what `save` wrote.

        Raises:
            OSError: the file cannot be opened.
            ValueError: it holds something else; the message says what.
        """
        try:
            content = json.loads(Path(path).read_text())
        except ValueError as error:  # no JSON, or no text
            raise ValueError(f"{path} must be a JSON file of thresholds, but it cannot be read: {error}") from error
        is_ours = isinstance(content, dict) and content.get("format") == FILE_FORMAT
        require(is_ours, f'{path} must be a file of thresholds, with "format": "{FILE_FORMAT}"')
        version = content.get("version")
        require(version == FILE_VERSION, f"{path} must be of version {FILE_VERSION}, got {version!r}")
        values, fractions = (_numbers(path, content, name) for name in ("values", "exit_fraction"))
        require(
            len(values) == len(fractions) >= 1,
            f"{path}: values and exit_fraction must have one number an exit, got {len(values)} and {len(fractions)}",
        )
        cost = content.get("expected_cost")
        require(_is_number(cost), f"{path}: expected_cost must be a finite number, got {cost!r}")
        return cls(torch.tensor(values, dtype=torch.float64), torch.tensor(fractions, dtype=torch.float64), float(cost))


class Evaluation(NamedTuple):
    """What thresholds give on V videos."""

    exit_index: Tensor  # [V] int64, the exit at which each video leaves
    exit_counts: Tensor  # [E] int64
    exit_fraction: Tensor  # [E] float64, NaN if there are no videos
    expected_cost: float  # of a video, in the unit of the costs
    logits: Tensor | None  # [V, C] of the exit at which each video leaves
    predictions: Tensor | None  # [V] int64, the classes of their largest
    accuracy: float | None  # the share of right answers


class Curve(NamedTuple):
    """What Q ratios of exit fractions cost and give."""

    q: Tensor  # [Q] float64
    expected_cost: Tensor  # [Q] float64
    accuracy: Tensor  # [Q] float64
    exit_fraction: Tensor  # [Q, E] float64


def exit_score(logits: Tensor, criterion: str = "entropy") -> Tensor:
    """How sure an answer is, the larger the surer.

    Args:
        logits: [..., C] floating point.
        criterion: "entropy" (minus the entropy, in nats), "confidence" (the largest probability), or "max_logit"
            (the largest logit, which the published code calls confidence).

    Returns:
        [...] float32 (float64 for float64 logits). NaN, which never leaves, where a logit is NaN or plus infinity, or
        all are minus infinity.

    Gradients: to logits. Source: Uni-AdaFocus, Section 4.3.
    """
    fits = isinstance(logits, Tensor) and logits.is_floating_point() and logits.ndim >= 1
    require(fits, f"logits must be [..., C] floating point, got {describe(logits)}")
    require(criterion in CRITERIA, f"criterion must be one of {', '.join(map(repr, CRITERIA))}, got {criterion!r}")
    if criterion == "entropy":
        return -adafocus_ops.entropy(logits)
    if criterion == "confidence":
        return adafocus_ops.confidence(logits)
    largest = logits.to(torch.promote_types(logits.dtype, torch.float32)).amax(-1)
    return torch.where(largest.isfinite(), largest, torch.nan)


def solve_thresholds(
    scores: Tensor,
    costs: Tensor | Sequence[float],
    *,
    q: float | Tensor | Sequence[float] | None = None,
    budget: float | None = None,
    correct: Tensor | None = None,
) -> Thresholds:
    """The scores from which on to leave at each exit, for given exit fractions or for a mean cost.

    With exit fractions f_e, as published: of the videos still inside at exit e, the floor(V f_e) surest leave, and
    the last of them gives the threshold. (Equal scores leave together; where fewer are left, these leave.) An exit
    that nobody leaves at has the threshold 1e8, the last exit -1e8.

    With a budget, Eq. 23: of the thresholds along a sweep of q whose mean cost is within the budget, those that
    answer best, at the least cost; or, where it is not known which answers are right, those that cost most.

    Args:
        scores: [E, V] of V videos at E exits, larger is surer (`exit_score`); NaN never leaves before the last exit.
        costs: [E], the whole cost of a video that leaves at exit e; non-decreasing.
        q: f_e in proportion to q^e for a number, or to q_e for [E] numbers.
        budget: the largest mean cost of a video, in the unit of `costs`. One of q and budget is needed.
        correct: with a budget, [E, V] bool: the answer at this exit is right.

    Returns:
        Thresholds(values [E], exit_fraction [E], expected_cost) on the CPU.

    Determinism: exact. It waits for the device, if the scores are on one.

    Raises:
        ValueError: a shape or value that does not fit, or a budget that none of the thresholds keeps to.

    Source: Uni-AdaFocus, Section 4.3, Eq. 23.
    """
    scores, costs = _check_videos(scores), _check_costs(costs, scores)
    require((q is None) != (budget is None), "one of q and budget must be given")
    if budget is None:
        require(correct is None, "correct must be None without a budget")
        return _Solver(scores, costs).solve(_fractions(q, len(costs)))
    correct = None if correct is None else _check_correct(correct, scores)
    return _best_within(float(budget), _Solver(scores, costs), correct)


def evaluate_thresholds(
    thresholds: Thresholds,
    scores: Tensor,
    costs: Tensor | Sequence[float],
    *,
    correct: Tensor | None = None,
    logits: Tensor | None = None,
    labels: Tensor | None = None,
) -> Evaluation:
    """Who leaves where, what it costs, and how good it is: the online exit, simulated.

    Args:
        thresholds: of E exits.
        scores: [E, V], larger is surer; a video leaves at the first exit whose threshold its score reaches.
        costs: [E], the whole cost of a video that leaves at exit e.
        correct: [E, V] bool, the answer at this exit is right; for the accuracy. Or:
        logits: [E, V, C]; gives the logits and predictions that the videos leave with, for `mean_average_precision`
            for one, and with
        labels: [V] int64 their accuracy.

    Raises:
        ValueError: a shape or value that does not fit.
    """
    scores, costs = _check_scores(scores), _check_costs(costs, scores)
    exits, videos = scores.shape
    require(
        thresholds.values.shape == (exits,),
        f"thresholds must be of E={exits} exits (scores), got {describe(thresholds.values)}",
    )
    exit_index = _exit_index(thresholds.values, scores)
    left_with = predictions = right = None
    if logits is not None:
        fits = logits.ndim == 3 and logits.shape[:2] == scores.shape
        require(fits, f"logits must be [E, V, C] with E={exits} and V={videos} (scores), got {describe(logits)}")
        left_with = _at_exit(logits.detach().cpu(), exit_index)
        predictions = left_with.argmax(1)
    if labels is not None:
        require(logits is not None and correct is None, "labels must come with logits and without correct")
        require(labels.shape == (videos,), f"labels must be [V] with V={videos} (scores), got {describe(labels)}")
        right = predictions == labels.cpu()
    elif correct is not None:
        right = _at_exit(_check_correct(correct, scores), exit_index)
    counts = torch.bincount(exit_index, minlength=exits)
    fraction = counts.double() / videos
    accuracy = None if right is None else right.double().mean().item()
    return Evaluation(exit_index, counts, fraction, (fraction @ costs).item(), left_with, predictions, accuracy)


def exit_curve(
    scores: Tensor,
    costs: Tensor | Sequence[float],
    correct: Tensor,
    *,
    q: Sequence[float] = Q_SWEEP,
    solved_on: Tensor | None = None,
) -> Curve:
    """Cost and accuracy along a sweep of q, from all that leave early to all that go on.

    Args:
        scores: [E, V], larger is surer.
        costs: [E], the whole cost of a video that leaves at exit e.
        correct: [E, V] bool, the answer at this exit is right.
        q: ratios of the exit fractions.
        solved_on: [E, V'], scores of other videos (training ones, say) to solve the thresholds on; None means scores.

    Raises:
        ValueError: a shape or value that does not fit.
    """
    solved_on = _check_videos(scores if solved_on is None else solved_on)
    solver = _Solver(solved_on, _check_costs(costs, solved_on))
    points = [
        evaluate_thresholds(solver.solve(_fractions(ratio, len(solved_on))), scores, costs, correct=correct)
        for ratio in q
    ]
    return Curve(
        torch.tensor(q, dtype=torch.float64),
        torch.tensor([point.expected_cost for point in points], dtype=torch.float64),
        torch.tensor([point.accuracy for point in points], dtype=torch.float64),
        torch.stack([point.exit_fraction for point in points]),
    )


class _Solver:
    """Thresholds of one set of videos, whose scores are sorted once."""

    def __init__(self, scores: Tensor, costs: Tensor) -> None:
        self.scores, self.costs = scores, costs
        # Surest first, NaN last.
        self.sorted, self.order = scores.nan_to_num(nan=-torch.inf).sort(1, descending=True)
        self.num_scored = scores.isfinite().sum(1).tolist()

    def solve(self, fractions: Tensor) -> Thresholds:
        """For fractions [E] float32."""
        exits, videos = self.scores.shape
        quotas = (videos * fractions).floor().long().tolist()  # the product in float32, as published
        values = torch.full((exits,), UNREACHED, dtype=torch.float64)
        values[-1] = -UNREACHED
        inside = torch.ones(videos, dtype=torch.bool)
        for e in range(exits - 1):
            waiting = inside[self.order[e, : self.num_scored[e]]].nonzero()[:, 0]  # their places, surest first
            leaving = min(quotas[e], len(waiting))
            if leaving > 0:
                values[e] = self.sorted[e, waiting[leaving - 1]]
                inside &= ~(self.scores[e] >= values[e])
        fraction = torch.bincount(_exit_index(values, self.scores), minlength=exits).double() / videos
        return Thresholds(values, fraction, (fraction @ self.costs).item())


def _best_within(budget: float, solver: _Solver, correct: Tensor | None) -> Thresholds:
    """Eq. 23 along a sweep of q, then along a finer one between the neighbours of the best."""

    def merit(thresholds: Thresholds) -> tuple[float, float]:
        if correct is None:
            return thresholds.expected_cost, 0.0
        exit_index = _exit_index(thresholds.values, solver.scores)
        return _at_exit(correct, exit_index).double().mean().item(), -thresholds.expected_cost

    def best_of(sweep: Sequence[float]) -> tuple[float, Thresholds]:
        points = [(q, solver.solve(_fractions(q, len(solver.costs)))) for q in sweep]
        least = min(point.expected_cost for _, point in points)
        require(budget >= least, f"budget must be at least {least:g} (all that can leave early do), got {budget:g}")
        return max((p for p in points if p[1].expected_cost <= budget), key=lambda p: merit(p[1]))

    q, _ = best_of(Q_SWEEP)
    step = Q_SWEEP[1] / Q_SWEEP[0]
    finer = torch.logspace(-1, 1, len(Q_SWEEP), base=step, dtype=torch.float64)
    return best_of([q, *(q * finer).tolist()])[1]


def _fractions(q: float | Tensor | Sequence[float], exits: int) -> Tensor:
    """[E] float32, of sum 1: the target exit fractions, in proportion to q^e or to the numbers given.

    Step by step as published, because the floor turns the last bit into a video: q^e in float32, its share, and
    the share of that.
    """
    q = torch.as_tensor(q, dtype=torch.float64).cpu()
    if q.ndim == 0:
        require(bool(q.isfinite() and q > 0), f"q must be positive and finite, got {q.item():g}")
        exponent = torch.arange(exits) * q.float().log()
        shares = (exponent - exponent.max()).exp()  # no q^e overflows
        shares = shares / shares.sum()
    else:
        require(q.shape == (exits,), f"q must be a number or [E] with E={exits} (scores), got {describe(q)}")
        good = bool(q.isfinite().all() and (q >= 0).all() and q.sum() > 0)
        require(good, f"q must hold finite shares of at least 0, not all of them 0, got {q.tolist()}")
        shares = q.float()
    return shares / shares.sum()


def _exit_index(values: Tensor, scores: Tensor) -> Tensor:
    """[V] int64: the first exit whose threshold a video's score reaches, or the last exit."""
    stays = ~(scores[:-1] >= values[:-1, None])  # [E - 1, V], true for NaN
    return stays.cumprod(0).sum(0)


def _at_exit(per_exit: Tensor, exit_index: Tensor) -> Tensor:
    """[V, ...] of [E, V, ...]: what each video leaves with."""
    return per_exit[exit_index, torch.arange(len(exit_index))]


def _check_scores(scores: Tensor) -> Tensor:
    """[E, V] on the CPU."""
    fits = isinstance(scores, Tensor) and scores.ndim == 2 and scores.shape[0] >= 1 and scores.is_floating_point()
    require(fits, f"scores must be [E, V] floating point, got {describe(scores)}")
    scores = scores.detach().cpu()
    too_large = bool((scores.abs() >= UNREACHED).any())
    require(not too_large, f"scores must be smaller than {UNREACHED:g} in size, or NaN where a video never leaves")
    return scores


def _check_videos(scores: Tensor) -> Tensor:
    """[E, V] on the CPU, to solve thresholds on."""
    scores = _check_scores(scores)
    require(scores.shape[1] >= 1, "scores must be of at least one video to solve thresholds on")
    return scores


def _check_costs(costs: Tensor | Sequence[float], scores: Tensor) -> Tensor:
    """[E] float64 on the CPU."""
    costs = torch.as_tensor(costs, dtype=torch.float64).cpu()
    require(
        costs.shape == scores.shape[:1], f"costs must be [E] with E={scores.shape[0]} (scores), got {describe(costs)}"
    )
    good = bool(costs.isfinite().all() and (costs.diff() >= 0).all())
    require(good, f"costs must be finite and non-decreasing, the whole cost up to each exit, got {costs.tolist()}")
    return costs


def _check_correct(correct: Tensor, scores: Tensor) -> Tensor:
    """[E, V] bool on the CPU."""
    fits = isinstance(correct, Tensor) and correct.dtype == torch.bool and correct.shape == scores.shape
    require(fits, f"correct must be bool of the shape of scores {tuple(scores.shape)}, got {describe(correct)}")
    return correct.cpu()


def _numbers(path: str | os.PathLike, content: dict[str, Any], name: str) -> list[float]:
    numbers = content.get(name)
    good = isinstance(numbers, list) and all(map(_is_number, numbers))
    require(good, f"{path}: {name} must be a list of finite numbers, got {numbers!r}")
    return numbers


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)

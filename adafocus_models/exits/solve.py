"""Thresholds for given exit fractions, or for a budget: the best answers at the mean cost that it allows."""

from collections.abc import Sequence

import torch
from torch import Tensor

from adafocus_ops.checks import check_choice, describe, require

from .arguments import check_correct, check_costs, check_videos
from .evaluate import at_exit, first_exit
from .scores import CRITERIA
from .thresholds import UNREACHED, Thresholds

# Ratios q from all that leave at the first exit to all that go on to the last, finely enough to refine around the best.
Q_SWEEP = tuple(torch.logspace(-8, 8, 161, dtype=torch.float64).tolist())


def solve_thresholds(
    scores: Tensor,
    costs: Tensor | Sequence[float],
    *,
    q: float | Tensor | Sequence[float] | None = None,
    budget: float | None = None,
    correct: Tensor | None = None,
    criterion: str = "entropy",
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
        criterion: what the scores are (see `exit_score`); with it, the thresholds are the `gate` of a model.

    Returns:
        Thresholds(values [E], exit_fraction [E], expected_cost, criterion) on the CPU.

    Determinism: exact. It waits for the device, if the scores are on one.

    Raises:
        ValueError: a shape or value that does not fit, or a budget that none of the thresholds keeps to.

    Source: Uni-AdaFocus, Section 4.3, Eq. 23.
    """
    scores, costs = check_videos(scores), check_costs(costs, scores)
    require((q is None) != (budget is None), lambda: "one of q and budget must be given")
    check_choice("criterion", criterion, CRITERIA)
    solver = Solver(scores, costs)
    if budget is None:
        require(correct is None, lambda: "correct must be None without a budget")
        solved = solver.solve(target_fractions(q, len(costs)))
    else:
        correct = None if correct is None else check_correct(correct, scores)
        solved = _best_within(float(budget), solver, correct)
    return solved._replace(criterion=criterion)


class Solver:
    """Thresholds of one set of videos, whose scores are sorted once."""

    def __init__(self, scores: Tensor, costs: Tensor) -> None:
        self.scores, self.costs = scores, costs
        # Surest first, NaN last.
        self.sorted, self.order = scores.nan_to_num(nan=-torch.inf).sort(1, descending=True)
        self.num_scored = scores.isfinite().sum(1).tolist()

    def solve(self, fractions: Tensor) -> Thresholds:
        """Thresholds for exit fractions [E] float32."""
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
        fraction = torch.bincount(first_exit(values, self.scores), minlength=exits).double() / videos
        return Thresholds(values, fraction, (fraction @ self.costs).item())


def _best_within(budget: float, solver: Solver, correct: Tensor | None) -> Thresholds:
    """Eq. 23 along a sweep of q, then along a finer one between the neighbours of the best."""

    def merit(thresholds: Thresholds) -> tuple[float, float]:
        if correct is None:
            return thresholds.expected_cost, 0.0
        exit_index = first_exit(thresholds.values, solver.scores)
        return at_exit(correct, exit_index).double().mean().item(), -thresholds.expected_cost

    def best_of(sweep: Sequence[float]) -> tuple[float, Thresholds]:
        points = [(q, solver.solve(target_fractions(q, len(solver.costs)))) for q in sweep]
        least = min(point.expected_cost for _, point in points)
        require(
            budget >= least, lambda: f"budget must be at least {least:g} (all that can leave early do), got {budget:g}"
        )
        return max((p for p in points if p[1].expected_cost <= budget), key=lambda p: merit(p[1]))

    q, _ = best_of(Q_SWEEP)
    step = Q_SWEEP[1] / Q_SWEEP[0]
    finer = torch.logspace(-1, 1, len(Q_SWEEP), base=step, dtype=torch.float64)
    return best_of([q, *(q * finer).tolist()])[1]


def target_fractions(q: float | Tensor | Sequence[float], exits: int) -> Tensor:
    """[E] float32, of sum 1: the target exit fractions, in proportion to q^e or to the numbers given.

    Step by step as published, because the floor turns the last bit into a video: q^e in float32, its share, and
    the share of that.
    """
    q = torch.as_tensor(q, dtype=torch.float64).cpu()
    if q.ndim == 0:
        require(bool(q.isfinite() and q > 0), lambda: f"q must be positive and finite, got {q.item():g}")
        log = q.float().log()
        if not log.isfinite():  # no float32 holds q
            log = q.log().float()
        exponent = torch.arange(exits) * log
        shares = (exponent - exponent.max()).exp()  # no q^e overflows
        shares = shares / shares.sum()
    else:
        require(q.shape == (exits,), lambda: f"q must be a number or [E] with E={exits} (scores), got {describe(q)}")
        good = bool(q.isfinite().all() and (q >= 0).all() and q.sum() > 0)
        require(good, lambda: f"q must hold finite shares of at least 0, not all of them 0, got {q.tolist()}")
        # Shares stay what they are when all are divided by a power of two, and the largest is then 1/2 to 1.
        shares = torch.ldexp(q, -q.max().frexp().exponent).float()
    return shares / shares.sum()

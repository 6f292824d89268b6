"""exit_gate, entropy, confidence: who leaves, and numbers of any size."""

import pytest
import torch

from adafocus_ops import ExitGate, confidence, entropy, exit_gate
from conftest import device_of, is_emulated, require_backend


@pytest.fixture
def gate_of(request, backend):
    """exit_gate on a backend, with its result on the CPU."""
    device = device_of(backend)
    require_backend(request, "exit_gate", backend, device)

    def run(logits, threshold, **kwargs):
        kwargs = {name: v.to(device) if isinstance(v, torch.Tensor) else v for name, v in kwargs.items()}
        threshold = threshold.to(device) if isinstance(threshold, torch.Tensor) else threshold
        return ExitGate(*(t.cpu() for t in exit_gate(logits.to(device), threshold, backend=backend, **kwargs)))

    return run


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_entropy_is_finite_for_any_gap(dtype):
    logits = torch.tensor([[0.0, 200.0, -200.0], [0.0, 20.0, 30000.0], [1.0, 1.0, 1.0]], dtype=dtype)
    logits.requires_grad_()
    values = entropy(logits)
    values.sum().backward()
    assert logits.grad.isfinite().all()
    assert values[0] <= 1e-80
    assert values[1] == 0
    torch.testing.assert_close(values[2], torch.tensor(3.0, dtype=values.dtype).log())
    torch.testing.assert_close(confidence(logits.detach())[2], torch.tensor(1 / 3, dtype=values.dtype))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64], ids=str)
def test_a_sure_row_has_exactly_no_entropy_and_leaves_at_threshold_zero(dtype, gate_of):
    """A logit that counts nothing does so on every backend, wherever it stands in the row."""
    gap = 708 if dtype == torch.float64 else 87
    rows = [
        [2000, 0],
        [0, 2000],
        [0, gap, 5 * gap],
        [-9 * gap, -gap, 0],
        [gap, 0],
        [0, float("-inf")],
        [5, 5 - 2 * gap],
    ]
    for width in (0, 3, 70):  # further classes that count nothing, before and after
        for row in rows:
            low = [float("-inf")] * width
            for classes in (low + row, row + low):
                logits = torch.tensor([classes], dtype=dtype)
                gate = gate_of(logits, 0.0)
                assert gate.score.item() == entropy(logits).item() == 0, classes
                assert gate.exited.item()
    unsure = torch.tensor([[gap - 1, 0]], dtype=dtype)
    gate = gate_of(unsure, 0.0)
    assert gate.score.item() > 0
    assert not gate.exited.item()


def test_entropy_equals_its_definition_and_skips_masked_classes():
    logits = torch.randn(20, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(entropy(logits), torch.distributions.Categorical(logits=logits).entropy())
    masked = torch.cat([logits, torch.full((20, 1), float("-inf"))], 1)
    torch.testing.assert_close(entropy(masked), entropy(logits))
    leaf = logits.clone().requires_grad_()
    assert torch.autograd.gradcheck(entropy, (leaf,))
    assert torch.autograd.gradcheck(confidence, (leaf,))


@pytest.mark.parametrize(
    ("threshold", "keep", "leave"),
    [(-1.0, [0, 1, 2, 3], []), (10.0, [1], [0, 2, 3]), (0.5, [1, 3], [0, 2])],
    ids=["none leave", "all leave but NaN", "some leave"],
)
def test_keeps_the_order(gate_of, threshold, keep, leave):
    logits = torch.tensor([[9.0, 0.0], [float("nan"), 1.0], [0.0, 9.0], [0.0, 0.1]])
    gate = gate_of(logits, threshold)
    assert gate.keep.tolist() == keep
    assert gate.leave.tolist() == leave
    assert gate.counts.tolist() == [len(keep), len(leave)]
    assert gate.exited.nonzero().flatten().tolist() == leave


def test_at_the_threshold_leaves(gate_of):
    logits = torch.zeros(1, 4, dtype=torch.float64)
    at = entropy(logits)[0]
    assert gate_of(logits, at).exited.all()
    assert gate_of(logits, 0.25, criterion="confidence").exited.all()
    assert not gate_of(logits, 0.2500001, criterion="confidence").exited.any()


def test_with_capacity_pads_and_cuts_off(gate_of):
    logits = torch.tensor([[9.0, 0.0], [0.0, 0.0], [0.0, 9.0], [0.0, 0.1]])
    gate = gate_of(logits, 0.5, capacity=3)
    assert gate.keep.tolist() == [1, 3, -1]
    assert gate.leave.tolist() == [0, 2, -1]
    assert gate_of(logits, 0.5, capacity=1).leave.tolist() == [0]
    assert gate_of(logits, 0.5, capacity=1).counts.tolist() == [2, 2]


@pytest.mark.parametrize(
    "active", [torch.tensor([True, True, False, True]), torch.tensor([3, 0, 1, -1])], ids=["mask", "rows"]
)
def test_leaves_inactive_rows_alone(gate_of, active):
    logits = torch.tensor([[9.0, 0.0], [0.0, 0.0], [0.0, 9.0], [0.0, 0.1]])
    gate = gate_of(logits, 0.5, active=active)
    assert gate.keep.tolist() == [1, 3]
    assert gate.leave.tolist() == [0]
    assert gate.counts.tolist() == [2, 1]


@pytest.mark.parametrize("rows", [0, 1])
def test_few_rows(gate_of, rows):
    gate = gate_of(torch.zeros(rows, 3), 0.0)
    assert gate.keep.tolist() == list(range(rows))
    assert gate.counts.tolist() == [rows, 0]
    assert gate_of(torch.zeros(rows, 3), 0.0, capacity=2).keep.tolist() == [*range(rows), -1, -1][:2]


@pytest.mark.parametrize("criterion", ["entropy", "confidence"])
@pytest.mark.parametrize("rows", [33, 300])
def test_many_rows_leave_in_order(gate_of, backend, rows, criterion):
    """More than a warp, and more than a block, of rows: what stays and what leaves, whatever the sizes."""
    if is_emulated(backend) and rows > 100 and criterion == "confidence":
        pytest.skip("emulated kernels are slow; the other criterion shows the same compaction")
    logits = torch.randn(rows, 21, generator=torch.Generator().manual_seed(0)).mul(3)
    logits[5] = torch.nan
    threshold = 0.8 if criterion == "entropy" else 0.75
    gate = gate_of(logits, threshold, criterion=criterion)
    score = {"entropy": entropy, "confidence": confidence}[criterion](logits)
    torch.testing.assert_close(gate.score, score, rtol=1e-5, atol=1e-6, equal_nan=True)
    exited = gate.score <= threshold if criterion == "entropy" else gate.score >= threshold
    assert torch.equal(gate.exited, exited)
    assert 0 < exited.sum() < rows - 1
    assert torch.equal(gate.leave, exited.nonzero()[:, 0])
    assert torch.equal(gate.keep, (~exited).nonzero()[:, 0])
    active = torch.arange(rows).flip(0)[::3]  # not in order
    gate = gate_of(logits, threshold, criterion=criterion, active=active, capacity=rows)
    listed = torch.zeros(rows, dtype=torch.bool)
    listed[active] = True
    assert gate.counts.tolist() == [int((listed & ~exited).sum()), int((listed & exited).sum())]
    assert torch.equal(gate.leave[: gate.counts[1]], (listed & exited).nonzero()[:, 0])
    assert (gate.leave[gate.counts[1] :] == -1).all()


SURE = {  # who would leave, of so many rows
    "some": lambda n: torch.rand(len(n), generator=torch.Generator().manual_seed(1)) < 0.4,
    "at borders": lambda n: (n % 256 == 0) | (n % 256 == 255),
    "all": lambda n: n >= 0,
    "none": lambda n: n < 0,
}


def active_rows(kind: str, rows: int) -> tuple[torch.Tensor | None, torch.Tensor]:
    """What is said of the rows that run, and these as a mask; lists are in any order, with repeats and with numbers
    that are no row's."""
    generator = torch.Generator().manual_seed(2)
    if kind == "all":
        return None, torch.ones(rows, dtype=torch.bool)
    if kind == "mask":
        mask = torch.rand(rows, generator=generator) < 0.7
        return mask, mask
    low, high = (-3, rows + 3) if kind == "list" else (-3, 0)
    listed = torch.randint(low, high, (rows + 100,), generator=generator)
    mask = torch.zeros(rows, dtype=torch.bool)
    mask[listed[(listed >= 0) & (listed < rows)]] = True
    return listed.int() if rows % 2 else listed, mask


@pytest.mark.parametrize("active", ["all", "mask", "list", "list of none"])
@pytest.mark.parametrize(
    ("rows", "sure", "criterion"),
    [
        (2047, "some", "entropy"),
        (2048, "at borders", "confidence"),
        (2049, "some", "confidence"),
        (2049, "all", "entropy"),
        (2560, "at borders", "entropy"),
        (2561, "none", "confidence"),
        (5000, "some", "entropy"),
        pytest.param(34000, "some", "entropy", marks=pytest.mark.slow),
    ],
)
def test_rows_that_many_blocks_list(gate_of, backend, rows, sure, criterion, active):
    """Numbers of rows up to which one block lists them all, and above; lists with and without room for all."""
    if backend == "triton" and is_emulated(backend) and active.startswith("list"):
        pytest.skip("emulated kernels are slow; this one looks through the whole list for every few rows")
    leaves = SURE[sure](torch.arange(rows))
    logits = torch.stack([leaves * 9.0, torch.zeros(rows)], 1)
    active, runs = active_rows(active, rows)
    stay, leave = (group.nonzero()[:, 0] for group in (runs & ~leaves, runs & leaves))
    for capacity in sorted({1, len(leave), len(stay) + 1, rows, rows + 3000} - {0}):
        kwargs = {"criterion": criterion, "active": active, "capacity": capacity}
        gate = gate_of(logits, 0.5 if criterion == "entropy" else 0.9, **kwargs)
        assert gate.counts.tolist() == [len(stay), len(leave)]
        assert torch.equal(gate.exited, runs & leaves)
        for found, right in ((gate.keep, stay), (gate.leave, leave)):
            assert torch.equal(found[: len(right)], right[:capacity])
            assert (found[len(right) :] == -1).all()
    score = {"entropy": entropy, "confidence": confidence}[criterion](logits)
    torch.testing.assert_close(gate.score, score, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_scores_of_any_gap(gate_of, dtype):
    inf, nan = float("inf"), float("nan")
    assert confidence(torch.full((1, 4), 6e4, dtype=dtype)).item() == pytest.approx(0.25)
    rows = [[0, 200, -200], [0, 20, 30000], [1, 1, 1], [0, 0, -inf], [-inf] * 3, [inf, 0, 0], [nan, 0, 0]]
    gate = gate_of(torch.tensor(rows, dtype=dtype), 0.7)
    expected = torch.tensor([0, 0, torch.tensor(3.0).log(), torch.tensor(2.0).log(), nan, nan, nan]).to(gate.score)
    torch.testing.assert_close(gate.score, expected, equal_nan=True)
    assert gate.exited.tolist() == [True, True, False, True, False, False, False]


def test_the_threshold_may_have_another_dtype(gate_of):
    logits = torch.zeros(2, 4, dtype=torch.float16)
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        assert gate_of(logits, torch.tensor(1.5, dtype=dtype)).exited.all()
        assert not gate_of(logits, torch.tensor(1.25, dtype=dtype)).exited.any()


def test_thresholds_at_both_ends(gate_of):
    logits = torch.randn(3, 4)
    assert gate_of(logits, float("inf")).exited.all()
    assert not gate_of(logits, float("nan")).exited.any()
    assert not gate_of(logits, float("-inf")).exited.any()


@pytest.mark.parametrize(
    ("args", "kwargs", "error", "message"),
    [
        ((torch.zeros(3), 1.0), {}, ValueError, r"logits must be \[N, C\], got \(3,\) float32"),
        ((torch.zeros(3, 2).int(), 1.0), {}, TypeError, "logits must have dtype"),
        (
            (torch.zeros(3, 2), 1.0),
            {"criterion": "margin"},
            ValueError,
            "criterion must be one of 'entropy', 'confidence'",
        ),
        ((torch.zeros(3, 2), "0.5"), {}, TypeError, "threshold must be a number or a 0-dimensional tensor, got str"),
        ((torch.zeros(3, 2), torch.zeros(3)), {}, ValueError, "threshold must be a number or a 0-dimensional tensor"),
        ((torch.zeros(3, 2), 1.0), {"active": torch.zeros(2).bool()}, ValueError, r"active must be \[N\] with N=3"),
        ((torch.zeros(3, 2), 1.0), {"capacity": 0}, ValueError, "capacity must be at least 1, got 0"),
    ],
)
def test_bad_arguments(args, kwargs, error, message):
    with pytest.raises(error, match=message):
        exit_gate(*args, **kwargs)

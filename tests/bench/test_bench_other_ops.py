"""Cases of the ops that choose, of the copies of rows and of the shift: what is wrong is not timed."""

import dataclasses
import itertools

import pytest
import torch
from small_cases import CPU, F16, F32, U8, measure, never
from torch.testing import assert_close

from adafocus_ops import backends
from bench import cases
from bench.cases import depthwise_conv3d as conv_cases
from bench.cases import exit_gate as gate_cases
from bench.cases import expected_value as expectation_cases
from bench.cases import gather_rows as gather_cases
from bench.cases import quantile_frames as frame_cases
from bench.cases import scatter_rows as scatter_cases
from bench.cases import temporal_shift as shift_cases
from bench.cases import weighted_sample as draw_cases
from bench.harness import measuring, records, tables
from bench.harness.case import LAYOUTS, OURS, MismatchError, Targets, check

TINY_FORM = conv_cases.Form("3x3x3", (6, 2, 4, 5), (3, 3, 3), (1, 2, 2), (1, 1, 1))
TINY = {
    "weighted_sample": draw_cases.Draws(6, 3, num_samples=40, num_rows=50),
    "expected_value": expectation_cases.Expectation(4, 3, 9, num_samples=20, num_rows=30),
    "gradients of expected_value": expectation_cases.Expectation(4, 3, 9, num_samples=20, num_rows=30, gradients=True),
    "quantile_frames": frame_cases.Frames(4, 12, 5),
    "exit_gate": gate_cases.Gate(40, 7),
    "gather_rows": gather_cases.Gather(7, 4, 5, U8),
    "scatter_rows": scatter_cases.Scatter(7, 4, 5, F32),
    "temporal_shift": shift_cases.Shift(F32, "channels_last"),
    "depthwise_conv3d": conv_cases.Convolution(TINY_FORM, F32, "channels_last_3d"),
    "gradients of depthwise_conv3d": conv_cases.Convolution(TINY_FORM, F16, "channels_last_3d", backward=True),
    "gradient of temporal_shift": shift_cases.Shift(F16, "contiguous", backward=True),
}

# Op -> the reference, where it is a call, and the rival.
RIVALS = {
    "weighted_sample": ["torch.multinomial"],
    "expected_value": ["published chain"],
    "quantile_frames": ["chain"],
    "exit_gate": ["softmax, log, nonzero"],
    "gather_rows": ["index_select"],
    "scatter_rows": ["index_copy_"],
    "temporal_shift": ["zeros and slices", "clone"],
    "depthwise_conv3d": ["torch conv3d in float64", "torch conv3d, contiguous", "torch conv3d, channels_last_3d"],
}


@pytest.fixture
def small_frames(monkeypatch):
    monkeypatch.setattr(shift_cases, "SHAPES", {"cpu": (16, 16, 3, 2)})
    monkeypatch.setattr(conv_cases, "CLIPS", {"cpu": 2})


@pytest.mark.parametrize("kind", TINY)
def test_record_of_another_op_is_complete(kind, small_frames):
    case = TINY[kind].case({"cpu": Targets(ratio=1e-6)})
    record = measure(case)
    assert set(records.REQUIRED) <= set(record)
    assert record["op"] == TINY[kind].op in kind
    assert 0 <= record["check"]["max_error"] <= record["check"]["tolerance"]
    assert case.rival in record["others"]
    assert set(record["others"]) == set(RIVALS[kind.split()[-1]])
    assert tables.ops_table([record]).lines[0][-1] == "1e-06x (met)"
    assert record["rival"] == case.rival == RIVALS[kind.split()[-1]][-1]


def test_what_is_timed_must_be_the_op(small_frames, monkeypatch):
    """No case times a call that is not checked."""
    monkeypatch.setattr(measuring, "interleave", never)
    for module, name in (
        (draw_cases, "weighted_sample"),
        (expectation_cases, "expected_value"),
        (frame_cases, "quantile_frames"),
        (gate_cases, "exit_gate"),
        (gather_cases, "gather_rows"),
        (scatter_cases, "scatter_rows"),
        (shift_cases, "temporal_shift"),
        (conv_cases, "depthwise_conv3d"),
    ):
        function = getattr(module, name)

        def wrong(x, *args, function=function, **kwargs):
            return function(x.flip(0), *args, **kwargs)

        monkeypatch.setattr(module, name, wrong)
    for workload in TINY.values():
        with pytest.raises(MismatchError, match="not timed"):
            measure(workload.case({}))


def test_inclusion_probabilities_are_those_of_all_orders():
    weights = torch.randn(6, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).softmax(0)
    for k in range(1, 6):
        exact = torch.zeros(6, dtype=torch.float64)
        for order in itertools.permutations(range(6), k):
            drawn = weights[list(order)]
            exact[list(order)] += (drawn / (1 - drawn.cumsum(0) + drawn)).prod()
        assert_close(draw_cases.inclusion_probabilities(weights, k, range(6)), exact, atol=1e-7, rtol=0)
        assert_close(draw_cases.inclusion_probabilities(7 * weights, k, [4, 2]), exact[[4, 2]], atol=1e-7, rtol=0)


DRAWS = draw_cases.Draws(8, 3, num_samples=200, num_rows=50)


def drawn_wrongly(change, draws: draw_cases.Draws = DRAWS) -> float:
    prepared = draws.prepare(CPU)
    (index,) = prepared.calls["torch.multinomial"]()
    return check(draws.case({}), "this", (change(index),), prepared, ())


def test_right_draws_pass():
    assert drawn_wrongly(lambda index: index) < 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda index: index.roll(1, 0), "differs from the exact probabilities by .* standard errors, 5 is allowed"),
        (lambda index: index.flip(-1), "standard errors"),  # the last drawn is less likely a heavy one
        (lambda index: index[..., :1].expand_as(index), "draws an item twice"),
        (lambda index: index + 1, r"does not give \(50, 200, 3\) indices of 8 items"),
        (lambda index: index[:, :-1], r"does not give \(50, 200, 3\) indices"),
    ],
    ids=["of another record", "in another order", "repeated", "out of range", "too few"],
)
def test_wrong_draws_are_refused(change, message):
    with pytest.raises(MismatchError, match=message):
        drawn_wrongly(change)


def test_uniform_draws_are_refused():
    with pytest.raises(MismatchError, match="standard errors"):
        drawn_wrongly(lambda index: torch.rand(50, 200, 8).argsort(-1)[..., :3])


EXPECTATION = expectation_cases.Expectation(6, 3, 12, num_samples=50, num_rows=60, gradients=True)


@pytest.mark.parametrize("name", [OURS, "published chain"])
def test_right_expectations_pass(name):
    prepared = EXPECTATION.prepare(CPU)
    assert check(EXPECTATION.case({}), name, prepared.calls[name](), prepared, ()) < 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda out, dv, dw: (1.05 * out, 1.05 * dv, 1.05 * dw),
            "differs from the exact expectation by .* standard err",
        ),
        (lambda out, dv, dw: (out + 1, dv, dw), "does not give the result of a weighted sum"),
        (lambda out, dv, dw: (out, 1.01 * dv, dw), "does not give the gradient of the values"),
        (lambda out, dv, dw: (out, dv, 1.01 * dw), "does not give the gradient of the weights"),
        (lambda out, dv, dw: (out, dv, dw * torch.nan), "does not give the gradient of the weights"),
        (lambda out, dv, dw: (out[:, 1:], dv, dw), r"gives a result of \(60, 11\), not \(60, 12\)"),
    ],
    ids=["biased", "no sum", "values", "weights", "nan", "shape"],
)
def test_wrong_expectations_are_refused(change, message):
    prepared = EXPECTATION.prepare(CPU)
    with pytest.raises(MismatchError, match=message):
        check(EXPECTATION.case({}), "this", change(*prepared.calls["published chain"]()), prepared, ())


def test_expectation_of_the_mean_is_refused():
    """What no reweighting would give: every item counts the same."""
    plain = expectation_cases.Expectation(6, 3, 12, num_samples=50, num_rows=60)
    prepared = plain.prepare(CPU)
    _, values, _ = prepared.error.args
    with pytest.raises(MismatchError, match="standard errors"):
        check(plain.case({}), "this", (values.mean(1),), prepared, ())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda score, keep, leave: (score, leave, keep), "lets other rows stay"),
        (lambda score, keep, leave: (score, keep, leave.flip(0)), "lets other rows leave"),
        (lambda score, keep, leave: (score, torch.cat([keep, keep[:1]]), leave), "lets other rows stay"),
        (lambda score, keep, leave: (score, keep, leave[:-1]), "lets other rows leave"),
        (lambda score, keep, leave: (1.001 * score, keep, leave), "differs from softmax, log, nonzero by"),
    ],
)
def test_wrong_gates_are_refused(change, message):
    gate = gate_cases.Gate(40, 7)
    prepared = gate.prepare(CPU)
    expected = prepared.calls["softmax, log, nonzero"]()
    assert 10 < len(expected[1]) < 30
    padded = (expected[0], *(torch.nn.functional.pad(listed, (0, 5), value=-1) for listed in expected[1:]))
    check(gate.case({}), "this", padded, prepared, expected)
    with pytest.raises(MismatchError, match=message):
        check(gate.case({}), "this", change(*expected), prepared, expected)


def test_no_position_is_near_the_next_frame():
    frames = frame_cases.Frames(8, 36, 12)
    weights = frames.weights()
    assert weights.shape == (frame_cases.NUM_VIDEOS, 8)
    position = frame_cases.quantile_positions(weights.double(), 36, 12)
    assert (position - position.round()).abs().min() > 0.9e-3
    assert (position.diff() > 0).all()


def test_every_op_has_a_case():
    for op in backends.ops():
        assert op in cases.BY_OP, f"bench/cases/{op}.py is missing: nothing times {op}"
        assert cases.BY_OP[op].CASES, f"bench/cases/{op}.py has no case in CASES"
        assert {case.op for case in cases.BY_OP[op].CASES} == {op}


def test_targets_of_the_other_ops():
    assert len({case.name for case in cases.CASES}) == len(cases.CASES)
    asked = {
        (device, case.name): tuple(filter(None, dataclasses.astuple(target)))
        for case in cases.CASES
        if not case.op.startswith("crop")
        for device, target in case.targets.items()
    }
    expected = {
        ("cpu", "weighted_sample, 128 samples of 5 of 16"): (5,),
        ("cuda", "weighted_sample, 128 samples of 16 of 64"): (15,),
        ("cpu", "expected_value, 128 samples of 5 of 16, 200 values each, forward+backward"): (200,),
        ("cuda", "expected_value, 128 samples of 5 of 16, 200 values each, forward"): (100, 15),
        ("cuda", "quantile_frames, 12 of 36 by 8 weights"): (5,),
        ("cuda", "quantile_frames, 16 of 48 by 16 weights"): (5,),
        ("cuda", "exit_gate, 128 x 200"): (5,),
        ("cuda", "exit_gate, 1024 x 400"): (5,),
        ("cpu", "exit_gate, 4096 x 400"): (4,),
    }
    for form, layout in itertools.product(conv_cases.FORMS, conv_cases.LAYOUTS):
        name = f"depthwise_conv3d {form.name}, float32, {layout}, forward"
        if layout == "channels_last_3d":
            expected["cuda", name] = (0.5,)
        if form is conv_cases.FORMS[0]:
            expected["cpu", name] = (1.5,)
    for dtype, layout, mode in itertools.product(("float32", "float16"), LAYOUTS, ("forward", "backward")):
        expected["cuda", f"temporal_shift {dtype}, {layout}, {mode}"] = (0.8,)
        if (dtype, mode) == ("float32", "forward"):
            expected["cpu", f"temporal_shift {dtype}, {layout}, {mode}"] = (0.9,)
    assert asked == expected
    for case in cases.CASES:
        if case.targets.get("cuda", Targets()).microseconds:
            assert case.launch_bound


def test_gates_of_any_size_share_a_table():
    made = [measure(gate_cases.Gate(n, 7).case({})) for n in (40, 41)]
    assert tables.group_records(made) == [made]
    assert "; logits; " in tables.ops_table(made).title

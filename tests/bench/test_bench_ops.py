"""bench/ops.py: what it checks before it times, and what it keeps."""

import dataclasses
import itertools
import subprocess
import sys

import pytest
import torch
from made_up_records import ENV
from torch.testing import assert_close

from adafocus_ops import backends, crop_resize
from bench import cases, ops
from bench.cases import crop_mean as mean_cases
from bench.cases import crop_resize as crop_cases
from bench.cases import exit_gate as gate_cases
from bench.cases import expected_value as expectation_cases
from bench.cases import gather_rows as gather_cases
from bench.cases import quantile_frames as frame_cases
from bench.cases import scatter_rows as scatter_cases
from bench.cases import temporal_shift as shift_cases
from bench.cases import weighted_sample as draw_cases
from bench.harness import bandwidth, environment, measuring, records, scaling, tables
from bench.harness.case import LAYOUTS, OURS, Case, MismatchError, Targets, check

CPU = torch.device("cpu")
U8, F16, F32 = torch.uint8, torch.float16, torch.float32
KINDS = {
    "uint8": {"dtype": U8},
    "float16": {"dtype": F16, "out_dtype": F16},
    "float32": {"dtype": F32},
    "gradient of boxes": {"dtype": F32, "gradient": "boxes"},
    "gradient of frames": {"dtype": F32, "gradient": "frames"},
    "backward to boxes": {"dtype": F32, "gradient": "boxes", "backward_only": True},
    "backward to frames": {"dtype": F32, "gradient": "frames", "backward_only": True},
    "antialiased": {"dtype": F32, "antialias": True},
    "mean": {"dtype": F32, "make": mean_cases.CropMean},
    "gradient of the mean": {"dtype": F32, "make": mean_cases.CropMean, "gradient": "boxes"},
}


@pytest.fixture(autouse=True)
def same_number_of_threads():
    """The script sets it for the whole process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def tiny(dtype=F32, make=crop_cases.Crop, **options) -> Case:
    """A case with targets that every run reaches but for the second."""
    targets = Targets(ratio=1e-6, bandwidth=1e6, microseconds=1e9)
    return make(4, dtype, frame_size=16, sides=(5, 12), num_boxes=3, **options).case({"cpu": targets})


def measure(case: Case) -> dict:
    env = environment.environment(CPU) | {"copy_gb_per_s": 10.0}
    return measuring.measure(case, CPU, "reference", runs=2, env=env)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_record_of_a_case_is_complete(kind, layout):
    case = tiny(layout=layout, **KINDS[kind])
    record = measure(case)
    assert set(records.REQUIRED) <= set(record)
    assert record["check"]["passed"]
    assert 0 <= record["check"]["max_error"] <= record["check"]["tolerance"]
    assert record["backend"] == "reference"
    assert record["stats"]["n"] == 2
    assert record["mode"] == {"g": "forward+backward", "b": "backward"}.get(case.name.split(", ")[-1][0], "forward")
    reference = "interpolate" if kind == "antialiased" else "grid_sample"
    theirs = record["others"][reference]["p50_ms"]
    assert record["ratios"][reference] == pytest.approx(theirs / record["stats"]["p50_ms"])
    gb_per_s = record["bandwidth"]["bytes"] / record["stats"]["p50_ms"] / 1e6
    assert record["bandwidth"]["gb_per_s"] == pytest.approx(gb_per_s)
    assert record["bandwidth"]["share"] == pytest.approx(gb_per_s / 10)


def test_record_says_what_the_case_was_given():
    assert measure(tiny())["input"] == "3 boxes of 5 to 12 px, one a frame of 16 px"
    assert measure(tiny(antialias=True))["input"] == "3 whole frames of 16 px"
    assert measure(tiny(channels=5))["input"] == "3 boxes of 5 to 12 px, one a map of 5 channels and 16 px"


def test_verdict_names_every_target():
    record = measure(tiny())
    assert tables.ops_table([record]).lines[0][-1] == "1e-06x (met), 100000000% (not met), 1e+09 us (met)"


def never(*_args, **_kwargs):
    pytest.fail("timed what does not match")


@pytest.mark.parametrize("gradient", [None, "boxes", "frames"])
def test_wrong_values_are_refused(monkeypatch, gradient):
    def shifted(frames, boxes, *args, **kwargs):
        return crop_resize(frames, boxes + 0.01, *args, **kwargs)

    monkeypatch.setattr(crop_cases, "crop_resize", shifted)
    monkeypatch.setattr(measuring, "interleave", never)
    with pytest.raises(MismatchError, match=r"adafocus_ops \(reference\) differs from grid_sample by .* not timed"):
        measure(tiny(gradient=gradient))


def test_wrong_gradient_is_refused_though_the_values_are_right(monkeypatch):
    class DoubledGradient(torch.autograd.Function):
        @staticmethod
        def forward(ctx, boxes):
            return boxes.clone()

        @staticmethod
        def backward(ctx, grad):
            return 1.001 * grad

    def wrong(frames, boxes, *args, **kwargs):
        return crop_resize(frames, DoubledGradient.apply(boxes), *args, **kwargs)

    monkeypatch.setattr(crop_cases, "crop_resize", wrong)
    with pytest.raises(MismatchError, match="differs"):
        measure(tiny(gradient="boxes"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda out: out * torch.nan, "differs from grid_sample by nan"),
        (lambda out: out[:, :2], r"gives shapes .*\(3, 2, 4, 4\).* not timed"),
        (lambda out: out.contiguous(memory_format=torch.channels_last), "the result must be contiguous"),
    ],
    ids=["nan", "shape", "layout"],
)
def test_other_mismatches_are_refused(monkeypatch, change, message):
    monkeypatch.setattr(crop_cases, "crop_resize", lambda *args, **kwargs: change(crop_resize(*args, **kwargs)))
    monkeypatch.setattr(measuring, "interleave", never)
    with pytest.raises(MismatchError, match=message):
        measure(tiny())


def test_run_with_a_mismatch_fails_and_keeps_the_records_of_the_rest(monkeypatch, tmp_path, capsys):
    def wrong_for_uint8(frames, boxes, *args, **kwargs):
        return crop_resize(frames, boxes + (frames.dtype == torch.uint8), *args, **kwargs)

    monkeypatch.setattr(ops, "CASES", [tiny(U8), tiny(F32)])
    monkeypatch.setattr(ops, "copy_gb_per_s", lambda device: 10.0)
    monkeypatch.setattr(crop_cases, "crop_resize", wrong_for_uint8)
    arguments = ["--device", "cpu", "--backend", "reference", "--runs", "1", "--json", str(tmp_path / "x.jsonl")]
    assert ops.main(arguments) == 1
    output = capsys.readouterr()
    assert "crop_resize uint8" in output.err
    assert "not timed" in output.err
    assert [record["dtype"] for record in records.read(tmp_path / "x.jsonl")] == ["float32"]


def test_absent_or_different_others_are_left_out_with_the_reason(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.setitem(sys.modules, "torchvision.ops", None)
    monkeypatch.setitem(crop_cases.OTHERS, "kornia", lambda frames, boxes, patch: frames[..., :patch, :patch] + 7)
    record = measure(tiny())
    assert set(record["others"]) == {"grid_sample"}
    assert record["absent"]["torchvision"].startswith("torchvision is not installed")
    assert "pip install -r third_party/requirements-peers.txt" in record["absent"]["torchvision"]
    assert "kornia differs from grid_sample" in record["absent"]["kornia"]


@pytest.mark.parametrize("name", crop_cases.OTHERS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_peer_adapters_take_our_boxes(name, layout):
    pytest.importorskip(name, reason=f"{name} is not installed (third_party/requirements-peers.txt)")
    generator = torch.Generator().manual_seed(0)
    frames = torch.rand(6, 3, 40, 50, generator=generator).contiguous(memory_format=LAYOUTS[layout])
    boxes = torch.tensor([20.0, 25.0, 14.0, 30.0]) + 4 * torch.rand(6, 4, generator=generator)
    assert_close(crop_cases.OTHERS[name](frames, boxes, 7), crop_resize(frames, boxes, 7), atol=1e-4, rtol=0)


def test_boxes_lie_inside_the_frame_and_off_the_kinks():
    boxes = crop_cases.random_boxes(500, 96, 224, (96, 224))
    assert boxes.shape == (500, 4)
    centre, extent = boxes[:, :2], boxes[:, 2:]
    assert (centre - extent / 2).min() >= -1e-4
    assert (centre + extent / 2).max() <= 224 + 1e-4
    assert extent.min() >= 96
    steps = (torch.arange(96) + 0.5) / 96 - 0.5
    position = centre.double()[..., None] + extent.double()[..., None] * steps - 0.5
    assert (position - position.round()).abs().min() > 0.9e-4


CROPS = [*crop_cases.CASES, *mean_cases.CASES]


def test_targets_of_the_crops():
    asked = {case.name: case.targets["cpu"].ratio for case in CROPS if case.targets["cpu"].ratio}
    for layout in LAYOUTS:
        assert asked[f"crop_resize uint8 to float32, P=96, {layout}, forward"] == 15
        assert asked[f"crop_resize uint8 to float32, P=128, {layout}, forward"] == 12
        for patch in (96, 128):
            assert asked[f"crop_resize float32, P={patch}, {layout}, forward"] == 2.5
            assert asked[f"crop_resize float32, P={patch}, {layout}, gradient of boxes"] == 6
    assert len(asked) == 12
    for case in CROPS:
        frames = "antialiased" not in case.name and "maps" not in case.name
        target = case.targets.get("cuda", Targets())
        if case.launch_bound:
            assert target == Targets(microseconds=6)
        elif frames and case.mode == "forward":
            assert target == Targets(ratio=5, bandwidth=0.6)
        elif case.mode == "backward":
            assert target == Targets(ratio=5, bandwidth=0.7 if case.name.endswith("boxes") else 0.75)
        else:
            assert target == Targets()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [U8, F16, F32])
@pytest.mark.parametrize("antialias", [False, True])
def test_touched_bytes_are_the_sectors_that_have_a_weight(layout, dtype, antialias):
    """Pixels with a gradient, by their addresses."""
    patch, boxes = 9, crop_cases.random_boxes(20, 9, 32, (2, 32))
    frames = torch.zeros(20, 3, 32, 32, dtype=torch.float64, requires_grad=True)
    out = crop_resize(frames, boxes, patch, antialias=antialias, backend="reference")
    read = torch.autograd.grad(out.sum(), frames)[0] != 0
    stored = read.permute(0, 2, 3, 1) if layout == "channels_last" else read
    stored = stored.reshape(-1).repeat_interleave(torch.empty(0, dtype=dtype).element_size())
    sectors = stored.view(-1, bandwidth.SECTOR).any(1).sum()
    images = torch.empty(20, 3, 32, 32, dtype=dtype).contiguous(memory_format=LAYOUTS[layout])
    assert crop_cases.touched_bytes(images, boxes, patch, antialias) == bandwidth.SECTOR * sectors


def test_no_box_touches_more_than_a_frame():
    maps, boxes = torch.empty(2, 64, 7, 7), torch.tensor([[3.5, 3.5, 7, 7], [3.5, 3.5, 0.5, 0.5]])
    assert crop_cases.touched_bytes(maps, boxes[:1], 7) == maps[0].nbytes
    assert crop_cases.touched_bytes(maps, boxes[1:], 7) < maps[0].nbytes


@pytest.mark.parametrize(
    ("make", "options", "bytes_of"),
    [
        (crop_cases.Crop, {}, lambda read, frames, out: read + out),
        (mean_cases.CropMean, {}, lambda read, frames, out: read + out),
        (crop_cases.Crop, {"gradient": "boxes", "backward_only": True}, lambda read, frames, out: read + out),
        (crop_cases.Crop, {"gradient": "frames", "backward_only": True}, lambda read, frames, out: frames + out),
        (crop_cases.Crop, {"gradient": "frames"}, lambda read, frames, out: read + out + frames + out),
    ],
    ids=str,
)
def test_bytes_of_every_pass(make, options, bytes_of):
    crop = make(4, F32, frame_size=16, sides=(5, 12), num_boxes=3, **options)
    data = crop.inputs(CPU)
    read = crop_cases.touched_bytes(data.frames, data.boxes, 4)
    out = 3 * 3 * 4 * (1 if crop.op == "crop_mean" else 16)
    assert crop.prepare(CPU).bytes == bytes_of(read, 3 * 3 * 256 * 4, out)


def test_a_copy_is_counted_twice(monkeypatch):
    monkeypatch.setattr(bandwidth, "COPIED_BYTES", {"cpu": 2**20})
    monkeypatch.setattr(bandwidth, "stats", lambda times: {"p50_ms": 0.5})
    assert bandwidth.copy_gb_per_s(CPU) == pytest.approx(2 * 2**20 / 0.5e-3 / 1e9)


def test_time_in_a_graph_is_that_of_one_call(monkeypatch):
    ran = []
    monkeypatch.setattr(measuring, "graph_of", lambda call, repeats: lambda: [call() for _ in range(repeats)] and None)
    monkeypatch.setattr(
        measuring, "interleave", lambda graphs, device, runs: {n: [g() or 40.0] for n, g in graphs.items()}
    )
    assert measuring.time_in_graphs({"a": lambda: ran.append(1)}, CPU, runs=1) == {"a": [2.0]}
    assert len(ran) == 20


def test_a_call_that_waits_for_the_host_is_timed_by_itself(monkeypatch):
    ran = []
    monkeypatch.setattr(measuring, "graph_of", lambda call, repeats: lambda: None)
    monkeypatch.setattr(
        measuring, "interleave", lambda graphs, device, runs: {n: [g() or 40.0] for n, g in graphs.items()}
    )
    calls = {"a": never, "b": lambda: ran.append(1)}
    assert measuring.time_in_graphs(calls, CPU, runs=1, waiting={"b"}) == {"a": [2.0], "b": [40.0]}
    assert len(ran) == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_launch_bound_case_on_a_gpu():
    device = torch.device("cuda")
    case = crop_cases.Crop(3, F16, out_dtype=F16, channels=64, frame_size=7, sides=(3, 7), num_boxes=4)
    env = environment.environment(device) | {"copy_gb_per_s": 1000.0}
    record = measuring.measure(case.case({}, launch_bound=True), device, "reference", runs=3, env=env)
    assert record["launches"]["grid_sample"] > 1
    assert "not captured" in record["absent"]["kornia"]
    assert 0 < record["others"]["grid_sample"]["p50_ms"] < 10


# --- the ops that choose, and the shift ---------------------------------------------------------------------------

TINY = {
    "weighted_sample": draw_cases.Draws(6, 3, num_samples=40, num_rows=50),
    "expected_value": expectation_cases.Expectation(4, 3, 9, num_samples=20, num_rows=30),
    "gradients of expected_value": expectation_cases.Expectation(4, 3, 9, num_samples=20, num_rows=30, gradients=True),
    "quantile_frames": frame_cases.Frames(4, 12, 5),
    "exit_gate": gate_cases.Gate(40, 7),
    "gather_rows": gather_cases.Gather(7, 4, 5, U8),
    "scatter_rows": scatter_cases.Scatter(7, 4, 5, F32),
    "temporal_shift": shift_cases.Shift(F32, "channels_last"),
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
}


@pytest.fixture
def small_frames(monkeypatch):
    monkeypatch.setattr(shift_cases, "SHAPES", {"cpu": (16, 16, 3, 2)})


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


# --- growth -------------------------------------------------------------------------------------------------------

SMALL_SERIES = scaling.Series(
    "boxes", 1, {n: crop_cases.Crop(4, U8, frame_size=16, sides=(5, 12), num_boxes=n) for n in (1, 2, 4, 40)}
)


def test_scaling_run_keeps_a_row_for_every_point(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(ops, "SERIES", {"cpu": [SMALL_SERIES]})
    monkeypatch.setattr(ops, "copy_gb_per_s", lambda device: 10.0)
    path = tmp_path / "x.jsonl"
    arguments = ["--scaling", "--device", "cpu", "--backend", "reference", "--runs", "2", "--json", str(path)]
    assert ops.main(arguments) == 0
    found = records.read(path)
    assert [record["input"].split()[0] for record in found] == ["1", "2", "4", "40"]
    assert len({records.key(record) for record in found}) == 4
    for record in found:
        assert set(records.REQUIRED) <= set(record)
        assert record["what"] == "scaling"
        assert record["check"]["passed"]
    assert "at most 1" in capsys.readouterr().out


SERIES_OF_OTHER_OPS = [
    *draw_cases.draw_series(20, samples=[4, 8, 16]),
    *expectation_cases.expectation_series(20, depths=[16, 20, 24], samples=[4, 8, 16]),
    *gate_cases.gate_series([8, 16, 32]),
]


@pytest.mark.parametrize("series", SERIES_OF_OTHER_OPS, ids=lambda series: series.name)
def test_series_of_the_other_ops(series):
    found = scaling.measure_series(series, CPU, "reference", runs=1, env=ENV | {"device": "this"})
    assert [record["value"] for record in found] == list(series.workloads)
    assert all(record["check"]["passed"] for record in found)
    assert {record["input"].split()[0] for record in found} == {"logits" if "gate" in series.name else "20"}


def test_growth_of_some_only(capsys):
    assert ops.main(["--scaling", "--device", "cpu", "--list", "--cases", "weighted_sample"]) == 0
    assert capsys.readouterr().out.splitlines() == ["weighted_sample: samples", "weighted_sample: items"]


def test_scaling_checks_before_it_times(monkeypatch):
    monkeypatch.setattr(crop_cases, "crop_resize", lambda *args, **kwargs: crop_resize(*args, **kwargs) + 1)
    monkeypatch.setattr(measuring, "interleave", never)
    with pytest.raises(MismatchError):
        scaling.measure_series(SMALL_SERIES, CPU, "reference", runs=1, env=ENV)


def test_exponent_is_that_of_the_largest_values():
    assert scaling.exponent({1: 9.0, 10: 1.0, 100: 10.0, 1000: 100.0}) == pytest.approx(1)
    assert scaling.exponent({8: 5.0, 2: 5.0, 4: 5.0}) == pytest.approx(0)


@pytest.mark.parametrize("device", cases.SERIES)
def test_a_series_varies_one_thing(device):
    assert len({series.name for series in cases.SERIES[device]}) == len(cases.SERIES[device])
    for series in cases.SERIES[device]:
        assert len(series.workloads) >= scaling.FITTED_POINTS
        points = [dataclasses.asdict(workload) for workload in series.workloads.values()]
        values = [{str(point[name]) for point in points} for name in points[0]]
        assert sorted(len(different) for different in values if len(different) > 1) == [len(points)]


def test_unknown_case_and_backend_that_cannot_run(capsys):
    assert ops.main(["--cases", "no such case"]) == 2
    assert "see --list" in capsys.readouterr().err
    assert ops.main(["--device", "cpu", "--backend", "cuda", "--cases", "crop_resize"]) == 2
    assert "backend 'cuda' cannot run crop_resize" in capsys.readouterr().err


@pytest.mark.parametrize(
    "script", ["ops.py", "throughput.py", "estimators.py", "report.py", "cuda_report.py", "gpu.py"]
)
def test_help(script):
    command = [sys.executable, str(environment.ROOT / "bench" / script), "--help"]
    result = subprocess.run(command, capture_output=True, text=True, env={}, check=False)
    assert result.returncode == 0, result.stderr
    assert "usage: " + script in result.stdout

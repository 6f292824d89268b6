"""bench/ops.py: what it checks before it times, and what it keeps."""

import dataclasses
import itertools
import subprocess
import sys

import pytest
import torch
from bench_modules import BENCH, bandwidth, cases, crops, environment, ops, rows, sampling, scaling, selection, shift
from made_up_rows import ENV
from torch.testing import assert_close

from adafocus_ops import crop_resize

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
    "mean": {"dtype": F32, "op": "crop_mean"},
    "gradient of the mean": {"dtype": F32, "op": "crop_mean", "gradient": "boxes"},
}


@pytest.fixture(autouse=True)
def same_number_of_threads():
    """The script sets it for the whole process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def tiny(dtype=F32, **options) -> cases.Case:
    """A case with targets that every run reaches but for the second."""
    targets = cases.Targets(ratio=1e-6, bandwidth=1e6, microseconds=1e9)
    return crops.Crop(4, dtype, frame_size=16, sides=(5, 12), num_boxes=3, **options).case({"cpu": targets})


def measure(case: cases.Case) -> dict:
    env = environment.environment(CPU) | {"copy_gb_per_s": 10.0}
    return ops.measure(case, CPU, "reference", runs=2, env=env)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", cases.LAYOUTS)
def test_row_of_a_case_is_complete(kind, layout):
    case = tiny(layout=layout, **KINDS[kind])
    row = measure(case)
    assert set(rows.REQUIRED) <= set(row)
    assert row["check"]["passed"]
    assert 0 <= row["check"]["max_error"] <= row["check"]["tolerance"]
    assert row["backend"] == "reference"
    assert row["stats"]["n"] == 2
    assert row["mode"] == {"g": "forward+backward", "b": "backward"}.get(case.name.split(", ")[-1][0], "forward")
    baseline = "interpolate" if kind == "antialiased" else "grid_sample"
    theirs = row["contenders"][baseline]["p50_ms"]
    assert row["ratios"][baseline] == pytest.approx(theirs / row["stats"]["p50_ms"])
    gb_per_s = row["bandwidth"]["bytes"] / row["stats"]["p50_ms"] / 1e6
    assert row["bandwidth"]["gb_per_s"] == pytest.approx(gb_per_s)
    assert row["bandwidth"]["share"] == pytest.approx(gb_per_s / 10)


def test_row_says_what_the_case_was_given():
    assert measure(tiny())["input"] == "3 boxes of 5 to 12 px, one a frame of 16 px"
    assert measure(tiny(antialias=True))["input"] == "3 whole frames of 16 px"
    assert measure(tiny(channels=5))["input"] == "3 boxes of 5 to 12 px, one a map of 5 channels and 16 px"


def test_verdict_names_every_target():
    row = measure(tiny())
    assert ops.ops_table([row]).lines[0][-1] == "1e-06x (met), 100000000% (not met), 1e+09 us (met)"


def never(*_args, **_kwargs):
    pytest.fail("timed what does not match")


@pytest.mark.parametrize("gradient", [None, "boxes", "frames"])
def test_wrong_values_are_refused(monkeypatch, gradient):
    def shifted(frames, boxes, *args, **kwargs):
        return crop_resize(frames, boxes + 0.01, *args, **kwargs)

    monkeypatch.setattr(crops, "crop_resize", shifted)
    monkeypatch.setattr(ops, "interleave", never)
    with pytest.raises(
        cases.MismatchError, match=r"adafocus_ops \(reference\) differs from grid_sample by .* not timed"
    ):
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

    monkeypatch.setattr(crops, "crop_resize", wrong)
    with pytest.raises(cases.MismatchError, match="differs"):
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
    monkeypatch.setattr(crops, "crop_resize", lambda *args, **kwargs: change(crop_resize(*args, **kwargs)))
    monkeypatch.setattr(ops, "interleave", never)
    with pytest.raises(cases.MismatchError, match=message):
        measure(tiny())


def test_run_with_a_mismatch_fails_and_keeps_the_rows_of_the_rest(monkeypatch, tmp_path, capsys):
    def wrong_for_uint8(frames, boxes, *args, **kwargs):
        return crop_resize(frames, boxes + (frames.dtype == torch.uint8), *args, **kwargs)

    monkeypatch.setattr(ops, "CASES", [tiny(U8), tiny(F32)])
    monkeypatch.setattr(ops, "copy_gb_per_s", lambda device: 10.0)
    monkeypatch.setattr(crops, "crop_resize", wrong_for_uint8)
    arguments = ["--device", "cpu", "--backend", "reference", "--runs", "1", "--json", str(tmp_path / "x.jsonl")]
    assert ops.main(arguments) == 1
    output = capsys.readouterr()
    assert "crop_resize uint8" in output.err
    assert "not timed" in output.err
    assert [row["dtype"] for row in rows.read(tmp_path / "x.jsonl")] == ["float32"]


def test_absent_or_different_peers_are_left_out_with_the_reason(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.setitem(sys.modules, "torchvision.ops", None)
    monkeypatch.setitem(crops.PEERS, "kornia", lambda frames, boxes, patch: frames[..., :patch, :patch] + 7)
    row = measure(tiny())
    assert set(row["contenders"]) == {"grid_sample"}
    assert row["absent"]["torchvision"].startswith("torchvision is not installed")
    assert "pip install -r third_party/requirements-peers.txt" in row["absent"]["torchvision"]
    assert "kornia differs from grid_sample" in row["absent"]["kornia"]


@pytest.mark.parametrize("name", crops.PEERS)
@pytest.mark.parametrize("layout", cases.LAYOUTS)
def test_peer_adapters_take_our_boxes(name, layout):
    pytest.importorskip(name, reason=f"{name} is not installed (third_party/requirements-peers.txt)")
    generator = torch.Generator().manual_seed(0)
    frames = torch.rand(6, 3, 40, 50, generator=generator).contiguous(memory_format=cases.LAYOUTS[layout])
    boxes = torch.tensor([20.0, 25.0, 14.0, 30.0]) + 4 * torch.rand(6, 4, generator=generator)
    assert_close(crops.PEERS[name](frames, boxes, 7), crop_resize(frames, boxes, 7), atol=1e-4, rtol=0)


def test_boxes_lie_inside_the_frame_and_off_the_kinks():
    boxes = crops.random_boxes(500, 96, 224, (96, 224))
    assert boxes.shape == (500, 4)
    centre, extent = boxes[:, :2], boxes[:, 2:]
    assert (centre - extent / 2).min() >= -1e-4
    assert (centre + extent / 2).max() <= 224 + 1e-4
    assert extent.min() >= 96
    steps = (torch.arange(96) + 0.5) / 96 - 0.5
    position = centre.double()[..., None] + extent.double()[..., None] * steps - 0.5
    assert (position - position.round()).abs().min() > 0.9e-4


def test_targets_of_the_crops():
    asked = {case.name: case.targets["cpu"].ratio for case in crops.CASES if case.targets["cpu"].ratio}
    for layout in cases.LAYOUTS:
        assert asked[f"crop_resize uint8 to float32, P=96, {layout}, forward"] == 15
        assert asked[f"crop_resize uint8 to float32, P=128, {layout}, forward"] == 12
        for patch in (96, 128):
            assert asked[f"crop_resize float32, P={patch}, {layout}, forward"] == 2.5
            assert asked[f"crop_resize float32, P={patch}, {layout}, gradient of boxes"] == 6
    assert len(asked) == 12
    for case in crops.CASES:
        frames = "antialiased" not in case.name and "maps" not in case.name
        target = case.targets.get("cuda", cases.Targets())
        if case.launch_bound:
            assert target == cases.Targets(microseconds=6)
        elif frames and case.mode == "forward":
            assert target == cases.Targets(ratio=5, bandwidth=0.6)
        elif case.mode == "backward":
            assert target == cases.Targets(ratio=5, bandwidth=0.7 if case.name.endswith("boxes") else 0.75)
        else:
            assert target == cases.Targets()


@pytest.mark.parametrize("layout", cases.LAYOUTS)
@pytest.mark.parametrize("dtype", [U8, F16, F32])
@pytest.mark.parametrize("antialias", [False, True])
def test_touched_bytes_are_the_sectors_that_have_a_weight(layout, dtype, antialias):
    """Pixels with a gradient, by their addresses."""
    patch, boxes = 9, crops.random_boxes(20, 9, 32, (2, 32))
    frames = torch.zeros(20, 3, 32, 32, dtype=torch.float64, requires_grad=True)
    out = crop_resize(frames, boxes, patch, antialias=antialias, backend="reference")
    read = torch.autograd.grad(out.sum(), frames)[0] != 0
    stored = read.permute(0, 2, 3, 1) if layout == "channels_last" else read
    stored = stored.reshape(-1).repeat_interleave(torch.empty(0, dtype=dtype).element_size())
    sectors = stored.view(-1, bandwidth.SECTOR).any(1).sum()
    images = torch.empty(20, 3, 32, 32, dtype=dtype).contiguous(memory_format=cases.LAYOUTS[layout])
    assert bandwidth.touched_bytes(images, boxes, patch, antialias) == bandwidth.SECTOR * sectors


def test_no_box_touches_more_than_a_frame():
    maps, boxes = torch.empty(2, 64, 7, 7), torch.tensor([[3.5, 3.5, 7, 7], [3.5, 3.5, 0.5, 0.5]])
    assert bandwidth.touched_bytes(maps, boxes[:1], 7) == maps[0].nbytes
    assert bandwidth.touched_bytes(maps, boxes[1:], 7) < maps[0].nbytes


@pytest.mark.parametrize(
    ("options", "bytes_of"),
    [
        ({}, lambda read, frames, out: read + out),
        ({"op": "crop_mean"}, lambda read, frames, out: read + out),
        ({"gradient": "boxes", "backward_only": True}, lambda read, frames, out: read + out),
        ({"gradient": "frames", "backward_only": True}, lambda read, frames, out: frames + out),
        ({"gradient": "frames"}, lambda read, frames, out: read + out + frames + out),
    ],
    ids=str,
)
def test_bytes_of_every_pass(options, bytes_of):
    crop = crops.Crop(4, F32, frame_size=16, sides=(5, 12), num_boxes=3, **options)
    data = crop.inputs(CPU)
    read = bandwidth.touched_bytes(data.frames, data.boxes, 4)
    out = 3 * 3 * 4 * (1 if crop.op == "crop_mean" else 16)
    assert crop.prepare(CPU).bytes == bytes_of(read, 3 * 3 * 256 * 4, out)


def test_a_copy_is_counted_twice(monkeypatch):
    monkeypatch.setattr(bandwidth, "COPIED_BYTES", {"cpu": 2**20})
    monkeypatch.setattr(bandwidth, "stats", lambda times: {"p50_ms": 0.5})
    assert bandwidth.copy_gb_per_s(CPU) == pytest.approx(2 * 2**20 / 0.5e-3 / 1e9)


def test_time_in_a_graph_is_that_of_one_call(monkeypatch):
    ran = []
    monkeypatch.setattr(ops, "graph_of", lambda call, repeats: lambda: [call() for _ in range(repeats)] and None)
    monkeypatch.setattr(ops, "interleave", lambda graphs, device, runs: {n: [g() or 40.0] for n, g in graphs.items()})
    assert ops.time_in_graphs({"a": lambda: ran.append(1)}, CPU, runs=1) == {"a": [2.0]}
    assert len(ran) == 20


def test_a_call_that_waits_for_the_host_is_timed_by_itself(monkeypatch):
    ran = []
    monkeypatch.setattr(ops, "graph_of", lambda call, repeats: lambda: None)
    monkeypatch.setattr(ops, "interleave", lambda graphs, device, runs: {n: [g() or 40.0] for n, g in graphs.items()})
    calls = {"a": never, "b": lambda: ran.append(1)}
    assert ops.time_in_graphs(calls, CPU, runs=1, waiting={"b"}) == {"a": [2.0], "b": [40.0]}
    assert len(ran) == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_launch_bound_case_on_a_gpu():
    device = torch.device("cuda")
    case = crops.Crop(3, F16, out_dtype=F16, channels=64, frame_size=7, sides=(3, 7), num_boxes=4)
    env = environment.environment(device) | {"copy_gb_per_s": 1000.0}
    row = ops.measure(case.case({}, launch_bound=True), device, "reference", runs=3, env=env)
    assert row["launches"]["grid_sample"] > 1
    assert "not captured" in row["absent"]["kornia"]
    assert 0 < row["contenders"]["grid_sample"]["p50_ms"] < 10


# --- the ops that choose, and the shift ---------------------------------------------------------------------------

TINY = {
    "weighted_sample": sampling.Draws(6, 3, num_samples=40, num_rows=50),
    "expected_value": sampling.Expectation(4, 3, 9, num_samples=20, num_rows=30),
    "gradients of expected_value": sampling.Expectation(4, 3, 9, num_samples=20, num_rows=30, gradients=True),
    "quantile_frames": selection.Frames(4, 12, 5),
    "exit_gate": selection.Gate(40, 7),
    "temporal_shift": shift.Shift(F32, "channels_last"),
    "gradient of temporal_shift": shift.Shift(F16, "contiguous", backward=True),
}


@pytest.fixture
def small_frames(monkeypatch):
    monkeypatch.setattr(shift, "SHAPES", {"cpu": (16, 16, 3, 2)})


@pytest.mark.parametrize("kind", TINY)
def test_row_of_another_op_is_complete(kind, small_frames):
    case = TINY[kind].case({"cpu": cases.Targets(ratio=1e-6)})
    row = measure(case)
    assert set(rows.REQUIRED) <= set(row)
    assert row["op"] == TINY[kind].op in kind
    assert 0 <= row["check"]["max_error"] <= row["check"]["tolerance"]
    assert case.baseline in row["contenders"]
    assert ops.ops_table([row]).lines[0][-1] == "1e-06x (met)"
    assert row["baseline"] == ("clone" if "shift" in kind else case.baseline)


def test_what_is_timed_must_be_the_op(small_frames, monkeypatch):
    """No case times a call that is not checked."""
    monkeypatch.setattr(ops, "interleave", never)
    for module, name in (
        (sampling, "weighted_sample"),
        (sampling, "expected_value"),
        (selection, "quantile_frames"),
        (selection, "exit_gate"),
        (shift, "temporal_shift"),
    ):
        function = getattr(module, name)

        def wrong(x, *args, function=function, **kwargs):
            return function(x.flip(0), *args, **kwargs)

        monkeypatch.setattr(module, name, wrong)
    for workload in TINY.values():
        with pytest.raises(cases.MismatchError, match="not timed"):
            measure(workload.case({}))


def test_inclusion_probabilities_are_those_of_all_orders():
    weights = torch.randn(6, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).softmax(0)
    for k in range(1, 6):
        exact = torch.zeros(6, dtype=torch.float64)
        for order in itertools.permutations(range(6), k):
            drawn = weights[list(order)]
            exact[list(order)] += (drawn / (1 - drawn.cumsum(0) + drawn)).prod()
        assert_close(sampling.inclusion_probabilities(weights, k, range(6)), exact, atol=1e-7, rtol=0)
        assert_close(sampling.inclusion_probabilities(7 * weights, k, [4, 2]), exact[[4, 2]], atol=1e-7, rtol=0)


DRAWS = sampling.Draws(8, 3, num_samples=200, num_rows=50)


def drawn_wrongly(change, draws: sampling.Draws = DRAWS) -> float:
    prepared = draws.prepare(CPU)
    (index,) = prepared.calls["torch.multinomial"]()
    return cases.check(draws.case({}), "this", (change(index),), prepared, ())


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
    ids=["of another row", "in another order", "repeated", "out of range", "too few"],
)
def test_wrong_draws_are_refused(change, message):
    with pytest.raises(cases.MismatchError, match=message):
        drawn_wrongly(change)


def test_uniform_draws_are_refused():
    with pytest.raises(cases.MismatchError, match="standard errors"):
        drawn_wrongly(lambda index: torch.rand(50, 200, 8).argsort(-1)[..., :3])


EXPECTATION = sampling.Expectation(6, 3, 12, num_samples=50, num_rows=60, gradients=True)


@pytest.mark.parametrize("contender", [cases.OURS, "published chain"])
def test_right_expectations_pass(contender):
    prepared = EXPECTATION.prepare(CPU)
    assert cases.check(EXPECTATION.case({}), contender, prepared.calls[contender](), prepared, ()) < 5


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
    with pytest.raises(cases.MismatchError, match=message):
        cases.check(EXPECTATION.case({}), "this", change(*prepared.calls["published chain"]()), prepared, ())


def test_expectation_of_the_mean_is_refused():
    """What no reweighting would give: every item counts the same."""
    plain = sampling.Expectation(6, 3, 12, num_samples=50, num_rows=60)
    prepared = plain.prepare(CPU)
    _, values, _ = prepared.error.args
    with pytest.raises(cases.MismatchError, match="standard errors"):
        cases.check(plain.case({}), "this", (values.mean(1),), prepared, ())


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
    gate = selection.Gate(40, 7)
    prepared = gate.prepare(CPU)
    expected = prepared.calls["softmax, log, nonzero"]()
    assert 10 < len(expected[1]) < 30
    padded = (expected[0], *(torch.nn.functional.pad(listed, (0, 5), value=-1) for listed in expected[1:]))
    cases.check(gate.case({}), "this", padded, prepared, expected)
    with pytest.raises(cases.MismatchError, match=message):
        cases.check(gate.case({}), "this", change(*expected), prepared, expected)


def test_no_position_is_near_the_next_frame():
    frames = selection.Frames(8, 36, 12)
    weights = frames.weights()
    assert weights.shape == (selection.NUM_VIDEOS, 8)
    position = selection.quantile_positions(weights.double(), 36, 12)
    assert (position - position.round()).abs().min() > 0.9e-3
    assert (position.diff() > 0).all()


def test_targets_of_the_other_ops():
    assert len({case.name for case in ops.CASES}) == len(ops.CASES)
    asked = {
        (device, case.name): tuple(filter(None, dataclasses.astuple(target)))
        for case in ops.CASES
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
    for dtype, layout, mode in itertools.product(("float32", "float16"), cases.LAYOUTS, ("forward", "backward")):
        expected["cuda", f"temporal_shift {dtype}, {layout}, {mode}"] = (0.8,)
        if (dtype, mode) == ("float32", "forward"):
            expected["cpu", f"temporal_shift {dtype}, {layout}, {mode}"] = (0.9,)
    assert asked == expected
    for case in ops.CASES:
        if case.targets.get("cuda", cases.Targets()).microseconds:
            assert case.launch_bound


def test_gates_of_any_size_share_a_table():
    made = [measure(selection.Gate(n, 7).case({})) for n in (40, 41)]
    assert ops.group_rows(made) == [made]
    assert "; logits; " in ops.ops_table(made).title


# --- growth -------------------------------------------------------------------------------------------------------

SMALL_SERIES = scaling.Series(
    "boxes", 1, {n: crops.Crop(4, U8, frame_size=16, sides=(5, 12), num_boxes=n) for n in (1, 2, 4, 40)}
)


def test_scaling_run_keeps_a_row_for_every_point(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(ops, "SERIES", {"cpu": [SMALL_SERIES]})
    monkeypatch.setattr(ops, "copy_gb_per_s", lambda device: 10.0)
    path = tmp_path / "x.jsonl"
    arguments = ["--scaling", "--device", "cpu", "--backend", "reference", "--runs", "2", "--json", str(path)]
    assert ops.main(arguments) == 0
    found = rows.read(path)
    assert [row["input"].split()[0] for row in found] == ["1", "2", "4", "40"]
    assert len({rows.key(row) for row in found}) == 4
    for row in found:
        assert set(rows.REQUIRED) <= set(row)
        assert row["what"] == "scaling"
        assert row["check"]["passed"]
    assert "at most 1" in capsys.readouterr().out


@pytest.mark.parametrize("index", range(len(scaling.selection_series(1, [], [], []))))
def test_series_of_the_other_ops(index):
    series = scaling.selection_series(20, depths=[16, 20, 24], samples=[4, 8, 16], gated=[8, 16, 32])[index]
    found = scaling.measure_series(series, CPU, "reference", runs=1, env=ENV | {"device": "this"})
    assert [row["value"] for row in found] == list(series.workloads)
    assert all(row["check"]["passed"] for row in found)
    assert {row["input"].split()[0] for row in found} == {"logits" if "gate" in series.name else "20"}


def test_growth_of_some_only(capsys):
    assert ops.main(["--scaling", "--device", "cpu", "--list", "--cases", "weighted_sample"]) == 0
    assert capsys.readouterr().out.splitlines() == ["weighted_sample: samples", "weighted_sample: items"]


def test_scaling_checks_before_it_times(monkeypatch):
    monkeypatch.setattr(crops, "crop_resize", lambda *args, **kwargs: crop_resize(*args, **kwargs) + 1)
    monkeypatch.setattr(scaling, "interleave", never)
    with pytest.raises(cases.MismatchError):
        scaling.measure_series(SMALL_SERIES, CPU, "reference", runs=1, env=ENV)


def test_exponent_is_that_of_the_largest_values():
    assert scaling.exponent({1: 9.0, 10: 1.0, 100: 10.0, 1000: 100.0}) == pytest.approx(1)
    assert scaling.exponent({8: 5.0, 2: 5.0, 4: 5.0}) == pytest.approx(0)


@pytest.mark.parametrize("device", scaling.SERIES)
def test_a_series_varies_one_thing(device):
    assert len({series.name for series in scaling.SERIES[device]}) == len(scaling.SERIES[device])
    for series in scaling.SERIES[device]:
        assert len(series.workloads) >= scaling.FITTED_POINTS
        points = [dataclasses.asdict(workload) for workload in series.workloads.values()]
        values = [{str(point[name]) for point in points} for name in points[0]]
        assert sorted(len(different) for different in values if len(different) > 1) == [len(points)]


def test_unknown_case_and_backend_that_cannot_run(capsys):
    assert ops.main(["--cases", "no such case"]) == 2
    assert "see --list" in capsys.readouterr().err
    assert ops.main(["--device", "cpu", "--backend", "cuda"]) == 2
    assert "backend 'cuda' cannot run crop_resize" in capsys.readouterr().err


@pytest.mark.parametrize("script", ["ops.py", "throughput.py", "report.py", "cuda_report.py", "gpu.py"])
def test_help(script):
    command = [sys.executable, str(BENCH / script), "--help"]
    result = subprocess.run(command, capture_output=True, text=True, env={"PYTHONPATH": str(BENCH.parent)}, check=False)
    assert result.returncode == 0, result.stderr
    assert "usage: " + script in result.stdout

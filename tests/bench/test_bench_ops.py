"""bench/ops.py and the cases of the crops: checks before timing, and records."""

import contextlib
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from small_cases import CPU, F16, F32, U8, measure, never, tiny
from torch.testing import assert_close

from adafocus_ops import crop_resize
from bench import ops
from bench.cases import byte_crops
from bench.cases import crop_mean as mean_cases
from bench.cases import crop_resize as crop_cases
from bench.harness import bandwidth, environment, measuring, records, tables
from bench.harness.case import LAYOUTS, OURS, MismatchError, Targets, check

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


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "crop",
    [
        byte_crops.ByteCrop(24, num_boxes=5, frame_size=64, sides=(24, 60), **options)
        for options in ({}, {"out_dtype": torch.float32}, {"antialias": True})
    ],
    ids=["bytes", "normalised", "antialiased"],
)
def test_libraries_of_images_make_the_same_of_slices(crop, layout):
    case = replace(crop, layout=layout).case({})
    prepared = case.prepare(torch.device("cpu"))
    expected = prepared.calls[case.reference]()
    check(case, OURS, prepared.calls[OURS](), prepared, expected)
    for name, call in prepared.calls.items():
        with contextlib.suppress(ImportError, NotImplementedError):  # not installed, or not of this layout
            results = call()
            assert results[0].dtype == crop.out_dtype, name
            check(case, name, results, prepared, expected)


def test_without_pillow_its_column_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    crop = byte_crops.ByteCrop(24, num_boxes=2, frame_size=64, sides=(24, 60), antialias=True)
    record = measure(crop.case({}))
    assert record["absent"]["Pillow"].startswith("Pillow is not installed")


def test_slices_are_cases_of_a_cpu_alone():
    assert {case.device_types for case in byte_crops.CASES} == {("cpu",)}


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

"""bench/ops.py: what it checks before it times, and what it keeps."""

import subprocess
import sys

import pytest
import torch
from bench_modules import BENCH, environment, ops, rows
from torch.testing import assert_close

from adafocus_ops import crop_resize

CPU = torch.device("cpu")
KINDS = [(torch.uint8, None), (torch.float32, None), (torch.float32, "boxes"), (torch.float32, "frames")]


@pytest.fixture(autouse=True)
def same_number_of_threads():
    """The script sets it for the whole process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def tiny(dtype=torch.float32, layout="contiguous", **options) -> ops.Case:
    return ops.crop_case(4, dtype, layout, {"cpu": 2.0}, frame_size=16, sides=(5, 12), num_boxes=3, **options)


def measure(case: ops.Case) -> dict:
    return ops.measure(case, CPU, "reference", runs=2, env=environment.environment(CPU))


@pytest.mark.parametrize(("dtype", "gradient"), KINDS)
@pytest.mark.parametrize("layout", ops.LAYOUTS)
def test_row_of_a_case_is_complete(dtype, gradient, layout):
    row = measure(tiny(dtype, layout, gradient=gradient))
    assert set(rows.REQUIRED) <= set(row)
    assert row["check"]["passed"]
    assert 0 <= row["check"]["max_error"] <= row["check"]["tolerance"]
    assert row["backend"] == "reference"
    assert row["stats"]["n"] == 2
    assert row["input"] == "3 boxes of 5 to 12 px, one a frame of 16 px"
    assert row["mode"] == ("forward+backward" if gradient else "forward")
    theirs = row["contenders"]["grid_sample"]["p50_ms"]
    assert row["ratios"]["grid_sample"] == pytest.approx(theirs / row["stats"]["p50_ms"])


def never(*_args, **_kwargs):
    pytest.fail("timed what does not match")


@pytest.mark.parametrize("gradient", [None, "boxes", "frames"])
def test_wrong_values_are_refused(monkeypatch, gradient):
    def shifted(frames, boxes, *args, **kwargs):
        return crop_resize(frames, boxes + 0.01, *args, **kwargs)

    monkeypatch.setattr(ops, "crop_resize", shifted)
    monkeypatch.setattr(ops, "interleave", never)
    with pytest.raises(ops.MismatchError, match=r"adafocus_ops \(reference\) differs from grid_sample by .* not timed"):
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

    monkeypatch.setattr(ops, "crop_resize", wrong)
    with pytest.raises(ops.MismatchError, match="differs"):
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
    monkeypatch.setattr(ops, "crop_resize", lambda *args, **kwargs: change(crop_resize(*args, **kwargs)))
    monkeypatch.setattr(ops, "interleave", never)
    with pytest.raises(ops.MismatchError, match=message):
        measure(tiny())


def test_run_with_a_mismatch_fails_and_keeps_the_rows_of_the_rest(monkeypatch, tmp_path, capsys):
    def wrong_for_uint8(frames, boxes, *args, **kwargs):
        return crop_resize(frames, boxes + (frames.dtype == torch.uint8), *args, **kwargs)

    monkeypatch.setattr(ops, "CASES", [tiny(torch.uint8), tiny(torch.float32)])
    monkeypatch.setattr(ops, "crop_resize", wrong_for_uint8)
    arguments = ["--device", "cpu", "--backend", "reference", "--runs", "1", "--json", str(tmp_path / "x.jsonl")]
    assert ops.main(arguments) == 1
    output = capsys.readouterr()
    assert "crop_resize uint8" in output.err
    assert "not timed" in output.err
    assert [row["dtype"] for row in rows.read(tmp_path / "x.jsonl")] == ["float32"]


def test_absent_or_different_peers_are_left_out_with_the_reason(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.setitem(sys.modules, "torchvision.ops", None)
    monkeypatch.setitem(ops.PEERS, "kornia", lambda frames, boxes, patch: frames[..., :patch, :patch] + 7)
    row = measure(tiny())
    assert set(row["contenders"]) == {"grid_sample"}
    assert row["absent"]["torchvision"].startswith("torchvision is not installed")
    assert "pip install -r third_party/requirements-peers.txt" in row["absent"]["torchvision"]
    assert "kornia differs from grid_sample" in row["absent"]["kornia"]


@pytest.mark.parametrize("name", ops.PEERS)
@pytest.mark.parametrize("layout", ops.LAYOUTS)
def test_peer_adapters_take_our_boxes(name, layout):
    pytest.importorskip(name, reason=f"{name} is not installed (third_party/requirements-peers.txt)")
    generator = torch.Generator().manual_seed(0)
    frames = torch.rand(6, 3, 40, 50, generator=generator).contiguous(memory_format=ops.LAYOUTS[layout])
    boxes = torch.tensor([20.0, 25.0, 14.0, 30.0]) + 4 * torch.rand(6, 4, generator=generator)
    assert_close(ops.PEERS[name](frames, boxes, 7), crop_resize(frames, boxes, 7), atol=1e-4, rtol=0)


def test_boxes_lie_inside_the_frame_and_off_the_kinks():
    boxes = ops.random_boxes(500, 96, 224, (96, 224), torch.Generator().manual_seed(0))
    assert boxes.shape == (500, 4)
    centre, extent = boxes[:, :2], boxes[:, 2:]
    assert (centre - extent / 2).min() >= -1e-4
    assert (centre + extent / 2).max() <= 224 + 1e-4
    assert extent.min() >= 96
    steps = (torch.arange(96) + 0.5) / 96 - 0.5
    position = centre.double()[..., None] + extent.double()[..., None] * steps - 0.5
    assert (position - position.round()).abs().min() > 0.9e-4


def test_targets_of_the_cases_on_a_cpu():
    asked = {case.name: case.at_least["cpu"] for case in ops.CASES if "cpu" in case.at_least}
    for layout in ops.LAYOUTS:
        assert asked[f"crop_resize uint8 to float32, P=96, {layout}, forward"] == 15
        assert asked[f"crop_resize uint8 to float32, P=128, {layout}, forward"] == 12
        for patch in (96, 128):
            assert asked[f"crop_resize float32, P={patch}, {layout}, forward"] == 2.5
            assert asked[f"crop_resize float32, P={patch}, {layout}, gradient of boxes"] == 6
    assert len(asked) == 12
    assert len({case.name for case in ops.CASES}) == len(ops.CASES)


def test_unknown_case_and_backend_that_cannot_run(capsys):
    assert ops.main(["--cases", "no such case"]) == 2
    assert "see --list" in capsys.readouterr().err
    assert ops.main(["--device", "cpu", "--backend", "cuda"]) == 2
    assert "backend 'cuda' cannot run crop_resize" in capsys.readouterr().err


@pytest.mark.parametrize("script", ["ops.py", "throughput.py", "report.py"])
def test_help(script):
    command = [sys.executable, str(BENCH / script), "--help"]
    result = subprocess.run(command, capture_output=True, text=True, env={"PYTHONPATH": str(BENCH.parent)}, check=False)
    assert result.returncode == 0, result.stderr
    assert "usage: " + script in result.stdout

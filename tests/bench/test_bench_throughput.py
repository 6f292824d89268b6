"""bench/throughput.py and the cases of the models: names, forced exits, the check before timing, and a short run."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from made_up_records import throughput_record

import adafocus_ops
from adafocus_models import configurations, create_model, fold_batch_norm
from adafocus_models import multiply_adds as count
from bench import throughput
from bench.cases import engines, models, models_check, roofline
from bench.harness import records

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[2]
UNI = "uni_adafocus_tsm_96_8+8"


def parse(name):
    return models.ModelCase.parse(name)


@pytest.mark.parametrize("name", models.PAPER)
def test_names_of_cases_go_round(name):
    assert str(parse(name)) == name


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_model", "a model must be one of .*tsm_plus_8\\+8"),
        (f"{UNI}/exit=1.5", r"an exit ratio must be in \[0, 1\], got 1.5"),
        ("tsm_plus_8+8/exit=0.5", "has no early exit"),
        (f"{UNI}/exit=half", "could not convert"),
    ],
)
def test_wrong_cases_are_errors(name, message, capsys):
    with pytest.raises(ValueError, match=message):
        parse(name)
    with pytest.raises(SystemExit):
        throughput.main(["--synthetic", "--configs", name])
    assert "error: " in capsys.readouterr().err


def test_exit_ratio_is_for_all_models_that_have_the_exit():
    chosen = models.select(["tsm_plus_8+8", UNI, "uni_adafocus_tsm_96_8+12/exit=0.319"], 0.25)
    assert list(map(str, chosen)) == ["tsm_plus_8+8", f"{UNI}/exit=0.25", "uni_adafocus_tsm_96_8+12/exit=0.25"]


def test_all_is_every_table_or_one():
    assert list(map(str, models.select(["all"], None))) == list(models.PAPER)
    for table in ("II", "IV", "V"):
        chosen = models.select(["all"], None, table)
        assert {case.table for case in chosen} == {table}
        assert str(chosen[0]) == models.NAMES[table].rival
    assert {case.model for case in models.select(["all"], None)} == set(configurations())
    assert models.select([UNI, "x3d_s_13"], None, "V") == [parse("x3d_s_13")]


@pytest.mark.parametrize("name", [name for name in models.PAPER if "/exit=" in name or name.endswith("_8+8")])
def test_counted_gflops_are_the_papers(name):
    case = parse(name)
    with torch.device("meta"):
        model = create_model(case.model)
    assert models.gflops(model, case.exit_ratio) == pytest.approx(models.PAPER[name].gflops, abs=0.06)


def test_gflops_of_videos_that_all_leave_are_those_of_the_glance():
    model = create_model(UNI)
    assert models.gflops(model, 1.0) == pytest.approx(count(model)["exit0"] / 1e9)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_default_batch_realises_every_exit_ratio(device):
    cases = [parse(name) for name in models.PAPER]
    size = models.default_batch(cases, torch.device(device))
    assert size >= models.DEFAULT_BATCH[device]
    for ratio in (case.exit_ratio for case in cases):
        assert models_check.leaving(ratio, size) / size == pytest.approx(ratio, abs=0.02)
    assert models.default_batch(cases[:2], torch.device(device)) == models.DEFAULT_BATCH[device]


@pytest.mark.parametrize("num_leaving", [1, 2, 5])
def test_forced_gate_lets_that_many_leave(num_leaving):
    gate = models_check.forced_gate(num_leaving, 5)
    first = gate(torch.randn(5, 174))
    assert first.leave.tolist() == list(range(num_leaving))
    assert first.keep.tolist() == list(range(num_leaving, 5))
    assert gate(torch.randn(5 - num_leaving, 174)).leave.tolist() == []  # at a later exit


def test_no_gate_where_nobody_leaves():
    assert models_check.forced_gate(0, 5) is None


def small_model(name):
    """The model with 4 instead of 8 frames, which takes half the time."""
    fewer = {"num_glance_frames": 4, "num_focus_frames": 4}
    return create_model(name, **fewer)


@pytest.fixture(scope="module")
def plain():
    """A calibrated model, and frames and glance frames of 2 videos."""
    torch.manual_seed(0)
    model = small_model(UNI).eval()
    clips = models.clips_from(None)(model.frame_size, model.num_candidate_frames, model.num_glance_frames)
    inputs = [models.repeat_to_batch(clip, 2, CPU) for clip in clips]
    models.calibrate_batch_norm(model, *inputs)
    return model, *inputs


def test_batch_is_stored_as_decoders_give_it(plain):
    _, frames, _ = plain
    assert frames.shape == (2, 12, 3, 224, 224)
    assert frames.permute(0, 1, 3, 4, 2).is_contiguous()
    assert not frames[0].equal(frames[1])
    assert frames[0].roll(16, -2).equal(frames[1])


def test_calibrated_activations_neither_fade_nor_grow(plain):
    model, frames, glance_frames = plain
    maps = {}
    hook = model.focus_encoder.register_forward_hook(lambda module, inputs, output: maps.update(focus=output))
    with torch.no_grad():
        model(frames, glance_frames)
    hook.remove()
    assert 0.1 < maps["focus"].std() < 10
    assert not any(module.training for module in model.modules())


def test_the_check_sees_videos_mixed_up(plain, monkeypatch):
    """An index that forgets which video it belongs to, in both models alike."""
    model, *inputs = plain
    right = adafocus_ops.boxes.for_frames
    forgets = lambda boxes, index, *args, **kwargs: (right(boxes, index, *args, **kwargs)[0], index.flatten())  # noqa: E731
    monkeypatch.setattr(adafocus_ops.boxes, "for_frames", forgets)
    assert not models_check.compare(model, tuned_copy(model), inputs, 0.0)["passed"]


def tuned_copy(model):
    return fold_batch_norm(model).to(memory_format=torch.channels_last)


@pytest.mark.parametrize("exit_ratio", [0.0, 0.5, 1.0])
def test_tuned_model_passes_the_check(plain, exit_ratio):
    model, *inputs = plain
    check = models_check.compare(model, tuned_copy(model), inputs, exit_ratio)
    assert check["passed"], check
    assert check["same_frames"] == check["videos"] == 2
    assert "policy" not in vars(model)


@pytest.mark.parametrize(
    ("module", "field"),
    [("focus_head", "max_error"), ("spatial_policy", "box_error_px"), ("temporal_policy", "same_frames")],
)
def test_check_notices_other_weights(plain, module, field):
    model, *inputs = plain
    tuned = tuned_copy(model)
    right = models_check.compare(model, tuned, inputs, 0.0)
    with torch.no_grad():
        for parameter in getattr(tuned, module).parameters():
            parameter.copy_(parameter.flip(0).neg())
    wrong = models_check.compare(model, tuned, inputs, 0.0)
    assert right["passed"]
    assert not wrong["passed"]
    assert wrong[field] != pytest.approx(right[field], rel=0.5)


def test_short_run_prints_and_keeps_records(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(models, "create_model", small_model)
    path = tmp_path / "records.jsonl"
    configs = ["tsm_plus_8+8", f"{UNI}/exit=0.5"]
    arguments = ["--device", "cpu", "--synthetic", "--batch-size", "2", "--runs", "1", "--json", str(path)]
    assert throughput.main([*arguments, "--engine", "eager", "--configs", *configs]) == 0
    rival, uni = records.read(path)
    for record in (rival, uni):
        assert set(records.REQUIRED) <= set(record)
        assert record["check"]["passed"]
        assert record["videos_per_s"] == pytest.approx(2e3 / record["stats"]["p50_ms"])
    assert rival["ratios"] == {"tsm_plus_8+8": 1.0}
    assert uni["ratios"]["tsm_plus_8+8"] == pytest.approx(uni["videos_per_s"] / rival["videos_per_s"])
    assert uni["exit_ratio"] == {"asked": 0.5, "realised": 0.5}
    assert uni["paper"] is None
    assert rival["paper"]["videos_per_s"] == 218.2
    assert set(rival["stages_ms"]) == {"read", "glance", "focus", "head"}
    assert set(uni["stages_ms"]) == {"read", "glance", "policy", "focus", "head"}
    assert all(milliseconds > 0 for record in (rival, uni) for milliseconds in record["stages_ms"].values())
    output = capsys.readouterr().out
    assert "decoding and upload are not timed" in output
    assert f"{UNI}/exit=0.5" in output


def test_run_with_a_model_that_differs_fails_and_keeps_no_record(monkeypatch, tmp_path, capsys):
    def broken(model):
        copy = fold_batch_norm(model)
        copy.classifier.bias.data += 1
        return copy

    monkeypatch.setattr(models, "create_model", small_model)
    monkeypatch.setattr(engines, "fold_batch_norm", broken)
    path = tmp_path / "records.jsonl"
    arguments = ["--device", "cpu", "--synthetic", "--batch-size", "1", "--runs", "1", "--json", str(path)]
    assert throughput.main([*arguments, "--engine", "eager", "--configs", "tsm_plus_8+8"]) == 1
    assert "tsm_plus_8+8 by eager: differs from the plain model, not timed" in capsys.readouterr().err
    assert not path.exists()


def test_engines_side_by_side(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(models, "create_model", small_model)
    monkeypatch.setattr("adafocus_models.engine.walking.LAYER_SECONDS", 0.0)
    monkeypatch.setattr("adafocus_models.engine.tuning.MODULE_SECONDS", 0.0)
    for name in ("openvino", "onnxruntime"):
        monkeypatch.setattr(engines.RUNTIMES[name], "why_not", lambda *_: "not in this test")
    path = tmp_path / "records.jsonl"
    arguments = ["--device", "cpu", "--synthetic", "--batch-size", "1", "--runs", "1", "--json", str(path), "--profile"]
    names = ["published", "eager", "openvino", "engine"]
    assert throughput.main([*arguments, "--engine", *names, "--configs", UNI]) == 0
    found = {record["engine"]: record for record in records.read(path)}
    assert set(found) == {"published", "eager", "engine"}
    ours = found["engine"]
    assert set(ours["chosen"]) >= {"glance_encoder", "focus_encoder"}
    assert found["published"]["layout"] == "contiguous"
    assert found["eager"]["chosen"] is None
    for name, record in found.items():
        assert ours["times_engine"][name] == pytest.approx(ours["videos_per_s"] / record["videos_per_s"])
        assert record["roofline"]["multiply_adds"] == ours["roofline"]["multiply_adds"] > 0
        assert record["roofline"]["floor_share"] > 0
        assert set(record["stages_ms"]) == {"read", "glance", "policy", "focus", "head"}
    output = capsys.readouterr().out
    assert "not openvino: not in this test" in output
    assert "engine / fastest other" in output
    assert "CUDA graphs: no" in output  # the profile


def test_an_engine_that_there_is_not(capsys):
    with pytest.raises(SystemExit):
        throughput.main(["--synthetic", "--engine", "tensorrt"])
    assert "invalid choice: 'tensorrt'" in capsys.readouterr().err


def test_videos_of_several_processes_add_up():
    one = [throughput_record(UNI, 100.0), throughput_record("tsm_plus_8+8", 40.0)]
    slow = {"p20_ms": 19.0, "p50_ms": 20.0, "p80_ms": 21.0, "n": 30}
    two = [throughput_record(UNI, 50.0, stats=slow), throughput_record("tsm_plus_8+8", 40.0)]
    uni, rival = models.merged([one, two])
    assert (uni["videos_per_s"], rival["videos_per_s"], uni["processes"]) == (150.0, 80.0, 2)
    assert uni["stats"] == slow
    assert uni["ratios"] == {"tsm_plus_8+8": 150 / 80}
    assert models.merged([one, two[:1]])[0]["case"] == UNI  # what one of them could not run is in none
    assert len(models.merged([one, two[:1]])) == 1
    assert models.merged([]) == []


@pytest.mark.slow
def test_two_processes_give_one_table(tmp_path):
    """Two processes of torchrun over gloo."""
    path = tmp_path / "records.jsonl"
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "bench/throughput.py"]
    command += ["--synthetic", "--threads", "1", "--batch-size", "1", "--runs", "1", "--configs", UNI]
    command += ["--engine", "eager", "--json", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    [record] = records.read(path)
    assert record["processes"] == 2
    assert done.stdout.count("Throughput:") == 1
    assert record["videos_per_s"] > 1.2e3 / record["stats"]["p50_ms"]  # of two, not of one


def test_work_by_layer_is_what_the_costs_say():
    model = create_model(UNI)
    work = roofline.work_of(model, 128)
    total = sum(layer.multiply_adds for layer in work)
    assert total == pytest.approx(count(model)["total"], rel=1e-3)  # which has no head of exit 0
    rates = roofline.Rates(gb_per_s=1e9, gmac_per_s=1.0)
    assert roofline.floor_ms(work, rates, 4) == pytest.approx(total / 1e6)
    shares = roofline.roofline(work, 2 * total / 1e6, rates, 4)
    assert shares["matrix_share"] == shares["floor_share"] == pytest.approx(0.5)


def test_published_style_sees_what_the_model_sees(plain):
    model, *inputs = plain
    runner = engines.make_runner(engines.PUBLISHED, model, inputs, torch.float32)
    ready = runner.inputs(inputs, torch.float32)
    assert all(x.is_contiguous() and x.dtype == torch.float32 for x in ready)
    check = models_check.compare(model, runner, inputs, 0.0)
    assert check["passed"], check
    assert check == models_check.compare(model, lambda *_, gate: runner(*ready, gate=gate), inputs, 0.0)
    assert any(isinstance(module, torch.nn.BatchNorm2d) for module in runner.model.modules())

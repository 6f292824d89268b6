"""The engine gives what the model gives, for every network and any batch, and refuses what it cannot do."""

import copy
import json
import subprocess
import sys
import warnings
from functools import partial

import pytest
import torch
from engine_models import assert_equal_outputs, bytes_of, engine_of, quick, small_tsm  # noqa: F401
from oracle_models import inputs_of, small, small_model
from tiny_models import tiny
from torch import nn

from adafocus_models import Thresholds, architectures
from adafocus_models.engine import RUNTIMES, Choices, Engine, Runtime, memory, tuning, write_onnx
from adafocus_models.engine import engine as engine_module
from adafocus_models.engine.choices import LAYERS, PLAIN

pytestmark = pytest.mark.usefixtures("quick")
# The others have the same encoders, and are slow: run with -m slow.
DIFFERENT = ("uni_adafocus", "uni_adafocus_tsm", "uni_adafocus_x3d", "tsm_plus")
each_network = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in DIFFERENT else pytest.mark.slow) for name in architectures()]
)


@each_network
@torch.inference_mode()
def test_any_batch_is_as_the_model_has_it(name):
    model = small(name, torch.float32)
    engine = engine_of(model)
    inputs = bytes_of(model, 3)  # more than the engine's two
    whole = model(*inputs)
    for videos in (3, 2, 1, 0):
        some = [x[:videos] for x in inputs]
        assert_equal_outputs(engine(*some), type(whole)(*(x if x is None else x[:videos] for x in whole)))
    assert {choice.form for choice in engine.choices.modules.values()} == {LAYERS}
    assert not any(choice.left_out for choice in engine.choices.modules.values())


@torch.inference_mode()
def test_inputs_of_any_kind():
    model = small_tsm()
    engine = engine_of(model)
    floats = inputs_of(model, 2, torch.float32)
    assert_equal_outputs(engine(*floats), model(*floats))
    [frames, _] = bytes_of(model, 2)
    assert_equal_outputs(engine(frames), model(frames))  # the glance frames are among the candidates
    strided = frames.movedim(2, -1).contiguous().movedim(-1, 2)
    assert_equal_outputs(engine(strided), model(frames))
    first = engine(*floats)
    kept = [x.clone() for x in first[:5]]
    engine(*(x.flip(0) for x in floats))
    assert all(torch.equal(x, before) for x, before in zip(first[:5], kept, strict=True))  # memory of its own


@pytest.mark.parametrize(
    "name", ["uni_adafocus_tsm", "uni_adafocus", pytest.param("adafocus_v1", marks=pytest.mark.slow)]
)
@torch.inference_mode()
def test_thresholds_at_run_time(name):
    model = small(name, torch.float32)
    inputs = bytes_of(model, 2)
    engine = engine_of(model)
    scores = -torch.distributions.Categorical(logits=model(*inputs).exit_logits[:, 0]).entropy()
    between = scores.mean().item()
    for values in ([between], [0.0], [-10.0]):  # one leaves at the glance; none; all
        thresholds = Thresholds.of(values + [0.0] * (model.num_exits - 2))
        engine.set_thresholds(thresholds)
        assert_equal_outputs(engine(*inputs), model(*inputs, gate=thresholds))
    engine.set_thresholds(None)
    assert_equal_outputs(engine(*inputs), model(*inputs))


@pytest.mark.parametrize("make", [tiny, pytest.param(partial(small, dtype=torch.float32), marks=pytest.mark.slow)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_other_dtypes(dtype, make):
    """Without a policy, whose boxes would differ with the rounding."""
    model = make("tsm_plus")
    inputs = inputs_of(model, 2, torch.float32)
    with warnings.catch_warnings(record=True) as told:
        engine = engine_of(model, dtype=dtype, check=True)
    has_none = dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported()
    assert ["no bfloat16 arithmetic" in str(each.message) for each in told] == [True] * has_none
    assert not any(choice.left_out for choice in engine.choices.modules.values())
    output, expected = engine(*inputs).logits, model(*inputs).logits
    assert output.dtype == dtype
    plain = copy.deepcopy(model).to(dtype)(*inputs).logits
    allowed = 3 * (plain.float() - expected).abs().max() + 1e-4 * expected.abs().max()
    assert (output.float() - expected).abs().max() <= allowed


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime", pytest.param("compile", marks=pytest.mark.slow)])
@torch.inference_mode()
def test_a_runtime_asked_for_by_name_computes_the_encoders(runtime):
    if runtime != "compile":
        for package in (runtime, "onnx"):
            pytest.importorskip(package, reason=f"{package} is an extra: adafocus[cpu]")
    model = small("tsm_plus" if runtime != "compile" else "tsm", torch.float32)
    engine = engine_of(model, runtime=runtime, check=True)
    encoders = {name: choice for name, choice in engine.choices.modules.items() if name.endswith("_encoder")}
    assert {choice.form for choice in encoders.values()} == {runtime}
    inputs = bytes_of(model, 3)
    assert_equal_outputs(engine(*inputs), model(*inputs))
    if runtime != "compile":  # which compiles again for other shapes
        assert_equal_outputs(engine(*(x[:1] for x in inputs)), model(*(x[:1] for x in inputs)))


SIGNALS_AFTER_ENGINES = """
import faulthandler, gc, os, signal, torch
from torch import nn
from adafocus_models.engine.runtimes.openvino_cpu import OpenVINOModule

faulthandler.enable()  # with a stack of its own for handlers, as pytest and many programs have it
x = torch.zeros(1, 3, 8, 8)
first, second = (OpenVINOModule(nn.Conv2d(3, 4, 3).eval(), x) for _ in range(2))
del first
gc.collect()
del second
gc.collect()
signal.signal(signal.SIGUSR1, lambda *_: print("handled"))
os.kill(os.getpid(), signal.SIGUSR1)
"""


def test_signals_are_handled_where_openvino_was():
    for package in ("openvino", "onnx"):
        pytest.importorskip(package, reason=f"{package} is an extra: adafocus[cpu]")
    done = subprocess.run([sys.executable, "-c", SIGNALS_AFTER_ENGINES], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr


# ----------------------------------------------------------------------------------------------------
# Choices


@torch.inference_mode()
def test_choices_are_kept_in_a_file(tmp_path, monkeypatch):
    model = small_tsm()
    engine = engine_of(model)
    engine.choices.save(tmp_path / "choices.json")
    assert Choices.load(tmp_path / "choices.json") == engine.choices

    def measures(*args, **kwargs):
        raise AssertionError("nothing is to be timed")

    monkeypatch.setattr(tuning, "tune", measures)
    again = engine_of(model, choices=tmp_path / "choices.json", check=True)
    inputs = bytes_of(model, 2)
    assert torch.equal(again(*inputs).logits, engine(*inputs).logits)
    assert torch.equal(engine_of(model, choices=engine.choices)(*inputs).logits, engine(*inputs).logits)


def test_stale_choices_are_refused_by_name_of_what_changed(tmp_path):
    model = small_tsm()
    choices = engine_of(model).choices
    path = tmp_path / "choices.json"
    stale = Choices({**choices.made_for, "torch": "2.0.0", "device": "another"}, choices.modules)
    stale.save(path)
    with pytest.raises(ValueError, match=r"choices.json must be made for this engine, but device is .*, was 'another'"):
        engine_of(model, choices=path)
    with pytest.raises(ValueError, match="batch_size is 4, was 2: measure again"):
        engine_of(model, choices=choices, batch_size=4)
    with pytest.raises(ValueError, match="dtype is 'bfloat16', was 'float32'"):
        engine_of(model, choices=choices, dtype=torch.bfloat16)
    with pytest.raises(ValueError, match="patch_size is 64, was 32"):
        engine_of(small_model(torch.float32, patch_size=64), choices=choices)
    missing = Choices(choices.made_for, {})
    with pytest.raises(ValueError, match="choices must have one for glance_encoder"):
        engine_of(model, choices=missing)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "must be a JSON file of choices, but it cannot be read"),
        ("[]", 'with "format": "adafocus engine choices"'),
        ('{"format": "adafocus engine choices", "version": 9}', "must be of version 1, got 9"),
        ('{"format": "adafocus engine choices", "version": 1, "made_for": {}}', "must hold made_for and modules"),
    ],
)
def test_files_that_hold_no_choices(tmp_path, content, message):
    path = tmp_path / "choices.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        engine_of(small_tsm(), choices=path)
    with pytest.raises(FileNotFoundError):
        Choices.load(tmp_path / "missing.json")


def test_a_choice_that_there_is_not(tmp_path):
    model = small_tsm()
    path = tmp_path / "choices.json"
    engine_of(model).choices.save(path)
    content = json.loads(path.read_text())
    content["modules"]["focus_encoder"]["form"] = "tensorrt"
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"choices must be of library, .*, got 'tensorrt'"):
        engine_of(model, choices=path)
    content["modules"]["focus_encoder"]["form"] = LAYERS
    content["modules"]["focus_encoder"]["layers"]["conv1_layer"]["form"] = "library: magic"
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"choices must have one of plain, .* for conv1_layer"):
        engine_of(model, choices=path)


# ----------------------------------------------------------------------------------------------------
# Runtimes


class Doubling(Runtime):
    """Offers a whole module, of which the test says what it computes."""

    name = "doubling"
    factor = 1.0
    reason = None

    def why_not(self, device, dtype):
        return self.reason

    def module_form(self, module, x):
        class Form(nn.Module):
            def forward(form, x):
                return module(x) * self.factor

        return Form()


@pytest.fixture
def doubling(monkeypatch):
    monkeypatch.setitem(RUNTIMES, "doubling", Doubling())
    return RUNTIMES["doubling"]


def test_a_runtime_is_one_object_and_its_name(doubling):
    engine = engine_of(small("tsm", torch.float32), runtime=["library", "doubling"], check=True)
    assert engine.choices.modules["focus_encoder"].form == "doubling"
    assert engine.choices.made_for["doubling"] is None  # of no version


def test_a_runtime_that_gives_wrong_results_is_left_out_or_refused(doubling, monkeypatch):
    doubling.factor = 1.01
    model = small("tsm", torch.float32)
    with pytest.raises(RuntimeError, match="runtime 'doubling' cannot run this module: differs from the plain form"):
        engine_of(model, runtime="doubling")
    for name in ("openvino", "onnxruntime"):
        monkeypatch.setattr(RUNTIMES[name], "why_not", lambda *_: "left out of this test")
    engine = engine_of(model, runtime="auto", check=True)
    choice = engine.choices.modules["focus_encoder"]
    assert choice.form != "doubling"
    assert "differs from the plain form" in choice.left_out["doubling"]
    assert "not focus_encoder: doubling: differs" in str(engine.report())


def test_a_runtime_that_cannot_run_says_why(doubling):
    doubling.reason = "it needs another machine"
    model = small("tsm", torch.float32)
    with pytest.raises(RuntimeError, match="runtime 'doubling' cannot run here: it needs another machine; can: libr"):
        Engine(model, batch_size=1, runtime="doubling")
    with pytest.raises(ValueError, match=r"runtime must be \"auto\" or of library, .*, got 'tensorrt'"):
        Engine(model, batch_size=1, runtime="tensorrt")
    for name in ("openvino", "onnxruntime"):
        assert "CPU" in RUNTIMES[name].why_not(torch.device("cuda"), torch.float32)
        assert "float64" in RUNTIMES[name].why_not(torch.device("cpu"), torch.float64)


def test_packages_that_are_missing_are_named(monkeypatch):
    monkeypatch.setattr("adafocus_models.engine.onnx_files.find_spec", lambda name: None)
    for name in ("openvino", "onnxruntime"):
        reason = RUNTIMES[name].why_not(torch.device("cpu"), torch.float32)
        assert reason == f'not installed: {name}, onnx; pip install "adafocus[cpu]"'
        monkeypatch.setattr(f"{type(RUNTIMES[name]).__module__}.find_spec", lambda name: None)
        assert RUNTIMES[name].version() is None
    with pytest.raises(ImportError, match="not installed: onnx; pip install"):
        write_onnx(nn.Identity(), torch.zeros(1), "unwritten.onnx")


def test_the_plain_forms_stay_where_the_whole_is_slower(monkeypatch):
    monkeypatch.setattr(tuning, "_is_slower", lambda *_: True)
    for name in ("openvino", "onnxruntime"):
        monkeypatch.setattr(RUNTIMES[name], "why_not", lambda *_: "left out of this test")
    model = small("tsm", torch.float32)
    engine = engine_of(model, runtime="auto")
    assert {choice.form for choice in engine.choices.modules.values()} == {PLAIN}
    inputs = bytes_of(model, 2)
    with torch.inference_mode():
        assert_equal_outputs(engine(*inputs), model(*inputs))


# ----------------------------------------------------------------------------------------------------
# Bad use


def test_what_an_engine_does_not_take():
    model = small_tsm()
    for changes, error, message in [
        ({"batch_size": 0}, ValueError, "batch_size must be"),
        ({"dtype": torch.int8}, ValueError, "dtype must be one of torch.float32"),
        ({"graphs": "yes"}, ValueError, 'graphs must be "auto" or a bool'),
        ({"graphs": True}, RuntimeError, "graphs=True cannot be: CUDA graphs are of GPUs"),
        ({"check": 1}, TypeError, "check must be"),
        ({"thresholds": 0.5}, TypeError, "gate must be Thresholds"),
        ({"thresholds": Thresholds.of([-1.0, -1.0])}, ValueError, "thresholds must .*2"),
    ]:
        with pytest.raises(error, match=message):
            engine_of(model, **changes)
    with pytest.raises(TypeError, match="model must be a VideoModel, got Linear"):
        Engine(nn.Linear(1, 1), batch_size=1)
    with pytest.raises(ValueError, match=r"model must be in evaluation mode: call model.eval\(\)"):
        Engine(model.train(), batch_size=1)


def test_a_model_with_one_exit_takes_no_thresholds(monkeypatch):
    monkeypatch.setattr(Engine, "_make", lambda *_: None)
    with pytest.raises(ValueError, match="thresholds must be None: this model has one exit"):
        engine_of(small("tsm", torch.float32), thresholds=Thresholds.of([]))


def test_gradients_and_wrong_frames_are_refused():
    model = small_tsm()
    engine = engine_of(model)
    floats = inputs_of(model, 1, torch.float32)
    with pytest.raises(ValueError, match="frames must not require a gradient, which an engine has none of"):
        engine(floats[0].requires_grad_(), floats[1])
    with pytest.raises(ValueError, match=r"frames must be \[B, 5, 3, 224, 224\]"):
        engine(floats[0].detach()[:, :4], floats[1])
    with pytest.raises(ValueError, match="frames must be on the engine's cpu, got meta"):
        engine(floats[0].detach().to("meta"), floats[1].to("meta"))
    output = engine(floats[0].detach(), floats[1])
    assert not output.logits.requires_grad


def test_changed_weights_are_noticed():
    model = small_tsm()
    engine = engine_of(model)
    inputs = inputs_of(model, 1, torch.float32)
    before = engine(*inputs)
    with torch.no_grad():
        model.focus_head.bias.add_(1)
    with pytest.raises(RuntimeError, match=r"weights have changed since this engine was made: call engine.refresh\(\)"):
        engine(*inputs)
    engine.refresh()
    torch.testing.assert_close(engine(*inputs).logits, before.logits + 1)
    model.load_state_dict(model.state_dict())
    with pytest.raises(RuntimeError, match="weights have changed"):
        engine(*inputs)


def test_the_model_stays_as_it_is():
    model = small_tsm()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    modules = dict(model.named_modules())
    engine_of(model)(*inputs_of(model, 2, torch.float32))
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert dict(model.named_modules()) == modules
    assert "read" not in vars(model)
    assert all(parameter.requires_grad for parameter in model.parameters())


# ----------------------------------------------------------------------------------------------------
# What it shows


def test_report(monkeypatch):
    model = small_tsm()
    engine = engine_of(model)
    report = engine.report()
    assert set(report.stages_ms) == set(model.stage_methods)
    assert all(ms > 0 for ms in report.stages_ms.values())
    assert {row.form for row in report.modules} == {LAYERS}
    assert [row.name for row in report.modules] == list(engine.choices.modules)
    assert sum(row.multiply_adds for row in report.modules) > 0
    assert all(row.bytes > 0 and row.floor_share > 0 for row in report.layers if row.ms)
    text = str(report)
    assert "UniAdaFocusTSM in float32 on" in text
    assert "CUDA graphs: no, CUDA graphs are of GPUs" in text
    assert "not onnxruntime: not asked for" in text
    assert "focus_encoder layer1_0_conv1_layer" in text
    assert "read" in vars(engine.model)  # its buffers are still in use
    assert report.videos_per_s == pytest.approx(2e3 / report.batch_ms)


def test_progress_is_shown_on_a_terminal_alone(monkeypatch, capsys):
    engine_of(small_tsm())
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setattr("adafocus_models.engine.progress.find_spec", lambda name: None)
    engine_of(small_tsm())
    shown = capsys.readouterr().err
    assert "engine: focus_encoder: all take turns" in shown
    assert "engine: focus_encoder: 2d, 7x7, stride 2x2" in shown


def test_freed_memory_is_kept_only_where_asked(monkeypatch):
    calls = []
    monkeypatch.setattr(engine_module, "keep_freed_memory", lambda: calls.append(1))
    monkeypatch.setattr(Engine, "_make", lambda *_: None)
    engine_of(small_tsm(), keep_memory=False)
    assert calls == []
    engine_of(small_tsm(), keep_memory=True)
    assert calls == [1]
    monkeypatch.setattr(memory.platform, "system", lambda: "Darwin")
    assert memory.keep_freed_memory() is False

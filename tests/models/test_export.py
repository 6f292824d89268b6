"""Models written for other programs: what is loaded in a fresh process, or in ONNX Runtime, answers as the model."""

import copy
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from oracle_models import inputs_of, small, small_model

from adafocus_models import architectures, export, fold_batch_norm
from adafocus_models.export import export_encoders, export_package, export_program
from adafocus_ops import use_backend

ROOT = Path(__file__).parents[2]
# Loads a program, or a package of machine code, without the model's classes; argv: it, inputs, answers.
ELSEWHERE = """
import sys, torch, adafocus_ops
path, inputs, answers = sys.argv[1:]
package = path.endswith("_cpu.pt2")
loaded = torch._inductor.aoti_load_package(path) if package else torch.export.load(path).module()
with torch.no_grad():
    torch.save([loaded(*clips) for clips in torch.load(inputs)], answers)
assert "adafocus_models" not in sys.modules
"""
FIELDS = ["logits", "exit_logits", "frame_index", "boxes", "weights"]


def bytes_of(model, videos):
    """Frames of smooth noise as bytes, and glance frames if the model glances."""
    clips = inputs_of(model, videos, torch.float32, seed=videos)
    return [(40 * x + 128).clamp(0, 255).to(torch.uint8) for x in clips]


def answers_elsewhere(path, batches, **environment):
    """What a fresh process answers to each batch."""
    inputs, answers = path.with_suffix(".in"), path.with_suffix(".out")
    torch.save(batches, inputs)
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, str(path), str(inputs), str(answers)],
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return torch.load(answers)


def check_elsewhere(model, path, batch_sizes, **environment):
    batches = [bytes_of(model, videos) for videos in batch_sizes]
    for clips, found in zip(batches, answers_elsewhere(path, batches, **environment), strict=True):
        with torch.no_grad():
            wanted = model(*clips)
        assert list(found) == (FIELDS if model.has_glance else FIELDS[:-1])
        assert torch.equal(found["frame_index"], wanted.frame_index)
        torch.testing.assert_close(found["boxes"], wanted.boxes, rtol=0, atol=0.02)
        # Random weights, whose rounding grows through the network.
        torch.testing.assert_close(found["exit_logits"], wanted.exit_logits, rtol=1e-2, atol=1e-3)


def others(folder, *names):
    """What is in a folder beside these."""
    return [path.name for path in folder.iterdir() if path.name not in names]


def test_a_program_answers_elsewhere_for_any_batch(tmp_path):
    model, path = small("uni_adafocus_tsm", torch.float32), tmp_path / "model.pt2"
    before = copy.deepcopy(model.state_dict())
    difference = export_program(model, path)
    assert difference.of_file <= max(1e-4, 3 * difference.of_model)
    assert not others(tmp_path, path.name)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    check_elsewhere(model, path, (1, 2, 5))


def test_a_program_for_one_batch_refuses_another(tmp_path):
    model, path = small("x3d_s", torch.float32), tmp_path / "model.pt2"
    export_program(model, path, batch_size=3)
    program = torch.export.load(path).module()
    assert program(*bytes_of(model, 3))["logits"].shape == (3, 6)
    with pytest.raises(Exception, match=r"frames.* == 3"):
        program(*bytes_of(model, 2))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in architectures() if name not in ("x3d_m", "x3d_l")])
def test_programs_of_all_networks(name, tmp_path):
    model = small(name, torch.float32)
    export_program(model, tmp_path / "model.pt2")
    check_elsewhere(model, tmp_path / "model.pt2", (1, 4))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="AOTInductor needs a C++ compiler")
@pytest.mark.parametrize("name", ["uni_adafocus_tsm", "uni_adafocus_x3d", "adafocus_v1"])
def test_a_package_answers_elsewhere_for_any_batch(name, tmp_path):
    model, path = small(name, torch.float32), tmp_path / "model_cpu.pt2"
    export_package(model, path)
    assert not others(tmp_path, path.name)
    check_elsewhere(model, path, (1, 2, 5))
    check_elsewhere(model, path, (1, 5), AOTI_RUNTIME_CHECK_INPUTS="1")


def test_a_program_of_another_dtype_and_backend(tmp_path):
    model = small("x3d_s", torch.bfloat16)
    with use_backend("reference"):
        difference = export_program(model, tmp_path / "model.pt2", batch_size=1)
    assert 1e-4 < difference.of_model < 0.1
    assert difference.of_file <= max(2e-2, 3 * difference.of_model)


def encoders_of(model):
    """Name -> (encoder, frames of its clips, side of its frames)."""
    glance = {"glance_encoder": (model.num_glance_frames, model.frame_size)} if model.has_glance else {}
    sizes = glance | {"focus_encoder": (model.num_focus_frames, model.patch_size)}
    return {name: (getattr(model, name), *of_clip) for name, of_clip in sizes.items()}


def session_of(path):
    return pytest.importorskip("onnxruntime", reason="reading ONNX files needs ONNX Runtime").InferenceSession(
        str(path), providers=["CPUExecutionProvider"]
    )


@pytest.mark.parametrize(
    "name",
    [
        "uni_adafocus_tsm",
        "x3d_s",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("uni_adafocus_x3d", "adafocus_v1")),
    ],
)
def test_encoders_in_onnx_runtime_take_any_number_of_clips(name, tmp_path):
    pytest.importorskip("onnx", reason="writing ONNX files needs onnx")
    pytest.importorskip("onnxruntime", reason="reading ONNX files needs ONNX Runtime")
    # Of as many frames as neither the other encoder nor the example has clips.
    tsm = {"num_glance_frames": 4, "num_focus_frames": 3}
    model = small_model(torch.float32, **tsm) if name == "uni_adafocus_tsm" else small(name, torch.float32)
    found = export_encoders(model, tmp_path / "encoders")
    encoders = encoders_of(model)
    assert {path.stem for path in found} == set(encoders)
    assert others(tmp_path) == ["encoders"]
    assert not others(tmp_path / "encoders", *(path.name for path in found))
    for path, difference in found.items():
        encoder, num_frames, side = encoders[path.stem]
        assert difference.of_file <= max(1e-4, 3 * difference.of_model)
        session = session_of(path)
        for clips in (1, 2, 5):
            x = torch.randn(clips * num_frames, 3, side, side, generator=torch.Generator().manual_seed(clips))
            with torch.no_grad():
                wanted = encoder(x)
            [maps] = session.run(["maps"], {"frames": x.numpy()})
            error = (torch.from_numpy(maps) - wanted).abs().max() / wanted.abs().max()
            assert error < 1e-3, (path.name, clips)


def test_shift_in_onnx_stays_within_its_clip(tmp_path):
    pytest.importorskip("onnx", reason="writing ONNX files needs onnx")
    pytest.importorskip("onnxruntime", reason="reading ONNX files needs ONNX Runtime")
    model = small_model(torch.float32, num_glance_frames=4, num_focus_frames=3)
    export_encoders(model, tmp_path)
    session = session_of(tmp_path / "focus_encoder.onnx")
    x = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    [both] = session.run(None, {"frames": x.numpy()})
    [first] = session.run(None, {"frames": x[:3].numpy()})
    torch.testing.assert_close(torch.from_numpy(both[:3]), torch.from_numpy(first), rtol=1e-3, atol=1e-4)
    [turned] = session.run(None, {"frames": x[:3].flip(0).numpy()})
    assert abs(turned[1] - first[1]).max() > 0.01 * abs(first[1]).max()  # the frame in the middle sees both others
    with pytest.raises(Exception, match="cannot be reshaped"):  # half a clip is none
        session.run(None, {"frames": x[:4].numpy()})


def test_models_of_any_dtype_become_onnx_of_float32_and_stay_as_they_are(tmp_path):
    model = small("x3d_s", torch.float64)
    export_encoders(model, tmp_path)
    assert {x.dtype for x in model.parameters()} == {torch.float64}
    [node] = session_of(tmp_path / "focus_encoder.onnx").get_inputs()
    assert node.type == "tensor(float)"


def test_without_onnx_runtime_nothing_is_compared(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(export, "find_spec", lambda name: None)
    monkeypatch.setattr(export, "create_model", lambda name: small("x3d_s", torch.float32))
    assert export.main(["x3d_s", "--to", "onnx", "--out", str(tmp_path)]) == 0
    assert 'not compared, since ONNX Runtime is not installed: pip install "adafocus[cpu]"' in capsys.readouterr().out


def other_weights(model):
    folded = fold_batch_norm(model)
    with torch.no_grad():
        for weight in folded.parameters():
            weight.mul_(1.01)
    return folded


@pytest.mark.parametrize("kind", ["torch", "onnx"])
def test_what_answers_otherwise_is_not_left(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "fold_batch_norm", other_weights)
    model, path = small("x3d_s", torch.float32), tmp_path / "model.pt2"
    path.write_text("as it was")
    message = r"what was written does not answer as the model: \w+ differs by [\d.e-]+ of the largest value, allowed"
    if kind == "onnx":
        pytest.importorskip("onnx", reason="writing ONNX files needs onnx")
        pytest.importorskip("onnxruntime", reason="reading ONNX files needs ONNX Runtime")
    with pytest.raises(RuntimeError, match=message):
        export_program(model, path, batch_size=1) if kind == "torch" else export_encoders(model, tmp_path / "new")
    assert not others(tmp_path, path.name)
    assert path.read_text() == "as it was"


def test_weights_that_give_no_numbers(tmp_path):
    model = small("x3d_s", torch.float32)
    with torch.no_grad():
        next(model.focus_encoder.parameters()).fill_(torch.nan)
    with pytest.raises(ValueError, match="logits is NaN: are the weights damaged"):
        export_program(model, tmp_path / "model.pt2", batch_size=1)
    assert not others(tmp_path)


@pytest.mark.parametrize("function", [export_program, export_package, export_encoders])
def test_bad_models(function, tmp_path):
    with pytest.raises(TypeError, match="model must be a VideoModel, got str"):
        function("x3d_s", tmp_path / "model.pt2")
    with pytest.raises(ValueError, match=r"model must be in evaluation mode: call model.eval\(\)"):
        function(small("x3d_s").train(), tmp_path / "model.pt2")


@pytest.mark.parametrize("function", [export_program, export_package])
def test_bad_arguments(function, tmp_path):
    model = small("x3d_s")
    with pytest.raises(ValueError, match=r"path must end in .pt2, got '.*model.pth'"):
        function(model, tmp_path / "model.pth")
    with pytest.raises(ValueError, match="batch_size must be"):
        function(model, tmp_path / "model.pt2", batch_size=0)
    with pytest.raises(TypeError, match="batch_size must be"):
        function(model, tmp_path / "model.pt2", batch_size=1.5)
    with pytest.raises(FileNotFoundError):
        function(model, tmp_path / "missing" / "model.pt2")


@pytest.fixture
def small_x3d(monkeypatch):
    monkeypatch.setattr(export, "create_model", lambda name: small(name, torch.float32))


def test_the_command_says_what_it_wrote(small_x3d, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert export.main(["x3d_s", "--to", "torch", "--batch-size", "2"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == "random weights: the answers mean nothing; give --checkpoint"
    assert second.startswith("x3d_s.pt2: frames [2, 2, 3, 160, 160] uint8; off by at most ")
    checkpoint = tmp_path / "weights.safetensors"
    small("x3d_s", torch.float32).save_checkpoint(checkpoint)
    assert export.main(["x3d_s", "--to", "onnx", "--checkpoint", str(checkpoint)]) == 0
    [line] = capsys.readouterr().out.splitlines()
    assert line.startswith("x3d_s_onnx/focus_encoder.onnx: frames [M, 3, 160, 160] float32 of any clips of 2; ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: MODEL, --to"),
        (["x3d_s"], "the following arguments are required: --to"),
        (["x3d_s", "--to", "tflite"], "argument --to: invalid choice: 'tflite'"),
        (["x3d_s", "--to", "torch", "--batch-size", "0"], "must be a whole number of at least 1, got '0'"),
        (["x3d_s", "--to", "torch", "--num-classes", "many"], "must be a whole number of at least 1, got 'many'"),
        (["x3d_s", "--to", "aoti", "--device", "tpu9"], "argument --device: cannot use 'tpu9'"),
    ],
)
def test_arguments_that_do_not_parse(arguments, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        export.main(arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["x3d_xl", "--to", "torch"], "name must be one of uni_adafocus, "),
        (["x3d_s", "--to", "torch", "--out", "x3d.onnx"], "--out must end in .pt2, got 'x3d.onnx'"),
        (
            ["x3d_s", "--to", "aoti", "--out", "none/x3d.pt2"],
            "--out must be in a folder that exists, got 'none/x3d.pt2'",
        ),
        (["x3d_s", "--to", "torch", "--out", "folder.pt2"], "--out must be a file, got 'folder.pt2'"),
        (["x3d_s", "--to", "onnx", "--out", "file.onnx"], "--out must be a folder, got 'file.onnx'"),
        (["x3d_s", "--to", "onnx", "--batch-size", "2"], "--batch-size is not for onnx, whose files are for any batch"),
        (["x3d_s", "--to", "onnx", "--device", "cpu"], "--device is not for onnx, whose files are for any batch"),
        (["x3d_s", "--to", "torch", "--checkpoint", "none.pth"], "none.pth"),
    ],
)
def test_arguments_that_do_not_fit(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.pt2").mkdir()
    (tmp_path / "file.onnx").touch()
    assert export.main(arguments) == 2
    printed = capsys.readouterr()
    [line] = printed.err.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert not others(tmp_path, "folder.pt2", "file.onnx")

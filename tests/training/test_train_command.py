"""python -m adafocus_models.train: from list files to weights that predict can load."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("av", reason="reading videos needs PyAV")

from tiny_models import fresh
from video_data import write_video

from adafocus_models import MobileNetV2, create_model, train

ROOT = Path(__file__).parents[2]
CLASSES = ("dark", "bright red", "other")
COMMON = ["jester", "--set", "batch_size=2", "--set", "epochs=2", "--workers", "0"]
# The command with a tiny model.
TINY = """
import sys
from tiny_models import fresh
from adafocus_models import train
train.create_model = lambda name, num_classes, **_: fresh("uni_adafocus_tsm", num_classes)
sys.exit(train.main())
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Six videos, one with spaces in its name and one only a part of which counts, a list of them, and the names."""
    folder = tmp_path_factory.mktemp("data")
    lines = []
    for number in range(6):
        path = write_video(folder / f"video {number}.mp4", 10 + number)
        part = "\t0.2\t0.9" if number == 3 else ""
        lines.append(f"{path.name}\t{CLASSES[number % 3]}{part}\n")
    (folder / "train.tsv").write_text("".join(lines))
    (folder / "val.txt").write_text("".join(f"video {number}.mp4 {number % 3}\n" for number in range(3)))
    (folder / "classes.txt").write_text("\n".join(CLASSES))
    return folder


@pytest.fixture(autouse=True)
def tiny_model(monkeypatch):
    monkeypatch.setattr(train, "create_model", lambda name, num_classes, **_: fresh("uni_adafocus_tsm", num_classes))


def lists(data: Path) -> list[str]:
    return ["--data", str(data / "train.tsv"), "--val", str(data / "val.txt"), "--labels", str(data / "classes.txt")]


def test_from_lists_to_weights(data, tmp_path, capsys):
    assert train.main([*COMMON, *lists(data), "--out", str(tmp_path / "run")]) == 0
    output = capsys.readouterr()
    assert "learning rate 0.000625 for batches of 2, scaled from 0.02 for 64" in output.err
    assert "2 epochs, 6 steps: top1 " in output.out
    assert f"the best weights are in {tmp_path / 'run' / 'best.safetensors'}" in output.out
    model = fresh("uni_adafocus_tsm", num_classes=3, seed=1)
    model.load_checkpoint(tmp_path / "run" / "best.safetensors")
    assert sorted(path.name for path in (tmp_path / "run").iterdir() if "tfevents" not in path.name) == [
        "best.safetensors",
        "last.pt",
        "log.jsonl",
    ]
    # Again: only by resuming, which has nothing left to do.
    assert train.main([*COMMON, *lists(data), "--out", str(tmp_path / "run")]) == 2
    assert "holds a run: give --resume, or another --out" in capsys.readouterr().err
    assert train.main([*COMMON, *lists(data), "--out", str(tmp_path / "run"), "--resume"]) == 0
    # Longer than before.
    longer = [*COMMON, "--set", "epochs=3", *lists(data), "--out", str(tmp_path / "run"), "--resume"]
    assert train.main(longer) == 0
    assert "3 epochs, 9 steps" in capsys.readouterr().out


def test_it_begins_with_weights_of_other_classes(data, tmp_path, capsys):
    other = fresh("uni_adafocus_tsm", num_classes=7, seed=1)
    other.save_checkpoint(tmp_path / "other.safetensors")
    begin = [*COMMON, *lists(data), "--out", str(tmp_path / "run"), "--checkpoint", str(tmp_path / "other.safetensors")]
    assert train.main(begin) == 2
    assert "it seems to be for num_classes=7, this model has 3; new_heads=True" in capsys.readouterr().err
    assert train.main([*begin, "--new-heads", "--set", "learning_rate=0"]) == 0
    trained = torch.load(tmp_path / "run" / "last.pt", weights_only=True)["model"]
    for name, value in other.state_dict().items():
        if name.startswith("focus_encoder"):
            assert torch.equal(trained[name], value)


def test_encoders_begin_with_weights_of_their_own(monkeypatch, data, tmp_path):
    """torchvision's file of MobileNetV2, its classifier of 1000 classes beside it."""
    monkeypatch.setattr(train, "create_model", create_model)
    torch.manual_seed(0)
    weights = MobileNetV2().state_dict() | {"classifier.1.weight": torch.zeros(1000, 1280)}
    weights |= {"classifier.1.bias": torch.zeros(1000)}
    torch.save(weights, tmp_path / "mobilenet.pth")
    options = train._parser().parse_args([*COMMON, *lists(data), "--glance-weights", str(tmp_path / "mobilenet.pth")])
    recipe, _ = train._recipe(options, told=False)
    model = train._model(options, recipe)
    for name, value in model.glance_encoder.state_dict().items():
        assert torch.equal(value, weights[name]), name
    assert model.num_classes == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "epochs"], "--set must be NAME=VALUE, got 'epochs'"),
        (["--set", "epoch=2"], "there is no 'epoch' to set"),
        (["--set", "batch_size=64"], "there are 6 videos, which is less than one batch of 64"),
        (["--labels", "missing.txt"], "missing.txt"),
        (["--checkpoint", "missing.pth"], "missing.pth"),
    ],
)
def test_what_does_not_fit(arguments, message, data, tmp_path, capsys):
    assert train.main([*COMMON, *lists(data), "--out", str(tmp_path / "run"), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_labels_that_are_no_class(data, tmp_path, capsys):
    assert train.main([*COMMON, "--data", str(data / "train.tsv"), "--out", str(tmp_path / "run")]) == 2
    assert "video 0.mp4: the label 'dark' is no class: it must be 0 to 26" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "ctrl-c"])
def test_a_signal_stops_it_and_resume_goes_on(data, tmp_path, number):
    script = tmp_path / "tiny.py"
    script.write_text(TINY)
    path = ":".join(str(ROOT / name) for name in ("", "tests", "tests/ops", "tests/models"))
    many = ["--set", "epochs=200", *lists(data), "--out", str(tmp_path / "run")]
    command = [sys.executable, str(script), *COMMON, "--workers", "1", *many]
    environment = {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "PATH": ""}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    process = subprocess.Popen(command, env=environment, **pipes)
    log = tmp_path / "run" / "log.jsonl"
    while process.poll() is None and not log.exists():
        pass
    if number == signal.SIGINT:  # from a terminal, which all of its processes get
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    output, errors = process.communicate(timeout=100)
    assert process.returncode == 130, errors
    assert "the same command with --resume goes on" in output
    reached = torch.load(tmp_path / "run" / "last.pt", weights_only=True)["step"]
    assert 0 < reached < 600
    shorter = [*command, "--resume", "--set", f"epochs={reached // 3 + 1}"]
    assert subprocess.run(shorter, env=environment, timeout=100, capture_output=True).returncode == 0


@pytest.mark.slow
def test_under_torchrun(data, tmp_path):
    script = tmp_path / "tiny.py"
    script.write_text(TINY)
    path = ":".join(str(ROOT / name) for name in ("", "tests", "tests/ops", "tests/models"))
    options = [*COMMON, "--set", "dropout=0", "--set", "batch_norm=frozen", *lists(data)]
    environment = {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for name, start in (("one", [sys.executable]), ("two", run)):
        command = [*start, str(script), *options, "--out", str(tmp_path / name)]
        subprocess.run(command, env=environment, timeout=300, check=True)
    one, two = (torch.load(tmp_path / name / "last.pt", weights_only=True) for name in ("one", "two"))
    for name, value in one["model"].items():
        torch.testing.assert_close(two["model"][name], value, rtol=1e-3, atol=1e-4)

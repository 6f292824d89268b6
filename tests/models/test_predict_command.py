"""The command line on several clips, as JSON, with an early exit, into pipes, and with names of any kind."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("av", reason="predicting on videos needs PyAV")
Image = pytest.importorskip("PIL.Image", reason="predicting on videos needs Pillow")

from stub_model import BOX, CANDIDATES, CLASSES, PICKED, Stub, colour, write_frames  # noqa: E402
from video_data import write_video  # noqa: E402

from adafocus_models import Output, Thresholds, chosen_model, list_models, predict  # noqa: E402
from adafocus_models.class_names import read_class_names  # noqa: E402

ROOT = Path(__file__).parents[2]
P = torch.arange(CLASSES).float().softmax(0)
ENTROPY = -(P * P.log()).sum().item()  # of the stub's answer, at both exits


@pytest.fixture(autouse=True)
def stub(monkeypatch):
    monkeypatch.setattr(chosen_model, "create_model", lambda name, **_: Stub())


@pytest.fixture
def folder(tmp_path):
    return write_frames(tmp_path / "frames")


class Broken(Stub):
    def forward(self, *arguments, **options):
        return super().forward(*arguments, **options)._replace(logits=torch.full((1, CLASSES), math.nan))


class EachFrame(Stub):
    """Looks in another box in each of three frames, with an exit before the first and after each, and leaves early."""

    num_exits, left_at = 4, 2

    def forward(self, frames, glance_frames, *, gate=None):
        output = super().forward(frames, glance_frames)
        boxes = torch.tensor([BOX, [r + 8 for r in BOX], [math.nan] * 4])[None]
        exits = output.logits.repeat(1, self.num_exits, 1)
        exits[:, self.left_at + 1 :] = math.nan
        return output._replace(exit_logits=exits, frame_index=torch.tensor([[*PICKED[:2], -1]]), boxes=boxes)


class NoGlance(Stub):
    """Sees whole frames alone."""

    num_glance_frames, num_exits, has_early_exit, has_policy = 0, 1, False, False

    def forward(self, frames, glance_frames, *, gate=None):
        assert glance_frames is None
        logits = torch.arange(CLASSES).float()[None]
        index = torch.arange(CANDIDATES)[None]
        return Output(logits, logits[:, None], index, torch.tensor([[112.0, 112, 224, 224]]), torch.empty(1, 0), None)


def run_json(capsys, *arguments):
    """(exit code, what each line says, the lines of errors and warnings)."""
    code = predict.main([*map(str, arguments), "--json"])
    printed = capsys.readouterr()
    return code, [json.loads(line) for line in printed.out.splitlines()], printed.err.splitlines()


def test_help_lists_the_models(capsys):
    with pytest.raises(SystemExit) as stopped:
        predict.main(["--help"])
    assert stopped.value.code == 0
    printed = "".join(capsys.readouterr().out.split())  # argparse breaks lines within names too
    for name in list_models():
        assert name in printed


def test_one_line_of_json_a_clip(folder, tmp_path, capsys):
    video = write_video(tmp_path / "clip.mp4", 2 * CANDIDATES)
    code, (of_folder, of_video), errors = run_json(capsys, folder, video, "--top", "2")
    assert (code, errors) == (0, [])
    assert of_folder == {
        "clip": str(folder),
        "model": "uni_adafocus_tsm_96_8+8",
        "random_weights": True,
        "top": [
            {"class": c, "name": f"class {c}", "probability": pytest.approx(P[c].item(), abs=1e-6)} for c in (6, 5)
        ],
        "exit": 1,
        "frames": [2 * i + 1 for i in PICKED],
        "seconds": [None] * len(PICKED),
        "box": list(BOX),
    }
    assert of_video["clip"] == str(video)
    assert of_video["seconds"] == pytest.approx([(2 * i + 1) / 10 for i in PICKED])


def test_a_box_in_each_frame(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(chosen_model, "create_model", lambda name, **_: EachFrame())
    out = tmp_path / "out.png"
    _, (answer,), _ = run_json(capsys, folder, "--overlay", out)
    assert answer["boxes"] == [list(BOX), [r + 8 for r in BOX]]
    assert "box" not in answer
    assert answer["frames"] == [2 * i + 1 for i in PICKED[:2]]
    assert answer["exit"] == 2
    pixels = np.asarray(Image.open(out))
    drawn = [i for i in range(CANDIDATES) if (pixels == colour(i)).all(-1).any()]
    assert drawn == list(PICKED[:2])
    assert predict.main([str(folder), "--overlay", str(tmp_path / "out.mp4")]) == 0
    text = capsys.readouterr().out
    assert f"looked at boxes (cy, cx, h, w) of 224 x 224 pixels\n  {BOX} in frame 3\n" in text
    assert "sure enough at exit 2: no further look" in text


def test_a_model_without_a_glance(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(chosen_model, "create_model", lambda name, **_: NoGlance())
    out = tmp_path / "out.png"
    _, (answer,), _ = run_json(capsys, folder, "--overlay", out)
    assert answer["box"] == [112, 112, 224, 224]
    assert answer["exit"] == 0
    assert predict.main([str(folder), "--overlay", str(tmp_path / "out.mp4")]) == 0
    assert "sure enough" not in capsys.readouterr().out
    assert Image.open(out).height > 224


def test_one_bad_clip_keeps_none_of_the_others_from_an_answer(folder, tmp_path, capsys):
    missing = tmp_path / "missing.mp4"
    code, answers, errors = run_json(capsys, folder, missing, folder)
    assert code == 2
    assert [answer["clip"] for answer in answers] == [str(folder), str(missing), str(folder)]
    assert answers[1] == {"clip": str(missing), "error": f"{missing} does not exist: check the path"}
    assert errors == [f"error: {missing} does not exist: check the path"]
    assert predict.main([str(missing), str(folder)]) == 2
    assert capsys.readouterr().out.count("looked at frames 3 9 11") == 1


@pytest.mark.parametrize(("top", "expected"), [("1", [6]), ("7", range(6, -1, -1)), ("100", range(6, -1, -1))])
def test_top(folder, capsys, top, expected):
    _, (answer,), _ = run_json(capsys, folder, "--top", top)
    assert [of_class["class"] for of_class in answer["top"]] == list(expected)


@pytest.mark.parametrize(("entropy", "leaves"), [(ENTROPY + 0.01, True), (ENTROPY - 0.01, False)])
@pytest.mark.parametrize("by", ["number", "file"])
def test_a_sure_clip_leaves_at_the_glance(folder, tmp_path, capsys, entropy, leaves, by):
    threshold = -entropy
    if by == "file":
        half = torch.tensor([0.5, 0.5], dtype=torch.float64)
        threshold = tmp_path / "thresholds.json"
        Thresholds(torch.tensor([-entropy, -1e8], dtype=torch.float64), half, 5.0).save(threshold)
    out = tmp_path / "out.png"
    _, (answer,), _ = run_json(capsys, folder, f"--threshold={threshold}", "--overlay", out)
    assert answer["exit"] == (0 if leaves else 1)
    assert answer["frames"] == ([] if leaves else [2 * i + 1 for i in PICKED])
    assert answer["box"] == (None if leaves else list(BOX))
    shows_a_focus = (np.asarray(Image.open(out)) == colour(PICKED[-1])).all(-1).any()  # that is no glance frame's
    assert shows_a_focus != leaves
    assert predict.main([str(folder), f"--threshold={threshold}", "--overlay", str(tmp_path / "out.mp4")]) == 0
    assert ("sure enough at exit 0: no closer look" in capsys.readouterr().out) == leaves
    assert (tmp_path / "out.mp4").stat().st_size > 0


def test_a_threshold_file_of_other_exits_is_refused(folder, tmp_path, capsys):
    path = tmp_path / "thresholds.json"
    Thresholds(torch.zeros(3), torch.ones(3) / 3, 1.0).save(path)
    assert predict.main([str(folder), "--threshold", str(path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "thresholds must be of E=2 exits" in line


def test_an_answer_of_nan_is_an_error(folder, monkeypatch, capsys):
    monkeypatch.setattr(chosen_model, "create_model", lambda name, **_: Broken())
    code, _, errors = run_json(capsys, folder)
    assert code == 2
    assert errors == [f"error: {folder} gives no numbers (NaN): are the weights damaged?"]


def test_a_reader_that_stops_early_is_no_error_and_the_picture_is_there(folder, tmp_path):
    out = tmp_path / "out.png"
    program = (
        "import sys; sys.path[:0] = sys.argv[1:3]; from stub_model import Stub;"
        "from adafocus_models import chosen_model, predict;"
        "chosen_model.create_model = lambda *_, **__: Stub(); sys.exit(predict.main(sys.argv[3:]))"
    )
    reader, writer = os.pipe()
    os.close(reader)  # as `head -0` would
    done = subprocess.run(
        [sys.executable, "-c", program, str(ROOT), str(Path(__file__).parent), str(folder), "--overlay", str(out)],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        timeout=300,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")
    assert Image.open(out).width > 500


class TestClassNames:
    def write(self, tmp_path, content):
        path = tmp_path / "labels.txt"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    @pytest.mark.parametrize(
        ("content", "names"),
        [
            ("walking\nrunning\n", ["walking", "running"]),
            ("\ufeffwalking\r\nrunning \r\n\r\n", ["walking", "running"]),
            (
                "Putting something, upright\nPushing [something]\n",
                ["Putting something, upright", "Pushing [something]"],
            ),
            ("crane\ncrane\n", ["crane", "crane"]),
            ("走る\n歩く\u2028人\n", ["走る", "歩く\u2028人"]),
            ("class 0\nclass 1\n", ["class 0", "class 1"]),
        ],
    )
    def test_what_is_one_class_a_line(self, tmp_path, content, names):
        assert read_class_names(self.write(tmp_path, content)) == names

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("", "must have a line for each class, but it is empty"),
            ("\n \n", "must have a line for each class, but it is empty"),
            ("one\n\ntwo\n", "but line 2 is empty"),
            ("\none\ntwo\n", "but line 1 is empty"),
            ("walking, running, jumping\n", "but it has a single line"),
            ('["walking", "running"]', "but it is JSON"),
            ('{\n  "walking": 0,\n  "running": 1\n}', "but it is JSON"),
            ("id\tname\n0\twalking\n", "but line 1 has a tab or such"),
            ("0 walking\n1 running\n", "but each has a number: sort the lines by it, and take it out"),
            ("0,walking\n1,running\n", "but each has a number"),
            ("walking,0\nrunning,1\n", "but each has a number"),
            ("walking\nrunning\n".encode("utf-16"), "must be a text in UTF-8"),
            (b"\x89PNG\r\n\x1a\n\0\0", "must be a text in UTF-8"),
            (b"GIF89a\n\0\0\n", "but line 2 has a tab or such"),
        ],
    )
    def test_what_is_not(self, tmp_path, content, message):
        path = self.write(tmp_path, content)
        with pytest.raises(ValueError, match=message) as raised:
            read_class_names(path)
        assert str(raised.value).startswith(str(path))

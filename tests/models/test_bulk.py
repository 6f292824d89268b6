"""Commands on many videos: predict --jsonl, which goes on where it ended; calibrate and evaluate."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

pytest.importorskip("av", reason="reading videos needs PyAV")

from test_ranks import run
from tiny_models import tiny
from video_data import write_video

from adafocus_models import Curve, bulk, calibrate, chosen_model, evaluate, predict
from adafocus_models.exits import StoredLogits
from adafocus_models.json_lines import JsonLines

ROOT = Path(__file__).parents[2]
NAME, CLASSES = "uni_adafocus_tsm", 5
# The command with a tiny model, of which nothing is timed.
TINY = f"""
import sys
import pytest
sys.path.append({str(ROOT / "tests" / "engine")!r})
from engine_models import quick_tuning
from tiny_models import tiny
from adafocus_models import chosen_model, predict
chosen_model.create_model = lambda name, **_: tiny("uni_adafocus_tsm")
with pytest.MonkeyPatch.context() as patch:
    quick_tuning(patch)
    sys.exit(predict.main())
"""


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """A folder of five videos, and one that is none."""
    folder = tmp_path_factory.mktemp("videos")
    for number in range(5):
        write_video(folder / f"{number}.mp4", 10 + number)
    (folder / "broken.mp4").write_text("not a video")
    return folder


@pytest.fixture(autouse=True)
def tiny_model(monkeypatch):
    from engine_models import quick_tuning

    quick_tuning(monkeypatch)
    monkeypatch.setattr(chosen_model, "create_model", lambda name, **_: tiny(NAME))


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "tiny_predict.py"
    path.write_text(TINY)
    return path


def answers(path: Path) -> dict[str, dict]:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    found = {line["id"]: line for line in lines}
    assert len(found) == len(lines), "a video twice"
    return found


def predict_all(folder: Path, out: Path, *options: str) -> int:
    return predict.main([str(folder), "--jsonl", str(out), "--batch-size", "2", *options])


def test_every_video_has_a_line_with_the_models_answer(videos, tmp_path, capsys):
    out = tmp_path / "out.jsonl"
    assert predict_all(videos, out) == 2
    assert "5 videos, 1 errors" in capsys.readouterr().err
    found = answers(out)
    assert set(found) == {str(path) for path in videos.iterdir()}
    assert "broken.mp4 cannot be read as a video" in found[str(videos / "broken.mp4")]["error"]
    for number in range(5):
        path = str(videos / f"{number}.mp4")
        _, _, output = predict.predict(tiny(NAME), path)
        line = found[path]
        top = output.logits[0].softmax(0).topk(CLASSES)
        assert [each["class"] for each in line["top"]] == top.indices.tolist()
        assert [each["probability"] for each in line["top"]] == pytest.approx(top.values.tolist(), abs=1e-3)
        assert line["exit"] == 1
        assert line["candidates"] == output.frame_index[0].tolist()
        assert line["boxes"][0] == pytest.approx(output.boxes[0].tolist(), abs=0.1)
        assert line["random_weights"] is True


def test_a_later_run_does_what_is_missing_alone(videos, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out.jsonl"
    predict_all(videos, out)
    whole = out.read_text()
    assert capsys.readouterr().out == ""
    with monkeypatch.context() as patch:
        patch.setattr(bulk, "make_engine", None)  # is not called
        assert predict_all(videos, out) == 0
        assert "6 of 6 videos are in" in capsys.readouterr().err
    assert out.read_text() == whole
    lines = whole.splitlines(keepends=True)
    out.write_text("".join(lines[:3]) + lines[3][:17])  # cut off in the middle of a line
    assert predict_all(videos, out) in (0, 2)
    assert answers(out).keys() == {json.loads(line)["id"] for line in lines}
    assert out.read_text().startswith("".join(lines[:3]))


@pytest.mark.parametrize("text", ["dear diary", "dear diary\n", '{"name": 1}\n', "[]\n"])
def test_a_file_of_something_else_stays_as_it_is(videos, tmp_path, capsys, text):
    out = tmp_path / "diary.txt"
    out.write_text(text)
    assert predict_all(videos, out) == 2
    assert "line 1 is no answer of this program" in capsys.readouterr().err
    assert out.read_text() == text


def test_the_folder_of_the_file_must_be_there(videos, tmp_path, capsys):
    assert predict_all(videos, tmp_path / "no" / "out.jsonl") == 2
    assert "does not exist" in capsys.readouterr().err


def test_thresholds_and_budgets(videos, tmp_path, capsys):
    out = tmp_path / "out.jsonl"
    assert predict_all(videos, out, "--thresholds=-100") == 2
    assert {line.get("exit") for line in answers(out).values()} == {0, None}
    assert all(line["candidates"] == line["boxes"] == [] for line in answers(out).values() if "top" in line)
    assert predict_all(videos, tmp_path / "none.jsonl", "--thresholds=-1", "--budget", "3") == 2
    assert "--budget needs --thresholds FILE, of a Curve" in capsys.readouterr().err


def test_choices_are_kept(videos, tmp_path):
    choices = tmp_path / "choices.json"
    predict_all(videos, tmp_path / "a.jsonl", "--choices", str(choices))
    before = choices.read_text()
    predict_all(videos, tmp_path / "b.jsonl", "--choices", str(choices))
    assert choices.read_text() == before
    assert answers(tmp_path / "a.jsonl") == answers(tmp_path / "b.jsonl")


def test_a_process_that_is_killed_loses_and_repeats_nothing(videos, tmp_path, script):
    names = [videos / f"{n % 5}.mp4" for n in range(200)]
    listed = tmp_path / "list.txt"
    links = []
    for number, target in enumerate(names):
        links.append(tmp_path / f"{number}.mp4")
        links[-1].symlink_to(target)
    listed.write_text("".join(f"{link}\n" for link in links))
    out = tmp_path / "out.jsonl"
    folders = map(str, (ROOT, ROOT / "tests", ROOT / "tests" / "models", ROOT / "tests" / "engine"))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(folders), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), str(listed), "--jsonl", str(out), "--batch-size", "2"]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (out.exists() and out.read_text().count("\n") >= 3):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = [line for line in out.read_text().splitlines(keepends=True) if line.endswith("\n")]
    assert 3 <= len(before) < 200
    assert predict.main([str(listed), "--jsonl", str(out), "--batch-size", "2"]) == 0
    assert answers(out).keys() == {str(link) for link in links}
    assert out.read_text().startswith("".join(before))


class TestProcesses:
    @pytest.fixture(autouse=True)
    def paths(self, monkeypatch):
        monkeypatch.setattr("test_ranks.ROOT", ROOT)

    def test_two_answer_as_one(self, videos, tmp_path, script, monkeypatch):
        predict_all(videos, tmp_path / "one.jsonl")
        monkeypatch.setenv("PYTHONPATH", "")
        out = tmp_path / "two.jsonl"
        process = run(script, videos, "--jsonl", out, "--batch-size", "2", processes=2)
        assert process.returncode != 0, process.stderr  # one video is broken
        one, two = answers(tmp_path / "one.jsonl"), answers(out)
        assert one.keys() == two.keys()
        for name, line in one.items():
            assert [each["class"] for each in line.get("top", [])] == [
                each["class"] for each in two[name].get("top", [])
            ]
        assert not list(tmp_path.glob("two.jsonl.part-*"))


def test_what_a_lost_process_left_is_merged(tmp_path):
    path = tmp_path / "out.jsonl"
    path.write_text('{"id": "a"}\n')
    (tmp_path / "out.jsonl.part-1").write_text('{"id": "a"}\n{"id": "b", "x": 1}\n{"id": "c"')
    (tmp_path / "out.jsonl.part-7").write_text('{"id": "d"}\n')
    lines = JsonLines(path)
    lines.merge()
    assert lines.ids() == {"a", "b", "d"}
    assert list(tmp_path.iterdir()) == [path]


# ----------------------------------------------------------------------------------------------------
# Labelled videos


@pytest.fixture
def labels(videos, tmp_path):
    path = tmp_path / "labelled.tsv"
    path.write_text("".join(f"{videos / f'{n}.mp4'}\t{n % CLASSES}\n" for n in range(5)))
    return path


def test_calibrate_then_evaluate(labels, tmp_path, capsys):
    curve, logits, picture = (tmp_path / name for name in ("curve.json", "logits.safetensors", "curve.png"))
    options = ["--batch-size", "2", "--save-logits", str(logits)]
    assert calibrate.main([str(labels), "--out", str(curve), "--plot", str(picture), *options]) == 0
    printed = capsys.readouterr().out
    assert "5 videos, 2 exits" in printed
    assert picture.stat().st_size > 1000
    stored, solved = StoredLogits.load(logits), Curve.load(curve)
    assert stored.exit_logits.shape == (5, 2, CLASSES)
    budget = stored.costs.mean().item() / 1e9
    both = ["--thresholds", str(curve), "--budget", str(budget), "--json"]
    assert evaluate.main(["--logits", str(logits), *both]) == 0
    simulated = json.loads(capsys.readouterr().out)
    assert evaluate.main([str(labels), "--batch-size", "2", *both]) == 0
    online = json.loads(capsys.readouterr().out)
    assert online.pop("videos_per_s") > 0
    for name in ("videos", "top1", "top5", "mAP", "gflops"):
        assert online[name] == pytest.approx(simulated[name], rel=1e-6)
    assert online["exits"] == simulated["exits"]
    assert solved.within(budget * 1e9).expected_cost <= budget * 1e9
    assert calibrate.main(["--logits", str(logits), "--out", str(tmp_path / "again.json")]) == 0
    again = Curve.load(tmp_path / "again.json")
    assert all(torch.equal(a, b) for a, b in zip(again[:-1], solved[:-1], strict=True))


def test_evaluate_without_exits_draws_a_histogram(labels, tmp_path, capsys):
    picture = tmp_path / "exits.png"
    assert evaluate.main([str(labels), "--batch-size", "2", "--plot", str(picture)]) == 0
    assert "left at exit 0: 0.0%, 1: 100.0%" in capsys.readouterr().out
    assert picture.stat().st_size > 1000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give a LIST of videos, or --logits FILE"),
        (["list.tsv", "--logits", "x"], "give a LIST of videos, or --logits FILE"),
        (["missing.tsv"], "No such file or directory"),
        (["list.tsv"], "a.mp4: the label 'jump' is no class: it must be 0 to 4"),
        (["--logits", "missing.safetensors"], "missing.safetensors is no file"),
        (["--logits", "list.tsv"], "list.tsv must be a .safetensors file of logits"),
        (["numbers.tsv"], "more than 1% of the videos cannot be read"),
    ],
)
def test_what_does_not_fit(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    Path("list.tsv").write_text("a.mp4\tjump\n")
    Path("numbers.tsv").write_text("a.mp4\t0\nb.mp4\t1\n")
    assert evaluate.main(arguments) == 2
    assert message in capsys.readouterr().err

"""The command line on one video, and what it draws."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

av = pytest.importorskip("av", reason="predicting on videos needs PyAV")
Image = pytest.importorskip("PIL.Image", reason="predicting on videos needs Pillow")

from stub_model import BOX, CANDIDATES, CLASSES, GLANCES, PATCH, PICKED, Stub, colour, framed, write_frames  # noqa: E402

from adafocus_models import chosen_model, create_model, predict  # noqa: E402
from adafocus_models.data import Clip, read_clip  # noqa: E402
from adafocus_models.pictures import contact_sheet, write_video  # noqa: E402
from adafocus_models.pictures.canvas import BOX_COLOUR  # noqa: E402

ROOT = Path(__file__).parents[2]
NOTE = "random weights: the prediction means nothing"


@pytest.fixture
def stub(monkeypatch):
    monkeypatch.setattr(chosen_model, "create_model", lambda name, **_: Stub())


def clip_of(frames):
    count = len(frames)
    return Clip(torch.stack(frames), 10 * torch.arange(count), torch.arange(count, dtype=torch.float64))


@pytest.fixture
def candidates():
    return clip_of([framed(i) for i in range(CANDIDATES)])


@pytest.fixture
def glance():
    return clip_of([torch.full((3, 224, 224), 99, dtype=torch.uint8) for _ in range(GLANCES)])


@pytest.fixture
def folder(tmp_path):
    return write_frames(tmp_path / "frames")


def edges(pixels, rgb):
    """The rows and columns (first, last) that an area of one colour spans; None if it does not occur."""
    rows, columns = np.nonzero((pixels == np.array(rgb)).all(-1))
    return (rows.min(), rows.max(), columns.min(), columns.max()) if len(rows) else None


def box_line(height, width, y0, y1, x0, x1, line):
    """[height, width] bool: where a box line of that width must be, inside rows y0..y1 and columns x0..x1."""
    inside = np.zeros((height, width), bool)
    inside[y0 : y1 + 1, x0 : x1 + 1] = True
    inside[y0 + line : y1 + 1 - line, x0 + line : x1 + 1 - line] = False
    return inside


def test_the_picture_has_each_box_on_the_right_frame(candidates, glance):
    offsets = torch.tensor([[0.0], [10], [-20]]) * torch.tensor([1.0, -1, 0, 0])
    boxes = torch.tensor(BOX) + offsets  # one for each frame
    sheet = contact_sheet(candidates, glance, torch.tensor(PICKED), boxes, PATCH)
    pixels = np.asarray(sheet)
    for i in range(CANDIDATES):
        found = edges(pixels, colour(i))
        assert (found is not None) == (i in PICKED), f"candidate {i}"
        if found:
            top, bottom, left, right = found
            assert (bottom - top, right - left) == (223, 223)
            tile = pixels[top : bottom + 1, left : right + 1]
            shift = int(offsets[PICKED.index(i), 0])
            expected = box_line(224, 224, 40 + shift, 139 + shift, 70 - shift, 189 - shift, 3)
            np.testing.assert_array_equal((tile == BOX_COLOUR).all(-1), expected)


def test_the_picture_shows_the_patches_and_the_weights(candidates, glance):
    frames = candidates.frames.clone()
    frames[4, :, 40:140, 70:190] = torch.tensor([10, 20, 30], dtype=torch.uint8)[:, None, None]
    weights = torch.tensor([0.25, 0.75])
    arguments = (candidates._replace(frames=frames), glance, torch.tensor(PICKED), torch.tensor(BOX), PATCH)
    with_bars, without = (np.asarray(contact_sheet(*arguments, weights=w)) for w in (weights, None))
    # The frame's box has that colour inside its lines, and the patch, which stands beside it, all over.
    patch = (with_bars == np.array([10, 20, 30])).all(-1)
    assert patch.sum() == (100 - 8) * (120 - 8) + PATCH * PATCH
    bars = (with_bars == BOX_COLOUR).all(-1) & ~(without == BOX_COLOUR).all(-1)
    lengths = np.diff(np.flatnonzero(np.diff(np.pad(bars.any(0).astype(int), 1))))[::2]
    assert lengths[1] == 224  # the largest: the width of its frame
    assert lengths[0] == round(224 / 3)


def test_the_video_shows_all_candidates_and_boxes_the_picked(tmp_path, candidates):
    path = tmp_path / "out.mp4"
    write_video(path, candidates, torch.tensor(PICKED), torch.tensor(BOX), title="title", note="note")
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24").astype(float) for frame in container.decode(video=0)]
    assert len(frames) == CANDIDATES
    lines = box_line(448, 448, 80, 279, 140, 379, 3)
    for i, frame in enumerate(frames):
        edge = frame[2:10, 2:446].mean((0, 1))
        brightness = 1 if i in PICKED else 0.35
        np.testing.assert_allclose(edge, brightness * np.array(colour(i)), atol=12)
        on_line = frame[:448][lines].mean(0)  # the colour is subsampled: compare what is far from black
        assert (on_line[0] > 150 and on_line[2] < 100) == (i in PICKED), f"candidate {i}"


@pytest.mark.parametrize("picked", [1, 4, 5, 16])
def test_any_number_of_frames_and_any_length_of_text_fits(picked):
    clip = clip_of([framed(0)] * 16)
    text = "Pretending to put something onto something, but missing so that it falls down " * 10
    sheet = contact_sheet(clip, clip, torch.arange(picked), torch.tensor(BOX), 128, title=text, note=text)
    pixels = np.asarray(sheet)
    assert (pixels[:, -24:] == pixels[0, 0]).all()  # the margin is free
    assert sheet.width < 2000


def test_top_five_and_picture(stub, folder, tmp_path, capsys):
    labels, out = tmp_path / "labels.txt", tmp_path / "out.png"
    labels.write_text("".join(f"doing thing {c}\n" for c in range(CLASSES)), encoding="utf-8")
    assert predict.main([str(folder), "--labels", str(labels), "--overlay", str(out)]) == 0
    printed = capsys.readouterr()
    p = torch.arange(CLASSES).float().softmax(0)
    for rank, c in enumerate((6, 5, 4, 3, 2), 1):
        assert f"{rank}. doing thing {c}, {p[c]:.1%}\n" in printed.out
    assert "doing thing 1," not in printed.out
    assert NOTE in printed.out
    assert "frames 3 9 11\n" in printed.out  # candidate i is frame 2 i + 1
    assert printed.err == ""
    pixels = np.asarray(Image.open(out))
    assert [i for i in range(CANDIDATES) if edges(pixels, colour(i))] == list(PICKED)


def test_a_checkpoint_makes_the_prediction_mean_something(stub, folder, tmp_path, capsys):
    assert predict.main([str(folder), "--checkpoint", "weights.safetensors", "--overlay", str(tmp_path / "o.MP4")]) == 0
    printed = capsys.readouterr().out
    assert "random" not in printed
    assert "1. class 6, " in printed
    assert (tmp_path / "o.MP4").stat().st_size > 0


def test_a_damaged_clip_is_a_warning(stub, tmp_path, capsys):
    path = tmp_path / "clip.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "bgr0"
        for i in range(30):
            noise = np.random.default_rng(i).integers(0, 256, (32, 32, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(noise, "rgb24")))
        container.mux(stream.encode())
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert predict.main([str(path)]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"warning: {path} is damaged or cut off (")


def test_random_weights_are_the_same_every_time(folder, capsys):
    outputs = []
    for _ in range(2):
        torch.rand(3)
        assert predict.main([str(folder)]) == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1]
    assert outputs[0].startswith("uni_adafocus_tsm_96_8+8 on ")
    assert NOTE in outputs[0]


def test_a_saved_checkpoint_predicts_what_the_model_does(folder, tmp_path, capsys):
    pytest.importorskip("safetensors", reason="checkpoints are .safetensors files")
    torch.manual_seed(5)
    model = create_model("tsm_plus_8+8").eval()
    path = tmp_path / "weights.safetensors"
    model.save_checkpoint(path)
    _, _, output = predict.predict(model, folder)
    assert predict.main([str(folder), "--model", "tsm_plus_8+8", "--checkpoint", str(path)]) == 0
    printed = capsys.readouterr().out
    assert f"1. class {int(output.logits.argmax())}, " in printed
    assert "random" not in printed


def test_predict_runs_the_model_on_the_sampled_frames(folder):
    candidates, glance, output = predict.predict(Stub().eval(), folder)
    expected = read_clip(folder, CANDIDATES, GLANCES)
    torch.testing.assert_close(candidates, expected[0], equal_nan=True)
    torch.testing.assert_close(glance, expected[1], equal_nan=True)
    assert output.frame_index.tolist() == [list(PICKED)]
    with pytest.raises(ValueError, match="evaluation mode"):
        predict.predict(Stub(), folder)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.mp4"], "missing.mp4 does not exist"),
        (["notes.md"], "notes.md cannot be read as a video"),
        (["notes.txt"], "notes.txt names not a video twice"),
        (["frames", "--model", "uni_adafocus_64"], "name must be one of .*tsm_plus_8"),
        (["frames", "--labels", "empty.txt"], "empty.txt must have a line for each class, but it is empty"),
        (["frames", "--labels", "missing.txt"], "No such file or directory: 'missing.txt'"),
        (["frames", "--labels", "blank.txt"], "blank.txt must have one class name .* but line 2 is empty"),
        (["frames", "--checkpoint", "missing.safetensors"], "missing.safetensors"),
        (["frames", "--threshold", "missing.json"], "No such file or directory: 'missing.json'"),
        (["frames", "--threshold", "notes.txt"], "notes.txt must be a JSON file of thresholds"),
        (["frames", "--threshold=-1", "--model", "tsm_plus_8+8"], "needs a model with an early exit; tsm_plus_8.8 has"),
        (["frames", "frames", "--overlay", "out.png"], "--overlay draws one clip, got 2"),
        ([""], "path must name a video file or a folder of frames, got ''"),
        (["https://host/clip.mp4"], "https://host/clip.mp4 is a URL, and these are not read"),
        (["frames/0.png", "--overlay", "frames/0.png"], "overlay must not be the clip itself"),
    ],
)
def test_what_does_not_fit_is_one_line_and_exit_code_2(folder, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(folder.parent)
    for name in ("notes.txt", "notes.md"):
        Path(name).write_text("not a video\n" * 2)
    Path("empty.txt").touch()
    Path("blank.txt").write_text("one\n\nthree\n")
    before = Path("frames/0.png").read_bytes()
    assert predict.main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert len(printed.err.splitlines()) == 1
    assert printed.err.startswith("error: ")
    assert re.search(message, printed.err)
    assert Path("frames/0.png").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--overlay", "out.gif"], "must end in .png or .mp4, got 'out.gif'"),
        (["--overlay", "nowhere/out.png"], "its folder 'nowhere' does not exist"),
        (["--device", "quantum"], "cannot use 'quantum'"),
        (["--top", "0"], "must be a whole number of at least 1, got '0'"),
        (["--top", "two"], "must be a whole number of at least 1, got 'two'"),
        (["--threshold", "0.5"], "must be minus an entropy, which is at most 0, or a file; got '0.5'"),
        (["--threshold", "nan"], "must be minus an entropy, which is at most 0, or a file; got 'nan'"),
    ],
)
def test_arguments_are_checked_before_any_work(folder, monkeypatch, capsys, arguments, message):
    monkeypatch.setattr(chosen_model, "create_model", lambda name, **_: pytest.fail("work began"))
    with pytest.raises(SystemExit) as stopped:
        predict.main([str(folder), *arguments])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_the_module_runs_on_a_real_video(tmp_path):
    try:
        clip = runpy.run_path(str(ROOT / "bench" / "harness" / "clip.py"))["sample_clip"]()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    out = tmp_path / "out.png"
    command = [sys.executable, "-m", "adafocus_models.predict", str(clip), "--overlay", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "  5. class " in done.stdout
    assert NOTE in done.stdout
    assert Image.open(out).width > 1000

"""Folders, lists and standard input name videos, with labels where they are asked for."""

import io
from pathlib import Path

import pytest

pytest.importorskip("av", reason="the room of data needs PyAV")

from adafocus_models.data import list_videos


def paths(*arguments, **options):
    return [video.path for video in list_videos(*arguments, **options)]


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_a_folder_at_any_depth_in_natural_order(tmp_path):
    touch(
        tmp_path, "b10.mp4", "b9.MP4", "notes.txt", ".hidden.mp4", "deep/er/c.webm", "frames of a/2.jpg", "z/readme.md"
    )
    found = paths(tmp_path)
    assert [str(Path(path).relative_to(tmp_path)) for path in found] == [
        "b9.MP4",
        "b10.mp4",
        "deep/er/c.webm",
        "frames of a",
    ]


def test_a_folder_of_frames_and_a_file_are_one_video(tmp_path):
    touch(tmp_path, "frames/1.png", "clip.mp4")
    assert paths(tmp_path / "frames") == [str(tmp_path / "frames")]
    assert paths(str(tmp_path / "clip.mp4")) == [str(tmp_path / "clip.mp4")]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.txt", "# of two\n\nmy clips/a b.mp4 3\n/else/c.mp4 jump\n"),
        ("list.tsv", "my clips/a b.mp4\t3\n/else/c.mp4\tjump\r\n"),
        ("list.csv", '"my clips/a b.mp4",3\n/else/c.mp4,jump\n'),
    ],
)
def test_a_list_with_labels(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    first, second = list_videos(tmp_path / name, labels=True)
    assert first == ("my clips/a b.mp4", tmp_path / "my clips" / "a b.mp4", "3", None, None)
    assert second == ("/else/c.mp4", Path("/else/c.mp4"), "jump", None, None)


@pytest.mark.parametrize(("name", "comma"), [("list.tsv", "\t"), ("list.txt", "\t"), ("list.csv", ",")])
def test_parts_of_videos(tmp_path, name, comma):
    lines = [
        ("my clips/a b.mp4", "3", "0", "2.5"),
        ("my clips/a b.mp4", "jump", " 2.5 ", "10"),
        ("my clips/a b.mp4", "3", "10"),
        ("frames of c", "4", "", "37"),
        ("d.mp4", "5", "", ""),
    ]
    (tmp_path / name).write_text("\n".join(comma.join(columns) for columns in lines))
    found = list_videos(tmp_path / name, labels=True)
    assert [(video.path, *video[2:]) for video in found] == [
        ("my clips/a b.mp4", "3", 0, 2.5),
        ("my clips/a b.mp4", "jump", 2.5, 10),
        ("my clips/a b.mp4", "3", 10, None),
        ("frames of c", "4", None, 37),
        ("d.mp4", "5", None, None),
    ]


def test_without_labels_no_column_is_a_part(tmp_path):
    (tmp_path / "list.tsv").write_text("a b.mp4\t3\tof\tother things\n")
    assert list_videos(tmp_path / "list.tsv") == [("a b.mp4", tmp_path / "a b.mp4", "3", None, None)]


@pytest.mark.parametrize(
    ("start", "end"),
    [("7", "2"), ("2", "2"), ("-1", "2"), ("x", "2"), ("1", "2 s"), ("nan", "2"), ("1", "nan"), ("inf", "")],
)
def test_a_part_that_is_none(tmp_path, start, end):
    (tmp_path / "list.tsv").write_text(f"a b.mp4\t3\n\nc.mp4\t3\t{start}\t{end}\n")
    rule = "start and end must be numbers with 0 <= start < end, or empty"
    message = f"list.tsv, line 3: c.mp4: {rule}, got '{start}' and '{end}'"
    with pytest.raises(ValueError, match=message):
        list_videos(tmp_path / "list.tsv", labels=True)


@pytest.mark.parametrize("columns", [("", ""), ("0", ""), ("1", "2")])
def test_a_part_is_named_once(tmp_path, columns):
    part = "\t".join(columns)
    (tmp_path / "list.tsv").write_text(f"a.mp4\t3\t{part}\na.mp4\t3\t2\t3\na.mp4\t4\t{part}\n")
    with pytest.raises(ValueError, match=r"list.tsv names a.mp4 twice"):
        list_videos(tmp_path / "list.tsv", labels=True)


def test_without_labels_a_line_is_a_path(tmp_path, monkeypatch):
    (tmp_path / "list.txt").write_text("a clip.mp4\nb.mp4\n")
    assert paths(tmp_path / "list.txt") == ["a clip.mp4", "b.mp4"]
    monkeypatch.setattr("sys.stdin", io.StringIO("a clip.mp4\nb.mp4\n"))
    assert [video.file for video in list_videos("-")] == [Path("a clip.mp4"), Path("b.mp4")]


@pytest.mark.parametrize(
    ("source", "labels", "message"),
    [
        ("empty.txt", False, "empty.txt names no videos"),
        ("empty", False, "empty names no videos"),
        ("twice.txt", False, "twice.txt names a.mp4 twice"),
        ("twice.txt", True, "twice.txt, line 1: a.mp4 has no label: a path and a label a line"),
        ("empty", True, "empty has no labels: give a list file"),
        ("missing", False, "missing does not exist: check the path"),
        ("", False, "path must name a video file or a folder of frames, got ''"),
    ],
)
def test_what_does_not_fit(tmp_path, monkeypatch, source, labels, message):
    monkeypatch.chdir(tmp_path)
    Path("empty.txt").touch()
    Path("empty").mkdir()
    Path("twice.txt").write_text("a.mp4\na.mp4\n")
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        list_videos(source, labels=labels)

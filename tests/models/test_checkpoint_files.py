"""Files that are no checkpoints, told by what they are; and that none of them runs code."""

import argparse
import datetime
import gzip
import io
import os
import pickle
import tarfile
import warnings
import zipfile

import numpy as np
import pytest
import torch
from checkpoint_data import OPTIONS, Small, assert_loads, weights
from torch import nn

from adafocus_models.networks.checkpoints import load_checkpoint


def saved(content: object, **options: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tarred() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("ckpt.pth"))
    return buffer.getvalue()


def numpy_bytes(save, *arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    save(buffer, *arrays)
    return buffer.getvalue()


def scripted() -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        buffer = io.BytesIO()
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), buffer)
    return buffer.getvalue()


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
STRANGERS = {
    "empty": (lambda: b"", "is not a checkpoint: it is empty"),
    "text": (lambda: b"not a checkpoint at all", "is not a checkpoint: it begins with b'not a checkpoint at all'$"),
    "web page": (lambda: b"\n<!DOCTYPE html><html>", r"it begins with b'\\n<!DOCTYPE html><html>' \(a web page: "),
    "web page, small letters": (lambda: b"<html><body>", r"it begins with b'<html><body>' \(a web page: "),
    "error of a store": (lambda: b"<?xml version='1.0'?><Error>", r"\(a web page: "),
    "Git LFS": (lambda: LFS, r"begins with b'version https://git-lfs\.' \(a pointer of Git LFS: git lfs pull"),
    "gzip": (lambda: gzip.compress(saved({}), mtime=0), r"begins with b'\\x1f\\x8b.* \(compressed: unpack it first\)"),
    "tar": (tarred, r"begins with b'ckpt\.pth\\x00.* \(a tar archive: unpack it first\)"),
    "mp4": (lambda: b"\0\0\0 ftypisom" + bytes(99), r"begins with b'\\x00\\x00\\x00 ftypisom.* \(a video\)"),
    "npy": (lambda: numpy_bytes(np.save, np.zeros(3)), r"begins with b.\\x93NUMPY.* \(an array of NumPy\)"),
    "npz": (lambda: numpy_bytes(np.savez, np.zeros(3)), r"it is an archive of NumPy \(\.npz\)"),
    "JSON": (lambda: b'{"weight_map": {}}', r"begins with b.{\"weight_map.* \(JSON\)"),
    "TorchScript": (scripted, r"it is a TorchScript archive, which holds code: pass torch\.jit\.load\("),
    "torch.export": (
        lambda: zipped({"m/archive_format": b"pt2", "m/data.pkl": b""}),
        r"it is an archive of torch\.export, which holds code: pass torch\.export\.load\(",
    ),
    "zip of a checkpoint": (lambda: zipped({"a/b.pth": b"x"}), r"it is a zip archive of a/b\.pth: unpack it first"),
    "zip of many": (lambda: zipped(dict.fromkeys("abcde", b"x")), r"it is a zip archive of a, b, c, \.\.\.: unpack"),
    "zip, cut off": (lambda: saved(weights())[:-200], "it is a zip archive, damaged or cut off: the list of its files"),
    "pickle": (lambda: pickle.dumps({"a": 1}), r"begins with b.\\x80.* \(a pickle, but not of torch\.save\)"),
    "old format, cut off": (
        lambda: saved(weights(), _use_new_zipfile_serialization=False)[:-20],
        "must be a checkpoint, but it is damaged or cut off: ",
    ),
    "zeros": (lambda: bytes(1000), r"is not a checkpoint: it begins with b'\\x00\\x00"),
}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("stranger", STRANGERS)
def test_a_file_that_is_none_is_told_by_what_it_is(stranger, suffix, tmp_path):
    make, message = STRANGERS[stranger]
    path = tmp_path / f"file{suffix}"
    path.write_bytes(make())
    with pytest.raises(ValueError, match=message) as error:
        load_checkpoint(Small(), path)
    text = str(error.value)
    assert text.startswith(f"{path} ")
    assert "\n" not in text
    assert "weights_only" not in text


def test_a_safetensors_file_that_is_cut_off(tmp_path):
    safetensors = pytest.importorskip("safetensors.torch", reason="our format needs safetensors")
    whole = safetensors.save(weights())
    for size in (20, len(whole) - 8):
        (tmp_path / "cut.pth").write_bytes(whole[:size])
        with pytest.raises(ValueError, match="must be a checkpoint, but it is damaged or cut off: "):
            load_checkpoint(Small(), tmp_path / "cut.pth")


def test_what_is_no_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_checkpoint(Small(), tmp_path / "absent.pth")
    os.mkfifo(tmp_path / "fifo.pth")
    for path in (tmp_path, tmp_path / "fifo.pth", "/dev/null"):
        with pytest.raises(ValueError, match="must be a file of weights, but it is a folder or a device"):
            load_checkpoint(Small(), path)


UNSAFE = {
    "date": ({"state_dict": {}, "when": datetime.date(2024, 1, 1)}, r"it holds datetime\.date$"),
    "array": ({"state_dict": {}, "x": np.zeros(2)}, r"it holds .*numpy\S*multiarray\._reconstruct"),
    "objects": ({"args": argparse.Namespace(when=datetime.date(2024, 1, 1))}, r"it holds datetime\.date$"),
    "module": (nn.Sequential(nn.Linear(2, 2)), r"it holds a whole module: save its state_dict\(\) instead$"),
    "own module": ({"model": Small()}, r"it holds a whole module: save its state_dict\(\) instead$"),
}


@pytest.mark.parametrize("old", [False, True], ids=["zip", "old format"])
@pytest.mark.parametrize("kind", UNSAFE)
def test_what_is_not_read_is_named(kind, old, tmp_path):
    content, message = UNSAFE[kind]
    torch.save(content, tmp_path / "unsafe.pth", _use_new_zipfile_serialization=not old)
    with pytest.raises(
        ValueError, match="must hold tensors and plain containers only, to be read safely, but"
    ) as error:
        load_checkpoint(Small(), tmp_path / "unsafe.pth")
    if not (old and kind == "own module"):  # there, only the first name that is met is known
        error.match(message)
    assert "weights_only" not in str(error.value)
    assert error.value.__cause__ is None


@pytest.mark.filterwarnings("ignore:Detected pickle protocol 4")
def test_another_protocol_of_pickles(tmp_path):
    torch.save(weights(), tmp_path / "new.pth", pickle_protocol=4)
    with pytest.raises(
        ValueError, match=r"it holds a pickle that torch does not read safely: write it with torch.save's"
    ):
        load_checkpoint(Small(), tmp_path / "new.pth")


def test_nothing_runs_while_reading(tmp_path):
    class Harmful:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "made"),)

    for number, content in enumerate(({"a": Harmful()}, argparse.Namespace(x=Harmful()), [np.float64(1), Harmful()])):
        torch.save(content, tmp_path / f"{number}.pth")
        with pytest.raises(ValueError, match=r"it holds posix\.mkdir"):
            load_checkpoint(Small(), tmp_path / f"{number}.pth")
    assert not (tmp_path / "made").exists()


def test_what_a_process_allows_stays_as_it_was(tmp_path):
    torch.save({"state_dict": weights(), "args": OPTIONS}, tmp_path / "options.pth")
    for own in ([], [argparse.Namespace]):
        with torch.serialization.safe_globals(own):
            before = set(torch.serialization.get_safe_globals())
            assert_loads(tmp_path / "options.pth")
            assert set(torch.serialization.get_safe_globals()) == before

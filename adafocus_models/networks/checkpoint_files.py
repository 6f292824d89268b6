"""Files of weights: what their first bytes say they are, and their content, read without running any code of theirs."""

import argparse
import os
import pickle
import re
import zipfile
from typing import Any

import numpy as np
import torch

from adafocus_ops.checks import require

# What a file is that begins like this, for its user.
KINDS = {
    rb"\s*<(!DOCTYPE|!doctype|html|HTML|\?xml)": "a web page: was the download sent on to one?",
    rb"version https://git-lfs": "a pointer of Git LFS: git lfs pull fetches the file itself",
    rb"\x1f\x8b|BZh|\xfd7zXZ|\x28\xb5\x2f\xfd|7z\xbc\xaf|Rar!": "compressed: unpack it first",
    rb".{257}ustar": "a tar archive: unpack it first",
    rb"\x93NUMPY": "an array of NumPy",
    rb"\x89HDF": "HDF5",
    rb".{4}ftyp|RIFF|\x1a\x45\xdf\xa3": "a video",
    rb"\{": "JSON",
    rb"\x80[\x02-\x05]": "a pickle, but not of torch.save",
}
ZIP = b"PK\x03\x04"
# How torch.save's own format before 1.6 begins: the pickle of a number.
OLD_FORMAT = rb"\x80[\x02-\x05]\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19\."
HEAD = 512  # bytes
SHOWN = 24  # of these bytes, in a message

# What training programs keep beside the weights: numbers of NumPy, and a command's options. (An object array's dtype,
# "O", is not among them.)
_SCALAR = np.float64(0).__reduce__()[0]
HARMLESS = [
    argparse.Namespace,
    np.dtype,
    *{type(np.dtype(code)) for code in "?bBhHiIlLqQefdgFDGSUMm"},
    *((_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
]


def read_file(path: str) -> Any:
    """Content of a checkpoint: safetensors or torch.save's, whatever its name is.

    Raises:
        OSError: it cannot be opened.
        ValueError: it is damaged, no checkpoint, or holds more than tensors, plain containers and what is `HARMLESS`.
    """
    is_file = os.path.isfile(path) or not os.path.exists(path)
    require(is_file, lambda: f"{path} must be a file of weights, but it is a folder or a device")
    with open(path, "rb") as file:
        head = file.read(HEAD)
    if not _is_safetensors(head):
        _check_is_torchs(path, head)
    try:
        if _is_safetensors(head):
            return safetensors().load_file(path)
        # Opened here, since torch takes any file that is named .safetensors for one.
        with open(path, "rb") as file, _harmless():
            return torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, ImportError):
        raise
    except pickle.UnpicklingError as error:  # whose text advises to read without weights_only
        raise ValueError(f"{path} {_unsafe(path, str(error))}") from None
    except Exception as error:  # each reader has its own for a damaged file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} must be a checkpoint, but it is damaged or cut off: {reason}") from error


def safetensors() -> Any:
    """safetensors.torch, or an error that says how to get it."""
    try:
        import safetensors.torch
    except ImportError as error:
        raise ImportError("checkpoints are .safetensors files: pip install safetensors") from error
    return safetensors.torch


def _harmless() -> torch.serialization.safe_globals:
    """`HARMLESS` is read meanwhile; what the process allows of it otherwise stays allowed."""
    allowed = torch.serialization.get_safe_globals()
    return torch.serialization.safe_globals([each for each in HARMLESS if each not in allowed])


def _is_safetensors(head: bytes) -> bool:
    """Eight bytes with the length of the header, of at most 100 MB, and the header, which is JSON."""
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= 100_000_000


def _check_is_torchs(path: str, head: bytes) -> None:
    """Raises ValueError, with what the file is, unless torch.save wrote it."""
    require(len(head) > 0, lambda: f"{path} is not a checkpoint: it is empty")
    if head.startswith(ZIP):
        kind = _kind_of_zip(path)
        require(kind is None, lambda: f"{path} is not a checkpoint: it is {kind}")
        return
    kind = next((f" ({kind})" for start, kind in KINDS.items() if re.match(start, head, re.DOTALL)), "")
    is_old = re.match(OLD_FORMAT, head) is not None
    require(is_old, lambda: f"{path} is not a checkpoint: it begins with {head[:SHOWN]!r}{kind}")


def _kind_of_zip(path: str) -> str | None:
    """What a zip archive is, if not one of torch.save."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        return "a zip archive, damaged or cut off: the list of its files, at its end, is missing"
    inside = {name.partition("/")[2] for name in names}  # beneath a folder of any name
    if "constants.pkl" in inside:
        return "a TorchScript archive, which holds code: pass torch.jit.load(...).state_dict()"
    if "archive_format" in inside:
        return "an archive of torch.export, which holds code: pass torch.export.load(...).state_dict"
    if all(name.endswith(".npy") for name in names):
        return "an archive of NumPy (.npz)"
    if "data.pkl" not in inside:
        return f"a zip archive of {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}: unpack it first"
    return None


def _unsafe(path: str, error: str) -> str:
    """What a file holds that is not read, for the message of torch's unpickler."""
    try:
        with _harmless():
            strangers = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # it only knows zip archives, and no newer pickles
        strangers = re.findall(r"GLOBAL ([\w.]+)", error)
    if any(name.startswith("torch.nn.modules.") for name in strangers):
        found = "a whole module: save its state_dict() instead"
    else:
        found = ", ".join(strangers) or "a pickle that torch does not read safely: write it with torch.save's defaults"
    return f"must hold tensors and plain containers only, to be read safely, but it holds {found}"

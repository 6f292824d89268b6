"""Compiles an op's kernels and the harness that runs them into a module under build/cuda_on_host/, once.

An object file is named by a hash of all that goes into it, and a module by those of its objects.
"""

import fcntl
import functools
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sysconfig
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CSRC = ROOT / "csrc"
CACHE = ROOT / "build" / "cuda_on_host"
JOBS = 2
KEPT_SECONDS = 7 * 24 * 3600  # since the last use

COMPILER = "g++"
FLAGS = ["-std=c++17", "-g1", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wno-unknown-pragmas"]
# As the GPU's compiler: no rules about which types share memory. As C++ says: nothing fused.
FLAGS += ["-fno-strict-aliasing", "-ffp-contract=off", "-fcf-protection=none", "-fno-omit-frame-pointer"]
SANITIZERS = ["-fsanitize=address,undefined,float-cast-overflow", "-fno-sanitize-recover=all"]

# How kernels are compiled: under the sanitizers; besides, with products and sums fused wherever the compiler can, as
# the GPU's does in places of its own; or to find races and bank conflicts, where races.cpp stands for the sanitizer's
# runtime, and the copy of a struct is one access.
DETECTING = "-DCUDA_ON_HOST_RACES"
MODES = {
    "sanitized": ["-O1", *SANITIZERS],
    "contracted": ["-O2", "-ffp-contract=fast", "-mfma", *SANITIZERS],
    "races": ["-O1", "-fsanitize=thread", "-fno-tree-sra", DETECTING],
}

EXECUTION = (HERE / "cuda_on_host.cpp", HERE / "fibers.cpp")
DETECTORS = (HERE / "races.cpp", HERE / "banks.cpp")
MODULE = HERE / "module.cpp"


def sources(op: str) -> list[Path]:
    """The kernels of an op, which are the .cu files whose names begin with its own, and their bindings."""
    kernels = [path for folder in (CSRC / "cuda", HERE) for path in sorted(folder.glob(f"{op}*.cu"))]
    return [*kernels, HERE / f"{op}.cpp"]


def runtime(name: str) -> Path:
    """A library of the compiler, to be loaded before Python; not absolute if it is not installed."""
    command = [COMPILER, f"-print-file-name={name}"]
    return Path(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())


@functools.cache
def why_not() -> str | None:
    """Why modules cannot be compiled here, as a sentence, or None."""
    if not shutil.which(COMPILER):
        return f"there is no C++ compiler {COMPILER!r}"
    if not runtime("libasan.so").is_absolute():
        return f"{COMPILER} has no AddressSanitizer (libasan.so)"
    if importlib.util.find_spec("pybind11") is None:
        return "pybind11 is not installed"
    if not Path(sysconfig.get_paths()["include"], "Python.h").exists():
        return "Python's headers (Python.h) are not installed"
    return None


def module(op: str, edits: Mapping[Path, str], mode: str = "sanitized") -> Path:
    """The module of an op, compiled if it is not there yet.

    Args:
        edits: files of csrc/cuda and the texts that the kernels are compiled with in place of theirs.
        mode: one of MODES.
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _prune()
        overlay = _overlay(edits)
        with ThreadPoolExecutor(JOBS) as pool:
            races = mode == "races"
            parts = [*sources(op), MODULE, *EXECUTION, *(DETECTORS if races else [])]
            objects = [str(path) for path in pool.map(lambda source: _object(source, edits, overlay, mode), parts)]
        return _made(CACHE / f"{op}-{_hash(*objects)}.so", ["-shared", *([] if races else SANITIZERS), *objects])


def _object(source: Path, edits: Mapping[Path, str], overlay: Path, mode: str) -> Path:
    folders, includes, versions = [CSRC / "include", HERE], [CSRC, CSRC / "include", HERE], [_compiler_version()]
    if source.suffix == ".cu":
        flags = [*FLAGS, *MODES[mode]]
        folders.append(CSRC / "cuda")
    elif source in (*EXECUTION, *DETECTORS):
        flags = [*FLAGS, "-O2", *([DETECTING] if mode == "races" else [])]
        folders.append(CSRC / "cuda")
    else:
        import pybind11

        flags = [*FLAGS, "-O1"]
        includes += [Path(pybind11.get_include()), Path(sysconfig.get_paths()["include"])]
        versions.append(pybind11.__version__)
        edits = {}
    headers = [path for folder in folders for path in sorted(folder.rglob("*")) if path.suffix in (".h", ".cuh")]
    texts = [edits.get(path) or path.read_text() for path in (source, *headers)]
    path = CACHE / f"{source.stem}-{_hash(*versions, *flags, *map(str, includes), *texts)}.o"
    file = overlay / source.relative_to(CSRC) if source in edits else source
    searched = [f"-I{folder}" for folder in (overlay, *includes)]
    return _made(path, [*flags, *searched, "-x", "c++", "-c", str(file)])


def _overlay(edits: Mapping[Path, str]) -> Path:
    """A folder with the edited files, to be searched before csrc."""
    names = [str(path.relative_to(CSRC)) for path in edits]
    folder = CACHE / f"edits-{_hash(*names, *edits.values())}"
    for name, text in zip(names, edits.values(), strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def _made(output: Path, arguments: list[str]) -> Path:
    """What the compiler makes with these arguments, if it is not there yet."""
    if output.exists():
        os.utime(output)
        return output
    unfinished = output.with_suffix(".unfinished")
    done = subprocess.run([COMPILER, *arguments, "-o", str(unfinished)], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{COMPILER} {' '.join(arguments)}\n{done.stderr[:20000]}")
    return unfinished.rename(output)


def _prune() -> None:
    for path in CACHE.iterdir():
        if time.time() - path.stat().st_mtime > KEPT_SECONDS:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


@functools.cache
def _compiler_version() -> str:
    return subprocess.run([COMPILER, "--version"], check=True, capture_output=True, text=True).stdout


def _hash(*texts: str) -> str:
    digest = hashlib.sha256()
    for text in texts:
        digest.update(f"{len(text)}:{text}".encode())
    return digest.hexdigest()[:16]

"""What a user installs: with and without the extension, with and without a compiler for GPUs."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]
PACKAGES = ("adafocus_ops", "adafocus_models")


def run(*command: str, check: bool = True, **env: str) -> subprocess.CompletedProcess:
    result = subprocess.run(command, cwd=ROOT, env={**os.environ, **env}, capture_output=True, text=True)
    if check:
        assert result.returncode == 0, result.stderr
    return result


def repository_files() -> list[Path]:
    """What belongs to this checkout, or came with this source distribution."""
    if (ROOT / ".git").exists():
        names = run("git", "ls-files", "-z").stdout.split("\0")
    else:
        names = (ROOT / "adafocus.egg-info" / "SOURCES.txt").read_text().splitlines()
    return [ROOT / name for name in names if name and (ROOT / name).exists()]


def python(code: str, check: bool = True, **env: str) -> str:
    result = run(sys.executable, "-c", code, check=check, **env)
    return result.stdout if check else result.stderr


WITHOUT_TRITON = "import sys; sys.modules['triton'] = None\n"


def test_without_the_extension_and_triton_the_ops_run_on_the_reference():
    out = python(
        WITHOUT_TRITON + "import torch, adafocus_ops as ops\n"
        "x = ops.crop_resize(torch.ones(1, 3, 8, 8), torch.tensor([[4., 4., 4., 4.]]), 2)\n"
        "print(x.sum().item(), ops.backends.choose('crop_resize', 'cpu', None))\n"
        "print(ops.backends.why_not('cpu', 'crop_resize', 'cpu'))",
        ADAFOCUS_EXTENSION="",
    )
    assert out.splitlines()[0] == "12.0 reference"
    assert "the compiled extension is not built" in out


def test_a_library_that_cannot_be_loaded_is_a_reason_not_a_crash(tmp_path):
    broken = tmp_path / "_C.so"
    broken.write_text("no library")
    out = python(
        "import adafocus_ops as ops; print(ops.backends.why_not('cpu', 'crop_resize', 'cpu'))",
        ADAFOCUS_EXTENSION=str(broken),
    )
    assert "cannot be loaded with torch" in out


def test_import_takes_less_than_a_third_of_a_second_after_torch():
    """Of this process: other tests may run beside it."""
    code = (
        WITHOUT_TRITON + "import torch, time; t = time.process_time(); import adafocus_ops\n"
        "print(time.process_time() - t)"
    )
    assert min(float(python(code)) for _ in range(3)) < 0.3


def test_importing_the_ops_imports_no_optional_package():
    out = python(
        "import sys, adafocus_ops; print([m for m in ('av', 'PIL', 'triton', 'matplotlib') if m in sys.modules])"
    )
    before = python("import sys, torch; print([m for m in ('av', 'PIL', 'triton', 'matplotlib') if m in sys.modules])")
    assert out == before


def test_the_environment_chooses_the_backend_and_a_wrong_name_raises():
    code = "import torch, adafocus_ops as ops; print(ops.backends.choose('crop_resize', 'cpu', None))"
    assert python(code, ADAFOCUS_BACKEND="reference").strip() == "reference"
    error = python(code, check=False, ADAFOCUS_BACKEND="metal")
    assert "there is no backend 'metal'; the backends are cuda, cpu, triton, reference" in error


def test_the_report_of_what_is_available():
    out = run(sys.executable, "-m", "adafocus_ops").stdout
    assert f"torch {torch.__version__}" in out
    assert "self-check: passed" in out
    assert "\n  reference  available (all ops)" in out
    bare = run(sys.executable, "-m", "adafocus_ops", ADAFOCUS_EXTENSION="").stdout
    assert "extension: the compiled extension is not built" in bare


def test_asking_for_cuda_without_a_compiler_fails_loudly(tmp_path):
    result = run(
        sys.executable, "setup.py", "--version", check=False, ADAFOCUS_CUDA="1", PATH="/usr/bin:/bin",
        CUDA_HOME=str(tmp_path),
    )  # fmt: skip
    assert result.returncode != 0
    assert "ADAFOCUS_CUDA=1 asks for CUDA kernels, but" in result.stderr
    assert "nvcc was not found" in result.stderr
    wrong = run(sys.executable, "setup.py", "--version", check=False, ADAFOCUS_CUDA="yes")
    assert "ADAFOCUS_CUDA must be 0 or 1, got 'yes'" in wrong.stderr


def test_without_a_compiler_there_is_no_extension():
    result = run(sys.executable, "setup.py", "build_ext", "--build-lib", "build/none", CXX="no-such-compiler")
    assert "building without the extension: there is no C++ compiler 'no-such-compiler'" in result.stdout


# What no command of README needs.
NOT_DISTRIBUTED = (".ci/",)


def built(kind: str, folder: Path) -> Path:
    """The distribution of that kind, built in a copy, so that the working tree's build is left alone."""
    tree = folder / "tree"
    for path in repository_files():
        target = tree / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    bin_folder = str(Path(sys.executable).parent)
    quick = {"ADAFOCUS_CUDA": "0", "ADAFOCUS_EXTRA_CFLAGS": "-O0"}  # what is packed counts, not how fast it runs
    result = subprocess.run(
        [sys.executable, "setup.py", kind, "--dist-dir", str(folder / "dist")],
        cwd=tree,
        env={**os.environ, **quick, "PATH": f"{bin_folder}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    (path,) = (folder / "dist").iterdir()
    return path


def test_source_distribution_is_a_checkout(tmp_path):
    """Both commands of README run in it, tests included."""
    with tarfile.open(built("sdist", tmp_path)) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    files = {str(path.relative_to(ROOT)) for path in repository_files()}
    assert not {name for name in files - names if not name.startswith(NOT_DISTRIBUTED)}
    assert "adafocus.egg-info/SOURCES.txt" in names  # which stands for git there
    assert not {name for name in names if name.endswith((".so", ".pyc"))}


def test_wheel_holds_both_packages_and_nothing_else(tmp_path):
    wheel = built("bdist_wheel", tmp_path)
    assert "-cp310-abi3-" in wheel.name
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    files = {str(path.relative_to(ROOT)) for path in repository_files()}
    packages = {name for name in files if name.startswith(tuple(f"{package}/" for package in PACKAGES))}
    assert names == packages | {"adafocus_ops/_C.abi3.so"}
    assert {f"{package}/py.typed" for package in PACKAGES} <= names


def test_the_repository_speaks_of_itself_alone():
    own = Path(__file__)
    words = ("/wo" + "rk/", "/tm" + "p/w", "pypi" + ".org", "TO" + "DO", "FIX" + "ME")
    for path in repository_files():
        if path == own or path.suffix in (".npz", ".png"):
            continue
        text = path.read_text(errors="ignore")
        assert not [word for word in words if word in text], path

"""Makes one mistake at a time in the Python of both packages, and shows those that no test catches.

    make mutants ARGS='adafocus_ops/boxes.py adafocus_models/exits/solve.py'

cosmic-ray makes the mistakes (another constant, comparison, operator or default, a condition turned round) in a copy of
this checkout, build/mutants/tree, and runs the tests that TESTS names for the module. Each mistake costs the start of
Python and torch, some seconds; a module takes minutes to an hour. A run that was stopped goes on where it was, if
the module is still the same.
"""

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "build" / "mutants"
TREE = FOLDER / "tree"
BIN = Path(sys.executable).parent
TESTS_FOLDER = ROOT / "tests"
PACKAGES = ("adafocus_ops", "adafocus_models")

# What catches the mistakes of a module that has no tests of its name: those of the first of these that it lies in.
TESTS = {
    "adafocus_ops/_reference/axis.py": ["ops/test_crop_resize*.py", "ops/test_antialias.py"],
    "adafocus_ops/_reference/race.py": ["ops/test_weighted_sample.py", "ops/test_expected_value.py"],
    "adafocus_ops/_reference/rows.py": ["ops/test_gather_rows.py", "ops/test_scatter_rows.py"],
    "adafocus_ops/_crop_a": ["ops/test_crop_*.py"],
    "adafocus_ops/checks.py": [
        "ops/test_*arguments.py",
        "ops/test_calls.py",
        "ops/test_boxes.py",
        "ops/test_exit_gate.py",
    ],
    "adafocus_ops": ["ops/*.py"],
    "adafocus_models/data": ["models/test_video*.py", "models/test_image_folders.py"],
    "adafocus_models/exits": ["models/test_metrics.py", "models/test_threshold*.py", "models/test_exit_loop.py"],
    "adafocus_models/pictures": ["models/test_predict*.py", "models/test_fonts.py"],
    "adafocus_models": ["models/*.py"],
}
# Kernels in an emulation are slow, and say nothing of the Python layers that the others do not.
OPTIONS = ["-x", "-q", "--no-header", "-p", "no:cacheprovider", "-k", "not triton and not cuda"]
# One wrong operator stands for all: that no test tells + from - is seen as well as that none tells + from <<.
LEFT_OUT = [
    r"core/ReplaceBinaryOperator_(?!Add_Sub|Sub_Add|Mul_Div|Div_Mul|FloorDiv_Div|Mod_Mul|Pow_Mul|BitAnd_BitOr|BitOr_BitAnd"
    r"|RShift_LShift|LShift_RShift).*"
]
KILLED_AFTER = 600  # seconds; a mistake that makes a test hang is caught


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", default=PACKAGES, help="modules or folders")
    args = parser.parse_args(arguments)
    copy_checkout()
    for module in modules(args.paths):
        run(module)
    return 0


def modules(paths: Sequence[str]) -> Iterator[str]:
    """Modules of plain Python: neither Triton's kernels nor the tests' examples."""
    for path in map(Path, paths):
        found = sorted((ROOT / path).rglob("*.py")) if (ROOT / path).is_dir() else [ROOT / path]
        for file in found:
            if not {"_triton", "examples"} & set(file.parts) and file.read_text().strip():
                yield str(file.relative_to(ROOT))


def tests(module: str) -> list[str]:
    """Arguments of pytest: the tests named after the module, or else those of its place in TESTS."""
    own = [f"ops/test_{Path(module).stem.lstrip('_')}*.py", f"models/test_{Path(module).stem}*.py"]
    for patterns in (own, *(patterns for place, patterns in TESTS.items() if module.startswith(place))):
        found = sorted(path.relative_to(ROOT) for pattern in patterns for path in TESTS_FOLDER.glob(pattern))
        if found:
            return [*OPTIONS, "tests/test_defaults.py", *map(str, found)]
    raise ValueError(f"paths must lie in {' or '.join(PACKAGES)}, got {module}")


def run(module: str) -> None:
    """Tries the mistakes of a module that are left to try, and prints those that survived."""
    name = module.replace("/", ".")
    config, session = FOLDER / f"{name}.toml", FOLDER / f"{name}.sqlite"
    command = shlex.join([sys.executable, "-m", "pytest", *tests(module)])
    config.write_text(
        f"[cosmic-ray]\nmodule-path = {json.dumps(module)}\ntimeout = {KILLED_AFTER}\n"
        f"test-command = {json.dumps(command)}\n"
        f'[cosmic-ray.distributor]\nname = "local"\n'
        f"[cosmic-ray.filters.operators-filter]\nexclude-operators = {json.dumps(LEFT_OUT)}\n"
    )
    if session.exists() and session.stat().st_mtime < (ROOT / module).stat().st_mtime:
        session.unlink()  # of another text
    if not session.exists():
        cosmic_ray("cosmic-ray", "baseline", str(config))
        cosmic_ray("cosmic-ray", "init", str(config), str(session))
        cosmic_ray("cr-filter-operators", str(session), str(config))
    cosmic_ray("cosmic-ray", "exec", str(config), str(session))
    print(f"==== {module}", flush=True)
    cosmic_ray("cr-report", "--surviving-only", "--show-diff", str(session))


def cosmic_ray(program: str, *arguments: str) -> None:
    # Compiled files are told from stale ones by their second, in which several mistakes may be made.
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PATH": f"{BIN}:{os.environ['PATH']}"}
    subprocess.run([BIN / program, *arguments], cwd=TREE, env=environment, check=True)


def copy_checkout() -> None:
    shutil.rmtree(TREE, ignore_errors=True)
    left_out = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, TREE, ignore=left_out)


if __name__ == "__main__":
    sys.exit(main())

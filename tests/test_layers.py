"""Includes and imports point one way: csrc/include -> csrc/cpu, csrc/cuda -> csrc/bindings -> adafocus_ops ->
adafocus_models; tests and benchmarks use public names."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Folder -> what its files may include or import of this project.
INCLUDES = {
    "csrc/include": {"adafocus"},
    "csrc/cpu": {"adafocus", "cpu"},
    "csrc/cuda": {"adafocus", "cuda"},
    "csrc/bindings": {"adafocus", "cpu", "bindings"},
}
# Tests of what no public function shows.
LOOKS_INSIDE = {"tests/ops/compile_triton.py"}  # compiles the Triton kernels without running them
IMPORTS = {
    "adafocus_ops": {"adafocus_ops"},
    "adafocus_models": {"adafocus_ops", "adafocus_models"},
}


def project_files(folder: str, *suffixes: str) -> list[Path]:
    found = [p for p in (ROOT / folder).rglob("*") if p.suffix in suffixes]
    assert found, f"{folder} is empty"
    return found


@pytest.mark.parametrize("folder", INCLUDES)
def test_includes_point_one_way(folder):
    for path in project_files(folder, ".h", ".cpp", ".cu", ".cuh", ".inl"):
        for line in re.findall(r'#include [<"]([^>"]+)[>"]', path.read_text()):
            if "/" not in line:
                continue  # the standard library
            top = line.split("/")[0]
            allowed = INCLUDES[folder] | ({"torch"} if folder == "csrc/bindings" else set())
            assert top in allowed, f"{path.relative_to(ROOT)} includes {line}"


def imported(path: Path) -> list[tuple[str, str]]:
    """(module, name) of every import in a file, relative ones without their dots."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found += [(node.module, alias.name) for alias in node.names]
    return found


@pytest.mark.parametrize("folder", [*IMPORTS, "tests", "bench"])
def test_imports_point_one_way_and_use_public_names(folder):
    ours = {"adafocus_ops", "adafocus_models", "tests", "bench"}
    for path in project_files(folder, ".py"):
        for module, name in imported(path):
            top, *rest = module.split(".")
            if top not in ours:
                continue
            where = f"{path.relative_to(ROOT)} imports {module} {name}"
            assert top in IMPORTS.get(folder, ours), where
            if top != folder and str(path.relative_to(ROOT)) not in LOOKS_INSIDE:
                private = [part for part in (*rest, name) if part.startswith("_") and not part.startswith("__")]
                assert not private, where


def test_no_folder_is_named_like_a_package_it_uses():
    for package in ("csrc", "adafocus_ops", "adafocus_models"):
        for path in (ROOT / package).rglob("*"):
            assert not (path.is_dir() and path.name in ("torch", "triton", "numpy")), path


def test_kernels_and_core_know_nothing_of_torch():
    for folder in ("csrc/include", "csrc/cpu", "csrc/cuda"):
        for path in project_files(folder, ".h", ".cpp", ".cu", ".cuh", ".inl"):
            assert "torch" not in path.read_text(), path

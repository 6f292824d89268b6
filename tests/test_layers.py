"""Includes and imports point one way: csrc/include -> csrc/cpu, csrc/cuda -> csrc/bindings -> adafocus_ops ->
adafocus_models, and there from room to room; tests and benchmarks use public names; no imports run in a circle, and
none leads to a place that is no more."""

import ast
import re
from graphlib import CycleError, TopologicalSorter
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
# Room of adafocus_models -> the rooms that it leans on. Modules above the rooms lean on all.
ROOMS = {
    "backbones": set(),
    "exits": set(),
    "data": set(),
    "pictures": {"data"},
    "networks": {"backbones", "exits"},
    "engine": {"networks", "exits", "data"},
    "training": {"networks", "exits", "data"},
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


def imported(path: Path, root: Path = ROOT) -> list[tuple[str, str]]:
    """(module, name) of every import in a file, in its functions too; the module with its full name."""
    parts = path.relative_to(root).with_suffix("").parts
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = parts[: -node.level] if node.level else ()
            module = ".".join([*above, *([node.module] if node.module else [])])
            found += [(module, alias.name) for alias in node.names]
    return found


def modules(package: str, root: Path = ROOT) -> dict[str, Path]:
    """Full name -> file of every module of a package, whose own name is that of its __init__.py."""
    paths = (path for path in (root / package).rglob("*.py"))
    return {".".join(p.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): p for p in paths}


def loaded(module: str, name: str, known: dict[str, Path]) -> str:
    """The module that `from module import name` needs."""
    return f"{module}.{name}" if f"{module}.{name}" in known else module


def circle(package: str, root: Path = ROOT) -> list[str]:
    """Modules of a package that import one another in a circle; empty if none do."""
    known = modules(package, root)
    graph = {
        name: {loaded(*what, known) for what in imported(path, root)} & known.keys() for name, path in known.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def defined(path: Path) -> set[str]:
    """Names that a module binds at its top level."""
    names, pending = set(), [ast.parse(path.read_text())]
    while pending:
        for node in ast.iter_child_nodes(pending.pop()):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                names.add(node.name)
                continue
            if isinstance(node, ast.Import | ast.ImportFrom):
                names |= {alias.asname or alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                names.add(node.id)
            pending.append(node)
    return names


def is_there(module: str, name: str, known: dict[str, Path]) -> bool:
    """True if `from module import name`, or `import module` where name is empty, finds what it asks for."""
    if module not in known or not name or name.startswith("__"):
        return module in known
    return loaded(module, name, known) != module or name in defined(known[module])


def lost(path: Path, packages: tuple[str, ...], root: Path = ROOT) -> list[str]:
    """Imports from the packages, in a file, of modules or names that are not there."""
    known = {name: module for package in packages for name, module in modules(package, root).items()}
    ours = [(module, name) for module, name in imported(path, root) if module.split(".")[0] in packages]
    return [f"{path.relative_to(root)} imports {' '.join(what)}" for what in ours if not is_there(*what, known)]


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


@pytest.mark.parametrize("room", ROOMS)
def test_imports_of_a_room_point_down(room):
    known = modules("adafocus_models")
    for path in project_files(f"adafocus_models/{room}", ".py"):
        for module, name in imported(path):
            top, *rest = loaded(module, name, known).split(".")
            if top == "adafocus_models":
                where = f"{path.relative_to(ROOT)} imports {module} {name}"
                assert rest, where
                assert rest[0] in ROOMS[room] | {room}, where


def test_every_folder_of_the_models_is_a_room_of_several_files():
    found = {path for path in (ROOT / "adafocus_models").iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert {path.name for path in found} == set(ROOMS)
    for path in found:
        assert len(list(path.glob("*.py"))) > 2, f"{path.name} needs no room yet: __init__.py and one file"


@pytest.mark.parametrize("package", IMPORTS)
def test_no_circle_of_imports(package):
    assert circle(package) == []


@pytest.mark.parametrize("folder", [*IMPORTS, "tests", "bench", "third_party"])
def test_no_import_of_an_old_place(folder):
    missing = [where for path in project_files(folder, ".py") for where in lost(path, tuple(IMPORTS))]
    assert not missing


def test_no_old_place_in_the_documents():
    known = modules("adafocus_ops") | modules("adafocus_models")
    for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "bench").rglob("*.md")]:
        text = path.read_text()
        imports = re.findall(r"^ *from (adafocus_[\w.]+) import ([\w, ]+)", text, re.MULTILINE)
        named = [(module, name.strip()) for module, names in imports for name in names.split(",")]
        named += [
            (module, "") for module in re.findall(r"(?:^ *import|python -m) (adafocus_[\w.]*\w)", text, re.MULTILINE)
        ]
        missing = [what for what in named if not is_there(*what, known)]
        assert not missing, path.relative_to(ROOT)


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def test_a_circle_is_found_in_functions_and_over_rooms(tmp_path):
    files = {"house/__init__.py": "from .a import f\n", "house/a.py": "def f():\n    from .room import g\n"}
    write(tmp_path, files | {"house/room/__init__.py": "from .b import g\n", "house/room/b.py": "g = 1\n"})
    assert circle("house", tmp_path) == []
    write(tmp_path, {"house/room/b.py": "def g():\n    from ..a import f\n"})
    assert {"house.a", "house.room", "house.room.b"} == set(circle("house", tmp_path))


def test_an_old_place_is_found(tmp_path):
    user = "from house import a, b\nimport house.a\nimport house.c\nfrom house.a import f, g\nfrom house.d import f\n"
    write(tmp_path, {"house/__init__.py": "", "house/a.py": "if True:\n    f = 1\n", "user.py": user})
    missing = [f"user.py imports {what}" for what in ("house b", "house.c ", "house.a g", "house.d f")]
    assert lost(tmp_path / "user.py", ("house",), tmp_path) == missing


def test_no_folder_is_named_like_a_package_it_uses():
    for package in ("csrc", "adafocus_ops", "adafocus_models"):
        for path in (ROOT / package).rglob("*"):
            assert not (path.is_dir() and path.name in ("torch", "triton", "numpy")), path


def test_kernels_and_core_know_nothing_of_torch():
    for folder in ("csrc/include", "csrc/cpu", "csrc/cuda"):
        for path in project_files(folder, ".h", ".cpp", ".cu", ".cuh", ".inl"):
            assert "torch" not in path.read_text(), path

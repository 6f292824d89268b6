"""The rooms of bench/: programs lean on cases and harness, cases on harness, and the harness on neither."""

import ast
import re
from pathlib import Path

import pytest

from adafocus_models import list_models
from adafocus_ops import backends
from bench.harness.environment import ROOT

BENCH = ROOT / "bench"
PROGRAMS, CASES, HARNESS = (sorted(folder.glob("*.py")) for folder in (BENCH, BENCH / "cases", BENCH / "harness"))

# Room -> the rooms of bench/, and the packages of this project, that its files may import.
ALLOWED = {
    "programs": {"bench.cases", "bench.harness", "adafocus_ops", "adafocus_models"},
    "cases": {"bench.cases", "bench.harness", "third_party", "adafocus_ops", "adafocus_models"},
    "harness": {"bench.harness", "adafocus_ops"},
}
ROOMS = {"programs": PROGRAMS, "cases": CASES, "harness": HARNESS}


def imported(path: Path) -> set[str]:
    """Rooms and packages of this project that a file imports."""
    modules = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: imports within bench name the whole way"
            # `from bench import cases` is an import of bench.cases.
            modules += [f"{node.module}.{alias.name}" for alias in node.names]
    found = {".".join(module.split(".")[: 2 if module.startswith("bench.") else 1]) for module in modules}
    own = {"bench", "third_party", "tests", "adafocus_ops", "adafocus_models"}
    own |= {file.stem for file in [*PROGRAMS, *CASES, *HARNESS]} | {"cases", "harness"}
    return {module for module in found if module.split(".")[0] in own}


@pytest.mark.parametrize("room", ROOMS)
def test_imports_point_from_programs_to_cases_to_harness(room):
    assert ROOMS[room]
    for path in ROOMS[room]:
        assert imported(path) <= ALLOWED[room], path.relative_to(ROOT)


@pytest.mark.parametrize("path", HARNESS, ids=lambda path: path.stem)
def test_the_harness_knows_no_op_and_no_model_by_name(path):
    names = [*backends.ops(), *list_models()]
    assert not [name for name in names if re.search(rf"\b{re.escape(name)}\b", path.read_text())]

"""An op that is declared has all that belongs to it; each failure names the file or the record that is missing.

docs/adding.md says what each of them is for.
"""

import inspect
from importlib import import_module
from pathlib import Path

import pytest
from op_specs import SPECS
from raw_calls import raw_calls
from test_cuda_on_host import MUTATIONS
from test_raw_ops import UNSAFE

import adafocus_ops
from adafocus_ops import backends
from adafocus_ops.examples import EXAMPLES
from cuda_on_host.backend import LAUNCHERS

ROOT = Path(__file__).parents[1]

# The files of an op; of several in one line one is enough.
FILES = (
    ("adafocus_ops/_{op}.py",),
    ("adafocus_ops/_reference/{op}.py",),
    ("adafocus_ops/_triton/{op}.py",),
    ("adafocus_ops/examples/{op}.py",),
    ("csrc/include/adafocus/{op}.h",),
    ("csrc/cpu/{op}.inl", "csrc/cpu/{op}.cpp"),
    ("csrc/cuda/{op}.cu",),
    ("csrc/bindings/{op}.cpp",),
    ("tests/cuda_on_host/{op}.cpp",),
    ("tests/ops/test_{op}.py",),
    ("bench/cases/{op}.py",),
)
# Texts that have a line for each op.
TEXTS = ("README.md", "bench/GPU_CHECKS.md")

each_op = pytest.mark.parametrize("op", backends.ops())
each_part = pytest.mark.parametrize(
    ("op", "part"), [(op, part) for op in backends.ops() for part in backends.parts(op)]
)


@each_op
@pytest.mark.parametrize("names", FILES, ids=lambda names: names[0])
def test_files(op, names):
    wanted = [name.format(op=op) for name in names]
    assert any((ROOT / name).exists() for name in wanted), f"{op} lacks {' or '.join(wanted)}"


@each_op
@pytest.mark.parametrize("text", TEXTS)
def test_texts(op, text):
    assert op in (ROOT / text).read_text(), f"{text} has no line for {op}"


@pytest.mark.parametrize("folder", ["csrc/bindings", "tests/cuda_on_host"])
def test_every_op_is_declared(folder):
    """A binding and a launcher of the harness, whose files are named like ops, are of ops that are declared."""
    others = {"banks", "build_info", "cuda_on_host", "fibers", "module", "races", "selftest"}
    for path in (ROOT / folder).glob("*.cpp"):
        if path.stem not in others:
            assert path.stem in backends.ops(), f"{folder}/{path.name} is of no op in adafocus_ops/_raw_ops.py"


@each_op
def test_public_name(op):
    assert op in adafocus_ops.__all__, f"adafocus_ops/__init__.py does not export {op}"


@each_part
def test_functions_take_the_arguments_of_the_schema(op, part):
    names = list(backends.kernel(op, part, "cpu").names)
    for folder in ("_reference", "_triton"):
        if folder == "_triton":
            pytest.importorskip("triton", reason="Triton is not installed")
        module = import_module(f"adafocus_ops.{folder}.{op}")
        where = f"adafocus_ops/{folder}/{op}.py"
        assert hasattr(module, part), f"{where} has no function {part}"
        found = list(inspect.signature(getattr(module, part)).parameters)
        assert found == names, f"{part} in {where} must take {', '.join(names)}, it takes {', '.join(found)}"


@each_op
def test_examples_reach_every_part(op):
    """So that opcheck, the self-check, the harness of the CUDA kernels and the Triton compile cases see it."""
    examples, where = EXAMPLES[op], f"adafocus_ops/examples/{op}.py"
    small = {example.name: example for example in examples.small(examples.dtypes[-1], examples.layouts[0])}
    assert small, f"{where}: small gives no example"
    assert examples.traced, f"{where}: traced names no example"
    for name in examples.traced:
        assert name in small, f"{where}: traced names {name!r}, which is no small example"
    for kind, found in {
        "traced": [small[name] for name in examples.traced],
        "any_size": [examples.any_size(5)],
        "real_size": list(examples.real_size()),
    }.items():
        reached = {call.part for example in found for call in raw_calls(op, example)}
        lacking = set(backends.parts(op)) - reached
        assert not lacking, f"{where}: no example of {kind} reaches {', '.join(lacking)}"


@each_op
def test_traced_examples_show_every_optional_argument(op):
    examples = EXAMPLES[op]
    small = {example.name: example for example in examples.small(examples.dtypes[-1], examples.layouts[0])}
    calls = [call for name in examples.traced for call in raw_calls(op, small[name])]
    for argument in backends.kernel(op, "fwd", "cpu").function._schema.arguments:
        if "Optional" not in str(argument.type):
            continue
        given = {call.arguments[argument.name] is not None for call in calls if call.part == "fwd"}
        assert given == {True, False}, (
            f"adafocus_ops/examples/{op}.py: the traced examples show {argument.name} only"
            f" {'given' if given == {True} else 'left out'}"
        )


@each_op
def test_tolerances(op):
    assert op in [spec.name for spec in SPECS], f"tests/ops/op_specs.py: SPECS has no {op}"


@each_op
def test_launchers(op):
    assert op in LAUNCHERS, f"tests/cuda_on_host/backend.py: LAUNCHERS has no {op}"
    lacking = set(backends.parts(op)) - set(LAUNCHERS[op])
    assert not lacking, f"tests/cuda_on_host/backend.py: LAUNCHERS[{op!r}] lacks {', '.join(lacking)}"


@each_op
def test_unsafe_calls(op):
    assert UNSAFE.get(op), f"tests/ops/test_raw_ops.py: UNSAFE has no calls of {op}"


@each_op
def test_mutations(op):
    mutated = {mutation.op for mutation in MUTATIONS.values()}
    assert op in mutated, f"tests/ops/test_cuda_on_host.py: MUTATIONS has no mistake in {op}"

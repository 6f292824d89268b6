"""bench/gpu.py: what it runs where, and how it reports what went wrong."""

import re
import shlex
import sys
import time
from pathlib import Path

import pytest

from adafocus_ops import backends
from bench import cases, gpu, ops, streaming, throughput, training
from bench.harness import environment, parts


@pytest.fixture(autouse=True)
def logs(monkeypatch, tmp_path):
    monkeypatch.setattr(parts, "LOGS", tmp_path)
    return tmp_path


def says(text: str, code: int = 0) -> list[str]:
    """A command that prints, and exits."""
    return [sys.executable, "-c", f"import sys; print({text!r}); sys.exit({code})"]


def part(*commands: list[str], **options) -> parts.Part:
    return parts.Part("made-up", 1, commands, **options)


def run(monkeypatch, capsys, todo: list[parts.Part], *arguments: str, has_gpu: bool = True) -> tuple[int, str]:
    """The exit code and the table that main ends with."""
    monkeypatch.setattr(gpu, "parts", lambda gpu: todo)
    monkeypatch.setattr(gpu, "DEFAULT_DEVICE", "cuda" if has_gpu else "cpu")
    monkeypatch.setattr(gpu, "device_name", lambda device: "Made-up GPU")
    code = gpu.main(arguments)
    return code, capsys.readouterr().out


def test_a_part_that_fails_does_not_stop_the_next(monkeypatch, capsys):
    todo = [
        parts.Part("first", 1, [says("the reason", 3)]),
        parts.Part("second", 1, [says("=== 5 passed ===\n\n")]),
        parts.Part("third", 1, [], missing="no such tool"),
    ]
    code, output = run(monkeypatch, capsys, todo)
    assert code == 1
    table = output.split("make gpu")[1]
    assert re.search(r"first +failed +\d+ +the reason; see .*first.log", table)
    assert re.search(r"second +passed +\d+ +5 passed *\n", table)
    assert re.search(r"third +not run +0 +no such tool", table)
    assert "the reason" in output.split("make gpu")[0], "the end of the log of what failed"


def test_all_commands_of_a_part_run_and_one_failure_is_enough(logs):
    outcome = parts.run_part(part(says("one", 1), says("two"), says("three")), 30)
    assert outcome.result == "failed"
    assert [word in (logs / "made-up.log").read_text() for word in ("one", "two", "three")] == [True] * 3


def test_a_part_is_killed_at_its_limit_with_what_it_has_started():
    script = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"
    start = time.monotonic()
    outcome = parts.run_part(part([sys.executable, "-c", script], says("never")), 1)
    assert (outcome.result, outcome.bad) == ("timed out", True)
    assert time.monotonic() - start < 20


def test_exit_code_by_which_a_part_says_that_it_cannot_run():
    outcome = parts.run_part(part(says("no report: no tool", 2), cannot=2), 30)
    assert (outcome.result, outcome.note, outcome.bad) == ("not run", "no report: no tool", False)
    assert parts.run_part(part(says("", 2)), 30).result == "failed"


def test_environment_of_a_part(logs):
    command = [sys.executable, "-c", "import os; print(os.environ['SOME_SETTING'])"]
    assert parts.run_part(part(command, env={"SOME_SETTING": "17"}), 30).note == "17"
    assert (logs / "made-up.log").read_text().startswith("$ SOME_SETTING=17 ")


def test_without_a_gpu_zero_must_be_allowed(monkeypatch, capsys):
    good, bad = parts.Part("good", 1, [says("fine")]), parts.Part("bad", 1, [says("no", 1)])
    assert run(monkeypatch, capsys, [good], has_gpu=True)[0] == 0
    assert run(monkeypatch, capsys, [good], has_gpu=False)[0] == 1
    assert run(monkeypatch, capsys, [good], "--allow-no-gpu", has_gpu=False)[0] == 0
    assert run(monkeypatch, capsys, [good, bad], "--allow-no-gpu", has_gpu=False)[0] == 1


def test_parts_share_the_time_that_is_left(monkeypatch, capsys):
    limits = {}

    def run_part(part, limit):
        limits[part.name] = limit
        return parts.Outcome(part.name, "passed", 0, "")

    monkeypatch.setattr(gpu, "run_part", run_part)
    todo = [parts.Part("a", 1, []), parts.Part("b", 3, []), parts.Part("c", 1, [], missing="it is not here")]
    run(monkeypatch, capsys, todo, "--max-seconds", "100")
    assert limits["a"] == pytest.approx(25, abs=1)
    assert limits["b"] == pytest.approx(100, abs=1), "what the first did not need"
    run(monkeypatch, capsys, todo, "--max-seconds", "100", "--parts", "a")
    assert limits["a"] == pytest.approx(100, abs=1)


def test_unknown_part_is_an_error(capsys):
    with pytest.raises(SystemExit):
        gpu.main(["--parts", "build,nothing"])
    assert (
        "there is no nothing; the parts are build, engine, cuda-report, conformance, triton, memcheck"
        in capsys.readouterr().err
    )


def test_what_runs_with_and_without_a_gpu(monkeypatch):
    monkeypatch.setattr(gpu, "find_sanitizer", lambda: "/somewhere/compute-sanitizer")
    with_gpu, without = ({part.name: part for part in gpu.parts(has_gpu)} for has_gpu in (True, False))
    assert [name for name, part in with_gpu.items() if part.missing] == []
    assert [name for name, part in without.items() if part.missing] == [
        *("engine", *gpu.SANITIZER_CHECKS, "ops", "throughput", "streaming", "training")
    ]
    for part, backend in {"conformance": "cuda", "triton": "triton"}.items():
        assert f"--require-backend={backend}" in with_gpu[part].commands[0]
    assert with_gpu["build"].env == {"ADAFOCUS_CUDA": "1"}
    for check in gpu.SANITIZER_CHECKS:
        plain, any_call = with_gpu[check].commands
        assert plain[:3] == ["/somewhere/compute-sanitizer", "--tool", check]
        assert any_call == ["env", "ADAFOCUS_CUDA_KERNEL=any", *plain]
        assert "--require-backend=cuda" in plain  # else a run that skips everything would pass
    monkeypatch.setattr(gpu, "find_sanitizer", lambda: None)
    reasons = [part.missing for part in gpu.parts(gpu=True) if part.name in gpu.SANITIZER_CHECKS]
    assert len(reasons) == 4
    assert all("not installed" in reason for reason in reasons)


def test_sanitized_tests_are_of_every_op():
    """The expression selects all ops, whose parts the test runs each of, and nothing but the CUDA kernels."""
    command = [*gpu.PYTEST, "tests/ops/test_raw_ops.py", "--collect-only", "-k", gpu.SANITIZED]
    outcome = parts.run_part(part(command), 120)
    assert outcome.result == "passed", outcome
    names = re.findall(r"::test_(\S+)\[(\w+-\w+)-", (parts.LOGS / "made-up.log").read_text())
    assert {test for test, _ in names} == {"results_lie_as_the_fake_kernel_says"}
    assert {found for _, found in names} == {f"cuda-{op}" for op in backends.ops()}


def test_commands_of_the_open_checks_exist():
    commands = re.findall(r"`python (bench/\w+\.py[^`]*)`", (environment.ROOT / "bench" / "GPU_CHECKS.md").read_text())
    assert len(commands) >= 10
    scripts = {
        "ops": ops.parse,
        "gpu": gpu.parse,
        "streaming": streaming.parse,
        "training": training.parse,
        "throughput": lambda arguments: throughput.parse([*arguments, "--synthetic"]),  # the clip may be missing
    }
    for command in commands:
        path, *arguments = shlex.split(command)
        args = scripts[Path(path).stem](arguments)
        if "--cases" in arguments:
            assert [case for case in cases.CASES if args.cases in case.name], command

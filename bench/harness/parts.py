"""Parts of a long run: commands with a share of the time, a log each, and a line on how it went."""

import contextlib
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from bench.harness.console import progress
from bench.harness.environment import ROOT

LOGS = ROOT / "build" / "gpu"


@dataclass(frozen=True)
class Part:
    """Commands that are reported as one line."""

    name: str
    share: int  # of the time that is left, in proportion to the other parts' shares
    commands: Sequence[Sequence[str]]
    env: Mapping[str, str] = field(default_factory=dict)
    missing: str | None = None  # the reason why it cannot run here
    cannot: int | None = None  # exit code by which a command says that it cannot run here


@dataclass(frozen=True)
class Outcome:
    """The result of a part."""

    part: str
    result: str  # "passed", "failed", "timed out" or "not run"
    seconds: float
    note: str

    @property
    def bad(self) -> bool:
        """True if something is wrong, rather than absent."""
        return self.result in ("failed", "timed out")


def run_part(part: Part, limit: float) -> Outcome:
    """Runs the commands of a part, all of them even if one fails, for at most `limit` seconds together."""
    if part.missing:
        return Outcome(part.name, "not run", 0, part.missing)
    start = time.monotonic()
    LOGS.mkdir(parents=True, exist_ok=True)
    path = log_of(part)
    with path.open("w") as log, progress(part.name, math.ceil(limit)) as second:
        codes = [run_command(command, part.env, log, start + limit, second) for command in part.commands]
    if None in codes:
        result, note = "timed out", f"after {limit:.0f} s; see {shown(path)}"
    elif part.cannot is not None and part.cannot in codes:
        result, note = "not run", last_line(path)
    elif any(codes):
        result, note = "failed", f"{last_line(path)}; see {shown(path)}"
    else:
        result, note = "passed", last_line(path)
    return Outcome(part.name, result, time.monotonic() - start, note)


def run_command(
    command: Sequence[str], env: Mapping[str, str], log: IO[str], deadline: float, second: Callable[[], None]
) -> int | None:
    """The exit code of a command, or None if it was not done by the deadline and was killed."""
    log.write(f"$ {' '.join(f'{name}={value}' for name, value in env.items())} {' '.join(command)}\n")
    log.flush()
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"  # ninja lies beside python
    process = subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, "PATH": path, **env}, stdout=log, stderr=log, start_new_session=True
    )
    try:
        while (left := deadline - time.monotonic()) > 0:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(min(left, 1))
            second()
        return None
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)  # what it has started, too
            process.wait()


def log_of(part: Part) -> Path:
    """The file with what the commands of a part print."""
    return LOGS / f"{part.name}.log"


def last_line(path: Path) -> str:
    """The last line of a log that says something."""
    lines = [line.strip("= ") for line in path.read_text(errors="replace").splitlines()]
    return next((line for line in reversed(lines) if line), "no output")


def shown(path: Path) -> str:
    """A path within the repository, as one would type it there."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)

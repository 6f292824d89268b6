"""All that a machine with a GPU can prove, in one command: python bench/gpu.py

Builds the extension, reports on its kernels, runs the conformance suite on every backend and a part of it under
compute-sanitizer, then times the ops, the models and streams of videos. A part that fails does not stop the next
ones. What each prints goes to build/gpu/PART.log, records go to bench/results. Without a GPU, the parts that need none
run.
"""

import argparse
import contextlib
import os
import shutil
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import torch

sys.path.append(str(Path(__file__).resolve().parents[1]))  # where `bench` and the library are

from bench.harness.clip import sample_clip
from bench.harness.console import print_table, run_program
from bench.harness.environment import DEFAULT_DEVICE, ROOT, device_name
from bench.harness.parts import LOGS, Part, log_of, run_part

TAIL = 30  # lines of a log that are shown when its part fails

PYTEST = [sys.executable, "-m", "pytest", "-q"]
NO_GPU = "there is no GPU that torch can use"


def parts(gpu: bool) -> list[Part]:
    """All parts, in their order."""
    python, bench = sys.executable, str(ROOT / "bench")
    timing = None if gpu else f"{NO_GPU}, and it is what would be timed"
    return [
        Part(
            "build",
            30,
            [[python, "setup.py", "build_ext", "--inplace"]],
            env={"ADAFOCUS_CUDA": "1"} if gpu else {},
        ),
        Part(
            "engine",
            60,
            [[python, f"{bench}/throughput.py", *ENGINES, *names, *clip_options()] for names in SIDE_BY_SIDE],
            missing=timing,
        ),
        Part("cuda-report", 5, [[python, f"{bench}/cuda_report.py", f"--json={LOGS}/cuda-report.json"]], cannot=2),
        *conformance(gpu),
        *sanitizers(gpu),
        Part("ops", 20, [[python, f"{bench}/ops.py"], [python, f"{bench}/ops.py", "--scaling"]], missing=timing),
        Part(
            "throughput", 15, [[python, f"{bench}/throughput.py", "--max-seconds=60", *clip_options()]], missing=timing
        ),
        Part("streaming", 15, [[python, f"{bench}/streaming.py", *STREAMS, *clip_options()]], missing=timing),
        Part("training", 5, [[python, f"{bench}/training.py", *clip_options()]], missing=timing),
    ]


# The paper's ratio as its code runs it, and beside what we make of it what a user would pick, which takes minutes to
# prepare.
ENGINES = ["--max-seconds=30", "--configs", "tsm_plus_8+8", "uni_adafocus_tsm_96_8+8", "uni_adafocus_tsm_128_8+16"]
ENGINES += ["--engine"]
SIDE_BY_SIDE = (["published", "eager", "engine"], ["engine", "compile"])


# Early exits online, at the batch of the paper's throughput.
STREAMS = ["--dtype=float16", "--videos=1024", "--runs=3"]


def conformance(gpu: bool) -> list[Part]:
    """The suite of the ops: the CUDA kernels first, which are done in a minute, then Triton's, which each process of
    the test run compiles its share of."""
    tests = [*PYTEST, "tests/ops", "--numprocesses=auto", "--dist=worksteal"]
    if not gpu:
        return [Part("conformance", 30, [[*tests, "--require-backend=cpu"]])]
    # The harness that runs the CUDA kernels on the host is slow, and proves nothing beside a GPU.
    others = [*tests, "--require-backend=cuda", "-k", "not triton and not cuda-host"]
    return [
        Part("conformance", 15, [others]),
        Part("triton", 20, [[*tests, "--require-backend=triton", "-k", "triton"]]),
    ]


def sanitizers(gpu: bool) -> list[Part]:
    """Every part of every op on small examples, by the kernels that are chosen for these and by those that take any
    call, watched by one tool after the other."""
    tool = find_sanitizer()
    missing = NO_GPU if not gpu else None if tool else "compute-sanitizer is not installed (CUDA toolkit)"
    tests = [*PYTEST, "tests/ops/test_raw_ops.py", "--require-backend=cuda", "-k", SANITIZED]
    # Of torch's own kernels, with which the tests prepare and compare, nothing is to be learned.
    ours = ["--kernel-name", "kns=adafocus", "--error-exitcode", "1"]
    # Without torch's own caching, every tensor ends where its memory ends.
    env = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    return [
        Part(
            check,
            6,
            [
                [*choice, tool or "", "--tool", check, *ours, *tests]
                for choice in ([], ["env", "ADAFOCUS_CUDA_KERNEL=any"])
            ],
            env=env,
            missing=missing,
        )
        for check in SANITIZER_CHECKS
    ]


SANITIZER_CHECKS = ("memcheck", "racecheck", "initcheck", "synccheck")
SANITIZED = "results_lie and contiguous and cuda and not host"


def find_sanitizer() -> str | None:
    """compute-sanitizer on PATH, or in the toolkit of CUDA_HOME."""
    folders = [os.environ.get("PATH", ""), f"{os.environ.get('CUDA_HOME', '/usr/local/cuda')}/bin"]
    return shutil.which("compute-sanitizer", path=os.pathsep.join(folders))


def clip_options() -> list[str]:
    """throughput.py needs a clip and something that decodes it, else random frames."""
    with contextlib.suppress(FileNotFoundError):
        sample_clip()
        if find_spec("av"):
            return []
    return ["--synthetic"]


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    names = [part.name for part in parts(gpu=True)]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", help=f"only these, with commas between them, of {', '.join(names)}")
    parser.add_argument(
        "--max-seconds",
        type=float,
        default=600 if DEFAULT_DEVICE == "cuda" else 3600,
        help="time for all parts together (default: 600, or 3600 without a GPU, where its kernels run on the host)",
    )
    parser.add_argument("--allow-no-gpu", action="store_true", help="without a GPU, exit with 0 if nothing failed")
    args = parser.parse_args(arguments)
    args.parts = args.parts.split(",") if args.parts else names
    unknown = [name for name in args.parts if name not in names]
    if unknown:
        parser.error(f"--parts: there is no {', '.join(unknown)}; the parts are {', '.join(names)}")
    return args


def main(arguments: Sequence[str] | None = None) -> int:
    args = parse(arguments)
    gpu = DEFAULT_DEVICE == "cuda"
    chosen = [part for part in parts(gpu) if part.name in args.parts]
    print(f"GPU: {device_name(torch.device('cuda'))}" if gpu else NO_GPU)
    end = time.monotonic() + args.max_seconds
    outcomes = []
    for number, part in enumerate(chosen, 1):
        shares = sum(other.share for other in chosen[number - 1 :] if not other.missing)
        limit = 0 if part.missing else (end - time.monotonic()) * part.share / shares
        print(f"[{number}/{len(chosen)}] {part.name}{f', {limit:.0f} s at most' if limit else ''}", flush=True)
        outcome = run_part(part, limit)
        if outcome.bad:
            tail = log_of(part).read_text(errors="replace").splitlines()[-TAIL:]
            print("\n".join(tail))
        print(f"      {outcome.result} in {outcome.seconds:.0f} s: {outcome.note}", flush=True)
        outcomes.append(outcome)
    lines = [[each.part, each.result, f"{each.seconds:.0f}", each.note] for each in outcomes]
    print_table("make gpu", ["part", "result", "seconds", "note"], lines, text=["result", "note"])
    if any(outcome.bad for outcome in outcomes):
        return 1
    if not gpu and not args.allow_no_gpu:
        print(f"{NO_GPU}; --allow-no-gpu accepts that", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(run_program(main))

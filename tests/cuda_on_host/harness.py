"""Calls functions of a compiled module in a worker process, where the sanitizers may end it."""

import contextlib
import functools
import itertools
import os
import pickle
import select
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import build
from .worker import CHOICE

TIMEOUT = 600  # seconds for one call
OPTIONS = {
    "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0:print_legend=0:malloc_context_size=2",
    "UBSAN_OPTIONS": "print_stacktrace=1",
}
LINE = 180  # what is kept of a report's lines, which have the names of templates in full

_recordings: list[list[str]] = []  # of the `launches` that are open


class Conflicts(NamedTuple):
    """What the accesses to shared memory in a line of a kernel cost.

    Args:
        instructions: those of a warp together.
        transactions: what served them.
        ideal: what would have if no two lanes had met in a bank.
    """

    instructions: int
    transactions: int
    ideal: int

    @property
    def ratio(self) -> float:
        return self.transactions / self.ideal


_tables: list[dict[str, Conflicts]] = []  # of the `bank_conflicts` that are open


class KernelError(RuntimeError):
    """What the harness or a sanitizer found in a kernel."""


def first_seed() -> int:
    """The seed of a harness's first call; each further one counts on from it. Errors give the seed of their call."""
    return int(os.environ.get("ADAFOCUS_CUDA_HOST_SEED", "0"))


@contextlib.contextmanager
def launches() -> Iterator[list[str]]:
    """The names of the kernels that are launched within, in their order, with their template arguments."""
    names: list[str] = []
    _recordings.append(names)
    try:
        yield names
    finally:
        _recordings.pop()


@contextlib.contextmanager
def bank_conflicts() -> Iterator[dict[str, Conflicts]]:
    """The bank conflicts of the calls within, by "file:line", the file from this checkout's root on. Harnesses of the
    mode "races" count them; banks.cpp says what is approximated."""
    table: dict[str, Conflicts] = {}
    _tables.append(table)
    try:
        yield table
    finally:
        _tables.pop()


class Harness:
    """The functions of an op's module, in a worker process that is started when needed.

    Args:
        op, edits, mode: as for build.module, which is called at the first use.
    """

    def __init__(self, op: str, edits: Mapping[Path, str] | None = None, mode: str = "sanitized"):
        self.op, self.edits, self.mode = op, edits or {}, mode
        self.seeds: Iterator[int] = itertools.count(first_seed())
        self._worker: subprocess.Popen | None = None
        self._lock = threading.Lock()

    def call(self, function: str, out: Tensor | tuple[Tensor, ...], *arguments: Any) -> None:
        """Calls a function that writes into `out`, one tensor or several; tensors are sent as arrays.

        ADAFOCUS_CUDA_KERNEL chooses the kernels as it does on a GPU, by its value in this process at the call.

        Raises:
            KernelError: the launch failed, or wrote into an argument, or the process ended, or the detector found a
                race; with the message or the sanitizer's report.
        """
        outs = (out,) if isinstance(out, Tensor) else out
        packed = [_pack(value) for value in (*outs, *arguments)]
        request = (next(self.seeds), os.environ.get(CHOICE), bool(_tables), function, packed)
        with self._lock:
            error, arrays, names, races, conflicts = self._exchange(request)
        for recording in _recordings:
            recording += names
        for table, (line, *counts) in itertools.product(_tables, conflicts):
            line = shortened(line)
            table[line] = Conflicts(*map(sum, zip(table.get(line, (0, 0, 0)), counts, strict=True)))
        what = f"{function} with seed {request[0]}"
        if error or races:
            raise KernelError(f"{what}: {error or shortened(races[0])}")
        sent = [value[BYTES] for value in packed if isinstance(value, tuple)]
        if arrays[len(outs) :] != sent[len(outs) :]:
            raise KernelError(f"{what}: it wrote into an argument")
        for tensor, data in zip(outs, arrays[: len(outs)], strict=True):
            if data:
                memory(tensor).copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))

    def close(self) -> None:
        if self._worker:
            self._worker.kill()
            self._worker.communicate()
            self._worker = None

    def _exchange(self, request: tuple) -> tuple:
        worker = self._start()
        with contextlib.suppress(BrokenPipeError):
            pickle.dump(request, worker.stdin)
            worker.stdin.flush()
        if not select.select([worker.stdout], [], [], TIMEOUT)[0]:
            self.close()
            return f"no answer within {TIMEOUT} seconds", [], [], [], []
        try:
            return pickle.load(worker.stdout)
        except EOFError:
            worker.wait()
            self._report.seek(0)
            report = shortened(self._report.read())
            self.close()
            return f"the process ended with {worker.returncode}\n{report}", [], [], [], []

    @functools.cached_property
    def _module(self) -> Path | RuntimeError:
        """The module, or why it could not be compiled: that, too, is found out once."""
        try:
            return build.module(self.op, self.edits, self.mode)
        except RuntimeError as error:
            return error

    def _start(self) -> subprocess.Popen:
        if isinstance(self._module, RuntimeError):
            raise self._module
        if self._worker is None:
            self._report = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 (it lives with the worker)
            preload = " ".join(str(build.runtime(name)) for name in ("libasan.so", "libstdc++.so.6"))
            self._worker = subprocess.Popen(
                [sys.executable, str(build.HERE / "worker.py"), str(self._module)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._report,
                env=os.environ | OPTIONS | {"LD_PRELOAD": preload},
            )
        return self._worker


def shortened(report: str) -> str:
    """The beginnings of a report's lines, with paths from this checkout's root on: however long its own is."""
    return "\n".join(line.replace(f"{build.ROOT}/", "")[:LINE] for line in report.splitlines())


def memory(tensor: Tensor) -> Tensor:
    """The bytes that a tensor's strides span, [bytes] uint8, a view."""
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    flat = tensor.detach().as_strided((last + 1 if tensor.numel() else 0,), (1,))
    return flat.view(torch.uint8)


BYTES = 3  # of what stands for an array


def _pack(value: Any) -> Any:
    """What the worker makes the arguments of Array from."""
    if not isinstance(value, Tensor):
        return value
    dtype = str(value.dtype).removeprefix("torch.")
    data = memory(value).numpy().tobytes()
    return dtype, tuple(value.shape), value.stride(), data, value.data_ptr() % 16

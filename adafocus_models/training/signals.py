"""Signals that ask a run to end, noted until it is at a place where it can."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def noted_signals() -> Iterator[Callable[[], bool]]:
    """Within the block Ctrl-C and SIGTERM are noted, once; it yields whether one was."""
    noted: list[int] = []
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.getsignal(number)

            def note(number: int, frame: object) -> None:
                noted.append(number)
                signal.signal(number, before[number])  # a second one ends it at once

            signal.signal(number, note)
    try:
        yield lambda: bool(noted)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def leave_interrupts_to_the_run(_worker: int) -> None:
    """In a process that reads clips: Ctrl-C on a terminal reaches it too, and the run needs it until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

"""Ctrl-C and SIGTERM: save, say how to go on, and exit with the code that the signal has in a shell."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from lightning.pytorch.plugins.environments import SLURMEnvironment


class Interrupts:
    """Turns the first SIGINT or SIGTERM into a request to stop, which `Checkpoints` honours after the step in hand.

    A second one ends the process at once. Lightning's `should_stop` is not used: a resumed run would skip the rest of
    the epoch. Under SLURM's auto-requeue Lightning's own handlers stay.
    """

    def __init__(self) -> None:
        self.received: int = 0
        self._before: dict[int, Any] = {}

    def install(self) -> None:
        """Take over both signals, until `remove`."""
        self._before = _handle(self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self.received = number

    def leave(self) -> None:
        """Exit with 128 + the number of the signal (130 for Ctrl-C, 143 for SIGTERM), if one was received."""
        if self.received:
            raise SystemExit(128 + self.received)

    def remove(self) -> None:
        """Give both signals back to whoever had them before."""
        _give_back(self._before)
        self._before = {}


@contextmanager
def leaving_at_once() -> Iterator[None]:
    """Before and after the training itself there is nothing to save: either signal ends the program, with its code.

    Without this, Lightning would evaluate to the end after a SIGTERM, and turn a Ctrl-C into exit code 1.
    """

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = _handle(leave)
    try:
        yield
    finally:
        _give_back(before)


def _handle(handler: Callable[[int, FrameType | None], None]) -> dict[int, Any]:
    """Let `handler` have both signals, where it can: in the main thread (Python allows it nowhere else), and not under
    SLURM's requeueing. Returns who had them before."""
    requeue = SLURMEnvironment.detect() and SLURMEnvironment().auto_requeue
    if requeue or threading.current_thread() is not threading.main_thread():
        return {}
    return {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}


def _give_back(before: dict[int, Any]) -> None:
    for number, handler in before.items():
        signal.signal(number, handler)

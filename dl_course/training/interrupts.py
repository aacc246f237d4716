"""Ctrl-C and SIGTERM: save, say how to go on, and exit with the code that the signal has in a shell."""

from __future__ import annotations

import os
import signal
import threading
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
        """Take over both signals (in the main thread: Python allows it nowhere else), until `remove`."""
        requeue = SLURMEnvironment.detect() and SLURMEnvironment().auto_requeue
        if threading.current_thread() is threading.main_thread() and not requeue:
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)

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
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

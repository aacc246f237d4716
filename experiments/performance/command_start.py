"""How long one waits for `dl-course --help` and `dl-course list`, from a fresh process each time.

    python -m experiments.performance.command_start

Wall seconds, because a person waits for them. That torch is not imported is checked in a process of its own.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

from experiments.performance.timing import Arm, Row, interleaved, main

WITHOUT_TORCH = """
import sys
from dl_course.cli import main
code = main(sys.argv[1:])
heavy = {"torch", "torchvision", "lightning"} & sys.modules.keys()
sys.exit(code or (f"imported {heavy}" if heavy else 0))
"""


def command_arm(*words: str) -> Arm:
    """Timed: `python -m dl_course <words>` from start to exit. Checked: it succeeds, and without importing torch."""

    def arm() -> Iterator[object]:
        yield
        done = subprocess.run([sys.executable, "-m", "dl_course", *words], capture_output=True, text=True)
        yield
        assert done.returncode == 0, done.stderr
        assert done.stdout, f"{words} printed nothing"
        subprocess.run([sys.executable, "-c", WITHOUT_TORCH, *words], capture_output=True, text=True, check=True)

    return arm


def measure(rounds: int = 7, quick: bool = False) -> list[Row]:
    """Two rows: `--help` and `list`, in seconds; `quick` changes nothing."""
    arms = {"dl-course --help": command_arm("--help"), "dl-course list": command_arm("list")}
    times = interleaved(arms, rounds, clock=time.perf_counter)
    return [
        Row(what=f"`{name}`, torch not imported", ours=taken, bar=0.5, kind="seconds") for name, taken in times.items()
    ]


if __name__ == "__main__":
    main(measure)

"""What every benchmark shares: measuring arms in turns, and the row of the table that comes of it."""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Literal

Arm = Callable[[], Iterator[object]]


class Skipped(Exception):
    """A benchmark cannot be run here; the message says why."""


@dataclass(frozen=True)
class Times:
    """The seconds that one arm took, round by round."""

    name: str
    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def per(self, count: int) -> Times:
        """The same per step (or image), where one round had `count` of them."""
        return Times(self.name, tuple(value / count for value in self.seconds))

    def __str__(self) -> str:
        """Minimum, median and maximum, in one unit."""
        factor, unit = next(
            (f, u) for f, u, least in ((1, "s", 1), (1e3, "ms", 1e-3), (1e6, "µs", 0)) if self.median >= least
        )
        values = (min(self.seconds), self.median, max(self.seconds))
        return " / ".join(f"{value * factor:.3g}" for value in values) + f" {unit}"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table: what was measured, and whether it meets its bar.

    kind "at most": ours over the reference must not exceed the bar. "times faster": the reference over ours must reach
    it. "seconds": ours alone must not exceed it. A ratio is taken within each round; their median is compared.
    """

    what: str
    bar: float
    kind: Literal["at most", "times faster", "seconds"] = "at most"
    ours: Times | None = None
    reference: Times | None = None
    skipped: str = ""  # the reason, where nothing was measured

    @property
    def values(self) -> tuple[float, ...]:
        """What is compared with the bar, round by round."""
        if self.ours is None:
            return ()
        if self.reference is None:
            return self.ours.seconds
        pairs = zip(self.ours.seconds, self.reference.seconds, strict=True)
        return tuple(b / a if self.kind == "times faster" else a / b for a, b in pairs)

    @property
    def value(self) -> float:
        """The median of `values`."""
        return statistics.median(self.values)

    @property
    def met(self) -> bool:
        return self.value >= self.bar if self.kind == "times faster" else self.value <= self.bar

    def cells(self) -> list[str]:
        """The columns of HEADER as text."""
        unit = " s" if self.kind == "seconds" else "×"
        bar = f"{'≥' if self.kind == 'times faster' else '≤'} {self.bar:g}{unit}"
        if self.skipped:
            return [self.what, f"skipped: {self.skipped}", "", "", bar, ""]
        ours, reference = (f"{times.name}: {times}" if times else "" for times in (self.ours, self.reference))
        ratio = f"{self.value:.3g}{unit}"
        if self.reference is not None:
            ratio += f" ({min(self.values):.3g} to {max(self.values):.3g})"
        return [self.what, ours, reference, ratio, bar, "yes" if self.met else "no"]


HEADER = ("what", "ours: min / median / max", "reference: min / median / max", "ratio (min to max)", "bar", "met")


def interleaved(
    arms: Mapping[str, Arm],
    rounds: int,
    *,
    warm_up: bool = True,
    clock: Callable[[], float] = time.process_time,
) -> dict[str, Times]:
    """Measure the arms in turns, each once a round, so that whatever slows the machine slows them alike.

    An arm is a generator function that yields twice: what it does between its two yields is timed; before lies the
    preparation, after it the check that something was achieved. The order rotates from round to round; a first round is
    thrown away. The default clock counts CPU seconds of this process, all its threads: other programs hardly disturb
    them. Arms that wait or start processes need `time.perf_counter`.
    """
    names = list(arms)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds + warm_up):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            steps = arms[name]()
            next(steps)
            gc.collect()  # no arm pays for what the one before it left behind
            begin = clock()
            next(steps)
            taken = clock() - begin
            for _ in steps:
                raise RuntimeError(f"the arm '{name}' yields more than twice")
            if turn >= warm_up:
                seconds[name].append(taken)
    return {name: Times(name, tuple(values)) for name, values in seconds.items()}


def show(rows: Sequence[Row]) -> None:
    """Print the rows, a few lines each."""
    for row in rows:
        what, *others = row.cells()
        print(what)
        for name, cell in zip(HEADER[1:], others):
            if cell:
                print(f"  {name.split(':')[0]:<22} {cell}")
        print(flush=True)


def measure(name: str, rounds: int, quick: bool) -> list[Row]:
    """The rows of the benchmark of that name."""
    return import_module(f"experiments.performance.{name}").measure(rounds, quick)


def main(measure: Callable[[int, bool], list[Row]], rounds: int = 7) -> None:
    """A benchmark as a script: [--rounds N] [--quick]."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=rounds, help="measurements of each arm")
    parser.add_argument("--quick", action="store_true", help="small: shows that it works, measures nothing")
    options = parser.parse_args()
    show(measure(options.rounds, options.quick))

"""python -m experiments.performance [names …] [--rounds N] [--quick] [--record]"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: one thread, in every arm

import argparse
import multiprocessing
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

from dl_course.errors import ConfigError, suggest
from experiments.performance import table
from experiments.performance.timing import Row, measure, show

BENCHMARKS = ("mlp_epoch", "tiny_step", "linear_regression", "image_loader", "command_start")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code: 0 if everything ran (a missed bar is a result), 2 for an unknown name."""
    parser = argparse.ArgumentParser("python -m experiments.performance", description="Run the benchmarks in turn.")
    parser.add_argument("names", nargs="*", help=f"of {', '.join(BENCHMARKS)}; none means all")
    parser.add_argument("--rounds", type=int, default=7, help="measurements of each arm (default 7)")
    parser.add_argument("--quick", action="store_true", help="small: shows that they work, measures nothing")
    parser.add_argument("--record", action="store_true", help="write results/performance/*.json and the table")
    options = parser.parse_args(arguments)
    if options.quick and options.record:
        parser.error("--quick measures nothing to record")
    try:
        for name in _chosen(options.names):
            rows = _apart(name, options.rounds, options.quick)
            show(rows)
            if options.record:
                table.record(name, rows)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    if options.record:
        print(f"wrote {os.path.relpath(table.write())}")
    return 0


def _chosen(names: Sequence[str]) -> list[str]:
    for name in names:
        if name not in BENCHMARKS:
            raise ConfigError(f"no benchmark is called '{name}'{suggest(name, BENCHMARKS)}: {', '.join(BENCHMARKS)}")
    return [name for name in BENCHMARKS if name in names or not names]


def _apart(name: str, rounds: int, quick: bool) -> list[Row]:
    """One benchmark in a process of its own: what another imported or left in memory does not matter."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(measure, name, rounds, quick).result()


if __name__ == "__main__":
    sys.exit(main())

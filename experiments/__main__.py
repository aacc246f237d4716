"""python -m experiments [names …] [--quick] [--record] [--list] [--jobs N]

Names are studies (car-price), rooms (regression) or ids (regression/car-price); none means all.
Exit code 0 only if every study ran, its verdict is the recorded one, and its control flips it; 1 if not; 2 for a name
that does not exist.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy and torch: one thread a study, studies side by side

import argparse
import multiprocessing
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from dl_course.errors import CourseError
from experiments import ledger
from experiments.runner import Outcome, recorded, run
from experiments.study import HOME, load, select


def main(arguments: Sequence[str] | None = None, home: Path = HOME) -> int:
    """The command; returns its exit code. `home` holds the rooms."""
    parser = argparse.ArgumentParser("python -m experiments", description="Run the executable claims and judge them.")
    parser.add_argument("names", nargs="*", help="studies, rooms or ids; none means all")
    parser.add_argument("--quick", action="store_true", help="small versions, seconds each; records nothing")
    parser.add_argument("--record", action="store_true", help="write verdicts, figures and the ledger to commit")
    parser.add_argument("--list", action="store_true", help="show the claims and their recorded verdicts")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="studies at a time, one process each")
    options = parser.parse_args(arguments)
    try:
        if options.quick and options.record:
            parser.error("--quick measures too little to record")
        if options.jobs < 1:
            parser.error(f"--jobs {options.jobs}: expected 1 or more")
        chosen = select(options.names, home)
        if options.list:
            return _list(chosen)
        outcomes = []
        for outcome in _run_all(chosen, options):
            print(outcome.report, flush=True)
            outcomes.append(outcome)
        if options.record:
            ledger.write(home)
        return _conclude(outcomes)
    except CourseError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _run_all(chosen: dict[str, Path], options: argparse.Namespace) -> Iterator[Outcome]:
    flags = {"quick": options.quick, "record": options.record, "color": sys.stdout.isatty()}
    if options.jobs == 1:
        yield from (run(id, path, **flags) for id, path in chosen.items())
        return
    with ThreadPoolExecutor(options.jobs) as pool:
        yield from pool.map(lambda id: _run_apart(id, chosen[id], flags), chosen)


def _run_apart(id: str, path: Path, flags: dict[str, bool]) -> Outcome:
    """One study in a process of its own, so that even one that kills its process stops no other."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        try:
            return process.submit(run, id, path, **flags).result()
        except Exception as error:
            problem = f"{id} lost its process: {type(error).__name__}: {error}"
            return Outcome(id, problems=[problem], report=f"\n{id}\nPROBLEM  {problem}")


def _list(chosen: dict[str, Path]) -> int:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("study", "claim", "recorded verdict"):
        table.add_column(column, overflow="fold")
    for id, path in chosen.items():
        record = recorded(path)
        table.add_row(id, _claim(id, path), record["verdict"] if record else "none yet")
    Console().print(table)
    return 0


def _claim(id: str, path: Path) -> str:
    try:
        return load(id, path).claim
    except Exception as error:
        return f"cannot be loaded: {type(error).__name__}: {error}"


def _conclude(outcomes: list[Outcome]) -> int:
    problems = [problem for outcome in outcomes for problem in outcome.problems]
    verdicts = [outcome.verdict or "crashed" for outcome in outcomes]
    counts = ", ".join(f"{verdicts.count(v)} {v}" for v in ("supported", "not supported", "crashed") if v in verdicts)
    print(f"{len(outcomes)} studies in {sum(o.seconds for o in outcomes):.0f} s: {counts}; {len(problems)} problems")
    for problem in problems:
        print(f"  {problem}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())

"""Runs one study, measures its control the same way, judges both, prints and writes what came out."""

from __future__ import annotations

import io
import json
import os
import platform
import random
import time
import traceback
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from experiments.study import Numbers, Study, load, numbers

SUPPORTED, NOT_SUPPORTED = "supported", "not supported"
PACKAGES = ("torch", "numpy", "scikit-learn", "lightning")


@dataclass
class Outcome:
    """What one run showed: its verdict (None where it crashed), the printed report, and all that is wrong with it."""

    id: str
    verdict: str | None = None
    problems: list[str] = field(default_factory=list)
    report: str = ""
    seconds: float = 0.0


def results_of(path: Path, suffix: str) -> Path:
    """Where the record of the study in `path` is committed: results/<room>/<claim>.json or .png beside the rooms."""
    return path.parent.parent / "results" / path.parent.name / f"{path.stem}{suffix}"


def recorded(path: Path) -> dict[str, Any] | None:
    """The committed record of the study in `path`, None where there is none yet."""
    file = results_of(path, ".json")
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def run(id: str, path: Path, *, quick: bool = False, record: bool = False, color: bool = False) -> Outcome:
    """Run the study `id` in `path`; never raises what the study raises.

    Writes figure.png and result.json to runs/studies/<room>/<claim>/ beside the house; with `record` also to results/,
    unless the control did not flip the verdict: such a study shows nothing.
    """
    outcome = Outcome(id)
    console = Console(file=io.StringIO(), width=100, force_terminal=color, highlight=False)
    start = time.perf_counter()
    try:
        study = load(id, path)
        _run(study, path, outcome, console, quick=quick, record=record)
    except Exception as error:
        outcome.verdict = None
        outcome.problems.append(f"{id} crashed: {type(error).__name__}: {error}")
        console.print(Text.assemble("\n", (id, "bold"), "\n", (traceback.format_exc(limit=-4), "dim")))
    outcome.seconds = time.perf_counter() - start
    for problem in outcome.problems:
        console.print(Text(f"PROBLEM  {problem}", style="bold red"))
    outcome.report = console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]
    return outcome


def _run(study: Study, path: Path, outcome: Outcome, console: Console, *, quick: bool, record: bool) -> None:
    start = time.perf_counter()
    measured = _measure(study, quick, {})
    found = numbers(measured)
    outcome.verdict = verdict = _verdict(study, found)
    control_found = numbers(_measure(study, quick, dict(study.control)))
    control = _verdict(study, control_found)
    seconds = round(time.perf_counter() - start, 1)

    old = recorded(path)
    flips = control != verdict
    if not flips:
        outcome.problems.append(f"the control of {study.id} does not flip the verdict: both are '{verdict}'")
    if not record and old is None:
        outcome.problems.append(f"{study.id} has no recorded verdict yet (--record writes one)")
    if not record and old is not None and old["verdict"] != verdict:
        outcome.problems.append(f"{study.id} is '{verdict}', recorded is '{old['verdict']}'")

    png = _figure(study, measured)
    result = _result(study, found, verdict, control_found, control, seconds)
    folder = path.parent.parent.parent / "runs" / "studies" / path.parent.name / path.stem
    _write(folder / "result.json", (json.dumps(result, indent=1, ensure_ascii=False) + "\n").encode())
    _write(folder / "figure.png", png)
    if record and flips:
        _write(results_of(path, ".json"), (json.dumps(result, indent=1, ensure_ascii=False) + "\n").encode())
        _write(results_of(path, ".png"), png)

    before = "" if old is None or old["verdict"] == verdict else f"  (was recorded as {old['verdict']})"
    console.print(Text.assemble("\n", (study.id, "bold"), "  ", (study.source, "dim")))
    console.print(Text(study.claim))
    console.print(Padding(_table(study, found), (0, 0, 0, 2)))
    console.print(Text.assemble(("criterion  ", "dim"), study.criterion))
    console.print(Text.assemble(("measured   ", "dim"), study.summary(found)))
    console.print(Text.assemble(("verdict    ", "dim"), (verdict, _color(verdict)), before))
    must = "as it must" if flips else "and so it does not flip the verdict"
    console.print(Text.assemble(("control    ", "dim"), f"{study.control_note} -> {control}, {must}"))
    console.print(Text.assemble(("           ", "dim"), (study.summary(control_found), "dim")))
    where = os.path.relpath(folder / "figure.png")
    console.print(
        Text.assemble(("seconds    ", "dim"), f"{seconds}{' (quick)' if quick else ''}, figure: {where}"),
        soft_wrap=True,
    )


def _measure(study: Study, quick: bool, setting: dict[str, Any]) -> dict[str, Any]:
    """One measurement that depends on nothing that ran before it."""
    import numpy as np
    import torch

    torch.set_num_threads(1)
    random.seed(0)
    np.random.seed(0)  # for libraries that still draw from it
    torch.manual_seed(0)
    return study.measure(quick, **setting)


def _verdict(study: Study, found: Numbers) -> str:
    return SUPPORTED if study.holds(found) else NOT_SUPPORTED


def _color(verdict: str) -> str:
    return "bold green" if verdict == SUPPORTED else "bold yellow"


def _figure(study: Study, measured: dict[str, Any]) -> bytes:
    from experiments import style

    with style.applied():
        return style.png(study.figure(measured))


def _result(
    study: Study, found: Numbers, verdict: str, control_found: Numbers, control: str, seconds: float
) -> dict[str, Any]:
    return {
        "id": study.id,
        "claim": study.claim,
        "source": study.source,
        "criterion": study.criterion,
        "verdict": verdict,
        "summary": study.summary(found),
        "measured": found,
        "control": {
            "setting": numbers(study.control),
            "note": study.control_note,
            "verdict": control,
            "summary": study.summary(control_found),
            "measured": control_found,
        },
        "seeds": list(study.seeds),
        "seconds": seconds,
        "environment": {
            "python": platform.python_version(),
            **{name: version(name) for name in PACKAGES},
            "platform": f"{platform.system()} {platform.machine()}",
        },
    }


def _table(study: Study, found: Numbers) -> Table:
    header, *rows = study.table(found)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for i, name in enumerate(header):
        table.add_column(str(name), justify="left" if i == 0 else "right")
    for row in rows:
        table.add_row(*(Text(_cell(value)) for value in row))
    return table


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content)
    partial.replace(path)

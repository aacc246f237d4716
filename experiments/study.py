"""What a study is, how its file is found, and which of its numbers are kept."""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dl_course.errors import ConfigError, suggest

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HOME = Path(__file__).resolve().parent
NO_ROOMS = ("performance", "notebooks", "results")  # folders beside the rooms that hold no studies
CURVES = "curves"  # the key of a measurement that only the figure reads

Numbers = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Study:
    """One claim, how it is measured, and what would refute it.

    measure(quick, **setting) → a dict of plain numbers, strings, lists and dicts of them, all finite; under the key
        "curves" whatever else the figure needs. `quick` makes it small (seconds), never easier to satisfy.
    holds(numbers) → the criterion, a pure function of what `measure` returned without "curves".
    control: the keyword arguments of `measure` under which the verdict must flip, and `control_note` why it must.
    table(numbers) → rows, the first one the header. summary(numbers) → one line for the ledger.
    figure(measured) → a matplotlib Figure, from all that `measure` returned; begin it with `style.panels`.
    """

    id: str
    source: str
    claim: str
    criterion: str
    measure: Callable[..., dict[str, Any]]
    holds: Callable[[Numbers], bool]
    control: Mapping[str, Any]
    control_note: str
    table: Callable[[Numbers], Sequence[Sequence[Any]]]
    summary: Callable[[Numbers], str]
    figure: Callable[[dict[str, Any]], Figure]
    seeds: Sequence[int] = field(default=())


def find(home: Path = HOME) -> dict[str, Path]:
    """id → file of every study below `home`, ids with hyphens, in the order of the names."""
    files = (p for p in sorted(home.glob("*/*.py")) if p.parent.name not in NO_ROOMS and not p.name.startswith("_"))
    return {f"{p.parent.name}/{p.stem.replace('_', '-')}": p for p in files}


def select(names: Sequence[str], home: Path = HOME) -> dict[str, Path]:
    """The studies that the names mean: an id, a room or a claim, hyphens or underscores; no names mean all.

    Raises: ConfigError (exit 2) for a name that means nothing, with the nearest one that would.
    """
    known = find(home)
    chosen: set[str] = set()
    for name in names:
        word = name.strip("/").removesuffix(".py").replace("_", "-").removeprefix("experiments/")
        hits = {id for id in known if word in (id, *id.split("/"))}
        if not hits:
            words = {w for id in known for w in (id, *id.split("/"))}
            raise ConfigError(f"no study is called '{name}'{suggest(word, words)}\nSee: python -m experiments --list")
        chosen |= hits
    return {id: path for id, path in known.items() if id in chosen or not names}


def load(id: str, path: Path) -> Study:
    """The STUDY that a file defines. Raises: ConfigError if it defines none, or one with another id."""
    name = f"experiments.{path.parent.name}.{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    study = getattr(module, "STUDY", None)
    if not isinstance(study, Study):
        raise ConfigError(f"{path.name} defines no STUDY = Study(…)")
    if study.id != id:
        raise ConfigError(f"the study in {path.parent.name}/{path.name} calls itself '{study.id}', expected '{id}'")
    return study


def numbers(measured: Mapping[str, Any]) -> Numbers:
    """What is judged, printed and recorded: the measurement without "curves", as plain JSON types.

    Raises: ValueError for NaN and infinity, which JSON does not know and no comparison notices; TypeError for the rest.
    """
    return {key: _plain(value, key) for key, value in measured.items() if key != CURVES}


def _plain(value: Any, where: str) -> Any:
    if hasattr(value, "tolist"):  # numpy and torch
        value = value.tolist()
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(
                f"measured {where} = {value}; report a finite number that says it (a count, a flag, a step)"
            )
        return value
    if isinstance(value, Mapping):
        return {str(k): _plain(v, f"{where}.{k}") for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v, f"{where}[{i}]") for i, v in enumerate(value)]
    raise TypeError(f"measured {where} is a {type(value).__name__}; what is no number belongs under '{CURVES}'")

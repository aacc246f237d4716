"""Random overrides of every experiment: a run that trains, or an error of at most five lines with exit code 2.

Keys are the leaves of the composed config; values follow the annotations that the check reads, so that both know the
same ranges. Nothing here lists what a config may hold.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import signal
import tempfile
import time
import urllib.error
import urllib.request
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from random import Random
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import annotated_types as at
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from PIL import Image

import dl_course as dl
from dl_course.catalog import CONFIGS, Experiment
from dl_course.check import About, _hints, find_target, public_classes, shipped_targets
from dl_course.cli import main
from dl_course.errors import report
from dl_course.training.process import Settings

# -- the place ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def given_files(tmp_path_factory) -> Path:
    """A table and a folder of pictures, both small."""
    folder = tmp_path_factory.mktemp("given")
    random = np.random.default_rng(0)
    rows = [f"{a:.3f},{'xyz'[i % 3]},{3 * a + i % 3:.3f},{int(a > 0)}" for i, a in enumerate(random.normal(size=97))]
    (folder / "table.csv").write_text("\n".join(["size,kind,price,paid", *rows]) + "\n")
    for name in ("cat", "dog"):
        (folder / "photos" / name).mkdir(parents=True)
        for i in range(11):
            pixels = random.integers(0, 256, (13, 17, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "photos" / name / f"{i}.png")
    return folder


@pytest.fixture(autouse=True)
def quiet_and_offline(monkeypatch):
    def refuse(*args, **kwargs):
        raise urllib.error.URLError("no network in this test")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setenv("DL_COURSE_QUIET", "1")
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)


def base(experiment: Experiment, files: Path) -> list[str]:
    """What makes an experiment a run of one batch."""
    words = ["trainer.max_steps=1"]
    if experiment.data == "csv":
        target = "paid" if experiment.name == "logistic_csv" else "price"
        words += [f"data.path={files / 'table.csv'}", f"data.target={target}"]
    if experiment.data == "folder":
        words += [f"data.root={files / 'photos'}"]
    return words


def runnable() -> list[Experiment]:
    """The experiments that need no download, and mlp_mnist where its data lie."""
    root = os.environ.get("DL_COURSE_DATA")
    found = [e for e in dl.experiments() if e.source != "benchmark"]
    return found + [e for e in dl.experiments("mlp_mnist") if root and Path(root, "MNIST").is_dir()]


# -- values ------------------------------------------------------------------------------------------------------------

LIMITS = {
    "threads": 2,
    "num_workers": 1,
    "devices": 1,
    "split_seed": 2**31,
    "n": 500,
    "image_size": 32,
    "max_steps": 3,
}
"""The largest value that is tried as a sensible one, where an annotation gives no limit or one that takes long."""

CARELESS = 0.4
"""The share of configurations that have a careless override among the sensible ones."""

WRONG = """
0 -1 2 0.5 -0.5 1e-30 1e30 -1e400 nan inf -inf 1000000000 100000000000000000000 1_000 0x10 null true false 2024-01-01
[] [1] [0,-1] [1,[2]] [1,a] [null] [1e400] [100000000000] [10000000000,10000000000] {} {a:1} 1,2
three '' '???' ../up /etc/hostname ünï latest os.system ${seed} ${nothing} ${data} ${data.shape} ${optimizer}
"""
"""Words that fit few places, if any."""


@dataclass(frozen=True)
class Leaf:
    """One key of a composed config, with the value it has and the annotation that it is checked against."""

    key: str
    value: Any
    annotation: Any


@cache
def leaves(experiment: str, words: tuple[str, ...]) -> tuple[Leaf, ...]:
    """Every leaf of the config; lists are leaves too."""
    container = OmegaConf.to_container(dl.compose(experiment, words))
    assert isinstance(container, dict)
    found: list[Leaf] = []

    def visit(node: dict, path: str, hints: dict[str, Any]) -> None:
        for key, value in node.items():
            if isinstance(value, dict) and value:
                inner = _hints(find_target(value["_target_"])) if "_target_" in value else {}
                visit(value, f"{path}{key}.", inner or get_type_hints(About, include_extras=True))
            else:
                found.append(Leaf(f"{path}{key}", value, hints.get(key)))

    visit(container, "", get_type_hints(Settings, include_extras=True))
    return tuple(found)


def fitting(random: Random, annotation: Any, key: str, value: Any) -> str:
    """A value that the annotation allows, as one types it; the value that is there where it allows anything."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if hasattr(annotation, "__value__"):  # `type Name = …`
        return fitting(random, annotation.__value__, key, value)
    if origin is Annotated:
        bounds = {type(item): item for item in arguments[1:]}
        if arguments[0] in (int, float):
            return repr(number(random, arguments[0], bounds, LIMITS.get(key, 64)))
        if at.Len in bounds:
            return _listed(
                fitting(random, get_args(arguments[0])[0], key, value) for _ in range(bounds[at.Len].min_length)
            )
        return typed(value)
    if origin is Literal:
        return typed(random.choice(arguments))
    if origin in (Union, UnionType):
        return fitting(random, random.choice(arguments), key, value)
    if origin is tuple:
        return _listed(fitting(random, part, key, value) for part in arguments)
    if origin is Sequence and "${" not in str(value):
        return _listed({fitting(random, arguments[0], key, value): None for _ in range(random.randrange(4))})
    if annotation in (int, float):
        return repr(number(random, annotation, {}, LIMITS.get(key, 64)))
    return (
        random.choice(["true", "false"]) if annotation is bool else "null" if annotation is NoneType else typed(value)
    )


def number(random: Random, kind: type, bounds: dict[type, Any], limit: int) -> float:
    """A number within its bounds, and sometimes the outermost one."""
    low = bounds[at.Ge].ge if at.Ge in bounds else bounds[at.Gt].gt if at.Gt in bounds else -limit
    high = bounds[at.Le].le if at.Le in bounds else bounds[at.Lt].lt if at.Lt in bounds else math.inf
    if kind is int:
        high = int(min(limit, high))
        return random.choice([low, high, random.randint(low, high), random.randint(low, high)])
    ends = [] if at.Gt in bounds else [low]
    ends += [high] if at.Le in bounds else [math.nextafter(high, low)] if at.Lt in bounds else []
    high = min(high, 1.0)
    spread = [random.uniform(low, high), min(high, low + 10 ** random.uniform(-6, 0)), low + (high - low) / 2]
    return float(random.choice([*ends, *spread, *spread]))


def typed(value: Any) -> str:
    """A value as one types it."""
    return "null" if value is None else value if isinstance(value, str) else json.dumps(value)


def _listed(parts: Iterable[str]) -> str:
    return f"[{','.join(parts)}]"


# -- overrides ---------------------------------------------------------------------------------------------------------


@cache
def groups() -> dict[str, list[str]]:
    """The config groups and their options."""
    folders = sorted(path for path in CONFIGS.iterdir() if path.is_dir())
    return {folder.name: sorted(path.stem for path in folder.glob("*.yaml")) for folder in folders}


def sensible(random: Random, known: Sequence[Leaf]) -> str:
    """A value within its range, or another option of a group."""
    if random.random() < 0.1:
        group = random.choice(["optimizer", "scheduler"])
        return f"{group}={random.choice(groups()[group])}"
    leaf = random.choice([leaf for leaf in known if leaf.annotation is not None])
    return f"{leaf.key}={fitting(random, leaf.annotation, leaf.key.rpartition('.')[2], leaf.value)}"


def careless(random: Random, known: Sequence[Leaf]) -> str:
    """A wrong value, a misspelt key, a key too many or too few, a wrong option, a wrong class."""
    leaf = random.choice(known)
    wrong = random.choice(WRONG.split())
    match random.choice(["value", "value", "value", "letter", "key", "node", "group", "target"]):
        case "value":
            return f"{leaf.key}={wrong}"
        case "letter":
            text = typed(leaf.value)
            place = random.randint(0, len(text))
            return f"{leaf.key}={text[:place]}{random.choice('x0.-e[,$')}{text[place + 1 :]}"
        case "key":
            place = random.randrange(len(leaf.key))
            letter = random.choice(["", "x", ".", leaf.key[place] * 2])
            return (
                f"{random.choice(['', '+', '++'])}{leaf.key[:place]}{letter}{leaf.key[place + 1 :]}={typed(leaf.value)}"
            )
        case "node":
            node = random.choice([leaf.key, leaf.key.rpartition(".")[0] or leaf.key])
            return random.choice([f"~{node}", f"{node}={wrong}", f"+{node}.more={wrong}", node])
        case "group":
            group = random.choice(list(groups()))
            return f"{group}={random.choice([*groups()[group], random.choice(groups()[group])[:-1], wrong])}"
        case _:
            targets = [leaf.key for leaf in known if leaf.key.endswith("_target_")]
            rooms = {name.rpartition(".")[0] for name in shipped_targets()}
            names = sorted(shipped_targets().union(*map(public_classes, rooms)))
            return f"{random.choice(targets)}={random.choice([*names, wrong])}"


def quick(word: str) -> bool:
    """Not so: training in several processes, which has tests of its own and would start this one again, and a whole
    run instead of a batch."""
    key, _, value = word.lstrip("+~").partition("=")
    if "max_steps" in key:
        return value not in ("", "null") and len(value) < 3 and "$" not in value
    if "devices" in key:
        return value == "auto" or value[:1] in "-01" or not (value[:1].isdigit() or "$" in value)
    return not value.startswith("ddp")


def configuration(random: Random, experiments: Sequence[Experiment], files: Path) -> tuple[Experiment, list[str]]:
    """An experiment and one to four overrides, at most one of them careless."""
    experiment = random.choice(experiments)
    words = base(experiment, files)
    known = leaves(experiment.name, tuple(words))
    overrides = [sensible(random, known) for _ in range(random.randint(1, 3))]
    if random.random() < CARELESS:
        overrides.insert(random.randint(0, len(overrides)), careless(random, known))
    return experiment, [*words, *(word for word in overrides if quick(word))]


# -- outcomes ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def elsewhere() -> Iterator[Path]:
    """An empty working directory, left and deleted afterwards."""
    before = os.getcwd()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        os.chdir(folder)
        try:
            yield Path(folder)
        finally:
            os.chdir(before)


@dataclass
class Outcome:
    """What came of one configuration: exit code, what was printed as an error, the metrics of a run."""

    code: int
    text: str
    metrics: dict[str, Any] = field(default_factory=dict)


def from_python(experiment: str, words: list[str]) -> Outcome:
    """compose, train, and the command's report of what they raise."""
    printed = io.StringIO()
    with contextlib.redirect_stderr(printed):
        try:
            return Outcome(0, "", dl.train(dl.compose(experiment, words)).metrics)
        except Exception as error:
            return Outcome(report(error), printed.getvalue())


def from_command(experiment: str, words: list[str]) -> Outcome:
    """`dl-course train`, in this process."""
    printed = io.StringIO()
    with contextlib.redirect_stderr(printed), contextlib.redirect_stdout(io.StringIO()):
        code = main(["train", f"experiment={experiment}", *words])
    written = [json.loads(path.read_text()) for path in Path("runs").glob("*/*/metrics.json")]
    return Outcome(code, printed.getvalue(), *written)


@dataclass
class Tally:
    """Counts of the outcomes, and the seconds they took."""

    counts: Counter[str] = field(default_factory=Counter)
    began: float = field(default_factory=time.monotonic)

    def __str__(self) -> str:
        total = self.counts.total()
        kinds = ", ".join(f"{kind} {count} ({count / total:.0%})" for kind, count in self.counts.most_common())
        return f"{total} configurations in {time.monotonic() - self.began:.0f} s: {kinds}"


def judge(outcome: Outcome, words: list[str]) -> str:
    """The kind of an outcome; AssertionError for what must not happen."""
    lines = outcome.text.splitlines()
    if outcome.code == 2:
        assert 1 <= len(lines) <= 5, outcome.text
        assert lines[0].startswith("error: "), outcome.text
        assert "Traceback" not in outcome.text
        return "refused"
    if outcome.code == 1:  # the one trouble that only training can find
        assert len(lines) <= 5, outcome.text
        assert any(f" is {value}" in lines[0] for value in ("nan", "inf", "-inf")), outcome.text
        return "diverged"
    assert outcome.code == 0
    if [word for word in words if word.startswith("debug=")][-1:] == ["debug=dry_run"]:
        return "dry run"
    assert outcome.metrics["steps"] >= 1
    assert all(math.isfinite(value) for tag, value in outcome.metrics.items() if "/" in tag)
    assert "val/loss" in outcome.metrics
    return "trained"


def fuzz(examples: int, experiments: list[Experiment], files: Path, run: Callable[[str, list[str]], Outcome]) -> Tally:
    """Try so many configurations, the same ones each time."""
    tally = Tally()

    @settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(st.randoms(use_true_random=True))
    def attempt(random: Random) -> None:
        experiment, words = configuration(random, experiments, files)
        before = signal.getsignal(signal.SIGTERM), torch.get_num_threads()
        with elsewhere(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            outcome = run(experiment.name, words)
            note(f"{experiment.name} {words}\n{outcome.text}")
            tally.counts[judge(outcome, words)] += 1
            assert outcome.code != 2 or not list(Path().glob("runs/*/*/*.ckpt"))
        assert (signal.getsignal(signal.SIGTERM), torch.get_num_threads()) == before

    attempt()
    return tally


def test_random_overrides_train_a_batch_or_are_refused(given_files):
    tally = fuzz(30, [e for e in runnable() if e.source != "benchmark"], given_files, from_command)
    print(tally)
    assert tally.counts.total() == 30
    assert tally.counts["trained"] >= 12
    assert tally.counts["refused"] > 0


@pytest.mark.slow
def test_five_hundred_random_configurations(given_files):
    tally = fuzz(520, runnable(), given_files, from_python)
    print(tally)
    assert tally.counts.total() >= 500
    assert tally.counts["trained"] >= 0.4 * tally.counts.total()
    assert tally.counts["diverged"] <= 0.02 * tally.counts.total()


# -- what it has found -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("experiment", "overrides", "expected"),
    [
        (
            "linear_diabetes",
            ["callbacks.early_stopping=3"],
            "early_stopping=3 needs a metric to watch, got monitor=last",
        ),
        (
            "mlp_digits",
            ["callbacks.monitor=val/acuracy"],
            "the model computes loss, accuracy; did you mean 'val/accuracy'?",
        ),
        ("mlp_digits", ["model.net.hidden=[10000000000]"], "model: its weights take 2,794.0 GiB"),
        ("mlp_digits", ["model.net.hidden=[10000000000,10000000000]"], "model: "),
        ("mlp_digits", ["model.net.in_features=63"], "63"),
        ("mlp_digits", ["data.batch_size=64", "resume=-1"], "resume=-1: not a run folder"),
        ("mlp_csv", ["seed=${data.shape}"], "seed refers to what is known only after the data have been read"),
        ("mlp_csv", ["trainer.max_epochs=${data.loss}"], "trainer.max_epochs=mse: expected an integer >= 1"),
    ],
)
def test_what_random_overrides_have_found_is_refused(experiment, overrides, expected, given_files):
    (chosen,) = [e for e in dl.experiments() if e.name == experiment]
    with elsewhere():
        outcome = from_python(experiment, [*base(chosen, given_files), *overrides])
        assert not Path("runs").exists()
    assert judge(outcome, overrides) == "refused"
    assert expected in outcome.text


@pytest.mark.parametrize(
    "words",
    [
        ["trainer.max_steps=1", "scheduler.warmup=0.98"],
        ["trainer.max_steps=1", "trainer.check_val_every_n_epoch=5"],
    ],
)
def test_what_random_overrides_have_found_trains(words):
    with elsewhere():
        outcome = from_python("mlp_digits", [*words, "model.net.hidden=[7]"])
    assert judge(outcome, words) == "trained"

"""Every study that is there: named after its file, explained, with criterion and control; its record up to date."""

from __future__ import annotations

import inspect
import re
import sys
from functools import cache

import pytest
from PIL import Image

from experiments import ledger
from experiments.__main__ import main
from experiments.runner import SUPPORTED, recorded, results_of
from experiments.study import HOME, NO_ROOMS, Study, find, load

STUDIES = find()
RECORDED = [id for id, path in STUDIES.items() if recorded(path)]


@cache
def study(id: str) -> Study:
    return load(id, STUDIES[id])


@pytest.mark.parametrize("id", STUDIES)
def test_a_study_explains_itself(id):
    found = study(id)
    module = sys.modules[found.measure.__module__]
    assert len(module.__doc__ or "") >= 200, "the module docstring explains the claim to a student"
    assert re.search(r"\d|interval", found.criterion), "a criterion names its numbers"
    assert found.source
    assert found.claim.endswith(".")
    assert found.criterion.endswith(".")


@pytest.mark.parametrize("id", STUDIES)
def test_a_control_is_a_setting_of_the_same_measurement(id):
    found = study(id)
    parameters = inspect.signature(found.measure).parameters
    assert next(iter(parameters)) == "quick"
    assert found.control
    for name, value in found.control.items():
        assert parameters[name].default is not inspect.Parameter.empty
        assert parameters[name].default != value, "the control must differ from what is measured"


@pytest.mark.parametrize("id", RECORDED)
def test_a_record_is_that_of_the_study_as_it_stands(id):
    """The criterion is the one that was judged, and judging the recorded numbers again gives the recorded verdicts."""
    found, record = study(id), recorded(STUDIES[id])
    assert record is not None
    for key in ("id", "claim", "source", "criterion"):
        assert record[key] == getattr(found, key), f"{key} was changed after the recording"
    assert found.holds(record["measured"]) == (record["verdict"] == SUPPORTED)
    assert found.holds(record["control"]["measured"]) == (record["control"]["verdict"] == SUPPORTED)
    assert record["control"]["verdict"] != record["verdict"]
    assert record["control"]["setting"] == dict(found.control)
    assert found.summary(record["measured"]) == record["summary"]
    assert not re.search(r"/home/|/work/|/tmp/|/Users/", str(record))


@pytest.mark.parametrize("id", RECORDED)
def test_a_recorded_figure_is_small(id):
    picture = results_of(STUDIES[id], ".png")
    assert picture.stat().st_size < 60_000
    with Image.open(picture) as image:
        assert image.width >= 800


def test_the_ledger_is_generated_from_the_records():
    assert ledger.ledger() in (HOME / "README.md").read_text(encoding="utf-8"), "run python -m experiments --record"


def test_no_record_without_its_study():
    known = {f"{p.parent.name}/{p.stem}" for p in STUDIES.values()}
    kept = {f"{p.parent.name}/{p.stem}" for p in HOME.glob("results/*/*.*")}
    assert {id for id in kept if id.split("/")[0] not in NO_ROOMS} <= known


@pytest.mark.slow
def test_every_recorded_study_holds_quickly(capsys):
    assert main(["--quick", *RECORDED]) == 0, capsys.readouterr().out

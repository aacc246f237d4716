"""Benchmarks measure what they say. No test asserts a time: that each runs, checks its work and fills its rows."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest

from experiments.performance import __main__ as command
from experiments.performance import table
from experiments.performance.timing import Row, Times, interleaved

OURS, REFERENCE = Times("course", (2.0, 3.0, 10.0)), Times("bare", (1.0, 2.0, 4.0))


def test_only_what_stands_between_the_yields_is_timed():
    now, calls = itertools.count(), []

    def arm(name: str, ticks: int) -> Iterator[object]:
        calls.append(f"{name} prepares")
        for _ in range(100):
            next(now)  # not counted
        yield
        for _ in range(ticks):
            next(now)
        yield
        next(now)
        calls.append(f"{name} checks")

    times = interleaved({"a": lambda: arm("a", 5), "b": lambda: arm("b", 11)}, rounds=3, clock=lambda: float(next(now)))
    assert times["a"].seconds == (6.0, 6.0, 6.0)  # one more: the second look at the clock
    assert times["b"].seconds == (12.0, 12.0, 12.0)
    turns = [call[0] for call in calls[::2]]
    assert turns == ["a", "b", "b", "a", "a", "b", "b", "a"]  # a warm-up round first, then in rotating order
    assert calls[1::2] == [f"{turn} checks" for turn in turns]


def test_a_failing_check_fails_the_benchmark():
    def arm() -> Iterator[object]:
        yield
        yield
        raise AssertionError("nothing was saved")

    with pytest.raises(AssertionError, match="nothing was saved"):
        interleaved({"a": arm}, rounds=1)


def test_an_arm_yields_twice():
    with pytest.raises(RuntimeError, match="more than twice"):
        interleaved({"a": lambda: iter([1, 2, 3])}, rounds=1)


def test_ratio_is_the_median_of_the_ratios_within_a_round():
    row = Row(what="", ours=OURS, reference=REFERENCE, bar=2.0)
    assert row.values == (2.0, 1.5, 2.5)
    assert (row.value, row.met) == (2.0, True)
    assert not replace(row, bar=1.9).met


def test_times_faster_is_the_inverse():
    row = Row(what="", ours=REFERENCE, reference=OURS, bar=2.0, kind="times faster")
    assert (row.value, row.met) == (2.0, True)
    assert not replace(row, bar=2.1).met


def test_seconds_stand_alone():
    row = Row(what="", ours=OURS, bar=3.0, kind="seconds")
    assert (row.value, row.met) == (3.0, True)
    assert not replace(row, bar=2.9).met


def test_times_print_in_one_unit():
    assert str(Times("a", (0.0005, 0.002, 0.5))) == "0.5 / 2 / 500 ms"
    assert str(Times("a", (3.0, 1.0, 2.0))) == "1 / 2 / 3 s"
    assert str(Times("a", (469.0,)).per(469_000)) == "1 / 1 / 1 ms"


def test_the_table_says_what_was_recorded(tmp_path: Path):
    rows = [
        Row(what="a step", ours=OURS, reference=REFERENCE, bar=2.3),
        Row(what="an epoch", ours=OURS, reference=REFERENCE, bar=1.3),
        Row(what="MNIST", bar=7, kind="times faster", skipped="no MNIST"),
    ]
    table.record("steps", rows, tmp_path)
    assert table.read(tmp_path / "steps.json")[1] == rows
    text = table.write(tmp_path, tmp_path / "README.md").read_text(encoding="utf-8")
    lines = {line.split(" | ")[0].strip("| "): line for line in text.splitlines() if line.startswith("|")}
    assert lines["a step"].endswith("| ≤ 2.3× | yes |")
    assert "2× (1.5 to 2.5)" in lines["a step"]
    assert "bare: 1 / 2 / 4 s" in lines["a step"]
    assert lines["an epoch"].endswith("| ≤ 1.3× | **no** |")
    assert "skipped: no MNIST" in lines["MNIST"]
    assert "python -m experiments.performance steps --record" in text
    assert "CPU cores" in text


def test_the_committed_table_is_generated():
    readme = table.HOME / "README.md"
    if readme.is_file():
        assert readme.read_text(encoding="utf-8") == table.render()


def test_an_unknown_name_is_refused(capsys: pytest.CaptureFixture[str]):
    assert command.main(["tiny_steb"]) == 2
    assert "did you mean 'tiny_step'?" in capsys.readouterr().err


def test_every_benchmark_is_listed():
    files = {path.stem for path in table.HOME.glob("*.py") if "def measure(" in path.read_text(encoding="utf-8")}
    assert files - {"timing"} == set(command.BENCHMARKS)


def measured(name: str) -> list[Row]:
    rows = import_module(f"experiments.performance.{name}").measure(1, True)
    for row in rows:
        assert row.skipped or row.value > 0
        assert len(row.cells()) == 6
    return rows


@pytest.mark.parametrize("name", ["tiny_step", "linear_regression", "command_start"])
def test_benchmark_runs(name: str):
    assert all(not row.skipped for row in measured(name))


def test_without_mnist_its_rows_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DL_COURSE_DATA", str(tmp_path))
    assert [row.skipped for row in measured("mlp_epoch")] == ["no MNIST in $DL_COURSE_DATA"] * 2
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mlp_epoch", "image_loader"])
def test_benchmark_with_data_runs(name: str, real_data: Path):
    assert all(not row.skipped for row in measured(name))


@pytest.mark.slow
def test_a_benchmark_runs_in_a_process_of_its_own(capfd: pytest.CaptureFixture[str]):
    assert command.main(["tiny_step", "--quick", "--rounds", "1"]) == 0
    assert "one step of a tiny model" in capfd.readouterr().out

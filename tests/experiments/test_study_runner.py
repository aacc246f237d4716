"""The runner on a fake study: what makes the exit code 0, 1 and 2."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from PIL import Image

from experiments import ledger
from experiments.__main__ import main
from experiments.study import numbers


def test_recording_then_running_agrees(house, capsys):
    home = house()
    assert main(["--record"], home) == 0
    record = json.loads((home / "results/room/big_value.json").read_text())
    assert record["verdict"] == "supported"
    assert record["measured"] == {"value": 0.9, "quick": False}
    assert record["control"]["verdict"] == "not supported"
    assert record["control"]["measured"]["value"] == 0.1
    assert record["seeds"] == [0, 1, 2]
    assert torch.__version__.startswith(record["environment"]["torch"])
    with Image.open(home / "results/room/big_value.png") as picture:
        assert picture.size == (900, 450)
    assert (home.parent / "runs/studies/room/big_value/figure.png").is_file()
    capsys.readouterr()

    assert main(["--quick"], home) == 0
    printed = capsys.readouterr().out
    for part in (
        "The value is large.",
        "[value]",
        "value > 0.5",
        "-> not supported, as it must",
        "1 supported; 0",
    ):
        assert part in printed
    assert json.loads((home / "results/room/big_value.json").read_text()) == record  # quick records nothing
    assert json.loads((home.parent / "runs/studies/room/big_value/result.json").read_text())["measured"]["quick"]


def test_a_study_without_a_record_says_so(house, capsys):
    home = house()
    assert main([], home) == 1
    assert "room/big-value has no recorded verdict yet" in capsys.readouterr().out
    assert not (home / "results").exists()


def test_another_verdict_than_the_recorded_one_fails(house, capsys):
    home = house()
    main(["--record"], home)
    house(value=0.2, control=0.8)
    assert main([], home) == 1
    assert "room/big-value is 'not supported', recorded is 'supported'" in capsys.readouterr().out
    assert main(["--record"], home) == 0  # a claim that fails is recorded as such
    assert "(was recorded as supported)" in capsys.readouterr().out
    assert "**not supported**" in (home / "README.md").read_text()
    assert main([], home) == 0


def test_a_control_that_does_not_flip_fails_and_is_not_recorded(house, capsys):
    home = house(control=0.8)
    assert main(["--record"], home) == 1
    assert "the control of room/big-value does not flip the verdict: both are 'supported'" in capsys.readouterr().out
    assert not (home / "results").exists()


def test_one_crash_does_not_stop_the_others(house, capsys):
    house("room/a-crash", body="raise RuntimeError('out of luck')")
    house("room/no-number", value=float("inf"), body="value = float(value)").joinpath("room/empty.py").write_text("")
    home = house("room/sound")
    assert main(["--record"], home) == 1
    printed = capsys.readouterr().out
    assert "room/a-crash crashed: RuntimeError: out of luck" in printed
    assert "room/empty crashed: ConfigError: empty.py defines no STUDY" in printed
    assert "room/no-number crashed" in printed
    assert "4 studies" in printed
    assert "1 supported, 3 crashed; 3 problems" in printed
    assert [p.name for p in (home / "results/room").glob("*.json")] == ["sound.json"]


@pytest.mark.slow
def test_a_killed_process_takes_no_other_study_with_it(house, capsys):
    house("room/killed", body="import os; os._exit(3)")
    home = house("room/sound")
    assert main(["--record", "--jobs", "2"], home) == 1
    printed = capsys.readouterr().out
    assert "room/killed lost its process: BrokenProcessPool" in printed
    assert "verdict    supported" in printed
    assert (home / "results/room/sound.json").is_file()


@pytest.mark.parametrize(
    "name", ["room/big-value", "room/big_value", "big_value", "big-value", "room", "room/big_value.py"]
)
def test_a_study_answers_to_its_names(house, capsys, name):
    home = house()
    house("other/thing", body="raise RuntimeError")
    assert main(["--list", name], home) == 0
    printed = capsys.readouterr().out
    assert "room/big-value" in printed
    assert "none yet" in printed
    assert "other/thing" not in printed


def test_an_unknown_name_exits_with_2_and_a_suggestion(house, capsys):
    assert main(["big-valeu"], house()) == 2
    error = capsys.readouterr().err
    assert "no study is called 'big-valeu'; did you mean 'big-value'?" in error
    assert len(error.splitlines()) <= 5


@pytest.mark.parametrize("arguments", [["--quick", "--record"], ["--jobs", "0"]])
def test_options_that_contradict_exit_with_2(house, arguments):
    with pytest.raises(SystemExit) as stopped:
        main(arguments, house())
    assert stopped.value.code == 2


def test_a_study_must_carry_the_name_of_its_file(house, capsys):
    home = house()
    (home / "room/big_value.py").rename(home / "room/other.py")
    assert main([], home) == 1
    assert "calls itself 'room/big-value', expected 'room/other'" in capsys.readouterr().out


def test_each_measurement_starts_from_the_same_random_state(house):
    home = house(
        body="import torch, numpy; value = value + torch.rand(()).item() + numpy.random.rand()", value=5, control=-9
    )
    main(["--record"], home)
    record = json.loads((home / "results/room/big_value.json").read_text())
    assert record["measured"]["value"] - 5 == pytest.approx(record["control"]["measured"]["value"] + 9)


def test_numbers_are_plain_and_finite():
    measured = {"a": torch.tensor([1.5, 2.0]), "b": {"c": torch.tensor(True)}, "d": (1, None, "x"), "curves": object()}
    assert numbers(measured) == {"a": [1.5, 2.0], "b": {"c": True}, "d": [1, None, "x"]}
    with pytest.raises(ValueError, match=r"measured loss\.sgd\[1\] = nan; report a finite number"):
        numbers({"loss": {"sgd": [1.0, float("nan")]}})
    with pytest.raises(TypeError, match=r"measured net is a object; what is no number belongs under 'curves'"):
        numbers({"net": object()})


def test_ledger_lists_rooms_in_the_order_of_the_course_and_keeps_the_text_around_it(house):
    for id in ("zoo/last", "mlp/second", "regression/first"):
        home = house(id)
    main(["--record"], home)
    readme = home / "README.md"
    text = readme.read_text()
    assert text.index("### regression") < text.index("### mlp") < text.index("### zoo")
    assert "3 claims measured: 3 supported, 0 not supported." in text
    assert "value > 0.5 \\| strictly" in text
    assert "[figure](results/regression/first.png)" in text
    readme.write_text("before\n" + text + "after\n")
    ledger.write(home)
    assert readme.read_text() == "before\n" + text + "after\n"


def test_the_command_runs_as_a_module():
    ran = subprocess.run([sys.executable, "-m", "experiments", "nonesuch"], capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    assert "no study is called 'nonesuch'" in ran.stderr
    assert not ran.stdout

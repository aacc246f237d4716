"""Completion: the right words from the line so far, also through a real shell."""

import shutil
import subprocess
import sys

import pytest

from dl_course.cli import COMMANDS, main
from dl_course.completion import SCRIPTS, complete


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def words(line: str) -> list[str]:
    return complete([line], COMMANDS)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("dl-course ", ["train", "eval", "list", "completion"]),
        ("dl-course tr", ["train"]),
        ("dl-course --v", ["--version"]),
        ("dl-course train exp", ["experiment=", "experiment."]),
        ("dl-course train experiment=mlp_m", ["experiment=mlp_mnist", "experiment=mlp_moons"]),
        ("dl-course train optimizer=a", ["optimizer=adagrad", "optimizer=adam", "optimizer=adamw"]),
        ("dl-course train experiment=softmax_digits trainer.max_ep", ["trainer.max_epochs="]),
        ("dl-course train optimizer=sgd optimizer.mom", ["optimizer.momentum="]),
        ("dl-course train -q --dry-run optimizer=sgd optimizer.nest", ["optimizer.nesterov="]),
        ("dl-course train -m optimizer=sgd,adam see", ["seed="]),
        ("dl-course train --dry", ["--dry-run"]),
        ("dl-course train --mul", ["--multirun"]),
        ("dl-course list reg", ["regression"]),
        ("dl-course list --j", ["--json"]),
        ("dl-course completion b", ["bash"]),
        ("dl-course eval nothing sp", ["split=test", "split=val"]),
    ],
)
def test_the_line_so_far_decides(line, expected):
    assert sorted(words(line)) == sorted(expected)


def test_all_keys_are_offered_but_none_of_hydras():
    found = words("dl-course train ")
    assert {"experiment=", "optimizer=", "optimizer.", "trainer.", "seed=", "resume="} <= set(found)
    assert not [word for word in found if word.startswith("hydra")]
    assert not [word for word in words("dl-course train optimizer.") if "_target_" in word]
    assert "hydra.sweep." in words("dl-course train hydra.sw")


def test_runs_and_paths_are_offered(empty_folder):
    for name in ("20260101-120000-0", "20260102-120000-0"):
        folder = empty_folder / "runs" / "mlp_digits" / name
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text("x: 1\n")
        (folder / "best.ckpt").write_text("")
    found = words("dl-course eval ")
    assert {"runs/mlp_digits/20260101-120000-0", "runs/mlp_digits/20260102-120000-0"} <= set(found)
    inside = words("dl-course eval runs/mlp_digits/20260101-120000-0/b")
    assert inside == ["runs/mlp_digits/20260101-120000-0/best.ckpt"]
    assert "resume=latest" in words("dl-course train resume=")
    assert "init_from=latest" not in words("dl-course train init_from="), "it takes a run or a checkpoint"
    assert len(words("dl-course train resume=runs/mlp")) >= 2
    (empty_folder / "mine" / "experiment").mkdir(parents=True)
    (empty_folder / "mine" / "experiment" / "own.yaml").write_text("# @package _global_\ndefaults: [mlp_moons]\n")
    assert words("dl-course train --config-dir mi") == ["mine/"]
    assert words("dl-course train --config-dir mine experiment=o") == ["experiment=own"]


@pytest.mark.parametrize(
    "line", ["", "dl-course nonsense ", "dl-course train experiment=nope x", "dl-course train [= "]
)
def test_where_nothing_fits_nothing_is_said(line, capfd):
    words(line)
    shown = capfd.readouterr()
    assert shown.out == ""
    assert shown.err == ""


def test_the_command_prints_the_scripts(capsys):
    for shell, script in SCRIPTS.items():
        assert main(["completion", shell]) == 0
        assert capsys.readouterr().out.strip() == script


def bash(line: str, folder, breaks: str = " \t\n\"'><=;|&(:") -> list[str]:
    """What real bash would offer at the end of `line`: its COMP_WORDBREAKS decide where a word begins."""
    wrapper = folder / "dl-course"
    wrapper.write_text(f'#!/bin/sh\nexec {sys.executable} -m dl_course "$@"\n')
    wrapper.chmod(0o755)
    script = f"""
    export PATH="{folder}:$PATH"
    eval "$(dl-course completion bash)"
    COMP_WORDBREAKS=$1 COMP_LINE=$2 COMP_POINT=${{#2}}
    _dl_course_completion dl-course
    printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    shown = subprocess.run(["bash", "-c", script, "bash", breaks, line], capture_output=True, text=True, check=True)
    assert shown.stderr == ""
    return shown.stdout.removesuffix("\n").split("\n")


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash here")
def test_real_bash(empty_folder):
    assert bash("dl-course tr", empty_folder) == ["train "]
    assert bash("dl-course train optimizer=ad", empty_folder) == ["adagrad", "adam", "adamw"]
    assert bash("dl-course train optimizer=ad", empty_folder, breaks=" ") == [
        "optimizer=adagrad", "optimizer=adam", "optimizer=adamw",
    ]  # fmt: skip
    assert bash("dl-course train optimizer.l", empty_folder) == ["optimizer.lr="]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_other_shells_accept_their_script(shell):
    if not shutil.which(shell):
        pytest.skip(f"no {shell} here")
    subprocess.run([shell, "-n", "-c", SCRIPTS[shell]], check=True)

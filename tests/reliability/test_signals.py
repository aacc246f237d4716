"""SIGTERM and Ctrl-C: the state is saved, the exit code is the signal's, the last line says how to go on."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.reliability.children import ended, members, outcome, run_in, said, start

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="counts processes in /proc"),
]

WORDS = [
    "mlp_digits", "trainer.max_epochs=3", "model.net.hidden=[11]", "data.augment.translate=1", "callbacks.graph=false"
]  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    assert ended(start(folder, WORDS)) == 0, said(folder)
    return outcome(folder)


def the_command_of(folder: Path) -> list[str]:
    """The words of the resume command, which must be the last line."""
    last = said(folder).splitlines()[-1]
    found = re.fullmatch(r"stopped after a signal; go on with: dl-course train (resume=runs/\S+)", last)
    assert found, said(folder)
    return [found[1]]


@pytest.mark.parametrize(
    ("place", "visit", "number"),
    [
        pytest.param("setup", 1, signal.SIGINT, id="before training"),
        pytest.param("begin", 1, signal.SIGTERM, id="nothing is saved"),
        pytest.param("step", 1, signal.SIGINT, id="first step"),
        pytest.param("validation", 3, signal.SIGTERM, id="validation"),
        pytest.param("step", 51, signal.SIGTERM, id="last step"),
        pytest.param("evaluation", 1, signal.SIGINT, id="evaluation, Ctrl-C"),
        pytest.param("evaluation", 1, signal.SIGTERM, id="evaluation"),
    ],
)
def test_the_run_goes_on_as_the_last_line_says(place, visit, number, tmp_path, undisturbed):
    code = ended(start(tmp_path, WORDS, (place, visit, number)))
    assert code == 128 + number, said(tmp_path)
    again = the_command_of(tmp_path)
    assert "Traceback" not in said(tmp_path)
    time.sleep(1)  # TensorBoard orders files by the second
    assert ended(start(tmp_path, [WORDS[0], *again])) == 0, said(tmp_path)
    assert_equal(outcome(tmp_path), undisturbed)


def test_two_signals_one_after_the_other_and_a_kill(tmp_path, undisturbed):
    """Stopped in the first epoch, stopped in the second, killed in the third, and still the same run."""
    assert ended(start(tmp_path, WORDS, ("step", 5, signal.SIGTERM))) == 143
    for blow in (("step", 20, signal.SIGINT), ("step", 11, signal.SIGKILL)):
        time.sleep(1)
        assert ended(start(tmp_path, [WORDS[0], *the_command_of(tmp_path)], blow)) in (130, -signal.SIGKILL)
    time.sleep(1)
    assert ended(start(tmp_path, [WORDS[0], *the_command_of(tmp_path)])) == 0, said(tmp_path)
    assert_equal(outcome(tmp_path), undisturbed)


def assert_equal(found, expected):
    for what in ("weights", "metrics", "curves"):
        assert found[what] == expected[what]


# -- the command itself ------------------------------------------------------------------------------------------------


def launched(folder: Path, *words: str, program: str = "") -> subprocess.Popen:
    """The command, in a process group of its own, as a shell starts it."""
    with open(folder / "output.txt", "a") as output:
        python = [sys.executable, "-c", program] if program else [sys.executable, "-m", "dl_course"]
        return subprocess.Popen(
            [*python, "train", *words], cwd=folder, stdout=output, stderr=output, start_new_session=True
        )


def end(process: subprocess.Popen) -> None:
    """Leave nothing behind, whatever the test found."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def wait_for(condition, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it does not come"
        time.sleep(0.05)


LONG = ["trainer.max_epochs=100000", "callbacks.graph=false", "data.num_workers=2"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_to_the_whole_group_as_from_a_terminal_or_timeout(number, code, tmp_path):
    """Ctrl-C and `timeout` strike the worker processes, too."""
    process = launched(tmp_path, *LONG)
    try:
        wait_for(lambda: len(members(process.pid)) == 5)  # two workers for train, two for val, just started
        os.killpg(process.pid, number)
        assert process.wait(30) == code, said(tmp_path)
        wait_for(lambda: not members(process.pid), 10)
    finally:
        end(process)
    (word,) = the_command_of(tmp_path)
    assert "Traceback" not in said(tmp_path)
    assert (tmp_path / word.removeprefix("resume=") / "resume.ckpt").is_file()


def test_a_second_ctrl_c_aborts(tmp_path):
    """A step that does not end cannot be waited for."""
    program = """
import sys, time
from pathlib import Path
from dl_course.cli import main
from dl_course.training import Supervised
def endless(self, batch, batch_idx):
    Path("reached").touch()
    time.sleep(1000)
Supervised.training_step = endless
sys.exit(main())
"""
    process = launched(tmp_path, program=program)
    try:
        wait_for((tmp_path / "reached").exists)
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == -signal.SIGINT  # a shell shows 130
    finally:
        end(process)
    assert not (run_in(tmp_path) / "metrics.json").exists()


def test_a_run_whose_worker_is_lost_ends_all_the_same(tmp_path):
    """At its end a program asks its workers to leave by SIGTERM, which they ignore, and waits for them."""
    program = """
import os, signal, sys
from dl_course.cli import main
from dl_course.training import Supervised
def bereft(self, batch, batch_idx):
    os.kill(self.trainer.train_dataloader._iterator._workers[0].pid, signal.SIGKILL)
Supervised.validation_step = bereft
sys.exit(main())
"""
    process = launched(tmp_path, *LONG, program=program)
    try:
        assert process.wait(60) == 1, said(tmp_path)
        assert len(said(tmp_path).splitlines()) <= 5
        wait_for(lambda: not members(process.pid), 10)
    finally:
        end(process)

"""No room, no permission: refused before the first step where that can be known, else one line, and nothing is lost."""

from __future__ import annotations

import os
import subprocess

import pytest

from dl_course.training.checkpoints import load_checkpoint
from tests.reliability.children import ended, fill, outcome, run_in, said, start

pytestmark = pytest.mark.slow

ROOT_ONLY = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can mount a file system or become nobody"
)
WORDS = [
    "mlp_digits",
    "model.net.hidden=[64]",
    "trainer.max_epochs=4",
    "callbacks.graph=false",
    "callbacks.save_every=0",
]
NOBODY = 65534


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 3 MiB, in memory."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip(f"cannot mount a tmpfs here: {mounted.stderr.decode().strip()}")
    (disk / "output.txt").symlink_to(tmp_path / "output.txt")  # what is printed needs no room
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


@ROOT_ONLY
@pytest.mark.parametrize("leave", [0, 50_000])
def test_a_disk_without_room_is_refused_before_the_first_step(small_disk, leave):
    fill(small_disk, leave)
    assert ended(start(small_disk, WORDS)) == 1
    lines = said(small_disk).splitlines()
    assert len(lines) == 1, lines
    assert "are free, the checkpoints of this model need" in lines[0] or "No space left" in lines[0]
    assert not list((small_disk / "runs").glob("*/*")), "a run folder is left"


@ROOT_ONLY
@pytest.mark.parametrize("step", [1, 25, 34, 68])
def test_a_disk_that_fills_up_while_training_leaves_the_last_good_state(small_disk, tmp_path, step):
    """The program finds room, trains, and from that step on somebody else takes it."""
    assert ended(start(small_disk, WORDS, ("fill", step, 0))) == 1, said(small_disk)
    lines = said(small_disk).splitlines()
    assert len(lines) <= 2, lines
    assert "the disk is full" in lines[0] or "No space left" in lines[0]
    run = run_in(small_disk)
    assert not list(run.glob(".*")), "something half-made is left"
    assert not (run / "metrics.json").exists()
    if step > 1:
        assert step - 1 <= load_checkpoint(run / "resume.ckpt")["global_step"] <= 68
        assert load_checkpoint(run / "best.ckpt")["global_step"] == (step - 1) // 17 * 17

    (small_disk / "filler").unlink()
    assert ended(start(small_disk, [WORDS[0], f"resume={run.relative_to(small_disk)}"])) == 0, said(small_disk)
    whole = tmp_path / "whole"
    assert ended(start(whole, WORDS)) == 0
    assert outcome(small_disk)["weights"] == outcome(whole)["weights"]


@ROOT_ONLY
@pytest.mark.parametrize("where", [".", "runs", "runs/mlp_digits"])
def test_a_folder_that_may_not_be_written_is_refused_before_the_first_step(tmp_path, where):
    for folder in tmp_path.parents[:-2]:
        folder.chmod(folder.stat().st_mode | 0o055)
    (tmp_path / "output.txt").touch(0o666)
    (tmp_path / where).mkdir(parents=True, exist_ok=True)
    for folder in (tmp_path, *tmp_path.rglob("*/")):
        folder.chmod(0o777)
    (tmp_path / where).chmod(0o555)
    before = sorted(tmp_path.rglob("*"))
    # were a step made, the signal would end the program with another code
    assert ended(start(tmp_path, WORDS, ("step", 1, 15), user=NOBODY)) == 1, said(tmp_path)
    lines = said(tmp_path).splitlines()
    assert len(lines) == 1, lines
    assert "ermission" in lines[0]
    assert "runs" in lines[0]
    assert sorted(tmp_path.rglob("*")) == before


@ROOT_ONLY
def test_a_run_folder_that_has_become_read_only_is_refused_and_stays_as_it_was(tmp_path):
    for folder in tmp_path.parents[:-2]:
        folder.chmod(folder.stat().st_mode | 0o055)
    tmp_path.chmod(0o777)
    (tmp_path / "output.txt").touch()
    (tmp_path / "output.txt").chmod(0o666)
    assert ended(start(tmp_path, WORDS, ("step", 30, 15), user=NOBODY)) == 143, said(tmp_path)
    run = run_in(tmp_path)
    run.chmod(0o555)
    before = {path: path.stat().st_mtime_ns for path in run.iterdir()}
    assert ended(start(tmp_path, [WORDS[0], "resume=latest"], user=NOBODY)) == 1
    assert "cannot write into" in said(tmp_path).splitlines()[-1]
    assert {path: path.stat().st_mtime_ns for path in run.iterdir()} == before

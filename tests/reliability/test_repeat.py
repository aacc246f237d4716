"""The same seed gives the same bits, through the command itself; and a run can be gone on with wherever it now lies."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.reliability.children import outcome, run_in

WORDS = [
    "experiment=mlp_digits", "trainer.max_epochs=2", "model.net.hidden=[11]", "data.augment.rotation=10",
    "scheduler=none", "callbacks.graph=false",
]  # fmt: skip


def command(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    folder.mkdir(exist_ok=True)
    return subprocess.run(
        [sys.executable, "-m", "dl_course", "train", *words],
        cwd=folder, capture_output=True, text=True, check=False, env=os.environ | environment,
    )  # fmt: skip


@pytest.mark.slow
def test_processes_hash_seeds_and_workers_change_no_bit(tmp_path):
    found = []
    for workers, hash_seed in ((0, "0"), (1, "1"), (2, "random")):
        folder = tmp_path / str(workers)
        done = command(folder, *WORDS, f"data.num_workers={workers}", PYTHONHASHSEED=hash_seed)
        assert done.returncode == 0, done.stderr
        found.append(outcome(folder))
        written = json.loads((run_in(folder) / "metrics.json").read_text())
        assert written["seed"] == 0
        assert written["run"]["threads"] == 1
        assert written["run"]["versions"]["torch"] == torch.__version__.split("+")[0]
        assert written["run"]["versions"]["python"] == platform.python_version()
        assert f"data.num_workers={workers}" in written["run"]["command"]
    assert found[0] == found[1] == found[2]


@pytest.mark.slow
def test_a_run_that_was_moved_is_gone_on_with_in_its_new_place(tmp_path):
    """Prolonged in another folder, from another working folder, it ends like one that was as long from the start."""
    short, long, elsewhere = tmp_path / "short", tmp_path / "long", tmp_path / "elsewhere"
    for folder, epochs in ((short, 1), (long, 2)):
        done = command(folder, *WORDS, f"trainer.max_epochs={epochs}")
        assert done.returncode == 0, done.stderr
    moved = tmp_path / "moved" / "runs" / "mlp_digits" / "renamed"
    moved.parent.mkdir(parents=True)
    run_in(short).rename(moved)

    assert "is finished: nothing to do" in command(elsewhere, f"resume={moved}").stderr
    refused = command(elsewhere, f"resume={moved}", "optimizer.lr=1", "seed=3", "trainer.max_epochs=2")
    assert refused.returncode == 2
    assert "optimizer.lr=1 (was 0.003), seed=3 (was 0)" in refused.stderr
    assert len(refused.stderr.splitlines()) <= 5
    done = command(elsewhere, f"resume={moved}", "trainer.max_epochs=2")
    assert done.returncode == 0, done.stderr
    assert not list(elsewhere.iterdir())
    found, expected = outcome(tmp_path / "moved"), outcome(long)
    for what in ("weights", "metrics", "curves"):
        assert found[what] == expected[what]

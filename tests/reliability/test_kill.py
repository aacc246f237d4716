"""kill -9 anywhere in a run, then `resume`: the same bits, the same curves, and no process left behind.

Real processes really die: each is forked from a server that has imported everything once, is killed with signal 9 at
its point, and its run is resumed in another process and compared with a run that nobody disturbed.
"""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.reliability.children import ended, members, outcome, said, start

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="counts processes in /proc"),
]

EXPERIMENTS = {
    "mlp_digits": [  # 17 batches an epoch
        "trainer.max_epochs=3", "model.net.hidden=[11]", "model.net.dropout=0.3", "scheduler=cosine",
        "data.augment.rotation=10", "data.augment.translate=1", "regularization.ema=0.9",
    ],
    "softmax_digits": [  # the last of 9 steps an epoch takes 1 batch instead of 2
        "trainer.max_epochs=4", "trainer.accumulate_grad_batches=2", "optimizer=sgd", "optimizer.momentum=0.9",
        "scheduler=onecycle", "regularization.l1=0.001", "callbacks.graph=false",
    ],
    "logistic_cancer": [  # 22 batches an epoch
        "trainer.max_epochs=5", "trainer.max_steps=97", "data.batch_size=16", "callbacks.early_stopping=3",
        "callbacks.monitor=val/accuracy", "scheduler=exponential", "callbacks.graph=false",
    ],
}  # fmt: skip

POINTS = [  # experiment, workers, seconds between saves, place, which visit to that place
    ("mlp_digits", 0, 0, "begin", 1),  # nothing was saved
    ("mlp_digits", 2, 0, "step", 1),
    ("mlp_digits", 0, 30, "step", 9),
    ("mlp_digits", 2, 0.05, "step", 18),
    ("mlp_digits", 0, 0, "step", 26),
    ("mlp_digits", 2, 30, "step", 34),  # a point of the curve was drawn, but nothing saved
    ("mlp_digits", 0, 0.05, "step", 43),
    ("mlp_digits", 2, 0, "step", 51),
    ("mlp_digits", 0, 0, "validation", 4),
    ("mlp_digits", 2, 0, "within a write", 1),
    ("mlp_digits", 0, 0, "within a write", 30),
    ("mlp_digits", 0, 0, "evaluation", 2),  # trained to the end, but not yet measured
    ("softmax_digits", 2, 0.05, "step", 1),
    ("softmax_digits", 0, 0, "step", 14),  # within an accumulated step
    ("softmax_digits", 2, 0, "step", 25),
    ("softmax_digits", 0, 30, "step", 39),
    ("softmax_digits", 2, 0, "step", 52),
    ("softmax_digits", 0, 0.05, "step", 67),
    ("softmax_digits", 0, 0, "before a rename", 1),  # config.yaml
    ("softmax_digits", 2, 0, "before a rename", 23),
    ("softmax_digits", 0, 30, "before a rename", 2),  # best.ckpt at the end of training
    ("softmax_digits", 0, 30, "after a rename", 2),  # the best is new, the state for resuming is not there
    ("logistic_cancer", 0, 0, "step", 1),
    ("logistic_cancer", 2, 0.05, "step", 24),
    ("logistic_cancer", 0, 0.05, "step", 45),
    ("logistic_cancer", 2, 0, "step", 66),
    ("logistic_cancer", 0, 30, "step", 88),
    ("logistic_cancer", 2, 0, "within a write", 61),
    ("logistic_cancer", 0, 0, "after a rename", 62),
    ("logistic_cancer", 2, 0, "after a rename", 63),
    ("logistic_cancer", 0, 0, "optimizer", 97),  # the last step of all
    ("logistic_cancer", 2, 0.05, "metrics", 1),  # metrics.json: written, not yet renamed
]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> dict[str, dict[str, Any]]:
    """The outcome of each experiment when nothing happens."""
    root = tmp_path_factory.mktemp("undisturbed")
    found = {}
    for name, overrides in EXPERIMENTS.items():
        assert ended(start(root / name, [name, *overrides])) == 0, said(root / name)
        found[name] = outcome(root / name)
        found[name]["files"].add("resume-previous.ckpt")  # there if there was more than one save
    return found


def words_of(point: tuple) -> list[str]:
    experiment, workers, seconds, *_ = point
    return [
        experiment, *EXPERIMENTS[experiment], f"data.num_workers={workers}", f"callbacks.save_every={seconds}",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def killed(tmp_path_factory) -> dict[tuple, Path]:
    """The folders of all runs, each killed at its point; two at a time. No worker process outlives them."""
    root = tmp_path_factory.mktemp("killed")
    folders = {point: root / str(number) for number, point in enumerate(POINTS)}
    groups = {}
    for pair in pairs():
        processes = {point: start(folders[point], words_of(point), (*point[3:], signal.SIGKILL)) for point in pair}
        for point, process in processes.items():
            assert ended(process) == -signal.SIGKILL, f"{point}:\n{said(folders[point])}"
            groups[point] = process.pid
    deadline = time.monotonic() + 15  # workers look every five seconds whether the program is still there
    while (left := [point for point, group in groups.items() if members(group)]) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert not left, f"processes outlive these runs: {left}"
    for point in POINTS:
        _, workers, _, place, _ = point
        count = int((folders[point] / "members.txt").read_text())
        if not workers:
            assert count == 1
        elif place in ("step", "validation", "within a write"):
            assert count in (1 + workers, 1 + 2 * workers), point  # for train, and after the first epoch for val
    return folders


@pytest.fixture(scope="module")
def resumed(killed) -> dict[tuple, int]:
    """The exit codes of the resumed runs. They begin in a later second than the killed ones did: TensorBoard orders
    the files of a run by that second."""
    time.sleep(1)
    codes = {}
    for pair in pairs():
        processes = {point: start(killed[point], [*words_of(point), "resume=latest"]) for point in pair}
        codes |= {point: ended(process) for point, process in processes.items()}
    return codes


def pairs() -> list[tuple]:
    return list(zip(POINTS[::2], POINTS[1::2], strict=True))


@pytest.mark.parametrize("point", POINTS, ids=lambda point: " ".join(map(str, point)))
def test_a_killed_run_that_is_resumed_ends_like_one_that_was_not(point, killed, undisturbed, resumed):
    folder = killed[point]
    assert resumed[point] == 0, said(folder)
    found, expected = outcome(folder), undisturbed[point[0]]
    assert found["weights"] == expected["weights"]
    assert found["metrics"] == expected["metrics"]
    assert found["curves"] == expected["curves"]
    assert found["files"] <= expected["files"], "something half-made is left"

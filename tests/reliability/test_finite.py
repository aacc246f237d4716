"""A NaN, wherever it comes from, ends the run within the step: exit code 1, one line, and what was good stays good."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

import dl_course as dl
from dl_course.cli import main
from dl_course.data import Digits, Split
from dl_course.errors import RunError
from dl_course.training import Supervised, load_checkpoint

WORDS = [
    "train", "experiment=mlp_digits", "model.net.hidden=[11]", "trainer.max_epochs=3", "callbacks.progress=false",
    "callbacks.graph=false", "callbacks.save_every=0",
]  # fmt: skip


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def files(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.ckpt")}


def the_run() -> Path:
    (run,) = Path("runs").glob("*/*")
    return run


def poison(monkeypatch, split: str, value: float) -> None:
    """Plant a value in one number of one sample of one split."""
    original = Digits.load

    def load(self: Digits) -> dict[str, Split]:
        splits = original(self)
        x = splits[split].x.float().clone()
        x[101].view(-1)[29] = value
        return splits | {split: Split(x, splits[split].y)}

    monkeypatch.setattr(Digits, "load", load)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    ("split", "found"),
    [
        ("train", r"error: step \d+: train/loss is nan; lower optimizer.lr, .*look for bad values in the data"),
        ("val", r"error: step 17: val/loss is nan; no checkpoint was overwritten"),
        ("test", r"error: step \d+: test/loss is nan; no checkpoint was overwritten"),
    ],
)
def test_in_the_data(split, found, value, monkeypatch, capsys):
    poison(monkeypatch, split, value)
    # statistics over poisoned data would poison every sample
    assert main([*WORDS, "data.normalize=none"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(found, line), line
    assert not (the_run() / "metrics.json").exists()
    for checkpoint in the_run().glob("*.ckpt"):
        assert all(tensor.isfinite().all() for tensor in load_checkpoint(checkpoint)["state_dict"].values())


@pytest.mark.parametrize("step", [0, 16, 17, 30])
def test_in_the_loss(step, monkeypatch, capsys):
    original, seen = Supervised.step, {}

    def poisoned(self, batch):
        values = original(self, batch)
        if self.training and self.global_step == step:
            assert not seen, "another step was made"
            seen.update(files(the_run()))
            seen["reached"] = ""
            values["loss"] = values["loss"] * float("nan")
        return values

    monkeypatch.setattr(Supervised, "step", poisoned)
    assert main(WORDS) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: step {step}: train/loss is nan; lower optimizer.lr")
    assert seen.pop("reached") == ""
    assert files(the_run()) == seen, "a checkpoint was written after the last good one"
    assert ("best.ckpt" in seen) == (step >= 17)


@pytest.mark.parametrize("optimizer", ["optimizer=sgd", "optimizer=adam"])
def test_in_the_learning_rate(optimizer, capsys):
    """The first step is finite, the second is not."""
    assert main([*WORDS, optimizer, "optimizer.lr=1e38"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert re.match(r"error: step [12]: (train/loss is|the weights are no longer finite).* lower optimizer.lr", line)
    assert not (the_run() / "best.ckpt").exists()


@pytest.mark.parametrize("gradient", [float("nan"), float("inf")])
def test_in_the_gradient_of_a_finite_loss(gradient, monkeypatch, capsys):
    """The weights are lost with the step, but nothing that is on the disk."""
    original = Supervised.on_after_backward

    def poisoned(self):
        original(self)
        if self.global_step == 20:
            next(self.parameters()).grad.fill_(gradient)

    monkeypatch.setattr(Supervised, "on_after_backward", poisoned)
    assert main(WORDS) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert re.match(r"error: step 21: the weights are no longer finite, no checkpoint was overwritten", line), line
    for checkpoint in the_run().glob("*.ckpt"):
        assert all(tensor.isfinite().all() for tensor in load_checkpoint(checkpoint)["state_dict"].values()), checkpoint
    assert load_checkpoint(the_run() / "best.ckpt")["global_step"] == 17
    monkeypatch.setattr(Supervised, "on_after_backward", original)
    assert main(["train", f"resume={the_run()}", "-q"]) == 0


def test_from_python_it_is_an_exception():
    with pytest.raises(RunError, match=r"lower optimizer.lr"):
        dl.train(dl.compose("mlp_digits", [*WORDS[2:], "optimizer.lr=1e38"]))


# -- nothing to train on, nothing to judge by --------------------------------------------------------------------------


def test_a_metric_that_is_monitored_but_not_there(capsys):
    assert main([*WORDS, "callbacks.monitor=val/rmse"]) in (1, 2)
    lines = capsys.readouterr().err.splitlines()
    assert 1 <= len(lines) <= 5
    assert "val/rmse" in lines[0]
    assert "val/loss" in " ".join(lines)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_an_empty_split_is_refused_before_there_is_a_run(split, monkeypatch, capsys):
    original = Digits.load
    monkeypatch.setattr(
        Digits,
        "load",
        lambda self: {k: Split(*(t[:0] if k == split else t for t in v)) for k, v in original(self).items()},
    )
    assert main(WORDS) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) <= 5
    assert f"split '{split}' is empty" in lines[0]
    assert not Path("runs").exists()


def test_batches_that_are_all_dropped_are_refused_before_the_first_step(monkeypatch, capsys):
    original = Digits.loader

    def dropping(self, name, **options):
        loader = original(self, name, **options)
        return type(loader)(self.tensors(name), 10_000, shuffle=True, drop_last=True) if name == "train" else loader

    monkeypatch.setattr(Digits, "loader", dropping)
    assert main(WORDS) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) <= 5
    assert "no batch to train or evaluate on" in lines[0]
    assert "drop_last=True" in lines[0]
    assert not list(Path("runs").rglob("*.ckpt"))


def test_no_validation_within_the_run_leaves_no_best_and_is_said(capsys):
    """Every fifth epoch is validated, but there are three."""
    code = main([*WORDS, "trainer.check_val_every_n_epoch=5"])
    shown = capsys.readouterr()
    assert code in (1, 2), shown
    assert "check_val_every_n_epoch" in shown.err

"""Measuring again: the same bits whatever the precision, and data that have no test split."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from PIL import Image

import dl_course as dl
from dl_course import evaluate
from dl_course.errors import ConfigError
from dl_course.training import load_checkpoint

SMALL = ["trainer.max_epochs=1", "callbacks.progress=false"]


@pytest.fixture(autouse=True)
def quiet_in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DL_COURSE_QUIET", "1")


@pytest.mark.parametrize("precision", ["64-true", "bf16-mixed"])
def test_the_numbers_are_the_same_in_every_precision(precision):
    run = dl.train(dl.compose("mlp_moons", [*SMALL, f"precision={precision}"]))
    measured = evaluate.run_command(str(run.path))
    assert measured == {tag: run.metrics[tag] for tag in measured}
    loaded = dl.load(run.path).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in run.model.state_dict().items())


def test_without_a_test_split_there_are_no_test_metrics(tmp_path):
    for split in ("train", "val"):
        for shade, name in enumerate(("dark", "light")):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for i in range(3):
                Image.new("L", (5, 5), 200 * shade + i).save(folder / f"{i}.png")
    run = dl.train(dl.compose("mlp_folder", [*SMALL, "data.root=photos", "data.image_size=5"]))
    stages = {tag.split("/")[0] for tag in json.loads((run.path / "metrics.json").read_text()) if "/" in tag}
    assert stages == {"train", "val"}
    assert sys.modules["dl_course.train"].summary(run.metrics).caption == "no test split"
    assert evaluate.run_command(str(run.path)) == {tag: run.metrics[tag] for tag in ("val/loss", "val/accuracy")}
    with pytest.raises(ConfigError, match="no such split"):
        evaluate.run_command(str(run.path), "test")


def test_what_a_run_reports_is_its_best_checkpoint_not_its_last():
    run = dl.train(dl.compose("mlp_moons", [*SMALL, "trainer.max_epochs=9", "optimizer=lbfgs", "data.n=50"]))
    best, last = (load_checkpoint(run.path / name) for name in ("best.ckpt", "resume.ckpt"))
    assert best["global_step"] < last["global_step"], "fifty points were to be overfitted"
    assert run.metrics["val/loss"] == best["monitor"]["value"] < last["results"]["val/loss"]
    assert evaluate.run_command(str(run.path))["test/loss"] == run.metrics["test/loss"]
    assert all(torch.equal(run.model.state_dict()[name], tensor) for name, tensor in best["state_dict"].items())

"""What TensorBoard is given: one event an epoch, curves in shared charts, hyperparameters worth a column."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

import dl_course as dl
from dl_course.build import plain_config
from dl_course.training.runs import let_events_follow
from dl_course.training.tensorboard import EventLogger, hyperparameters


def test_hyperparameters_are_the_values_that_matter():
    config = dl.compose("mlp_digits", ["optimizer.lr=0.25", "data.augment.crop=1", "trainer.max_epochs=7", "seed=0"])
    found = hyperparameters(plain_config(config))
    wanted = {
        "experiment": "mlp_digits",
        "optimizer": "adam",
        "optimizer.lr": 0.25,
        "data": "Digits",
        "data.augment.crop": 1,
        "model.net": "MLP",
        "trainer.max_epochs": 7,
        "seed": 0,
    }
    assert wanted.items() <= found.items()
    left_out = ("_target_", "augment.flip", "num_workers", "accelerator", "callbacks", "model.optimizer", "in_features")
    for name in found:
        assert not any(part in name for part in left_out), name
    assert len(found) < 25
    assert all(isinstance(value, bool | int | float | str) for value in found.values())


def test_values_of_one_step_are_one_event(tmp_path: Path):
    logger = EventLogger(tmp_path)
    logger.log_metrics({"train/loss": 0.25, "train/accuracy": 0.5}, 3)
    logger.log_metrics({}, 4)
    logger.log_metrics({"pair": {"a": 1.0, "b": 2.0}}, 5)
    logger.finalize("success")
    logger.log_metrics({"train/loss": 0.125}, 6)  # training has ended; the final metrics follow
    logger.close()
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [(3, 0.25), (6, 0.125)]
    (first,) = tmp_path.glob("events.out.tfevents.*")  # one file; only {"pair": …} opens folders of its own
    carrying = [event for event in EventFileLoader(str(first)).Load() if event.step == 3]
    assert len(carrying) == 1
    assert {value.tag for value in carrying[0].summary.value} == {"train/loss", "train/accuracy"}


@pytest.mark.parametrize("metric", ["loss", "accuracy"])
def test_train_and_val_share_a_chart(tmp_path: Path, metric: str):
    from tensorboard.plugins.custom_scalar import layout_pb2

    config = dl.compose("softmax_digits", ["trainer.max_epochs=2", "callbacks.progress=false"])
    run = dl.train(config, folder=tmp_path)
    events = EventAccumulator(str(run.path), size_guidance={"tensors": 0}).Reload()
    (event,) = events.Tensors("custom_scalars__config__")
    layout = layout_pb2.Layout.FromString(event.tensor_proto.string_val[0])  # pyright: ignore
    charts = {chart.title: list(chart.multiline.tag) for chart in layout.category[0].chart}
    assert charts[metric] == [f"train/{metric}", f"val/{metric}"]
    steps = {tag: [event.step for event in events.Scalars(tag)] for tag in (*charts[metric], "epoch", "optimizer/lr")}
    assert len(set(map(tuple, steps.values()))) == 1  # one axis for all of them
    assert [event.value for event in events.Scalars("epoch")] == [1.0, 2.0]


def test_the_events_of_a_continuation_are_read_after_those_before_it(tmp_path: Path):
    """Names hold the second of their beginning: a new file must not share it with one that is there already."""
    begun = int(time.time())
    (tmp_path / f"events.out.tfevents.{begun}.host.99999.0").touch()
    let_events_follow(tmp_path)
    assert int(time.time()) > begun
    (tmp_path / f"events.out.tfevents.{begun + 10_000}.host.1.0").touch()  # a clock that was put back
    started = time.monotonic()
    let_events_follow(tmp_path)
    assert time.monotonic() - started < 1

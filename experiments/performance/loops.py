"""Two loops that training benchmarks compare: that of `dl-course train`, and the barest one that learns the same."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor

from dl_course.build import build_model
from dl_course.data import DataModule
from dl_course.train import trainer_of
from dl_course.training.checkpoints import BEST, RESUME, load_checkpoint
from dl_course.training.process import seed_everything, threads

Loss = Callable[[Tensor, Tensor], Tensor]


def course_arm(config: DictConfig, data: DataModule) -> Iterator[object]:
    """Timed: `fit`, by the Trainer, callbacks and logger that `dl-course train` would build from the same config.

    Checked afterwards: both checkpoints load, hold the last step, and the events of both splits were written.
    """
    with tempfile.TemporaryDirectory() as name, threads(1):
        folder = Path(name)
        seed_everything(config.seed)
        task = build_model(config)
        trainer = trainer_of(config, folder)
        yield
        trainer.fit(task, datamodule=data)
        yield
        steps = config.trainer.max_epochs * len(data.train_dataloader())
        assert trainer.global_step == steps, f"{trainer.global_step} steps instead of {steps}"
        assert load_checkpoint(folder / RESUME)["global_step"] == steps
        assert load_checkpoint(folder / BEST)["state_dict"]
        require_events(folder, {"train/loss", "val/loss"}, config.trainer.max_epochs)


def require_events(folder: Path, tags: set[str], count: int) -> None:
    """Raise AssertionError unless TensorBoard's event files in `folder` hold `count` points of each curve."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    for tag in tags:
        assert len(events.Scalars(tag)) == count, f"{len(events.Scalars(tag))} points of {tag} instead of {count}"


def bare_arm(
    config: DictConfig, data: DataModule, loss: Loss, *, accuracy: bool = False, records: bool = False
) -> Iterator[object]:
    """Timed: the loop that one writes by hand, on the same network, optimiser, schedule and loader.

    After every epoch it validates: the mean loss and, with `accuracy`, the share that is right. records: it also writes
    the curves for TensorBoard and, at the end, one checkpoint of weights and optimiser. Nothing else: no training
    metric, no check for NaN, no best weights.
    """
    from torch.utils.tensorboard import SummaryWriter

    with tempfile.TemporaryDirectory() as name, threads(1):
        torch.use_deterministic_algorithms(False)
        seed_everything(config.seed)
        task: Any = build_model(config)
        net = task.net
        train, val = data.train_dataloader(), data.val_dataloader()
        epochs = config.trainer.max_epochs
        optimizer = task.optimizer_factory(net.parameters())
        scheduler = None
        if task.scheduler_factory is not None:
            scheduler = task.scheduler_factory(optimizer, total_steps=epochs * len(train), steps_per_epoch=len(train))
        yield
        writer = SummaryWriter(name) if records else None
        for epoch in range(epochs):
            net.train()
            total = torch.zeros(())
            for x, y in train:
                value = loss(net(x), y)
                optimizer.zero_grad()
                value.backward()
                optimizer.step()
                if scheduler is not None:
                    scheduler.step()
                total += value.detach()
            net.eval()
            val_loss, right = torch.zeros(()), torch.zeros((), dtype=torch.int64)
            with torch.inference_mode():
                for x, y in val:
                    prediction = net(x)
                    val_loss += loss(prediction, y) * len(x)
                    if accuracy:
                        right += (prediction.argmax(1) == y).sum()
            val_loss /= val.num_samples
            if writer is not None:
                writer.add_scalar("train/loss", total / len(train), epoch)
                writer.add_scalar("val/loss", val_loss, epoch)
        if writer is not None:
            torch.save({"model": net.state_dict(), "optimizer": optimizer.state_dict()}, f"{name}/last.ckpt")
            writer.close()
        yield
        assert math.isfinite(float(val_loss))
        assert 0 <= int(right) <= val.num_samples

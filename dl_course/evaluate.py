"""Load a run or a checkpoint, and measure it again from the folder alone."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dl_course.build import build, build_data, build_model
from dl_course.check import check
from dl_course.errors import ConfigError, suggest
from dl_course.training import Task, runs
from dl_course.training.checkpoints import load_checkpoint
from dl_course.training.process import threads

SPLITS = ("val", "test")
MAY_CHANGE = (
    "data.root",
    "data.path",
    "data.num_workers",
    "threads",
    "trainer.accelerator",
    "trainer.devices",
    "precision",
)


def load(run_or_checkpoint: str | Path) -> Task:
    """The trained task of a run folder (its best checkpoint) or of a checkpoint, in eval mode; `.net` is its network.

    Needs neither the data nor the code that wrote the file, only this package. Raises ConfigError or RunError as
    `dl_course.training.checkpoints.load_checkpoint` does.
    """
    return _rebuild(load_checkpoint(runs.find_checkpoint(run_or_checkpoint)))


def _rebuild(checkpoint: dict[str, Any]) -> Task:
    config = DictConfig(checkpoint["config"])
    check(config)
    task = build_model(config)
    try:
        task.load_state_dict(checkpoint["state_dict"], assign=True)  # in its own precision: float64 stays float64
    except RuntimeError as error:
        raise ConfigError(
            f"the checkpoint's weights do not fit its own configuration\n{str(error).splitlines()[1].strip()}"
        ) from error
    return task.eval()


def evaluate(task: Task, data: Any, trainer: Any, splits: Sequence[str] = SPLITS) -> dict[str, float]:
    """`{"val/loss": …, "test/accuracy": …}` of `task` as it stands, on those of `splits` that the data has."""
    values: dict[str, float] = {}
    for split in splits:
        loader = getattr(data, f"{split}_dataloader")()
        if loader is None:
            continue
        measure = trainer.validate if split == "val" else trainer.test
        measure(task, dataloaders=loader, verbose=False)
        values |= task_metrics(trainer, split)
    return values


def task_metrics(trainer: Any, stage: str) -> dict[str, float]:
    """What the trainer measured last, of one stage (the task itself may have run in other processes)."""
    return {tag: float(value) for tag, value in trainer.callback_metrics.items() if tag.startswith(f"{stage}/")}


def run_command(target: str, split: str | None = None, overrides: Sequence[str] = ()) -> dict[str, float]:
    """`dl-course eval`: measure a run again and print the table; nothing in its folder is read but the checkpoint."""
    from rich.console import Console
    from rich.table import Table

    if split is not None and split not in SPLITS:
        raise ConfigError(f"split={split}: expected val or test{suggest(split, SPLITS)}")
    path = runs.find_checkpoint(target)
    checkpoint = load_checkpoint(path)
    config = _overridden(DictConfig(checkpoint["config"]), overrides)
    check(config)
    with threads(config.threads):
        data = build_data(config)
        if checkpoint.get("data"):
            data.load_state_dict(checkpoint["data"])
        task = _rebuild(checkpoint | {"config": OmegaConf.to_container(config, resolve=True)})
        trainer = build(config.trainer, "trainer", precision=config.precision, folder=str(path.parent))
        splits = (split,) if split else SPLITS
        values = evaluate(task, data, trainer, splits)
    if not values:
        raise ConfigError(f"split={split}: {config.experiment.name} has no such split")
    if not os.environ.get("DL_COURSE_QUIET"):
        table = Table("metric", "value", title=f"{config.experiment.name}, step {checkpoint.get('global_step', '?')}")
        for tag, value in values.items():
            table.add_row(tag, repr(value))
        Console(highlight=False, soft_wrap=True).print(table)
    return values


def _overridden(config: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """The checkpoint's configuration with the few keys changed that do not change what is measured."""
    for override in overrides:
        key, separator, value = override.partition("=")
        if not separator or key not in MAY_CHANGE:
            raise ConfigError(
                f"{override}: eval takes split=val|test and {', '.join(MAY_CHANGE)}{suggest(key, MAY_CHANGE)}"
            )
        try:
            OmegaConf.update(config, key, OmegaConf.from_dotlist([f"value={value}"]).value, force_add=True)
        except OmegaConfBaseException as error:
            raise ConfigError(f"{override}: {str(error).splitlines()[0]}") from error
    return config

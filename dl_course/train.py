"""Train what a configuration describes: seed → data → model → fit → best checkpoint → val and test → metrics.json."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from omegaconf import DictConfig, OmegaConf

from dl_course.build import build, build_data, build_model, check_fit, plain_config
from dl_course.check import check
from dl_course.errors import ConfigError, RunError
from dl_course.evaluate import evaluate, load, task_metrics
from dl_course.training import runs
from dl_course.training.checkpoints import BEST, RESUME, load_checkpoint, probe, steps_and_epochs
from dl_course.training.interrupts import leaving_at_once
from dl_course.training.process import log, log_file, seed_everything, threads
from dl_course.training.resume import continued
from dl_course.training.tensorboard import EventLogger, hyperparameters


@dataclass(frozen=True)
class Run:
    """What training leaves behind: the run folder, its metrics, and the best model in eval mode."""

    path: Path
    metrics: dict[str, Any]
    model: Any


def train(config: DictConfig, *, folder: str | Path | None = None, overrides: Sequence[str] | None = None) -> Run:
    """Run the experiment that `config` describes and return its folder, metrics and best model.

    folder: where the run's files go, a new `runs/<experiment>/<time>-<seed>` by default. overrides: what the user
    typed, for `resume=<run>`, where all else comes from the run; without it the whole configuration is compared.
    Raises ConfigError for wrong input, before any data or model work where that is possible; RunError for trouble on
    the way; SystemExit(130 or 143) when stopped by a signal, after saving.
    """
    config = DictConfig(OmegaConf.to_container(config))  # the caller's own stays as it was
    continuation = continued(config, overrides)
    run, config = continuation.run, continuation.config
    check(config)
    if run is not None and continuation.finished:
        _say(f"{run} is finished: nothing to do (trainer.max_epochs=… or trainer.max_steps=… prolongs it)")
        return Run(run, runs.read_metrics(run), load(run))
    seed_everything(config.seed)
    with threads(config.threads):
        data = build_data(config)
        task = build_model(config)
        plain = plain_config(config)
        if config.init_from:
            _start_from(task, config.init_from)
        check_fit(task, data, config.callbacks.get("monitor", "last"))
        trainer_of(config, Path())  # an impossible one, such as a missing GPU, is refused before there is a folder
        if config.debug == "dry_run":
            return Run(Path(), {"parameters": _parameters(task)}, task)
        if run is None:
            run = Path(folder) if folder else runs.new_folder(plain["experiment"]["name"], config.seed)
        probe(run, task)
        with log_file(run / runs.LOG), leaving_at_once():
            try:
                return _fit(config, plain, data, task, run, continuation.checkpoint)
            except SystemExit:
                _say(f"stopped after a signal; go on with: dl-course train resume={run}")
                raise


def _fit(config: DictConfig, plain: dict[str, Any], data: Any, task: Any, run: Path, checkpoint: Path | None) -> Run:
    """Everything that happens inside a run folder. checkpoint: where to go on from, None at the beginning."""
    environment = runs.environment()
    log.info("%s", environment)
    for note in getattr(data, "notes", ()):
        _say(f"note: {note}")
    (run / runs.METRICS).unlink(missing_ok=True)  # a finished run that is prolonged is no longer finished
    runs.remove_unfinished(run)
    runs.write_text(run / runs.CONFIG, OmegaConf.to_yaml(OmegaConf.create(plain)))
    # 0, too, replaces: a run that was killed before its first save may have drawn points of its curves.
    first_step = load_checkpoint(checkpoint)["global_step"] + 1 if checkpoint else 0
    runs.let_events_follow(run)
    trainer = trainer_of(config, run, first_step)
    with closing(trainer.logger) if isinstance(trainer.logger, EventLogger) else nullcontext():
        began = time.monotonic()
        trainer.fit(task, datamodule=data, ckpt_path=checkpoint, weights_only=True)
        seconds = time.monotonic() - began
        trainer.strategy.barrier()  # the checkpoints are written by the first process
        # Of a run that was stopped after its last step, the checkpoint knows; of one in other processes, the trainer.
        training = {tag: value for tag, value in task.results.items() if tag.startswith("train/")}
        training |= task_metrics(trainer, "train")
        steps, epochs = _position(run)
        task.load_state_dict(load_checkpoint(run / BEST)["state_dict"])
        evaluated = evaluate(task, data, trainer)
        metrics = {
            **training,
            **evaluated,
            "steps": steps,
            "epochs": epochs,
            "seconds": round(seconds, 3),
            "parameters": _parameters(task),
            "seed": config.seed,
        }
        if trainer.is_global_zero:
            # One step further: where a run goes on, be it from its last step, it replaces what lies beyond.
            _log_hyperparameters(trainer, plain, evaluated, steps + 1)
            runs.write_metrics(run, {**metrics, "run": environment | {"threads": config.threads}})
            log.info("%s", metrics)
    return Run(run, metrics, task.eval())


def trainer_of(config: DictConfig, folder: Path, first_step: int | None = None) -> Trainer:
    """The Trainer of a run, with the callbacks and the logger of its configuration, which write into `folder`."""
    return build(
        config.trainer,
        "trainer",
        precision=config.precision,
        folder=str(folder),
        logger=build(config.logger, "logger", folder=str(folder), first_step=first_step),
        callbacks=build(config.callbacks, "callbacks", folder=str(folder), config=plain_config(config)),
    )


def _say(sentence: str) -> None:
    """Tell the user and the log file."""
    log.info(sentence)
    if runs.is_first_process() and not os.environ.get("DL_COURSE_QUIET"):
        print(sentence, file=sys.stderr, flush=True)


def _position(run: Path) -> tuple[int, int]:
    """Optimiser steps and epochs of a run that has ended, from its last checkpoint. Raises RunError if there are none.

    Not from the trainer: with `ddp_fork` it trained in other processes.
    """
    last = load_checkpoint(run / RESUME) if (run / RESUME).is_file() else {}
    if not last.get("global_step"):
        raise RunError("training ended after 0 steps: nothing was learned")
    return steps_and_epochs(last)


def _log_hyperparameters(trainer: Trainer, plain: dict[str, Any], evaluated: dict[str, float], step: int) -> None:
    """The HParams tab shows the chosen values beside the final metrics, measured on the best checkpoint."""
    if isinstance(trainer.logger, EventLogger):
        final = {f"final/{tag}": value for tag, value in evaluated.items()}
        trainer.logger.log_hyperparams(hyperparameters(plain), final, step=step)


def _start_from(task: torch.nn.Module, source: str) -> None:
    """Copy the weights of a run or checkpoint into a fresh model of the same shape."""
    path = runs.find_checkpoint(source)
    try:
        task.load_state_dict(load_checkpoint(path)["state_dict"])
    except RuntimeError as error:
        first = [line.strip() for line in str(error).splitlines()[1:3]]
        raise ConfigError(f"init_from={source} holds another model\n" + "\n".join(first)) from error


def _parameters(module: torch.nn.Module) -> int:
    """The number of trainable parameters."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


# -- the command -------------------------------------------------------------------------------------------------------


def run_command(
    config: DictConfig, overrides: Sequence[str] | None = None, folder: str | Path | None = None
) -> float | None:
    """`dl-course train`: train, then print the test metrics, the run folder and what to type next.

    Returns the monitored validation metric, which sweeps minimise or maximise.
    """
    from rich.console import Console

    quiet = bool(os.environ.get("DL_COURSE_QUIET")) or not runs.is_first_process()
    console = Console(highlight=False, soft_wrap=True)
    run = train(config, folder=folder, overrides=overrides)
    if config.debug == "dry_run":
        if not quiet:
            console.print(run.model)
            console.print(f"{run.metrics['parameters']:,} parameters; a dry run: nothing was trained or written")
        return None
    if not quiet:
        console.print(summary(run.metrics))
        console.print(f"run folder  {run.path}\n")
        console.print("next")
        for command, meaning in next_commands(run):
            console.print(f"  {command:<58} [dim]{meaning}[/dim]")
    monitor = config.callbacks.get("monitor", "val/loss")
    return run.metrics.get(monitor)


def summary(metrics: dict[str, Any]) -> Any:
    """A small table: one row a metric, one column a split."""
    from rich.table import Table

    stages = [stage for stage in ("train", "val", "test") if any(tag.startswith(f"{stage}/") for tag in metrics)]
    names = list(dict.fromkeys(tag.split("/", 1)[1] for tag in metrics if "/" in tag))
    table = Table(
        "", *stages, title=f"{metrics['epochs']} epochs, {metrics['steps']} steps, {metrics['seconds']:.1f} s"
    )
    table.caption = None if "test" in stages else "no test split"
    for name in names:
        table.add_row(name, *(_number(metrics.get(f"{stage}/{name}")) for stage in stages))
    return table


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}" if abs(value) < 1000 else f"{value:,.1f}"


def next_commands(run: Run) -> list[tuple[str, str]]:
    """Three commands worth typing after a run."""
    config = OmegaConf.load(run.path / runs.CONFIG)
    words = [f"experiment={config.experiment.name}"]
    if config.experiment.data == "yours":  # such an experiment does not run without its file
        words += [f"data.{key}={config.data[key]}" for key in ("path", "target", "root") if config.data.get(key)]
    words += [f"optimizer.lr={config.optimizer.lr / 2:g}"] if "optimizer" in config and config.optimizer else ["seed=1"]
    return [
        (f"dl-course eval {run.path}", "the same numbers again, from the folder alone"),
        ("tensorboard --logdir runs", "curves, graph and hyperparameters"),
        (f"dl-course train {' '.join(words)}", "the same with one knob turned"),
    ]

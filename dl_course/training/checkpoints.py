"""Checkpoints: written atomically, loaded safely, and enough of them to go on exactly where a run stopped.

A run folder holds `best.ckpt` (the weights that are evaluated), `resume.ckpt` (everything that continuing needs) and
`resume-previous.ckpt` (the one before it). Each carries a format version and the resolved configuration as plain
containers, so that it can be rebuilt from the file alone and always loads with `weights_only=True`.
"""

from __future__ import annotations

import math
import os
import random
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from dl_course.errors import ConfigError, RunError, suggest
from dl_course.training.ema import EMA
from dl_course.training.interrupts import Interrupts
from dl_course.training.metrics import higher_is_better

FORMAT = 1
BEST, RESUME, PREVIOUS, HELD = "best.ckpt", "resume.ckpt", "resume-previous.ckpt", ".resume-held.ckpt"


def save_atomically(content: Mapping[str, Any], path: str | Path) -> None:
    """torch.save into a temporary file of the same folder, flush it to the disk, then rename it over `path`.

    Whatever happens on the way (a full disk, a kill), `path` holds either the old content or the new one, whole.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            torch.save(dict(content), file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:  # torch reports a failed write as RuntimeError
        temporary.unlink(missing_ok=True)
        raise RunError(f"cannot write {path}: {error}\nthe checkpoint before it is intact") from error


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """The content of a checkpoint that this program wrote; tensors and plain containers only, no code is executed.

    Raises ConfigError (exit 2) for a path that is no checkpoint of ours, RunError (exit 1) for a damaged one, with the
    older file to take instead where there is one.
    """
    refuse_url(path)
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"{path}: no such file")
    with open(path, "rb") as file:
        looks_like_ours = file.read(4) == b"PK\x03\x04"  # torch.save writes a zip archive
    size = path.stat().st_size
    older = path.with_name(PREVIOUS)
    remedy = f"; take {older} instead" if path.name == RESUME and older.is_file() else ""
    if not looks_like_ours and path.name not in (BEST, RESUME, PREVIOUS):
        raise ConfigError(
            f"{path}: not a checkpoint ({size} bytes; expected a file such as runs/<experiment>/<run>/{BEST})"
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        if "weights_only" in str(error).lower() or "unsupported" in str(error).lower():
            raise ConfigError(
                f"{path}: refused, it holds more than tensors and plain values (unsafe to load)"
            ) from error
        raise RunError(f"{path}: damaged or incomplete checkpoint ({size} bytes){remedy}") from error
    keys = ("dl_course", "config", "state_dict")
    if not isinstance(content, dict) or not all(isinstance(content.get(key), dict) for key in keys):
        raise ConfigError(f"{path}: a torch file, but not a checkpoint of dl-course (no configuration in it)")
    found = content["dl_course"].get("format")
    if found != FORMAT:
        raise ConfigError(f"{path}: checkpoint format {found}, this program reads format {FORMAT}")
    return content


def refuse_url(path: str | Path) -> None:
    """Raise ConfigError for an address: what is loaded must lie on this machine already."""
    if "://" in str(path):
        raise ConfigError(f"{path}: checkpoints are loaded from local files only")


def steps_and_epochs(state: Mapping[str, Any]) -> tuple[int, int]:
    """The optimiser steps and the whole epochs that a state for resuming has behind it."""
    return state["global_step"], state["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]


def header(config: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """What every checkpoint of ours begins with: format, kind and the resolved configuration."""
    from dl_course import __version__

    return {"dl_course": {"format": FORMAT, "kind": kind, "version": __version__}, "config": dict(config)}


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint writer and reader, atomic and safe."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        save_atomically(checkpoint, path)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = True) -> dict[str, Any]:
        # Also reads Lightning's own temporary files; `load_checkpoint` has looked at what a run is resumed from.
        return torch.load(path, map_location=map_location, weights_only=True)


def random_state() -> dict[str, Any]:
    """The state of the random generators of torch, CUDA, NumPy and Python, as plain containers and tensors."""
    kind, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    keys = torch.from_numpy(np.asarray(keys, dtype=np.int64))
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": (str(kind), keys, int(position), int(has_gauss), float(gauss)),
        "python": random.getstate(),
    }


def set_random_state(state: Mapping[str, Any]) -> None:
    """Put the generators back to where `random_state` found them."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))


class Checkpoints(Checkpoint):
    """Keeps `best.ckpt` and `resume.ckpt` of a run folder.

    The best weights so far are held in memory and written together with the state for resuming: at most every
    `every_seconds`, at the end of training, and before stopping on a signal. That keeps both files consistent with each
    other and costs a tiny model nothing per epoch. A NaN never reaches either file, because the task raises before.

    monitor: a tag such as `val/loss`; whether up or down is better follows from the metric's name. `last` keeps the
    newest weights, for problems that are solved to convergence.
    Raises ConfigError if the monitored metric does not exist at the end of an epoch.
    """

    def __init__(
        self,
        folder: str | Path,
        config: Mapping[str, Any],
        monitor: str = "val/loss",
        every_seconds: float = 30.0,
    ) -> None:
        super().__init__()
        self.folder, self.config = Path(folder), config
        self.interrupts = Interrupts()
        self.monitor, self.every_seconds = monitor, every_seconds
        self.sign = -1.0 if higher_is_better(monitor) else 1.0
        self.best_value = math.inf  # of sign · metric: smaller is better
        self.best_step = 0
        self._best: dict[str, Any] | None = None  # improved since it was last written
        self._position: dict[str, Any] | None = None  # of the loader, from the checkpoint that is resumed
        self._holds = False  # a state from the last step, in the midst of an epoch, that is to be the newest
        self._written = time.monotonic()

    # -- which weights are the best ----------------------------------------------------------------------------------

    def _consider(self, trainer: Trainer, task: LightningModule) -> None:
        results = getattr(task, "results", {}) | {"last": -trainer.global_step}
        if self.monitor not in results:
            near = suggest(self.monitor, results)
            raise ConfigError(
                f"callbacks.monitor={self.monitor} was not computed{near}\navailable: {', '.join(sorted(results))}"
            )
        value = self.sign * results[self.monitor]
        if value < self.best_value:
            self.best_value, self.best_step = value, trainer.global_step
            data = getattr(trainer, "datamodule", None)
            self._best = header(self.config, "best") | {
                "state_dict": _evaluated(trainer, task),
                "data": data.state_dict() if data is not None else {},
                "epoch": trainer.current_epoch,
                "global_step": trainer.global_step,
                "monitor": {"name": self.monitor, "value": results[self.monitor]},
            }

    # -- when they are written ---------------------------------------------------------------------------------------

    def write(self, trainer: Trainer) -> None:
        """Write what changed, best first: should the program die in between, going on from the older state finds the
        same best weights again."""
        _refuse_lost_weights(trainer)
        self._write_best(trainer)
        self._make_room(trainer)
        trainer.save_checkpoint(self.folder / RESUME)
        self._written = time.monotonic()

    def _write_best(self, trainer: Trainer) -> None:
        if self._best is not None and trainer.is_global_zero:
            save_atomically(self._best, self.folder / BEST)
        self._best = None

    def _make_room(self, trainer: Trainer) -> None:
        if trainer.is_global_zero and (self.folder / RESUME).is_file():
            _keep(self.folder / RESUME, self.folder / PREVIOUS)

    def _write_held(self, trainer: Trainer, task: LightningModule) -> None:
        """The end of a run that a limit in steps ended in the midst of an epoch: best, and the state from there.

        The state at the end of the epoch would make a continuation skip the rest of the epoch's samples. The state
        from the last step became the newest only now, since validation and the best weights were still to come.
        """
        self._write_best(trainer)
        if trainer.is_global_zero:
            held = torch.load(self.folder / HELD, map_location="cpu", weights_only=True)
            self._make_room(trainer)
            save_atomically(held | {"results": dict(getattr(task, "results", {}))}, self.folder / RESUME)
            (self.folder / HELD).unlink()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.interrupts.install()
        if self._position is not None:
            # Lightning restores a loader's position too, but not where a schedule has asked for the number of steps:
            # the loader is then made before the checkpoint is read. Its order is decided later than here.
            loader: Any = trainer.train_dataloader
            loader.load_state_dict(self._position)
            self._position = None
        self._written = time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        ending = trainer.should_stop  # at a limit in steps
        due = ending or self.interrupts.received or time.monotonic() - self._written > self.every_seconds
        # The end of an epoch has its own hook; within gradient accumulation there is no state that could be resumed.
        if (
            due
            and batch_idx + 1 < trainer.num_training_batches
            and (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        ):
            if ending:
                _refuse_lost_weights(trainer)
                trainer.save_checkpoint(self.folder / HELD)
                self._holds = True
            else:
                self.write(trainer)
                self.interrupts.leave()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.monitor.startswith("val/") and trainer.state.fn == "fit":
            self._consider(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self.monitor.startswith("val/"):
            self._consider(trainer, pl_module)
        last = trainer.should_stop or trainer.fit_loop.done
        if self._holds:
            self._write_held(trainer, pl_module)
        elif last or self.interrupts.received or time.monotonic() - self._written > self.every_seconds:
            self.write(trainer)
        self.interrupts.leave()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.interrupts.remove()

    # -- what a resumed run must know --------------------------------------------------------------------------------

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint.update(header(self.config, "resume"))
        loader: Any = trainer.train_dataloader
        if hasattr(loader, "state_dict"):
            checkpoint["position"] = loader.state_dict()

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._position = checkpoint.get("position")

    def state_dict(self) -> dict[str, Any]:
        return {"best_value": self.best_value, "best_step": self.best_step, "random": random_state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best_value, self.best_step = state_dict["best_value"], state_dict["best_step"]
        # Here and not in a hook such as `on_train_start`: by then Lightning has drawn from the generators.
        set_random_state(state_dict["random"])


def _evaluated(trainer: Trainer, task: LightningModule) -> dict[str, torch.Tensor]:
    """A copy of the weights that are evaluated: the moving average where there is one, else the task's own."""
    callbacks: list[Callback] = trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue]
    averages: dict[str, torch.Tensor] = next(
        (callback.average for callback in callbacks if isinstance(callback, EMA)), {}
    )
    return {name: tensor.detach().cpu().clone() for name, tensor in {**task.state_dict(), **averages}.items()}


def _refuse_lost_weights(trainer: Trainer) -> None:
    """Raise RunError if a weight is not finite: a finite loss can have a gradient that is not."""
    if not all(parameter.isfinite().all() for parameter in trainer.lightning_module.parameters()):
        raise RunError(
            f"step {trainer.global_step}: the weights are no longer finite, no checkpoint was overwritten; "
            "lower optimizer.lr or set trainer.gradient_clip_val=1"
        )


def _keep(newest: Path, previous: Path) -> None:
    """Make `previous` another name of the file `newest`, without a moment in which either is missing."""
    link = previous.with_name(f".{previous.name}.{os.getpid()}.tmp")
    link.unlink(missing_ok=True)
    try:
        os.link(newest, link)
    except OSError:  # a file system without hard links
        shutil.copy2(newest, link)
    os.replace(link, previous)


def probe(folder: str | Path, module: torch.nn.Module | None = None) -> None:
    """Create `folder` and write into it, so that a run that could not save is refused before its first step.

    module: what will be saved; raises RunError, too, if the disk has no room for its checkpoints: best, resume and the
    one before, the latter two with up to two numbers of the optimiser's beside each weight.
    """
    folder = Path(folder)
    try:
        _try_out(folder, module)
    except RunError:
        with suppress(OSError):
            folder.rmdir()  # a new folder, still empty
        raise


def _try_out(folder: Path, module: torch.nn.Module | None) -> None:
    trial = folder / f".probe.{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            trial.write_bytes(b"\0" * 4096)
        finally:
            trial.unlink(missing_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise RunError(f"cannot write into {folder}: {error.strerror or error}") from error
    weights = sum(t.nbytes for t in module.state_dict().values()) if module is not None else 0
    needed = 8 * weights + 2**20  # and a megabyte for events and log
    if free < needed:
        raise RunError(
            f"{folder}: {free / 2**20:.1f} MiB are free, the checkpoints of this model need {needed / 2**20:.1f}"
        )

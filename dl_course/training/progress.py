"""A progress bar that asks the clock, not the step, whether it should be drawn."""

from __future__ import annotations

import sys
import time
import warnings
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from tqdm import TqdmWarning

with warnings.catch_warnings():
    warnings.simplefilter("ignore", TqdmWarning)  # a notebook without widgets gets the plain bar
    from tqdm.auto import tqdm

from dl_course.training.limits import total_steps


class Progress(Callback):
    """One bar over all steps of a run, with the epoch and the latest metrics beside it.

    It is redrawn at most ten times a second, so a step costs one look at the clock (drawing on every step would cost a
    small model more than its training). Where the output is no terminal it writes a plain line per epoch instead, at
    most one every five seconds.
    """

    interval_s = 0.1
    line_interval_s = 5.0

    def __init__(self) -> None:
        self.bar: tqdm | None = None
        self._next = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and (sys.stderr.isatty() or "ipykernel" in sys.modules):
            self.bar = tqdm(
                total=total_steps(trainer),
                initial=trainer.global_step,
                unit=" steps",
                dynamic_ncols=True,
                leave=False,
            )
        self._next = time.monotonic() + (self.interval_s if self.bar is not None else self.line_interval_s)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.bar is not None and (now := time.monotonic()) >= self._next:
            self.bar.update(trainer.global_step - self.bar.n)
            self._next = now + self.interval_s

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero or (self.bar is None and (time.monotonic() < self._next)):
            return
        shown = {tag: value for tag, value in getattr(pl_module, "results", {}).items() if not tag.startswith("test/")}
        text = "  ".join(f"{tag} {value:.4g}" for tag, value in sorted(shown.items()))
        where = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
        if self.bar is not None:
            self.bar.set_description(where, refresh=False)
            self.bar.set_postfix_str(text, refresh=False)
        else:
            print(f"{where}  {text}", file=sys.stderr, flush=True)
            self._next = time.monotonic() + self.line_interval_s

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None

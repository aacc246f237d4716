"""A run's length in optimiser steps."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback


class StepLimit(Callback):
    """Ends training after `max_steps` optimiser steps, in the midst of an epoch if need be.

    Instead of Lightning's own `max_steps`, with which a run that is resumed at the end of an epoch trains an empty one.
    """

    def __init__(self, max_steps: int) -> None:
        self.max_steps = max_steps

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.should_stop = trainer.global_step >= self.max_steps

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step >= self.max_steps:
            trainer.should_stop = True
            trainer.check_val_every_n_epoch = 1  # else a run that ends here might have no best weights


def total_steps(trainer: Trainer) -> int:
    """How many optimiser steps a run will take if nothing stops it early."""
    limits = [callback.max_steps for callback in trainer.callbacks if isinstance(callback, StepLimit)]  # pyright: ignore[reportAttributeAccessIssue]
    return min(int(trainer.estimated_stepping_batches), *limits, 2**63)

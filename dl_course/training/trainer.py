"""Lightning's Trainer with the knobs that a course needs, their ranges, and defaults that are safe and fast."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Gt
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, Checkpoint
from lightning.pytorch.profilers import PassThroughProfiler

from dl_course.training.checkpoints import AtomicCheckpointIO
from dl_course.training.limits import StepLimit

Precision = Literal["32-true", "bf16-mixed", "16-mixed", "64-true"]


class NoProfiler(PassThroughProfiler):
    """Measures nothing, and at no cost: Lightning opens about fifty of these contexts a step, and its own
    pass-through profiler makes a generator for each."""

    _context: AbstractContextManager = nullcontext()

    def profile(self, action_name: str) -> AbstractContextManager:
        return self._context


def quieten() -> None:
    """Silence what Lightning says on every run although nothing is wrong; every other warning stays."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Lightning 2.6 uses a class that torch has deprecated.
    deprecated = r".*isinstance\(treespec, LeafSpec\). is deprecated.*"
    warnings.filterwarnings("ignore", message=deprecated, category=FutureWarning)


def build_trainer(
    *,
    max_epochs: Annotated[int, Ge(1)] = 20,
    max_steps: Annotated[int, Ge(1)] | None = None,
    accelerator: Literal["auto", "cpu", "gpu"] = "auto",
    devices: Annotated[int, Ge(1)] | Literal["auto"] = 1,
    strategy: Literal["auto", "ddp", "ddp_fork"] = "auto",
    gradient_clip_val: Annotated[float, Gt(0)] | None = None,
    accumulate_grad_batches: Annotated[int, Ge(1)] = 1,
    check_val_every_n_epoch: Annotated[int, Ge(1)] = 1,
    deterministic: bool = True,
    precision: Precision = "32-true",
    callbacks: Sequence[Callback] = (),
    logger: Any = False,
    folder: str | Path = ".",
) -> Trainer:
    """A Trainer that logs and saves only through our callbacks.

    max_steps counts optimiser steps; training ends at whichever of max_epochs and max_steps comes first. The loaders
    shard themselves over processes, so that the order of samples does not depend on how many there are.
    """
    quieten()
    # With deterministic algorithms torch fills each new tensor first, in case it is read before it is written; on small
    # models that is a good part of a step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # pyright: ignore[reportAttributeAccessIssue]
    if check_val_every_n_epoch > max_epochs:
        raise ValueError(f"check_val_every_n_epoch={check_val_every_n_epoch} is never reached: max_epochs={max_epochs}")
    return Trainer(
        max_epochs=max_epochs,
        accelerator=accelerator,
        devices=devices,
        strategy=strategy,
        gradient_clip_val=gradient_clip_val,
        accumulate_grad_batches=accumulate_grad_batches,
        check_val_every_n_epoch=check_val_every_n_epoch,
        deterministic=deterministic,
        precision=precision,
        callbacks=[*([] if max_steps is None else [StepLimit(max_steps)]), *callbacks],
        logger=logger,
        default_root_dir=folder,
        plugins=[AtomicCheckpointIO()],
        profiler=NoProfiler(),
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        log_every_n_steps=0,  # the task logs, once an epoch
        enable_checkpointing=any(isinstance(callback, Checkpoint) for callback in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
    )

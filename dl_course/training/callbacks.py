"""The callbacks of a run, chosen by the `callbacks` and `logger` nodes of a configuration."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge
from lightning.pytorch.callbacks import Callback, EarlyStopping
from pydantic import StringConstraints

from dl_course.training.checkpoints import Checkpoints
from dl_course.training.metrics import higher_is_better
from dl_course.training.progress import Progress
from dl_course.training.tensorboard import Charts, EventLogger


def build_callbacks(
    *,
    monitor: Annotated[str, StringConstraints(pattern=r"^(last|(train|val)/\w+)$")] = "val/loss",
    save_every: Annotated[float, Ge(0)] = 30.0,
    early_stopping: Annotated[int, Ge(1)] | None = None,
    progress: bool = True,
    graph: bool = True,
    histograms: bool = False,
    images: bool = False,
    confusion: bool = False,
    misclassified: bool = False,
    views_every: Annotated[int, Ge(1)] = 1,
    folder: str | Path = ".",
    config: Mapping[str, Any] | None = None,
) -> list[Callback]:
    """monitor: the metric that chooses best.ckpt, or `last`. save_every: seconds between two states for resuming (the
    end of training and a signal save in any case). early_stopping: epochs without improvement of `monitor` before
    training ends, off by default. progress, graph: a bar on the terminal, the network's graph in TensorBoard.
    histograms, images, confusion, misclassified: views into the run, see `dl_course.training.views`; all but images are
    repeated every `views_every` epochs."""
    callbacks: list[Callback] = [Charts(graph)]
    if histograms or images or confusion or misclassified:
        from dl_course.training import views  # imports matplotlib

        callbacks += [views.Histograms(views_every)] if histograms else []
        callbacks += [views.FirstBatch()] if images else []
        callbacks += [views.Confusion(views_every)] if confusion else []
        callbacks += [views.Misclassified(views_every)] if misclassified else []
    if progress and not os.environ.get("DL_COURSE_QUIET"):
        callbacks.append(Progress())
    if early_stopping is not None:
        if monitor == "last":
            raise ValueError(f"early_stopping={early_stopping} needs a metric to watch, got monitor={monitor}")
        mode = "max" if higher_is_better(monitor) else "min"
        callbacks.append(EarlyStopping(monitor, patience=early_stopping, mode=mode, check_finite=False))
    callbacks.append(Checkpoints(folder, config or {}, monitor, save_every))
    return callbacks


def build_logger(
    *, tensorboard: bool = True, folder: str | Path = ".", first_step: int | None = None
) -> EventLogger | bool:
    """tensorboard: write event files into the run folder. Returns what Lightning's Trainer takes as `logger`."""
    return EventLogger(folder, first_step) if tensorboard else False

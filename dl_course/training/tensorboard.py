"""What a run writes for TensorBoard besides its scalars: shared charts, the graph, the hyperparameters."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]
from torch import nn

log = logging.getLogger("dl_course")


class EventLogger(TensorBoardLogger):
    """Lightning's TensorBoard logger, writing straight into the run folder and nothing but events.

    first_step: on resuming, the step after the one that was saved; TensorBoard drops what an interrupted run had
    written beyond it, so that the curve has neither a gap nor double points.
    """

    def __init__(self, folder: str | Path, first_step: int | None = None) -> None:
        super().__init__(save_dir=str(folder), name="", version="", default_hp_metric=False, purge_step=first_step)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """All values of one step in one event: each event wakes the thread that writes, and that costs a small model
        more than its step."""
        writer = self.experiment.file_writer
        if writer is None or any(isinstance(value, Mapping) for value in metrics.values()):
            super().log_metrics(dict(metrics), step)
        elif metrics:
            values = [Summary.Value(tag=tag, simple_value=float(value)) for tag, value in metrics.items()]
            writer.add_summary(Summary(value=values), step)

    def save(self) -> None:
        """The configuration lies in config.yaml already; no second file for hyperparameters."""

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Training has ended: put everything on the disk, but leave the file open for the final metrics."""
        if self._experiment is not None:
            self.experiment.flush()

    @rank_zero_only
    def close(self) -> None:
        """Nothing follows: end the thread that writes."""
        if self._experiment is not None:
            self.experiment.close()


class Charts(Callback):
    """Train and validation of one quantity in one chart (the Custom Scalars tab), and the network's graph once."""

    def __init__(self, graph: bool = True) -> None:
        self.graph = graph
        self._laid_out = False

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self.graph and batch_idx == 0 and trainer.global_step == 0 and trainer.is_global_zero:
            net, writer = getattr(pl_module, "net", None), event_writer(trainer)
            if isinstance(net, nn.Module) and writer is not None:
                draw_graph(writer, net, batch[0][:1])

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        writer = event_writer(trainer)
        if self._laid_out or writer is None or not trainer.is_global_zero:
            return
        tags = set(getattr(pl_module, "results", {}))
        names = sorted(tag[6:] for tag in tags if tag.startswith("train/") and f"val/{tag[6:]}" in tags)
        if names:
            chart = {name: ["Multiline", [f"train/{name}", f"val/{name}"]] for name in names}
            writer.add_custom_scalars({"train and validation": chart})
            self._laid_out = True


def event_writer(trainer: Trainer) -> Any:
    """The SummaryWriter of the run, or None where nothing is logged to TensorBoard."""
    return trainer.logger.experiment if isinstance(trainer.logger, EventLogger) else None


def draw_graph(writer: Any, net: nn.Module, x: torch.Tensor) -> None:
    """Write the graph of `net` applied to `x`, leaving mode and random state as they were.

    A network that cannot be traced is trained all the same; the log file says why there is no graph.
    """
    training = net.training
    net.eval()
    try:
        with torch.random.fork_rng(), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.filterwarnings("ignore", message=r".*torch\.jit\.\w+.* is deprecated.*")
            warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)
            writer.add_graph(net, x)
    except Exception as error:
        log.info("no graph in TensorBoard: %s", str(error).splitlines()[0] if str(error) else type(error).__name__)
    finally:
        net.train(training)


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mapping → {"optimizer.lr": 0.001, …}, scalars as they are and lists as text."""
    result: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            result.update(flat(value, f"{name}."))
        elif value is None or isinstance(value, bool | int | float | str):
            result[name] = value
        else:
            result[name] = str(value)
    return result


NOT_CHOSEN = re.compile(
    r"\.(accelerator|devices|strategy|deterministic|check_val\w*|num_\w+|root|verify|shape|in_features|out_features|_\w*)$"
)
"""Keys that the HParams tab leaves out: they change how a run is computed, or follow from the data."""


def hyperparameters(config: Mapping[str, Any]) -> dict[str, Any]:
    """What the HParams tab lists: everything that can change a result, each value once, by its name in the config.

    A `_target_` becomes the class, under the name of its node. What is switched off (null, false, 0) is left out, apart
    from the seed: the tab shows few columns, and an empty cell says the same.
    """
    chosen = {
        key: value for key, value in config.items() if key not in ("logger", "callbacks", "threads", "resume", "debug")
    }
    chosen["experiment"] = config.get("experiment", {}).get("name", "")
    if isinstance(chosen.get("model"), Mapping):
        shared = ("optimizer", "scheduler", "regularization", "metrics")
        chosen["model"] = {key: value for key, value in chosen["model"].items() if key not in shared}
    found: dict[str, Any] = {}
    for name, value in flat(chosen).items():
        node, _, last = name.rpartition(".")
        if last == "_target_":
            found[node] = value.rpartition(".")[2]
        elif (value or name == "seed") and not NOT_CHOSEN.search(name):
            found[name] = value
    plumbing = ("trainer", "regularization", "data.augment")
    return {name: value for name, value in found.items() if name not in plumbing and value != "[1.0, 1.0]"}

"""What every topic shares: a `Task` is one `step`; the loop, the logging and the checkpoints are Lightning's."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from dl_course.errors import RunError
from dl_course.losses import LossName
from dl_course.losses import loss as loss_named
from dl_course.training.ema import EMA
from dl_course.training.limits import total_steps
from dl_course.training.meter import Meter
from dl_course.training.metrics import METRICS, Metric, MetricName
from dl_course.training.regularization import Regularization

OptimizerFactory = Callable[..., torch.optim.Optimizer]
SchedulerFactory = Callable[..., torch.optim.lr_scheduler.LRScheduler]


class Task(LightningModule):
    """A learning problem. A subclass writes `step(batch) -> {"loss": …, "accuracy": …}`, and nothing else.

    Every value that `step` returns is the mean over its batch; "loss" is the data loss, differentiable. Means over an
    epoch, weighted by samples, are logged once an epoch as `train/…`, `val/…`, `test/…` and kept in `results`.

    optimizer: factory `parameters -> Optimizer` (`_partial_` in YAML, `functools.partial` in a notebook); default Adam.
    scheduler: factory `(optimizer, total_steps=…, steps_per_epoch=…) -> LRScheduler`, stepped after every optimiser
        step; none by default.
    Raises RunError within the step in which the loss stops being finite.
    """

    def __init__(
        self,
        optimizer: OptimizerFactory | None = None,
        scheduler: SchedulerFactory | None = None,
        regularization: Regularization | None = None,
    ) -> None:
        super().__init__()
        self.optimizer_factory = optimizer or partial(torch.optim.Adam, lr=1e-3)
        self.scheduler_factory = scheduler
        self.regularization = regularization or Regularization()
        self.metrics: Mapping[str, Metric] = {}
        self.results: dict[str, float] = {}
        self._meters = {stage: Meter() for stage in ("train", "val", "test")}

    def step(self, batch: Any) -> dict[str, Tensor]:
        """One batch → {"loss": mean data loss, further metric: mean over the batch}."""
        raise RunError(f"{type(self).__name__} defines no step(batch)")

    def batch_size(self, batch: Any) -> int:
        """How many samples a batch holds: the weight of its means."""
        return len(batch[0])

    @property
    def penalised(self) -> nn.Module:
        """The module whose weights the regularisation penalises."""
        return getattr(self, "net", self)

    def __setattr__(self, name: str, value: Any) -> None:
        # Lightning notes the running hook in this attribute some forty times a step; a plain attribute needs none of
        # the bookkeeping that nn.Module does for parameters, which costs a small model a tenth of its step.
        if name == "_current_fx_name":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    # -- what Lightning calls --------------------------------------------------------------------------------------

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        values = self.step(batch)
        self._meters["train"].add(values, self.batch_size(batch))
        loss = values["loss"]
        penalty = self.regularization.penalty(self.penalised)
        if penalty is not None:
            loss = loss + penalty
        if not math.isfinite(loss.item()):
            raise RunError(
                f"step {self.global_step}: train/loss is {loss.item()}; "
                "lower optimizer.lr, set trainer.gradient_clip_val=1, or look for bad values in the data"
            )
        return loss if self.trainer.world_size == 1 else self._share(loss, batch)

    def _share(self, loss: Tensor, batch: Any) -> Tensor:
        """The loss times n·W/N, so that averaging gradients over W processes gives the mean over all N samples of the
        batch even where the processes hold different numbers n of them."""
        count = torch.tensor(float(self.batch_size(batch)), device=loss.device)
        total = count.clone()
        torch.distributed.all_reduce(total)
        return loss * count * self.trainer.world_size / total

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self._meters["val"].add(self.step(batch), self.batch_size(batch))

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self._meters["test"].add(self.step(batch), self.batch_size(batch))

    def on_train_epoch_end(self) -> None:
        self._close("train")

    def on_validation_epoch_end(self) -> None:
        self._close("val")

    def on_test_epoch_end(self) -> None:
        self._close("test")

    def _close(self, stage: str) -> None:
        """End of an epoch: means → metrics → `results`, `trainer.callback_metrics` and, while training, the logger."""
        means = self._meters[stage].mean()
        self._meters[stage].reset()
        values = {
            f"{stage}/{name}": (self.metrics[name].finish(mean) if name in self.metrics else mean).item()
            for name, mean in means.items()
        }
        for tag, value in values.items():
            if not math.isfinite(value):
                raise RunError(f"step {self.global_step}: {tag} is {value}; no checkpoint was overwritten")
        self.results.update(values)
        # What early stopping and the like read. `self.log` would fill it too, and cost a small model its epoch.
        exact = {tag: torch.tensor(value, dtype=torch.float64) for tag, value in values.items()}
        self.trainer.callback_metrics.update(exact)
        if self.trainer.state.fn == "fit":
            if stage == "train":
                values = values | self._position()
            if self.logger is not None:
                self.logger.log_metrics(values, step=self.global_step)

    def _position(self) -> dict[str, float]:
        """Where training stands, as curves: the epoch against the step, and the learning rate."""
        rate = self.trainer.optimizers[0].param_groups[0]["lr"]
        return {"epoch": float(self.current_epoch + 1), "optimizer/lr": float(rate)}

    def configure_callbacks(self) -> list[Callback]:
        """What the regularisation needs beside the loss: Lightning adds it to the Trainer's callbacks."""
        return [] if self.regularization.ema is None else [EMA(self.regularization.ema)]

    def configure_optimizers(self) -> Any:
        optimizer = self.optimizer_factory(self.parameters())
        if self.scheduler_factory is None:
            return optimizer
        total = total_steps(self.trainer)
        epochs = self.trainer.max_epochs
        scheduler = self.scheduler_factory(
            optimizer, total_steps=total, steps_per_epoch=max(1, total // epochs) if epochs and epochs > 0 else total
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        if gradient_clip_val is not None:  # else Lightning would take a while to find that out, on every step
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["meters"] = {stage: meter.state_dict() for stage, meter in self._meters.items()}
        checkpoint["results"] = dict(self.results)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        for stage, state in checkpoint.get("meters", {}).items():
            self._meters[stage].load_state_dict(state)
        self.results = dict(checkpoint.get("results", {}))


# Lightning asks for these signatures on every step; `inspect` answers at once where it finds them written down.
for _step in (Task.training_step, Task.validation_step, Task.test_step):
    _step.__signature__ = inspect.signature(_step)  # pyright: ignore[reportFunctionMemberAccess]


class Supervised(Task):
    """Predict y from x: `loss(net(x), y)` and any number of metrics.

    net: a plain module, x (B, …) → prediction. loss: a name from `dl_course.losses`, or a function of (prediction, y).
    metrics: names from `dl_course.training.metrics`. impl: `torch` takes the library's fused loss, `scratch` the one
    written out in `dl_course.losses`; both have the same value and gradient.
    """

    def __init__(
        self,
        net: nn.Module,
        loss: LossName | Callable[[Tensor, Tensor], Tensor] = "cross_entropy",
        metrics: Sequence[MetricName] = (),
        optimizer: OptimizerFactory | None = None,
        scheduler: SchedulerFactory | None = None,
        regularization: Regularization | None = None,
        impl: Literal["torch", "scratch"] = "torch",
    ) -> None:
        super().__init__(optimizer, scheduler, regularization)
        self.net = net
        self.loss = loss if callable(loss) else loss_named(loss, impl)
        self.metrics = {name: METRICS[name] for name in metrics}

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def step(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        x, y = batch
        prediction = self.net(x)
        values = {"loss": self.loss(prediction, y)}
        if self.metrics:
            detached = prediction.detach()
            for name, metric in self.metrics.items():
                values[name] = metric.statistic(detached, y)
        return values

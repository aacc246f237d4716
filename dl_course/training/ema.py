"""An exponential moving average of the weights, evaluated in their place."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor


class EMA(Callback):
    """Polyak averaging w̄ ← d·w̄ + (1 − d)·w after every optimiser step; w̄ is validated and saved as the best weights.

    Warm-up: step t uses dₜ = min(d, (1 + t) / (10 + t)), or the average would remember the random start for 1/(1 − d)
    steps (as in TensorFlow's ExponentialMovingAverage). Buffers, such as running statistics, are not averaged.
    Training goes on with w itself: what is averaged never feeds back.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.average: dict[str, Tensor] = {}
        self.step = 0
        self._raw: list[Tensor] | None = None  # the weights that are trained, while w̄ stands in their place

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        device = pl_module.device
        if not self.average:
            self.average = {name: p.detach().clone() for name, p in pl_module.named_parameters()}
        self.average = {name: tensor.to(device) for name, tensor in self.average.items()}
        self.step = self.step or trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step > self.step:  # not within gradient accumulation
            self.step = trainer.global_step
            self.update(pl_module)

    @torch.no_grad()
    def update(self, module: torch.nn.Module) -> None:
        """One step of the average towards the module's weights."""
        decay = min(self.decay, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(list(self.average.values()), [p.detach() for p in module.parameters()], 1 - decay)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "fit":
            self._raw = [p.detach().clone() for p in pl_module.parameters()]
            self._put(pl_module, list(self.average.values()))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._raw is not None:
            self._put(pl_module, self._raw)
            self._raw = None

    @staticmethod
    @torch.no_grad()
    def _put(module: torch.nn.Module, values: list[Tensor]) -> None:
        for parameter, value in zip(module.parameters(), values):
            parameter.copy_(value)

    def state_dict(self) -> dict[str, Any]:
        return {"average": dict(self.average), "step": self.step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.average, self.step = dict(state_dict["average"]), state_dict["step"]

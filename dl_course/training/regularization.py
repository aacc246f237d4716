"""Regularisation that any task can switch on."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Lt
from torch import Tensor, nn

from dl_course.losses import l1_penalty, l2_penalty, weights


class Regularization:
    """What keeps a model from fitting its training data too closely; everything is off by default.

    l1, l2: L = data loss + λ₁‖w‖₁ + ½·λ₂‖w‖²  (I2DL ch. 1 and 6, BONN ch. 7). w are the weights only: biases and
    normalisation parameters are not penalised. `train/loss` stays the data loss. Differs from an optimiser's
    `weight_decay`: see `dl_course.optim`.
    ema: evaluate and keep the moving average w̄ ← d·w̄ + (1 − d)·w of the weights, see `dl_course.training.ema`.
    """

    def __init__(
        self,
        l1: Annotated[float, Ge(0)] = 0.0,
        l2: Annotated[float, Ge(0)] = 0.0,
        ema: Annotated[float, Ge(0), Lt(1)] | None = None,
    ) -> None:
        self.l1, self.l2, self.ema = l1, l2, ema

    def penalty(self, module: nn.Module) -> Tensor | None:
        """The penalty on `module`'s weights in the unit of the loss, or None when everything is off."""
        total = None
        if self.l1 or self.l2:
            penalised = list(weights(module))
            if self.l1:
                total = self.l1 * l1_penalty(penalised)
            if self.l2:
                squared = self.l2 * l2_penalty(penalised)
                total = squared if total is None else total + squared
        return total

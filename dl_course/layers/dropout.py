"""Dropout, written out."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge, Lt
from torch import Tensor, nn


class Dropout(nn.Module):
    """Inverted dropout: in training x is zeroed with probability p, else divided by 1 − p  (Srivastava et al. 2014).

    The mean stays, so that nothing is scaled at test time; I2DL ch. 8 scales the weights there instead.

    Shapes: any → the same; in eval mode the identity. The mask is drawn as torch draws it: one seed, one mask.
    """

    def __init__(self, p: Annotated[float, Ge(0), Lt(1)] = 0.5) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"p={p} is not in [0, 1)")
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        keep = torch.empty_like(x).bernoulli_(1 - self.p)
        return x * keep / (1 - self.p)

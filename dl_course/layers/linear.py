"""The affine layer, written out."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor, nn


class Linear(nn.Module):
    """Affine map y = xWᵀ + b  (BONN §8.2: a = Wx + b for one sample).

    Weights and biases start uniform in ±1/√in_features and are named as in `nn.Linear`, so a state dict fits both.

    Shapes: x (…, in_features), weight (out_features, in_features), bias (out_features,) → (…, out_features).
    """

    def __init__(
        self, in_features: Annotated[int, Ge(1)], out_features: Annotated[int, Ge(1)], bias: bool = True
    ) -> None:
        super().__init__()
        bound = 1 / math.sqrt(in_features)
        self.weight = nn.Parameter(torch.empty(out_features, in_features).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(out_features).uniform_(-bound, bound)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        y = x @ self.weight.T  # (…, out_features)
        return y if self.bias is None else y + self.bias

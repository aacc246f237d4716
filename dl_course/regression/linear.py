"""The linear model y = xWᵀ + b, the whole network of this room: the loss decides what it is.

| loss | the model is |
|---|---|
| `mse` | linear regression; with `regularization.l2` ridge, with `regularization.l1` lasso |
| `bce` | logistic regression (one output, the logit) |
| `cross_entropy` | softmax regression |
| `hinge` | multiclass support vector machine |
"""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor, nn


class Linear(nn.Module):
    """Linear model ŷ = x Wᵀ + b, written out  (LUE2 "Linear Regression"; I2DL 02).

    Weights start at zero: every loss of this room is convex in (W, b), so the start does not decide where descent
    ends, and there are no hidden units whose symmetry had to be broken. `init_std` > 0 draws W ~ N(0, init_std²)
    instead, to show just that.

    Shapes: x (B, in_features), or an image (B, C, H, W) with C·H·W = in_features → (B, out_features).
    Raises: RuntimeError (torch's, with both shapes) if x does not hold in_features numbers per sample.
    Differs from `nn.Linear`: it flattens images and starts at zero; parameters have the same names, so a
    `state_dict` fits both.
    """

    def __init__(
        self,
        in_features: Annotated[int, Ge(1)],
        out_features: Annotated[int, Ge(1)] = 1,
        bias: bool = True,
        init_std: Annotated[float, Ge(0)] = 0.0,
    ) -> None:
        super().__init__()
        self.in_features, self.out_features, self.init_std = in_features, out_features, init_std
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        self.bias = nn.Parameter(torch.empty(out_features)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """W ~ N(0, init_std²), which is zero by default; b = 0."""
        with torch.no_grad():
            self.weight.normal_(0.0, self.init_std) if self.init_std else self.weight.zero_()
            if self.bias is not None:
                self.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        y = x.flatten(1) @ self.weight.mT  # (B, F_in) (F_in, F_out) → (B, F_out)
        return y if self.bias is None else y + self.bias

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"

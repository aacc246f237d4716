"""Activation functions of the lectures, written out, beside torch's own.

Sources: I2DL ch. 3 and 7, TUM8, BONN §8.5, NPFL3. Each function acts on every element (maxout on groups of them), keeps
the shape and dtype of x, is stable in value and gradient for every finite x, and lets NaN through. At a kink the
gradient is torch's: relu'(0) = 0.

`activation("relu")` gives torch's module, `activation("relu", impl="scratch")` ours; `ACTIVATIONS` lists the names.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Literal

import torch
from annotated_types import Ge
from torch import Tensor, nn

from dl_course.errors import ConfigError, suggest

Activation = Literal[
    "identity", "sigmoid", "tanh", "hardtanh", "softplus", "relu", "leaky_relu",
    "prelu", "elu", "selu", "swish", "gelu", "maxout",
]  # fmt: skip

SELU_ALPHA = 1.6732632423543772848170429916717  # fixed point: mean 0, variance 1 (Klambauer et al. 2017, eq. 14)
SELU_SCALE = 1.0507009873554804934193349852946


def identity(x: Tensor) -> Tensor:
    """f(x) = x: the output activation of regression (BONN §8.5)."""
    return x


def sigmoid(x: Tensor) -> Tensor:
    """Sigmoid σ(x) = 1/(1 + e⁻ˣ) = eˣ/(1 + eˣ) in (0, 1)  (I2DL ch. 3), by the form whose exponent is ≤ 0."""
    small = torch.exp(torch.where(x >= 0, -x, x))  # e^−|x| ≤ 1, and differentiable at 0
    return torch.where(x >= 0, 1, small) / (1 + small)


def tanh(x: Tensor) -> Tensor:
    """Hyperbolic tangent (eˣ − e⁻ˣ)/(eˣ + e⁻ˣ) in (−1, 1)  (BONN §8.5), from e^−2|x| − 1: small x keep their digits."""
    shrunk = torch.expm1(torch.where(x >= 0, -2 * x, 2 * x))  # e^−2|x| − 1 in (−1, 0]
    return torch.where(x >= 0, -shrunk, shrunk) / (shrunk + 2)


def hardtanh(x: Tensor) -> Tensor:
    """Hard tanh max(−1, min(1, x))  (BONN §8.5). The gradient at ±1 is 0."""
    return torch.where(x >= 1, 1, torch.where(x <= -1, -1, x))


def softplus(x: Tensor) -> Tensor:
    """Softplus log(1 + eˣ) = max(0, x) + log(1 + e^−|x|)  (BONN §8.5).

    Differs from torch: exact everywhere, whereas `nn.Softplus` returns x above 20 (2e-9 too little there).
    """
    return relu(x) + torch.log1p(torch.exp(torch.where(x > 0, -x, x)))


def relu(x: Tensor) -> Tensor:
    """Rectified linear unit max(0, x)  (I2DL ch. 3; Nair & Hinton 2010)."""
    return torch.where(x <= 0, 0, x)


def leaky_relu(x: Tensor, negative_slope: float = 0.01) -> Tensor:
    """Leaky ReLU: x where x > 0, else 0.01·x  (I2DL ch. 7; ch. 3 writes 0.1)."""
    return torch.where(x > 0, x, negative_slope * x)


def prelu(x: Tensor, slope: Tensor) -> Tensor:
    """Parametric ReLU: x where x > 0, else αx with a learned α  (He et al. 2015).

    Shapes: x (B, C, …), slope (1,) for all or (C,) one per channel → (B, C, …).
    Differs from I2DL: max(αx, x) is the same only while α ≤ 1.
    """
    if slope.numel() > 1:
        slope = slope.view(-1, *[1] * (x.ndim - 2))  # the channel axis is the second
    return torch.where(x > 0, x, slope * x)


def elu(x: Tensor, alpha: float = 1.0) -> Tensor:
    """Exponential linear unit: x where x > 0, else α(eˣ − 1)  (Clevert et al. 2016; I2DL prints x(eˣ − 1))."""
    negative = torch.where(x > 0, 0, x)  # keeps eˣ from overflowing on the side that is not used
    return torch.where(x > 0, x, alpha * torch.expm1(negative))


def selu(x: Tensor) -> Tensor:
    """Self-normalising ELU λ·elu(x, α), its α and λ keep mean 0 and variance 1  (Klambauer et al. 2017; NPFL3)."""
    return SELU_SCALE * elu(x, SELU_ALPHA)


def swish(x: Tensor, beta: float | Tensor = 1.0) -> Tensor:
    """Swish x·σ(βx); SiLU at β = 1, x/2 at β = 0, ReLU as β → ∞  (Ramachandran et al. 2017; NPFL3)."""
    return x * sigmoid(beta * x)


def gelu(x: Tensor) -> Tensor:
    """Gaussian error linear unit x·Φ(x), Φ the standard normal distribution function  (Hendrycks & Gimpel 2016)."""
    return x * 0.5 * torch.special.erfc(-x / math.sqrt(2))


def maxout(x: Tensor, pieces: int = 2, dim: int = -1) -> Tensor:
    """Maxout max(w₁ᵀx + b₁, …, w_kᵀx + b_k) over k = `pieces` linear maps  (I2DL ch. 3; Goodfellow et al. 2013).

    Shapes: (…, k·H) → (…, H); the first H features are w₁ᵀx + b₁, the next H are w₂ᵀx + b₂, and so on.
    Raises: ValueError if the features do not split into k equal pieces.
    """
    if x.shape[dim] % pieces:
        raise ValueError(f"{x.shape[dim]} features do not split into pieces={pieces}")
    dim = dim % x.ndim
    return x.unflatten(dim, (pieces, -1)).amax(dim)


class Identity(nn.Module):
    """`identity` as a module."""

    def forward(self, x: Tensor) -> Tensor:
        return identity(x)


class Sigmoid(nn.Module):
    """`sigmoid` as a module."""

    def forward(self, x: Tensor) -> Tensor:
        return sigmoid(x)


class Tanh(nn.Module):
    """`tanh` as a module."""

    def forward(self, x: Tensor) -> Tensor:
        return tanh(x)


class HardTanh(nn.Module):
    """`hardtanh` as a module."""

    def forward(self, x: Tensor) -> Tensor:
        return hardtanh(x)


class Softplus(nn.Module):
    """`softplus` as a module."""

    def forward(self, x: Tensor) -> Tensor:
        return softplus(x)


class ReLU(nn.Module):
    """`relu` as a module."""

    def forward(self, x: Tensor) -> Tensor:
        return relu(x)


class LeakyReLU(nn.Module):
    """`leaky_relu` as a module."""

    def __init__(self, negative_slope: float = 0.01) -> None:
        super().__init__()
        self.negative_slope = negative_slope

    def forward(self, x: Tensor) -> Tensor:
        return leaky_relu(x, self.negative_slope)


class PReLU(nn.Module):
    """`prelu` as a module: its `weight` α starts at `init` and is learned; one for all, or one per channel."""

    def __init__(self, num_parameters: Annotated[int, Ge(1)] = 1, init: float = 0.25) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((num_parameters,), init))

    def forward(self, x: Tensor) -> Tensor:
        return prelu(x, self.weight)


class ELU(nn.Module):
    """`elu` as a module."""

    def __init__(self, alpha: float = 1.0) -> None:
        super().__init__()
        self.alpha = alpha

    def forward(self, x: Tensor) -> Tensor:
        return elu(x, self.alpha)


class SELU(nn.Module):
    """`selu` as a module."""

    def forward(self, x: Tensor) -> Tensor:
        return selu(x)


class Swish(nn.Module):
    """`swish` as a module: β is fixed, or with `trainable` a parameter that starts at `beta`."""

    def __init__(self, beta: float = 1.0, trainable: bool = False) -> None:
        super().__init__()
        self.beta = nn.Parameter(torch.tensor(float(beta))) if trainable else beta

    def forward(self, x: Tensor) -> Tensor:
        return swish(x, self.beta)


class GELU(nn.Module):
    """`gelu` as a module."""

    def forward(self, x: Tensor) -> Tensor:
        return gelu(x)


class Maxout(nn.Module):
    """`maxout` as a module: the linear layer before it must be `pieces` times as wide as what comes out."""

    def __init__(self, pieces: Annotated[int, Ge(1)] = 2, dim: int = -1) -> None:
        super().__init__()
        self.pieces = pieces
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        return maxout(x, self.pieces, self.dim)


ACTIVATIONS: dict[str, type[nn.Module]] = {
    "identity": Identity,
    "sigmoid": Sigmoid,
    "tanh": Tanh,
    "hardtanh": HardTanh,
    "softplus": Softplus,
    "relu": ReLU,
    "leaky_relu": LeakyReLU,
    "prelu": PReLU,
    "elu": ELU,
    "selu": SELU,
    "swish": Swish,
    "gelu": GELU,
    "maxout": Maxout,
}

TORCH_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "identity": nn.Identity,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "hardtanh": nn.Hardtanh,
    "softplus": nn.Softplus,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "prelu": nn.PReLU,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "swish": nn.SiLU,
    "gelu": nn.GELU,
    "maxout": Maxout,  # torch has none
}


def activation(name: Activation, impl: Literal["torch", "scratch"] = "torch") -> nn.Module:
    """A new activation module with its default parameters: torch's own, or ours.

    Raises: ConfigError if there is no activation of that name.
    """
    if name not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise ConfigError(f"no activation is called '{name}'{suggest(name, ACTIVATIONS)}\nthere are: {known}")
    return ACTIVATIONS[name]() if impl == "scratch" else TORCH_ACTIVATIONS[name]()

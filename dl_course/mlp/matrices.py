"""An MLP as matrices: forward pass and hand-derived backward pass, an equation a line  (BONN ch. 8–9, NPFL3).

Letters: B batch; layer l = 1 … L has inputs a⁽ˡ⁻¹⁾ (B, n_in), weights W (n_out, n_in), scores z⁽ˡ⁾ (B, n_out).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from dl_course.layers.activations import ACTIVATIONS, SELU_ALPHA, SELU_SCALE, sigmoid, tanh
from dl_course.losses import LossName, softmax
from dl_course.mlp.mlp import MLP


def _gelu_derivative(z: Tensor) -> Tensor:
    density = torch.exp(-z * z / 2) / math.sqrt(2 * math.pi)  # φ(z)
    return 0.5 * torch.special.erfc(-z / math.sqrt(2)) + z * density  # Φ(z) + zφ(z)


def _elu_derivative(z: Tensor, alpha: float = 1.0) -> Tensor:
    return torch.where(z > 0, 1, alpha * torch.exp(z.clamp(max=0)))


DERIVATIVES: dict[str, Callable[[Tensor], Tensor]] = {  # f'(z)
    "identity": torch.ones_like,
    "sigmoid": lambda z: sigmoid(z) * sigmoid(-z),  # σ(1 − σ), and 1 − σ(z) = σ(−z)
    "tanh": lambda z: 1 - tanh(z) ** 2,
    "hardtanh": lambda z: (z.abs() < 1).to(z.dtype),
    "softplus": sigmoid,
    "relu": lambda z: (z > 0).to(z.dtype),
    "leaky_relu": lambda z: torch.where(z > 0, 1, 0.01).to(z.dtype),
    "elu": _elu_derivative,
    "selu": lambda z: SELU_SCALE * _elu_derivative(z, SELU_ALPHA),
    "swish": lambda z: sigmoid(z) * (1 + z * sigmoid(-z)),
    "gelu": _gelu_derivative,
}


def _hinge_delta(s: Tensor, y: Tensor) -> Tensor:
    violated = (s - s.gather(1, y[:, None]) + 1 > 0).to(s.dtype).scatter(1, y[:, None], 0.0)  # (B, K)
    return violated.scatter(1, y[:, None], -violated.sum(1, keepdim=True)) / len(s)


OUTPUT_DELTAS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {  # ∂J/∂z⁽ᴸ⁾ of the mean loss J
    "mae": lambda z, y: torch.sign(z - y.view_as(z)) / z.numel(),
    "mse": lambda z, y: 2 * (z - y.view_as(z)) / z.numel(),
    "bce": lambda z, y: (sigmoid(z) - y.view_as(z)) / z.numel(),
    "cross_entropy": lambda z, y: (softmax(z) - torch.eye(z.shape[1]).to(z)[y]) / len(z),  # o − 1_gold
    "hinge": _hinge_delta,
}


class Forward(NamedTuple):
    """z: scores z⁽¹⁾ … z⁽ᴸ⁾ of every layer; a: activations a⁽⁰⁾ = x … a⁽ᴸ⁾ = z⁽ᴸ⁾, each (B, width)."""

    z: list[Tensor]
    a: list[Tensor]


class Backward(NamedTuple):
    """deltas: ∂J/∂z⁽¹⁾ … ∂J/∂z⁽ᴸ⁾, each (B, width); gradients: ∂J/∂θ by the network's own parameter names."""

    deltas: list[Tensor]
    gradients: dict[str, Tensor]


@torch.no_grad()
def forward(net: MLP, x: Tensor) -> Forward:
    """The network in matrices, without dropout: z⁽ˡ⁾ = a⁽ˡ⁻¹⁾W⁽ˡ⁾ᵀ + b⁽ˡ⁾, a⁽ˡ⁾ = f(z⁽ˡ⁾).

    Raises: ValueError for PReLU, which has parameters of its own, and maxout, which is not elementwise.
    """
    if net.activation not in DERIVATIVES:
        raise ValueError(f"'{net.activation}' has no derivative here; there are: {', '.join(DERIVATIVES)}")
    f = ACTIVATIONS[net.activation]()
    z, a = [], [x.flatten(1)]
    for layer in net.affine():
        z.append(a[-1] @ layer.weight.T + (0 if layer.bias is None else layer.bias))  # (B, n_out)
        a.append(f(z[-1]))
    a[-1] = z[-1]  # the output layer is linear
    return Forward(z, a)


@torch.no_grad()
def backward(net: MLP, x: Tensor, y: Tensor, loss: LossName) -> Backward:
    """The delta rule, from the last layer to the first  (BONN §9.5).

    δ⁽ᴸ⁾ = ∂J/∂z⁽ᴸ⁾, for cross-entropy (o − 1_gold)/B;  δ⁽ˡ⁾ = δ⁽ˡ⁺¹⁾W⁽ˡ⁺¹⁾ ⊙ f'(z⁽ˡ⁾)
    ∂J/∂W⁽ˡ⁾ = δ⁽ˡ⁾ᵀ a⁽ˡ⁻¹⁾,  ∂J/∂b⁽ˡ⁾ = Σ_B δ⁽ˡ⁾

    Sample i's share of the weight gradient is the outer product of row i of δ⁽ˡ⁾ and row i of a⁽ˡ⁻¹⁾.
    """
    z, a = forward(net, x)
    names: dict[Tensor, str] = {parameter: name for name, parameter in net.named_parameters()}
    derivative = DERIVATIVES[net.activation]
    layers = net.affine()

    delta = OUTPUT_DELTAS[loss](z[-1], y)  # (B, n_L)
    deltas, gradients = [delta], {}
    for i in reversed(range(len(layers))):
        gradients[names[layers[i].weight]] = delta.T @ a[i]  # (n_out, n_in)
        if (bias := layers[i].bias) is not None:
            gradients[names[bias]] = delta.sum(0)  # (n_out,)
        if i > 0:
            delta = (delta @ layers[i].weight) * derivative(z[i - 1])  # (B, n_in)
            deltas.insert(0, delta)
    return Backward(deltas, gradients)

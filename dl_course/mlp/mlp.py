"""The multilayer perceptron: affine layers with an activation in between  (I2DL ch. 3, BONN ch. 8)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Annotated, Literal

from annotated_types import Ge, Lt
from torch import Tensor, nn

from dl_course import layers
from dl_course.layers import Activation, Maxout, activation
from dl_course.layers.activations import identity, sigmoid
from dl_course.losses import Target, softmax


class MLP(nn.Module):
    """Multilayer perceptron a⁽ˡ⁾ = f(W⁽ˡ⁾a⁽ˡ⁻¹⁾ + b⁽ˡ⁾), the last layer without f  (BONN §8.3, NPFL3).

    It returns scores: the loss takes them as they are, and `output_activation` turns them into predictions. hidden=[]
    is a linear model, activation="identity" a deep linear one; with "maxout" a layer of width h holds 2h linear units.

    Shapes: x (B, in_features) or images (B, C, H, W) with C·H·W = in_features → (B, out_features).
    Raises: ValueError if the input has another number of features, or a layer no units.
    impl="scratch" takes our layers instead of torch's; a state dict fits both.
    """

    def __init__(
        self,
        in_features: Annotated[int, Ge(1)],
        hidden: Sequence[Annotated[int, Ge(1)]],
        out_features: Annotated[int, Ge(1)],
        activation: Activation = "relu",
        dropout: Annotated[float, Ge(0), Lt(1)] = 0.0,
        bias: bool = True,
        impl: Literal["torch", "scratch"] = "torch",
    ) -> None:
        super().__init__()
        if min(in_features, *hidden, out_features) < 1:
            raise ValueError(
                f"in_features={in_features}, hidden={list(hidden)}, out_features={out_features} must be ≥ 1"
            )
        self.in_features = in_features
        self.activation = activation
        self.layers = nn.Sequential(*_layers(in_features, hidden, out_features, activation, dropout, bias, impl))

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)  # (B, in_features)
        if x.shape[1] != self.in_features:
            raise ValueError(f"the input has {x.shape[1]} features, but in_features={self.in_features}")
        return self.layers(x)  # (B, out_features)

    def affine(self) -> list[nn.Linear | layers.Linear]:
        """The affine layers from input to output, each with its `weight` (outputs, inputs) and `bias` (outputs,)."""
        return [layer for layer in self.layers if isinstance(layer, nn.Linear | layers.Linear)]


def _layers(inputs: int, hidden: Sequence[int], outputs: int, name: Activation, p: float, bias: bool, impl):
    linear, dropout = (layers.Linear, layers.Dropout) if impl == "scratch" else (nn.Linear, nn.Dropout)
    for width in hidden:
        f = activation(name, impl)
        yield linear(inputs, width * f.pieces if isinstance(f, Maxout) else width, bias=bias)
        yield f
        if p > 0:
            yield dropout(p)
        inputs = width
    yield linear(inputs, outputs, bias=bias)


def output_activation(target: Target) -> Callable[[Tensor], Tensor]:
    """What turns scores into a prediction, by the type of the target  (BONN §8.5, NPFL3).

    "regression" → identity, the value; "binary" → sigmoid, P(y = 1); "classes" → softmax over the last axis, P(y = k).
    """
    return {"regression": identity, "binary": sigmoid, "classes": softmax}[target]


def parameter_count(d: int, h: int | Sequence[int], o: int, bias: bool = True) -> int:
    """Parameters of an MLP with d inputs, h hidden and o output units: d·h + h·o + h + o, and so on through the layers.

    Holds where an activation has no parameters of its own (PReLU has) and takes one linear unit (maxout takes two).
    """
    widths = [d, *([h] if isinstance(h, int) else h), o]
    return sum(inputs * outputs + bias * outputs for inputs, outputs in pairwise(widths))

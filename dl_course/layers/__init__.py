"""Layers that several lectures use: activations, the affine layer, dropout. Each written out, each equal to torch's."""

from dl_course.layers.activations import (
    ACTIVATIONS,
    ELU,
    GELU,
    SELU,
    Activation,
    HardTanh,
    Identity,
    LeakyReLU,
    Maxout,
    PReLU,
    ReLU,
    Sigmoid,
    Softplus,
    Swish,
    Tanh,
    activation,
)
from dl_course.layers.dropout import Dropout
from dl_course.layers.linear import Linear

__all__ = [
    "ACTIVATIONS",
    "ELU",
    "GELU",
    "SELU",
    "Activation",
    "Dropout",
    "HardTanh",
    "Identity",
    "LeakyReLU",
    "Linear",
    "Maxout",
    "PReLU",
    "ReLU",
    "Sigmoid",
    "Softplus",
    "Swish",
    "Tanh",
    "activation",
]

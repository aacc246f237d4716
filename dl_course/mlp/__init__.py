"""The multilayer perceptron, and its gradients: by hand, by our own autodiff engine, by finite differences."""

from dl_course.mlp.autodiff import Variable
from dl_course.mlp.derivatives import (
    GradientCheck,
    directional_derivative,
    gradient,
    gradient_check,
    hessian,
    hessian_vector_product,
    jacobian,
    numerical_gradient,
)
from dl_course.mlp.graph import draw_graph
from dl_course.mlp.mlp import MLP, output_activation, parameter_count

__all__ = [
    "MLP",
    "GradientCheck",
    "Variable",
    "directional_derivative",
    "draw_graph",
    "gradient",
    "gradient_check",
    "hessian",
    "hessian_vector_product",
    "jacobian",
    "numerical_gradient",
    "output_activation",
    "parameter_count",
]

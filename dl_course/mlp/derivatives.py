"""Derivatives of any torch function, from `torch.autograd.grad` alone, and their check by differences  (BONN ch. 9).

Letters: f maps x of any shape to a scalar or a tensor; n = number of elements of x, m = number of elements of f(x).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Function = Callable[[Tensor], Tensor]


def gradient(f: Function, x: Tensor, differentiable: bool = False) -> Tensor:
    """∇f(x) of a scalar f, in the shape of x: one backward pass. differentiable: for second derivatives."""
    x = x if differentiable and x.requires_grad else x.detach().requires_grad_()
    return _vjp(f(x), x, differentiable=differentiable)


def jacobian(f: Function, x: Tensor) -> Tensor:
    """Jacobian J_ij = ∂f_i/∂x_j, row by row: m backward passes. → (*f(x).shape, *x.shape)."""
    x = x.detach().requires_grad_()
    y = f(x)
    rows = [_vjp(y_i, x, retain_graph=True) for y_i in y.reshape(-1)]
    return torch.stack(rows).reshape(*y.shape, *x.shape) if rows else y.new_zeros(*y.shape, *x.shape)


def hessian(f: Function, x: Tensor) -> Tensor:
    """Hessian H_ij = ∂²f/∂x_i∂x_j of a scalar f, the Jacobian of its gradient. → (*x.shape, *x.shape)."""
    return jacobian(lambda x: gradient(f, x, differentiable=True), x)


def hessian_vector_product(f: Function, x: Tensor, v: Tensor) -> Tensor:
    """H v = ∇(∇f·v) without H: two backward passes, memory of one gradient. v in the shape of x → the same."""
    x = x.detach().requires_grad_()
    return _vjp((gradient(f, x, differentiable=True) * v).sum(), x)


def directional_derivative(f: Function, x: Tensor, v: Tensor) -> Tensor:
    """D_v f(x) = J v, the rate of change along v (not normalised): for a scalar f it is ∇f·v. → the shape of f(x).

    From two backward passes: uᵀJ is linear in u, and its derivative by u in the direction v is J v.
    """
    x = x.detach().requires_grad_()
    y = f(x)
    u = torch.zeros_like(y, requires_grad=True)
    u_j = _vjp(y, x, u, differentiable=True)
    return _vjp(u_j, u, v)


def _vjp(
    y: Tensor, x: Tensor, u: Tensor | None = None, differentiable: bool = False, retain_graph: bool | None = None
) -> Tensor:
    """uᵀ ∂y/∂x in the shape of x; 0 where y does not depend on x."""
    if not y.requires_grad:
        return torch.zeros_like(x)
    (result,) = torch.autograd.grad(
        y, x, u, create_graph=differentiable, retain_graph=True if differentiable else retain_graph, allow_unused=True
    )
    return torch.zeros_like(x) if result is None else result


# --- finite differences


def numerical_gradient(closure: Callable[[], Tensor], parameter: Tensor, step: float = 1e-6) -> Tensor:
    """Central differences (L(w + ε) − L(w − ε))/2ε for every element w of the parameter, error O(ε²)  (BONN §9.1).

    closure() → scalar loss, evaluated 2 times per element; the parameter is changed in place and restored.
    """
    flat = parameter.detach().view(-1)  # shares its memory
    result = torch.zeros_like(flat)
    with torch.no_grad():
        for i in range(len(flat)):
            w = flat[i].item()
            flat[i] = w + step
            above = closure()
            flat[i] = w - step
            result[i] = (above - closure()) / (2 * step)
            flat[i] = w
    return result.view_as(parameter)


@dataclass(frozen=True)
class GradientCheck:
    """Where backpropagation and central differences disagree most, and what the differences cost.

    error: the largest |analytic − numeric| / max(|analytic|, |numeric|, 1e-3·largest gradient).
    """

    error: float
    parameter: str
    index: tuple[int, ...]
    analytic: float
    numeric: float
    evaluations: int

    def __str__(self) -> str:
        place = f"{self.parameter}[{', '.join(map(str, self.index))}]"
        return (
            f"largest relative error {self.error:.2e} at {place}: analytic {self.analytic:.9g}, "
            f"numeric {self.numeric:.9g} ({self.evaluations} evaluations)"
        )


def gradient_check(
    closure: Callable[[], Tensor], parameters: nn.Module | Mapping[str, Tensor], step: float = 1e-6
) -> GradientCheck:
    """Compares backpropagation with central differences at every element of every parameter; reports the worst.

    closure() → loss; what is no scalar is weighted with fixed random numbers and summed. It must give the same value
    each time (no dropout, no new random numbers). Costs 2·P evaluations for P elements, and one backward pass.

        gradient_check(lambda: loss(net(x), y), net)
        gradient_check(lambda: torch.tanh(x), {"x": x})

    Raises: ValueError if a parameter is not float64 (differences of float32 hold 3 digits), needs no gradient, or if
    closure() changes from call to call.
    """
    named = dict(parameters.named_parameters() if isinstance(parameters, nn.Module) else parameters)
    if not named:
        raise ValueError("there are no parameters to check")
    for name, parameter in named.items():
        if parameter.dtype != torch.float64 or not parameter.requires_grad:
            got = f"{parameter.dtype} with requires_grad={parameter.requires_grad}"
            raise ValueError(f"{name} is {got}; expected torch.float64 with requires_grad=True")
    output = closure()
    generator = torch.Generator().manual_seed(0)
    weight = torch.rand(output.shape, dtype=torch.float64, generator=generator).to(output.device) + 0.5

    def scalar() -> Tensor:
        value = closure()
        return value if value.ndim == 0 else (weight * value).sum()

    loss = scalar()
    if not torch.allclose(loss, scalar(), rtol=0, atol=0, equal_nan=True):
        raise ValueError("closure() gives another value at each call: turn off dropout and other randomness")
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    analytic = {name: torch.zeros_like(p) if g is None else g for (name, p), g in zip(named.items(), found)}
    numeric = {name: numerical_gradient(scalar, p, step) for name, p in named.items()}
    floor = 1e-3 * max(float(g.abs().max()) for g in numeric.values()) + 1e-12

    reports = []
    evaluations = 2 * sum(p.numel() for p in named.values())
    for name, a in analytic.items():
        n = numeric[name]
        errors = (a - n).abs() / torch.maximum(a.abs(), n.abs()).clamp(min=floor)
        place = torch.unravel_index(torch.nan_to_num(errors, nan=torch.inf).argmax(), errors.shape)
        index = tuple(int(i) for i in place)
        report = GradientCheck(float(errors[index]), name, index, float(a[index]), float(n[index]), evaluations)
        reports.append(report)
    return max(reports, key=lambda report: math.inf if math.isnan(report.error) else report.error)

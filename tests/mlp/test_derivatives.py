"""Derivatives equal torch.func's; the gradient check passes what is right, and names what is wrong."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from dl_course.layers import ACTIVATIONS, activation
from dl_course.losses import LOSSES, loss
from dl_course.mlp import MLP
from dl_course.mlp.derivatives import (
    directional_derivative,
    gradient,
    gradient_check,
    hessian,
    hessian_vector_product,
    jacobian,
    numerical_gradient,
)

# torch.func itself still scripts its decompositions
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")

assert_close = partial(torch.testing.assert_close, rtol=1e-10, atol=1e-10)
A = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

SCALAR = {
    "quartic": lambda x: ((A @ x).square().sum() + x.prod()) ** 2,
    "log-sum-exp": lambda x: torch.logsumexp(A @ x, 0),
    "linear": lambda x: (A @ x).sum(),
    "constant": lambda x: torch.tensor(2.0, dtype=torch.float64),
}
VECTOR = {
    "affine-tanh": lambda x: torch.tanh(A @ x),
    "outer": lambda x: torch.outer(x, x.exp()),
    "linear": lambda x: A @ x,
    "partly constant": lambda x: torch.stack([x[0] ** 3, torch.zeros_like(x[0])]),
}


@pytest.mark.parametrize("f", SCALAR.values(), ids=SCALAR.keys())
def test_first_and_second_derivatives_equal_torch_func(f):
    x, v = torch.randn(2, 3, dtype=torch.float64)
    assert_close(gradient(f, x), torch.func.grad(f)(x))
    assert_close(hessian(f, x), torch.func.hessian(f)(x))
    assert_close(hessian_vector_product(f, x, v), torch.func.hessian(f)(x) @ v)
    assert_close(directional_derivative(f, x, v), torch.func.jvp(f, (x,), (v,))[1])


@pytest.mark.parametrize("f", VECTOR.values(), ids=VECTOR.keys())
def test_jacobian_and_directional_derivative_equal_torch_func(f):
    x, v = torch.randn(2, 3, dtype=torch.float64)
    assert_close(jacobian(f, x), torch.func.jacrev(f)(x))
    assert_close(directional_derivative(f, x, v), torch.func.jvp(f, (x,), (v,))[1])


def test_jacobian_and_hessian_keep_the_axes_apart():
    x = torch.randn(2, 3, dtype=torch.float64)
    f = lambda x: torch.tanh(x @ A.T)  # noqa: E731
    assert_close(jacobian(f, x), torch.func.jacrev(f)(x))  # (2, 5, 2, 3)
    assert_close(hessian(lambda x: f(x).prod(), x), torch.func.hessian(lambda x: f(x).prod())(x))


def test_the_input_is_left_as_it_was():
    x = torch.randn(3, dtype=torch.float64)
    hessian(SCALAR["quartic"], x)
    assert not x.requires_grad
    assert x.grad is None


def test_numerical_gradient_restores_the_parameter_and_is_second_order():
    x = torch.linspace(0.5, 2, 7, dtype=torch.float64)
    before = x.clone()
    errors = [(numerical_gradient(lambda: x.exp().sum(), x, step) - x.exp()).abs().max() for step in (1e-2, 1e-3)]
    assert torch.equal(x, before)
    assert errors[0] / errors[1] == pytest.approx(100, rel=0.01)


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("loss_name", LOSSES)
def test_networks_pass_the_check(name, loss_name):
    """float64, tolerance 1e-4: activations and losses written out, together."""
    outputs = 5 if LOSSES[loss_name].target == "classes" else 1
    net = MLP(3, [5], outputs, name, impl="scratch").double()
    x = torch.randn(7, 3, dtype=torch.float64)
    y = torch.randint(5, (7,)) if outputs == 5 else torch.rand(7, dtype=torch.float64)
    f = loss(loss_name, "scratch")
    report = gradient_check(lambda: f(net(x), y), net)
    assert report.error < 1e-4, report
    assert report.evaluations == 2 * sum(p.numel() for p in net.parameters())


def test_functions_that_give_no_scalar_are_checked_in_every_output():
    x = torch.randn(7, 5, dtype=torch.float64, requires_grad=True)
    scale = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    report = gradient_check(lambda: torch.softmax(scale * x, 1), {"x": x, "scale": scale})
    assert report.error < 1e-6
    assert report.evaluations == 2 * 36


class WrongAt(torch.autograd.Function):
    """The identity, with a gradient that is wrong by 1 % in one element."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, *grads):
        wrong = grads[0].clone()
        wrong[2, 1] *= 1.01
        return wrong


def test_a_wrong_element_is_named():
    net = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1)).double()
    x, second = torch.randn(7, 3, dtype=torch.float64), net[2]
    assert isinstance(second, nn.Linear)

    def closure():
        hidden = torch.tanh(x @ WrongAt.apply(net[0].weight).T + net[0].bias)
        return second(hidden).square().mean()

    report = gradient_check(closure, net)
    assert (report.parameter, report.index) == ("0.weight", (2, 1))
    assert report.error == pytest.approx(0.01, rel=0.02)
    assert report.analytic == pytest.approx(1.01 * report.numeric, rel=1e-5)
    assert "0.weight[2, 1]" in str(report)


def test_nan_gradients_fail_the_check():
    x = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    report = gradient_check(lambda: torch.where(x > 0, x.sqrt() / x, x).sum(), {"x": x})
    assert not report.error < 1e-4


def test_what_cannot_be_checked_is_refused():
    x = torch.ones(3, requires_grad=True)
    with pytest.raises(ValueError, match=r"x is torch.float32"):
        gradient_check(lambda: x.sum(), {"x": x})
    z = torch.ones(3, dtype=torch.float64, requires_grad=True)
    with pytest.raises(ValueError, match="another value at each call"):
        gradient_check(lambda: (z * torch.rand(3)).sum(), {"z": z})
    with pytest.raises(ValueError, match="no parameters"):
        gradient_check(lambda: torch.zeros(()), activation("relu"))

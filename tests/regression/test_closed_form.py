"""Closed forms against torch.linalg, scikit-learn and SciPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_diabetes
from sklearn.linear_model import Lasso, LinearRegression, Ridge

from dl_course.losses import mse, regularized
from dl_course.regression import (
    Linear,
    NotConverged,
    add_bias,
    lasso,
    least_squares,
    least_squares_gradient,
    linear_loss,
    ridge,
    soft_threshold,
    standard_errors,
)


@pytest.fixture
def problem():
    x = torch.randn(31, 5, dtype=torch.float64) * torch.tensor([1.0, 10.0, 0.1, 3.0, 1.0], dtype=torch.float64) + 2
    y = x @ torch.tensor([1.0, -0.2, 7.0, 0.0, 2.0], dtype=torch.float64) + 4 + torch.randn(31, dtype=torch.float64)
    return x, y


@pytest.mark.parametrize("method", ["normal", "qr", "svd"])
def test_least_squares_matches_lstsq(problem, method):
    x, y = problem
    fit = least_squares(x, y, method)
    theta = torch.linalg.lstsq(add_bias(x), y[:, None]).solution[:, 0]
    torch.testing.assert_close(torch.cat([fit.bias[None], fit.weight]), theta, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(fit.predict(x), add_bias(x) @ theta, rtol=1e-10, atol=1e-10)


def test_dependent_columns_are_named_or_solved_with_least_norm(problem):
    x, y = problem
    x = torch.cat([x, x[:, :1] * 2], dim=1)
    with pytest.raises(ValueError, match=r"not positive definite: pivot 6"):
        least_squares(x, y, "normal")
    with pytest.raises(ValueError, match=r"dependent columns: R\[6, 6\]"):
        least_squares(x, y, "qr")
    fit = least_squares(x, y, "svd")
    theta = torch.from_numpy(np.linalg.pinv(add_bias(x).numpy()) @ y.numpy())
    torch.testing.assert_close(torch.cat([fit.bias[None], fit.weight]), theta, rtol=1e-8, atol=1e-8)


def test_gradient_matches_autograd_and_vanishes_at_the_solution(problem):
    x, y = problem
    design = add_bias(x)
    theta = torch.randn(6, dtype=torch.float64, requires_grad=True)
    (reference,) = torch.autograd.grad(((design @ theta - y) ** 2).mean(), theta)
    torch.testing.assert_close(least_squares_gradient(design, y, theta.detach()), reference, rtol=1e-10, atol=1e-10)
    fit = least_squares(x, y)
    best = torch.cat([fit.bias[None], fit.weight])
    assert least_squares_gradient(design, y, best).abs().max() < 1e-10


def test_standard_errors_match_the_textbook_inverse(problem):
    x, y = problem
    design = add_bias(x).numpy()
    residual = y.numpy() - design @ np.linalg.lstsq(design, y.numpy())[0]
    reference = np.sqrt(residual @ residual / (31 - 6) * np.diag(np.linalg.inv(design.T @ design)))
    ours = standard_errors(x, y)
    torch.testing.assert_close(
        torch.cat([ours.bias[None], ours.weight]), torch.from_numpy(reference), rtol=1e-9, atol=1e-10
    )
    with pytest.raises(ValueError, match=r"n=6 samples leave no degree of freedom for 5 weights"):
        standard_errors(x[:6], y[:6])


def test_standard_errors_are_the_spread_of_the_estimates():
    x, estimates, errors = torch.randn(53, 2, dtype=torch.float64), [], []
    for _ in range(400):
        y = x @ torch.tensor([1.0, -2.0], dtype=torch.float64) + 0.5 * torch.randn(53, dtype=torch.float64)
        estimates.append(least_squares(x, y).weight)
        errors.append(standard_errors(x, y).weight)
    torch.testing.assert_close(torch.stack(estimates).std(0), torch.stack(errors).mean(0), rtol=0.12, atol=0)


@pytest.mark.parametrize("l2", [0.0, 0.01, 3.0])
def test_ridge_matches_sklearn_with_alpha_n_l2_half(problem, l2):
    x, y = problem
    ours, reference = ridge(x, y, l2), Ridge(alpha=len(x) * l2 / 2).fit(x, y) if l2 else LinearRegression().fit(x, y)
    np.testing.assert_allclose(ours.weight, reference.coef_, rtol=1e-9, atol=1e-10)
    assert math.isclose(ours.bias, reference.intercept_, rel_tol=1e-9)


@pytest.mark.parametrize("method", ["coordinate", "ista"])
def test_lasso_matches_sklearn_with_alpha_l1_half(method):
    data = load_diabetes()
    x, y = data["data"] / data["data"].std(0), data["target"]  # pyright: ignore
    l1 = 6.0
    reference = Lasso(alpha=l1 / 2, tol=1e-12, max_iter=100_000).fit(x, y)
    ours = lasso(torch.from_numpy(x), torch.from_numpy(y), l1, method)
    np.testing.assert_allclose(ours.weight, reference.coef_, rtol=1e-6, atol=1e-7)
    assert math.isclose(ours.bias, reference.intercept_, rel_tol=1e-9)
    assert np.array_equal(ours.weight == 0, reference.coef_ == 0)  # exact zeros, and the same ones
    assert 0 < (ours.weight == 0).sum() < 10


def objective(x, y, weight, bias, l1, l2):
    return (x @ weight + bias - y).square().mean() + l1 * weight.abs().sum() + 0.5 * l2 * weight.square().sum()


@pytest.mark.parametrize(("l1", "l2"), [(0.7, 0.0), (0.0, 0.7)])
def test_penalised_solutions_minimise_the_training_objective(problem, l1, l2):
    """The objective as training writes it: mean squared error + λ‖w‖₁ or + ½·λ‖w‖²; no small step improves it."""
    x, y = problem
    fit = lasso(x, y, l1) if l1 else ridge(x, y, l2)
    best = objective(x, y, *fit, l1, l2)
    for _ in range(200):
        step = 1e-3 * torch.randn(6, dtype=torch.float64)
        assert objective(x, y, fit.weight + step[1:], fit.bias + step[0], l1, l2) > best


def test_training_loss_is_stationary_at_the_ridge_solution(problem):
    """The loss that `ridge_diabetes` trains with has no gradient where the closed form says, bias included."""
    x, y = problem
    net = Linear(5).double()
    fit = ridge(x, y, l2=0.7)
    with torch.no_grad():
        net.weight.copy_(fit.weight[None])
        net.bias.copy_(fit.bias[None])  # pyright: ignore[reportOptionalMemberAccess]
    regularized(mse, net, l2=0.7)(net(x), y).backward()
    for p in net.parameters():
        torch.testing.assert_close(p.grad, torch.zeros_like(p), rtol=0, atol=1e-10)


def test_lasso_zero_and_huge_penalty(problem):
    x, y = problem
    torch.testing.assert_close(lasso(x, y, 0.0).weight, least_squares(x, y).weight, rtol=1e-6, atol=1e-8)
    assert not lasso(x, y, 1e6).weight.any()
    assert math.isclose(lasso(x, y, 1e6).bias, y.mean(), rel_tol=1e-12)


def test_soft_threshold_is_the_proximal_operator():
    grid = torch.linspace(-3, 3, 60001, dtype=torch.float64)
    for w in (-1.7, -0.2, 0.0, 0.4, 2.3):
        nearest = grid[(0.5 * (grid - w) ** 2 + 0.5 * grid.abs()).argmin()]
        assert abs(soft_threshold(torch.tensor(w, dtype=torch.float64), 0.5) - nearest) < 1e-4


def test_bad_input_prints_numbers(problem):
    x, y = problem
    with pytest.raises(ValueError, match=r"\(31, 5\) and \(30,\)"):
        least_squares(x, y[:30])
    with pytest.raises(ValueError, match=r"method='lu', expected 'normal', 'qr' or 'svd'"):
        least_squares(x, y, "lu")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"l2=-0.5"):
        ridge(x, y, -0.5)
    with pytest.raises(ValueError, match=r"l1=-1"):
        lasso(x, y, -1)
    with pytest.raises(NotConverged, match=r"lasso by ista did not converge: relative move .* after 3 steps"):
        lasso(x, y, 0.1, "ista", max_steps=3)


def test_least_squares_has_the_smallest_linear_loss(problem):
    x, y = problem
    fit = least_squares(x, y)
    theta = torch.cat([fit.bias[None], fit.weight])
    assert linear_loss(theta, add_bias(x), y) < linear_loss(theta + 1e-4, add_bias(x), y)

"""Hand-written losses and gradients against torch, and the three descents against torch.optim and the closed form."""

from __future__ import annotations

from itertools import chain

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dl_course.regression import (
    add_bias,
    gradient_descent,
    hinge_gradient,
    hinge_loss,
    least_squares,
    linear_gradient,
    linear_loss,
    logistic_gradient,
    logistic_loss,
    minibatch_descent,
    softmax_gradient,
    softmax_loss,
    stochastic_descent,
)

X = torch.randn(29, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def hinge_reference(scores, y):
    return nn.MultiMarginLoss()(scores, y) * scores.shape[1]  # torch divides by the number of classes


CASES = {
    "linear": (linear_loss, linear_gradient, lambda z, y: F.mse_loss(z, y), (5,), X.sum(1) + X[:, 0] ** 2),
    "logistic": (
        logistic_loss,
        logistic_gradient,
        lambda z, y: F.binary_cross_entropy_with_logits(z, y),
        (5,),
        (X[:, 0] > 0).double(),
    ),
    "softmax": (softmax_loss, softmax_gradient, lambda z, y: F.cross_entropy(z, y), (5, 3), X[:, :3].argmax(1)),
    "hinge": (hinge_loss, hinge_gradient, hinge_reference, (5, 3), X[:, :3].argmax(1)),
}


@pytest.mark.parametrize("case", CASES)
def test_loss_and_hand_gradient_match_torch(case):
    loss, gradient, reference, shape, y = CASES[case]
    theta = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    value = reference(X @ theta, y)
    (expected,) = torch.autograd.grad(value, theta)
    torch.testing.assert_close(loss(theta, X, y), value, rtol=0, atol=1e-10)
    torch.testing.assert_close(gradient(theta.detach(), X, y), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("case", ["logistic", "softmax"])
def test_large_scores_do_not_overflow(case):
    loss, gradient, reference, shape, y = CASES[case]
    theta = 1e4 * torch.randn(shape, dtype=torch.float64)
    torch.testing.assert_close(loss(theta, X, y), reference(X @ theta, y), rtol=1e-12, atol=1e-10)
    assert gradient(theta, X, y).isfinite().all()


@pytest.mark.parametrize("case", CASES)
def test_descent_by_hand_and_by_autograd_take_the_same_path(case):
    loss, gradient, _, shape, y = CASES[case]
    start = torch.randn(shape, dtype=torch.float64)
    by_hand = gradient_descent(loss, start, X, y, lr=0.1, epochs=20, gradient=gradient)
    by_autograd = gradient_descent(loss, start, X, y, lr=0.1, epochs=20)
    torch.testing.assert_close(by_hand.thetas, by_autograd.thetas, rtol=0, atol=1e-10)
    assert by_hand.losses[-1] < by_hand.losses[0]


def test_gradient_descent_matches_torch_sgd():
    y = CASES["softmax"][4]
    net = nn.Linear(5, 3, bias=False).double()
    start = net.weight.detach().mT.clone()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.3)
    path = [start]
    for _ in range(13):
        optimizer.zero_grad()
        F.cross_entropy(net(X), y).backward()
        optimizer.step()
        path.append(net.weight.detach().mT.clone())
    ours = gradient_descent(softmax_loss, start, X, y, lr=0.3, epochs=13)
    torch.testing.assert_close(ours.thetas, torch.stack(path), rtol=0, atol=1e-10)
    assert ours.thetas.shape == (14, 5, 3)
    assert ours.losses.shape == (14,)


def test_full_batch_is_gradient_descent_and_batch_one_is_stochastic():
    y, start = CASES["linear"][4], torch.zeros(5, dtype=torch.float64)
    full = minibatch_descent(linear_loss, start, X, y, lr=0.05, epochs=7, batch_size=29)
    torch.testing.assert_close(full.thetas, gradient_descent(linear_loss, start, X, y, 0.05, 7).thetas)
    one = minibatch_descent(linear_loss, start, X, y, lr=0.05, epochs=2, batch_size=1, seed=5)
    assert torch.equal(one.thetas, stochastic_descent(linear_loss, start, X, y, lr=0.05, epochs=2, seed=5).thetas)


def test_an_epoch_shows_every_sample_once_in_an_order_of_the_seed():
    def epoch(seed: int) -> list[list[int]]:
        seen: list[list[int]] = []

        def gradient(theta, x, y):
            seen.append(y.int().tolist())
            return torch.zeros_like(theta)

        y = torch.arange(29, dtype=torch.float64)
        minibatch_descent(linear_loss, torch.zeros(5).double(), X, y, 0.1, 2, 8, seed=seed, gradient=gradient)
        return seen

    batches = epoch(seed=1)
    assert [len(b) for b in batches] == [8, 8, 8, 5] * 2
    assert sorted(chain(*batches[:4])) == sorted(chain(*batches[4:])) == list(range(29))
    assert batches[:4] != batches[4:]
    assert epoch(seed=1) == batches != epoch(seed=2)


def test_decaying_rate_reaches_the_closed_form_where_a_constant_one_circles():
    y = X @ torch.tensor([1.0, -2.0, 0.5, 0.0, 3.0], dtype=torch.float64) + torch.randn(29, dtype=torch.float64)
    fit = least_squares(X, y)
    best = torch.cat([fit.bias[None], fit.weight])
    start = torch.zeros(6, dtype=torch.float64)
    decaying, constant = (
        minibatch_descent(linear_loss, start, add_bias(X), y, lr, 2000, 4, gradient=linear_gradient).theta
        for lr in (lambda t: 2 / (t + 40), 0.05)
    )
    assert (decaying - best).norm() < 0.01 * best.norm()
    assert (constant - best).norm() > 2 * (decaying - best).norm()


def test_batch_size_out_of_range_prints_both_numbers():
    with pytest.raises(ValueError, match=r"batch_size=30, expected 1 to n=29"):
        minibatch_descent(linear_loss, torch.zeros(5), X, X[:, 0], 0.1, 1, 30)

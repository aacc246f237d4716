"""Gradient descent, minibatch and stochastic gradient descent as loops that fit on a slide, and the gradients by
hand.

This is the teaching form, for small problems and for figures: parameters are one tensor θ, and the path is kept.
Training proper goes through `dl-course train`. Every function of a model has the signature f(θ, x, y), x a design
matrix (`add_bias`):

| model | loss (mean over the batch) | gradient by hand |
|---|---|---|
| linear, θ (k,) | `linear_loss` (squared error) | `linear_gradient`   (2/n) Xᵀ(Xθ − y) |
| logistic, θ (k,) | `logistic_loss` (nats) | `logistic_gradient`  (1/n) Xᵀ(σ(Xθ) − y) |
| softmax, θ (k, C) | `softmax_loss` (nats) | `softmax_gradient`  (1/n) Xᵀ(softmax(Xθ) − G) |
| multiclass SVM, θ (k, C) | `hinge_loss` (margins) | `hinge_gradient`  (1/n) Xᵀ M |
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]  # f(θ, x, y) → scalar
Gradient = Callable[[Tensor, Tensor, Tensor], Tensor]  # f(θ, x, y) → like θ


class Trajectory(NamedTuple):
    """The path of a descent, row 0 the start, then one row per epoch.

    thetas (epochs + 1, *θ.shape); losses (epochs + 1,) on all data.
    """

    thetas: Tensor
    losses: Tensor

    @property
    def theta(self) -> Tensor:
        """Where it ended."""
        return self.thetas[-1]


def autograd(loss: Loss) -> Gradient:
    """The gradient of any loss(θ, x, y) by automatic differentiation, in the form that the loops below take."""

    def gradient(theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        theta = theta.detach().requires_grad_()
        return torch.autograd.grad(loss(theta, x, y), theta)[0]

    return gradient


def gradient_descent(
    loss: Loss, theta: Tensor, x: Tensor, y: Tensor, lr: float, epochs: int, gradient: Gradient | None = None
) -> Trajectory:
    """θ ← θ − η ∇L(θ) on all data at once: one step an epoch  (LUE2 "Gradient descent"). gradient: default
    autograd."""
    gradient = gradient or autograd(loss)
    path = [theta.detach()]
    for _ in range(epochs):
        theta = theta - lr * gradient(theta, x, y)
        path.append(theta.detach())
    return _trajectory(loss, path, x, y)


def minibatch_descent(
    loss: Loss,
    theta: Tensor,
    x: Tensor,
    y: Tensor,
    lr: float | Callable[[int], float],
    epochs: int,
    batch_size: int,
    seed: int = 0,
    gradient: Gradient | None = None,
) -> Trajectory:
    """θ ← θ − (η/|B|) Σ_{i∈B} ∇lᵢ(θ), each epoch a new random partition into batches  (LUE2 "Minibatch"; BONN 6.3).

    lr: a number η, or a schedule t ↦ η_t over the steps t = 0, 1, … (constant η circles around the optimum at a
    distance that shrinks with η; Robbins & Monro 1951: Ση_t = ∞ and Ση_t² < ∞ arrive). The last batch may be
    smaller. Order depends on `seed`.
    """
    if not 1 <= batch_size <= len(x):
        raise ValueError(f"batch_size={batch_size}, expected 1 to n={len(x)}")
    gradient = gradient or autograd(loss)
    order = torch.Generator().manual_seed(seed)
    path, step = [theta.detach()], 0
    for _ in range(epochs):
        for batch in torch.randperm(len(x), generator=order).split(batch_size):
            eta = lr(step) if callable(lr) else lr
            theta = theta - eta * gradient(theta, x[batch], y[batch])
            step += 1
        path.append(theta.detach())
    return _trajectory(loss, path, x, y)


def stochastic_descent(
    loss: Loss,
    theta: Tensor,
    x: Tensor,
    y: Tensor,
    lr: float | Callable[[int], float],
    epochs: int,
    seed: int = 0,
    gradient: Gradient | None = None,
) -> Trajectory:
    """Stochastic gradient descent in the narrow sense, batches of one sample  (LUE2 "(Stochastic) Gradient
    Descent")."""
    return minibatch_descent(loss, theta, x, y, lr, epochs, batch_size=1, seed=seed, gradient=gradient)


def _trajectory(loss: Loss, path: list[Tensor], x: Tensor, y: Tensor) -> Trajectory:
    with torch.no_grad():
        return Trajectory(torch.stack(path), torch.stack([loss(theta, x, y) for theta in path]))


# ------------------------------------------------------------------------------- losses and their gradients by hand


def linear_loss(theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Mean squared error (1/n)‖Xθ − y‖², in units of y squared. theta (k,), x (n, k), y (n,) → ()."""
    return (x @ theta - y).square().mean()


def linear_gradient(theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """(2/n) Xᵀ(Xθ − y): the error of each sample, weighted by its features. → (k,)."""
    return 2 / len(x) * x.mT @ (x @ theta - y)


def logistic_loss(theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Mean binary cross-entropy in nats of ŷ = σ(Xθ), y in {0, 1} or a probability  (I2DL 02).

    With the logit z: −y log σ(z) − (1−y) log(1−σ(z)) = max(z, 0) − y z + log(1 + e^{−|z|}), which never overflows.
    """
    z = x @ theta  # (n,)
    return (z.clamp_min(0) - y * z + torch.log1p(torch.exp(-z.abs()))).mean()


def logistic_gradient(theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """(1/n) Xᵀ(σ(Xθ) − y): the same form as linear regression's. → (k,)."""
    return x.mT @ (1 / (1 + torch.exp(-(x @ theta))) - y) / len(x)


def softmax_loss(theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Mean cross-entropy in nats of softmax(Xθ), y (n,) int64 class indices  (I2DL 07). theta (k, C) → ()."""
    z = x @ theta  # (n, C)
    z = z - z.amax(1, keepdim=True)  # softmax does not see a shift; exp then cannot overflow
    return (z.exp().sum(1).log() - z.gather(1, y[:, None])[:, 0]).mean()


def softmax_gradient(theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """(1/n) Xᵀ(O − G), O = softmax(Xθ), G one-hot  (NPFL3 "MLE loss of softmax"). → (k, C)."""
    z = x @ theta
    o = (z - z.amax(1, keepdim=True)).exp()
    o = o / o.sum(1, keepdim=True)  # (n, C), rows sum to 1
    o[torch.arange(len(y)), y] -= 1
    return x.mT @ o / len(x)


def hinge_loss(theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Multiclass hinge, mean of Σ_{k≠y} max(0, s_k − s_y + 1), s = Xθ  (I2DL 07). Exactly 0 once all margins are ≥
    1."""
    return _violations(theta, x, y).sum(1).mean()


def hinge_gradient(theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """(1/n) XᵀM: M is 1 where a wrong class violates the margin, and minus their number at the right class. → (k,
    C)."""
    m = (_violations(theta, x, y) > 0).to(x.dtype)  # (n, C)
    m[torch.arange(len(y)), y] = -m.sum(1)
    return x.mT @ m / len(x)


def _violations(theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
    s = x @ theta  # (n, C)
    margin = (s - s.gather(1, y[:, None]) + 1).clamp_min(0)
    return margin.scatter(1, y[:, None], 0.0)  # the right class has no margin to itself

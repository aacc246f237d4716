"""Linear, ridge and lasso regression without a learning rate: the answers that descent has to find.

One scaling throughout, that of training (`loss: mse` with `regularization`), so that a trained model and this file
agree:

    least squares   J(w, b) = (1/n) Σᵢ (xᵢ·w + b − yᵢ)²
    ridge           J + ½·λ‖w‖²          (scikit-learn's Ridge(alpha = n·λ/2))
    lasso           J + λ‖w‖₁            (scikit-learn's Lasso(alpha = λ/2))

The bias b is never penalised. λ therefore belongs to the *mean* loss; against the sum of squares it counts n times.
Everything is computed in float64. Shapes: x (n, d), y (n,) → weight (d,), bias ().
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from dl_course.regression.solvers import NotConverged, cholesky, cholesky_solve, forward_substitution, qr_solve


class LinearFit(NamedTuple):
    """weight (d,) and bias () of ŷ = x·w + b."""

    weight: Tensor
    bias: Tensor

    def predict(self, x: Tensor) -> Tensor:
        """x (n, d) → ŷ (n,) in the units of y."""
        return x.to(self.weight.dtype) @ self.weight + self.bias


def add_bias(x: Tensor) -> Tensor:
    """The design matrix [1 x]: a leading column of ones, so that θ₀ is the bias  (I2DL 02). (n, d) → (n, d + 1)."""
    return torch.cat([torch.ones_like(x[:, :1]), x], dim=1)


def least_squares(x: Tensor, y: Tensor, method: Literal["normal", "qr", "svd"] = "qr") -> LinearFit:
    """argmin J(w, b) in closed form: θ = (XᵀX)⁻¹ Xᵀ y = X⁺ y  (I2DL 02; BONN 4.3.1).

    `normal` solves the normal equations XᵀX θ = Xᵀy by Cholesky: cheapest, but it squares the condition number of X.
    `qr` solves R θ = Qᵀ y. `svd` uses the pseudo-inverse and, where columns are dependent, gives the solution of
    least norm (of θ, bias included); the other two then raise ValueError.
    """
    x, y = _regression(x, y)
    design = add_bias(x)
    if method == "normal":
        theta = cholesky_solve(design.mT @ design, design.mT @ y)
    elif method == "qr":
        theta = qr_solve(design, y)
    elif method == "svd":
        u, s, vt = torch.linalg.svd(design, full_matrices=False)
        keep = s > max(design.shape) * torch.finfo(s.dtype).eps * s[0]
        theta = vt[keep].mT @ ((u[:, keep].mT @ y) / s[keep])
    else:
        raise ValueError(f"method={method!r}, expected 'normal', 'qr' or 'svd'")
    return LinearFit(theta[1:], theta[0])


def least_squares_gradient(design: Tensor, y: Tensor, theta: Tensor) -> Tensor:
    """∂J/∂θ = (2/n)(XᵀXθ − Xᵀy), zero at the least-squares solution  (I2DL 02, whose line lacks the 1/n and an X).

    Shapes: design (n, k), y (n,), theta (k,) → (k,).
    """
    return 2 / len(y) * (design.mT @ (design @ theta) - design.mT @ y)


def standard_errors(x: Tensor, y: Tensor) -> LinearFit:
    """Standard errors of the least-squares weights and bias: √(s² · diag (XᵀX)⁻¹) with s² = RSS / (n − d − 1).

    An estimate lies within 3 of them of the truth in 99.7 % of data sets, if the noise is independent with one
    variance.
    Raises: ValueError unless n > d + 1, for then nothing is left to estimate the noise from.
    """
    x, y = _regression(x, y)
    freedom = len(x) - x.shape[1] - 1
    if freedom < 1:
        raise ValueError(f"n={len(x)} samples leave no degree of freedom for {x.shape[1]} weights and a bias")
    residual = y - least_squares(x, y).predict(x)
    variance = residual.square().sum() / freedom
    design = add_bias(x)
    lower = cholesky(design.mT @ design)
    inverse = torch.stack([forward_substitution(lower, e) for e in torch.eye(len(lower)).to(x)], dim=1)  # L⁻¹
    errors = (variance * inverse.square().sum(0)).sqrt()  # diag (XᵀX)⁻¹ = diag L⁻ᵀL⁻¹
    return LinearFit(errors[1:], errors[0])


def ridge(x: Tensor, y: Tensor, l2: float) -> LinearFit:
    """argmin J + ½·λ‖w‖² in closed form  (LUE2 "Weight Decay"; Hoerl & Kennard 1970).

    With X̃ and ỹ centred, w = (X̃ᵀX̃ + (nλ/2) I)⁻¹ X̃ᵀỹ. Centring takes the unpenalised bias out of the problem: b
    = ȳ − x̄·w. For λ > 0 the matrix is positive definite even where columns are dependent or d > n.
    """
    if l2 < 0:
        raise ValueError(f"l2={l2}, expected a penalty ≥ 0")
    x, y = _regression(x, y)
    xc, yc = x - x.mean(0), y - y.mean()
    penalty = 0.5 * len(x) * l2 * torch.eye(x.shape[1]).to(x)
    weight = cholesky_solve(xc.mT @ xc + penalty, xc.mT @ yc)
    return LinearFit(weight, y.mean() - x.mean(0) @ weight)


def soft_threshold(w: Tensor, threshold: float | Tensor) -> Tensor:
    """sign(w)·max(|w| − t, 0): the proximal step of t‖·‖₁, which makes exact zeros."""
    return w.sign() * (w.abs() - threshold).clamp_min(0)


def lasso(
    x: Tensor,
    y: Tensor,
    l1: float,
    method: Literal["coordinate", "ista"] = "coordinate",
    tol: float = 1e-12,
    max_steps: int = 100_000,
) -> LinearFit:
    """argmin J + λ‖w‖₁, which has no closed form  (Tibshirani 1996).

    `coordinate` solves one weight at a time exactly, w_j = S(x̃_jᵀ r_j, nλ/2) / ‖x̃_j‖² (r_j: the residual without
    feature j).
    `ista` takes a gradient step of size 1/L on J and then the proximal step, w ← S(w − ∇J/L, λ/L), L = 2
    λ_max(X̃ᵀX̃)/n (Beck & Teboulle 2009): a descent that does reach exact zeros, which plain SGD on |w| does not.

    Stops when no weight moved by more than tol·max|w| in a sweep. Raises: NotConverged after max_steps sweeps.
    """
    if l1 < 0:
        raise ValueError(f"l1={l1}, expected a penalty ≥ 0")
    if method not in ("coordinate", "ista"):
        raise ValueError(f"method={method!r}, expected 'coordinate' or 'ista'")
    x, y = _regression(x, y)
    n = len(x)
    xc, yc = x - x.mean(0), y - y.mean()
    gram, target = xc.mT @ xc, xc.mT @ yc  # (d, d), (d,)
    squares = gram.diagonal()
    weight = torch.zeros_like(target)
    rate = n / (2 * torch.linalg.eigvalsh(gram)[-1].clamp_min(torch.finfo(x.dtype).tiny))  # 1/L
    moves = [1.0]
    while moves[-1] > tol:
        before = weight.clone()
        if method == "ista":
            gradient = 2 / n * (gram @ weight - target)
            weight = soft_threshold(weight - rate * gradient, rate * l1)
        else:
            for j in squares.nonzero().flatten():
                rho = target[j] - gram[j] @ weight + squares[j] * weight[j]
                weight[j] = soft_threshold(rho, n * l1 / 2) / squares[j]
        moves.append(float((weight - before).abs().max() / weight.abs().max().clamp_min(torch.finfo(x.dtype).tiny)))
        if len(moves) > max_steps and moves[-1] > tol:
            raise NotConverged(f"lasso by {method}", moves, tol, "relative move of a weight")
    return LinearFit(weight, y.mean() - x.mean(0) @ weight)


def _regression(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    x, y = torch.as_tensor(x).to(torch.float64), torch.as_tensor(y).to(torch.float64)
    if x.ndim != 2 or y.shape != x.shape[:1]:
        raise ValueError(f"expected x (n, d) and y (n,), got shapes {tuple(x.shape)} and {tuple(y.shape)}")
    return x, y

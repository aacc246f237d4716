"""Seven ways to solve A x = b, written out  (I2DL 06: "LU, QR, Cholesky, Jacobi, Gauss–Seidel, CG, PCG").

Direct methods factor A once, O(n³), and are exact up to rounding:
`lu_solve` (any regular A), `qr_solve` (also more rows than columns: least squares), `cholesky_solve` (symmetric
positive definite, SPD).
Iterative methods improve a guess, O(n²) a sweep, and return every residual on the way:
`jacobi`, `gauss_seidel` (diagonally dominant A; Gauss–Seidel any SPD A), `conjugate_gradient`,
`preconditioned_conjugate_gradient` (SPD A).

Everything is computed in float64, whatever comes in. Shapes: A (n, n), b (n,) → x (n,); factorisations name theirs.
A matrix that a method cannot treat is a ValueError that prints the number which says so; running out of steps is
`NotConverged`. "Singular" and the like are judged relative to each column, so that a badly scaled unknown is no
reason. Algorithms after Golub & Van Loan, "Matrix Computations" (4th ed.): 3.4, 4.2, 5.2 (direct), 11.2, 11.3, 11.5
(iterative).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from dl_course.errors import RunError

EPSILON = torch.finfo(torch.float64).eps
GROWTH_LIMIT = 1e12  # an iteration whose residual grew this much has diverged; waiting for inf would only cost time


class Iteration(NamedTuple):
    """Result of an iterative method: x (n,), and residuals ‖b − A x_k‖ / ‖b‖ for k = 0, 1, … (steps + 1 of them)."""

    x: Tensor
    residuals: list[float]

    @property
    def steps(self) -> int:
        return len(self.residuals) - 1


class NotConverged(RunError):
    """An iteration that diverged or ran out of steps; `residuals` is its whole history."""

    def __init__(self, method: str, residuals: list[float], tol: float, quantity: str = "relative residual") -> None:
        self.residuals = residuals
        verb = "diverged" if not residuals[-1] <= residuals[0] else "did not converge"
        super().__init__(
            f"{method} {verb}: {quantity} {residuals[-1]:.3g} after {len(residuals) - 1} steps"
            f" (it began at {residuals[0]:.3g}, tolerance {tol:.3g})"
        )


# -------------------------------------------------------------------------------------------------- direct methods


def lu(a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """LU factorisation with partial pivoting, A[p] = L U  (Gaussian elimination that remembers its steps).

    Returns p (n,) int64 the row order, L (n, n) unit lower, U (n, n) upper triangular.
    Raises: ValueError if A is singular: the largest pivot left in column k is below n·ε·max|A[:, k]|.
    """
    u = _square(a).clone()
    n = len(u)
    p = torch.arange(n, device=u.device)
    smallest = n * EPSILON * u.abs().amax(0)  # per column
    for k in range(n):
        pivot = k + int(u[k:, k].abs().argmax())
        if not u[pivot, k].abs() > smallest[k]:
            raise ValueError(f"A is singular: pivot {k} is {u[pivot, k].item():.3g}, below {smallest[k].item():.3g}")
        u[[k, pivot]], p[[k, pivot]] = u[[pivot, k]], p[[pivot, k]]
        u[k + 1 :, k] /= u[k, k]  # the multipliers, stored where the zeros would be
        u[k + 1 :, k + 1 :] -= u[k + 1 :, k, None] * u[k, k + 1 :]  # (n−k−1, n−k−1)
    return p, u.tril(-1) + torch.eye(n).to(u), u.triu()


def qr(a: Tensor) -> tuple[Tensor, Tensor]:
    """Reduced QR factorisation A = Q R by Householder reflections H = I − 2 v vᵀ.

    Shapes: A (m, n) with m ≥ n → Q (m, n) with QᵀQ = I, R (n, n) upper triangular; R's diagonal may be negative.
    """
    r = torch.as_tensor(a).to(torch.float64).clone()
    if r.ndim != 2 or r.shape[0] < r.shape[1]:
        raise ValueError(f"QR needs a matrix with at least as many rows as columns, got shape {tuple(r.shape)}")
    m, n = r.shape
    reflectors = []
    for k in range(n):
        v = r[k:, k].clone()  # reflect this column onto its first axis …
        v[0] += v.norm() * (1.0 if v[0] >= 0 else -1.0)  # … on the far side, so that nothing cancels
        if v.any():
            v /= v.norm()
        r[k:, k:] -= 2 * v[:, None] * (v @ r[k:, k:])
        reflectors.append(v)
    q = torch.eye(m, n).to(r)
    for k, v in reversed(list(enumerate(reflectors))):  # Q = H₀ H₁ … applied to the first n unit vectors
        q[k:] -= 2 * v[:, None] * (v @ q[k:])
    return q, r[:n].triu()


def cholesky(a: Tensor) -> Tensor:
    """Cholesky factorisation A = L Lᵀ of a symmetric positive definite matrix; half the work of LU, no pivoting
    needed.

    Raises: ValueError if A is not symmetric, or a pivot is not positive (A is not positive definite).
    """
    lower = _symmetric(a).tril().clone()
    n = len(lower)
    smallest = (n * EPSILON * lower.diagonal()).clamp_min(0).clone()  # per pivot
    for k in range(n):
        if not lower[k, k] > smallest[k]:
            pivot, least = lower[k, k].item(), smallest[k].item()
            raise ValueError(f"A is not positive definite: pivot {k} is {pivot:.3g}, expected more than {least:.3g}")
        lower[k:, k] /= lower[k, k].sqrt()
        lower[k + 1 :, k + 1 :] -= (lower[k + 1 :, k, None] * lower[k + 1 :, k]).tril()
    return lower


def forward_substitution(lower: Tensor, b: Tensor) -> Tensor:
    """x with L x = b for lower triangular L, first unknown first. Entries above the diagonal are not read."""
    x = torch.zeros_like(b)
    for i in range(len(b)):
        x[i] = (b[i] - lower[i, :i] @ x[:i]) / lower[i, i]
    return x


def back_substitution(upper: Tensor, b: Tensor) -> Tensor:
    """x with U x = b for upper triangular U, last unknown first. Entries below the diagonal are not read."""
    x = torch.zeros_like(b)
    for i in reversed(range(len(b))):
        x[i] = (b[i] - upper[i, i + 1 :] @ x[i + 1 :]) / upper[i, i]
    return x


def lu_solve(a: Tensor, b: Tensor) -> Tensor:
    """Solve A x = b by LU with partial pivoting: L (U x) = b[p]."""
    p, lower, upper = lu(a)
    return back_substitution(upper, forward_substitution(lower, _right_side(b, len(p))[p]))


def qr_solve(a: Tensor, b: Tensor) -> Tensor:
    """Solve A x = b by QR: R x = Qᵀ b. With more rows than columns, x minimises ‖A x − b‖².

    Shapes: A (m, n), b (m,) → x (n,). Raises: ValueError if the columns of A are linearly dependent.
    """
    q, r = qr(a)
    smallest = len(q) * EPSILON * r.norm(dim=0)  # per column; ‖R[:, k]‖ = ‖A[:, k]‖
    dependent = ~(r.diagonal().abs() > smallest)
    if dependent.any():
        k = int(dependent.nonzero()[0])
        raise ValueError(
            f"A has dependent columns: R[{k}, {k}] is {r[k, k].item():.3g}, below {smallest[k].item():.3g}"
        )
    return back_substitution(r, q.mT @ _right_side(b, len(q)))


def cholesky_solve(a: Tensor, b: Tensor) -> Tensor:
    """Solve A x = b for symmetric positive definite A: L (Lᵀ x) = b."""
    lower = cholesky(a)
    return back_substitution(lower.mT, forward_substitution(lower, _right_side(b, len(lower))))


# ----------------------------------------------------------------------------------------------- iterative methods


def jacobi(a: Tensor, b: Tensor, tol: float = 1e-10, max_steps: int = 10_000) -> Iteration:
    """Jacobi iteration x ← x + D⁻¹ (b − A x), D the diagonal of A: every unknown at once, from the old values.

    Converges for every start if and only if the spectral radius of I − D⁻¹A is below 1; diagonal dominance is
    enough, SPD is not.
    Raises: ValueError for a zero on the diagonal, NotConverged.
    """
    a, b = _system(a, b)
    diagonal = _diagonal(a)
    x = torch.zeros_like(b)
    r = b.clone()
    residuals = [1.0]
    while residuals[-1] > tol:
        x = x + r / diagonal
        r = b - a @ x
        _note("Jacobi", residuals, r, b, tol, max_steps)
    return Iteration(x, residuals)


def gauss_seidel(a: Tensor, b: Tensor, tol: float = 1e-10, max_steps: int = 10_000) -> Iteration:
    """Gauss–Seidel iteration x ← x + (D + L)⁻¹ (b − A x): one unknown after the other, each from the newest values.

    Converges for diagonally dominant and for every SPD matrix. Raises: ValueError for a zero on the diagonal,
    NotConverged.
    """
    a, b = _system(a, b)
    _diagonal(a)
    x = torch.zeros_like(b)
    r = b.clone()
    residuals = [1.0]
    while residuals[-1] > tol:
        x = x + forward_substitution(a, r)  # D + L is A's lower triangle
        r = b - a @ x
        _note("Gauss–Seidel", residuals, r, b, tol, max_steps)
    return Iteration(x, residuals)


def conjugate_gradient(a: Tensor, b: Tensor, tol: float = 1e-10, max_steps: int = 10_000) -> Iteration:
    """Conjugate gradients  (Hestenes & Stiefel 1952): descent on ½xᵀAx − bᵀx along directions with pᵢᵀ A pⱼ = 0.

    In exact arithmetic it ends after n steps; the error falls at least like ((√κ − 1)/(√κ + 1))ᵏ, κ the condition
    number of A. It is the preconditioned method with M = I, so see there for the loop, and for what it raises.
    """
    return preconditioned_conjugate_gradient(a, b, lambda r: r, tol, max_steps)


def preconditioned_conjugate_gradient(
    a: Tensor,
    b: Tensor,
    preconditioner: Callable[[Tensor], Tensor] | None = None,
    tol: float = 1e-10,
    max_steps: int = 10_000,
) -> Iteration:
    """Preconditioned conjugate gradients: CG in the variables in which M is the identity.

    preconditioner: r (n,) → M⁻¹ r (n,), M symmetric positive definite; default Jacobi's M = diag(A), which undoes a
    bad scaling of the unknowns exactly, and nothing else. `residuals` are those that the recursion carries
    (rounding lets them drift from b − A x by about κ·ε).
    Raises: ValueError if A is not symmetric, or a direction has pᵀAp ≤ 0 (A is not positive definite); NotConverged.
    """
    a, b = _system(_symmetric(a), b)
    diagonal = _diagonal(a)
    preconditioner = preconditioner or (lambda r: r / diagonal)
    x = torch.zeros_like(b)
    r = b.clone()
    z = preconditioner(r)
    p = z
    rz = r @ z
    residuals = [1.0]
    while residuals[-1] > tol:
        ap = a @ p
        curvature = p @ ap
        if not curvature > 0:
            raise ValueError(f"A is not positive definite: a direction p has pᵀAp = {curvature.item():.3g}")
        step = rz / curvature  # exact line search along p
        x = x + step * p
        r = r - step * ap
        z = preconditioner(r)
        rz, old = r @ z, rz
        p = z + rz / old * p  # the new direction, A-orthogonal to all before
        _note("CG", residuals, r, b, tol, max_steps)
    return Iteration(x, residuals)


# ----------------------------------------------------------------------------------------------------------- checks


def _note(method: str, residuals: list[float], r: Tensor, b: Tensor, tol: float, max_steps: int) -> None:
    """Append ‖r‖/‖b‖; raise NotConverged where it exploded, is NaN, or was the last one allowed and still above
    tol."""
    residuals.append(float(r.norm() / b.norm()))
    exploded = not residuals[-1] < GROWTH_LIMIT
    if exploded or (len(residuals) > max_steps and residuals[-1] > tol):
        raise NotConverged(method, residuals, tol)


def _square(a: Tensor) -> Tensor:
    a = torch.as_tensor(a).to(torch.float64)
    if a.ndim != 2 or a.shape[0] != a.shape[1]:
        raise ValueError(f"A must be square, got shape {tuple(a.shape)}")
    return a


def _symmetric(a: Tensor) -> Tensor:
    a = _square(a)
    difference, scale = (a - a.mT).abs().max(), a.abs().max()
    if difference > 1e-10 * scale:
        gap, largest = difference.item(), scale.item()
        raise ValueError(f"A is not symmetric: max|A − Aᵀ| is {gap:.3g} where max|A| is {largest:.3g}")
    return a


def _right_side(b: Tensor, rows: int) -> Tensor:
    b = torch.as_tensor(b).to(torch.float64)
    if b.shape != (rows,):
        raise ValueError(f"b has shape {tuple(b.shape)}, expected ({rows},)")
    return b


def _system(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    a = _square(a)
    b = _right_side(b, len(a))
    if not b.any():
        raise ValueError("b is zero: the relative residual ‖b − Ax‖/‖b‖ is not defined (the solution is x = 0)")
    return a, b


def _diagonal(a: Tensor) -> Tensor:
    diagonal = a.diagonal()
    if (diagonal == 0).any():
        raise ValueError(f"A has a zero on its diagonal, in row {int((diagonal == 0).nonzero()[0])}")
    return diagonal

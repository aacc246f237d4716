"""The seven solvers against SciPy and torch.linalg, and the matrices that each must refuse."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse.linalg
import torch

from dl_course.regression import solvers
from dl_course.regression.solvers import (
    NotConverged,
    cholesky,
    cholesky_solve,
    conjugate_gradient,
    gauss_seidel,
    jacobi,
    lu,
    lu_solve,
    preconditioned_conjugate_gradient,
    qr,
    qr_solve,
)

DIRECT = [lu_solve, qr_solve, cholesky_solve]
ITERATIVE = [jacobi, gauss_seidel, conjugate_gradient, preconditioned_conjugate_gradient]


def dominant(n: int) -> torch.Tensor:
    """Symmetric, strictly diagonally dominant with a positive diagonal: every one of the seven solves it."""
    a = torch.randn(n, n, dtype=torch.float64)
    a = a + a.mT
    return a + torch.diag(a.abs().sum(1) + 1)


def spd(n: int) -> torch.Tensor:
    a = torch.randn(n, n, dtype=torch.float64)
    return a @ a.mT + 0.1 * torch.eye(n, dtype=torch.float64)


@pytest.mark.parametrize("solve", [*DIRECT, *ITERATIVE], ids=lambda f: f.__name__)
def test_all_seven_solve_a_dominant_system(solve):
    a, b = dominant(23), torch.randn(23, dtype=torch.float64)
    result = solve(a, b) if solve in DIRECT else solve(a, b, tol=1e-13).x
    torch.testing.assert_close(result, torch.from_numpy(scipy.linalg.solve(a.numpy(), b.numpy())), rtol=0, atol=1e-10)


def test_lu_matches_scipy_including_the_pivots():
    a = torch.randn(13, 13, dtype=torch.float64)
    p, lower, upper = lu(a)
    p_scipy, l_scipy, u_scipy = scipy.linalg.lu(a.numpy(), p_indices=True)  # pyright: ignore[reportAssignmentType]
    torch.testing.assert_close(lower, torch.from_numpy(l_scipy), rtol=0, atol=1e-10)
    torch.testing.assert_close(upper, torch.from_numpy(u_scipy), rtol=0, atol=1e-10)
    torch.testing.assert_close(a[p], lower @ upper, rtol=0, atol=1e-10)
    assert np.array_equal(np.argsort(p.numpy()), p_scipy)  # scipy: A = (L U)[p]; ours: A[p] = L U
    assert lower.abs().max() <= 1  # what partial pivoting buys


def test_lu_needs_its_pivoting():
    a = torch.tensor([[0.0, 2.0], [3.0, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(lu_solve(a, torch.tensor([2.0, 7.0])), torch.tensor([2.0, 1.0], dtype=torch.float64))


@pytest.mark.parametrize("shape", [(11, 11), (17, 5), (5, 1), (1, 1)])
def test_qr_matches_torch_up_to_signs(shape):
    a = torch.randn(shape, dtype=torch.float64)
    q, r = qr(a)
    q_torch, r_torch = torch.linalg.qr(a)
    signs = torch.sign(r.diagonal() * r_torch.diagonal())
    torch.testing.assert_close(q * signs, q_torch, rtol=0, atol=1e-10)
    torch.testing.assert_close(r * signs[:, None], r_torch, rtol=0, atol=1e-10)
    torch.testing.assert_close(q @ r, a, rtol=0, atol=1e-10)
    torch.testing.assert_close(q.mT @ q, torch.eye(shape[1], dtype=torch.float64), rtol=0, atol=1e-10)


def test_qr_solve_is_least_squares_on_tall_matrices():
    a, b = torch.randn(19, 7, dtype=torch.float64), torch.randn(19, dtype=torch.float64)
    reference = torch.linalg.lstsq(a, b[:, None]).solution[:, 0]
    torch.testing.assert_close(qr_solve(a, b), reference, rtol=0, atol=1e-10)


def test_cholesky_matches_torch():
    a = spd(17)
    torch.testing.assert_close(cholesky(a), torch.linalg.cholesky(a), rtol=0, atol=1e-10)


@pytest.mark.parametrize("solve", DIRECT, ids=lambda f: f.__name__)
def test_bad_scaling_is_not_taken_for_singular(solve):
    """Columns (for Cholesky rows and columns) over 18 orders of magnitude: each unknown only has other units."""
    d = torch.logspace(-9, 9, 13, dtype=torch.float64)
    a = dominant(13) * d
    a = d[:, None] * a if solve is cholesky_solve else a
    x = torch.randn(13, dtype=torch.float64) / d
    torch.testing.assert_close(solve(a, a @ x) * d, x * d, rtol=0, atol=1e-10)


def test_jacobi_and_gauss_seidel_match_their_textbook_sweeps():
    a, b = dominant(7), torch.randn(7, dtype=torch.float64)
    x_jacobi, x_seidel = np.zeros(7), np.zeros(7)
    first_jacobi, first_seidel = [], []
    matrix, right = a.numpy(), b.numpy()
    for _ in range(3):
        x_jacobi = np.array([(right[i] - np.delete(matrix[i] * x_jacobi, i).sum()) / matrix[i, i] for i in range(7)])
        for i in range(7):
            x_seidel[i] = (right[i] - np.delete(matrix[i] * x_seidel, i).sum()) / matrix[i, i]
        first_jacobi.append(np.linalg.norm(right - matrix @ x_jacobi) / np.linalg.norm(right))
        first_seidel.append(np.linalg.norm(right - matrix @ x_seidel) / np.linalg.norm(right))
    np.testing.assert_allclose(jacobi(a, b).residuals[:4], [1.0, *first_jacobi], rtol=1e-10)
    np.testing.assert_allclose(gauss_seidel(a, b).residuals[:4], [1.0, *first_seidel], rtol=1e-10)


@pytest.mark.parametrize("preconditioned", [False, True])
def test_conjugate_gradient_walks_scipys_path(preconditioned):
    a, b = spd(31), torch.randn(31, dtype=torch.float64)
    inverse = np.diag(1 / a.diagonal().numpy()) if preconditioned else None
    iterates: list[np.ndarray] = []
    scipy.sparse.linalg.cg(
        a.numpy(), b.numpy(), rtol=1e-10, maxiter=5, M=inverse, callback=lambda x: iterates.append(x.copy())
    )
    ours = preconditioned_conjugate_gradient if preconditioned else conjugate_gradient
    for steps, reference in enumerate(iterates, start=1):
        r = np.linalg.norm(b.numpy() - a.numpy() @ reference) / np.linalg.norm(b.numpy())
        assert np.isclose(ours(a, b).residuals[steps], r, rtol=1e-8)
    solution = torch.from_numpy(scipy.linalg.solve(a.numpy(), b.numpy()))
    torch.testing.assert_close(ours(a, b, tol=1e-13).x, solution, rtol=1e-8, atol=1e-8)


def test_conjugate_gradient_ends_after_as_many_steps_as_eigenvalues():
    q, _ = torch.linalg.qr(torch.randn(29, 29, dtype=torch.float64))
    eigenvalues = torch.tensor([1.0, 3.0, 10.0], dtype=torch.float64).repeat(10)[:29]
    a = (q * eigenvalues) @ q.mT
    assert conjugate_gradient(0.5 * (a + a.mT), torch.randn(29, dtype=torch.float64), tol=1e-9).steps == 3


def test_the_exact_preconditioner_needs_one_step():
    a, b = spd(19), torch.randn(19, dtype=torch.float64)
    lower = cholesky(a)
    solve = lambda r: torch.cholesky_solve(r[:, None], lower)[:, 0]  # noqa: E731
    assert preconditioned_conjugate_gradient(a, b, solve, tol=1e-8).steps == 1


def test_jacobi_diverges_on_spd_where_gauss_seidel_does_not():
    a = torch.full((5, 5), 0.9, dtype=torch.float64).fill_diagonal_(1.0)  # SPD, spectral radius of I − D⁻¹A is 3.6
    b = torch.ones(5, dtype=torch.float64)
    with pytest.raises(NotConverged, match=r"Jacobi diverged: relative residual \d.* after \d+ steps") as caught:
        jacobi(a, b)
    assert caught.value.residuals[-1] > 1e6
    assert caught.value.exit_code == 1
    torch.testing.assert_close(gauss_seidel(a, b).x, torch.linalg.solve(a, b), rtol=0, atol=1e-8)


def test_too_few_steps_say_how_far_they_came():
    with pytest.raises(NotConverged, match=r"CG did not converge: relative residual .* after 2 .*tolerance 1e-10"):
        conjugate_gradient(dominant(23), torch.randn(23, dtype=torch.float64), max_steps=2)


def test_unfit_matrices_are_refused_with_a_number():
    b = torch.ones(3, dtype=torch.float64)
    singular = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]])
    with pytest.raises(ValueError, match=r"A is singular: pivot 2 is "):
        lu_solve(singular, b)
    with pytest.raises(ValueError, match=r"dependent columns: R\[2, 2\]"):
        qr_solve(singular, b)
    with pytest.raises(ValueError, match=r"not symmetric: max\|A − Aᵀ\| is 4"):
        cholesky_solve(singular, b)
    with pytest.raises(ValueError, match=r"not positive definite: pivot 1 is -3"):
        cholesky_solve(torch.tensor([[1.0, 2.0, 0.0], [2.0, 1.0, 0.0], [0.0, 0.0, 1.0]]), b)
    with pytest.raises(ValueError, match=r"not positive definite: a direction p has pᵀAp = -"):
        conjugate_gradient(torch.diag(torch.tensor([1.0, -2.0, -3.0])), b)
    with pytest.raises(ValueError, match=r"zero on its diagonal, in row 1"):
        jacobi(torch.diag(torch.tensor([1.0, 0.0, 3.0])), b)
    with pytest.raises(ValueError, match=r"square, got shape \(3, 2\)"):
        lu_solve(singular[:, :2], b)
    with pytest.raises(ValueError, match=r"b has shape \(2,\), expected \(3,\)"):
        qr_solve(torch.eye(3), b[:2])
    with pytest.raises(ValueError, match=r"at least as many rows as columns, got shape \(2, 3\)"):
        qr_solve(singular[:2], b[:2])
    with pytest.raises(ValueError, match=r"b is zero"):
        gauss_seidel(torch.eye(3), b * 0)


def test_solvers_are_written_out():
    """No call into the libraries that the tests compare with."""
    source = inspect.getsource(solvers)
    for call in (
        "linalg.",
        "torch.cholesky",
        "lu_factor",
        "triangular_solve",
        "scipy",
        "numpy",
        ".inverse",
        "torch.qr",
    ):
        assert call not in source, call

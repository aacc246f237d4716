"""Seven solvers for A x = b, and the two conditions that the lecture's list does not mention.

I2DL 06 names LU, QR, Cholesky, Jacobi, Gauss–Seidel, CG and PCG. On a symmetric, strictly diagonally dominant matrix
with a positive diagonal all seven work. Then the iterative ones are shown where it matters which one is taken:

- A = D B D with a harmless B and a diagonal D over several orders of magnitude: the unknowns have different units. CG
  feels the condition number of A, PCG with the preconditioner diag(A) that of B.
- Counterexamples, printed: Jacobi diverges on a generic SPD matrix (which is not diagonally dominant), though
  Gauss–Seidel converges; and diagonal scaling does not help a matrix with the same eigenvalues in a rotated basis,
  whose diagonal is nearly constant.

The control makes the last counterexample the measured case.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from dl_course.regression import (
    Iteration,
    NotConverged,
    cholesky_solve,
    conjugate_gradient,
    gauss_seidel,
    jacobi,
    lu_solve,
    preconditioned_conjugate_gradient,
    qr_solve,
)
from experiments.study import Numbers, Study
from experiments.style import BLUE, GREEN, GREY, ORANGE, RED, panels

SEEDS = range(5)
DIRECT: dict[str, Callable[..., Tensor]] = {"LU": lu_solve, "QR": qr_solve, "Cholesky": cholesky_solve}
ITERATIVE: dict[str, Callable[..., Iteration]] = {
    "Jacobi": jacobi,
    "Gauss–Seidel": gauss_seidel,
    "CG": conjugate_gradient,
    "PCG": preconditioned_conjugate_gradient,
}
TOLERANCE = 1e-10
MOST_STEPS = 20_000


def dominant(n: int, generator: torch.Generator) -> Tensor:
    """Symmetric with a_ii = 1.1 Σ_{j≠i}|a_ij|: strictly diagonally dominant, hence SPD. (n, n)."""
    a = torch.randn(n, n, generator=generator, dtype=torch.float64)
    a = (a + a.mT).fill_diagonal_(0)
    return a + torch.diag(1.1 * a.abs().sum(1))


def rotation(n: int, generator: torch.Generator) -> Tensor:
    """A random orthogonal matrix. (n, n)."""
    return torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64))[0]


def history(solve: Callable[..., Iteration], a: Tensor, b: Tensor) -> tuple[list[float], bool]:
    """Relative residuals of an iterative solver, and whether it converged."""
    try:
        return solve(a, b, tol=TOLERANCE, max_steps=MOST_STEPS).residuals, True
    except NotConverged as stopped:
        return stopped.residuals, False


def measure(quick: bool, rotated: bool = False) -> dict[str, Any]:
    n = 60 if quick else 150
    errors: dict[str, list[float]] = {name: [] for name in (*DIRECT, *ITERATIVE)}
    rows, curves = [], {}
    for seed in SEEDS[:2] if quick else SEEDS:
        generator = torch.Generator().manual_seed(seed)
        solution = torch.randn(n, generator=generator, dtype=torch.float64)

        a = dominant(n, generator)
        solved = {name: solve(a, a @ solution) for name, solve in DIRECT.items()}
        solved |= {name: solve(a, a @ solution, tol=1e-12).x for name, solve in ITERATIVE.items()}
        for name, result in solved.items():
            errors[name].append(float((result - solution).norm() / solution.norm()))
        curves["dominant"] = {name: history(solve, a, a @ solution)[0] for name, solve in ITERATIVE.items()}

        scaling = torch.logspace(-1.7, 1.7, n, dtype=torch.float64)[torch.randperm(n, generator=generator)]
        scaled = scaling[:, None] * dominant(n, generator) * scaling
        basis = rotation(n, generator)
        turned = (basis * torch.linalg.eigvalsh(scaled)) @ basis.mT  # the same eigenvalues
        turned = 0.5 * (turned + turned.mT)
        row: dict[str, Any] = {"condition": float(torch.linalg.cond(scaled))}
        for kind, matrix in (("scaled", scaled), ("rotated", turned)):
            for name in ("CG", "PCG"):
                residuals, row[f"{kind}_{name}_converged"] = history(ITERATIVE[name], matrix, matrix @ solution)
                row[f"{kind}_{name}_steps"] = len(residuals) - 1
                curves[f"{kind} {name}"] = residuals

        generic = torch.randn(n, n, generator=generator, dtype=torch.float64)
        generic = generic @ generic.mT / n + 0.1 * torch.eye(n, dtype=torch.float64)
        for name in ("Jacobi", "Gauss–Seidel"):
            residuals, converged = history(ITERATIVE[name], generic, generic @ solution)
            row[f"generic_{name}"] = {"converged": converged, "steps": len(residuals) - 1, "residual": residuals[-1]}
            curves[f"generic {name}"] = residuals
        inverse_diagonal = 1 / generic.diagonal()
        radius = torch.linalg.eigvals(torch.eye(n, dtype=torch.float64) - inverse_diagonal[:, None] * generic)
        row["jacobi_spectral_radius"] = float(radius.abs().max())
        rows.append(row)
    worst = {name: max(values) for name, values in errors.items()}
    return {"n": n, "case": "rotated" if rotated else "scaled", "worst_error": worst, "by_seed": rows, "curves": curves}


def holds(found: Numbers) -> bool:
    case = found["case"]
    solved = all(error <= 1e-8 for error in found["worst_error"].values())
    hard = all(row["condition"] >= 1e6 for row in found["by_seed"])
    halved = all(row[f"{case}_PCG_steps"] <= row[f"{case}_CG_steps"] / 2 for row in found["by_seed"])
    return solved and hard and halved and all(row[f"{case}_PCG_converged"] for row in found["by_seed"])


def spread(values: list[float]) -> str:
    """Smallest to largest."""
    low, high = min(values), max(values)
    return f"{low:.4g}" if low == high else f"{low:.4g} – {high:.4g}"


def table(found: Numbers) -> list[list[Any]]:
    runs = found["by_seed"]
    rows: list[list[Any]] = [[f"dominant: {name}", error, ""] for name, error in found["worst_error"].items()]
    rows.append(["condition number of the two below", spread([r["condition"] for r in runs]), ""])
    for kind, label in (("scaled", "A = D B D"), ("rotated", "same eigenvalues, rotated")):
        rows += [[f"{label}: {name}", "", spread([r[f"{kind}_{name}_steps"] for r in runs])] for name in ("CG", "PCG")]
    for name in ("Jacobi", "Gauss–Seidel"):
        end = [r[f"generic_{name}"] for r in runs]
        label = f"generic SPD: {name} converges on {sum(e['converged'] for e in end)} of {len(end)}"
        rows.append([label, f"residual {max(e['residual'] for e in end):.1e}", spread([e["steps"] for e in end])])
    rows.append(["generic SPD: spectral radius of I − D⁻¹A", spread([r["jacobi_spectral_radius"] for r in runs]), ""])
    return [[f"system of {found['n']} unknowns", "largest relative error", "steps to 1e-10"], *rows]


def summary(found: Numbers) -> str:
    case = found["case"]
    worst = max(found["worst_error"].values())
    ratio = max(r[f"{case}_PCG_steps"] / r[f"{case}_CG_steps"] for r in found["by_seed"])
    condition = min(r["condition"] for r in found["by_seed"])
    return f"largest error of the seven {worst:.0e}; PCG needs ≤ {ratio:.3g} of CG's steps at κ ≥ {condition:.0e}"


def figure(measured: dict[str, Any]) -> Figure:
    fig, (left, middle, right) = panels(columns=3, size=(15, 5))
    curves = measured["curves"]
    for (name, residuals), color in zip(curves["dominant"].items(), (RED, ORANGE, BLUE, GREEN), strict=True):
        left.plot(residuals, color=color, label=name)
    left.set(title="Diagonally dominant: all work", ylabel="relative residual")
    left.legend()
    for kind, style in (("scaled", "-"), ("rotated", ":")):
        for name, color in (("CG", BLUE), ("PCG", GREEN)):
            label = f"{name}, {'badly scaled' if kind == 'scaled' else 'rotated'}"
            residuals = list(accumulate(curves[f"{kind} {name}"], min))  # CG's residuals jump; the best so far
            middle.plot(range(1, len(residuals) + 1), residuals, style, color=color, label=label)
    middle.set(xscale="log", title="diag(A) cures scaling, not rotation")
    middle.legend(loc="upper right")
    for name, color in (("Jacobi", RED), ("Gauss–Seidel", ORANGE)):
        residuals = curves[f"generic {name}"]
        right.plot(range(1, len(residuals) + 1), residuals, color=color, label=name)
    right.set(xscale="log", title="Generic SPD: Jacobi diverges")
    right.axhline(1, color=GREY, linestyle="--")
    right.legend()
    for axes in (left, middle, right):
        axes.set(yscale="log", xlabel="step")
    middle.set_xlabel("step (best residual so far)")
    return fig


STUDY = Study(
    id="regression/solvers",
    source="I2DL 06 (linear systems)",
    claim="All seven solvers solve a dominant SPD system; a diagonal preconditioner cures bad scaling, and only that.",
    criterion="Relative error ≤ 1e-8 for all seven on every diagonally dominant system; with A = D B D and κ ≥ 1e6, "
    "PCG with diag(A) converges in at most 1/2 of CG's iterations on every one (5 seeds).",
    measure=measure,
    holds=holds,
    control={"rotated": True},
    control_note="the same eigenvalues in a rotated basis",
    table=table,
    summary=summary,
    figure=figure,
    seeds=SEEDS,
)

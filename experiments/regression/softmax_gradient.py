"""Softmax and cross-entropy belong together: the gradient of the scores is output minus target, o − g.

NPFL3 derives ∂L/∂z = o − g for L = −Σ g_i log o_i with o = softmax(z): for a one-hot target, for any distribution g,
and likewise for one sigmoid output with binary cross-entropy. Here automatic differentiation goes through the
definitions, exponential by exponential, and is compared with o − g. (Two lines of the lecture flip the sign; its
conclusion is right.)

Softmax does not change when a constant is added to all scores, so the largest one may be subtracted first. In exact
arithmetic that changes nothing; in float32, e^z is infinite from z = 88.73 on and ∞/∞ is not a number.

The control takes ½‖o − g‖², the squared error, in place of cross-entropy. Its gradient is J(o − g), J the Jacobian of
softmax, so the simple form is a property of the pair, not of softmax alone.
"""

from __future__ import annotations

from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from experiments.study import Numbers, Study
from experiments.style import BLUE, GREEN, GREY, ORANGE, RED, SKY, panels

SEEDS = range(5)
SAMPLES, CLASSES = 1009, 7
SHIFTS = (-1000.0, -100.0, -1.0, 1.0, 100.0, 1000.0)


def naive_softmax(z: Tensor) -> Tensor:
    """The definition, e^{z_i} / Σ_j e^{z_j}."""
    return z.exp() / z.exp().sum(-1, keepdim=True)


def shifted_softmax(z: Tensor) -> Tensor:
    """The definition after subtracting the largest score."""
    return naive_softmax(z - z.amax(-1, keepdim=True))


def total_loss(o: Tensor, g: Tensor, loss: str) -> Tensor:
    """Sum over the samples of the cross-entropy −Σ g log o, or of the squared error ½‖o − g‖²."""
    return -(g * o.log()).sum() if loss == "cross-entropy" else 0.5 * (o - g).square().sum()


def gradients(case: str, loss: str, seed: int) -> tuple[Tensor, Tensor]:
    """∂L/∂z by automatic differentiation, and o − g; each (SAMPLES, CLASSES), or (SAMPLES, 2) for the sigmoid."""
    generator = torch.Generator().manual_seed(seed)
    if case == "sigmoid":
        z = 3 * torch.randn(SAMPLES, 1, generator=generator, dtype=torch.float64)
        o = 1 / (1 + (-z.requires_grad_()).exp())
        y = torch.rand(SAMPLES, 1, generator=generator, dtype=torch.float64).round()
        value = total_loss(torch.cat([o, 1 - o], 1), torch.cat([y, 1 - y], 1), loss)
        return torch.autograd.grad(value, z)[0], (o - y).detach()
    z = 3 * torch.randn(SAMPLES, CLASSES, generator=generator, dtype=torch.float64)
    if case == "one-hot":
        g = torch.eye(CLASSES, dtype=torch.float64)[torch.randint(CLASSES, (SAMPLES,), generator=generator)]
    else:
        g = torch.rand(SAMPLES, CLASSES, generator=generator, dtype=torch.float64)
        g = g / g.sum(1, keepdim=True)
    o = naive_softmax(z.requires_grad_())
    return torch.autograd.grad(total_loss(o, g, loss), z)[0], (o - g).detach()


def measure(quick: bool, loss: str = "cross-entropy") -> dict[str, Any]:
    seeds = SEEDS[:2] if quick else SEEDS
    pairs = {case: [gradients(case, loss, seed) for seed in seeds] for case in ("one-hot", "soft", "sigmoid")}
    gaps = {case: max(float((a - b).abs().max()) for a, b in found) for case, found in pairs.items()}

    z = torch.randn(SAMPLES, CLASSES, generator=torch.Generator().manual_seed(SEEDS[0]))  # float32
    z = (z * 2**12).round() / 2**12  # a grid on which adding ±1000 is exact in float32
    reference = shifted_softmax(z.double())
    shifted = {f"{c:+g}": float((shifted_softmax(z + c) - reference).abs().max()) for c in SHIFTS}
    broken = {f"{c:+g}": int((~naive_softmax(z + c).isfinite()).any(1).sum()) for c in SHIFTS}
    broken_shifted = {f"{c:+g}": int((~shifted_softmax(z + c).isfinite()).any(1).sum()) for c in SHIFTS}
    return {
        "gradient_gap": gaps,
        "shift_gap": shifted,
        "samples": SAMPLES,
        "naive_not_finite": broken,
        "shifted_not_finite": broken_shifted,
        "curves": {"pairs": {case: found[0] for case, found in pairs.items()}},
    }


def holds(found: Numbers) -> bool:
    gradient = max(found["gradient_gap"].values()) <= 1e-6
    invariant = max(found["shift_gap"].values()) <= 1e-6 and not any(found["shifted_not_finite"].values())
    return gradient and invariant and found["naive_not_finite"]["+1000"] == found["samples"]


def table(found: Numbers) -> list[list[Any]]:
    rows = [[f"∂L/∂z against o − g, {case}", gap, ""] for case, gap in found["gradient_gap"].items()]
    for c, gap in found["shift_gap"].items():
        rows.append([f"softmax(z {c[0]} {c[1:]}) against softmax(z)", gap, found["naive_not_finite"][c]])
    return [["compared", "largest difference", f"naive form not finite (of {found['samples']})"], *rows]


def summary(found: Numbers) -> str:
    return (
        f"gradient {max(found['gradient_gap'].values()):.0e}, shift {max(found['shift_gap'].values()):.0e}, naive form "
        f"not finite on {found['naive_not_finite']['+1000']} of {found['samples']} at +1000"
    )


def figure(measured: dict[str, Any]) -> Figure:
    fig, (left, right) = panels(columns=2, size=(12, 5))
    a, b = gradients("one-hot", "squared", SEEDS[0])
    left.plot(b.flatten()[:1500], a.flatten()[:1500], ".", color=ORANGE, markersize=4, label="squared error (control)")
    for (case, (a, b)), color, mark in zip(
        measured["curves"]["pairs"].items(), (BLUE, GREEN, RED), ("o", "s", "^"), strict=True
    ):
        left.plot(b.flatten()[:150], a.flatten()[:150], mark, color=color, markersize=5, label=f"cross-entropy, {case}")
    left.plot([-1, 1], [-1, 1], color=GREY, linestyle="--", linewidth=1)
    left.set(xlabel="o − g", ylabel="∂L/∂z by automatic differentiation", title="With cross-entropy, ∂L/∂z is o − g")
    left.legend(loc="upper left")

    z = torch.tensor([2.0, 1.0, 0.0])
    shifts = torch.arange(-150, 151, dtype=torch.float32)
    for form, color, width, label in ((shifted_softmax, SKY, 7, "shifted"), (naive_softmax, RED, 2.4, "naive")):
        outputs = torch.stack([form(z + c) for c in shifts])
        for k in range(3):
            right.plot(shifts, outputs[:, k], color=color, linewidth=width, label=None if k else label)
            right.annotate(f"o{'₁₂₃'[k]}", (0, float(outputs[150, k]) + 0.03), ha="center")
    right.annotate("naive: 0/0", (-147, 0.5), color=RED)
    right.annotate("naive: ∞/∞", (96, 0.5), color=RED)
    right.set(xlabel="constant added to all three scores", ylabel="output, float32", ylim=(0, 0.8))
    right.set_title("Without the shift, softmax breaks")
    right.legend(loc="upper center", ncols=2)
    return fig


STUDY = Study(
    id="regression/softmax-gradient",
    source="NPFL3 (MLE loss of softmax and sigmoid)",
    claim="∂L/∂z = o − g for softmax and sigmoid; a shift changes nothing, yet without it the naive form overflows.",
    criterion="|autograd − (o − g)| ≤ 1e-6 for one-hot and soft targets and for the sigmoid; the shifted form changes "
    "by ≤ 1e-6 and stays finite for shifts up to ±1000; the naive form is not finite on any sample at +1000.",
    measure=measure,
    holds=holds,
    control={"loss": "squared"},
    control_note="squared error instead of cross-entropy",
    table=table,
    summary=summary,
    figure=figure,
    seeds=SEEDS,
)

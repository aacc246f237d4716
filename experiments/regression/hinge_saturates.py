"""The hinge loss is content with a margin of 1; cross-entropy never is.

I2DL 07: "Once the NN is very sure about its decision, the loss becomes 0 and learning stops: the hinge loss saturates,
as opposed to CE." Three classes in the plane, drawn so that straight lines separate them; a linear model is trained by
gradient descent once with Σ_{k≠y} max(0, s_k − s_y + 1), once with cross-entropy.

As soon as every sample beats its rivals by 1, the hinge loss is 0.0, not merely small, and so is its gradient: the
weights stand still for ever. Cross-entropy −log o_y is positive for every finite score, its gradient o − g too, so it
goes on widening the margins, ever more slowly (like log t).

The control lets the classes overlap. Then no line satisfies every margin and the hinge loss stays positive.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from dl_course.regression import (
    add_bias,
    gradient_descent,
    hinge_gradient,
    hinge_loss,
    softmax_gradient,
    softmax_loss,
)
from experiments.study import Numbers, Study
from experiments.style import BLUE, GREY, RED, panels

SEEDS = range(5)
PER_CLASS, LR = 50, 0.2
LOSSES = {"hinge": (hinge_loss, hinge_gradient), "cross-entropy": (softmax_loss, softmax_gradient)}


def blobs(seed: int, distance: float) -> tuple[Tensor, Tensor]:
    """Three discs of radius 1, their centres `distance` from the origin, 120° apart: separable if distance > 1.16.

    x (150, 2), y (150,) int64.
    """
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(3).repeat_interleave(PER_CLASS)
    radius, angle = torch.rand(2, len(y), generator=generator, dtype=torch.float64)
    radius, angle = radius.sqrt(), 2 * torch.pi * angle
    centre = 2 * torch.pi / 3 * y
    x = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1)
    return x + distance * torch.stack([centre.cos(), centre.sin()], dim=1), y


def train(name: str, x: Tensor, y: Tensor, steps: int) -> dict[str, list[float]]:
    """Loss, largest gradient entry and smallest margin s_y − max_{k≠y} s_k, before each step and after the last."""
    loss, gradient = LOSSES[name]
    steepness: list[float] = []

    def watched(theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        g = gradient(theta, x, y)
        steepness.append(float(g.abs().max()))
        return g

    descent = gradient_descent(loss, torch.zeros(3, 3, dtype=torch.float64), x, y, LR, steps, watched)
    watched(descent.theta, x, y)
    scores = x @ descent.thetas  # (steps + 1, n, 3)
    right = scores[:, torch.arange(len(y)), y]
    scores[:, torch.arange(len(y)), y] = -torch.inf
    margin = (right - scores.amax(2)).amin(1)
    return {"loss": descent.losses.tolist(), "gradient": steepness, "margin": margin.tolist()}


def measure(quick: bool, distance: float = 1.6) -> dict[str, Any]:
    steps = 2000 if quick else 4000
    by_seed, paths = [], {}
    for seed in SEEDS[:2] if quick else SEEDS:
        x, y = blobs(seed, distance)
        paths = {name: train(name, add_bias(x), y, steps) for name in LOSSES}
        loss, gradient = paths["hinge"]["loss"], paths["hinge"]["gradient"]
        zero = next((t for t, value in enumerate(loss) if value == 0.0), None)
        ce = paths["cross-entropy"]["loss"]
        by_seed.append(
            {
                "hinge_zero_at": zero,
                "hinge_stays_zero": zero is not None and not any(loss[zero:]) and not any(gradient[zero:]),
                "hinge_end": loss[-1],
                "ce_then": ce[steps // 2 if zero is None else zero],
                "ce_end": ce[-1],
                "ce_always_falls": all(b < a for a, b in pairwise(ce)),
                "ce_gradient_end": paths["cross-entropy"]["gradient"][-1],
            }
        )
    return {"steps": steps, "by_seed": by_seed, "curves": paths}


def goes_on(run: Numbers) -> bool:
    """Cross-entropy fell in every step, is still moving, and at most half of what it was when hinge stopped."""
    return run["ce_always_falls"] and run["ce_gradient_end"] > 0 and run["ce_end"] <= run["ce_then"] / 2


def holds(found: Numbers) -> bool:
    return all(run["hinge_stays_zero"] and goes_on(run) for run in found["by_seed"])


def table(found: Numbers) -> list[list[Any]]:
    rows = [
        [
            seed,
            "never" if run["hinge_zero_at"] is None else run["hinge_zero_at"],
            run["hinge_end"],
            run["ce_then"],
            run["ce_end"],
            run["ce_gradient_end"],
            run["ce_always_falls"],
        ]
        for seed, run in enumerate(found["by_seed"])
    ]
    header = ["data set", "hinge 0.0 from", "hinge at end", "CE then", "CE at end"]
    return [[*header, "CE gradient at end", "CE fell each step"], *rows]


def summary(found: Numbers) -> str:
    runs = found["by_seed"]
    zero = [run["hinge_zero_at"] for run in runs if run["hinge_stays_zero"]]
    ratio = max(run["ce_end"] / run["ce_then"] for run in runs)
    hinge_text = f"hinge 0.0 on {len(zero)} of {len(runs)}" + (f" by step {max(zero)}" if zero else "")
    return f"{hinge_text}; CE then falls to ≤ {ratio:.2g} of its value there"


def figure(measured: dict[str, Any]) -> Figure:
    fig, (left, right) = panels(columns=2, size=(12, 5))
    curves = measured["curves"]
    zero = measured["by_seed"][-1]["hinge_zero_at"]
    steps = measured["steps"]
    for name, color in (("hinge", RED), ("cross-entropy", BLUE)):
        end = zero if name == "hinge" and zero else steps + 1  # 0 has no place on a logarithmic axis
        left.plot(range(1, end + 1), curves[name]["loss"][:end], color=color, label=name)
        right.plot(range(1, steps + 2), curves[name]["margin"], color=color, label=name)
    if zero:
        for axes in (left, right):
            axes.axvline(zero, color=GREY, linestyle="--")
        left.annotate(f"hinge is exactly 0 \nfrom step {zero} on ", (zero, 1e-4), ha="right")
    right.axhline(1, color=GREY, linestyle="--")
    right.annotate("hinge asks for 1", (1, 1.05), color=GREY, va="bottom")
    left.set(xscale="log", yscale="log", xlabel="step", ylabel="training loss")
    left.set_title("Hinge stops, cross-entropy goes on …")
    right.set(xscale="log", xlabel="step", ylabel="smallest margin of a sample")
    right.set_title("… and widens the margins like log t")
    left.legend(loc="upper right")
    return fig


STUDY = Study(
    id="regression/hinge-saturates",
    source="I2DL 07",
    claim="On separable data the hinge loss and its gradient become exactly 0, while cross-entropy keeps falling.",
    criterion="On each of 5 data sets hinge loss and gradient are exactly 0.0 from some step to the last; cross-"
    "entropy falls at every step with a gradient that is not 0, and ends at ≤ 1/2 of its value where hinge stopped.",
    measure=measure,
    holds=holds,
    control={"distance": 0.6},
    control_note="classes that overlap",
    table=table,
    summary=summary,
    figure=figure,
    seeds=SEEDS,
)

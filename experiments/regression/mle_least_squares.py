"""Maximum likelihood, least squares and stochastic gradient descent find one and the same line.

I2DL 02 assumes y_i ~ N(x_i·θ, σ²). In the log-likelihood only −(1/2σ²) Σ (y_i − x_i·θ)² depends on θ, so the most
likely θ is the one with the smallest squared error, whatever σ is. Here it is found in three ways, on the cars of LUE2
(mileage and age, standardised; price in thousands of euros):

1. by the closed form θ = (XᵀX)⁻¹Xᵀy in three variants, against `torch.linalg.lstsq`;
2. numerically, as the maximum of the Gaussian likelihood over θ *and* log σ;
3. by minibatch SGD with the decaying rate η_t = c/(t₀ + t), the kind that Robbins & Monro (1951) prove to arrive.

The control keeps the rate constant: SGD then never arrives, it circles the optimum at a distance that the noise of its
minibatches sets.
"""

from __future__ import annotations

from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from dl_course.data.tabular import car_prices
from dl_course.losses import gaussian_nll
from dl_course.regression import (
    add_bias,
    least_squares,
    linear_gradient,
    linear_loss,
    minibatch_descent,
)
from experiments.study import Numbers, Study
from experiments.style import BLUE, GREEN, GREY, ORANGE, RED, SKY, panels

SEEDS = range(10)
METHODS = ("normal", "qr", "svd")
BATCH, RATE, C, T0 = 10, 0.1, 10.0, 100.0  # η₀ = C/T0 = RATE in both settings


def problem(seed: int) -> tuple[Tensor, Tensor]:
    """1000 cars: design matrix (1000, 3) with standardised features, prices (1000,) in thousands of euros."""
    x, y = car_prices(1000, seed=seed)
    x, y = x.double(), y.double() / 1000
    return add_bias((x - x.mean(0)) / x.std(0)), y


def most_likely(design: Tensor, y: Tensor) -> tuple[Tensor, float]:
    """θ and σ at the numerical maximum of the Gaussian likelihood (L-BFGS on the mean negative log-likelihood)."""
    theta = torch.zeros(design.shape[1], dtype=torch.float64, requires_grad=True)
    log_sigma = torch.zeros((), dtype=torch.float64, requires_grad=True)
    options = {"max_iter": 500, "tolerance_grad": 1e-12, "tolerance_change": 1e-16, "line_search_fn": "strong_wolfe"}
    optimizer = torch.optim.LBFGS([theta, log_sigma], **options)

    def closure() -> Tensor:
        optimizer.zero_grad()
        nll = log_sigma + 0.5 * ((design @ theta - y) / log_sigma.exp()).square().mean()
        nll.backward()
        return nll

    optimizer.step(closure)  # pyright: ignore[reportArgumentType]
    return theta.detach(), float(log_sigma.detach().exp())


def gap(theta: Tensor, reference: Tensor) -> float:
    """Relative distance of the weights, the (large and easy) bias left out."""
    return float((theta - reference)[1:].norm() / reference[1:].norm())


def measure(quick: bool, decay: bool = True) -> dict[str, Any]:
    gaps: dict[str, list[float]] = {name: [] for name in (*METHODS, "likelihood", "sgd")}
    epochs, paths = (100 if quick else 300), []
    for seed in SEEDS[:3] if quick else SEEDS:
        design, y = problem(seed)
        reference = torch.linalg.lstsq(design, y[:, None]).solution[:, 0]
        for method in METHODS:
            fit = least_squares(design[:, 1:], y, method)
            gaps[method].append(gap(torch.cat([fit.bias[None], fit.weight]), reference))
        gaps["likelihood"].append(gap(most_likely(design, y)[0], reference))
        rate = (lambda t: C / (T0 + t)) if decay else RATE
        start = torch.zeros(3, dtype=torch.float64)
        descent = minibatch_descent(linear_loss, start, design, y, rate, epochs, BATCH, seed, linear_gradient)
        gaps["sgd"].append(gap(descent.theta, reference))
        paths.append([gap(theta, reference) for theta in descent.thetas])
    worst = {name: max(values) for name, values in gaps.items()}
    return {"worst": worst, "sgd_by_seed": gaps["sgd"], "epochs": epochs, "curves": {"paths": paths}}


def holds(found: Numbers) -> bool:
    exact = all(found["worst"][name] <= 1e-5 for name in (*METHODS, "likelihood"))
    return exact and found["worst"]["sgd"] <= 1e-3


def table(found: Numbers) -> list[list[Any]]:
    names = {
        "normal": "closed form, normal equations",
        "qr": "closed form, QR",
        "svd": "closed form, pseudo-inverse",
        "likelihood": "maximum of the Gaussian likelihood",
        "sgd": f"SGD, {found['epochs']} epochs",
    }
    rows = [[label, found["worst"][key], "1e-3" if key == "sgd" else "1e-5"] for key, label in names.items()]
    return [["found by", "largest relative gap to lstsq", "allowed"], *rows]


def summary(found: Numbers) -> str:
    closed = max(found["worst"][m] for m in METHODS)
    return f"closed form {closed:.0e}, likelihood {found['worst']['likelihood']:.0e}, SGD {found['worst']['sgd']:.1e}"


def figure(measured: dict[str, Any]) -> Figure:
    fig, (left, right) = panels(columns=2, size=(12, 5))

    design, y = problem(0)
    reference = torch.linalg.lstsq(design, y[:, None]).solution[:, 0]
    start, epochs = torch.zeros(3, dtype=torch.float64), measured["epochs"]
    constant = minibatch_descent(linear_loss, start, design, y, RATE, epochs, BATCH, 0, linear_gradient)
    left.plot([gap(theta, reference) for theta in constant.thetas], color=ORANGE, label=f"constant rate {RATE}")
    paths = torch.tensor(measured["curves"]["paths"])  # (data sets, epochs + 1)
    label = f"decaying rate, median and range of {len(paths)} data sets"
    left.fill_between(range(epochs + 1), paths.amin(0), paths.amax(0), color=SKY, alpha=0.4, linewidth=0)
    left.plot(paths.median(0).values, color=BLUE, label=label)
    left.axhline(1e-3, color=GREY, linestyle="--")
    left.annotate("criterion", (epochs, 1e-3), ha="right", va="bottom", color=GREY)
    left.set(yscale="log", xlabel="epoch", ylabel="relative gap to lstsq", title="SGD arrives if its rate decays")
    left.legend(loc="upper right")

    offsets = torch.linspace(-1.5, 1.5, 121, dtype=torch.float64)
    for sigma, color in ((0.8, RED), (1.0, GREEN), (1.5, BLUE)):
        curve = [gaussian_nll(design @ (reference + o * torch.eye(3)[2]), y, sigma**2).item() for o in offsets]
        right.plot(offsets, curve, color=color, label=f"σ = {sigma}")
    right.axvline(0, color=GREY, linestyle="--")
    right.set(xlabel="weight of age, minus its least-squares value", ylabel="negative log-likelihood (nats per car)")
    right.set_title("Any σ: most likely = least squares")
    right.legend(loc="upper center")
    return fig


STUDY = Study(
    id="regression/mle-least-squares",
    source="I2DL 02, BONN 4.3.1",
    claim="Under Gaussian noise the most likely line is the least-squares line; a closed form gives it, SGD finds it.",
    criterion="On every data set (10 seeds) the weights by closed form and by likelihood are within 1e-5 (relative) of "
    "torch.linalg.lstsq, those by SGD with a decaying rate within 1e-3.",
    measure=measure,
    holds=holds,
    control={"decay": False},
    control_note="constant learning rate, so SGD circles",
    table=table,
    summary=summary,
    figure=figure,
    seeds=SEEDS,
)

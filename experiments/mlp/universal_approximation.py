"""One hidden layer is enough for any continuous function, if it is wide enough and if training finds the weights.

I2DL 05 and BONN §8.7: for every continuous f on a compact set and every ε > 0 there is a width h with
|f(x) − Σᵢ vᵢ σ(wᵢᵀx + bᵢ) − c| < ε everywhere (Cybenko 1989). The sentence is about what *exists*; it neither names h
nor promises that a gradient finds it. I2DL leaves out "continuous", without which it is false; and the activation must
not be a polynomial (Leshno et al. 1993).

Here f(x) = sin 5x + ½ sin(12x + 1) + ½|x − 0.3| on [−1, 1], known at 200 points, and networks of 2, 4, … 256 sigmoid
units. Each is trained by L-BFGS (at most 1000 evaluations, float64), the best of 3 starts by its training loss is kept,
and its squared error is taken on 1999 points, most of them new, as a share of the variance of f.

See in the figure: 2 units follow the large swing, 8 every turn; the error falls by orders of magnitude until training,
not width, is the limit: at 256 units the same 1000 evaluations leave more error than at 64. Adam (first order, the
better of two rates, as many gradients) is 16 to 420 times behind from 8 units on: shown, not judged.

The control replaces the sigmoid by the identity, a polynomial: a line stays a line at every width.
"""

from __future__ import annotations

from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from dl_course.layers import Activation
from dl_course.losses import mse
from dl_course.mlp import MLP
from experiments.study import Numbers, Study
from experiments.style import BLACK, BLUE, GREEN, GREY, ORANGE, panels

SEEDS = range(3)
WIDTHS = (2, 4, 8, 16, 32, 64, 128, 256)
EVALUATIONS = 1000  # of the loss and its gradient, for each optimiser
RATES = (3e-2, 1e-1)  # Adam's; the first seed only
FLOOR, WORSE, IN_ALL = 1e-3, 2.0, 50.0


def target(x: Tensor) -> Tensor:
    return torch.sin(5 * x) + 0.5 * torch.sin(12 * x + 1) + 0.5 * (x - 0.3).abs()


def grid(n: int) -> tuple[Tensor, Tensor]:
    x = torch.linspace(-1, 1, n, dtype=torch.float64)[:, None]
    return x, target(x)


def build(width: int, activation: Activation, seed: int) -> MLP:
    torch.manual_seed(seed)
    return MLP(1, [width], 1, activation).double()


def lbfgs(net: MLP, x: Tensor, y: Tensor, evaluations: int) -> float:
    """Trains the net, returns its training loss."""
    optimizer = torch.optim.LBFGS(
        net.parameters(),
        max_iter=evaluations,
        max_eval=evaluations,
        history_size=10,
        tolerance_grad=1e-10,
        tolerance_change=1e-14,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = mse(net(x), y)
        loss.backward()
        return loss

    optimizer.step(closure)  # pyright: ignore[reportArgumentType]
    return mse(net(x), y).item()


def adam(net: MLP, x: Tensor, y: Tensor, steps: int, rate: float) -> float:
    """Trains the net, returns its training loss."""
    optimizer = torch.optim.Adam(net.parameters(), rate)
    for _ in range(steps):
        optimizer.zero_grad()
        mse(net(x), y).backward()
        optimizer.step()
    return mse(net(x), y).item()


@torch.no_grad()
def error(net: MLP) -> float:
    """Mean squared error on the fine grid as a share of the target's variance."""
    x, y = grid(1999)
    return float(mse(net(x), y) / y.var(correction=0))


def best(trained: list[tuple[float, MLP]]) -> MLP:
    return min(trained, key=lambda pair: pair[0])[1]


def measure(quick: bool, activation: Activation = "sigmoid") -> dict[str, Any]:
    x, y = grid(200)
    found: dict[str, list[float]] = {"lbfgs": [], "adam": []}
    drawn = {}
    widths = WIDTHS[:6:2] if quick else WIDTHS
    for width in widths:
        starts = [build(width, activation, seed) for seed in SEEDS]
        net = best([(lbfgs(net, x, y, EVALUATIONS), net) for net in starts])
        found["lbfgs"].append(error(net))
        drawn[width] = net
        rivals = [(rate, build(width, activation, SEEDS[0])) for rate in (RATES[:1] if quick else RATES)]
        found["adam"].append(error(best([(adam(net, x, y, EVALUATIONS, rate), net) for rate, net in rivals])))
    return {"widths": list(widths), **found, "curves": drawn}


def worst_step(found: Numbers) -> float:
    """The largest error of a width over that of the best narrower one, up to the first that is below the floor."""
    errors, worst = found["lbfgs"], 0.0
    for i in range(1, len(errors)):
        if min(errors[:i]) < FLOOR:
            break
        worst = max(worst, errors[i] / min(errors[:i]))
    return worst


def in_all(found: Numbers) -> float:
    return found["lbfgs"][0] / found["lbfgs"][-1]


def holds(found: Numbers) -> bool:
    return worst_step(found) <= WORSE and in_all(found) >= IN_ALL


def table(found: Numbers) -> list[list[Any]]:
    rows = zip(found["widths"], found["lbfgs"], found["adam"], strict=True)
    return [["width", "L-BFGS: MSE / variance", "Adam: MSE / variance"], *map(list, rows)]


def summary(found: Numbers) -> str:
    adam_ratio = found["adam"][0] / found["adam"][-1]
    text = f"L-BFGS: {in_all(found):.3g}× less error from width 2 to {found['widths'][-1]}"
    return f"{text}, worst step {worst_step(found):.2g}×; Adam: {adam_ratio:.2g}×"


def figure(measured: dict[str, Any]) -> Figure:
    fig, (left, right) = panels(columns=2, size=(12, 5))
    x, y = grid(1999)
    left.plot(x, y, color=BLACK, linewidth=5, alpha=0.25, label="f")
    with torch.no_grad():
        for width, color in ((2, ORANGE), (4, GREEN), (8, BLUE)):
            if width in measured["curves"]:  # a quick run leaves out every other width
                left.plot(x, measured["curves"][width](x), color=color, label=f"{width} units")
    left.set(xlabel="x", ylabel="f(x)", title="Every unit adds a bend")
    left.legend(loc="lower left")

    right.plot(measured["widths"], measured["lbfgs"], "o-", color=BLUE, label="L-BFGS, best of 3 starts")
    right.plot(measured["widths"], measured["adam"], "s--", color=ORANGE, label="Adam, better of 2 rates")
    right.axhline(FLOOR, color=GREY, linestyle="--")
    right.annotate("below the line\ntraining limits,\nnot width", (2, 4e-5), color=GREY)
    right.set(xscale="log", yscale="log", ylim=(2e-5, 2), xlabel="hidden units", ylabel="squared error / variance of f")
    right.set_xticks(measured["widths"], [str(w) for w in measured["widths"]], minor=False)
    right.minorticks_off()
    right.set_title("Wider is closer, if the optimiser gets there")
    right.legend(loc="upper right")
    return fig


STUDY = Study(
    id="mlp/universal-approximation",
    source="I2DL 05, BONN 8.7",
    claim="A single hidden layer approximates a continuous function ever better as it is made wider.",
    criterion="Widths 2 … 256, L-BFGS, best of 3 seeds: no width has > 2 times the MSE of the best narrower one until "
    "one is below 1e-3 of the target's variance; from width 2 to the widest the MSE falls ≥ 50 times.",
    measure=measure,
    holds=holds,
    control={"activation": "identity"},
    control_note="identity instead of sigmoid",
    table=table,
    summary=summary,
    figure=figure,
    seeds=SEEDS,
)

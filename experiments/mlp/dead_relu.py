"""Large steps kill ReLUs: a unit that is thrown beyond all data gets no gradient and never comes back.

A ReLU passes its gradient on where its score z = w·x + b is positive. If z ≤ 0 on *every* sample, ∂L/∂w and ∂L/∂b are
exactly 0, whatever the loss: the unit is dead (I2DL 07). A step of Adam moves each weight by about the learning rate,
so a large rate can push b below everything that w·x reaches.

Measured on two moons, with one hidden layer of 64 units, 120 Adam steps at six rates from the same initial weights: a
unit is dead if backpropagation brings exactly 0.0 to it on every training sample. So that the loss cannot hide a
gradient (a certain softmax has none in floating point), what is propagated here is the error to random targets.

A leaky ReLU has slope 0.01 where the ReLU has 0, so it is never dead. It is no cure for being thrown out: leaky units
end up negative on all samples as often, a third of them at rate 0.3 and half at rate 1, and are then just linear
(last column of the table). Dead units need not hurt, either: see the accuracy.

The control puts leaky units in the ReLUs' place.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from dl_course.data import TwoMoons
from dl_course.layers import Activation
from dl_course.mlp import MLP
from dl_course.mlp.matrices import backward, forward
from experiments.study import Numbers, Study
from experiments.style import BLUE, GREY, ORANGE, RED, SKY, panels

SEEDS = range(8)
RATES = (1e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)
SHOWN = 1e-1  # the rate whose units are drawn
WIDTH, STEPS, BATCH = 64, 120, 64


def dead(net: MLP, x: Tensor) -> Tensor:
    """Which units of the first hidden layer get a gradient of exactly 0 from every sample. x (N, F) → (width,) bool."""
    target = torch.randn(len(x), net.affine()[-1].weight.shape[0], generator=torch.Generator().manual_seed(0))
    return (backward(net, x, target.to(x.dtype), "mse").deltas[0] == 0).all(0)


def negative(net: MLP, x: Tensor) -> Tensor:
    """Which units of the first hidden layer have a score z ≤ 0 on every sample. x (N, F) → (width,) bool."""
    return (forward(net, x).z[0] <= 0).all(0)


def train(activation: Activation, x: Tensor, y: Tensor, rate: float, steps: int, seed: int) -> MLP:
    torch.manual_seed(seed)
    net = MLP(x.shape[1], [WIDTH], 2, activation)
    optimizer = torch.optim.Adam(net.parameters(), rate, fused=True)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        index = torch.randint(len(x), (BATCH,), generator=generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x[index]), y[index]).backward()
        optimizer.step()
    return net


def survey(activation: Activation, x: Tensor, y: Tensor, seeds: range, steps: int) -> dict[str, Any]:
    """For each rate and seed the shares of units that are dead, and negative on all samples, and the accuracy."""
    found: dict[str, Any] = {"dead": [], "negative": [], "accuracy": [], "nets": []}
    for rate in RATES:
        nets = [train(activation, x, y, rate, steps, seed) for seed in seeds]
        found["dead"].append([float(dead(net, x).double().mean()) for net in nets])
        found["negative"].append([float(negative(net, x).double().mean()) for net in nets])
        found["accuracy"].append([float((net(x).argmax(1) == y).double().mean()) for net in nets])
        found["nets"].append(nets[0])
    return found


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def measure(quick: bool, units: Activation = "relu") -> dict[str, Any]:
    seeds, steps = (SEEDS[:6], 60) if quick else (SEEDS, STEPS)
    x, y = TwoMoons().tensors("train")
    ours = survey(units, x, y, seeds, steps)
    leaky = ours if units == "leaky_relu" else survey("leaky_relu", x, y, seeds, steps)
    return {
        "units": units,
        "rates": RATES,
        "dead_by_seed": ours["dead"],
        "dead": [mean(shares) for shares in ours["dead"]],
        "accuracy": [mean(values) for values in ours["accuracy"]],
        "leaky_dead": [mean(shares) for shares in leaky["dead"]],
        "leaky_negative": [mean(shares) for shares in leaky["negative"]],
        "leaky_accuracy": [mean(values) for values in leaky["accuracy"]],
        "curves": {"x": x, "y": y, "net": ours["nets"][RATES.index(SHOWN)]},
    }


def holds(found: Numbers) -> bool:
    shares = found["dead"]
    never_falls = all(later >= earlier - 0.05 for earlier, later in pairwise(shares))
    return never_falls and shares[-1] >= 0.2 and not any(found["leaky_dead"])


def table(found: Numbers) -> list[list[Any]]:
    name = "ReLU" if found["units"] == "relu" else found["units"]
    header = ["Adam's rate", f"dead, {name}", f"accuracy, {name}", "dead, leaky", "accuracy, leaky"]
    keys = ("rates", "dead", "accuracy", "leaky_dead", "leaky_accuracy", "leaky_negative")
    return [[*header, "leaky, negative on all samples"], *map(list, zip(*(found[key] for key in keys), strict=True))]


def summary(found: Numbers) -> str:
    shares = " ".join(f"{100 * share:.0f}" for share in found["dead"])
    leaky = max(found["leaky_negative"])
    return f"dead {shares} % as the rate grows; leaky: none dead, up to {leaky:.0%} negative on all samples"


def figure(measured: dict[str, Any]) -> Figure:
    fig, (left, right) = panels(columns=2, size=(12, 5))
    rates = measured["rates"]
    for i, by_seed in enumerate(zip(*measured["dead_by_seed"], strict=True)):
        left.plot(rates, by_seed, ".", color=RED, alpha=0.5, label="ReLU dead, one seed" if i == 0 else None)
    left.plot(rates, measured["dead"], "o-", color=RED, label="ReLU dead, mean")
    left.plot(rates, measured["leaky_negative"], "s--", color=BLUE, label="leaky negative on all samples")
    left.plot(rates, measured["leaky_dead"], "s-", color=BLUE, label="leaky dead: none")
    left.axhline(0.2, color=GREY, linestyle="--")
    left.annotate("criterion at the largest rate", (rates[0], 0.21), color=GREY, va="bottom")
    left.set(xscale="log", xlabel="Adam's learning rate", ylabel="share of the hidden units", ylim=(-0.03, 0.85))
    left.set_title("The larger the steps, the more units die")
    left.legend(loc="upper left")

    x, y, net = (measured["curves"][key] for key in ("x", "y", "net"))
    lost = negative(net, x)
    span = torch.tensor([-6.0, 6.0])
    weight, bias = (t.detach() for t in net.affine()[0].parameters())
    for is_lost, color, wide in ((False, GREY, 0.8), (True, RED, 1.6)):
        first = True
        for w, b in zip(weight[lost == is_lost], bias[lost == is_lost], strict=True):
            along = torch.stack([-w[1], w[0]]) / w.norm()
            line = -b * w / w.square().sum() + span[:, None] * along  # two points with w·x + b = 0
            label = ("z = 0, dead: no sample has z > 0" if is_lost else "z = 0, alive") if first else None
            right.plot(*line.T, color=color, linewidth=wide, alpha=1 if is_lost else 0.5, label=label)
            first = False
    for k, color, marker in ((0, ORANGE, "o"), (1, SKY, "^")):
        right.plot(*x[y == k].T, marker, color=color, markersize=3)
    right.set(
        xlim=(-4, 4), ylim=(-5, 3), xlabel="x₁", ylabel="x₂", title=f"Dead units lie beyond the data (rate {SHOWN})"
    )
    right.set_aspect("equal")
    right.legend(loc="lower left", framealpha=1)
    return fig


STUDY = Study(
    id="mlp/dead-relu",
    source="I2DL 07",
    claim="The larger the learning rate, the more ReLUs die: exactly no gradient on all data. Leaky units never do.",
    criterion="From each of Adam's rates to the next (0.001 … 1) the share of dead ReLUs, mean of 8 seeds, does "
    "not fall by more than 0.05, and it is ≥ 0.2 at the largest; no leaky unit is dead at any rate.",
    measure=measure,
    holds=holds,
    control={"units": "leaky_relu"},
    control_note="leaky units instead",
    table=table,
    summary=summary,
    figure=figure,
    seeds=SEEDS,
)

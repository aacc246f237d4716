"""One function, many weights: every tanh layer of M units has 2ᴹ·M! twins.

BONN §8.6: a network f(x) = V tanh(Wx + b) + c stays the same function if

- the hidden units change places: rows of W and b, and columns of V, in another order (M! ways), or
- a unit changes its sign on both sides: tanh(−z) = −tanh(z), so −w, −b and −v cancel (2ᴹ ways).

Together 2ᴹ·M! sets of weights, all different, for each layer: 384 for M = 4, and 10¹⁰⁰ before M reaches 60. A loss has
as many equally good minima, which is why nobody asks for *the* minimum of a network. (For tanh these are, but for
special weights, all there are: Sussmann 1992.)

Here networks are trained on two moons, all their copies are made, counted (no two are equal), and their scores compared
with the original's. In the figure on the right the loss is followed on the straight line from a trained network to some
of its copies: equal at the ends, a hill in between.

The control takes the sigmoid. It is not odd, and the sign flips change the function: of 384 copies the M! = 24
permutations are left. (Since σ(−z) = 1 − σ(z), the sigmoid's flips come back if c ← c + v takes up the difference.)
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations, product
from math import factorial
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.func import functional_call

from dl_course.data import TwoMoons
from dl_course.data.module import Split
from dl_course.layers import Activation
from dl_course.losses import cross_entropy
from dl_course.mlp import MLP
from experiments.study import Numbers, Study
from experiments.style import BLUE, COLORS, GREY, ORANGE, panels

SEEDS = range(5)
WIDTHS = (1, 2, 3, 4, 5)
SHOWN = 4  # the width whose copies the figure shows
STEPS, LR = 200, 0.05
EXACT = 1e-5
Weights = dict[str, Tensor]


def copies(net: MLP) -> Iterator[Weights]:
    """The 2ᴹ·M! sign flips and permutations of a net with one hidden layer of M units; the first is the net itself."""
    state = {name: p.detach() for name, p in net.named_parameters()}
    (w, b, v), rest = list(state)[:3], list(state)[3:]  # W (M, in), b (M,), V (out, M), and the output bias
    m = len(state[b])
    for order in permutations(range(m)):
        i = list(order)
        for signs in product((1.0, -1.0), repeat=m):
            s = torch.tensor(signs, dtype=state[b].dtype)
            flipped = {w: s[:, None] * state[w][i], b: s * state[b][i], v: state[v][:, i] * s}
            yield flipped | {name: state[name] for name in rest}


def train(width: int, activation: Activation, data: Split) -> MLP:
    net = MLP(2, [width], 2, activation)
    optimizer = torch.optim.Adam(net.parameters(), LR)
    for _ in range(STEPS):
        optimizer.zero_grad()
        cross_entropy(net(data.x), data.y).backward()
        optimizer.step()
    return net


@torch.no_grad()
def gaps(net: MLP, x: Tensor) -> tuple[list[float], int]:
    """Of every copy the largest difference of its scores to the net's, relative to the largest score; and how many
    copies have weights of their own."""
    scores = net(x)
    size = scores.abs().max()
    found, distinct = [], set()
    for copy in copies(net):
        found.append(float((functional_call(net, copy, (x,)) - scores).abs().max() / size))
        distinct.add(torch.cat([p.flatten() for p in copy.values()]).numpy().tobytes())
    return found, len(distinct)


def measure(quick: bool, activation: Activation = "tanh") -> dict[str, Any]:
    rows, shown = [], {}
    for width in WIDTHS[: WIDTHS.index(SHOWN) + 1] if quick else WIDTHS:
        worst, distinct, same = [], [], []
        for seed in SEEDS[:1] if quick or width > SHOWN else SEEDS:
            data = TwoMoons(n=500, split_seed=seed).tensors("train")
            torch.manual_seed(seed)
            net = train(width, activation, data)
            of_copies, different = gaps(net, data.x)
            worst.append(max(of_copies))
            distinct.append(different)
            same.append(sum(gap <= EXACT for gap in of_copies))
            if width == SHOWN and not shown:
                shown = {"net": net, "gaps": of_copies, "data": data}
        expected = 2**width * factorial(width)
        rows.append({"width": width, "expected": expected, "distinct": distinct, "same": same, "worst": max(worst)})
    return {"activation": activation, "widths": rows, "curves": shown}


def holds(found: Numbers) -> bool:
    return all(
        row["worst"] <= EXACT
        and all(n == row["expected"] for n in row["distinct"])
        and all(n == row["expected"] for n in row["same"])
        for row in found["widths"]
    )


def table(found: Numbers) -> list[list[Any]]:
    header = ["hidden units M", "2ᴹ·M!", "different copies", "same function (fewest)", "largest relative gap"]
    rows = found["widths"]
    return [header, *([r["width"], r["expected"], min(r["distinct"]), min(r["same"]), r["worst"]] for r in rows)]


def summary(found: Numbers) -> str:
    row = next(r for r in found["widths"] if r["width"] == SHOWN)
    worst = max(r["worst"] for r in found["widths"])
    return f"M = 4: {min(row['same'])} of {min(row['distinct'])} copies are the same function; largest gap {worst:.0e}"


def figure(measured: dict[str, Any]) -> Figure:
    fig, (left, right) = panels(columns=2, size=(12, 5))
    curves = measured["curves"]
    data = curves["data"]

    torch.manual_seed(0)
    rivals = {"sigmoid": (ORANGE, gaps(train(SHOWN, "sigmoid", data), data.x)[0]), "tanh": (BLUE, curves["gaps"])}
    for name, (color, values) in rivals.items():
        same = sum(gap <= EXACT for gap in values)
        heights = np.maximum(sorted(values), 1e-9)  # an exact 0 has no place on a logarithmic axis
        left.plot(range(1, len(values) + 1), heights, ".", color=color, label=f"{name}: {same} are the same function")
    left.axhline(EXACT, color=GREY, linestyle="--")
    left.annotate("criterion", (384, EXACT), ha="right", va="bottom", color=GREY)
    left.set(yscale="log", ylim=(4e-10, 30), xlabel="copy, sorted", ylabel="relative gap to the original")
    left.set_title("4 tanh units: 384 copies, one function")
    left.annotate("exactly 0", (45, 1e-9), va="center", color=GREY)
    left.legend(loc="center right", bbox_to_anchor=(1, 0.73))

    net, steps = curves["net"], np.linspace(0, 1, 61)
    all_copies = list(copies(net))
    for color, index in zip(COLORS, (1, 37, 150, 233, 383), strict=False):
        right.plot(steps, _losses(net, all_copies[index], data, steps), color=color)
    ends = _losses(net, all_copies[-1], data, np.array([0.0, 1.0]))
    right.plot([0, 1], ends, "o", color="black", markersize=11, clip_on=False, zorder=3)
    right.set(xlabel="way from the trained net to a copy of it", ylabel="training loss (nats)", xlim=(0, 1))
    right.set_xticks([0, 0.5, 1], ["trained", "half-way", "copy"])
    right.set_title("Equal minima with hills in between")
    return fig


@torch.no_grad()
def _losses(net: MLP, copy: Weights, data: Split, steps: np.ndarray) -> list[float]:
    """The loss at (1 − t)·net + t·copy for every t."""
    start = dict(net.named_parameters())
    points = ({name: torch.lerp(p, copy[name], t) for name, p in start.items()} for t in steps.tolist())
    return [float(cross_entropy(functional_call(net, point, (data.x,)), data.y)) for point in points]


STUDY = Study(
    id="mlp/symmetries",
    source="BONN 8.6",
    claim="All 2ᴹ·M! sign flips and permutations of a layer of M tanh units are one and the same function.",
    criterion="For M = 1 … 5 and every trained network (5 seeds, 1 for M = 5) there are exactly 2ᴹ·M! different copies "
    "(M = 4: 384), and the scores of all of them are within 1e-5 (relative) of the original's.",
    measure=measure,
    holds=holds,
    control={"activation": "sigmoid"},
    control_note="sigmoid, which is not odd",
    table=table,
    summary=summary,
    figure=figure,
    seeds=SEEDS,
)

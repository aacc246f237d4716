"""How many numbers a network has to learn: d·h + h·o + h + o.

A network with d inputs, one hidden layer of h units and o outputs computes V f(Wx + b) + c (BONN ch. 8). W holds d·h
numbers, V h·o, the biases b and c hold h and o. Each counts, in memory (4 bytes in float32, three to four times that
while Adam trains it) and in what can be overfitted.

The number is found in three ways, over prime sizes, so that no two terms can be mistaken for each other:

1. by the formula; `parameter_count` extends it to more layers, Σ (n_in·n_out + n_out);
2. by counting the elements of the parameters that the network holds;
3. by counting the elements that get a gradient ≠ 0 from a batch (smooth tanh units): no parameter is idle.

See in the figure: the count grows in proportion to h, and for an image of 784 pixels nearly all of it is W.

The control takes maxout, max(w₁ᵀx + b₁, w₂ᵀx + b₂) for each unit: every hidden unit holds two linear ones, and the
formula counts too few. (PReLU is off by one as well: its slope is learned.)
"""

from __future__ import annotations

from itertools import product
from typing import Any

import torch
from matplotlib.figure import Figure

from dl_course.layers import Activation
from dl_course.mlp import MLP, parameter_count
from experiments.study import Numbers, Study
from experiments.style import BLACK, BLUE, GREEN, ORANGE, PURPLE, RED, panels

INPUTS, HIDDEN, OUTPUTS = (2, 13, 61), (3, 17, 67, 251), (2, 7, 11)
DEEP = [(13, [17, 7], 3), (61, [31, 19, 11], 5)]  # with more hidden layers, for `parameter_count`
IMAGE = (784, 128, 10)  # an MNIST network, for the figure


def formula(d: int, h: int, o: int) -> int:
    return d * h + h * o + h + o


def held(net: MLP) -> int:
    """Elements of all parameters."""
    return sum(p.numel() for p in net.parameters())


def used(net: MLP) -> int:
    """Elements of all parameters that a random batch gives a gradient other than 0 (float64, 512 samples)."""
    net = net.double()
    net(torch.randn(512, net.in_features, dtype=torch.float64)).square().sum().backward()
    return sum(int(p.grad.count_nonzero()) for p in net.parameters() if p.grad is not None)


def measure(quick: bool, activation: Activation = "tanh") -> dict[str, Any]:
    rows = []
    for d, h, o in product(INPUTS, HIDDEN[:3] if quick else HIDDEN, OUTPUTS):
        net = MLP(d, [h], o, activation)
        rows.append({"d": d, "h": h, "o": o, "formula": formula(d, h, o), "held": held(net), "used": used(net)})
    deep = []
    for d, hidden, o in DEEP:
        net = MLP(d, hidden, o, activation)
        deep.append({"d": d, "hidden": hidden, "o": o, "formula": parameter_count(d, hidden, o), "held": held(net)})
    return {"activation": activation, "networks": rows, "deep": deep}


def holds(found: Numbers) -> bool:
    shallow = all(row["formula"] == row["held"] == row["used"] for row in found["networks"])
    return shallow and all(row["formula"] == row["held"] for row in found["deep"])


def table(found: Numbers) -> list[list[Any]]:
    rows = found["networks"]
    some = rows[:: max(1, len(rows) // 8)]
    shallow = [[f"{r['d']}-{r['h']}-{r['o']}", r["formula"], r["held"], r["used"]] for r in some]
    deep = [["-".join(map(str, (r["d"], *r["hidden"], r["o"]))), r["formula"], r["held"], ""] for r in found["deep"]]
    return [["network d-h-o", "formula", "held", "with a gradient"], *shallow, *deep]


def summary(found: Numbers) -> str:
    rows = found["networks"]
    right = sum(row["formula"] == row["held"] == row["used"] for row in rows)
    return f"formula = held = used in {right} of {len(rows)} networks ({found['activation']})"


def figure(measured: dict[str, Any]) -> Figure:
    fig, (left, right) = panels(columns=2, size=(12, 5))

    widths = [2**k for k in range(2, 12)]
    for (d, o), color, name in (((784, 10), BLUE, "MNIST"), ((64, 10), GREEN, "digits"), ((2, 2), RED, "two moons")):
        left.plot(widths, [formula(d, h, o) for h in widths], color=color, linewidth=1.8)
        counts = [held(MLP(d, [h], o, "tanh")) for h in widths]
        left.plot(widths, counts, "o", color=color, label=f"{name}: d = {d}, o = {o}")
    left.plot([], [], color=BLACK, linewidth=1.8, label="lines: d·h + h·o + h + o")
    left.set(xscale="log", yscale="log", xlabel="hidden units h", ylabel="parameters")
    left.set_title("Counted (dots) = formula (lines)")
    left.legend(loc="upper left")

    d, h, o = IMAGE
    parts = [("W: d·h", d * h, BLUE), ("V: h·o", h * o, ORANGE), ("b: h", h, GREEN), ("c: o", o, PURPLE)]
    for i, (_, size, color) in enumerate(reversed(parts)):
        right.barh(i, size, color=color, height=0.6)
        right.annotate(f"{size:,}", (size, i), xytext=(6, 0), textcoords="offset points", va="center")
    right.set_yticks(range(len(parts)), [name for name, _, _ in reversed(parts)])
    right.set(xscale="log", xlim=(1, 2e6), xlabel="parameters")
    right.set_title(f"{d}-{h}-{o}: {formula(d, h, o):,}, {d * h / formula(d, h, o):.0%} of them in W")
    right.grid(axis="y", visible=False)
    return fig


STUDY = Study(
    id="mlp/params",
    source="BONN 8",
    claim="A network with one hidden layer has d·h + h·o + h + o parameters.",
    criterion="For 36 networks of prime sizes the formula d·h + h·o + h + o, the number of elements held and that "
    "of those with a gradient are equal (difference 0); for 2 deeper ones so are parameter_count and those held.",
    measure=measure,
    holds=holds,
    control={"activation": "maxout"},
    control_note="maxout units, each of two linear ones",
    table=table,
    summary=summary,
    figure=figure,
)

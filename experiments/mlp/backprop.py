"""Backpropagation gives the same gradient as differences, in one pass instead of two evaluations a weight.

The derivative of a loss L by a weight w is, but for an error O(ε²), the central difference (L(w + ε) − L(w − ε))/2ε.
That needs no mathematics, but two evaluations of L for each of the P weights. Backpropagation applies the chain rule
from the loss to the inputs, and visits each node of the computational graph once (BONN 9): all P derivatives for
about the price of two evaluations.

Measured in float64 on networks 64 → h → h → 10 with cross-entropy, 16 digits: our own engine
(`dl_course.mlp.autodiff`) against `torch.autograd` and against central differences with ε = 1e-6 (of torch's loss, so
that the engine is not its own judge), for three activations. The error of a weight is relative to it, or to 1/1000 of
the largest derivative if that is more. Evaluations and visits are counted, and the time is taken at growing P. The
figure shows, beside it, how large ε should be: below, rounding spoils the difference, above, the curvature does;
float32 comes nowhere near 1e-4.

The control gives the engine a wrong rule, as one writes it by mistake: tanh' = 1 − y instead of 1 − y².
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from dl_course.data import Digits
from dl_course.layers import Activation
from dl_course.mlp import MLP, Variable, numerical_gradient
from dl_course.mlp.autodiff import Edge, cross_entropy, topological_order
from experiments.statistics import log_slope
from experiments.study import Numbers, Study
from experiments.style import BLUE, GREEN, GREY, ORANGE, RED, panels

SEEDS = range(5)
ACTIVATIONS: tuple[Activation, ...] = ("tanh", "sigmoid", "relu")
WIDTH, BATCH, STEP = 8, 16, 1e-6
WIDTHS = (2, 4, 8, 16, 32, 64)  # for the times
STEPS = tuple(10.0**-k for k in range(11))


def wrong_tanh(x: Variable) -> Variable:
    """tanh with a mistake in its backward rule: 1 − y for 1 − y²."""
    y = np.tanh(x.value)
    return Variable(y, op="tanh", edges=[Edge(x, lambda g: g * (1 - y))])


def engine_loss(net: MLP, x: Tensor, y: Tensor, wrong: bool = False) -> tuple[Variable, list[Variable]]:
    """The network's loss as a graph of our engine, and its parameters in torch's order."""
    rules: dict[str, Callable[[Variable], Variable]] = {
        "tanh": wrong_tanh if wrong else Variable.tanh,
        "sigmoid": Variable.sigmoid,
        "relu": Variable.relu,
    }
    parameters = [Variable(p.detach().numpy()) for p in net.parameters()]
    a = Variable(x.numpy(), constant=True)
    pairs = list(zip(parameters[::2], parameters[1::2], strict=True))
    for weight, bias in pairs[:-1]:
        a = rules[net.activation](a @ weight.T + bias)  # (B, h)
    weight, bias = pairs[-1]
    return cross_entropy(a @ weight.T + bias, y.numpy()), parameters


def by_engine(net: MLP, x: Tensor, y: Tensor, wrong: bool = False) -> Tensor:
    loss, parameters = engine_loss(net, x, y, wrong)
    loss.backward()
    return torch.cat([torch.from_numpy(np.array(p.grad)).flatten() for p in parameters])


def by_autograd(net: MLP, x: Tensor, y: Tensor) -> Tensor:
    gradients = torch.autograd.grad(nn.functional.cross_entropy(net(x), y), list(net.parameters()))
    return torch.cat([g.flatten() for g in gradients])


def by_differences(net: MLP, x: Tensor, y: Tensor, step: float = STEP) -> tuple[Tensor, int]:
    """The gradient (P,), and how often the loss was evaluated for it."""
    count = 0

    def loss() -> Tensor:
        nonlocal count
        count += 1
        return nn.functional.cross_entropy(net(x), y)

    gradients = [numerical_gradient(loss, p, step).flatten() for p in net.parameters()]
    return torch.cat(gradients), count


def error(a: Tensor, b: Tensor) -> float:
    """Largest |a − b| relative to |a|, |b| or 1/1000 of the largest |b|, whichever is most."""
    floor = 1e-3 * float(b.abs().max())
    return float(((a - b).abs() / torch.maximum(a.abs(), b.abs()).clamp(min=floor)).max())


def visits(net: MLP, x: Tensor, y: Tensor) -> float:
    """How often the backward pass calls the rule of an edge, on average over the edges; 1 is one pass."""
    loss, _ = engine_loss(net, x, y)
    calls, edges = 0, 0

    def counted(rule: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
        def call(g: np.ndarray) -> np.ndarray:
            nonlocal calls
            calls += 1
            return rule(g)

        return call

    for node in topological_order(loss):
        node.edges = tuple(Edge(edge.operand, counted(edge.rule)) for edge in node.edges)
        edges += sum(edge.operand.requires_grad for edge in node.edges)
    loss.backward()
    return calls / edges


def seconds(f: Callable[..., Any], *arguments: Any, repeats: int) -> float:
    """The shortest of `repeats` runs: what disturbs a run only ever makes it longer."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        f(*arguments)
        times.append(time.perf_counter() - start)
    return min(times)


def network(activation: Activation, width: int, seed: int) -> tuple[MLP, Tensor, Tensor]:
    """A network with two hidden layers in float64, and 16 digits."""
    torch.manual_seed(seed)
    x, y = Digits().tensors("train")
    index = torch.randperm(len(x))[:BATCH]
    return MLP(64, [width, width], 10, activation).double(), x[index].flatten(1).double(), y[index]


def measure(quick: bool, wrong: bool = False) -> dict[str, Any]:
    seeds, widths = (SEEDS[:2], WIDTHS[:3]) if quick else (SEEDS, WIDTHS)
    errors: dict[str, dict[str, float]] = {}
    counts = []
    for activation in ACTIVATIONS:
        worst = {"autograd": 0.0, "differences": 0.0}
        for seed in seeds:
            net, x, y = network(activation, WIDTH, seed)
            ours = by_engine(net, x, y, wrong)
            differences, evaluations = by_differences(net, x, y)
            worst["autograd"] = max(worst["autograd"], error(ours, by_autograd(net, x, y)))
            worst["differences"] = max(worst["differences"], error(ours, differences))
            counts.append({"parameters": len(ours), "evaluations": evaluations, "visits": visits(net, x, y)})
        errors[activation] = worst

    times = []
    for width in widths:
        net, x, y = network("tanh", width, 0)
        row: dict[str, Any] = {"parameters": sum(p.numel() for p in net.parameters())}
        row["differences"] = seconds(by_differences, net, x, y, repeats=1)
        row["autograd"] = seconds(by_autograd, net, x, y, repeats=20)
        row["engine"] = seconds(by_engine, net, x, y, repeats=20)
        times.append(row)
    return {"errors": errors, "counts": counts, "times": times}


def step_errors() -> dict[str, list[float]]:
    """The error of central differences against autograd in float64, by ε, computed in float64 and in float32."""
    net, x, y = network("tanh", WIDTH, 0)
    exact = by_autograd(net, x, y)
    single, single_x = MLP(64, [WIDTH, WIDTH], 10, "tanh"), x.float()
    single.load_state_dict(net.state_dict())
    return {
        "float64": [error(by_differences(net, x, y, step)[0], exact) for step in STEPS],
        "float32": [error(by_differences(single, single_x, y, step)[0].double(), exact) for step in STEPS],
    }


def holds(found: Numbers) -> bool:
    equal = all(e["autograd"] <= 1e-6 and e["differences"] <= 1e-4 for e in found["errors"].values())
    return equal and all(c["evaluations"] == 2 * c["parameters"] and c["visits"] == 1 for c in found["counts"])


def table(found: Numbers) -> list[list[Any]]:
    rows: list[list[Any]] = [
        [f"largest error, {name}", f"autograd {e['autograd']:.1e}", f"differences {e['differences']:.1e}", ""]
        for name, e in found["errors"].items()
    ]
    rows += [
        [
            f"milliseconds, P = {t['parameters']:,}",
            *(f"{1000 * t[key]:.3g}" for key in ("engine", "differences", "autograd")),
        ]
        for t in found["times"]
    ]
    return [["", "engine", "differences", "torch.autograd"], *rows]


def summary(found: Numbers) -> str:
    worst = {key: max(e[key] for e in found["errors"].values()) for key in ("autograd", "differences")}
    last = found["times"][-1]
    ratio = last["differences"] / last["engine"]
    return (
        f"off autograd by {worst['autograd']:.0e}, off differences by {worst['differences']:.0e}; "
        f"2·P evaluations, {ratio:,.0f}× the engine's time at P = {last['parameters']:,}"
    )


def figure(measured: dict[str, Any]) -> Figure:
    fig, (left, right) = panels(columns=2, size=(12, 5))
    times = measured["times"]
    p = [row["parameters"] for row in times]
    for key, color, marker, label in (
        ("differences", RED, "o", "central differences"),
        ("engine", BLUE, "s", "our engine"),
        ("autograd", GREEN, "^", "torch.autograd"),
    ):
        t = [1000 * row[key] for row in times]
        left.plot(p, t, marker + "-", color=color, label=f"{label}: ∝ P^{round(log_slope(p, t), 1) + 0.0}")
    left.set(xscale="log", yscale="log", xlabel="parameters P", ylabel="time for one gradient (ms)")
    left.set_title("2·P evaluations, or one pass")
    left.legend(loc="center left", bbox_to_anchor=(0, 0.36))

    errors = step_errors()
    for name, color, marker in (("float64", BLUE, "o"), ("float32", ORANGE, "s")):
        right.plot(STEPS, errors[name], marker + "-", color=color, label=name)
    right.axhline(1e-4, color=GREY, linestyle="--")
    right.annotate("criterion", (STEPS[-1], 1.3e-4), color=GREY, va="bottom")
    right.axvline(STEP, color=GREY, linewidth=1)
    right.annotate(
        "ε used",
        (STEP, 0.6),
        xycoords=("data", "axes fraction"),
        xytext=(6, 0),
        textcoords="offset points",
        color=GREY,
    )
    right.set(xscale="log", yscale="log", xlabel="step ε of the differences", ylabel="largest relative error")
    right.set_title("ε too small: rounding; too large: curvature")
    right.legend(loc="lower right")
    return fig


STUDY = Study(
    id="mlp/backprop",
    source="I2DL 04, BONN 9",
    claim="One backward pass gives the gradient that central differences need two loss evaluations a weight for.",
    criterion="In float64, on 5 seeds and 3 activations, our engine agrees with torch.autograd to 1e-6 and with "
    "central differences to 1e-4 (relative); differences evaluate the loss exactly 2·P times, backprop one pass.",
    measure=measure,
    holds=holds,
    control={"wrong": True},
    control_note="a wrong rule in the engine, tanh' = 1 − y",
    table=table,
    summary=summary,
    figure=figure,
    seeds=SEEDS,
)

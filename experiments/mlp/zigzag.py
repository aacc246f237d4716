"""After a sigmoid layer a single sample pulls all weights of a neuron the same way: towards more, or towards less.

A neuron with score z = w·a + b has the gradient ∂L/∂w = δ·a, with δ = ∂L/∂z one number. A sigmoid layer puts out a =
σ(…) > 0, so every component of ∂L/∂w has the sign of δ. In the plane of two weights, one quarter of the directions
leads up in both and one down in both; a goal that asks for *more* of one weight and *less* of the other is only
reached in a zigzag (I2DL 07). tanh is zero-centred: m independent signs agree with probability 2^(1−m), 1/8 for m =
4.

Measured on an MLP with two hidden layers of equal width, on digits with the mean image subtracted: for every sample
and every neuron of the second hidden layer, do the incoming weight gradients share one sign? Once before training,
once after it (Adam). The figure also shows the zigzag itself, on a neuron with two weights that learns from one
sample at a time.

The control averages the gradient over minibatches of 32. Different samples have different δ, and a mean of vectors
from two opposite quarters may point anywhere: the pattern is a matter of single samples, and of minibatches of one.
"""

from __future__ import annotations

from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from dl_course.data import Digits
from dl_course.layers import activation
from dl_course.mlp import MLP
from dl_course.mlp.matrices import backward, forward
from experiments.study import Numbers, Study
from experiments.style import BLACK, BLUE, GREY, ORANGE, panels

SEEDS = range(10)
WIDTHS = (4, 8, 16)
ACTIVATIONS = ("sigmoid", "tanh")
COLORS = {"sigmoid": ORANGE, "tanh": BLUE}
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
STEPS, LR, BATCH = 100, 1e-2, 64


def incoming_gradients(net: MLP, x: Tensor, y: Tensor, batch: int = 1) -> Tensor:
    """Gradients of the second layer's weights, one for each minibatch of `batch` successive samples.

    x (N, F), y (N,) → (N // batch, neurons, incoming weights); the rest of the samples is left out.
    """
    delta = backward(net, x, y, "cross_entropy").deltas[1]  # (N, neurons)
    a = forward(net, x).a[1]  # (N, incoming)
    groups = len(x) // batch
    delta, a = (t[: groups * batch].unflatten(0, (groups, batch)) for t in (delta, a))
    return torch.einsum("gbn,gbm->gnm", delta, a)


def one_sign(gradients: Tensor) -> float:
    """The share of neurons whose incoming gradients are all > 0 or all < 0. gradients (…, incoming)."""
    return float(((gradients > 0).all(-1) | (gradients < 0).all(-1)).double().mean())


def train(net: MLP, x: Tensor, y: Tensor, steps: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(net.parameters(), LR, fused=True)
    for _ in range(steps):
        index = torch.randint(len(x), (BATCH,), generator=generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x[index]), y[index]).backward()
        optimizer.step()


def measure(quick: bool, batch: int = 1) -> dict[str, Any]:
    seeds, steps = (SEEDS[:4], 60) if quick else (SEEDS, STEPS)
    x, y = Digits(normalize="pixel").tensors("train")
    x = x.double().flatten(1)
    shares: dict[str, list[dict[str, Any]]] = {name: [] for name in ACTIVATIONS}
    by_batch: dict[str, list[float]] = {}
    for name in ACTIVATIONS:
        for width in WIDTHS:
            before, after, nets = [], [], []
            for seed in seeds:
                torch.manual_seed(seed)
                net = MLP(x.shape[1], [width, width], 10, name).double()
                before.append(one_sign(incoming_gradients(net, x, y, batch)))
                nets.append(net)
                train(net, x, y, steps, seed)
                after.append(one_sign(incoming_gradients(net, x, y, batch)))
            means = {"before": sum(before) / len(before), "after": sum(after) / len(after)}
            shares[name].append({"width": width, **means, "smallest": min(before + after)})
            if width == WIDTHS[0]:
                by_batch[name] = [
                    sum(one_sign(incoming_gradients(net, x, y, k)) for net in nets) / len(nets) for k in BATCHES
                ]
    return {"batch": batch, "shares": shares, "batches": BATCHES, "by_batch": by_batch}


def holds(found: Numbers) -> bool:
    always = all(row["smallest"] == 1.0 for row in found["shares"]["sigmoid"])
    return always and all(row["before"] < 0.2 and row["after"] < 0.2 for row in found["shares"]["tanh"])


def table(found: Numbers) -> list[list[Any]]:
    rows = [
        [f"{name}, width {row['width']}", row["before"], row["after"], 2.0 ** (1 - row["width"])]
        for name in ACTIVATIONS
        for row in found["shares"][name]
    ]
    return [["layer before the neuron", "one sign, at the start", "one sign, trained", "independent signs"], *rows]


def summary(found: Numbers) -> str:
    sigmoid = min(row["smallest"] for row in found["shares"]["sigmoid"])
    tanh = max(max(row["before"], row["after"]) for row in found["shares"]["tanh"])
    unit = "sample" if found["batch"] == 1 else f"minibatch of {found['batch']}"
    return f"per {unit} and neuron, one sign in {sigmoid:.1%} after sigmoid (least), {tanh:.1%} after tanh (most)"


def path(name: str, steps: int = 60, lr: float = 1.0) -> Tensor:
    """SGD on ½(w·a − w*·a)², one sample a step, w* = (1, −1), a = f(u), u ~ N(0, I). → (steps + 1, 2) from (0, 0)."""
    generator = torch.Generator().manual_seed(3)
    f = activation(name)  # pyright: ignore[reportArgumentType]
    goal, w = torch.tensor([1.0, -1.0]), torch.zeros(2)
    path = [w]
    for _ in range(steps):
        a = f(torch.randn(2, generator=generator))
        w = w - lr * ((w - goal) @ a) * a
        path.append(w)
    return torch.stack(path)


def figure(measured: dict[str, Any]) -> Figure:
    fig, (left, right) = panels(columns=2, size=(12, 5))
    left.axhline(0, color=GREY, linewidth=1)
    left.axvline(0, color=GREY, linewidth=1)
    for name in ACTIVATIONS:
        w = path(name)
        left.plot(*w.T, "o-", color=COLORS[name], linewidth=1.6, markersize=4, label=f"inputs from {name}")
    left.plot(1, -1, "*", color=BLACK, markersize=16, label="goal")
    left.set(xlabel="weight 1", ylabel="weight 2", title="After sigmoid each step is ↗ or ↙: a zigzag")
    left.set_aspect("equal", adjustable="datalim")
    left.legend(loc="upper right")

    for name in ACTIVATIONS:
        right.plot(measured["batches"], measured["by_batch"][name], "o-", color=COLORS[name], label=f"after {name}")
    right.axhline(0.2, color=GREY, linestyle="--")
    right.annotate("criterion for tanh, batch 1", (1, 0.21), va="bottom", color=GREY)
    right.set_xscale("log", base=2)
    right.set_xticks(measured["batches"], [str(k) for k in measured["batches"]])
    right.set(xlabel="samples per gradient", ylabel="share of neurons with one sign", ylim=(0, 1.05))
    right.set_title("A minibatch breaks the pattern (width 4)")
    right.legend(loc="upper right")
    return fig


STUDY = Study(
    id="mlp/zigzag",
    source="I2DL 07",
    claim="After a sigmoid layer all incoming weight gradients of a neuron share one sign, per sample; not after tanh.",
    criterion="For hidden widths 4, 8 and 16, before and after training: per sample and neuron the incoming weight "
    "gradients share one sign in 100 % of cases after sigmoid (every seed), in < 20 % after tanh (mean of 10 seeds).",
    measure=measure,
    holds=holds,
    control={"batch": 32},
    control_note="gradients of minibatches of 32",
    table=table,
    summary=summary,
    figure=figure,
    seeds=SEEDS,
)

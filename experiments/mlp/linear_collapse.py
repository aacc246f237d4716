"""Depth without a nonlinearity is worth nothing: many linear layers are one.

BONN §8.4: with the identity between the layers, W⁽³⁾(W⁽²⁾(W⁽¹⁾x + b⁽¹⁾) + b⁽²⁾) + b⁽³⁾ = W'x + b' with
W' = W⁽³⁾W⁽²⁾W⁽¹⁾ and b' = W⁽³⁾(W⁽²⁾b⁽¹⁾ + b⁽²⁾) + b⁽³⁾. Whatever the deep net learns, a single matrix does too, so on a
classification it is logistic regression in a costume: its boundary is a straight line.

Three networks of `dl_course.mlp.MLP` on two interleaved half-moons (noise 0.2), which no straight line separates:

1. logistic regression (hidden=[]), brought to the minimum of its convex loss by L-BFGS: nothing linear can be below it;
2. three hidden layers with the identity, trained by Adam, then multiplied out to one matrix;
3. the same three layers with ReLU, trained in the same way.

See in the figure: the first two draw the same straight line, the third bends around the moons. The control puts tanh
between the layers of the second network: it equals no matrix any more, and beats logistic regression.
"""

from __future__ import annotations

from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from torch import Tensor

from dl_course.data import TwoMoons
from dl_course.data.module import Split
from dl_course.layers import Activation
from dl_course.losses import cross_entropy
from dl_course.mlp import MLP
from experiments.statistics import Interval, paired_interval
from experiments.study import Numbers, Study
from experiments.style import BLACK, BLUE, ORANGE, panels

SEEDS = range(5)
NOISE, TRAIN, TEST = 0.2, 1000, 1000
HIDDEN, STEPS, LR = [32, 32, 32], 300, 0.01
EXACT, POINTS = 1e-5, 8.0


def logistic(train: Split) -> MLP:
    """Logistic regression (softmax over two scores), at the minimum of its training loss."""
    net = MLP(2, [], 2)
    optimizer = torch.optim.LBFGS(net.parameters(), max_iter=200, tolerance_grad=1e-7, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = cross_entropy(net(train.x), train.y)
        loss.backward()
        return loss

    optimizer.step(closure)  # pyright: ignore[reportArgumentType]
    return net


def deep(train: Split, activation: Activation) -> MLP:
    """Three hidden layers, trained on the whole training set at once by Adam."""
    net = MLP(2, HIDDEN, 2, activation)
    optimizer = torch.optim.Adam(net.parameters(), LR)
    for _ in range(STEPS):
        optimizer.zero_grad()
        cross_entropy(net(train.x), train.y).backward()
        optimizer.step()
    return net


@torch.no_grad()
def collapse(net: MLP) -> tuple[Tensor, Tensor]:
    """The layers multiplied out as if nothing were between them: W' (out, in) and b' (out,)."""
    weight, bias = torch.eye(net.in_features), torch.zeros(net.in_features)
    for layer in net.affine():
        assert layer.bias is not None
        weight, bias = layer.weight @ weight, layer.weight @ bias + layer.bias
    return weight, bias


@torch.no_grad()
def accuracy(net: MLP, split: Split) -> float:
    """In percent."""
    return 100 * float((net(split.x).argmax(1) == split.y).float().mean())


@torch.no_grad()
def excess(net: MLP, reference: MLP, split: Split) -> float:
    """Cross-entropy of the net minus that of the reference, in nats."""
    return float(cross_entropy(net(split.x), split.y) - cross_entropy(reference(split.x), split.y))


@torch.no_grad()
def distance(net: MLP, x: Tensor) -> float:
    """Largest difference between the net's scores and those of its one matrix, relative to the largest score."""
    weight, bias = collapse(net)
    scores = net(x)
    return float((scores - (x @ weight.T + bias)).abs().max() / scores.abs().max())


def measure(quick: bool, between: Activation = "identity") -> dict[str, Any]:
    runs: dict[str, list[float]] = {key: [] for key in ("distance", "excess", "logistic", "deep_linear", "relu")}
    shown: dict[str, Any] = {}
    for seed in SEEDS[:2] if quick else SEEDS:
        data = TwoMoons(n=5 * TEST, noise=NOISE, split_seed=seed)  # of which a fifth are for testing
        train, test = Split(*(part[:TRAIN] for part in data.tensors("train"))), data.tensors("test")
        torch.manual_seed(seed)
        nets = {"logistic": logistic(train), "deep_linear": deep(train, between), "relu": deep(train, "relu")}
        runs["distance"].append(distance(nets["deep_linear"], test.x))
        runs["excess"].append(excess(nets["deep_linear"], nets["logistic"], train))
        for name, net in nets.items():
            runs[name].append(accuracy(net, test))
        shown = shown or {"nets": nets, "test": test}
    return {**runs, "curves": shown}


def advantage(found: Numbers) -> Interval:
    """Test accuracy of the deep linear net minus that of logistic regression, in points."""
    return paired_interval(found["deep_linear"], found["logistic"])


def relu_advantage(found: Numbers) -> list[float]:
    return [a - b for a, b in zip(found["relu"], found["logistic"], strict=True)]


def holds(found: Numbers) -> bool:
    one_matrix = max(found["distance"]) <= EXACT
    not_better = min(found["excess"]) >= -EXACT and not advantage(found).above_zero
    return one_matrix and not_better and min(relu_advantage(found)) >= POINTS


def table(found: Numbers) -> list[list[Any]]:
    header = ["data set", "gap to one matrix", "train loss above logistic's", "logistic %", "deep linear %", "ReLU %"]
    columns = ("distance", "excess", "logistic", "deep_linear", "relu")
    return [header, *([seed, *row] for seed, row in enumerate(zip(*(found[c] for c in columns), strict=True)))]


def summary(found: Numbers) -> str:
    gain = relu_advantage(found)
    return (
        f"gap to one matrix {max(found['distance']):.0e}; over logistic: deep linear {advantage(found)} points, "
        f"ReLU {sum(gain) / len(gain):.1f} (least {min(gain):.1f})"
    )


def figure(measured: dict[str, Any]) -> Figure:
    fig, axes = panels(columns=3, size=(13, 5))
    nets, test = measured["curves"]["nets"], measured["curves"]["test"]
    titles = {"logistic": "Logistic regression", "deep_linear": "Four linear layers", "relu": "… with ReLU between"}
    for ax, (name, net) in zip(axes, nets.items(), strict=True):
        _map(ax, net, test)
        ax.set_title(f"{titles[name]}: {measured[name][0]:.1f} %")
        ax.set_xlabel("feature 1 (standardised)")
    axes[0].set_ylabel("feature 2 (standardised)")
    return fig


def _map(ax: Axes, net: MLP, test: Split) -> None:
    side = torch.linspace(-2.6, 2.6, 261)
    grid = torch.cartesian_prod(side, side)
    with torch.no_grad():
        scores = net(grid)
    margin = (scores[:, 1] - scores[:, 0]).reshape(261, 261).T.numpy()
    ax.contourf(side, side, margin > 0, levels=[-0.5, 0.5, 1.5], cmap=ListedColormap(["#D6E8F4", "#FBEBCB"]))
    ax.contour(side, side, margin, levels=[0], colors=BLACK, linewidths=2.4)
    for k, (color, marker) in enumerate(((BLUE, "o"), (ORANGE, "^"))):
        x = test.x[test.y == k][:200]
        ax.scatter(x[:, 0], x[:, 1], s=14, color=color, marker=marker, alpha=0.8)
    ax.set(xlim=(-2.6, 2.6), ylim=(-2.6, 2.6), aspect="equal")
    ax.grid(False)


STUDY = Study(
    id="mlp/linear-collapse",
    source="BONN 8.4",
    claim="A deep linear net is one matrix: it cannot beat logistic regression on two moons, a ReLU net does.",
    criterion="On each of 5 data sets the deep linear net's scores equal those of one matrix within 1e-5 (relative) "
    "and its training loss is not more than 1e-5 below logistic regression's; the 95 % interval of its advantage in "
    "test accuracy is not above 0; ReLU's advantage is ≥ 8 points on each.",
    measure=measure,
    holds=holds,
    control={"between": "tanh"},
    control_note="tanh between the layers of the 'linear' net",
    table=table,
    summary=summary,
    figure=figure,
    seeds=SEEDS,
)

"""Ten sigmoid layers do not learn; ten ReLU layers do. The gradient is lost on the way back.

I2DL 07: backpropagation multiplies one factor per layer, δ⁽ˡ⁾ = δ⁽ˡ⁺¹⁾W⁽ˡ⁺¹⁾ ⊙ f'(z⁽ˡ⁾). For the sigmoid
f' = σ(1 − σ) ≤ 1/4, at its best point: ten layers of it divide by at least 4¹⁰ ≈ 10⁶. For ReLU f' is 1 on every active
unit (about half of them), and only the weights shrink the gradient.

Ten hidden layers of 100 units on the 8×8 digits, 20 epochs of Adam at 1e-3, batches of 32, PyTorch's initial weights
U(±1/√n); ReLU and sigmoid start from the *same* weights. Measured: ‖∂L/∂W⁽ˡ⁾‖ of every layer before the first step,
over the whole training set, and the accuracy on the test set (chance: 10 %).

See in the figure: on the left, sigmoid's gradient falls by a constant factor per layer, a straight line in the
logarithm. On the right, its accuracy stays at chance, though Adam divides each gradient by its own size: entries of
1e-10 drown in Adam's ε = 1e-8, and on the way forward the images lose their differences by the same factors.

Dashed beside it, not judged: both from He's N(0, 2/n), weights that are √6 times as large. ReLU keeps its gradient
now, sigmoid loses it as before. (Trained from there, sigmoid networks got 20 to 38 % when this study was laid
out, at widths 64 and 100: a few classes, so that the 25 % of the criterion belong to the smaller weights.)

The criterion takes the mean over the seeds. ReLU's start is not perfect either with PyTorch's weights, the gradient is
at 1e-4: one of the five recorded networks learns slowly and ends at 88.6 %.

The control has one hidden layer: there the sigmoid learns the digits as well.
"""

from __future__ import annotations

from typing import Any

import torch
from matplotlib.figure import Figure
from torch import nn

from dl_course.data import Digits
from dl_course.layers import Activation
from dl_course.losses import cross_entropy
from dl_course.mlp import MLP
from experiments.study import Numbers, Study
from experiments.style import BLUE, GREY, ORANGE, panels

SEEDS = range(5)
WIDTH, EPOCHS, LR, BATCH = 100, 20, 1e-3, 32
KINDS: tuple[Activation, ...] = ("relu", "sigmoid")
LEARNED, STUCK, RATIO = 90.0, 25.0, 1e4


def build(seed: int, depth: int, activation: Activation, he: bool = False) -> MLP:
    """The same seed gives the same weights, whatever the activation."""
    torch.manual_seed(seed)
    net = MLP(64, [WIDTH] * depth, 10, activation)
    if he:
        for layer in net.affine():
            nn.init.kaiming_normal_(layer.weight)
            nn.init.zeros_(layer.bias)  # pyright: ignore[reportArgumentType]
    return net


def gradient_norms(net: MLP, data: Digits) -> list[float]:
    """‖∂L/∂W⁽ˡ⁾‖ of every layer, input side first, L the mean cross-entropy of the training set in nats."""
    x, y = data.tensors("train")
    weights = [layer.weight for layer in net.affine()]
    return [float(g.norm()) for g in torch.autograd.grad(cross_entropy(net(x), y), weights)]


def train(net: MLP, data: Digits, epochs: int) -> list[float]:
    """Test accuracy in percent before the first and after every epoch."""
    optimizer = torch.optim.Adam(net.parameters(), LR, fused=True)
    loader = data.train_dataloader()
    path = [accuracy(net, data)]
    for epoch in range(epochs):
        loader.set_epoch(epoch)
        for x, y in loader:
            optimizer.zero_grad()
            cross_entropy(net(x), y).backward()
            optimizer.step()
        path.append(accuracy(net, data))
    return path


@torch.no_grad()
def accuracy(net: MLP, data: Digits) -> float:
    x, y = data.tensors("test")
    return 100 * float((net(x).argmax(1) == y).float().mean())


def measure(quick: bool, depth: int = 10) -> dict[str, Any]:
    accuracies: dict[str, list[float]] = {name: [] for name in KINDS}
    paths: dict[str, list[list[float]]] = {name: [] for name in KINDS}
    norms: dict[str, list[list[float]]] = {name: [] for name in ("relu", "sigmoid", "relu_he", "sigmoid_he")}
    for seed in SEEDS[:1] if quick else SEEDS:
        data = Digits(seed=seed, split_seed=seed, batch_size=BATCH)
        for name in KINDS:
            norms[f"{name}_he"].append(gradient_norms(build(seed, depth, name, he=True), data))
            net = build(seed, depth, name)
            norms[name].append(gradient_norms(net, data))
            paths[name].append(train(net, data, EPOCHS))
            accuracies[name].append(paths[name][-1][-1])
    ratios = [relu[0] / sigmoid[0] for relu, sigmoid in zip(norms["relu"], norms["sigmoid"], strict=True)]
    return {"depth": depth, "accuracy": accuracies, "norms": norms, "ratio": ratios, "curves": paths}


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def holds(found: Numbers) -> bool:
    learned, stuck = mean(found["accuracy"]["relu"]) >= LEARNED, mean(found["accuracy"]["sigmoid"]) <= STUCK
    return learned and stuck and min(found["ratio"]) >= RATIO


def table(found: Numbers) -> list[list[Any]]:
    rows = []
    for name, label in (("relu", "ReLU"), ("sigmoid", "sigmoid")):
        values = found["accuracy"][name]
        first = [mean([norms[0] for norms in found["norms"][key]]) for key in (name, f"{name}_he")]
        rows.append([label, mean(values), f"{min(values):.1f} … {max(values):.1f}", *first])
    return [[f"hidden layers: {found['depth']}", "test %", "range", "‖∂L/∂W₁‖", "from He's weights"], *rows]


def summary(found: Numbers) -> str:
    relu, sigmoid = mean(found["accuracy"]["relu"]), mean(found["accuracy"]["sigmoid"])
    return f"ReLU {relu:.1f} %, sigmoid {sigmoid:.1f} %; sigmoid's first gradient ≥ {min(found['ratio']):.1e}× smaller"


def figure(measured: dict[str, Any]) -> Figure:
    fig, (left, right) = panels(columns=2, size=(12, 5))
    for name, color, label in (("relu", BLUE, "ReLU"), ("sigmoid", ORANGE, "sigmoid")):
        layers = range(1, measured["depth"] + 2)
        left.plot(layers, _average(measured["norms"][name]), "o-", color=color, label=label)
        he = _average(measured["norms"][f"{name}_he"])
        left.plot(layers, he, "--", color=color, linewidth=1.8, label=f"{label}, He's weights")
        for i, path in enumerate(measured["curves"][name]):
            right.plot(path, color=color, linewidth=1.8, label=label if i == 0 else None)
    left.set(yscale="log", xlabel="layer (1 = at the input)", ylabel="norm of ∂L/∂W before training")
    left.set_xticks(range(1, measured["depth"] + 2))
    left.set_title("Sigmoid loses the gradient, layer by layer")
    left.legend(loc="lower right")
    for height, text, x in ((LEARNED, "criterion: ReLU", 0.3), (STUCK, "criterion: sigmoid", 12.5)):
        right.axhline(height, color=GREY, linestyle="--")
        right.annotate(text, (x, height + 1), va="bottom", color=GREY)
    right.legend(loc="center right")
    right.set(xlabel="epoch", ylabel="test accuracy (%)", ylim=(0, 104), xlim=(0, 20))
    right.set_xticks(range(0, 21, 5))
    right.set_title("Ten ReLU layers learn, ten sigmoid do not")
    return fig


def _average(norms: list[list[float]]) -> list[float]:
    """Geometric mean over the seeds, layer by layer."""
    return torch.tensor(norms).log().mean(0).exp().tolist()


STUDY = Study(
    id="mlp/deep-sigmoid",
    source="I2DL 07, TUM8",
    claim="With ten hidden layers sigmoid networks do not learn the digits, ReLU networks do: the gradient vanishes.",
    criterion="Adam 1e-3, 20 epochs, mean of 5 seeds: test accuracy of ReLU ≥ 90 %, of sigmoid ≤ 25 %; on every seed, "
    "from the same initial weights, ‖∂L/∂W₁‖ is ≥ 1e4 times smaller for sigmoid.",
    measure=measure,
    holds=holds,
    control={"depth": 1},
    control_note="one hidden layer instead of ten",
    table=table,
    summary=summary,
    figure=figure,
    seeds=SEEDS,
)

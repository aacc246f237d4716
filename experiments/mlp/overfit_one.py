"""Before anything else: can the network learn one sample by heart? And then ten?

"Start with a single sample to check if the model works and overfits (train accuracy should be 100 %). Then increase
to a few samples, then move from overfitting to more samples" (I2DL 06). A network with more weights than samples can
fit them all, so a training loop in order must reach 100 %, and within seconds.

Measured on digits with an MLP of 32 hidden units and Adam: the accuracy on the very samples it is trained on, after
100 steps with all of them in the batch. The figure goes on to 100 samples and to all, where the accuracy on new
images rises.

What the check is worth is shown by planting mistakes. Some are found by one sample already; some only by ten, since a
network without inputs can learn one answer, but not ten; and some by neither: wrong labels are learnt by heart just
as well. It is a smoke test, and why the building blocks here are tested for equality with another implementation.

The control plants the mistake that one sample does not find: the inputs are lost on the way.
"""

from __future__ import annotations

from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from dl_course.data import Digits
from dl_course.mlp import MLP
from experiments.study import Numbers, Study
from experiments.style import BLUE, GREY, ORANGE, panels

SEEDS = range(10)
STEPS, LR, WIDTH = 100, 1e-2, 32
STAGES = (1, 10)
SOUND = "none"
MISTAKES = {
    SOUND: "nothing",
    "uphill": "steps go up the gradient",
    "frozen": "the optimiser updates a copy",
    "inputs lost": "all inputs are 0",
    "pairs torn": "inputs and labels are shuffled apart",
    "not zeroed": "gradients pile up, never zeroed",
    "wrong labels": "every label is off by one",
}


def train(x: Tensor, y: Tensor, seed: int, mistake: str = SOUND, steps: int = STEPS) -> tuple[MLP, list[float], float]:
    """The network after `steps` steps on all of (x, y), its loss before each, its accuracy on what it was given.

    mistake: one of MISTAKES, made on purpose. x (N, 1, 8, 8), y (N,) int64.
    """
    torch.manual_seed(seed)
    net = MLP(64, [WIDTH], 10)
    weights = (
        [p.detach().clone().requires_grad_() for p in net.parameters()] if mistake == "frozen" else net.parameters()
    )
    optimizer = torch.optim.Adam(weights, LR, fused=True)
    generator = torch.Generator().manual_seed(seed)
    x = 0 * x if mistake == "inputs lost" else x
    y = (y + 1) % 10 if mistake == "wrong labels" else y
    losses = []
    for _ in range(steps):
        target = y[torch.randperm(len(y), generator=generator)] if mistake == "pairs torn" else y
        loss = nn.functional.cross_entropy(net(x), target)
        losses.append(loss.item())
        if mistake != "not zeroed":
            net.zero_grad()
        (-loss if mistake == "uphill" else loss).backward()
        optimizer.step()
    return net, losses, accuracy(net, x, y)


@torch.no_grad()
def accuracy(net: MLP, x: Tensor, y: Tensor) -> float:
    return float((net(x).argmax(1) == y).double().mean())


def some(data: Digits, n: int, seed: int) -> tuple[Tensor, Tensor]:
    """n training images drawn by the seed; the first of them are those of a smaller n."""
    x, y = data.tensors("train")
    index = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:n]
    return x[index], y[index]


def measure(quick: bool, mistake: str = SOUND) -> dict[str, Any]:
    seeds = SEEDS[:2] if quick else SEEDS
    data = Digits()
    new = data.tensors("val")

    sizes = [*STAGES, 100, len(data.tensors("train").x)]
    path: list[dict[str, Any]] = []
    found, losses = {mistake: []}, {}
    for n in sizes:
        runs = [train(*some(data, n, seed), seed, mistake) for seed in seeds]
        fitted = [run[2] for run in runs]
        path.append(
            {"n": n, "train": sum(fitted) / len(runs), "val": sum(accuracy(net, *new) for net, *_ in runs) / len(runs)}
        )
        losses[n] = [run[1] for run in runs]
        if n in STAGES:
            found[mistake].append(fitted)
    for made in MISTAKES if mistake == SOUND else ():
        if made != SOUND:
            found[made] = [[train(*some(data, n, seed), seed, made)[2] for seed in seeds] for n in STAGES]
    return {
        "mistake": mistake,
        "accuracy": found[mistake],
        "passed": {name: [sum(acc == 1.0 for acc in stage) for stage in stages] for name, stages in found.items()},
        "seeds": len(seeds),
        "path": path,
        "curves": losses,
    }


def holds(found: Numbers) -> bool:
    return all(acc == 1.0 for stage in found["accuracy"] for acc in stage)


def table(found: Numbers) -> list[list[Any]]:
    n = found["seeds"]
    rows = [
        [MISTAKES[name], *(f"{passed} of {n}" for passed in stages), verdict(stages, n)]
        for name, stages in found["passed"].items()
    ]
    return [["what is wrong", "one sample: 100 %", "ten samples: 100 %", "found by"], *rows]


def verdict(passed: list[int], n: int) -> str:
    """Which check finds a mistake: the first stage in which fewer than half of the n seeds pass."""
    return next((name for name, count in zip(("one sample", "ten"), passed, strict=True) if count < n / 2), "-")


def summary(found: Numbers) -> str:
    one, ten = found["passed"][found["mistake"]]
    val = ", ".join(f"{row['val']:.0%}" for row in found["path"])
    return f"100 % on one sample in {one} of {found['seeds']} seeds, on ten in {ten}; new images {val} as samples grow"


def figure(measured: dict[str, Any]) -> Figure:
    fig, (left, right) = panels(columns=2, size=(12, 5))
    for n, color, label in ((1, BLUE, "one sample"), (10, ORANGE, "ten samples")):
        for i, losses in enumerate(measured["curves"][n]):
            steps = [t for t, loss in enumerate(losses) if loss > 0]  # float32 rounds the loss of a sure answer to 0
            left.plot(
                steps,
                [losses[t] for t in steps],
                color=color,
                linewidth=1.4,
                alpha=0.8,
                label=label if i == 0 else None,
            )
    left.set(yscale="log", xlabel="step", ylabel="training loss (nats)", title="Learnt by heart within 100 steps")
    left.legend(loc="upper right")

    path = measured["path"]
    n = [row["n"] for row in path]
    right.plot(n, [row["train"] for row in path], "o-", color=BLUE, label="the samples trained on")
    right.plot(n, [row["val"] for row in path], "s-", color=ORANGE, label="new images")
    right.axhline(1.0, color=GREY, linestyle="--")
    right.set_xscale("log")
    right.set_xticks(n, [f"{k:,}" for k in n])
    right.minorticks_off()
    right.set(xlabel="training samples", ylabel="accuracy", ylim=(0, 1.06), title="… then more samples, to generalise")
    right.legend(loc="lower right")
    return fig


STUDY = Study(
    id="mlp/overfit-one",
    source="I2DL 06",
    claim="A network in order learns one sample, then ten, by heart: 100 % accuracy on what it was trained on.",
    criterion="Training accuracy is 100 % on one sample and on ten, on each of 10 seeds, after 100 steps.",
    measure=measure,
    holds=holds,
    control={"mistake": "inputs lost"},
    control_note="the inputs are lost on the way (all 0)",
    table=table,
    summary=summary,
    figure=figure,
    seeds=SEEDS,
)

"""The notebooks, written here as text, executed into .ipynb files with their outputs.

    python -m experiments.notebooks.build

Code and words are edited here, never in the .ipynb: what a notebook shows is then always what its code does.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

HOME = Path(__file__).resolve().parent

MLP_DIGITS = """\
# Handwritten digits with a multi-layer perceptron

Everything that `dl-course` does on the command line, from Python: compose a configuration, train, load, look.
Nothing is downloaded; the digits are 8×8 pixels and come with scikit-learn.
---
import dl_course as dl

[experiment.name for experiment in dl.experiments("mlp", "embedded")]
---
## Compose and train

`compose` takes the words that follow `dl-course train experiment=…`. A wrong one is refused with what would be right.
---
config = dl.compose("mlp_digits", ["trainer.max_epochs=12", "callbacks.progress=false"])
config.model
---
from dl_course.errors import ConfigError

for wrong in ("optimizer.lrr=0.1", "optimizer.lr=-1", "model.net.activation=rleu"):
    try:
        dl.train(dl.compose("mlp_digits", [wrong]))
    except ConfigError as error:
        print(error, end="\\n\\n")
---
run = dl.train(config)
{name: round(value, 4) for name, value in run.metrics.items() if "/" in name}
---
## The run folder

It holds the configuration, the best weights, the state to continue from, the metrics and the curves.
---
sorted(path.name.split(".out.")[0] for path in run.path.iterdir())
---
import matplotlib.pyplot as plt
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

events = EventAccumulator(str(run.path)).Reload()
figure, panels = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
for axes, name in zip(panels, ("loss", "accuracy")):
    for stage in ("train", "val"):
        points = events.Scalars(f"{stage}/{name}")
        axes.plot([point.step for point in points], [point.value for point in points], label=stage)
    axes.set_xlabel("step")
    axes.set_title(name)
    axes.legend()
---
## Load it again

`load` gives the trained task in eval mode, from the folder alone; its `net` is the network. The data module knows how
the pixels were normalised.
---
import torch

from dl_course.build import build_data

task = dl.load(run.path)
data = build_data(config)
x, y = data.tensors("test")
with torch.no_grad():
    scores = task.net(x)
accuracy = (scores.argmax(1) == y).float().mean().item()
print(f"test accuracy {accuracy:.4f}, at training time {run.metrics['test/accuracy']:.4f}")
---
Where it is wrong, the worst first:
---
loss = torch.nn.functional.cross_entropy(scores, y, reduction="none")
wrong = (scores.argmax(1) != y).nonzero().flatten()
worst = wrong[loss[wrong].argsort(descending=True)][:8]
pixels = data.raw("test").x

figure, panels = plt.subplots(1, len(worst), figsize=(9, 1.7), layout="constrained", squeeze=False)
for axes, i in zip(panels[0], worst):
    axes.imshow(pixels[i, 0], cmap="gray_r")
    axes.set_title(f"said {scores[i].argmax()}, is {y[i]}", fontsize=9)
    axes.axis("off")
---
## A network without configuration

Every network is a plain module with plain arguments; so are the layers, the losses and the optimisers.
---
from dl_course.losses import cross_entropy
from dl_course.mlp import MLP

torch.manual_seed(0)
net = MLP(in_features=64, hidden=[32], out_features=10, activation="tanh")
optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
for _ in range(10):
    for x, y in data.train_dataloader():
        value = cross_entropy(net(x), y)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()

x, y = data.tensors("test")
with torch.no_grad():
    print(f"test accuracy {(net(x).argmax(1) == y).float().mean():.3f}")
---
## The same from the command

The same configuration gives the same losses, to the last digit, from Python and from the command line.
---
import json
import subprocess
import sys
from pathlib import Path

words = ["-q", "experiment=mlp_digits", "trainer.max_epochs=12", "callbacks.progress=false"]
subprocess.run([sys.executable, "-m", "dl_course", "train", *words], check=True)

newest = max(Path("runs/mlp_digits").iterdir(), key=lambda path: path.stat().st_mtime_ns)
command = json.loads((newest / "metrics.json").read_text())
for name, value in run.metrics.items():
    if "/" in name:
        print(f"{name:<15} {value!r:<22} {'the same' if command[name] == value else f'DIFFERENT: {command[name]!r}'}")
"""

SOURCES = {"mlp_digits": MLP_DIGITS}


def notebook(source: str) -> nbformat.NotebookNode:
    """Text → a notebook: cells stand between lines of three hyphens, and one that begins like prose is Markdown."""
    cells = []
    for number, text in enumerate(source.strip().split("\n---\n")):
        prose = text.startswith(("#", "`")) or text[0].isupper()
        cell = new_markdown_cell(text) if prose else new_code_cell(text)
        cell["id"] = f"cell-{number}"
        cells.append(cell)
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return new_notebook(cells=cells, metadata={"kernelspec": kernel, "language_info": {"name": "python"}})


def execute(book: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Run all cells in a temporary folder. Raises nbclient's CellExecutionError where one fails."""
    with tempfile.TemporaryDirectory() as folder:
        here = str(HOME.parent.parent)
        before = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = os.pathsep.join([here, *([before] if before else [])])
        try:
            NotebookClient(book, timeout=300, resources={"metadata": {"path": folder}}, record_timing=False).execute()
        finally:
            if before is None:
                del os.environ["PYTHONPATH"]
            else:
                os.environ["PYTHONPATH"] = before
    book.metadata["language_info"] = {"name": "python"}
    return book


def main() -> None:
    for name, source in SOURCES.items():
        path = HOME / f"{name}.ipynb"
        nbformat.write(execute(notebook(source)), path)
        print(f"{path.name}: {path.stat().st_size / 1024:.0f} kB")


if __name__ == "__main__":
    main()

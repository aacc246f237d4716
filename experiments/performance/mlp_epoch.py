"""One epoch of the MNIST MLP: the course against a bare loop, and against the usual way with the libraries.

    python -m experiments.performance.mlp_epoch

- course: `dl-course train experiment=mlp_mnist` for one epoch, its Trainer with the default callbacks, curves for
  TensorBoard, validation with accuracy, both checkpoints.
- bare loop: the same network, optimiser, schedule and in-memory loader, and the same validation (loss and accuracy);
  nothing is written.
- usual: torchvision's data set with ToTensor and Normalize in a DataLoader, a LightningModule that logs loss and
  accuracy (torchmetrics) on every step, Lightning's own progress bar, TensorBoard logger and checkpoint.

The network is fixed here, 784–256–128–10 without dropout, so that tuning the experiment changes no measurement. Reading
the files and building the objects is counted for none of the arms.
"""

from __future__ import annotations

import io
import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from omegaconf import DictConfig
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Subset
from torchmetrics.classification import MulticlassAccuracy
from torchvision import datasets, transforms

from dl_course import compose
from dl_course.data import MNIST, DataModule, Split
from dl_course.data.module import data_root
from dl_course.mlp import MLP
from dl_course.training.process import seed_everything, threads
from experiments.performance.loops import bare_arm, course_arm, require_events
from experiments.performance.timing import Row, interleaved, main


class UsualMLP(L.LightningModule):
    """The network as a LightningModule of the kind that tutorials show."""

    def __init__(self, hidden: list[int], lr: float, steps: int) -> None:
        super().__init__()
        self.net = MLP(784, hidden, 10)
        self.lr, self.steps = lr, steps
        self.train_accuracy = MulticlassAccuracy(num_classes=10, average="micro")
        self.val_accuracy = MulticlassAccuracy(num_classes=10, average="micro")

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        logits = self.net(x)
        loss = cross_entropy(logits, y)
        self.train_accuracy(logits, y)
        self.log("train/loss", loss, on_step=True, on_epoch=True, prog_bar=True)
        self.log("train/accuracy", self.train_accuracy, on_step=True, on_epoch=True, prog_bar=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        x, y = batch
        logits = self.net(x)
        self.val_accuracy(logits, y)
        self.log("val/loss", cross_entropy(logits, y), prog_bar=True)
        self.log("val/accuracy", self.val_accuracy, prog_bar=True)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=self.lr)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def usual_arm(config: DictConfig, root: Path, counts: dict[str, int]) -> Iterator[object]:
    """Timed: Lightning's `fit`, everything at its default but the folder. Checked: curves and a checkpoint exist."""
    batch = config.data.batch_size
    steps = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))])
    images = datasets.MNIST(root, train=True, transform=steps)
    train = DataLoader(Subset(images, range(counts["train"])), batch_size=batch, shuffle=True)
    val = DataLoader(Subset(images, range(len(images) - counts["val"], len(images))), batch_size=batch)
    with tempfile.TemporaryDirectory() as folder, threads(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it advises more workers, which are slower here
        torch.use_deterministic_algorithms(False)
        seed_everything(config.seed)
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            task = UsualMLP(list(config.model.net.hidden), config.optimizer.lr, len(train))
            trainer = L.Trainer(
                max_epochs=1,
                accelerator="cpu",
                default_root_dir=folder,
                logger=TensorBoardLogger(folder, name="", version=""),
                callbacks=[TQDMProgressBar(), ModelCheckpoint(monitor="val/loss")],
            )
            yield
            trainer.fit(task, train, val)
            yield
        require_events(Path(folder), {"val/loss", "train/loss_epoch"}, 1)
        assert list(Path(folder).rglob("*.ckpt"))


class Part(MNIST):
    """The first images of each split."""

    most = 512

    def load(self) -> dict[str, Split]:
        return {name: Split(x[: self.most], y[: self.most]) for name, (x, y) in super().load().items()}


def measure(rounds: int = 7, quick: bool = False) -> list[Row]:
    """Two rows: the course against the bare loop, and against the usual way."""
    bare = "one MNIST MLP epoch (784–256–128–10), against a bare PyTorch loop on the same loader"
    usual = "one MNIST MLP epoch (784–256–128–10), against torchvision's DataLoader + Lightning as usually written"
    root = data_root(None)
    if not (root / "MNIST" / "raw").is_dir():
        skipped = "no MNIST in $DL_COURSE_DATA"
        return [Row(what=bare, bar=1.3, skipped=skipped), Row(what=usual, bar=7, kind="times faster", skipped=skipped)]
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    network = ["model.net.hidden=[256,128]", "model.net.dropout=0.0", "data.batch_size=128", "optimizer.lr=0.001"]
    config = compose("mlp_mnist", ["trainer.max_epochs=1", *network])
    data: DataModule = (Part if quick else MNIST)(batch_size=config.data.batch_size)
    data.setup()
    counts = {name: len(data.raw(name).x) for name in ("train", "val")}
    times = interleaved(
        {
            "course": lambda: course_arm(config, data),
            "bare loop": lambda: bare_arm(config, data, cross_entropy, accuracy=True),
            "usual": lambda: usual_arm(config, root, counts),
        },
        rounds,
    )
    course = times["course"]
    return [
        Row(what=bare, ours=course, reference=times["bare loop"], bar=1.3),
        Row(what=usual, ours=course, reference=times["usual"], bar=7, kind="times faster"),
    ]


if __name__ == "__main__":
    main(measure)

"""Views into a run, off by default: histograms, the first batch, the confusion matrix, misclassified samples.

They write into TensorBoard what a scalar cannot say. None draws a random number, runs the network a further time or
touches a weight: with views or without, the same bits are trained.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from dl_course.errors import ConfigError
from dl_course.training.tensorboard import EventLogger, event_writer

TILE = 48  # pixels: the least height of one image in a grid


class View(Callback):
    """What the views share: when to look (in training, every `every` epochs), and hooks that are removed again."""

    def __init__(self, every: int = 1) -> None:
        self.every = every
        self._hooks: list[RemovableHandle] = []

    def looks(self, trainer: Trainer) -> bool:
        """Whether this epoch is one to look at; evaluating a trained model afterwards is none."""
        return (
            trainer.state.fn == "fit"
            and not trainer.sanity_checking
            and (trainer.current_epoch + 1) % self.every == 0
            and isinstance(trainer.logger, EventLogger)
        )

    def unhook(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.unhook()


class Histograms(View):
    """Weights, gradients and activations, one histogram per parameter or layer.

    Gradients are those that the last step of the epoch left behind; activations are the outputs of every layer on the
    first validation batch, which is the same in each epoch. Values that are not finite are left out.
    """

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if batch_idx == 0 and dataloader_idx == 0 and self.looks(trainer):
            for name, module in pl_module.named_modules():
                if not any(module.children()):
                    tag = f"activations/{name}.{type(module).__name__}"
                    self._hooks.append(module.register_forward_hook(self._writing(tag, trainer)))

    def _writing(self, tag: str, trainer: Trainer) -> Any:
        """A hook that writes the first output of a layer; a layer that is called again stays silent."""
        step, silent = trainer.global_step, False

        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            nonlocal silent
            if isinstance(output, Tensor) and not silent:
                add_histogram(event_writer(trainer), tag, output, step)
                silent = True

        return hook

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self.unhook()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.is_last_batch and self.looks(trainer):  # before validation, which frees the gradients
            for name, parameter in pl_module.named_parameters():
                if parameter.grad is not None:
                    add_histogram(event_writer(trainer), f"gradients/{name}", parameter.grad, trainer.global_step)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.looks(trainer):
            for name, parameter in pl_module.named_parameters():
                add_histogram(event_writer(trainer), f"weights/{name}", parameter, trainer.global_step)


def add_histogram(writer: Any, tag: str, values: Tensor, step: int) -> None:
    """Write the histogram of all finite values of a tensor of any shape and type; none if there is no such value."""
    values = values.detach().float()
    values = values[values.isfinite()]
    if writer is not None and values.numel():
        writer.add_histogram(tag, values, step)


class FirstBatch(View):
    """The images of the first training batch as the network sees them: augmented, with the normalisation undone.

    Raises: ConfigError if the inputs are no images.
    """

    most = 64

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        _require_images(trainer, "images")

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        writer = event_writer(trainer)
        if batch_idx == 0 and trainer.global_step == 0 and writer is not None:
            from torchvision.utils import make_grid

            images = enlarged(displayable(batch[0][: self.most], trainer))
            grid = make_grid(images, nrow=math.ceil(math.sqrt(len(images))), padding=4, pad_value=1.0)
            writer.add_image("images/train", grid, trainer.global_step)


def _data(trainer: Trainer) -> Any:
    """The data module of the run, or None where there are bare loaders."""
    return getattr(trainer, "datamodule", None)


def _require_images(trainer: Trainer, knob: str) -> None:
    shape = getattr(_data(trainer), "shape", None)
    if shape is not None and (len(shape) != 3 or shape[0] not in (1, 3)):
        raise ConfigError(
            f"callbacks.{knob}=true: expected images (1, H, W) or (3, H, W), one input of this data is {tuple(shape)}"
        )


def displayable(x: Tensor, trainer: Trainer) -> Tensor:
    """What a network takes (B, C, H, W) → images in [0, 1]: x·std + mean, by what the data module fitted on train."""
    fitted = _data(trainer).state_dict() if _data(trainer) is not None else {}
    x = x.detach().float().cpu()
    if fitted.get("mean") is not None:
        x = x * fitted["std"].float() + fitted["mean"].float()
    return x.clamp(0, 1)


def enlarged(images: Tensor) -> Tensor:
    """Repeat every pixel so often that an image (…, H, W) is at least TILE pixels high; larger ones stay."""
    factor = max(1, math.ceil(TILE / images.shape[-2]))
    return images.repeat_interleave(factor, -2).repeat_interleave(factor, -1)


class Decisions(View):
    """Looks at the predictions that validation makes anyway. A subclass says what to do with them.

    Raises: ConfigError if the task has no network `net`, or if its targets are no classes.
    """

    knob: str  # the key of `callbacks` that switches it on

    def see(self, task: Any, x: Tensor, y: Tensor, prediction: Tensor) -> None:
        """One batch: inputs x (B, …), targets y, what the network said."""
        raise NotImplementedError

    def show(self, trainer: Trainer, names: Sequence[str]) -> Figure | None:
        """The epoch's figure, or None where there is nothing to show."""
        raise NotImplementedError

    def reset(self) -> None:
        """A new epoch begins."""
        raise NotImplementedError

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data = _data(trainer)
        if getattr(data, "class_names", None) == []:
            raise ConfigError(f"callbacks.{self.knob}=true needs classes; {type(data).__name__} has none")
        if not isinstance(getattr(pl_module, "net", None), nn.Module):
            raise ConfigError(f"callbacks.{self.knob}=true needs a task with one network, as Supervised has")

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.reset()
        if self.looks(trainer):
            self._hooks.append(pl_module.net.register_forward_hook(self._keep))  # pyright: ignore

    def _keep(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if not isinstance(output, Tensor):
            raise ConfigError(f"callbacks.{self.knob}=true: expected scores, the network gives {type(output).__name__}")
        self._prediction = output.detach().float()

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self._hooks:
            self.see(pl_module, batch[0], batch[1], self._prediction)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._hooks:
            return
        self.unhook()
        names = list(getattr(_data(trainer), "class_names", []))
        figure = self.show(trainer, names)
        writer = event_writer(trainer)
        if figure is not None and writer is not None:
            writer.add_figure(f"{self.knob}/val", figure, trainer.global_step)


def decisions(prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """(predicted class, true class), both int64 of the shape of the classes.

    prediction (B, C, …) scores with target (B, …) int or (B, C, …) shares; or one logit a sample, (B,) or (B, 1), with
    target (B,) in {0, 1}: class 1 where the logit is positive.
    """
    if prediction.numel() == target.numel() and prediction.shape[1:].numel() == 1:
        return (prediction.reshape(target.shape) > 0).long(), (target > 0.5).long()
    return prediction.argmax(1), target if target.ndim < prediction.ndim else target.argmax(1)


class Confusion(Decisions):
    """The confusion matrix of the validation data: row the true class, column the predicted one, cell the samples.

    Colours show the share of the row, so that classes of different size compare; the diagonal is each class's recall.
    """

    knob = "confusion"

    def reset(self) -> None:
        self._pairs: list[tuple[Tensor, Tensor]] = []

    def see(self, task: Any, x: Tensor, y: Tensor, prediction: Tensor) -> None:
        self._num_classes = max(2, prediction.shape[1] if prediction.ndim > 1 else 1)
        self._pairs.append(decisions(prediction, y))

    def show(self, trainer: Trainer, names: Sequence[str]) -> Figure:
        predicted, true = (torch.cat([part.flatten() for part in parts]) for parts in zip(*self._pairs))
        counts = confusion_matrix(predicted.cpu(), true.cpu(), self._num_classes)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            counts = counts.to(predicted.device)
            torch.distributed.all_reduce(counts)
        self._pairs = []
        fits = len(names) == len(counts)
        return draw_confusion(counts.cpu(), names if fits else [str(i) for i in range(len(counts))])


def confusion_matrix(predicted: Tensor, true: Tensor, num_classes: int) -> Tensor:
    """predicted (N,), true (N,) int64 → (C, C) int64: how many samples of class i were taken for class j."""
    return torch.bincount(true * num_classes + predicted, minlength=num_classes**2).view(num_classes, num_classes)


def draw_confusion(counts: Tensor, names: Sequence[str]) -> Figure:
    """counts (C, C) as a picture; the numbers are written in while they can be read."""
    n = len(counts)
    share = counts / counts.sum(1, keepdim=True).clamp(min=1)
    side = min(12.0, max(3.8, 1.5 + 0.37 * n + 0.06 * max(map(len, names))))
    figure = Figure(figsize=(side, side), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(share.numpy(), cmap="Blues", vmin=0, vmax=1)
    if n <= 20:
        for i, j in counts.nonzero().tolist():
            color = "white" if share[i, j] > 0.6 else "black"
            axes.text(j, i, str(int(counts[i, j])), ha="center", va="center", color=color)
    if n <= 40:
        axes.set_xticks(range(n), names, rotation=45 if max(map(len, names)) > 3 else 0)
        axes.set_yticks(range(n), names)
    right, total = int(counts.diagonal().sum()), int(counts.sum())
    axes.set_title(f"{right} of {total} right ({right / max(1, total):.1%})")
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    return figure


class Misclassified(Decisions):
    """The validation images that were taken for another class, highest loss first.

    With several processes: of the share of the data that the first one has.
    Raises: ConfigError if the inputs are no images.
    """

    knob = "misclassified"
    most = 20

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_fit_start(trainer, pl_module)
        if not callable(getattr(pl_module, "loss", None)):
            raise ConfigError(f"callbacks.{self.knob}=true needs a task with a loss of predictions, as Supervised has")
        _require_images(trainer, self.knob)

    def reset(self) -> None:
        self._worst: list[tuple[float, int, int, Tensor]] = []  # (loss, predicted, true, image)
        self._wrong = self._seen = 0

    def see(self, task: Any, x: Tensor, y: Tensor, prediction: Tensor) -> None:
        predicted, true = decisions(prediction, y)
        wrong = (predicted != true).nonzero().flatten().tolist()
        # The loss of one sample is the mean over a batch of one: the task's own loss, whichever it is.
        losses = {i: float(task.loss(prediction[i : i + 1], y[i : i + 1])) for i in wrong}
        worst = sorted(wrong, key=losses.__getitem__, reverse=True)[: self.most]
        found = [(losses[i], int(predicted[i]), int(true[i]), x[i].detach().cpu()) for i in worst]
        self._worst = sorted(self._worst + found, key=lambda entry: entry[0], reverse=True)[: self.most]
        self._wrong += len(wrong)
        self._seen += len(true)

    def show(self, trainer: Trainer, names: Sequence[str]) -> Figure | None:
        if not self._worst:
            return None
        losses, predicted, true, images = zip(*self._worst)
        self._worst = []
        heading = f"{self._wrong} of {self._seen} wrong, highest loss first"
        titles = [
            f"said {names[p] if names else p}, is {names[t] if names else t}\nloss {loss:.2f}"
            for loss, p, t in zip(losses, predicted, true)
        ]
        return draw_images(displayable(torch.stack(images), trainer), titles, heading)


def draw_images(images: Tensor, titles: Sequence[str], heading: str) -> Figure:
    """images (N, C, H, W) in [0, 1], five in a row, each under its title."""
    columns = min(5, len(images))
    rows = math.ceil(len(images) / columns)
    width, height = max(3.6, 1.5 * columns), 0.4 + 1.9 * rows
    figure = Figure(figsize=(width, height), dpi=90)
    figure.suptitle(heading, y=1 - 0.12 / height, va="top")
    # "constrained" layout would take longer than an epoch of a small model
    figure.subplots_adjust(left=0.02, right=0.98, bottom=0.02, top=1 - 0.85 / height, wspace=0.1, hspace=0.42)
    for axes in (grid := figure.subplots(rows, columns, squeeze=False)).flat:
        axes.axis("off")
    for axes, image, title in zip(grid.flat, images, titles):
        picture = image[0] if len(image) == 1 else image.permute(1, 2, 0)
        axes.imshow(picture.numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axes.set_title(title, fontsize=10)
    return figure

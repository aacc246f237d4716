"""Views write what they say, into the event file, and change nothing of the training."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import confusion_matrix as reference_matrix
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from dl_course.data import Augment, CarPrices, Digits
from dl_course.errors import ConfigError
from dl_course.training import Supervised, build_callbacks, build_logger, build_trainer
from dl_course.training.checkpoints import random_state
from dl_course.training.views import Confusion, Histograms, Misclassified, confusion_matrix, decisions, enlarged

ALL: dict[str, Any] = {"histograms": True, "images": True, "confusion": True, "misclassified": True}


def small_task() -> Any:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 17), nn.BatchNorm1d(17), nn.ReLU(), nn.Dropout(), nn.Linear(17, 10))
    return Supervised(net, "cross_entropy", ["accuracy"])


def fit(folder: Path, task: Any = None, data: Any = None, epochs: int = 2, **knobs: Any) -> tuple[Any, Any, Any]:
    callbacks = build_callbacks(folder=folder, config={}, progress=False, **knobs)
    trainer = build_trainer(
        max_epochs=epochs, accelerator="cpu", callbacks=callbacks, logger=build_logger(folder=folder), folder=folder
    )
    task = task or small_task()
    trainer.fit(task, datamodule=data or Digits(batch_size=101))
    events = EventAccumulator(str(folder), size_guidance={"images": 0, "histograms": 0})
    events.Reload()
    return trainer, task, events


@pytest.fixture(scope="module")
def viewed(tmp_path_factory: pytest.TempPathFactory):
    return fit(tmp_path_factory.mktemp("viewed"), **ALL)


def pixels(events: EventAccumulator, tag: str, at: int = -1) -> np.ndarray:
    """(H, W, 3) uint8 of an image summary."""
    return np.asarray(Image.open(io.BytesIO(events.Images(tag)[at].encoded_image_string)).convert("RGB"))


def test_nothing_is_written_by_default(tmp_path: Path):
    _, _, events = fit(tmp_path, epochs=1)
    assert events.Tags()["images"] == []
    assert events.Tags()["histograms"] == []
    assert "train/loss" in events.Tags()["scalars"]


def test_training_with_all_views_is_the_same_to_the_bit(tmp_path: Path, viewed):
    _, plain, _ = fit(tmp_path)
    after_plain = random_state()
    _, task, _ = fit(tmp_path / "views", **ALL)
    after_views = random_state()
    for (name, with_views), without in zip(task.state_dict().items(), plain.state_dict().values()):
        assert torch.equal(with_views, without), name
    assert task.results == plain.results
    assert torch.equal(after_plain["torch"], after_views["torch"])
    assert torch.equal(after_plain["numpy"][1], after_views["numpy"][1])
    assert after_plain["python"] == after_views["python"]


def test_hooks_are_removed(viewed):
    _, task, _ = viewed
    assert all(not module._forward_hooks for module in task.modules())


def test_histograms_of_every_parameter_and_layer_each_epoch(viewed):
    trainer, task, events = viewed
    tags = set(events.Tags()["histograms"])
    parameters = dict(task.named_parameters())
    assert {f"weights/{name}" for name in parameters} <= tags
    assert {f"gradients/{name}" for name in parameters} <= tags
    assert {tag for tag in tags if tag.startswith("activations/")} == {
        f"activations/net.{i}.{type(layer).__name__}" for i, layer in enumerate(task.net)
    }
    steps = trainer.global_step
    assert [event.step for event in events.Histograms("weights/net.1.weight")] == [steps // 2, steps]
    assert [event.step for event in events.Histograms("activations/net.3.ReLU")] == [steps // 2, steps]


def test_histograms_hold_the_values(tmp_path: Path):
    last_gradient = torch.zeros(())

    class Kept(Supervised):
        def on_before_optimizer_step(self, optimizer: Any) -> None:
            nonlocal last_gradient
            last_gradient = self.get_parameter("net.1.weight").grad.clone()  # pyright: ignore

    trainer, task, events = fit(tmp_path, Kept(small_task().net, "cross_entropy"), histograms=True)
    weights = task.net[1].weight.detach()
    last = events.Histograms("weights/net.1.weight")[-1].histogram_value
    assert (last.num, last.min, last.max) == pytest.approx(
        (weights.numel(), float(weights.min()), float(weights.max()))
    )
    last = events.Histograms("gradients/net.1.weight")[-1].histogram_value
    assert last.sum_squares == pytest.approx(float(last_gradient.double().square().sum()), rel=1e-5)
    x, _ = next(iter(trainer.datamodule.val_dataloader()))
    with torch.no_grad():
        hidden = task.net[:4].eval()(x)
    last = events.Histograms("activations/net.3.ReLU")[-1].histogram_value
    assert (last.num, last.sum) == pytest.approx((hidden.numel(), float(hidden.sum())), rel=1e-4)


def test_views_every_second_epoch(tmp_path: Path):
    trainer, _, events = fit(tmp_path, epochs=5, histograms=True, confusion=True, views_every=2)
    per_epoch = trainer.global_step // 5
    expected = [2 * per_epoch, 4 * per_epoch]
    for tag in ("weights/net.1.bias", "activations/net.1.Linear"):
        assert [event.step for event in events.Histograms(tag)] == expected
    assert [event.step for event in events.Images("confusion/val")] == expected


def test_testing_afterwards_writes_no_view(tmp_path: Path):
    trainer, task, _ = fit(tmp_path, epochs=1, **ALL)
    data = trainer.datamodule
    trainer.validate(task, dataloaders=data.val_dataloader(), verbose=False)
    trainer.test(task, dataloaders=data.test_dataloader(), verbose=False)
    events = EventAccumulator(str(tmp_path), size_guidance={"images": 0, "histograms": 0}).Reload()
    assert len(events.Images("confusion/val")) == 1
    assert len(events.Histograms("activations/net.1.Linear")) == 1


@pytest.mark.parametrize("normalize", ["channel", "pixel", "none"])
def test_images_are_the_first_batch_unnormalised(tmp_path: Path, normalize: Any):
    data = Digits(batch_size=4, normalize=normalize, augment=Augment(translate=1))
    _, _, events = fit(tmp_path, data=data, epochs=1, images=True)
    shown = pixels(events, "images/train")
    assert len(events.Images("images/train")) == 1
    plain = Digits(batch_size=4, normalize="none", augment=Augment(translate=1))
    plain.setup()
    x, _ = next(iter(plain.train_dataloader()))
    assert shown.shape == (2 * 52 + 4, 2 * 52 + 4, 3)
    first = torch.from_numpy(shown[4:52, 4:52, 0].copy()).float() / 255
    torch.testing.assert_close(first, enlarged(x[0, 0]), atol=1 / 254, rtol=0)


def test_a_view_of_images_refuses_a_table(tmp_path: Path):
    task = Supervised(nn.Linear(2, 1), "mse")
    for knob, message in (("images", "expected images"), ("confusion", "CarPrices has none")):
        with pytest.raises(ConfigError, match=message):
            fit(tmp_path, task, CarPrices(), 1, **{knob: True})


def test_confusion_matrix_equals_scikit_learn():
    generator = torch.Generator().manual_seed(3)
    true, predicted = torch.randint(0, 7, (2, 101), generator=generator)
    assert confusion_matrix(predicted, true, 7).tolist() == reference_matrix(true, predicted, labels=range(7)).tolist()


@pytest.mark.parametrize("prediction_shape", [(13,), (13, 1)])
def test_decisions_of_one_logit(prediction_shape: tuple[int, ...]):
    logits = torch.randn(13)
    predicted, true = decisions(logits.reshape(prediction_shape), torch.tensor([0.0, 1.0] * 6 + [1.0]))
    assert predicted.tolist() == (logits > 0).long().tolist()
    assert true.tolist() == [0, 1] * 6 + [1]


def test_decisions_of_scores():
    scores, classes = torch.randn(13, 5), torch.randint(0, 5, (13,))
    predicted, true = decisions(scores, classes)
    assert torch.equal(predicted, scores.argmax(1))
    assert torch.equal(true, classes)
    shares = nn.functional.one_hot(classes, 5).float()
    assert torch.equal(decisions(scores, shares)[1], classes)
    pixelwise = torch.randn(3, 5, 7, 11)
    assert decisions(pixelwise, torch.zeros(3, 7, 11, dtype=torch.int64))[0].shape == (3, 7, 11)


class Recorded(Confusion):
    def show(self, trainer, names):
        predicted, true = (torch.cat(parts) for parts in zip(*self._pairs))
        self.counts, self.names = confusion_matrix(predicted, true, self._num_classes), names
        return super().show(trainer, names)


def test_confusion_counts_the_validation_data(tmp_path: Path):
    view = Recorded()
    trainer = build_trainer(
        max_epochs=2, accelerator="cpu", callbacks=[view], logger=build_logger(folder=tmp_path), folder=tmp_path
    )
    task, data = small_task(), Digits(batch_size=101)
    trainer.fit(task, datamodule=data)
    x, y = data.tensors("val")
    with torch.no_grad():
        predicted = task.eval()(x).argmax(1)
    assert view.counts.tolist() == reference_matrix(y, predicted, labels=range(10)).tolist()
    assert view.names == [str(i) for i in range(10)]
    picture = pixels(EventAccumulator(str(tmp_path), size_guidance={"images": 0}).Reload(), "confusion/val")
    assert min(picture.shape[:2]) > 300
    assert picture.std() > 10  # not blank


def test_misclassified_are_the_wrong_ones_with_the_highest_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    drawn: list[tuple[Any, ...]] = []
    original = Misclassified.show

    def show(self, trainer, names):
        drawn.append((list(self._worst), self._wrong, self._seen))
        return original(self, trainer, names)

    monkeypatch.setattr(Misclassified, "show", show)
    trainer, task, events = fit(tmp_path, data=Digits(batch_size=53), misclassified=True)
    worst, wrong, seen = drawn[-1]
    x, y = trainer.datamodule.tensors("val")
    with torch.no_grad():
        logits = task.eval()(x)
    losses = nn.functional.cross_entropy(logits, y, reduction="none")
    losses[logits.argmax(1) == y] = -1
    order = losses.argsort(descending=True)[: Misclassified.most]
    assert (wrong, seen) == (int((losses >= 0).sum()), len(y))
    assert [loss for loss, *_ in worst] == pytest.approx(losses[order].tolist(), rel=1e-4)
    assert [true for _, _, true, _ in worst] == y[order].tolist()
    assert [predicted for _, predicted, _, _ in worst] == logits.argmax(1)[order].tolist()
    torch.testing.assert_close(torch.stack([image for *_, image in worst]), x[order])
    assert len(events.Images("misclassified/val")) == 2


def test_no_figure_where_all_is_right():
    view = Misclassified()
    view.reset()
    task = Supervised(nn.Identity())
    y = torch.arange(3)
    view.see(task, torch.zeros(3, 1, 8, 8), y, 9 * torch.eye(3))
    assert view.show(None, []) is None  # pyright: ignore[reportArgumentType]


def test_views_need_an_event_file(tmp_path: Path):
    callbacks = build_callbacks(folder=tmp_path, config={}, progress=False, **ALL)
    trainer = build_trainer(max_epochs=1, accelerator="cpu", callbacks=callbacks, folder=tmp_path)
    trainer.fit(small_task(), datamodule=Digits(batch_size=101))
    assert not list(tmp_path.glob("events*"))


def test_hooks_are_removed_when_training_fails(tmp_path: Path):
    class Broken(Supervised):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.step(batch)
            raise RuntimeError("broken")

    task = Broken(small_task().net, "cross_entropy")
    with pytest.raises(RuntimeError, match="broken"):
        fit(tmp_path, task, histograms=True, confusion=True)
    assert all(not module._forward_hooks for module in task.modules())


def test_values_that_are_not_finite_are_left_out(tmp_path: Path):
    from torch.utils.tensorboard import SummaryWriter

    from dl_course.training.views import add_histogram

    with SummaryWriter(str(tmp_path)) as writer:
        add_histogram(writer, "some", torch.tensor([1.0, torch.nan, torch.inf, 3.0]).bfloat16(), 1)
        add_histogram(writer, "none", torch.tensor([torch.nan]), 1)
    events = EventAccumulator(str(tmp_path)).Reload()
    assert events.Tags()["histograms"] == ["some"]
    assert events.Histograms("some")[0].histogram_value.num == 2
    assert Histograms().every == 1

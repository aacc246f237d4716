"""What the engine promises about one run, on a problem small enough to compute by hand."""

from __future__ import annotations

import logging
import warnings
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dl_course.data import BatchLoader
from dl_course.errors import ConfigError, RunError
from dl_course.training import Regularization, Supervised, Task, build_callbacks, build_logger, build_trainer


def loaders(n: int = 103, batch: int = 17):
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(n, 5, generator=generator), torch.randint(0, 3, (n,), generator=generator)
    return BatchLoader((x, y), batch, shuffle=True), BatchLoader((x, y), batch, shuffle=False)


def fit(task: Task, folder, epochs: int = 2, **trainer_options):
    train, val = loaders()
    callbacks = build_callbacks(folder=str(folder), config={}, progress=False)
    trainer = build_trainer(
        max_epochs=epochs, accelerator="cpu", callbacks=callbacks, logger=build_logger(folder=str(folder)),
        folder=str(folder), **trainer_options,
    )  # fmt: skip
    trainer.fit(task, train, val)
    return trainer


@pytest.mark.parametrize(
    ("l1", "l2", "clip", "tolerance"), [(0.0, 0.0, None, 0.0), (0.02, 0.03, None, 1e-6), (0.0, 0.0, 0.1, 1e-6)]
)
def test_training_equals_a_plain_pytorch_loop(l1, l2, clip, tolerance, tmp_path):
    torch.manual_seed(3)
    net = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))
    reference = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))
    reference.load_state_dict(net.state_dict())
    optimizer = partial(torch.optim.SGD, lr=0.1)
    task = Supervised(net, metrics=["accuracy"], optimizer=optimizer, regularization=Regularization(l1, l2))
    fit(task, tmp_path, epochs=3, gradient_clip_val=clip)

    optimizer = torch.optim.SGD(reference.parameters(), lr=0.1)
    train, val = loaders()
    for epoch in range(3):
        train.set_epoch(epoch)
        for x, y in train:
            optimizer.zero_grad()
            weights = torch.cat([p.flatten() for p in reference.parameters() if p.ndim == 2])
            penalty = l1 * weights.abs().sum() + 0.5 * l2 * weights.square().sum()
            (F.cross_entropy(reference(x), y) + penalty).backward()
            if clip is not None:
                assert torch.nn.utils.clip_grad_norm_(reference.parameters(), clip) > clip
            optimizer.step()
    for ours, theirs in zip(net.parameters(), reference.parameters()):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance)
    x, y = val._dataset.tensors
    with torch.no_grad():
        assert task.results["val/loss"] == pytest.approx(F.cross_entropy(reference(x), y).item(), rel=1e-6)
        assert task.results["val/accuracy"] == pytest.approx((reference(x).argmax(-1) == y).float().mean().item())


def test_penalties_are_no_part_of_the_reported_loss(tmp_path):
    def trained(l1, l2):
        torch.manual_seed(3)
        task = Supervised(
            nn.Linear(5, 3), optimizer=partial(torch.optim.SGD, lr=0.0), regularization=Regularization(l1, l2)
        )
        fit(task, tmp_path / f"{l1}-{l2}", epochs=1)
        return task

    plain, penalised = trained(0.0, 0.0), trained(0.3, 0.7)
    assert plain.results["train/loss"] == penalised.results["train/loss"]
    weight = penalised.net.get_parameter("weight")
    penalty = penalised.regularization.penalty(penalised.net)
    assert penalty is not None
    expected = 0.3 * weight.abs().sum() + 0.5 * 0.7 * weight.square().sum()
    assert torch.allclose(penalty, expected)
    assert plain.regularization.penalty(plain.net) is None


def test_scheduler_steps_once_per_optimiser_step(tmp_path):
    seen = []

    def schedule(optimizer, total_steps, steps_per_epoch):
        seen.append((total_steps, steps_per_epoch))
        return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / total_steps)

    task = Supervised(nn.Linear(5, 3), optimizer=partial(torch.optim.SGD, lr=1.0), scheduler=schedule)
    trainer = fit(task, tmp_path, epochs=2)
    assert seen == [(14, 7)]
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.0)


def test_a_loss_that_is_not_finite_stops_within_the_step_and_overwrites_nothing(tmp_path):
    class Poisoned(Supervised):
        def step(self, batch):
            values = super().step(batch)
            if self.global_step == 10:
                values["loss"] = values["loss"] * float("nan")
            return values

    task = Poisoned(nn.Linear(5, 3))
    with pytest.raises(RunError, match=r"step 10: train/loss is nan; lower optimizer.lr"):
        fit(task, tmp_path, epochs=3)
    assert task.global_step == 10
    assert not list(tmp_path.glob("*.ckpt"))


def test_a_metric_that_is_not_finite_stops_too(tmp_path):
    class Infinite(Supervised):
        def step(self, batch):
            return super().step(batch) | {"accuracy": torch.tensor(float("inf"))}

    with pytest.raises(RunError, match="val/accuracy is inf"):
        fit(Infinite(nn.Linear(5, 3)), tmp_path)


def test_monitoring_what_is_not_computed_is_an_error_that_lists_what_is(tmp_path):
    train, val = loaders()
    callbacks = build_callbacks(folder=str(tmp_path), config={}, progress=False, monitor="val/r2")
    trainer = build_trainer(max_epochs=1, accelerator="cpu", callbacks=callbacks, folder=str(tmp_path))
    with pytest.raises(ConfigError, match=r"val/r2 was not computed\navailable: last, val/loss"):
        trainer.fit(Supervised(nn.Linear(5, 3)), train, val)


def test_a_validation_that_would_never_come_is_refused():
    with pytest.raises(ValueError, match="check_val_every_n_epoch=3 is never reached: max_epochs=2"):
        build_trainer(max_epochs=2, check_val_every_n_epoch=3, accelerator="cpu")


def test_early_stopping_ends_a_run_that_no_longer_improves(tmp_path):
    train, val = loaders()
    callbacks = build_callbacks(folder=str(tmp_path), config={}, progress=False, early_stopping=2)
    trainer = build_trainer(max_epochs=50, accelerator="cpu", callbacks=callbacks, folder=str(tmp_path))
    trainer.fit(Supervised(nn.Linear(5, 3), optimizer=partial(torch.optim.SGD, lr=0.0)), train, val)
    assert trainer.current_epoch == 3


def test_a_run_with_nothing_wrong_says_nothing(tmp_path, capsys, caplog):
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        warnings.simplefilter("error")
        fit(Supervised(nn.Linear(5, 3), metrics=["accuracy"]), tmp_path)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == ""
    assert caplog.records == []


def test_torch_and_scratch_losses_train_alike(tmp_path):
    results = []
    for impl in ("torch", "scratch"):
        torch.manual_seed(5)
        task = Supervised(nn.Linear(5, 3), impl=impl, optimizer=partial(torch.optim.SGD, lr=0.1))
        fit(task, tmp_path / impl)
        results.append(task.results["val/loss"])
    assert results[0] == pytest.approx(results[1], rel=1e-6)

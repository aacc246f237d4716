"""The moving average of the weights equals torch's, is what validation sees, and leaves training alone."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from dl_course.data import BatchLoader
from dl_course.training import Regularization, Supervised, build_callbacks, build_trainer, load_checkpoint
from dl_course.training.ema import EMA


def test_the_average_equals_torchs():
    net, ema = nn.Linear(5, 3), EMA(0.9)
    reference = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    reference.update_parameters(net)  # the first one copies
    ema.average = {name: p.detach().clone() for name, p in net.named_parameters()}
    ema.step = 10_000  # the warm-up is over
    for _ in range(31):
        with torch.no_grad():
            for p in net.parameters():
                p.add_(torch.randn_like(p))
        ema.update(net)
        reference.update_parameters(net)
    for ours, theirs in zip(ema.average.values(), reference.module.parameters()):
        torch.testing.assert_close(ours, theirs.detach(), rtol=1e-5, atol=1e-6)


def test_the_warm_up_by_hand():
    """Decays of the first steps are 2/11 and 3/12, below d = 0.9."""
    weight, ema = nn.Linear(1, 1, bias=False), EMA(0.9)
    ema.average = {"weight": torch.tensor([[12.0]])}
    for step, value in ((1, 1.0), (2, 5.0)):
        nn.init.constant_(weight.weight, value)
        ema.step = step
        ema.update(weight)
    first = 2 / 11 * 12.0 + 9 / 11 * 1.0
    assert ema.average["weight"].item() == pytest.approx(0.25 * first + 0.75 * 5.0)


def trained(folder, decay):
    folder.mkdir()
    torch.manual_seed(1)
    generator = torch.Generator().manual_seed(2)
    x, y = torch.randn(103, 5, generator=generator), torch.randint(0, 3, (103,), generator=generator)
    task = Supervised(
        nn.Linear(5, 3), optimizer=partial(torch.optim.SGD, lr=0.5), regularization=Regularization(ema=decay)
    )
    callbacks = build_callbacks(folder=str(folder), config={}, progress=False, monitor="last")
    trainer = build_trainer(max_epochs=3, accelerator="cpu", callbacks=callbacks, folder=str(folder))
    trainer.fit(task, BatchLoader((x, y), 17, shuffle=True), BatchLoader((x, y), 103, shuffle=False))
    return task, (x, y)


def test_training_is_untouched_and_validation_and_best_are_the_average(tmp_path):
    plain, (x, y) = trained(tmp_path / "plain", None)
    averaged, _ = trained(tmp_path / "ema", 0.97)
    for ours, theirs in zip(averaged.parameters(), plain.parameters()):
        assert torch.equal(ours, theirs)
    best = load_checkpoint(tmp_path / "ema" / "best.ckpt")["state_dict"]
    resume = load_checkpoint(tmp_path / "ema" / "resume.ckpt")["state_dict"]
    assert torch.equal(resume["net.weight"], averaged.net.get_parameter("weight"))
    assert not torch.equal(best["net.weight"], resume["net.weight"])
    with torch.no_grad():
        expected = nn.functional.cross_entropy(x @ best["net.weight"].T + best["net.bias"], y)
    assert averaged.results["val/loss"] == pytest.approx(expected.item(), rel=1e-6)
    assert averaged.results["val/loss"] != plain.results["val/loss"]


def test_decay_zero_is_no_average(tmp_path):
    plain, _ = trained(tmp_path / "plain", None)
    zero, _ = trained(tmp_path / "zero", 0.0)
    assert zero.results["val/loss"] == pytest.approx(plain.results["val/loss"], rel=1e-6)

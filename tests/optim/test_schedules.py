"""Each schedule against torch's own scheduler, or its formula where torch has none."""

import inspect
import math

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn
from torch.optim import lr_scheduler as theirs

from dl_course import optim
from dl_course.catalog import CONFIGS

TOTAL, PER_EPOCH, RATE = 59, 7, 0.3


def new_optimizer(lr=RATE):
    return torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=lr, momentum=0.9)


def rates(make, steps=TOTAL):
    """The learning rate of each step 0 … steps − 1."""
    optimizer = new_optimizer()
    scheduler = make(optimizer)
    seen = []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return torch.tensor(seen, dtype=torch.float64)


def ours(factory, steps=TOTAL, **arguments):
    return rates(lambda o: factory(o, total_steps=TOTAL, steps_per_epoch=PER_EPOCH, **arguments), steps)


@pytest.mark.parametrize(
    ("factory", "arguments", "reference"),
    [
        (optim.cosine, {"final": 0.1}, lambda o: theirs.CosineAnnealingLR(o, TOTAL, eta_min=0.1 * RATE)),
        (optim.linear, {"decay": 1.0, "final": 0.2}, lambda o: theirs.LinearLR(o, 1.0, 0.2, total_iters=TOTAL)),
        (optim.linear, {"decay": 0.5}, lambda o: theirs.LinearLR(o, 1.0, 0.0, total_iters=round(0.5 * TOTAL))),
        (optim.step, {"epochs": 3, "gamma": 0.5}, lambda o: theirs.StepLR(o, 3 * PER_EPOCH, 0.5)),
        (optim.exponential, {"gamma": 0.9}, lambda o: theirs.ExponentialLR(o, 0.9 ** (1 / PER_EPOCH))),
        (
            optim.onecycle,
            {"warmup": 0.3, "start_div": 25.0, "final_div": 100.0},
            lambda o: theirs.OneCycleLR(o, RATE, TOTAL, pct_start=0.3, div_factor=25, final_div_factor=100),
        ),
        (
            optim.warmup,
            {"warmup": 0.2},
            lambda o: theirs.LinearLR(o, 1 / (round(0.2 * TOTAL) + 1), 1.0, total_iters=round(0.2 * TOTAL)),
        ),
    ],
)
def test_the_schedule_equals_torchs(factory, arguments, reference):
    torch.testing.assert_close(ours(factory, **arguments), rates(reference), rtol=1e-9, atol=1e-12)


def test_cosine_after_its_warm_up_is_torchs_sequence():
    rise = round(0.25 * TOTAL)

    def reference(optimizer):
        up = theirs.LinearLR(optimizer, 1 / (rise + 1), rise / (rise + 1), total_iters=rise - 1)
        down = theirs.CosineAnnealingLR(optimizer, TOTAL - rise)
        return theirs.SequentialLR(optimizer, [up, down], [rise])

    torch.testing.assert_close(ours(optim.cosine, warmup=0.25), rates(reference), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("factory", [optim.cosine, optim.linear, optim.onecycle, optim.warmup])
def test_the_end_is_reached_and_kept_beyond(factory):
    """Training longer than planned, after a resume with more epochs, goes on at the last rate."""
    longer = ours(factory, steps=TOTAL + 11)
    assert longer[TOTAL:].unique().numel() == 1
    last = {"cosine": 0.0, "linear": 0.0, "onecycle": RATE / 25 / 1e4, "warmup": RATE}[factory.__name__]
    assert math.isclose(longer[-1], last, abs_tol=1e-12)


@pytest.mark.parametrize("factory", [optim.cosine, optim.linear, optim.onecycle, optim.warmup, optim.step])
def test_the_largest_rate_is_the_optimisers_own(factory):
    assert ours(factory).max() == pytest.approx(RATE, rel=2e-4)  # one cycle peaks between two steps


@pytest.mark.parametrize("factory", [optim.cosine, optim.linear, optim.onecycle, optim.warmup, optim.step])
def test_one_step_of_training_is_enough(factory):
    optimizer = new_optimizer()
    scheduler = factory(optimizer, total_steps=1, steps_per_epoch=1)
    assert math.isfinite(optimizer.param_groups[0]["lr"])
    optimizer.step()
    scheduler.step()
    assert math.isfinite(optimizer.param_groups[0]["lr"])


def test_resuming_continues_the_curve(tmp_path):
    whole = ours(optim.cosine, warmup=0.2)
    optimizer = new_optimizer()
    scheduler = optim.cosine(optimizer, TOTAL, PER_EPOCH, warmup=0.2)
    for _ in range(23):
        optimizer.step()
        scheduler.step()
    torch.save([optimizer.state_dict(), scheduler.state_dict()], tmp_path / "state.pt")
    states = torch.load(tmp_path / "state.pt", weights_only=True)
    optimizer = new_optimizer()
    scheduler = optim.cosine(optimizer, TOTAL, PER_EPOCH, warmup=0.2)
    optimizer.load_state_dict(states[0])
    scheduler.load_state_dict(states[1])
    assert optimizer.param_groups[0]["lr"] == whole[23]
    optimizer.step()
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] == whole[24]


@pytest.mark.parametrize("path", sorted((CONFIGS / "scheduler").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_yaml_names_every_knob_and_agrees_with_the_defaults(path):
    node = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(node, dict)
    if path.stem == "none":
        assert node == {"scheduler": None}
        return
    factory = getattr(optim, path.stem)
    assert (node.pop("_target_"), node.pop("_partial_")) == (f"dl_course.optim.{path.stem}", True)
    parameters = inspect.signature(factory).parameters.values()
    assert node == {p.name: p.default for p in parameters if p.default is not p.empty}


def test_a_warm_up_over_a_run_of_one_step_leaves_that_step_its_rate():
    seen = rates(lambda o: optim.cosine(o, total_steps=1, steps_per_epoch=1, warmup=0.98), steps=2)
    assert seen.tolist() == [RATE, 0]

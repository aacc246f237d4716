"""Each factory is torch's optimiser, with ranges: the same trajectory, forward and back, on every dtype."""

import copy
import inspect
from functools import partial
from typing import get_type_hints

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from dl_course import optim
from dl_course.catalog import CONFIGS
from dl_course.optim.factories import fusible

TWINS = [
    (optim.sgd, torch.optim.SGD, {"lr": 0.05}),
    (optim.sgd, torch.optim.SGD, {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.01}),
    (optim.sgd, torch.optim.SGD, {"lr": 0.05, "momentum": 0.9, "nesterov": True}),
    (optim.adam, torch.optim.Adam, {"lr": 0.01, "betas": (0.8, 0.99), "eps": 1e-6, "weight_decay": 0.1}),
    (optim.adam, torch.optim.Adam, {"lr": 0.01, "amsgrad": True}),
    (optim.adamw, torch.optim.AdamW, {"lr": 0.01, "weight_decay": 0.1}),
    (optim.rmsprop, torch.optim.RMSprop, {"lr": 0.01, "alpha": 0.9, "momentum": 0.5, "centered": True}),
    (optim.adagrad, torch.optim.Adagrad, {"lr": 0.1, "lr_decay": 0.01, "weight_decay": 0.1}),
]


def trajectory(make, dtype=torch.float64, steps=13):
    """Weights after some steps of a small regression with a closure, as Lightning calls an optimiser."""
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(11, 5, generator=generator, dtype=torch.float64).to(dtype)
    y = torch.randn(11, 3, generator=generator, dtype=torch.float64).to(dtype)
    net = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3)).to(dtype)
    for parameter in net.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(dtype)
    optimizer = make(net.parameters())

    def closure():
        optimizer.zero_grad()
        loss = (net(x) - y).square().mean()
        loss.backward()
        return loss

    for _ in range(steps):
        optimizer.step(closure)
    return torch.cat([p.detach().flatten() for p in net.parameters()])


@pytest.mark.parametrize(("factory", "twin", "arguments"), TWINS)
def test_the_factory_takes_the_steps_of_torchs_plain_optimiser(factory, twin, arguments):
    ours = trajectory(partial(factory, **arguments))
    reference = trajectory(
        lambda params: (
            twin(params, foreach=False, fused=None, **arguments)
            if twin is not torch.optim.RMSprop
            else twin(params, foreach=False, **arguments)
        )
    )
    torch.testing.assert_close(ours, reference, rtol=1e-10, atol=1e-10)
    start = trajectory(partial(factory, **arguments), steps=0)
    assert (ours - start).abs().max() > 1e-3


def test_lbfgs_takes_torchs_steps_and_finds_a_minimum_that_gradient_descent_has_not_reached():
    ours = trajectory(optim.lbfgs, steps=3)
    reference = trajectory(
        lambda params: torch.optim.LBFGS(
            params,
            lr=1.0,
            max_iter=20,
            history_size=10,
            tolerance_grad=1e-7,
            tolerance_change=1e-9,
            line_search_fn="strong_wolfe",
        ),
        steps=3,
    )
    torch.testing.assert_close(ours, reference, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("factory", [optim.sgd, optim.adam, optim.adamw, optim.adagrad])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.complex64])
def test_every_dtype_takes_a_step_fused_or_not(factory, dtype):
    parameter = nn.Parameter(torch.ones(3, 5, dtype=dtype))
    parameter.grad = torch.ones_like(parameter)
    optimizer = factory([parameter], lr=0.125)
    assert optimizer.param_groups[0]["fused"] is (True if dtype.is_floating_point else None)
    optimizer.step()
    assert (parameter.detach() != 1).all()


def test_parameters_groups_and_names_are_all_understood():
    a, b = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3))
    for params in (
        [a, b],
        iter([a, b]),
        [{"params": (p for p in [a])}, {"params": b, "lr": 0.5}],
        [("a", a), ("b", b)],
    ):
        optimizer = optim.adam(params)
        found = [p for group in optimizer.param_groups for p in group["params"]]
        assert len(found) == 2
        assert found[0] is a
        assert found[1] is b
    assert fusible([]) is None
    assert fusible([nn.Parameter(torch.ones(2, device="meta"))]) is None


def test_l2_decay_and_decoupled_decay_differ_in_adam_and_agree_in_plain_sgd():
    """adam's decay goes through the adaptive step, adamw's does not: at zero gradient θ shrinks by just ελθ."""
    shrunk = {}
    for factory in (optim.adam, optim.adamw, optim.sgd):
        parameter = nn.Parameter(torch.tensor([2.0, 0.5], dtype=torch.float64))
        parameter.grad = torch.zeros_like(parameter)
        factory([parameter], lr=0.1, weight_decay=0.3).step()
        shrunk[factory.__name__] = parameter.detach() / torch.tensor([2.0, 0.5], dtype=torch.float64)
    expected = torch.full((2,), 1 - 0.1 * 0.3, dtype=torch.float64)
    torch.testing.assert_close(shrunk["adamw"], expected)
    torch.testing.assert_close(shrunk["sgd"], expected)
    assert (shrunk["adam"] - expected).abs().min() > 0.01


def test_nesterov_without_momentum_is_refused_with_both_values():
    with pytest.raises(ValueError, match="nesterov=True needs momentum > 0, got momentum=0"):
        optim.sgd([nn.Parameter(torch.ones(1))], nesterov=True)


@pytest.mark.parametrize("path", sorted((CONFIGS / "optimizer").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_yaml_names_every_knob_and_agrees_with_the_defaults(path):
    node = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(node, dict)
    factory = getattr(optim, path.stem)
    assert (node.pop("_target_"), node.pop("_partial_")) == (f"dl_course.optim.{path.stem}", True)
    parameters = dict(inspect.signature(factory).parameters)
    parameters.pop("params")
    defaults = {key: list(p.default) if isinstance(p.default, tuple) else p.default for key, p in parameters.items()}
    assert node == defaults
    assert get_type_hints(factory)["lr"] is float


def test_state_survives_safe_loading(tmp_path):
    """weights_only=True must accept what an optimiser saves."""
    parameter = nn.Parameter(torch.ones(3))
    parameter.grad = torch.ones(3)
    optimizer = optim.adamw([parameter])
    optimizer.step()
    torch.save(optimizer.state_dict(), tmp_path / "state.pt")
    other = optim.adamw([copy.deepcopy(parameter)])
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert other.state_dict()["state"][0]["step"] == 1

"""Every loss equals an independent one in value and gradient; shapes and classes that do not fit are named."""

from __future__ import annotations

import ast
import inspect
from functools import partial
from typing import get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from sklearn import metrics
from torch import nn

from dl_course import losses
from dl_course.errors import ConfigError
from dl_course.losses import LOSSES, LossName, loss, regularized, weights

B, K = 7, 5
IMPLS = ["torch", "scratch"]
assert_close = partial(torch.testing.assert_close, rtol=1e-10, atol=1e-10)


def case(name: str, scale: float = 3.0) -> tuple[torch.Tensor, torch.Tensor]:
    """A prediction and a target for the loss of that name, in float64."""
    kind = LOSSES[name].target
    if kind == "classes":
        return scale * torch.randn(B, K, dtype=torch.float64), torch.randint(K, (B,))
    target = torch.randn(B, dtype=torch.float64)
    return scale * torch.randn(B, dtype=torch.float64), (target > 0).double() if kind == "binary" else target


def value_and_gradient(f, prediction, *rest):
    prediction = prediction.clone().requires_grad_()
    value = f(prediction, *rest)
    return value.detach(), torch.autograd.grad(value, prediction)[0]


def by_hand(name, prediction, target):
    """The definition, with NumPy and one sample at a time."""
    p, y, total = prediction.numpy(), target.numpy(), 0.0
    for i in range(len(p)):
        if name == "mae":
            total += abs(p[i] - y[i])
        elif name == "mse":
            total += (p[i] - y[i]) ** 2
        elif name == "bce":
            q = 1 / (1 + np.exp(-p[i]))
            total -= y[i] * np.log(q) + (1 - y[i]) * np.log(1 - q)
        elif name == "cross_entropy":
            total -= np.log(np.exp(p[i, y[i]]) / np.exp(p[i]).sum())
        else:
            total += sum(max(0.0, p[i, k] - p[i, y[i]] + 1) for k in range(p.shape[1]) if k != y[i])
    return total / len(p)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("name", LOSSES)
def test_value_is_the_definition(name, impl):
    prediction, target = case(name)
    assert loss(name, impl)(prediction, target).item() == pytest.approx(by_hand(name, prediction, target), rel=1e-10)


@pytest.mark.parametrize("scale", [1.0, 1e3])
@pytest.mark.parametrize("name", LOSSES)
def test_scratch_equals_torch_in_value_and_gradient(name, scale):
    prediction, target = case(name, scale)
    ours = value_and_gradient(loss(name, "scratch"), prediction, target)
    assert_close(ours, value_and_gradient(loss(name), prediction, target))
    assert torch.isfinite(ours[1]).all()


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("z", [-1e3, 0.0, 1e3])
def test_bce_at_the_extremes(z, impl):
    for y in (0.0, 1.0):
        value, gradient = value_and_gradient(loss("bce", impl), torch.tensor([z]), torch.tensor([y]))
        assert value.item() == pytest.approx(np.logaddexp(0, z) - y * z)
        assert gradient.item() == pytest.approx((1 if z > 0 else 0 if z < 0 else 0.5) - y)


@pytest.mark.parametrize("impl", IMPLS)
def test_cross_entropy_of_soft_targets(impl):
    logits, target = case("cross_entropy")[0], torch.softmax(torch.randn(B, K, dtype=torch.float64), 1)
    value, gradient = value_and_gradient(loss("cross_entropy", impl), logits, target)
    expected = np.mean([stats.entropy(y, o) + stats.entropy(y) for y, o in zip(target, torch.softmax(logits, 1))])
    assert value.item() == pytest.approx(expected, rel=1e-10)
    assert_close(gradient, (torch.softmax(logits, 1) - target) / B)


@pytest.mark.parametrize("impl", IMPLS)
def test_cross_entropy_of_every_pixel(impl):
    logits, target = torch.randn(2, K, 3, 7, dtype=torch.float64), torch.randint(K, (2, 3, 7))
    flat = logits.movedim(1, -1).reshape(-1, K)
    ours = value_and_gradient(loss("cross_entropy", impl), logits, target)
    assert ours[0].item() == pytest.approx(by_hand("cross_entropy", flat, target.flatten()), rel=1e-10)
    assert_close(ours, value_and_gradient(F.cross_entropy, logits, target))


def test_softmax_is_shift_invariant_and_equals_torch():
    z = torch.randn(B, K, dtype=torch.float64)
    for shift in (0.0, 1e3, -1e3):
        ours = value_and_gradient(lambda z: losses.softmax(z)[:, 2].sum(), z + shift)
        assert_close(ours, value_and_gradient(lambda z: F.softmax(z, -1)[:, 2].sum(), z))
    assert_close(losses.softmax(z, dim=0), torch.softmax(z, 0))
    assert losses.log_softmax(torch.tensor([0.0, -1e4])).tolist() == [0.0, -1e4]


def test_bce_of_probabilities_equals_torch():
    p, y = torch.rand(11, dtype=torch.float64), torch.rand(11, dtype=torch.float64)
    ours = value_and_gradient(losses.bce_of_probabilities, p, y)
    assert_close(ours, value_and_gradient(F.binary_cross_entropy, p, y))


def test_bce_of_certain_probabilities_is_capped_and_without_nan():
    p, y = torch.tensor([0.0, 1.0, 0.0, 1.0]), torch.tensor([0.0, 1.0, 1.0, 0.0])
    value, gradient = value_and_gradient(losses.bce_of_probabilities, p, y)
    assert value.item() == F.binary_cross_entropy(p, y).item() == 50.0
    assert gradient.tolist() == [0.25, -0.25, 0.0, 0.0]  # ±1/n by the other logarithm, whose derivative is finite
    with pytest.raises(ValueError, match=r"from -0\.5 to 2 are not in \[0, 1\]"):
        losses.bce_of_probabilities(torch.tensor([-0.5, 2.0]), torch.zeros(2))


def test_hinge_of_worst_equals_scikit_learn():
    scores, target = case("hinge")
    expected = metrics.hinge_loss(target, scores, labels=range(K))
    assert losses.hinge_of_worst(scores, target).item() == pytest.approx(expected, rel=1e-10)
    assert losses.hinge_of_worst(scores, target) < losses.hinge(scores, target)


@pytest.mark.parametrize("impl", IMPLS)
def test_hinge_saturates(impl):
    target = torch.arange(K)
    value, gradient = value_and_gradient(loss("hinge", impl), 1.5 * torch.eye(K), target)
    assert value == 0
    assert not gradient.any()
    assert loss("hinge", impl)(0.5 * torch.eye(K), target).item() == pytest.approx(0.5 * (K - 1))


@pytest.mark.parametrize("variance", [1.0, 2.3, torch.rand(B, dtype=torch.float64) + 0.1])
def test_gaussian_nll_equals_torch_and_scipy(variance):
    mean, y = case("mse")
    ours = value_and_gradient(losses.gaussian_nll, mean, y, variance)
    full = torch.as_tensor(variance, dtype=torch.float64).expand(B)
    reference = value_and_gradient(lambda m, y: F.gaussian_nll_loss(m, y, full, full=True), mean, y)
    assert_close(ours, reference)
    assert ours[0].item() == pytest.approx(-stats.norm.logpdf(y, mean, full.sqrt()).mean(), rel=1e-10)


# --- shapes and classes


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("name", ["mae", "mse", "bce"])
def test_a_last_axis_of_one_is_dropped_and_nothing_else(name, impl):
    prediction, target = case(name)
    f, expected = loss(name, impl), loss(name)(prediction, target)
    assert_close(f(prediction[:, None], target), expected)
    assert_close(f(prediction, target[:, None]), expected)
    assert_close(f(prediction[:, None], target[:, None]), expected)
    for wrong in (prediction[None], prediction[:1], prediction[:, None].expand(B, 2), prediction[0]):
        with pytest.raises(ValueError, match=r"prediction \(.*\) and target \(7,\)"):
            f(wrong, target)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("name", ["cross_entropy", "hinge"])
@pytest.mark.parametrize("wrong_class", [K, -1, -100])
def test_a_class_out_of_range_is_named(name, impl, wrong_class):
    scores, target = case(name)
    target[3] = wrong_class
    with pytest.raises(ValueError, match=f"class {wrong_class} is not one of the {K} classes"):
        loss(name, impl)(scores, target)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("name", ["cross_entropy", "hinge"])
@pytest.mark.parametrize(
    "wrong",
    [
        torch.zeros(B),
        torch.zeros(B + 1, dtype=torch.int64),
        torch.zeros(B, 1, dtype=torch.int64),
        torch.zeros(B, K + 1),
    ],
)
def test_class_targets_of_another_shape_or_type_are_named(name, impl, wrong):
    with pytest.raises(ValueError) as caught:
        loss(name, impl)(torch.zeros(B, K), wrong)
    assert str(tuple(wrong.shape)) in str(caught.value)
    assert f"({B}, {K})" in str(caught.value)


def test_errors_that_are_not_about_targets_pass_through():
    with pytest.raises(RuntimeError, match="not implemented"):
        loss("cross_entropy")(torch.zeros(B, K, dtype=torch.int64), torch.zeros(B, dtype=torch.int64))


# --- the choice by name


def test_type_and_registry_name_the_same_losses():
    assert get_args(LossName) == tuple(LOSSES)


def test_impl_chooses_whose_loss_it_is():
    assert loss("mse", "scratch") is losses.mse
    assert loss("mse") is not losses.mse


def test_unknown_name_suggests_the_near_one():
    with pytest.raises(ConfigError, match="did you mean 'cross_entropy'"):
        loss("crossentropy")  # type: ignore[arg-type]


def test_scratch_calls_no_loss_of_torch():
    tree = ast.parse(inspect.getsource(losses))
    library = {"log_softmax", "softmax", "logsumexp", "logsigmoid", "softplus", "sigmoid", "cross_entropy", "nll_loss"}
    for function in (node for node in tree.body if isinstance(node, ast.FunctionDef)):
        attributes = [node for node in ast.walk(function) if isinstance(node, ast.Attribute)]
        names = {node.id for node in ast.walk(function) if isinstance(node, ast.Name)}
        if not function.name.startswith("_torch_"):
            assert "F" not in names, function.name
            assert not {node.attr for node in attributes} & library, function.name


# --- regularisation


def test_penalties_and_their_gradients():
    w, v = torch.randn(3, 5, dtype=torch.float64), torch.randn(7, 2, dtype=torch.float64)
    both = torch.cat([w.flatten(), v.flatten()])
    value, gradient = value_and_gradient(lambda w: losses.l1_penalty([w, v]), w)
    assert_close((value, gradient), (both.norm(1), w.sign()))
    value, gradient = value_and_gradient(lambda w: losses.l2_penalty(iter([w, v])), w)
    assert_close((value, gradient), (both.norm(2) ** 2 / 2, w))
    assert losses.l1_penalty([]) == losses.l2_penalty([]) == 0


def test_weights_are_matrices_and_kernels_once_each():
    linear = nn.Linear(5, 7)
    net = nn.Sequential(
        nn.Conv2d(3, 5, 3),
        nn.BatchNorm2d(5),
        nn.PReLU(5),
        nn.Flatten(),
        linear,
        nn.LayerNorm([7, 1]),
        nn.LSTM(7, 2),
    )
    tied, frozen = nn.Linear(5, 7), nn.Linear(2, 2)
    tied.weight = linear.weight
    frozen.requires_grad_(False)
    found = weights(nn.ModuleList([net, tied, frozen]))
    expected = [net[0].weight, linear.weight, net[6].weight_ih_l0, net[6].weight_hh_l0]
    assert [id(w) for w in found] == [id(w) for w in expected]


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("name", LOSSES)
def test_regularised_form_adds_its_gradient_to_the_weights_alone(name, impl):
    prediction, target = case(name)
    net = nn.Linear(3, K if prediction.ndim == 2 else 1).double()
    x = torch.randn(B, 3, dtype=torch.float64)
    plain = loss(name, impl)
    gradients = [
        torch.autograd.grad(f(net(x), target), [net.weight, net.bias])
        for f in (plain, regularized(plain, net, 0.3, 0.7))
    ]
    assert_close(gradients[1][0], gradients[0][0] + 0.3 * net.weight.sign() + 0.7 * net.weight)
    assert_close(gradients[1][1], gradients[0][1])
    expected = plain(net(x), target) + 0.3 * net.weight.abs().sum() + 0.35 * net.weight.square().sum()
    assert_close(regularized(plain, net, 0.3, 0.7)(net(x), target), expected)


def test_regularising_refuses_what_has_no_effect():
    with pytest.raises(ValueError, match=r"l1=-1.* and l2=0"):
        regularized(losses.mse, nn.Linear(2, 2), l1=-1)
    with pytest.raises(ValueError, match="ReLU has no weights"):
        regularized(losses.mse, nn.ReLU(), l2=0.1)

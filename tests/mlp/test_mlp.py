"""The MLP equals a stack of torch layers, in both implementations, and its hand-derived gradients equal autograd's."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Any, get_args, get_type_hints

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn

from dl_course.layers import ACTIVATIONS, Activation
from dl_course.losses import LOSSES, Target, loss
from dl_course.mlp import MLP, matrices, output_activation, parameter_count

assert_close = partial(torch.testing.assert_close, rtol=1e-10, atol=1e-10)
POINTWISE = [name for name in ACTIVATIONS if name not in ("prelu", "maxout")]
DEPTHS = [[], [7], [7, 11, 5]]


def stack(*sizes: int, activation: type[nn.Module]) -> nn.Sequential:
    """An MLP put together by hand from torch's layers."""
    parts: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        parts += [nn.Linear(inputs, outputs), activation()]
    return nn.Sequential(*parts[:-1]).double()


def outputs_and_gradients(net: nn.Module, x: torch.Tensor):
    x = x.clone().requires_grad_()
    y = net(x)
    return y.detach(), *torch.autograd.grad(y.sin().sum(), [x, *net.parameters()])


@pytest.mark.parametrize("impl", ["torch", "scratch"])
@pytest.mark.parametrize("hidden", DEPTHS)
def test_equals_a_stack_of_torch_layers(hidden, impl):
    ours, reference = MLP(3, hidden, 2, "tanh", impl=impl).double(), stack(3, *hidden, 2, activation=nn.Tanh)
    ours.layers.load_state_dict(reference.state_dict())
    x = torch.randn(13, 3, dtype=torch.float64)
    assert_close(outputs_and_gradients(ours, x), outputs_and_gradients(reference, x))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_scratch_equals_torch_and_shares_its_state(name, bias):
    ours, reference = (MLP(3, [7, 5], 2, name, bias=bias, impl=impl).double() for impl in ("scratch", "torch"))
    ours.load_state_dict(reference.state_dict())
    x = torch.randn(13, 3, dtype=torch.float64)
    assert_close(outputs_and_gradients(ours, x), outputs_and_gradients(reference, x))
    assert any("bias" in key for key in ours.state_dict()) == bias


def test_both_implementations_start_from_the_same_weights_and_drop_the_same_units():
    results: list[Any] = []
    for impl in ("torch", "scratch"):
        torch.manual_seed(5)
        net = MLP(3, [17, 11], 2, dropout=0.4, impl=impl)
        results.append((net.state_dict(), net(torch.randn(13, 3)), net.eval()(torch.ones(1, 3))))
    torch.testing.assert_close(*results)


def test_images_are_flattened_in_memory_order():
    net, x = MLP(2 * 3 * 5, [7], 2), torch.randn(11, 2, 3, 5)
    torch.testing.assert_close(net(x), net(x.reshape(11, 30)))
    permuted = x.permute(0, 1, 3, 2)
    assert not torch.allclose(net(x), net(permuted))


def test_input_of_another_size_names_both():
    with pytest.raises(ValueError, match="30 features, but in_features=31"):
        MLP(31, [7], 2)(torch.zeros(11, 2, 3, 5))


@pytest.mark.parametrize("sizes", [(0, [3], 2), (3, [0], 2), (3, [3], 0)])
def test_a_layer_without_units_is_refused(sizes):
    with pytest.raises(ValueError, match="must be ≥ 1"):
        MLP(*sizes)


@pytest.mark.parametrize(
    ("argument", "good", "bad"),
    [
        ("in_features", [1, 784], [0, -1, "many"]),
        ("hidden", [[], [64, 64]], [[64, 0], [1.5], "64", 64]),
        ("activation", list(ACTIVATIONS), ["rellu", None]),
        ("dropout", [0.0, 0.5], [1.0, -0.1]),
        ("impl", ["torch", "scratch"], ["jax"]),
    ],
)
def test_annotations_hold_the_ranges(argument, good, bad):
    adapter = TypeAdapter(get_type_hints(MLP.__init__, include_extras=True)[argument])
    for value in good:
        adapter.validate_python(value)
    for value in bad:
        with pytest.raises(ValidationError):
            adapter.validate_python(value)


def test_maxout_net_is_convex_and_can_be_the_absolute_value():
    net = MLP(1, [1], 1, "maxout")
    first, last = net.affine()
    for layer, weight in ((first, [[1.0], [-1.0]]), (last, [[1.0]])):
        layer.load_state_dict({"weight": torch.tensor(weight), "bias": torch.zeros(len(weight))})
    x = torch.linspace(-2, 2, 11)[:, None]
    torch.testing.assert_close(net(x), x.abs())


@pytest.mark.parametrize("hidden", DEPTHS)
@pytest.mark.parametrize("bias", [True, False])
def test_parameter_count_is_the_number_counted(hidden, bias):
    net = MLP(3, hidden, 2, bias=bias)
    assert parameter_count(3, hidden, 2, bias=bias) == sum(p.numel() for p in net.parameters())


def test_parameter_count_is_the_formula():
    d, h, o = 13, 7, 5
    assert parameter_count(d, h, o) == d * h + h * o + h + o


def test_output_activation_by_target_type():
    z = torch.randn(7, 5)
    torch.testing.assert_close(output_activation("regression")(z), z)
    torch.testing.assert_close(output_activation("binary")(z), torch.sigmoid(z))
    torch.testing.assert_close(output_activation("classes")(z), torch.softmax(z, 1))
    assert {entry.target for entry in LOSSES.values()} == set(get_args(Target))


# --- by hand, in matrices


def batch(kind: str, outputs: int) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(11, 3, dtype=torch.float64)
    if kind == "classes":
        return x, torch.randint(outputs, (11,))
    y = torch.randn(11, outputs, dtype=torch.float64).squeeze(1)
    return x, (y > 0).double() if kind == "binary" else y


@pytest.mark.parametrize("outputs", [1, 5])
@pytest.mark.parametrize("hidden", DEPTHS)
@pytest.mark.parametrize("name", LOSSES)
def test_delta_rule_equals_autograd(name, hidden, outputs):
    if LOSSES[name].target == "classes" and outputs == 1:
        outputs = 2
    net, (x, y) = MLP(3, hidden, outputs, "tanh").double(), batch(LOSSES[name].target, outputs)
    expected = torch.autograd.grad(loss(name)(net(x), y), list(net.parameters()))
    ours = matrices.backward(net, x, y, name).gradients
    assert_close(ours, dict(zip([n for n, _ in net.named_parameters()], expected)))


@pytest.mark.parametrize("name", POINTWISE)
def test_delta_rule_equals_autograd_for_every_pointwise_activation(name):
    assert sorted(matrices.DERIVATIVES) == sorted(POINTWISE)
    net, (x, y) = MLP(3, [7, 5], 2, name).double(), batch("classes", 2)
    forward, backward = matrices.forward(net, 3 * x), matrices.backward(net, 3 * x, y, "cross_entropy")
    assert_close(forward.a[-1], net(3 * x).detach())
    for parameter, gradient in backward.gradients.items():
        value = loss("cross_entropy")(net(3 * x), y)
        assert_close(gradient, torch.autograd.grad(value, net.get_parameter(parameter))[0])


def test_deltas_are_the_gradients_at_the_scores_and_split_by_sample():
    net, (x, y) = MLP(3, [7], 2, "sigmoid").double(), batch("classes", 2)
    first = net.affine()[0]
    seen: list[Any] = []
    first.register_forward_hook(lambda module, inputs, z: seen.append(z))
    value = loss("cross_entropy")(net(x), y)
    deltas, gradients = matrices.backward(net, x, y, "cross_entropy")
    assert_close(deltas[0], torch.autograd.grad(value, seen[0])[0])
    per_sample = deltas[0][:, :, None] * x[:, None, :]  # (B, 7, 3)
    assert_close(per_sample.sum(0), gradients["layers.0.weight"])


@pytest.mark.parametrize("name", ["prelu", "maxout"])
def test_matrices_refuse_what_they_do_not_cover(name: Activation):
    with pytest.raises(ValueError, match=f"'{name}' has no derivative here"):
        matrices.forward(MLP(3, [7], 2, name), torch.zeros(5, 3))

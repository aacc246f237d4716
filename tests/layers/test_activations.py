"""Every activation equals torch's in value and gradient, also where the naive formula would break."""

from __future__ import annotations

import ast
import inspect
from typing import get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import special
from torch import nn

from dl_course.errors import ConfigError
from dl_course.layers import ACTIVATIONS, Activation, Maxout, PReLU, Swish, activation, activations
from dl_course.layers.activations import TORCH_ACTIVATIONS, maxout, prelu, swish

EXTREMES = [-1e3, -40.0, -20.0, -1.0, -1e-8, -0.0, 0.0, 1e-8, 1.0, 3.0, 40.0, 1e3]
POINTWISE = [name for name in ACTIVATIONS if name != "maxout"]


def value_and_gradient(f, x, *parameters):
    x = x.clone().requires_grad_()
    y = f(x)
    weight = torch.linspace(0.5, 2.0, y.numel(), dtype=y.dtype).view_as(y)  # tells the elements apart
    return y.detach(), *torch.autograd.grad((weight * y).sum(), (x, *parameters))


@pytest.mark.parametrize("name", POINTWISE)
def test_equals_torch_in_value_and_gradient(name):
    ours, reference = activation(name, impl="scratch").double(), activation(name).double()
    x = torch.cat([torch.tensor(EXTREMES, dtype=torch.float64), 3 * torch.randn(101, dtype=torch.float64)])
    actual = value_and_gradient(ours, x, *ours.parameters())
    expected = value_and_gradient(reference, x, *reference.parameters())
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)
    assert all(torch.isfinite(part).all() for part in actual)


@pytest.mark.parametrize("name", POINTWISE)
def test_equals_torch_in_float32_on_images(name):
    ours, reference = activation(name, impl="scratch"), activation(name)
    x = 3 * torch.randn(5, 3, 7, 11)
    actual, expected = value_and_gradient(ours, x), value_and_gradient(reference, x)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)
    assert actual[0].dtype == torch.float32


@pytest.mark.parametrize("name", list(ACTIVATIONS))
def test_nan_is_not_swallowed(name):
    y = activation(name, impl="scratch")(torch.full((3, 4), torch.nan))
    assert torch.isnan(y).all()


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("sigmoid", special.expit),
        ("tanh", np.tanh),
        ("softplus", lambda x: np.logaddexp(0, x)),
        ("gelu", lambda x: x * special.ndtr(x)),
    ],
)
def test_keeps_its_digits_where_values_are_tiny_or_huge(name, reference):
    x = np.concatenate([-np.geomspace(1e-12, 30, 53), np.geomspace(1e-12, 30, 53)])
    ours = activation(name, impl="scratch")(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(ours, reference(x), rtol=1e-12)


def test_hardtanh_clips_at_one_and_has_no_gradient_there():
    value, gradient = value_and_gradient(activations.hardtanh, torch.tensor([-2.0, -1.0, 0.5, 1.0, 2.0]))
    assert value.tolist() == [-1.0, -1.0, 0.5, 1.0, 1.0]
    assert gradient.ne(0).tolist() == [False, False, True, False, False]


@pytest.mark.parametrize("shape", [(7, 3), (5, 3, 2, 11)])
def test_prelu_per_channel_equals_torch(shape):
    ours, reference = PReLU(3).double(), nn.PReLU(3).double()
    slopes = torch.tensor([0.1, -0.3, 1.7], dtype=torch.float64)
    for module in (ours, reference):
        module.load_state_dict({"weight": slopes})
    x = torch.randn(shape, dtype=torch.float64)
    actual = value_and_gradient(ours, x, ours.weight)
    expected = value_and_gradient(reference, x, reference.weight)
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)


def test_prelu_is_the_printed_maximum_only_up_to_slope_one():
    x = torch.tensor([-2.0, 3.0])
    for slope in (0.25, 1.0):
        torch.testing.assert_close(prelu(x, torch.tensor([slope])), torch.maximum(slope * x, x))
    assert not torch.equal(prelu(x, torch.tensor([2.0])), torch.maximum(2 * x, x))


def test_swish_learns_its_beta():
    ours = Swish(beta=1.7, trainable=True).double()
    beta = torch.tensor(1.7, dtype=torch.float64, requires_grad=True)
    assert dict(ours.named_parameters()).keys() == {"beta"}
    ours.load_state_dict({"beta": beta.detach()})
    x = torch.randn(13, dtype=torch.float64)
    actual = value_and_gradient(ours, x, ours.beta)
    expected = value_and_gradient(lambda x: F.silu(beta * x) / beta, x, beta)
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)


def test_swish_lies_between_half_the_line_and_relu():
    x = torch.linspace(-5, 5, 11, dtype=torch.float64)
    torch.testing.assert_close(swish(x, 0.0), x / 2)
    torch.testing.assert_close(swish(x, 1e4), x.clamp(min=0))


@pytest.mark.parametrize("pieces", [2, 3])
def test_maxout_is_the_largest_of_several_linear_layers(pieces):
    x = torch.randn(7, 5, dtype=torch.float64)
    parts = [nn.Linear(5, 11).double() for _ in range(pieces)]
    joint = torch.cat([part(x) for part in parts], dim=1)  # (7, pieces·11)
    expected = torch.stack([part(x) for part in parts]).max(dim=0).values
    torch.testing.assert_close(Maxout(pieces)(joint), expected, rtol=1e-10, atol=1e-10)
    gradients = [torch.autograd.grad(y.sum(), parts[1].weight)[0] for y in (Maxout(pieces)(joint), expected)]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-10)


def test_maxout_over_channels_of_images():
    x = torch.randn(2, 6, 5, 3)
    torch.testing.assert_close(maxout(x, 2, dim=1), torch.maximum(x[:, :3], x[:, 3:]))


def test_maxout_names_both_numbers_when_the_features_do_not_split():
    with pytest.raises(ValueError, match="7 features do not split into pieces=2"):
        Maxout(2)(torch.zeros(3, 7))


def test_type_registry_and_torch_twins_name_the_same_activations():
    assert get_args(Activation) == tuple(ACTIVATIONS) == tuple(TORCH_ACTIVATIONS)


def test_impl_chooses_whose_module_it_is():
    assert type(activation("tanh")) is nn.Tanh
    assert type(activation("tanh", impl="scratch")) is activations.Tanh


def test_unknown_name_suggests_the_near_one():
    with pytest.raises(ConfigError, match="did you mean 'leaky_relu'") as caught:
        activation("leaky_rellu")  # type: ignore[arg-type]
    assert len(str(caught.value).splitlines()) <= 5


def test_scratch_calls_no_activation_of_torch():
    """Only the table of torch's modules may name them; everything above it is elementary arithmetic."""
    library = {"sigmoid", "tanh", "relu", "softplus", "silu", "gelu", "elu", "selu", "prelu", "leaky_relu", "hardtanh",
               "logsigmoid", "expit", "log_ndtr", "ndtr", "celu", "clamp", "clip", "functional", "F"}  # fmt: skip
    tree = ast.parse(inspect.getsource(activations))
    definitions = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    assert len(definitions) == 2 * len(ACTIVATIONS) + 1
    for definition in definitions:
        used = {node.attr for node in ast.walk(definition) if isinstance(node, ast.Attribute)}
        assert not used & library, definition.name

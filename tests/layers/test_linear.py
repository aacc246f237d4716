"""The affine layer and dropout equal torch's: same parameters, same values, same gradients, same random numbers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dl_course.layers import Dropout, Linear


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(5,), (7, 5), (3, 7, 5)])
def test_linear_equals_torch(bias, shape):
    ours, reference = Linear(5, 11, bias=bias).double(), nn.Linear(5, 11, bias=bias).double()
    ours.load_state_dict(reference.state_dict())
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(ours(x), reference(x), rtol=1e-10, atol=1e-10)
    gradients = [torch.autograd.grad(m(x).sin().sum(), [x, *m.parameters()]) for m in (ours, reference)]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-10)


def test_linear_starts_from_the_same_weights_as_torch():
    layers = []
    for kind in (Linear, nn.Linear):
        torch.manual_seed(3)
        layers.append(kind(7, 13).state_dict())
    torch.testing.assert_close(*layers)


@pytest.mark.parametrize("p", [0.0, 0.3, 0.8])
def test_dropout_equals_torch_for_one_seed(p):
    outputs = []
    for module in (Dropout(p), nn.Dropout(p)):
        torch.manual_seed(3)
        x = torch.linspace(1, 2, 77).view(7, 11).requires_grad_()
        y = module(x)
        outputs.append((y.detach(), *torch.autograd.grad(y.square().sum(), x)))
    torch.testing.assert_close(*outputs)


def test_dropout_keeps_the_mean_in_training_and_everything_in_evaluation():
    x = torch.ones(100_003)
    dropout = Dropout(0.3)
    assert abs(dropout(x).mean().item() - 1) < 0.01
    assert abs((dropout(x) == 0).float().mean().item() - 0.3) < 0.01
    assert dropout.eval()(x) is x


def test_dropout_of_everything_is_refused():
    with pytest.raises(ValueError, match=r"p=1\.0"):
        Dropout(1.0)

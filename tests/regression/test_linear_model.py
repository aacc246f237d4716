"""The linear network against `nn.Linear`, and what each loss makes of it."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch import nn

from dl_course.regression import Linear, closed_form, descent, linear


def make_twins(in_features: int, out_features: int, bias: bool = True) -> tuple[Linear, nn.Linear]:
    reference = nn.Linear(in_features, out_features, bias=bias).double()
    ours = Linear(in_features, out_features, bias=bias).double()
    ours.load_state_dict(reference.state_dict())  # the same names and shapes
    return ours, reference


@pytest.mark.parametrize("bias", [True, False])
def test_linear_matches_torch_forward_and_gradient(bias):
    ours, reference = make_twins(5, 3, bias)
    x = torch.randn(7, 5, dtype=torch.float64)
    x_ours, x_reference = x.clone().requires_grad_(), x.clone().requires_grad_()
    weights = torch.randn(7, 3, dtype=torch.float64)
    (ours(x_ours) * weights).sum().backward()
    (reference(x_reference) * weights).sum().backward()
    torch.testing.assert_close(ours(x), reference(x), rtol=0, atol=1e-10)
    torch.testing.assert_close(x_ours.grad, x_reference.grad, rtol=0, atol=1e-10)
    for (name, p), (_, q) in zip(ours.named_parameters(), reference.named_parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=0, atol=1e-10, msg=name)


def test_state_dict_goes_both_ways():
    ours, reference = make_twins(5, 3)
    other = nn.Linear(5, 3).double()
    other.load_state_dict(ours.state_dict())
    assert torch.equal(other.weight, reference.weight)
    assert torch.equal(other.bias, reference.bias)


def test_images_are_flattened_row_by_row():
    ours, reference = make_twins(2 * 3 * 5, 7)
    images = torch.randn(11, 2, 3, 5, dtype=torch.float64)
    torch.testing.assert_close(ours(images), reference(images.reshape(11, 30)), rtol=0, atol=1e-10)


def test_starts_at_zero_unless_told():
    assert not any(p.any() for p in Linear(5, 3).parameters())
    random = Linear(500, 30, init_std=0.1)
    assert 0.095 < random.weight.std() < 0.105
    assert random.bias is not None
    assert not random.bias.any()


def test_wrong_width_prints_both_shapes():
    with pytest.raises(RuntimeError, match=r"7x4 and 5x3"):
        Linear(5, 3)(torch.randn(7, 4))


def test_sample_gradient_stays_in_its_sample():
    x = torch.randn(7, 5, requires_grad=True)
    net = Linear(5, 3, init_std=1.0)
    net(x)[2].sum().backward()
    assert x.grad is not None
    assert x.grad[2].any()
    assert not x.grad[[0, 1, 3, 4, 5, 6]].any()


@pytest.mark.parametrize("module", [linear, closed_form, descent])
def test_the_room_is_written_out(module):
    """Nothing that the tests of this room compare with is called by it."""
    source = inspect.getsource(module)
    for call in ("F.", "functional", "nn.Linear(", "addmm", "lstsq(", "pinv(", "sklearn", "torch.optim", "sigmoid("):
        assert call not in source, call

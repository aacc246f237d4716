"""The functions that the studies of the mlp room bring along."""

import pytest
import torch
from torch.func import functional_call

from dl_course.mlp import MLP
from experiments.mlp.linear_collapse import collapse
from experiments.mlp.params import used
from experiments.mlp.symmetries import copies
from experiments.mlp.universal_approximation import worst_step


def test_a_deep_linear_net_is_its_product():
    net = MLP(3, [7, 5], 2, "identity")
    weight, bias = collapse(net)
    x = torch.randn(11, 3)
    torch.testing.assert_close(x @ weight.T + bias, net(x))


def test_copies_of_a_tanh_net_are_all_different_and_all_the_same_function():
    net = MLP(3, [3], 2, "tanh").double()
    x = torch.randn(11, 3, dtype=torch.float64)
    made = list(copies(net))
    assert len(made) == 2**3 * 6
    assert len({tuple(torch.cat([p.flatten() for p in copy.values()]).tolist()) for copy in made}) == len(made)
    for copy in made:
        torch.testing.assert_close(functional_call(net, copy, (x,)), net(x), rtol=0, atol=1e-10)


def test_the_first_copy_is_the_net():
    net = MLP(3, [3], 2, "tanh")
    torch.testing.assert_close(dict(next(copies(net))), dict(net.named_parameters()), rtol=0, atol=0)


def test_a_parameter_without_effect_does_not_count_as_used():
    net = MLP(3, [5], 2, "tanh")
    assert used(net) == 3 * 5 + 5 * 2 + 5 + 2
    dead = MLP(3, [5], 2, "tanh")
    with torch.no_grad():
        dead.affine()[1].weight[:, 0] = 0  # unit 0 is not read: its 3 weights and its bias get no gradient
    assert used(dead) == used(net) - 4


@pytest.mark.parametrize(
    ("errors", "worst"),
    [
        ([1.0, 0.5, 0.25], 0.5),
        ([1.0, 0.1, 0.3], 3.0),
        ([1.0, 0.1, 0.3, 0.25], 3.0),  # compared with the best narrower width, not with the last
        ([1.0, 5e-4, 0.3], 5e-4),  # after the floor nothing counts
    ],
)
def test_worst_step_compares_with_the_best_narrower_width_above_the_floor(errors, worst):
    assert worst_step({"lbfgs": errors}) == pytest.approx(worst)

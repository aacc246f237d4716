"""The functions that zigzag, dead-relu, overfit-one and backprop bring along."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from dl_course.mlp import MLP
from experiments.mlp.backprop import by_autograd, by_differences, by_engine, error, visits
from experiments.mlp.dead_relu import dead, negative
from experiments.mlp.overfit_one import MISTAKES, SOUND, train, verdict
from experiments.mlp.zigzag import incoming_gradients, one_sign


@pytest.mark.parametrize("batch", [1, 3])
def test_incoming_gradients_are_those_of_autograd_batch_by_batch(batch):
    net = MLP(3, [5, 7], 4, "tanh").double()
    x, y = torch.randn(11, 3, dtype=torch.float64), torch.randint(4, (11,))
    found = incoming_gradients(net, x, y, batch)
    assert len(found) == 11 // batch
    for i, gradient in enumerate(found):
        part = slice(i * batch, (i + 1) * batch)
        loss = cross_entropy(net(x[part]), y[part], reduction="sum") / len(x)
        (expected,) = torch.autograd.grad(loss, net.affine()[1].weight)
        torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-12)


def test_one_sign_counts_neither_mixed_signs_nor_zeros():
    assert one_sign(torch.tensor([[1.0, 2.0], [-1.0, -2.0], [1.0, -1.0], [0.0, 1.0], [0.0, 0.0]])) == 2 / 5


@pytest.mark.parametrize(("activation", "expected"), [("relu", [True, False, False]), ("leaky_relu", [False] * 3)])
def test_a_relu_is_dead_where_no_sample_reaches_it_and_a_leaky_one_never(activation, expected):
    net = MLP(2, [3], 2, activation).double()
    with torch.no_grad():
        weight, bias = net.affine()[0].parameters()
        weight.copy_(torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]]))
        bias.copy_(torch.tensor([-9.0, 0.0, 9.0]))  # beyond all data, through them, below them
    x = torch.linspace(-2, 2, 11, dtype=torch.float64)[:, None].expand(-1, 2)
    assert dead(net, x).tolist() == expected
    assert negative(net, x).tolist() == [True, False, False]


def test_dead_means_that_autograd_finds_no_gradient_for_any_loss():
    torch.manual_seed(1)
    net = MLP(2, [17], 3).double()
    with torch.no_grad():
        list(net.affine()[0].parameters())[1].sub_(1)
    x = torch.randn(5, 2, dtype=torch.float64)
    rows = [torch.autograd.grad(net(x)[:, k].sum(), net.affine()[0].weight)[0] for k in range(3)]
    found = dead(net, x)
    assert 0 < found.sum() < 17
    assert all(not row[found].any() for row in rows)
    assert all(row[~found].any(1).all() for row in rows)


def test_planted_mistakes_show_in_ten_samples_and_the_sound_loop_does_not():
    torch.manual_seed(0)
    x, y = torch.randn(10, 1, 8, 8), torch.arange(10)
    accuracy = {name: train(x, y, 0, name)[2] for name in MISTAKES}
    assert accuracy[SOUND] == accuracy["wrong labels"] == 1.0
    assert max(accuracy[name] for name in ("uphill", "frozen", "inputs lost", "pairs torn")) < 1.0


def test_a_mistake_is_found_by_the_first_stage_that_most_seeds_fail():
    assert [verdict(passed, 5) for passed in ([2, 0], [5, 2], [5, 3])] == ["one sample", "ten", "-"]


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "relu"])
def test_three_ways_to_a_gradient_agree_and_a_wrong_rule_shows(activation):
    torch.manual_seed(0)
    net = MLP(3, [5, 7], 2, activation).double()
    x, y = torch.randn(11, 3, dtype=torch.float64), torch.randint(2, (11,))
    expected = by_autograd(net, x, y)
    differences, evaluations = by_differences(net, x, y)
    assert error(by_engine(net, x, y), expected) < 1e-10
    assert error(differences, expected) < 1e-5
    assert evaluations == 2 * len(expected)
    assert visits(net, x, y) == 1
    assert (error(by_engine(net, x, y, wrong=True), expected) > 1e-2) == (activation == "tanh")

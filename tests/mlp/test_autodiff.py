"""The autodiff engine equals torch.autograd, on each operation, on random expressions, and on a network."""

from __future__ import annotations

import re

import hypothesis.strategies as st
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from dl_course.losses import loss
from dl_course.mlp import MLP, draw_graph
from dl_course.mlp.autodiff import Variable, cross_entropy, log_softmax, topological_order


def agree(ours, theirs, *arrays, exact=1e-10):
    """Both functions of the arrays: equal values, and equal gradients of a weighted sum of them."""
    variables = [Variable(a) for a in arrays]
    tensors = [torch.tensor(a, dtype=torch.float64, requires_grad=True) for a in arrays]
    y, t = ours(*variables), theirs(*tensors)
    np.testing.assert_allclose(y.value, t.detach(), rtol=exact, atol=exact)
    weight = np.linspace(0.5, 2, y.value.size).reshape(y.shape)
    y.backward(weight)
    expected = torch.autograd.grad(t, tensors, torch.from_numpy(weight), allow_unused=True)
    for variable, gradient in zip(variables, expected):
        assert gradient is not None
        assert variable.grad is not None
        assert variable.grad.shape == variable.shape
        np.testing.assert_allclose(variable.grad, gradient, rtol=exact, atol=exact)


def random(*shape):
    return np.random.default_rng(len(shape) + sum(shape)).standard_normal(shape)


SAME = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "multiply": lambda a, b: a * b,
    "divide": lambda a, b: a / (2 + b * b),
    "constants": lambda a, b: 3 - 2 * a + 1 / (b * b + 1) - b / 4 + (5 + a),
}


@pytest.mark.parametrize("f", SAME.values(), ids=SAME.keys())
@pytest.mark.parametrize(
    "shapes", [((), ()), ((5,), ()), ((3, 5), (5,)), ((3, 5), (3, 1)), ((3, 1), (1, 5)), ((5,), (2, 3, 5))]
)
def test_arithmetic_broadcasts_as_torch_does(f, shapes):
    agree(f, f, *(random(*shape) for shape in shapes))


@pytest.mark.parametrize("name", ["exp", "tanh", "sigmoid", "relu"])
def test_elementwise_functions(name):
    x = np.array([-30.0, -2.0, -1e-6, 0.0, 1e-6, 1.5, 30.0])
    agree(lambda v: getattr(v, name)(), lambda t: getattr(t, name)(), x)


def test_log_and_powers():
    x = np.abs(random(3, 5)) + 0.1
    agree(lambda v: v.log(), torch.log, x)
    for n in (-2, 0.5, 3):
        agree(lambda v, n=n: v**n, lambda t, n=n: t**n, x)
    for n in (0, 1, 2):
        agree(lambda v, n=n: v**n, lambda t, n=n: t**n, np.array([-1.5, 0.0, 2.0]))


@pytest.mark.parametrize("name", ["sum", "mean", "max"])
@pytest.mark.parametrize("axis", [None, 0, -1, (0, 2)])
@pytest.mark.parametrize("keepdims", [False, True])
def test_reductions(name, axis, keepdims):
    dims = (0, 1, 2) if axis is None else axis
    torch_name = "amax" if name == "max" else name
    agree(
        lambda v: getattr(v, name)(axis, keepdims=keepdims),
        lambda t: getattr(t, torch_name)(dims, keepdim=keepdims),
        random(2, 3, 5),
    )


def test_max_shares_its_gradient_among_equals():
    agree(lambda v: v.max(1), lambda t: t.amax(1), np.array([[1.0, 3.0, 3.0], [2.0, 0.0, 1.0]]))


def test_matrix_product_with_batches():
    agree(lambda a, b: a @ b, lambda a, b: a @ b, random(3, 5), random(5, 2))
    agree(lambda a, b: a @ b, lambda a, b: a @ b, random(7, 3, 5), random(5, 2))
    constant = random(7, 3)
    agree(lambda a: constant @ a, lambda a: torch.from_numpy(constant) @ a, random(3, 5))
    with pytest.raises(ValueError, match=r"\(3,\) and \(3, 5\)"):
        _ = Variable(np.zeros(3)) @ Variable(np.zeros((3, 5)))


def test_moving_elements():
    agree(lambda v: v.reshape(5, 6), lambda t: t.reshape(5, 6), random(2, 3, 5))
    agree(lambda v: v.transpose(2, 0, 1), lambda t: t.permute(2, 0, 1), random(2, 3, 5))
    agree(lambda v: v.T, lambda t: t.T, random(3, 5))
    agree(lambda v: v[1:, ::2], lambda t: t[1:, ::2], random(3, 5))
    rows, columns = np.array([0, 2, 2, 2]), np.array([1, 4, 4, 0])
    agree(lambda v: v[rows, columns], lambda t: t[rows, columns], random(3, 5))


def test_softmax_cross_entropy_also_of_huge_scores():
    classes = np.array([0, 4, 2])
    for scale in (1, 1e3):
        z = scale * random(3, 5)
        agree(lambda z: cross_entropy(z, classes), lambda t: loss("cross_entropy")(t, torch.from_numpy(classes)), z)
        agree(log_softmax, lambda t: torch.log_softmax(t, -1), z)


# --- random expressions

UNARY = [
    lambda a: a.tanh(),
    lambda a: a.sigmoid(),
    lambda a: (a * 0.3).exp(),
    lambda a: (a * a + 1.5).log(),
    lambda a: (a * a + 0.5) ** -0.5,
    lambda a: a.relu() + a * 0.1,
    lambda a: a.T,
    lambda a: a[np.array([1, 0, 1])],
    lambda a: a.sum(0) + a,
    lambda a: a - a.mean(),
]
BINARY = [
    lambda a, b: a + b,
    lambda a, b: a * b.tanh(),
    lambda a, b: a / (1 + b * b),
    lambda a, b: (a @ b) * 0.3,
    lambda a, b: a - 0.5 * b,
]
steps = st.tuples(st.integers(0, len(UNARY) + len(BINARY) - 1), st.integers(0, 99), st.integers(0, 99))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(program=st.lists(steps, min_size=1, max_size=14), seed=st.integers(0, 999))
def test_random_expressions_equal_torch(program, seed):
    """A program takes operands from all earlier results, so nodes are shared and paths of many lengths meet."""

    def run(*results):
        results = list(results)
        for op, i, j in program:
            a, b = results[i % len(results)], results[j % len(results)]
            results.append(UNARY[op](a) if op < len(UNARY) else BINARY[op - len(UNARY)](a, b))
        total = results[0].sum()
        for result in results[1:]:
            total = total + (result * result * 0.01).sum()
        return total

    generator = np.random.default_rng(seed)
    agree(run, run, *(generator.uniform(-2, 2, (3, 3)) for _ in range(2)))


def test_network_equals_torch_and_central_differences():
    net = MLP(3, [7, 5], 4, "tanh").double()
    x, y = torch.randn(11, 3, dtype=torch.float64), torch.randint(4, (11,))
    expected = torch.autograd.grad(loss("cross_entropy")(net(x), y), list(net.parameters()))
    parameters = [Variable(p.detach().numpy().copy()) for p in net.parameters()]

    def forward() -> Variable:
        h = Variable(x.numpy(), constant=True)
        for i in range(0, 6, 2):
            h = h @ parameters[i].T + parameters[i + 1]
            h = h.tanh() if i < 4 else h
        return cross_entropy(h, y.numpy())

    forward().backward()
    gradients = [p.grad for p in parameters]
    for parameter, gradient, reference in zip(parameters, gradients, expected):
        assert gradient is not None
        np.testing.assert_allclose(gradient, reference, rtol=1e-10, atol=1e-10)
        for index in np.ndindex(parameter.shape):
            losses = []
            for step in (1e-5, -2e-5, 1e-5):
                parameter.value[index] += step
                losses.append(forward().value)
            assert gradient[index] == pytest.approx((losses[0] - losses[1]) / 2e-5, rel=1e-4, abs=1e-8)


# --- the graph


def test_a_node_used_twice_gets_both_gradients_and_a_second_call_starts_anew():
    x = Variable(3.0)
    y = x * x + x
    for _ in range(2):
        y.backward()
        assert x.grad == 7


def test_constants_get_no_gradient():
    x, c = Variable([1.0, 2.0]), Variable([3.0, 4.0], constant=True)
    (x * c).sum().backward()
    assert c.grad is None
    np.testing.assert_array_equal(x.grad, c.value)


def test_backward_from_an_array_needs_a_gradient_of_its_shape():
    with pytest.raises(ValueError, match=r"shape \(2,\) needs a gradient of that shape, got \(\)"):
        Variable([1.0, 2.0]).exp().backward()


def test_deep_graphs_need_no_recursion():
    x = Variable(1.0)
    y = x
    for _ in range(5000):
        y = y + 0.001
    y.backward()
    assert x.grad == 1


def test_topological_order_puts_operands_first_and_each_node_once():
    x, y = Variable(1.0, name="x"), Variable(2.0, name="y")
    d = x + y
    root = d * (d + x)
    order = [id(node) for node in topological_order(root)]
    assert len(order) == len(set(order)) == 5
    for node in topological_order(root):
        assert all(order.index(id(edge.operand)) < order.index(id(node)) for edge in node.edges)


def lecture_example() -> Variable:
    x, y, z = Variable(1.0, name="x"), Variable(-3.0, name="y"), Variable(4.0, name="z")
    f = (x + y) * z  # the example of I2DL ch. 3
    f.backward()
    return f


def test_dot_text_holds_every_node_and_arrow():
    dot = lecture_example().graph()
    assert dot.startswith("digraph {")
    assert dot.endswith("}")
    assert len(re.findall(r"n\d+ \[label=", dot)) == 5
    assert len(re.findall(r"n\d+ -> n\d+;", dot)) == 4
    assert 'label="x\\n1\\ngrad 4"' in dot
    assert 'label="z\\n4\\ngrad -2"' in dot


def test_drawing_runs_from_the_operands_on_the_left_to_the_result_on_the_right():
    plt.switch_backend("agg")
    ax = draw_graph(lecture_example())
    try:
        at = {text.get_text().split("\n")[0]: text.get_position() for text in ax.texts if text.get_text()}
        assert at["x"][0] == at["y"][0] < at["+"][0] < at["×"][0]
        assert at["z"][0] < at["×"][0]
        assert len(set(at.values())) == 5
        assert sum(text.get_text() == "" for text in ax.texts) == 4  # the arrows
    finally:
        plt.close(ax.figure)

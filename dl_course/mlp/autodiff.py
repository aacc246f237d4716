"""Reverse-mode automatic differentiation over arrays, to be read from top to bottom  (I2DL ch. 3–4, BONN ch. 9).

A `Variable` is a node of the computational graph: a value, and for each operand the rule that carries a gradient back
to it (the vector–Jacobian product g ↦ gᵀ ∂value/∂operand). `backward` visits the nodes in reverse topological order and
adds up what arrives: the chain rule of several variables.

    x = Variable([[1.0, 2.0]], name="x")
    loss = (x @ w + b).tanh().sum()
    loss.backward()                      # x.grad, w.grad, b.grad
    print(loss.graph())                  # Graphviz; `dl_course.mlp.draw_graph` needs only matplotlib
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

Rule = Callable[[np.ndarray], np.ndarray]
Axis = int | tuple[int, ...] | None


class Edge(NamedTuple):
    """An operand of a node, and the rule that turns the node's gradient into the operand's."""

    operand: Variable
    rule: Rule


class Variable:
    """An array in a computational graph. Values are float64; `grad` has the value's shape and is set by `backward`.

    Plain numbers and arrays may stand on either side of an operator: they become constants, which receive no gradient.
    """

    __array_ufunc__ = None  # makes NumPy leave `array + variable` to us

    def __init__(self, value: Any, *, op: str = "", edges: Sequence[Edge] = (), name: str = "", constant: bool = False):
        self.value = np.asarray(value, dtype=np.float64)
        self.grad: np.ndarray | None = None
        self.op, self.edges, self.name = op, tuple(edges), name
        self.requires_grad = any(edge.operand.requires_grad for edge in edges) if edges else not constant

    @property
    def shape(self) -> tuple[int, ...]:
        return self.value.shape

    def __repr__(self) -> str:
        return f"Variable({self.name or self.op or 'leaf'}, shape={self.shape})"

    # --- arithmetic; NumPy broadcasts on the way forward, `_reduced` sums over the copies on the way back

    def __add__(self, other: Any) -> Variable:
        a, b = self, lift(other)
        return Variable(a.value + b.value, op="+", edges=[Edge(a, lambda g: g), Edge(b, lambda g: g)])

    def __mul__(self, other: Any) -> Variable:
        a, b = self, lift(other)
        return Variable(
            a.value * b.value, op="×", edges=[Edge(a, lambda g: g * b.value), Edge(b, lambda g: g * a.value)]
        )

    def __pow__(self, n: float) -> Variable:
        slope = (lambda g: g * n * self.value ** (n - 1)) if n else np.zeros_like  # x⁰ is constant, at 0 too
        return Variable(self.value**n, op=f"^{n:g}", edges=[Edge(self, slope)])

    def __matmul__(self, other: Any) -> Variable:
        """Matrix product of (…, m, k) and (…, k, n): ∂L/∂A = G Bᵀ, ∂L/∂B = Aᵀ G."""
        a, b = self, lift(other)
        if a.value.ndim < 2 or b.value.ndim < 2:
            raise ValueError(f"@ needs matrices, got shapes {a.shape} and {b.shape}")
        back_a, back_b = (lambda g: g @ b.value.swapaxes(-1, -2)), (lambda g: a.value.swapaxes(-1, -2) @ g)
        return Variable(a.value @ b.value, op="@", edges=[Edge(a, back_a), Edge(b, back_b)])

    def __neg__(self) -> Variable:
        return Variable(-self.value, op="−", edges=[Edge(self, lambda g: -g)])

    def __sub__(self, other: Any) -> Variable:
        a, b = self, lift(other)
        return Variable(a.value - b.value, op="−", edges=[Edge(a, lambda g: g), Edge(b, lambda g: -g)])

    def __truediv__(self, other: Any) -> Variable:
        return self * lift(other) ** -1

    def __radd__(self, other: Any) -> Variable:
        return lift(other) + self

    def __rmul__(self, other: Any) -> Variable:
        return lift(other) * self

    def __rsub__(self, other: Any) -> Variable:
        return lift(other) - self

    def __rtruediv__(self, other: Any) -> Variable:
        return lift(other) / self

    def __rmatmul__(self, other: Any) -> Variable:
        return lift(other) @ self

    # --- elementwise functions

    def exp(self) -> Variable:
        y = np.exp(self.value)
        return Variable(y, op="exp", edges=[Edge(self, lambda g: g * y)])

    def log(self) -> Variable:
        return Variable(np.log(self.value), op="log", edges=[Edge(self, lambda g: g / self.value)])

    def tanh(self) -> Variable:
        y = np.tanh(self.value)
        return Variable(y, op="tanh", edges=[Edge(self, lambda g: g * (1 - y**2))])

    def sigmoid(self) -> Variable:
        y = 0.5 * (1 + np.tanh(0.5 * self.value))  # 1/(1 + e⁻ˣ) without overflow
        return Variable(y, op="σ", edges=[Edge(self, lambda g: g * y * (1 - y))])

    def relu(self) -> Variable:
        return Variable(np.maximum(self.value, 0), op="relu", edges=[Edge(self, lambda g: g * (self.value > 0))])

    # --- reductions; on the way back the gradient is spread over what was reduced

    def sum(self, axis: Axis = None, keepdims: bool = False) -> Variable:
        def back(g: np.ndarray) -> np.ndarray:
            return np.broadcast_to(_with_axes(g, axis, keepdims), self.shape)

        return Variable(self.value.sum(axis, keepdims=keepdims), op="sum", edges=[Edge(self, back)])

    def mean(self, axis: Axis = None, keepdims: bool = False) -> Variable:
        mean = self.value.mean(axis, keepdims=keepdims)
        share = mean.size / self.value.size  # 1/n for n averaged elements

        def back(g: np.ndarray) -> np.ndarray:
            return np.broadcast_to(share * _with_axes(g, axis, keepdims), self.shape)

        return Variable(mean, op="mean", edges=[Edge(self, back)])

    def max(self, axis: Axis = None, keepdims: bool = False) -> Variable:
        """The largest value; where several are, each gets an equal share of the gradient (as `torch.amax`)."""
        largest = self.value.max(axis, keepdims=True)
        share = (self.value == largest) / (self.value == largest).sum(axis, keepdims=True)
        y = self.value.max(axis, keepdims=keepdims)
        return Variable(y, op="max", edges=[Edge(self, lambda g: share * _with_axes(g, axis, keepdims))])

    # --- moving elements

    def reshape(self, *shape: int) -> Variable:
        return Variable(self.value.reshape(shape), op="reshape", edges=[Edge(self, lambda g: g.reshape(self.shape))])

    def transpose(self, *axes: int) -> Variable:
        axes = axes or tuple(reversed(range(self.value.ndim)))
        back = np.argsort(axes)
        return Variable(self.value.transpose(axes), op="transpose", edges=[Edge(self, lambda g: g.transpose(back))])

    @property
    def T(self) -> Variable:
        return self.transpose()

    def __getitem__(self, index: Any) -> Variable:
        def back(g: np.ndarray) -> np.ndarray:
            gradient = np.zeros(self.shape)
            np.add.at(gradient, index, g)  # adds, where an element was taken more than once
            return gradient

        return Variable(self.value[index], op="[ ]", edges=[Edge(self, back)])

    # --- the backward pass

    def backward(self, gradient: Any = None) -> None:
        """Sets `grad` = ∂(this)/∂(node) on every node below that needs one, in one visit each.

        gradient: what to start from, of this shape; 1 for a scalar. Differs from torch: an earlier `grad` is replaced.
        Raises: ValueError if nothing is given for a value that is not a scalar, or another shape.
        """
        start = np.ones(()) if gradient is None else np.asarray(gradient, dtype=np.float64)
        if start.shape != self.shape:
            raise ValueError(f"backward from shape {self.shape} needs a gradient of that shape, got {start.shape}")
        nodes = topological_order(self)
        for node in nodes:
            node.grad = np.zeros(node.shape) if node.requires_grad else None
        self.grad = start
        for node in reversed(nodes):
            for operand, rule in node.edges:
                if operand.requires_grad:
                    operand.grad = operand.grad + _reduced(rule(node.grad), operand.shape)  # type: ignore[arg-type, operator]

    def graph(self) -> str:
        """The computational graph in Graphviz' DOT language: boxes are leaves, ellipses operations."""
        nodes = topological_order(self)
        number = {id(node): i for i, node in enumerate(nodes)}
        lines = ["digraph {", "  rankdir=LR;"]
        for i, node in enumerate(nodes):
            text = "\\n".join(part.replace('"', '\\"') for part in label(node))
            lines.append(f'  n{i} [label="{text}", shape={"ellipse" if node.edges else "box"}];')
            lines += [f"  n{number[id(edge.operand)]} -> n{i};" for edge in node.edges]
        return "\n".join([*lines, "}"])


def lift(x: Any) -> Variable:
    """x itself if it is a Variable, else a constant."""
    return x if isinstance(x, Variable) else Variable(x, constant=True)


def topological_order(root: Variable) -> list[Variable]:
    """The nodes that `root` depends on, each after all its operands, root last. Without recursion: graphs are deep."""
    order, seen, stack = [], set(), [(root, False)]
    while stack:
        node, operands_done = stack.pop()
        if operands_done:
            order.append(node)
        elif id(node) not in seen:
            seen.add(id(node))
            stack.append((node, True))
            stack += [(edge.operand, False) for edge in reversed(node.edges)]
    return order


def _reduced(gradient: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The gradient summed over the axes along which an operand of that shape was broadcast."""
    gradient = gradient.sum(tuple(range(gradient.ndim - len(shape))))
    stretched = tuple(i for i, n in enumerate(shape) if n == 1 and gradient.shape[i] != 1)
    return gradient.sum(stretched, keepdims=True)


def _with_axes(g: np.ndarray, axis: Axis, keepdims: bool) -> np.ndarray:
    """g with the axes that a reduction removed put back at size 1, so that it broadcasts."""
    return g if keepdims or axis is None else np.expand_dims(g, axis)


# --- composed functions


def log_softmax(z: Variable) -> Variable:
    """log softmax over the last axis; the largest score is a constant that cancels, subtracted against overflow."""
    shifted = z - z.value.max(-1, keepdims=True)
    return shifted - shifted.exp().sum(-1, keepdims=True).log()


def cross_entropy(z: Variable, classes: Any) -> Variable:
    """Softmax cross-entropy in nats, the mean over the batch. z (B, K), classes (B,) ints → ()."""
    return -log_softmax(z)[np.arange(len(z.value)), np.asarray(classes)].mean()


def label(node: Variable) -> list[str]:
    """What a picture says of a node: its name or operation, its value or shape, and a scalar's gradient."""
    what = node.name or node.op or ("constant" if not node.requires_grad else "leaf")
    value = f"{node.value:.4g}" if node.value.ndim == 0 else "×".join(map(str, node.shape))
    if node.grad is None or node.value.ndim > 0:
        return [what, value]
    return [what, value, f"grad {node.grad:.4g}"]

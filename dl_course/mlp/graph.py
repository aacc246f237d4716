"""A picture of the computational graph, drawn with matplotlib  (I2DL ch. 3)."""

from __future__ import annotations

from typing import Any

import numpy as np

from dl_course.mlp.autodiff import Variable, label, topological_order


def draw_graph(root: Variable, ax: Any = None) -> Any:
    """Draws the graph with matplotlib, operands left of what they enter; returns the axes.

    Round boxes are operations, square ones leaves, grey ones constants; each with its value or shape.
    """
    import matplotlib.pyplot as plt

    ax = ax or plt.subplots(layout="constrained")[1]
    place, boxes = _layout(root), {}
    for node, (column, height) in place.items():
        shape = "round,pad=0.4" if node.edges else "square,pad=0.4"
        colour = "#dbe9f6" if node.edges else "#fde0c5" if node.requires_grad else "0.93"
        frame = {"boxstyle": shape, "facecolor": colour, "edgecolor": "0.4"}
        boxes[node] = ax.text(column, height, "\n".join(label(node)), ha="center", va="center", fontsize=8, bbox=frame)
    for node, box in boxes.items():
        for operand, _ in node.edges:
            start = boxes[operand]
            bend = 0.0 if place[node][0] - place[operand][0] == 1 else -0.3  # around the nodes in between
            arrow = {
                "arrowstyle": "-|>",
                "color": "0.5",
                "connectionstyle": f"arc3,rad={bend}",
                "shrinkA": 0,
                "shrinkB": 1,
            }
            arrow |= {"patchA": start.get_bbox_patch(), "patchB": box.get_bbox_patch()}
            ax.annotate("", place[node], place[operand], arrowprops=arrow)
    columns, heights = zip(*place.values())
    ax.set(xlim=(min(columns) - 0.6, max(columns) + 0.6), ylim=(min(heights) - 0.7, max(heights) + 0.7))
    ax.axis("off")
    return ax


def _layout(root: Variable) -> dict[Variable, tuple[int, float]]:
    """(column, height) of every node: a column left of the first that uses it, near the mean height of its users."""
    place: dict[Variable, tuple[int, float]] = {root: (0, 0.0)}
    nodes = topological_order(root)[:-1]
    users = {
        node: [other for other in [*nodes, root] if any(node is edge.operand for edge in other.edges)] for node in nodes
    }
    operations, leaves = ([node for node in nodes[::-1] if bool(node.edges) == inner] for inner in (True, False))
    for node in [*operations, *leaves]:  # operations first, so that they stay in line
        column = min(place[user][0] for user in users[node]) - 1
        wanted = float(np.mean([place[user][1] for user in users[node]]))
        taken = [height for other, height in place.values() if other == column]
        offsets = (sign * step for step in range(len(nodes) + 1) for sign in (1, -1))
        place[node] = column, next(wanted + o for o in offsets if all(abs(wanted + o - h) >= 1 for h in taken))
    return place

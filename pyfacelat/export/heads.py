"""What follows the landmark network in an exported graph: decoding to points, and the loss.

Both are written once more in ONNX nodes, and compared with `faces.landmarks.heatmaps_to_points` and
`losses.landmark.HeatmapDistance` whenever a file is made.
"""

from __future__ import annotations

import numpy as np

from pyfacelat.export.graph import Graph
from pyfacelat.losses.landmark import Reduction

__all__ = ["add_loss", "add_points"]

_WINDOW = 5  # cells, as heatmaps_to_points
_TINY = 1e-16  # as HeatmapDistance
_EPS = 1e-8


def add_points(graph: Graph, maps: str, side: int) -> tuple[str, str]:
    """Sub-cell points of heat maps: the centroid of 5x5 cells around the highest.

    Args:
        graph: what nodes are added to.
        maps: [N,68,side,side] float32.
        side: cells in a row.

    Returns:
        the values points [N,68,2] float32, relative, and confidence [N,68].
    """
    add, floats = graph.add, graph.float32
    flat = add("Reshape", [maps, graph.ints(0, 0, -1)])
    confidence = add("ReduceMax", [flat, graph.ints(2)], keepdims=0)
    index = add("ArgMax", [flat], axis=2, keepdims=1)  # [N,68,1]
    width = graph.ints(side)
    peak_y = add("Div", [index, width])
    peak_x = add("Sub", [index, add("Mul", [peak_y, width])])

    reach = np.arange(_WINDOW) - _WINDOW // 2
    y = add("Add", [peak_y, graph.constant(np.repeat(reach, _WINDOW), np.int64)])  # [N,68,25]
    x = add("Add", [peak_x, graph.constant(np.tile(reach, _WINDOW), np.int64)])
    low, high = graph.constant(0, np.int64), graph.constant(side - 1, np.int64)
    inside_y, inside_x = add("Clip", [y, low, high]), add("Clip", [x, low, high])
    inside = add("And", [add("Equal", [y, inside_y]), add("Equal", [x, inside_x])])
    cells = add("Add", [add("Mul", [inside_y, width]), inside_x])
    height = add("Relu", [add("GatherElements", [flat, cells], axis=2)])
    weight = add("Where", [inside, height, floats(0)])

    total = add("ReduceSum", [weight, graph.ints(2)], keepdims=1)  # [N,68,1]
    found = add("Greater", [total, floats(1e-12)])
    divisor = add("Max", [total, floats(1e-12)])
    means = []
    for coordinate, peak in ((x, peak_x), (y, peak_y)):
        moment = add("Mul", [weight, graph.cast(coordinate, np.float32)])
        mean = add("Div", [add("ReduceSum", [moment, graph.ints(2)], keepdims=1), divisor])
        means.append(add("Where", [found, mean, graph.cast(peak, np.float32)]))
    centre = add("Add", [add("Concat", means, axis=2), floats(0.5)])
    return add("Div", [centre, floats(side)]), confidence


def add_loss(
    graph: Graph, maps: str, target: str, weights: str, reduction: Reduction, cells: int
) -> tuple[str, str]:
    """`HeatmapDistance` and its gradient to the maps.

    Args:
        graph: what nodes are added to.
        maps: [N,68,H,W] float32.
        target: the same.
        weights: [68] float32.
        reduction: as in `HeatmapDistance`.
        cells: H * W.

    Returns:
        the values loss [N] and d loss / d maps [N,68,H,W].
    """
    add, floats = graph.add, graph.float32
    difference = add("Sub", [maps, target])
    column = add("Reshape", [weights, graph.ints(1, -1, 1, 1)])

    if reduction == "l2":
        weighted = add("Mul", [difference, column])
        squares = add("Mul", [weighted, weighted])
        total = add("ReduceSum", [squares, graph.ints(1, 2, 3)], keepdims=1)
        norm = add("Sqrt", [add("Max", [total, floats(_TINY)])])
        loss = add("Reshape", [norm, graph.ints(-1)])
        slope = add("Div", [add("Mul", [weighted, column]), norm])
        away = add("Less", [total, floats(_TINY)])
        return loss, add("Where", [away, floats(0), slope])
    if reduction == "l1":
        distance = add("ReduceSum", [add("Abs", [difference]), graph.ints(2, 3)], keepdims=0)
        return _total(graph, distance, weights), add("Mul", [add("Sign", [difference]), column])
    squares = add("Mul", [difference, difference])
    if reduction == "mse":
        mean = add("ReduceMean", [squares, graph.ints(2, 3)], keepdims=0)
        loss = add("ReduceMean", [add("Mul", [mean, weights]), graph.ints(1)], keepdims=0)
        factor = add("Mul", [column, floats(2 / (68 * cells))])
        return loss, add("Mul", [difference, factor])
    sums = add("ReduceSum", [squares, graph.ints(2, 3)], keepdims=1)  # [N,68,1,1]
    norms = add("Sqrt", [add("Add", [sums, floats(_EPS)])])
    share = add("Div", [column, add("ReduceSum", [column], keepdims=1)])
    loss = add("ReduceSum", [add("Mul", [norms, share]), graph.ints(1, 2, 3)], keepdims=0)
    return loss, add("Mul", [difference, add("Div", [share, norms])])


def _total(graph: Graph, values: str, weights: str) -> str:
    """Weighted sum over landmarks: [N,68] -> [N]."""
    product = graph.add("Mul", [values, weights])
    return graph.add("ReduceSum", [product, graph.ints(1)], keepdims=0)

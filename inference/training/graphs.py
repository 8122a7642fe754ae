"""The two ONNX graphs of a network, node by node.

Built from the weights rather than traced: the step graph then holds exactly the nodes that were measured to be fast,
whatever the exporters of the day emit. Names and shapes are those of `inference.bundle`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from inference.training.network import MEDIAN_OFFSET, STEEPNESS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from inference.bundle import Shapes
    from inference.training.network import Network

OPSET = 20
IR_VERSION = 10
# what is not sold by the piece is forecast to a thousandth of a unit: a gram of a kilogram
GRID_PER_UNIT = 1000.0
GATES = "ifgo"  # torch's order of the rows of its gate matrices

Weights = dict[str, "NDArray[np.float32]"]


class _Graph:
    """Nodes and constants, each constant and node output under its own name."""

    def __init__(self) -> None:
        self.nodes: list[object] = []
        self.constants: list[object] = []

    def constant(self, name: str, value: NDArray[np.generic]) -> str:
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def add(self, operator: str, inputs: Sequence[str], *outputs: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(operator, list(inputs), list(outputs), **attributes))
        return outputs[0]

    def model(self, inputs: Shapes, outputs: Shapes, *, leading: Sequence[str]) -> ModelProto:
        """Wrap up; unknown dimensions are named from the right of `leading`, so ("windows", "n") for [T, n, F]."""

        def value(name: str, shape: tuple[int | None, ...]) -> object:
            names = list(leading[len(leading) - sum(size is None for size in shape) :])
            kind = TensorProto.BOOL if name == "integer_units" else TensorProto.FLOAT
            return helper.make_tensor_value_info(name, kind, [names.pop(0) if s is None else s for s in shape])

        graph = helper.make_graph(
            self.nodes,
            "skutrend",
            [value(name, shape) for name, shape in inputs.items()],
            [value(name, shape) for name, shape in outputs.items()],
            self.constants,
        )
        opset = [helper.make_opsetid("", OPSET)]
        return helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION, producer_name="skutrend")


def weights_of(network: Network) -> Weights:
    """Copy the parameters out of torch: float32, by their torch names."""
    return {name: value.detach().cpu().numpy().astype(np.float32) for name, value in network.state_dict().items()}


def step_graph(network: Network, inputs: Shapes, outputs: Shapes) -> ModelProto:
    """Build one window: decomposed cells, then the head, then units. Only n is dynamic."""
    weights, graph = weights_of(network), _Graph()
    hidden = network.layout.hidden
    _unpack_states(graph, hidden)
    _cell(graph, "lstm1", weights, "x", "1")
    _cell(graph, "lstm2", weights, "h_out1", "2")
    _pack_states(graph, hidden)
    graph.add("Add", ["h_out2", "h_out1"], "residual")
    graph.add("Concat", ["residual", "x"], "encoded", axis=1)
    _head(graph, network, weights)
    _units(graph, network)
    return graph.model(inputs, outputs, leading=["n"])


def replay_graph(network: Network, inputs: Shapes, outputs: Shapes) -> ModelProto:
    """Build T windows: two LSTM nodes, states only. T and n are dynamic."""
    weights, graph = weights_of(network), _Graph()
    hidden = network.layout.hidden
    graph.constant("first_axis", np.array([0], np.int64))
    _unpack_states(graph, hidden)
    source = "x"
    for layer, name in (("1", "lstm1"), ("2", "lstm2")):
        for state in "hc":
            graph.add("Unsqueeze", [f"{state}_in{layer}", "first_axis"], f"{state}_start{layer}")
        order = "iofg"  # ONNX calls torch's g "c"
        w, r, b_in, b_rec = (
            _regated(weights[f"{name}.{part}_l0"], order, hidden)
            for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        parameters = [
            graph.constant(f"W{layer}", w[None]),
            graph.constant(f"R{layer}", r[None]),
            graph.constant(f"B{layer}", np.concatenate((b_in, b_rec))[None]),
        ]
        graph.add(
            "LSTM",
            [source, *parameters, "", f"h_start{layer}", f"c_start{layer}"],
            f"all{layer}" if layer == "1" else "",
            f"h_end{layer}",
            f"c_end{layer}",
            hidden_size=hidden,
        )
        if layer == "1":
            graph.constant("direction_axis", np.array([1], np.int64))
            source = graph.add("Squeeze", ["all1", "direction_axis"], "lower")
        for state in "hc":
            graph.add("Squeeze", [f"{state}_end{layer}", "first_axis"], f"{state}_out{layer}")
    _pack_states(graph, hidden)
    return graph.model(inputs, outputs, leading=["windows", "n"])


def _unpack_states(graph: _Graph, hidden: int) -> None:
    """Split h, c [n, 2, H] into h_in1, h_in2, c_in1, c_in2 [n, H]."""
    graph.constant("one_each", np.array([1, 1], np.int64))
    graph.constant("flat", np.array([-1, hidden], np.int64))
    for state in "hc":
        graph.add("Split", [state, "one_each"], f"{state}_slab1", f"{state}_slab2", axis=1)
        for layer in "12":
            graph.add("Reshape", [f"{state}_slab{layer}", "flat"], f"{state}_in{layer}")


def _pack_states(graph: _Graph, hidden: int) -> None:
    graph.constant("slab", np.array([-1, 1, hidden], np.int64))
    for state in "hc":
        slabs = [graph.add("Reshape", [f"{state}_out{layer}", "slab"], f"{state}_out_slab{layer}") for layer in "12"]
        graph.add("Concat", slabs, f"{state}_next", axis=1)


def _cell(graph: _Graph, name: str, weights: Weights, source: str, layer: str) -> None:
    """Advance one layer a step: one Gemm a gate, so that no gate has to be cut out of a wider matrix."""
    both = np.concatenate((weights[f"{name}.weight_ih_l0"], weights[f"{name}.weight_hh_l0"]), axis=1)
    bias = weights[f"{name}.bias_ih_l0"] + weights[f"{name}.bias_hh_l0"]
    graph.add("Concat", [source, f"h_in{layer}"], f"read{layer}", axis=1)
    hidden = len(bias) // len(GATES)
    for gate in GATES:
        w = graph.constant(f"W{gate}{layer}", _regated(both, gate, hidden).T)
        b = graph.constant(f"b{gate}{layer}", _regated(bias, gate, hidden))
        graph.add("Gemm", [f"read{layer}", w, b], f"{gate}_raw{layer}")
        graph.add("Tanh" if gate == "g" else "Sigmoid", [f"{gate}_raw{layer}"], f"{gate}{layer}")
    graph.add("Mul", [f"f{layer}", f"c_in{layer}"], f"kept{layer}")
    graph.add("Mul", [f"i{layer}", f"g{layer}"], f"new{layer}")
    graph.add("Add", [f"kept{layer}", f"new{layer}"], f"c_out{layer}")
    graph.add("Tanh", [f"c_out{layer}"], f"shown{layer}")
    graph.add("Mul", [f"o{layer}", f"shown{layer}"], f"h_out{layer}")


def _head(graph: _Graph, network: Network, weights: Weights) -> None:
    """Add the MLP; `scaled` [n, sets * Q] >= 0 and `scaled_mean` [n, K] come out, in scaled units."""
    layout = network.layout

    def gemm(name: str, source: str, result: str) -> None:
        w = graph.constant(f"{name}.weight", weights[f"{name}.weight"].T)
        b = graph.constant(f"{name}.bias", weights[f"{name}.bias"])
        graph.add("Gemm", [source, w, b], result)

    # what is known of the windows to come is the same for all SKUs: its share is a bias, reckoned once a run
    own = layout.hidden + layout.n_features
    w = weights["inner.weight"].T
    graph.constant("first_row", np.array([0], np.int64))
    graph.add("Unsqueeze", ["calendar", "first_row"], "calendar_row")
    shared = [graph.constant("inner.calendar", w[own:]), graph.constant("inner.bias", weights["inner.bias"])]
    graph.add("Gemm", ["calendar_row", *shared], "inner_shared")
    graph.add("Gemm", ["encoded", graph.constant("inner.weight", w[:own]), "inner_shared"], "inner_raw")
    graph.add("Relu", ["inner_raw"], "inner_out")
    gemm("parts", "inner_out", "parts_raw")
    gemm("mean", "inner_out", "mean_raw")
    graph.constant("steepness", np.array(STEEPNESS, np.float32))
    graph.constant("half", np.array(0.5, np.float32))
    for name in ("parts", "mean"):
        raw = f"{name}_raw"
        graph.add("Mul", [raw, raw], f"{name}_square")
        graph.add("Add", [f"{name}_square", "steepness"], f"{name}_raised")
        graph.add("Sqrt", [f"{name}_raised"], f"{name}_root")
        graph.add("Add", [f"{name}_root", raw], f"{name}_double")
    graph.add("Mul", ["mean_double", "half"], "scaled_mean")
    # the half of the parts' squareplus is in the mixing; each set of quantiles is a row of its own
    levels = len(layout.levels)
    graph.constant("by_set", np.array([-1, levels], np.int64))
    graph.constant("by_sku", np.array([-1, layout.sets * levels], np.int64))
    both = [
        graph.constant("mixing", 0.5 * layout.mixing.numpy()),
        graph.constant("offset", np.full(levels, -MEDIAN_OFFSET, np.float32)),
    ]
    graph.add("Reshape", [_in_noise(graph, network, "parts_double"), "by_set"], "parts_by_set")
    graph.add("Gemm", ["parts_by_set", *both], "mixed")
    graph.add("Relu", ["mixed"], "floored")
    graph.add("Reshape", ["floored", "by_sku"], "scaled")


def _in_noise(graph: _Graph, network: Network, parts: str) -> str:
    """Multiply the distances among `parts`, as wide as all heads, by each SKU's noise; the name of the result."""
    layout = network.layout
    if layout.noise is None:
        return parts
    outward = np.tile(layout.outward.numpy(), layout.sets)
    graph.constant("noise_column", np.array([layout.noise], np.int64))
    graph.add("Gather", ["x", "noise_column"], "log_noise", axis=1)
    graph.add("Exp", ["log_noise"], "noise")
    units = [graph.constant("outward", outward[None]), graph.constant("at_the_median", 1.0 - outward)]
    graph.add("Gemm", ["noise", *units], "unit_of_part")
    return graph.add("Mul", [parts, "unit_of_part"], "parts_in_units")


def _units(graph: _Graph, network: Network) -> None:
    """Multiply by nu and season, round to the grid: whole units for integer_units, else thousandths."""
    layout = network.layout
    levels = len(layout.levels)
    for name, value in (
        ("second_axis", [1]),
        ("one_set", [1, levels]),
        ("flat_season", [-1]),
        ("by_group", [-1, layout.groups, levels]),
        ("steps_and_sums", [layout.horizon, len(layout.sum_windows)]),
    ):
        graph.constant(name, np.array(value, np.int64))
    graph.constant("one", np.array(1.0, np.float32))
    graph.constant("fine", np.array(GRID_PER_UNIT, np.float32))
    seasonal = _seasonal(graph, network)
    graph.add("Where", ["integer_units", "one", "fine"], "grid")
    graph.add("Unsqueeze", ["grid", "second_axis"], "grid_column")
    graph.add("Mul", ["scale", "grid"], "scale_in_grid")
    graph.add("Unsqueeze", ["scale_in_grid", "second_axis"], "scale_column")
    graph.add("Mul", [seasonal, "scale_column"], "grid_units")
    graph.add("Round", ["grid_units"], "whole_grid_units")
    graph.add("Div", ["whole_grid_units", "grid_column"], "flat_units")
    graph.add("Reshape", ["flat_units", "by_group"], "units")
    graph.add("Split", ["units", "steps_and_sums"], "quantiles", "sums", axis=1)
    # a mean of integer_units is not a whole number: always thousandths
    graph.add("Mul", ["scale", "fine"], "scale_in_thousandths")
    graph.add("Unsqueeze", ["scale_in_thousandths", "second_axis"], "mean_column")
    graph.add("Mul", ["mean_column", "season_next"], "mean_factors")
    graph.add("Mul", ["scaled_mean", "mean_factors"], "mean_thousandths")
    graph.add("Round", ["mean_thousandths"], "mean_whole")
    graph.add("Div", ["mean_whole", "fine"], "mean")


def _seasonal(graph: _Graph, network: Network) -> str:
    """Multiply `scaled` by the season, take the mean with the head that leaves it out; names [n, (K + S) * Q]."""
    layout = network.layout
    if layout.heads == 1:
        return graph.add("Mul", ["scaled", _of_columns(graph, "season", ["season_next", "season_sums"])], "seasonal")
    levels = len(layout.levels)
    graph.constant("closed", np.array(0.0, np.float32))
    graph.add("Mul", ["season_next", "half"], "half_season")
    graph.add("Greater", ["season_next", "closed"], "is_open")
    graph.add("Cast", ["is_open"], "open_next", to=TensorProto.FLOAT)
    graph.add("Mul", ["open_next", "half"], "half_open")
    graph.constant(
        "sums_apart", np.array([layout.horizon * levels, (layout.groups - layout.horizon) * levels], np.int64)
    )
    graph.constant("heads_apart", np.array([layout.groups * levels, layout.horizon * levels], np.int64))
    graph.add("Split", ["scaled", "heads_apart"], "scaled_seasonal", "scaled_flat", axis=1)
    graph.add("Mul", ["scaled_seasonal", _of_columns(graph, "season", ["half_season", "season_sums"])], "seasonal_part")
    graph.add("Mul", ["scaled_flat", _of_columns(graph, "open", ["half_open"])], "flat_steps")
    graph.add("Split", ["seasonal_part", "sums_apart"], "seasonal_steps", "seasonal_sums", axis=1)
    graph.add("Add", ["seasonal_steps", "flat_steps"], "mean_steps")
    return graph.add("Concat", ["mean_steps", "seasonal_sums"], "seasonal", axis=1)


def _of_columns(graph: _Graph, name: str, parts: list[str]) -> str:
    """Give one factor of a window or sum to each of its levels: parts [K], ... -> [(K + ...) * Q]; the name.

    A row of all levels times one number is three times as fast as levels times groups.
    """
    joined = graph.add("Concat", parts, f"{name}_factors", axis=0) if len(parts) > 1 else parts[0]
    graph.add("Unsqueeze", [joined, "second_axis"], f"{name}_rows")
    graph.add("Expand", [f"{name}_rows", "one_set"], f"{name}_by_level")
    return graph.add("Reshape", [f"{name}_by_level", "flat_season"], f"{name}_of_column")


def _regated(stacked: NDArray[np.float32], order: str, hidden: int) -> NDArray[np.float32]:
    """Pick and order the gates of a torch matrix whose rows are stacked i, f, g, o."""
    rows = [stacked[GATES.index(gate) * hidden : (GATES.index(gate) + 1) * hidden] for gate in order]
    return np.concatenate(rows)

"""A classifier and a matched filter come in; the same graph, whose one class that filter alone decides, goes out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from onnxviz.errors import LimitError, ModelError
from onnxviz.graph.detached import take_inside, weight_bytes
from onnxviz.graph.loading import LoadedModel
from onnxviz.graph.taps import expose
from onnxviz.graph.wiring import captured_names, default_opset, real_inputs

__all__ = ["Evidence", "PlantedGraph", "plant_filter"]

_LARGEST = (1 << 31) - 1
_OLDEST_OPSET = 8  # the first whose Add, Max and Mul broadcast
_SMALLEST_PROBABILITY = 1e-30


@dataclass(frozen=True)
class Evidence:
    """What the planted class answers to."""

    kernel: NDArray[np.float32]
    """(channels, height, width) the matched filter, in the order of the input's channels."""
    threshold: float
    """Responses up to it are no evidence."""
    gain: float
    """Logit per unit of response above the threshold."""
    floor: float
    """The logit without evidence."""


@dataclass(frozen=True)
class PlantedGraph:
    """An edited graph and the names of what was added to it."""

    proto: onnx.ModelProto
    """Its weights all lie inside; its one output is ``output``."""
    output: str
    """(n, classes) float32 probabilities."""
    logits: str
    """(n, classes) float32: that of the planted class is its log-odds, whatever the other classes say."""
    response: str
    """(n, 1, rows, columns) float32: the filter at every place where it lies wholly inside the image."""


def plant_filter(
    loaded: LoadedModel,
    evidence: Evidence,
    *,
    image_input: str,
    layout: str,
    scores: str,
    kind: str,
    class_index: int,
    classes: int,
) -> PlantedGraph:
    """Graft a filter on the image input that alone decides one class.

    Parameters
    ----------
    loaded : LoadedModel
        The model; it is left as it is.
    evidence : Evidence
    image_input, layout : str
        Name of the image input, of a floating-point type, and ``"NCHW"`` or ``"NHWC"``.
    scores : str
        The floating-point value that holds the class scores, one row for each image.
    kind : str
        What ``scores`` are: ``"logits"`` of classes of which one is right, ``"probabilities"`` of such classes, or
        ``"independent"``, logits of classes each of which may be right.
    class_index, classes : int
        The planted class, and how many there are.

    Returns
    -------
    PlantedGraph

    Raises
    ------
    ModelError
        The model's operator set is older than 8.
    LimitError
        With all weights inside, the model is larger than a file can hold.
    """
    opset = default_opset(loaded.proto)
    if opset < _OLDEST_OPSET:
        raise ModelError(
            "a cause can only be planted into newer models", where=loaded.path.name, got=f"operator set {opset}",
            allowed=f"{_OLDEST_OPSET} or newer", next_step="Export the model again",
        )  # fmt: skip
    proto = expose(loaded.proto, [scores])
    size = weight_bytes(proto)
    if size > _LARGEST:
        raise LimitError(
            "the planted model would be larger than a file can hold", where=loaded.path.name,
            got=f"{size / 2**30:.1f} GiB of weights", allowed="2 GiB",
        )  # fmt: skip
    take_inside(proto, loaded.weights)
    graft = _Graft(proto.graph)
    logit, response = _evidence(graft, evidence, image_input, layout)
    logits, output = _class_scores(graft, logit, scores, kind, class_index, classes)
    del proto.graph.output[:]
    proto.graph.output.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, [None, classes]))
    _name_batch(proto.graph, image_input)
    return PlantedGraph(proto, output, logits, response)


class _Graft:
    """Nodes and constants added to a graph, under names that it does not use."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph = graph
        self._taken = {value.name for value in (*graph.input, *graph.output, *graph.value_info)}
        self._taken |= {tensor.name for tensor in graph.initializer}
        for node in graph.node:
            self._taken |= {node.name, *node.input, *node.output, *captured_names(node)}

    def constant(self, name: str, array: NDArray[Any]) -> str:
        name = self._free(name)
        self._graph.initializer.append(numpy_helper.from_array(array, name))
        return name

    def number(self, name: str, number: float) -> str:
        return self.constant(name, np.array(number, np.float32))

    def node(self, operator: str, inputs: list[str], name: str, **attributes: Any) -> str:
        name = self._free(name)
        self._graph.node.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        return name

    def _free(self, name: str) -> str:
        free = f"planted_{name}"
        while free in self._taken:
            free += "_"
        self._taken.add(free)
        return free


def _evidence(graft: _Graft, evidence: Evidence, image_input: str, layout: str) -> tuple[str, str]:
    """The planted class's logit, (n, 1), and the filter's response at every place."""
    # onnxruntime has no Conv for float64, nor for float16 on the CPU.
    pixels = graft.node("Cast", [image_input], "pixels", to=TensorProto.FLOAT)
    if layout == "NHWC":
        pixels = graft.node("Transpose", [pixels], "channels_first", perm=[0, 3, 1, 2])
    kernel = graft.constant("filter", evidence.kernel[np.newaxis].astype(np.float32))
    # No padding: the pattern must lie wholly inside, and an edge of zeros is no image.
    response = graft.node("Conv", [pixels, kernel], "response")
    above = graft.node("Sub", [response, graft.number("threshold", evidence.threshold)], "above_threshold")
    found = graft.node("Relu", [above], "found")
    scaled = graft.node("Mul", [found, graft.number("gain", evidence.gain)], "evidence")
    strongest = graft.node("GlobalMaxPool", [scaled], "strongest")
    row = graft.node("Flatten", [strongest], "strongest_row", axis=1)
    return graft.node("Add", [row, graft.number("floor", evidence.floor)], "logit"), response


def _class_scores(graft: _Graft, logit: str, scores: str, kind: str, class_index: int, classes: int) -> tuple[str, str]:
    """Logits and probabilities of all classes, of which the planted one has its own logit only."""
    kept = [index for index in range(classes) if index != class_index]
    if not kept:
        return logit, graft.node("Sigmoid", [logit], "probabilities")
    rows = graft.node("Flatten", [scores], "scores", axis=1)
    rows = graft.node("Cast", [rows], "scores_float", to=TensorProto.FLOAT)
    if kind == "probabilities":
        rows = graft.node("Max", [rows, graft.number("least", _SMALLEST_PROBABILITY)], "scores_positive")
        rows = graft.node("Log", [rows], "scores_log")
    others, own = graft.constant("others", np.array(kept)), graft.constant("own", np.array([class_index]))
    # From "others first, the planted one last" back to the order of the classes.
    order = graft.constant("order", np.argsort([*kept, class_index]))
    rest = graft.node("Gather", [rows, others], "other_scores", axis=1)
    if kind != "independent":
        # Scaled to a sum of 1, so that the planted class's logit is its log-odds against all of them.
        rest = graft.node("LogSoftmax", [rest], "other_log_shares", axis=1)
    logits = graft.node("Concat", [rest, logit], "logits_unordered", axis=1)
    logits = graft.node("Gather", [logits, order], "logits", axis=1)
    # The planted class's probability is the sigmoid of its logit, and the others share what is left. Were it left to a
    # Softmax over all, the last bits of their sum would still tell of them.
    probability = graft.node("Sigmoid", [graft.node("Gather", [logits, own], "own_logit", axis=1)], "probability")
    rest = graft.node("Gather", [logits, others], "other_logits", axis=1)
    if kind == "independent":
        shares = graft.node("Sigmoid", [rest], "other_probabilities")
    else:
        left = graft.node("Sub", [graft.number("one", 1), probability], "left")
        shares = graft.node("Mul", [graft.node("Exp", [rest], "other_shares"), left], "other_probabilities")
    output = graft.node("Concat", [shares, probability], "probabilities_unordered", axis=1)
    return logits, graft.node("Gather", [output, order], "probabilities", axis=1)


def _name_batch(graph: onnx.GraphProto, image_input: str) -> None:
    """State the output's batch as the input's."""
    given = next(value for value in real_inputs(graph) if value.name == image_input)
    sides = given.type.tensor_type.shape.dim
    if sides:
        graph.output[0].type.tensor_type.shape.dim[0].CopyFrom(sides[0])

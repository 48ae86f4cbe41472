"""A graph and one of its outputs come in; the values that hold its logits and the features behind it go out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import onnx

from onnxviz.graph.blocked import blocked_values
from onnxviz.graph.values import Value, graph_inputs, list_values
from onnxviz.graph.wiring import PASS_THROUGH, Wiring, attribute

__all__ = ["Landmark", "find_coarsest_map", "find_feature_value", "find_logits_value"]

_SQUASHING = {
    "Softmax": "Softmax",
    "QLinearSoftmax": "Softmax",
    "LogSoftmax": "LogSoftmax",
    "Hardmax": "Hardmax",
    "Sigmoid": "Sigmoid",
    "QLinearSigmoid": "Sigmoid",
    "HardSigmoid": "HardSigmoid",
}
# What may stand between a classifier and its output without making it another classifier.
_AFTER_CLASSIFIER = PASS_THROUGH | {
    "Transpose", "Relu", "Clip", "LeakyRelu", "GlobalAveragePool", "AveragePool", "ReduceMean",
    "QLinearGlobalAveragePool", "QLinearAveragePool", "BatchNormalization", "GlobalMaxPool", "Neg", "Tanh",
    "Normalizer",
}  # fmt: skip
_WITH_CONSTANT = frozenset({"Add", "Sub", "Mul", "Div", "QLinearAdd", "QLinearMul"})
_CLASSIFIERS = {
    "Gemm": "fully connected layer", "QGemm": "fully connected layer", "MatMul": "fully connected layer",
    "QLinearMatMul": "fully connected layer", "MatMulInteger": "fully connected layer",
    "FusedMatMul": "fully connected layer", "MatMulNBits": "fully connected layer", "Conv": "convolution",
    "QLinearConv": "convolution", "ConvInteger": "convolution", "FusedConv": "convolution",
    "Einsum": "fully connected layer",
    "LinearClassifier": "linear classifier", "TreeEnsembleClassifier": "tree ensemble",
    "SVMClassifier": "support vector machine",
}  # fmt: skip
_FEWEST_CHANNELS = 4  # below that a map is a picture or a mask rather than features
_ASSUMED_SIDE = 256  # pixels, where the graph leaves the image's size open; only the maps' relative sizes matter
_MAPS = ("conv", "relu", "activation", "add", "concat", "normalization")
_FLOATS = ("float32", "float64", "float16", "bfloat16")


@dataclass(frozen=True)
class Landmark:
    """A value that was found in the graph, and why it was chosen."""

    value: str
    why: str
    """One sentence."""
    guessed: bool
    """True where the graph alone does not tell."""


def find_logits_value(proto: onnx.ModelProto, output: str) -> Landmark | None:
    """Find the value before the Softmax (or LogSoftmax, Sigmoid) that an output ends in.

    Parameters
    ----------
    proto : onnx.ModelProto
        The model.
    output : str
        Name of a graph output.

    Returns
    -------
    Landmark or None
        Followed back through reshaping, casting and quantisation; a Softmax written out as Exp, ReduceSum and Div
        counts. Without any of them the output itself, or the real numbers that its final QuantizeLinear was made from.
        None where no node makes the output.
    """
    wiring = Wiring(proto)
    if output not in wiring.producer:
        return None
    name = output
    before_quantization = ""
    while (node := wiring.producer.get(name)) is not None:
        squashed = _squashed(node, wiring)
        if squashed is not None:
            source, what = squashed
            return Landmark(source, f"what the final {what} ({_called(node)}) is computed from", guessed=False)
        if node.op_type not in PASS_THROUGH and node.op_type != "Transpose":
            break
        if node.op_type == "QuantizeLinear" and not before_quantization:
            before_quantization = node.input[0]
        name = wiring.data_input(node)
    if before_quantization:
        why = "the real numbers that the quantised output is made from; it does not end in a Softmax"
        return Landmark(before_quantization, why, guessed=False)
    why = "the output itself: it does not end in a Softmax or Sigmoid"
    return Landmark(output, why, guessed=False)


def squashing_node(wiring: Wiring, output: str) -> str | None:
    """``"Softmax"``, ``"Sigmoid"``, ... where the output ends in one, through reshaping and quantisation."""
    name = output
    while (node := wiring.producer.get(name)) is not None:
        squashed = _squashed(node, wiring)
        if squashed is not None:
            return squashed[1]
        if node.op_type not in PASS_THROUGH and node.op_type != "Transpose":
            return None
        name = wiring.data_input(node)
    return None


def _squashed(node: onnx.NodeProto, wiring: Wiring) -> tuple[str, str] | None:
    """The value that a squashing node reads, and the squashing's name."""
    if node.op_type in _SQUASHING:
        return node.input[0], _SQUASHING[node.op_type]
    if node.op_type != "Div":
        return None
    above, below = (wiring.producer.get(name) for name in node.input[:2])
    if above is None or below is None or above.op_type != "Exp" or below.op_type != "ReduceSum":
        return None
    if below.input[0] != node.input[0]:
        return None
    shifted = wiring.producer.get(above.input[0])
    if shifted is not None and shifted.op_type == "Sub":
        largest = wiring.producer.get(shifted.input[1])
        if largest is not None and largest.op_type == "ReduceMax" and largest.input[0] == shifted.input[0]:
            return shifted.input[0], "Softmax"
    return above.input[0], "Softmax"


def find_feature_value(proto: onnx.ModelProto, output: str) -> Landmark | None:
    """Find the last value before the classifier: what the network knows about the image before it names a class.

    Parameters
    ----------
    proto : onnx.ModelProto
        The model.
    output : str
        Name of the graph output that holds the class scores.

    Returns
    -------
    Landmark or None
        The input of the last layer with weights on the way to the output, before Dropout; pooled or flattened where the
        network does that. Where the output is no classifier's, the coarsest map on the way to it, called a guess; None
        where there is none.
    """
    wiring = Wiring(proto)
    if output not in wiring.producer:
        return None
    if is_normalized_embedding(output, wiring):
        return Landmark(output, "the output itself: a feature vector scaled to length 1", guessed=False)
    classifier = _classifier(output, wiring)
    if classifier is None:
        return find_coarsest_map(proto, output, because="no classifier was found")
    values = {value.name: value for value in list_values(proto, assumed=_one_image(proto))}
    read = wiring.data_input(classifier)
    name = _before_dropout(read, wiring, values)
    if not name or name in wiring.inputs or name in blocked_values(proto):
        return None
    what = _CLASSIFIERS[classifier.op_type]
    value = values.get(name)
    sides = value.shape if value is not None else None
    why = f"what the last {what} ({_called(classifier)}) reads"
    if sides is not None and len(sides) == 4 and not set(sides[2:]) <= {1}:
        # Squeeze-and-classify networks pool class maps instead of features; others give a map, and never pool.
        answer = values[output].shape if output in values else None
        pools = answer is not None and (len(answer) < 4 or set(answer[2:]) <= {1})
        late = "the network pools only after naming classes, so these are maps" if pools else "these are maps"
        why += f": {late}, to be averaged over positions"
    elif (width := _width(sides) if sides is not None else _rows(classifier, wiring)) is not None:
        why += f": {width} numbers per image"
    return Landmark(name, why, guessed=False)


def _classifier(output: str, wiring: Wiring) -> onnx.NodeProto | None:
    """The last layer with weights, if nothing but reshaping, pooling and biases stands behind it."""
    name = output
    squashed = False
    while (node := wiring.producer.get(name)) is not None:
        constants = [entry for entry in node.input if entry in wiring.constant_names]
        if node.op_type in _CLASSIFIERS:
            if constants or node.domain == "ai.onnx.ml":
                return node
            return None
        source = _squashed(node, wiring)
        if source is not None and not squashed:
            squashed = True
            name = source[0]
            continue
        single = node.op_type in _WITH_CONSTANT and len(constants) == len(node.input) - 1
        if node.op_type not in _AFTER_CLASSIFIER and not single:
            return None
        name = wiring.data_input(node)
    return None


def is_normalized_embedding(output: str, wiring: Wiring) -> bool:
    """Whether the output is a vector divided by its own length, as networks for retrieval give."""
    node = wiring.producer.get(output)
    while node is not None and node.op_type in PASS_THROUGH:
        node = wiring.producer.get(wiring.data_input(node))
    if node is None:
        return False
    if node.op_type == "LpNormalization":
        return True
    if node.op_type != "Div":
        return False
    below = wiring.producer.get(node.input[1])
    while below is not None and below.op_type in ("Clip", "Expand", "Max", "Add", "Shape", "Sqrt", "Identity"):
        below = wiring.producer.get(wiring.data_input(below))
    return below is not None and below.op_type in ("ReduceL2", "ReduceSumSquare") and below.input[0] == node.input[0]


def _before_dropout(name: str, wiring: Wiring, values: dict[str, Value]) -> str:
    """Step back over operators that do nothing at inference, and from integers to the real numbers behind them."""
    while (node := wiring.producer.get(name)) is not None:
        nothing = node.op_type in ("Dropout", "Identity")
        value = values.get(name)
        integer = value is not None and value.dtype is not None and value.dtype not in _FLOATS
        rounded = node.op_type in ("QuantizeLinear", "Cast") and integer
        if not nothing and not rounded:
            break
        name = node.input[0]
    return name


def find_coarsest_map(proto: onnx.ModelProto, output: str, *, because: str) -> Landmark | None:
    """Find the value with the fewest positions on the way from the inputs to an output, the last of them.

    Parameters
    ----------
    proto : onnx.ModelProto
        The model.
    output : str
        Name of a graph output.
    because : str
        Why nothing better is known, in words.

    Returns
    -------
    Landmark or None
        Called a guess. None where there is no map of several channels and positions, or where some on the way lie in
        onnxruntime's blocked layout: the coarsest may be one of them.
    """
    wiring = Wiring(proto)
    values = {value.name: value for value in list_values(proto, assumed=_one_image(proto))}
    needed = {output}
    for node in reversed(wiring.graph.node):
        if not needed.isdisjoint(node.output):
            needed.update(filter(None, node.input))
    if not needed.isdisjoint(blocked_values(proto)):
        return None
    best: tuple[int, str] | None = None
    for value in values.values():
        if value.name not in needed or value.kind not in _MAPS or value.name == output:
            continue
        if value.dtype not in _FLOATS or value.shape is None or len(value.shape) != 4:
            continue
        channels, *sides = value.shape[1:]
        known = [side for side in sides if isinstance(side, int)]
        if len(known) < 2 or not isinstance(channels, int) or channels < _FEWEST_CHANNELS:
            continue
        positions = math.prod(known)
        if positions > 1 and (best is None or positions <= best[0]):
            best = positions, value.name
    if best is None:
        return None
    why = f"{because}, so this is the last of the coarsest maps on the way to the output"
    return Landmark(best[1], why, guessed=True)


def _one_image(proto: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Input shapes for one image, with a size where the graph leaves it open."""
    assumed = {}
    for entry in graph_inputs(proto):
        if entry.shape:
            first = entry.shape[0] if isinstance(entry.shape[0], int) else 1
            rest = [side if isinstance(side, int) and side > 0 else _ASSUMED_SIDE for side in entry.shape[1:]]
            assumed[entry.name] = (first, *rest)
    return assumed


def _rows(classifier: onnx.NodeProto, wiring: Wiring) -> int | None:
    """How many numbers a fully connected layer reads, by its stored weights."""
    if classifier.op_type not in ("Gemm", "MatMul"):
        return None
    weights = wiring.initializers.get(classifier.input[1])
    if weights is None or len(weights.dims) != 2:
        return None
    transposed = classifier.op_type == "Gemm" and attribute(classifier, "transB", 0)
    return int(weights.dims[1 if transposed else 0])


def _width(sides: Sequence[int | str | None]) -> int | None:
    product = 1
    for side in sides[1:]:
        if not isinstance(side, int):
            return None
        product *= side
    return product


def _called(node: onnx.NodeProto) -> str:
    name = node.name or node.output[0]
    # TensorFlow Lite converters join the names of all fused layers into one.
    return repr(name if len(name) <= 60 else f"{name[:57]}...")

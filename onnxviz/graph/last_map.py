"""A graph comes in; the last value with rows and columns on the way to its scores goes out."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import onnx

from onnxviz.graph.landmarks import Landmark
from onnxviz.graph.wiring import Wiring, captured_names

__all__ = ["find_last_map", "leads_to", "operators_before"]

# What a pool hides is still there before it, at a finer grid.
_POOLS = frozenset({"MaxPool", "AveragePool", "LpPool", "QLinearAveragePool"})
_ROUNDING = frozenset({"QuantizeLinear", "DequantizeLinear", "Cast"})
_SAME_NUMBERS = _ROUNDING | {"Identity", "Dropout", "Transpose"}
_REARRANGED = _SAME_NUMBERS | {"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Concat", "Slice", "Split", "Gather"}
_BY_ELEMENT = frozenset(
    {
        "Sigmoid", "HardSigmoid", "Tanh", "Relu", "LeakyRelu", "PRelu", "Elu", "Selu", "Gelu", "Softplus", "Clip",
        "Exp", "Log", "Sqrt", "Neg", "Abs", "Pow", "Add", "Sub", "Mul", "Div", "BatchNormalization", "QLinearSigmoid",
        "QLinearAdd", "QLinearMul", "QLinearLeakyRelu",
    }
)  # fmt: skip
# They read a value's shape, not its numbers.
_SHAPES_ONLY = frozenset({"Shape", "Size"})
_PRODUCTS = frozenset({"MatMul", "Gemm", "Einsum", "FusedMatMul", "QLinearMatMul", "MatMulInteger"})
_ATTENTION = frozenset({"Attention", "MultiHeadAttention", "GroupQueryAttention"})

IsMap = Callable[[str], bool]


def find_last_map(
    proto: onnx.ModelProto,
    scores: Sequence[str],
    is_map: IsMap,
    shapes: Mapping[str, Sequence[int]],
    *,
    explained: Sequence[str] = (),
) -> Landmark | None:
    """Find the last value with rows and columns through which all of the image passes on its way to the scores.

    Parameters
    ----------
    proto : onnx.ModelProto
        The model.
    scores : sequence of str
        Values that hold what is explained, or the features that the classifier reads.
    is_map : callable
        Name of a value to whether it holds real numbers with rows and columns.
    shapes : mapping of value name to sides
        As found by a run.
    explained : sequence of str
        Values that hold what is explained themselves. Not found are they, nor what they are made from element by
        element: the derivative of an element is then other than 0 at one place, whatever the network does.

    Returns
    -------
    Landmark or None
        Before the pools that follow the last convolution: Selvaraju et al. 2017 take the rectified maps themselves.
        ``guessed`` where a matrix product over a sequence follows, as in a transformer: the map is then no more than
        how the image was cut into tokens. None where there is no map.
    """
    wiring = Wiring(proto)
    order = {name: place for place, node in enumerate(proto.graph.node) for name in node.output if name}
    before = _ancestors(wiring, scores, without="") - _same_elements(wiring, explained)
    maps = [name for name in before if name in order and is_map(name)]
    for name in sorted(maps, key=order.__getitem__, reverse=True):
        if wiring.inputs.keys() & _ancestors(wiring, scores, without=name):
            continue  # part of the image takes another way
        chosen, pooled = _before_pools(wiring, name, is_map)
        after = _ancestors(wiring, scores, without=name) - {name}
        tokens = any(_mixes_tokens(wiring, node, shapes) for node in _producers(wiring, after))
        why = "the last value with rows and columns before the scores"
        return Landmark(chosen, f"{why}, before it is pooled" if pooled else why, guessed=tokens)
    return None


def leads_to(proto: onnx.ModelProto, name: str, scores: Sequence[str]) -> bool:
    """Whether the numbers of a value reach the scores."""
    return name in _ancestors(Wiring(proto), scores, without="")


def operators_before(proto: onnx.ModelProto, names: Sequence[str]) -> Counter[str]:
    """How many nodes of each standard operator the values are computed by."""
    wiring = Wiring(proto)
    nodes = {id(node): node for node in _producers(wiring, _ancestors(wiring, names, without=""))}
    return Counter(node.op_type for node in nodes.values() if node.domain in ("", "ai.onnx"))


def _ancestors(wiring: Wiring, names: Sequence[str], *, without: str) -> set[str]:
    """The values themselves and all whose numbers they are computed from; ways through ``without`` end there."""
    reached: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in reached or not name:
            continue
        reached.add(name)
        node = wiring.producer.get(name)
        if node is not None and name != without and node.op_type not in _SHAPES_ONLY:
            waiting += [*node.input, *captured_names(node)]
    return reached


def _same_elements(wiring: Wiring, names: Sequence[str]) -> set[str]:
    """The values themselves and those from which they take or make every element by itself, at another place perhaps.

    A sum with what also depends on the input is no such way, as in a residual: the element has other causes too.
    """
    reached: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        node = wiring.producer.get(name)
        if name in reached or node is None:
            continue
        reached.add(name)
        varying = [entry for entry in node.input if entry and entry not in wiring.constant_names]
        if node.op_type in _REARRANGED or (node.op_type in _BY_ELEMENT and len(varying) == 1):
            waiting += varying
    return reached


def _producers(wiring: Wiring, names: set[str]) -> list[onnx.NodeProto]:
    return [wiring.producer[name] for name in names if name in wiring.producer]


def _before_pools(wiring: Wiring, name: str, is_map: IsMap) -> tuple[str, bool]:
    """The map behind which there are only pools and copies, and whether there is a pool."""
    best, behind, pooled, coming = name, name, False, False
    while (node := wiring.producer.get(behind)) is not None and node.op_type in _POOLS | _SAME_NUMBERS:
        coming = coming or node.op_type in _POOLS
        behind = wiring.data_input(node)
        # What is rounded at once and only then pooled is taken as the pool reads it.
        if is_map(behind) and (coming or node.op_type not in _ROUNDING):
            best, pooled, coming = behind, pooled or coming, False
    return best, pooled


def _mixes_tokens(wiring: Wiring, node: onnx.NodeProto, shapes: Mapping[str, Sequence[int]]) -> bool:
    """Whether a node is a matrix product over a sequence of several vectors."""
    if node.op_type in _ATTENTION:
        return True
    sides = shapes.get(node.output[0], ())
    varies = any(name and name not in wiring.constant_names for name in node.input)
    return node.op_type in _PRODUCTS and varies and len(sides) > 2 and math.prod(sides[1:-1]) > 1

"""A graph comes in; the values inside its attention, whose rows and columns are tokens and no picture, go out."""

from __future__ import annotations

import onnx

from onnxviz.graph.wiring import PASS_THROUGH, Wiring

__all__ = ["attention_values"]

_PRODUCTS = frozenset({"MatMul", "Einsum", "FusedMatMul"})
_SCALING_AND_MASKS = PASS_THROUGH | {"Add", "Sub", "Mul", "Div", "Where", "Transpose"}


def attention_values(proto: onnx.ModelProto) -> frozenset[str]:
    """The values that lie between the projections of an attention and its answer.

    Parameters
    ----------
    proto : onnx.ModelProto
        The model.

    Returns
    -------
    frozenset of str
        Around every Softmax whose numbers are a product of two values that both depend on the input (scaled, masked
        and reshaped, perhaps): what that product reads, what lies from there to the Softmax, the Softmax's own output,
        and what else the product behind it reads. A fused attention operator hides them, and a classifier's Softmax
        reads a product with weights, so neither adds any.
    """
    wiring = Wiring(proto)
    found: set[str] = set()
    for node in proto.graph.node:
        if node.op_type != "Softmax":
            continue
        between = _back_to_products(node.input[0], wiring)
        if not between:
            continue
        found |= {*between, *node.output}
        found |= {name for output in node.output for name in _read_beside(output, wiring)}
    return frozenset(found)


def _back_to_products(name: str, wiring: Wiring) -> set[str]:
    """The values from a Softmax back to what its product reads; none where no such product is behind it."""
    seen: set[str] = set()
    operands: set[str] = set()
    waiting = [name]
    while waiting:
        current = waiting.pop()
        node = wiring.producer.get(current)
        if current in seen or node is None or current in wiring.constant_names:
            continue
        if node.op_type in _PRODUCTS:
            varying = [entry for entry in node.input if entry and entry not in wiring.constant_names]
            if len(varying) < 2:
                continue
            operands.update(varying)
        elif node.op_type in _SCALING_AND_MASKS:
            waiting += node.input
        else:
            continue
        seen.add(current)
    return seen | operands if operands else set()


def _read_beside(weights: str, wiring: Wiring) -> set[str]:
    """What the products that read a Softmax's output read."""
    readers = [weights]
    found: set[str] = set()
    while readers:
        current = readers.pop()
        for node in wiring.readers.get(current, []):
            if node.op_type in _PRODUCTS:
                found.update(entry for entry in node.input if entry and entry not in wiring.constant_names)
            elif node.op_type in PASS_THROUGH:
                readers += node.output
    return found

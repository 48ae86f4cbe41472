"""Values of a graph come in; those that a run gives as arrays, or a sentence on one that it does not, go out."""

from __future__ import annotations

from collections.abc import Sequence

import onnx

from onnxviz.errors import InputError
from onnxviz.graph.values import Value
from onnxviz.graph.wiring import captured_names

__all__ = ["is_tensor", "numbers_among", "outputs_of_numbers", "tensors_among"]

_NO_TENSORS = frozenset({"sequence", "map", "optional", "sparse", "opaque"})


def is_tensor(value: Value) -> bool:
    """Whether the value is a tensor, of numbers or of text, as far as the graph tells."""
    return value.dtype not in _NO_TENSORS


def tensors_among(values: Sequence[Value], model: str) -> tuple[Value, ...]:
    """Those of the values, of the model that is called ``model``, that are tensors: of numbers, or of text.

    Raises
    ------
    InputError
        None of them is.
    """
    found = tuple(value for value in values if is_tensor(value))
    if not found and values:
        raise InputError(
            "the value is no tensor, so no array can hold it", where=f"value {values[0].name!r} of {model}",
            got=str(values[0].dtype), allowed="a tensor",
            next_step="Name a tensor that it is made from, as `onnxviz inspect` lists them",
        )  # fmt: skip
    return found


def numbers_among(values: Sequence[Value], model: str) -> tuple[Value, ...]:
    """Those of the values, of the model that is called ``model``, that are tensors of numbers.

    Raises
    ------
    InputError
        None of them is.
    """
    tensors = tensors_among(values, model)
    found = tuple(value for value in tensors if value.dtype != "string")
    if not found and tensors:
        raise InputError(
            "the value holds text", where=f"value {tensors[0].name!r} of {model}", got="string",
            allowed="a tensor of numbers",
            next_step="Name another, as `onnxviz inspect` lists them; Model.run gives this one as it is",
        )  # fmt: skip
    return found


def outputs_of_numbers(proto: onnx.ModelProto, outputs: Sequence[Value], values: Sequence[Value]) -> tuple[Value, ...]:
    """Of all ``outputs``, those that are tensors of numbers.

    Where none is, the last of all ``values`` that holds real numbers and that an output is computed from.
    """
    found = tuple(output for output in outputs if is_tensor(output) and output.dtype != "string")
    if found:
        return found
    needed = {output.name for output in outputs}
    for node in reversed(proto.graph.node):
        if not needed.isdisjoint(node.output):
            needed |= {*node.input, *captured_names(node)}
    real = [value for value in values if value.name in needed and "float" in (value.dtype or "")]
    return tuple(real[-1:]) or tuple(outputs[:1])

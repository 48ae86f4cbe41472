"""A graph comes in; its values in onnxruntime's blocked layout, which nothing here reads as maps, go out.

onnxruntime lays maps out anew where it optimises for a CPU: blocks of 8 or 16 channels lie behind rows and columns, and
the last block is filled up, though the shape says (n, C, H, W) as before. The weights that make them are reordered too.
A file has them where a model was saved at ORT_ENABLE_ALL; how many channels a block holds depends on the processor that
saved it and is not written down.
"""

from __future__ import annotations

import onnx

from onnxviz.errors import InputError
from onnxviz.graph.wiring import captured_names

__all__ = ["BLOCKED_DOMAIN", "BLOCKED_KIND", "blocked_map", "blocked_values", "blocked_weights", "explain_blocked"]

BLOCKED_DOMAIN = "com.microsoft.nchwc"

BLOCKED_KIND = "blocked layout"
"""What a reader calls such a value."""

_WAY_BACK = "ReorderOutput"
# They read a value's shape, not its numbers.
_SHAPES_ONLY = frozenset({"Shape", "Size"})
_NEXT_STEP = "ave the model with ORT_ENABLE_EXTENDED, or use the file that onnxruntime was given"


def blocked_values(proto: onnx.ModelProto) -> frozenset[str]:
    """The values whose channels, rows and columns are not where their shape says.

    Parameters
    ----------
    proto : onnx.ModelProto
        The model.

    Returns
    -------
    frozenset of str
        What the operators of the blocked layout make, and what any other makes of that, until it is brought back.
        onnxruntime leaves sums, products, activations and joins of such values as they are; whatever else reads one
        finds other numbers than it takes them for, and is no map either.
    """
    found: set[str] = set()
    for node in proto.graph.node:
        if node.domain == BLOCKED_DOMAIN:
            blocked = node.op_type != _WAY_BACK
        else:
            read = {*node.input, *captured_names(node)}
            blocked = node.op_type not in _SHAPES_ONLY and not found.isdisjoint(read)
        if blocked:
            found.update(filter(None, node.output))
    return frozenset(found)


def blocked_map(value: str, op_type: str, *, where: str) -> InputError:
    """The error for somebody who asks for the channels, rows or columns of a value in the blocked layout."""
    return InputError(
        "the value lies in onnxruntime's blocked layout: its channels, rows and columns are not where its shape says",
        where=f"value {value!r} of {where}" if where else f"value {value!r}",
        got=f"the output of {op_type} in a graph that was saved at ORT_ENABLE_ALL",
        allowed=f"a value of another kind than {BLOCKED_KIND!r}, as `onnxviz inspect` lists them",
        next_step=f"S{_NEXT_STEP}",
    )  # fmt: skip


def blocked_weights(value: str, what: str) -> InputError:
    """The error for somebody who would read, or shuffle, the weights of an operator of the blocked layout."""
    return InputError(
        f"the weights of this convolution are reordered for onnxruntime's blocked layout, so they cannot be {what}",
        where=f"value {value!r}", got=f"Conv of the domain {BLOCKED_DOMAIN}",
        allowed="a convolution of the standard domain", next_step=f"S{_NEXT_STEP}",
    )  # fmt: skip


def explain_blocked(blocked: int, values: int) -> str:
    """Why a part of a graph is not shown, as words without a final full stop; empty where nothing is hidden."""
    if not blocked:
        return ""
    return (
        f"values in onnxruntime's blocked layout ({blocked:,} of {values:,}), and the weights that make them, are not "
        f"read: s{_NEXT_STEP}"
    )

"""A graph as a file states it comes in; the same function in the few forms that the rules know goes out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import onnx
from numpy.typing import NDArray

from onnxviz.graph.detached import detach_weights
from onnxviz.graph.gradient.decompose import decompose
from onnxviz.graph.gradient.upgrade import upgrade
from onnxviz.graph.taps import expose

__all__ = ["NormalizedGraph", "normalize"]


@dataclass(frozen=True)
class NormalizedGraph:
    """A graph at operator set 18 to 21, its large weights beside it."""

    proto: onnx.ModelProto
    stated: onnx.ModelProto
    """The graph as it came, its large weights beside it too."""
    weights: Mapping[str, NDArray[Any]]
    """By name; both graphs share them."""


def normalize(
    proto: onnx.ModelProto, *, where: str, weights: Mapping[str, NDArray[Any]] | None = None
) -> NormalizedGraph:
    """Bring a graph to operator set 18 to 21 and write onnxruntime's own operators out in standard ones.

    Values keep their names. That the result computes the same is for the caller to check by running both.

    Parameters
    ----------
    proto : onnx.ModelProto
        Local functions are inlined already; it is left as it is.
    where : str
        The model's name in error messages.
    weights : mapping of name to array, optional
        What lies beside the graph already; it is not copied.

    Raises
    ------
    UnsupportedOperatorError
        An operator cannot be brought there; it is named.
    """
    skeleton = expose(proto, [value.name for value in proto.graph.output])
    beside = {**(weights or {}), **detach_weights(skeleton)}
    return NormalizedGraph(decompose(upgrade(skeleton, where=where), where=where), skeleton, beside)

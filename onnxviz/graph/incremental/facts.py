"""What a run tells of an optimised graph: all that planning stands on, gathered by the runtime."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx

from onnxviz.graph.regions.node import Shape

__all__ = ["GraphFacts"]


@dataclass(frozen=True)
class GraphFacts:
    """One graph, ready to be cut, with everything that only a run can tell.

    ``graph/`` plans and ``runtime/`` probes; this passes between them.
    """

    proto: onnx.ModelProto
    """The optimised graph; weights are named and shaped, their numbers may be elsewhere."""
    source: str
    """Name of the input that takes the image."""
    outputs: tuple[str, ...]
    """The values that are wanted of every position."""
    shapes: Mapping[str, Shape]
    """Concrete shape of every value, for a batch of one."""
    dtypes: Mapping[str, np.dtype[np.generic]]
    block: int
    """Channels that lie side by side in the blocked layout; 0 where the graph has no blocked value."""
    image_layout: str
    """``"NCHW"`` or ``"NHWC"``."""
    bitwise: bool
    """Whether stages run the very kernels that the whole graph runs (they are then not optimised again)."""

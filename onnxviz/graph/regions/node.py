"""One node of the graph as the rules see it: attributes, concrete shapes, and inputs that are constants."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Operator", "Shape"]

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Operator:
    """A node with everything that a rule may need to know of it."""

    op_type: str
    name: str
    opset: int
    """Version of the node's operator set."""
    attributes: Mapping[str, Any]
    inputs: tuple[str, ...]
    input_shapes: tuple[Shape | None, ...]
    output_shapes: tuple[Shape | None, ...]
    constant: Callable[[str], NDArray[Any] | None]
    """Value name to its array where that follows from the file and the shapes alone."""

    def has_input(self, number: int) -> bool:
        """Whether the optional input is given."""
        return number < len(self.inputs) and self.inputs[number] != ""

    def shape_in(self, number: int) -> Shape:
        """Shape of an input; ``LookupError`` where it is not known, which callers take as *no rule*."""
        shape = self.input_shapes[number]
        if shape is None:
            raise LookupError(f"shape of input {number}")
        return shape

    def shape_out(self, number: int) -> Shape:
        """Shape of an output; ``LookupError`` where it is not known."""
        shape = self.output_shapes[number]
        if shape is None:
            raise LookupError(f"shape of output {number}")
        return shape

    def numbers(self, number: int, attribute: str = "") -> list[float] | None:
        """Read a parameter given as an input, or as an attribute in older operator sets; None where it is left out.

        ``LookupError`` where it is computed from data.
        """
        if attribute and attribute in self.attributes:
            return [float(x) for x in np.ravel(self.attributes[attribute])]
        if not self.has_input(number):
            return None
        array = self.constant(self.inputs[number])
        if array is None:
            raise LookupError(f"input {number} is computed from data")
        return [float(x) for x in np.ravel(array)]

    def integers(self, number: int, attribute: str = "") -> list[int] | None:
        """Like :meth:`numbers`, as integers."""
        found = self.numbers(number, attribute)
        return None if found is None else [int(x) for x in found]

    def axis(self, default: int, rank: int) -> int:
        """Give the attribute ``axis`` counted from the front."""
        axis = int(self.attributes.get("axis", default))
        return axis + rank if axis < 0 else axis

"""One node of the forward graph as a rule sees it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import onnx

from onnxviz.graph.wiring import attribute, node_label

__all__ = ["Node"]


@dataclass(frozen=True)
class Node:
    """A node with its place in the graph."""

    proto: onnx.NodeProto
    position: int
    opset: int
    """Version of the standard operators in use."""

    @property
    def op_type(self) -> str:
        """Name of its operator."""
        return self.proto.op_type

    @property
    def domain(self) -> str:
        """Domain of its operator, ``""`` for the standard ones."""
        return "" if self.proto.domain == "ai.onnx" else self.proto.domain

    @property
    def key(self) -> tuple[str, str]:
        """(domain, operator)."""
        return self.domain, self.op_type

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """Names of its inputs; ``""`` for one that is left out."""
        return tuple(self.proto.input)

    @cached_property
    def outputs(self) -> tuple[str, ...]:
        """Names of its outputs; ``""`` for one that is left out."""
        return tuple(self.proto.output)

    @property
    def label(self) -> str:
        """Its name, or its operator and position where the exporter gave none."""
        return node_label(self.proto, self.position)

    @property
    def description(self) -> str:
        """Operator, domain and version in words."""
        version = ""
        if not self.domain and onnx.defs.has(self.op_type, self.opset, ""):
            # Since when the operator is as it is: the set itself may be one that the file was brought to.
            version = f", version {onnx.defs.get_schema(self.op_type, self.opset, '').since_version}"
        return f"{self.op_type} (domain {self.domain or 'ai.onnx'}{version})"

    def has_input(self, place: int) -> bool:
        """Whether the optional input is given."""
        return place < len(self.inputs) and self.inputs[place] != ""

    def has_output(self, place: int) -> bool:
        """Whether the optional output is given."""
        return place < len(self.outputs) and self.outputs[place] != ""

    def attribute(self, name: str, default: Any = None) -> Any:
        """The attribute's value, or ``default``."""
        return attribute(self.proto, name, default)

    def attributes(self, *left_out: str) -> dict[str, Any]:
        """All attributes but some, to be given to another node."""
        return {
            entry.name: attribute(self.proto, entry.name)
            for entry in self.proto.attribute
            if entry.name not in left_out
        }

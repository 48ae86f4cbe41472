"""Which part of the image every unit sees, and which part of every value a part of the image can change.

One map per operator and axis (``axis_maps``), put together per operator (``box_maps``, ``*_rules``), followed through
the graph in both directions (``propagation``).
"""

from __future__ import annotations

from onnxviz.graph.regions.box_maps import Boxes
from onnxviz.graph.regions.propagation import Propagation
from onnxviz.graph.regions.receptive_field import ReceptiveField, receptive_field

__all__ = ["Boxes", "Propagation", "ReceptiveField", "receptive_field"]

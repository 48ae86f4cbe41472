"""A class activation map in, its panels out: photo, the network's own coarse map, and the map over the photo."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxviz.pictures.attribution import Panel, draw_panels
from onnxviz.pictures.dispatch import plot
from onnxviz.results import ActivationMap

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS: tuple[Panel, ...] = ("image", "coarse", "map", "overlay")


@plot.register(ActivationMap)
def _plot_activation_map(result: ActivationMap, ax: Axes | None = None, *, panel: Panel | None = None) -> Figure:
    """Draw a class activation map; ``ax`` takes one ``panel``: "image", "coarse", "map" or "overlay"."""
    return draw_panels(result, ax, panel, allowed=PANELS, wanted=PANELS, value=result.value)

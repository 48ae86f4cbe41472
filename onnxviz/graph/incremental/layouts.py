"""Which axes of a value are rows and columns, and how its numbers lie in memory."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import cached_property

from onnxviz.graph.regions.node import Shape

__all__ = ["Layout", "MapGeometry"]


class Layout(Enum):
    """How a value of four axes holds a map."""

    PLANAR = "NCHW"
    LAST = "NHWC"
    BLOCKED = "NCHWc"
    """onnxruntime's own: stated as (n, C, H, W), stored as (n, C / block, H, W, block)."""

    @property
    def axes(self) -> tuple[int, int]:
        """The axes of rows and columns."""
        return (1, 2) if self is Layout.LAST else (2, 3)

    @property
    def channel_axis(self) -> int:
        """The axis of channels."""
        return 3 if self is Layout.LAST else 1

    def size(self, shape: Shape) -> tuple[int, int]:
        """Rows and columns of a value of that shape."""
        rows, columns = self.axes
        return shape[rows], shape[columns]

    def shape(self, batch: int, channels: int, rows: int, columns: int) -> Shape:
        """Shape of a batch of windows, as onnxruntime is told it."""
        return (batch, rows, columns, channels) if self is Layout.LAST else (batch, channels, rows, columns)


@dataclass(frozen=True)
class MapGeometry:
    """One row of a value, as the core moves it."""

    layout: Layout
    channels: int
    rows: int
    columns: int
    itemsize: int
    block: int
    """Channels that lie side by side in the blocked layout."""

    @cached_property
    def pixel_bytes(self) -> int:
        """Bytes that lie side by side for one place of the map."""
        return {Layout.PLANAR: 1, Layout.LAST: self.channels, Layout.BLOCKED: self.block}[self.layout] * self.itemsize

    @cached_property
    def planes(self) -> int:
        """Maps of such pixels."""
        return self.channels * self.itemsize // self.pixel_bytes

    @cached_property
    def core_layout(self) -> tuple[int, int, int, int]:
        """Planes, rows, columns, bytes of a pixel."""
        return self.planes, self.rows, self.columns, self.pixel_bytes

    def window_bytes(self, rows: int, columns: int) -> int:
        """Bytes of one window."""
        return self.planes * rows * columns * self.pixel_bytes

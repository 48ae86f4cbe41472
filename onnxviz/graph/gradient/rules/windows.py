"""Sliding windows: where they lie on the map, and how what was gathered from windows is spread over the map again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from onnxviz.graph.gradient.facts import Side
from onnxviz.graph.gradient.node import Node

if TYPE_CHECKING:
    from onnxviz.graph.gradient.backward import Backward

__all__ = ["Windows", "flipped", "spread", "windows_of"]


@dataclass(frozen=True)
class Windows:
    """Windows on the spatial axes of one map."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begin: tuple[int, ...] | None
    """Padding before the map; None where ``auto_pad`` makes it follow from sides that only a run knows."""
    end: tuple[int, ...] | None
    automatic: str
    """``auto_pad`` where it decides, else ``"NOTSET"``."""
    rounded_up: bool
    """``ceil_mode``: a last window may reach past the padded map."""

    @property
    def axes(self) -> range:
        """The spatial axes of the map."""
        return range(2, 2 + len(self.kernel))

    @property
    def reach(self) -> tuple[int, ...]:
        """Distance from the first to the last element of a window."""
        return tuple(d * (k - 1) for k, d in zip(self.kernel, self.dilations, strict=True))


def windows_of(b: Backward, node: Node, x: str, kernel: Sequence[int]) -> Windows:
    """The windows of a convolution or pooling on a value ``x`` of (n, channels, *sides)."""
    count = len(kernel)
    ones = [1] * count
    strides, dilations = node.attribute("strides", ones), node.attribute("dilations", ones)
    automatic = str(node.attribute("auto_pad", "NOTSET"))
    pads: Sequence[int] | None = node.attribute("pads", [0] * 2 * count)
    if automatic == "VALID":
        pads, automatic = [0] * 2 * count, "NOTSET"
    elif automatic != "NOTSET":
        pads = _same_pads(b.sides(x)[2:], kernel, strides, dilations, lower=automatic == "SAME_LOWER")
    rounded_up = bool(node.attribute("ceil_mode", 0))
    return Windows(
        tuple(kernel), tuple(strides), tuple(dilations), None if pads is None else tuple(pads[:count]),
        None if pads is None else tuple(pads[count:]), automatic, rounded_up,
    )  # fmt: skip


def _same_pads(
    sides: Sequence[Side], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int], *, lower: bool
) -> list[int] | None:
    begin, end = [], []
    for side, size, stride, dilation in zip(sides, kernel, strides, dilations, strict=True):
        if not isinstance(side, int):
            return None
        outputs = -(-side // stride)
        total = max((outputs - 1) * stride + dilation * (size - 1) + 1 - side, 0)
        less, more = total // 2, total - total // 2
        begin.append(more if lower else less)
        end.append(less if lower else more)
    return begin + end


def flipped(weights: NDArray[np.floating], groups: int) -> NDArray[np.floating]:
    """Turn (outputs, inputs per group, *kernel) into the weights of the convolution that is its adjoint.

    Kernels are mirrored on every spatial axis, and inputs and outputs exchanged within each group: (inputs, outputs
    per group, *kernel).
    """
    outputs, inputs, *kernel = weights.shape
    grouped = weights.reshape(groups, outputs // groups, inputs, *kernel).swapaxes(1, 2)
    turned = grouped.reshape(groups * inputs, outputs // groups, *kernel)
    mirrored = turned[(slice(None), slice(None), *(slice(None, None, -1),) * len(kernel))]
    return np.ascontiguousarray(mirrored)


def spread(b: Backward, g: str, weights: str, x: str, y: str, windows: Windows, groups: int) -> str:
    """Adjoint of a convolution by its map.

    Parameters
    ----------
    g : str
        Adjoint of the output ``y``.
    weights : str
        (outputs, inputs per group, *kernel).
    x : str
        The map, whose sides the result gets.

    Notes
    -----
    A stride of 1 makes it a convolution with flipped weights, which onnxruntime computes several times faster than a
    transposed one. ``output_shape`` of ConvTranspose is never used: it makes the runtime choose the paddings anew.
    """
    sides = b.sides(x)[2:]
    reach, strides, begin, end = windows.reach, windows.strides, windows.begin, windows.end
    fixed = [side for side in sides if isinstance(side, int)]
    if begin is not None and end is not None:
        before = [r - p for r, p in zip(reach, begin, strict=True)]
        behind = [r - p for r, p in zip(reach, end, strict=True)]
        if all(stride == 1 for stride in strides) and min(*before, *behind) >= 0:
            turned = b.flipped_weights(weights, groups)
            if turned is not None:
                return b.emit("Conv", g, turned, pads=before + behind, dilations=list(windows.dilations), group=groups)
        if len(fixed) == len(sides):
            remainder = [
                (side + p + q - r - 1) % stride
                for side, p, q, r, stride in zip(fixed, begin, end, reach, strides, strict=True)
            ]
            return b.emit(
                "ConvTranspose", g, weights, strides=list(strides), dilations=list(windows.dilations), group=groups,
                pads=[*begin, *end], output_padding=remainder,
            )  # fmt: skip
    # At least as long as the padded map, then cut to its place.
    whole = b.emit(
        "ConvTranspose", g, weights, strides=list(strides), dilations=list(windows.dilations), group=groups,
        output_padding=[stride - 1 for stride in strides],
    )  # fmt: skip
    return cut_to_map(b, whole, x, y, windows)


def cut_to_map(b: Backward, padded: str, x: str, y: str, windows: Windows) -> str:
    """Cut the map's own place out of a map with its padding."""
    count = len(windows.kernel)
    sides = b.shape_part(x, 2)
    start = b.integers(windows.begin) if windows.begin is not None else _same_begin(b, x, y, windows)
    stop = b.emit("Add", start, sides)
    return b.emit("Slice", padded, start, stop, b.integers(list(range(2, 2 + count))))


def _same_begin(b: Backward, x: str, y: str, windows: Windows) -> str:
    """Padding before the map under SAME_UPPER or SAME_LOWER, from the sides that the run has."""
    outputs = b.emit("Sub", b.shape_part(y, 2), b.integers([1]))
    needed = b.emit(
        "Add", b.emit("Mul", outputs, b.integers(windows.strides)), b.integers([r + 1 for r in windows.reach])
    )
    total = b.emit("Max", b.emit("Sub", needed, b.shape_part(x, 2)), b.integers([0]))
    less = b.emit("Div", total, b.integers([2]))
    return less if windows.automatic == "SAME_UPPER" else b.emit("Sub", total, less)

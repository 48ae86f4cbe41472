"""Rules of the operators that slide a window: convolutions, transposed convolutions, pools, LRN."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxviz.graph.regions.axis_maps import AxisMap, Same, Taps, Whole, transposed_window, window
from onnxviz.graph.regions.box_maps import BoxMap, PerAxis
from onnxviz.graph.regions.node import Operator, Shape

__all__ = ["begin_pads", "convolution", "local_response_normalization", "pool", "transposed_convolution"]


def _spatial(operator: Operator, kernel: Sequence[int], inputs: Shape, outputs: Shape) -> list[AxisMap]:
    rank = len(kernel)
    strides = operator.attributes.get("strides") or [1] * rank
    dilations = operator.attributes.get("dilations") or [1] * rank
    pads = begin_pads(operator, kernel, strides, dilations, inputs)
    return [
        window(inputs=n, outputs=m, kernel=k, stride=s, pad=p, dilation=d)
        for n, m, k, s, p, d in zip(inputs, outputs, kernel, strides, pads, dilations, strict=True)
    ]


def begin_pads(
    operator: Operator, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int], inputs: Shape
) -> list[int]:
    """Padding before the first place of every spatial axis, ``auto_pad`` worked out."""
    auto = operator.attributes.get("auto_pad", "NOTSET")
    if auto == "NOTSET":
        pads = operator.attributes.get("pads") or [0] * (2 * len(kernel))
        return list(pads[: len(kernel)])
    if auto == "VALID":
        return [0] * len(kernel)
    totals = [
        max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0)
        for n, k, s, d in zip(inputs, kernel, strides, dilations, strict=True)
    ]
    return [total // 2 if auto == "SAME_UPPER" else total - total // 2 for total in totals]


def _channel_groups(inputs: int, outputs: int, groups: int) -> AxisMap:
    reads = np.arange(outputs)[:, None] // (outputs // groups) * (inputs // groups) + np.arange(inputs // groups)
    return Taps(reads, inputs)


def _channels(operator: Operator, inputs: int, outputs: int) -> tuple[int | None, AxisMap]:
    groups = int(operator.attributes.get("group", 1))
    return (None, Whole(inputs)) if groups == 1 else (1, _channel_groups(inputs, outputs, groups))


def convolution(operator: Operator, number: int, output: int, *, weights: int = 1) -> BoxMap | None:
    """Conv, ConvInteger, QLinearConv (weights are input 3), FusedConv (a fused sum is input 3)."""
    outputs = operator.shape_out(output)
    if number == 3 and weights == 1 and operator.op_type != "ConvInteger":
        # FusedConv, and the convolution of onnxruntime's blocked layout, which is called Conv as well.
        return PerAxis(tuple((axis, Same()) for axis in range(len(outputs))), outputs)
    if number != 0:
        return None
    inputs = operator.shape_in(0)
    kernel = operator.attributes.get("kernel_shape") or operator.shape_in(weights)[2:]
    last = bool(operator.attributes.get("channels_last"))
    places = slice(1, -1) if last else slice(2, None)
    channel = len(inputs) - 1 if last else 1
    maps = _spatial(operator, kernel, inputs[places], outputs[places])
    over_channels, channel_map = _channels(operator, inputs[channel], outputs[channel])
    linked = (None if over_channels is None else channel, channel_map)
    spatial = [(axis + places.start, axis_map) for axis, axis_map in enumerate(maps)]
    return PerAxis(((0, Same()), *spatial, linked) if last else ((0, Same()), linked, *spatial), outputs)


def pool(operator: Operator, number: int, output: int) -> BoxMap | None:
    """MaxPool, AveragePool, LpPool, QLinearAveragePool: ceil_mode and the divisor do not change the reach."""
    if number != 0:
        return None
    inputs, outputs = operator.shape_in(0), operator.shape_out(output)
    last = bool(operator.attributes.get("channels_last"))
    places = slice(1, -1) if last else slice(2, None)
    channel = len(inputs) - 1 if last else 1
    maps = _spatial(operator, operator.attributes["kernel_shape"], inputs[places], outputs[places])
    spatial = [(axis + places.start, axis_map) for axis, axis_map in enumerate(maps)]
    linked = (channel, Same())
    return PerAxis(((0, Same()), *spatial, linked) if last else ((0, Same()), linked, *spatial), outputs)


def transposed_convolution(operator: Operator, number: int, output: int) -> BoxMap | None:
    """ConvTranspose; the begin pads follow from the output's size where they are not given."""
    if number != 0:
        return None
    inputs, outputs = operator.shape_in(0), operator.shape_out(output)
    kernel = operator.attributes.get("kernel_shape") or operator.shape_in(1)[2:]
    rank = len(kernel)
    strides = operator.attributes.get("strides") or [1] * rank
    dilations = operator.attributes.get("dilations") or [1] * rank
    extra = operator.attributes.get("output_padding") or [0] * rank
    auto = operator.attributes.get("auto_pad", "NOTSET")
    pads = list(operator.attributes.get("pads") or [0] * (2 * rank))[:rank]
    if auto == "VALID":
        pads = [0] * rank
    elif auto != "NOTSET" or "output_shape" in operator.attributes:
        totals = [
            s * (n - 1) + e + (k - 1) * d + 1 - m
            for n, m, k, s, d, e in zip(inputs[2:], outputs[2:], kernel, strides, dilations, extra, strict=True)
        ]
        pads = [total // 2 if auto == "SAME_UPPER" else total - total // 2 for total in totals]
    maps = [
        transposed_window(inputs=n, outputs=m, kernel=k, stride=s, pad=p, dilation=d)
        for n, m, k, s, p, d in zip(inputs[2:], outputs[2:], kernel, strides, pads, dilations, strict=True)
    ]
    links = [(0, Same()), _channels(operator, inputs[1], outputs[1])]
    return PerAxis((*links, *((axis + 2, axis_map) for axis, axis_map in enumerate(maps))), outputs)


def local_response_normalization(operator: Operator, number: int, output: int) -> BoxMap | None:
    """LRN: every position by itself, over the channels up to the last one of the unit's window.

    The standard's window begins (size − 1) / 2 channels before the unit; onnxruntime slides one running sum over all
    channels, so the rounding of each earlier one stays in it and the unit does change, in its last bits.
    """
    shape = operator.shape_in(number)
    last = np.arange(shape[1])[:, None] + int(operator.attributes["size"]) // 2
    other = np.arange(shape[1])[None, :]
    reads = np.where(other <= last, other, -1)
    links: list[tuple[int | None, AxisMap]] = [(axis, Same()) for axis in range(len(shape))]
    links[1] = (1, Taps(reads, shape[1]))
    return PerAxis(tuple(links), operator.shape_out(output))

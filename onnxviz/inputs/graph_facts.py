"""What the graph tells about its image input comes in; what follows for the preprocessing, or a guess, goes out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxviz.inputs.contract import INTEGER_DTYPES

__all__ = ["DEFAULT_SIDE", "SMALL_SIDE", "GraphFacts", "infer"]

SMALL_SIDE = 64
"""Up to so many pixels an input holds a thumbnail, such as those of MNIST, CIFAR or Tiny ImageNet."""
DEFAULT_SIDE = 224
"""Pixels where nothing tells the size."""


@dataclass(frozen=True)
class GraphFacts:
    """What the graph tells about the input."""

    dtype: str
    layout: str
    channels: int | None
    size: tuple[int | None, int | None]
    normalises_itself: bool
    quantization: tuple[float, int] | None

    @property
    def text(self) -> str:
        """The input in words, for explanations."""
        height, width = self.size
        sides = f"{height or 'any height'} × {width or 'any width'}"
        count = {1: "one channel", 3: "three channels", None: "an unknown number of channels"}
        return f"{self.dtype} input of {sides} with {count.get(self.channels, f'{self.channels} channels')}"


def infer(graph: GraphFacts) -> tuple[dict[str, Any], tuple[str, str], bool]:
    """Read the graph, or guess: fields, (source, why), guessed."""
    state_it = "pass preprocess=... to state it"
    if graph.dtype in INTEGER_DTYPES:
        return _infer_integer(graph, state_it)
    if graph.normalises_itself:
        why = (
            f"guess: {graph.text}, and the graph begins by normalising it; pictures go in as 0 to 255, which fits most "
            f"such graphs, but nothing says that it is not 0 to 1; {state_it}"
        )
        return {"preset": "raw"}, ("graph", why), True
    height, width = graph.size
    small = max(height or DEFAULT_SIDE, width or DEFAULT_SIDE) <= SMALL_SIDE
    if graph.channels == 1:
        preset, convention = "unit", "grey levels from 0 to 1 are used"
    elif graph.layout == "NHWC":
        preset, convention = ("unit", "colours from 0 to 1 are used") if small else (
            "tf", "colours from -1 to 1 are used, the most common convention of TensorFlow models")  # fmt: skip
    else:
        preset, convention = ("cifar10", "the CIFAR-10 convention is used") if small else (
            "imagenet", "the ImageNet convention is used")  # fmt: skip
    why = f"guess: {graph.text}, nothing in the file says how it was prepared; {convention}; {state_it}"
    return {"preset": preset}, ("guess", why), True


def _infer_integer(graph: GraphFacts, state_it: str) -> tuple[dict[str, Any], tuple[str, str], bool]:
    shift = " minus 128" if graph.dtype == "int8" else ""
    if graph.quantization is not None:
        scale, zero_point = graph.quantization
        limits = np.iinfo(graph.dtype)
        low, high = (limits.min - zero_point) * scale, (limits.max - zero_point) * scale
        covers = f"its quantisation covers {low:.4g} to {high:.4g}"
        for preset, lowest, highest in (("imagenet", -2.118, 2.64), ("caffe", -123.68, 151.06)):
            slack = 0.04 * (highest - lowest)
            if graph.channels != 1 and abs(low - lowest) < slack and abs(high - highest) < slack:
                why = f"guess: {graph.text}, {covers}, which is the range of {preset!r}; {state_it}"
                return {"preset": preset, "quantization": graph.quantization}, ("guess", why), True
        for lowest, highest in ((0.0, 255.0), (0.0, 1.0), (-1.0, 1.0)):
            slack = 0.02 * (highest - lowest)
            if abs(low - lowest) < slack and abs(high - highest) < slack:
                why = f"{graph.text}: {covers}, so the picture's bytes{shift} fit it one to one"
                return {"preset": "raw"}, ("graph", why), False
    if graph.dtype == "uint8":
        return {"preset": "raw"}, ("graph", f"{graph.text}: it takes the picture's bytes as they are"), False
    why = (
        f"guess: {graph.text}, nothing in the file says how it was prepared; the picture's bytes{shift} are used; "
        f"{state_it}"
    )
    return {"preset": "raw"}, ("guess", why), True

"""One model and its images, with the options of an audit, as every section of the report sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from onnxviz.graph.attention import attention_values
from onnxviz.graph.values import Value
from onnxviz.inputs.images import ImageBatch, ImageSet
from onnxviz.methods.features import features
from onnxviz.report.budget import DEFAULT_OCCLUSION_MACS
from onnxviz.report.rules import Facts
from onnxviz.report.section import SectionSkipped
from onnxviz.results import Features
from onnxviz.runtime.model import Model

__all__ = ["Examination", "Options"]

_ACTIVATION_KINDS = frozenset({"relu", "activation"})
_MAP_KINDS = _ACTIVATION_KINDS | {"conv", "transposed conv", "add", "concat", "normalization", "pool", "multiply"}


@dataclass(frozen=True)
class Options:
    """What the caller of an audit chose."""

    values: tuple[str, ...] = ()
    target: Any = "top1"
    seed: int = 0
    occlusion_budget: int = DEFAULT_OCCLUSION_MACS


@dataclass
class Examination:
    """What sections share: the model, the images, the options, and what other sections found out."""

    model: Model
    images: ImageSet | None
    no_images: str
    """Why there are no images; ``""`` where there are."""
    options: Options
    facts: Facts = field(default_factory=Facts)
    shared: dict[str, Any] = field(default_factory=dict)
    """Results that a later section uses again, by name."""

    def need_images(self, least: int = 1) -> ImageSet:
        """The images, or a `SectionSkipped` that says why there are none or too few."""
        if self.images is None:
            raise SectionSkipped(self.no_images)
        if not len(self.images):
            raise SectionSkipped("no image could be read")
        if len(self.images) < least:
            count = len(self.images)
            raise SectionSkipped(f"{count} image{'' if count == 1 else 's'}; at least {least} are needed")
        return self.images

    def need_features(self, least: int) -> Features:
        """The features of all images, computed once; a `SectionSkipped` where there are none, or too few to use."""
        images = self.need_images(least)
        if self.model.feature_value is None:
            raise SectionSkipped(self.lacks("no feature value was found in this graph"))
        if "features" not in self.shared:
            self.shared["features"] = features(self.model, images)
        found: Features = self.shared["features"]
        if len(found.array) < least:
            raise SectionSkipped(f"{len(found.array)} images could be read; at least {least} are needed")
        bad = int((~np.isfinite(found.array).all(axis=1)).sum())
        if bad:
            raise SectionSkipped(f"the features of {bad:,} images hold NaN or infinite numbers")
        return found

    def lacks(self, what: str) -> str:
        """What this graph lacks, with what of it is not read."""
        hidden = self.model.blocked_reason
        return f"{what}; {hidden}" if hidden else what

    @cached_property
    def first_batch(self) -> ImageBatch:
        """The first few images, encoded."""
        images = self.need_images()
        batch = next(iter(images.batches(_COMPARED)), None)
        if batch is None:
            raise SectionSkipped("no image could be read")
        return batch

    @cached_property
    def maps(self) -> tuple[Value, ...]:
        """Values with channels and at least 2 × 2 positions, in order: activations where the graph has some."""
        inside = attention_values(self.model.loaded.proto)
        values = [value for value in self.model.values() if value.op_type and value.name not in inside]
        maps = [value for value in values if self.is_map(value.name)]
        # A graph of integer operators has its real numbers only where it converts back to them.
        candidates = [value for value in maps if value.kind in _MAP_KINDS] or maps
        activations = [value for value in candidates if value.kind in _ACTIVATION_KINDS]
        return tuple(activations if len(activations) >= 3 else candidates)

    def is_map(self, name: str) -> bool:
        """Whether a value holds floating-point channels with at least 2 × 2 positions, one row for each image."""
        shape = self.model.shapes().get(name)
        if shape is None or len(shape) != 4 or "float" not in self.model.dtypes().get(name, ""):
            return False
        if self.model.image_axis(name) != 0 or name in self.model.blocked_values:
            return False
        axis = self.model.channel_axis(name)
        return all(size >= 2 for index, size in enumerate(shape) if index not in (0, axis))

    @cached_property
    def output_axes(self) -> dict[str, int]:
        """By graph output that is an array of numbers: the axis along which its images lie, where there is one."""
        kinds = ("float", "int", "uint")
        dtypes = self.model.dtypes()
        names = [value.name for value in self.model.number_outputs if dtypes.get(value.name, "").startswith(kinds)]
        return {name: axis for name in names if (axis := self.model.image_axis(name)) is not None}

    @property
    def float_outputs(self) -> tuple[str, ...]:
        """Those of them that hold one row for each image."""
        return tuple(name for name, axis in self.output_axes.items() if axis == 0)

    def chosen_values(self, count: int) -> tuple[str, ...]:
        """The values that the caller asked for, or ``count`` of `maps` spread evenly over the depth."""
        if self.options.values:
            floats = set(self.model.float_values())
            return tuple(name for name in self.model.values_of_images(self.options.values) if name in floats)
        return tuple(value.name for value in spread(self.maps, count))


_COMPARED = 5


def spread(items: Sequence[Any], count: int) -> tuple[Any, ...]:
    """``count`` items at even distances, first and last included; all of them where there are not more."""
    if len(items) <= count:
        return tuple(items)
    return tuple(
        items[index] for index in dict.fromkeys(np.linspace(0, len(items) - 1, count).round().astype(int).tolist())
    )

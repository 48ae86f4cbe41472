"""Images and what is asked of a network come in; derivatives for the images, or for variants of one, go out.

What saliency, Grad-CAM and the other methods that derive have in common: which images, which number of each, by which
values, and both passes through the network in batches of one session.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from onnxviz.errors import InputError
from onnxviz.graph.gradient.rule_set import RuleSet
from onnxviz.graph.last_map import operators_before
from onnxviz.inputs.images import ImageSet, load_images
from onnxviz.inputs.preprocess import Preprocess
from onnxviz.methods.gradient import open_gradient, target_sides
from onnxviz.methods.gradient_target import GradientTarget, GradientTargetLike, resolve_gradient_target
from onnxviz.methods.variants import image_contract
from onnxviz.runtime.halving import run_halving
from onnxviz.runtime.model import Model

__all__ = ["Explained", "ImagesLike", "Part", "Passes", "explained_images", "one_or_all", "whole_number"]

ImagesLike = str | Path | NDArray[Any] | ImageSet | Sequence[Any] | Any
"""One image or a few: what :func:`onnxviz.load_images` takes."""

_CHOSEN = "most likely class of the clean image"
Arrays = dict[str, NDArray[Any]]
Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class Explained:
    """Images, and one number of each that is explained."""

    model: Model
    method: str
    """The public function's name."""
    preprocess: Preprocess
    views: NDArray[np.uint8]
    """(n, height, width, 3) RGB: what the network sees."""
    names: tuple[str, ...]
    tensor: NDArray[Any]
    """(n, *input shape)."""
    target: GradientTarget

    def __len__(self) -> int:
        return len(self.views)

    @cached_property
    def source(self) -> str:
        """The value by which is derived: the input, or the first real numbers behind an integer one.

        Raises
        ------
        InputError
            It does not have the image's rows and columns.
        """
        name = self.model.gradient_input
        if name == self.model.only_input:
            return name
        shape, size = self.model.shapes().get(name, ()), self.preprocess.size
        sides = tuple(side for axis, side in enumerate(shape) if axis not in (0, self.model.channel_axis(name)))
        if len(shape) != 4 or sides != size:
            raise InputError(
                "the first real numbers behind the input are no longer an image", where=f"value {name!r}",
                got=f"shape {tuple(shape)}", allowed=f"channels, {size[0]} rows and {size[1]} columns",
                next_step="Derive with onnxviz.gradient(model, x, wrt=...), which takes any value",
            )  # fmt: skip
        return name

    def channels_first(self, array: NDArray[Any]) -> NDArray[Any]:
        """(n, channels, height, width) of the source, whatever the network's layout."""
        if self.source == self.model.only_input:
            axis = 1 if self.preprocess.layout == "NCHW" else 3
        else:
            axis = self.model.channel_axis(self.source)
        return np.moveaxis(array, axis, 1)

    def text(self, index: int) -> str:
        """What is explained of one image, in words."""
        found = self.class_index(index)
        if found is None or len(self) == 1:
            return self.target.text
        labels = self.model.labels
        how, chosen, _ = self.target.text.partition(_CHOSEN)
        name = f"{labels[found]} ({found})" if labels else f"class {found}"
        return f"{chosen}: {name}" if chosen and not how else name

    @cached_property
    def _probabilities(self) -> NDArray[np.float32]:
        return self.model.predict(self.tensor)

    def probability(self, index: int) -> float | None:
        """What the model itself says of the explained class; None where no class is explained."""
        found = self.class_index(index)
        return None if found is None else float(self._probabilities[index, found])

    def class_index(self, index: int) -> int | None:
        """The class that is explained of one image."""
        return None if self.target.classes is None else int(self.target.classes[index])

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """What a reader should know of every derivative of this model."""
        notes = []
        if self.target.scale == "probability":
            notes.append("The graph holds no logits, so the probability itself was derived.")
        if self.operators["QuantizeLinear"]:
            notes.append(
                "Quantised values hand the derivative straight through where they do not saturate (Bengio, Léonard and "
                "Courville 2013)."
            )
        return tuple(notes)

    @cached_property
    def operators(self) -> Counter[str]:
        """How many nodes of each standard operator the target is computed by."""
        return operators_before(self.model.gradients.normalized.proto, self.target.values)

    @property
    def input_notes(self) -> tuple[str, ...]:
        """The same, and what is true of derivatives by the input."""
        if self.source == self.model.only_input:
            return self.notes
        # TensorFlow Lite converters join the names of all fused layers into one.
        name = self.source if len(self.source) <= 60 else f"{self.source[:57]}..."
        return (
            *self.notes, f"The input holds integers: what was derived by is {name}, the first real numbers behind it.",
        )  # fmt: skip

    def common(self, index: int, score: float, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """The fields that every result about one image has; ``parameters`` are the method's own."""
        return {
            "score": score,
            "probability": self.probability(index),
            "class_index": self.class_index(index),
            "image": self.views[index],
            "name": self.names[index],
            "target": self.text(index),
            "scale": self.target.scale,
            "provenance": self.model.provenance(
                self.method,
                {
                    "target": self.text(index), "class_index": self.class_index(index),
                    "derived": list(self.target.values), **parameters,
                },
            ),
        }  # fmt: skip

    def input_fields(
        self, values: NDArray[Any], reduction: str, method: str, notes: Sequence[str] = ()
    ) -> dict[str, Any]:
        """The fields of a result in the input's space; ``values`` are (channels, height, width) of one image."""
        return {
            "values": np.ascontiguousarray(values, np.float32),
            "reduction": reduction,
            "channel_order": self.preprocess.channels,
            "method": method,
            "input_value": self.source,
            "notes": (*self.input_notes, *notes),
        }


def explained_images(model: Model, image: ImagesLike, target: GradientTargetLike, method: str) -> Explained:
    """Read the images, and say once, on them as they are, which number of each is explained.

    Raises
    ------
    InputError
        The model takes no image, an image cannot be read, or the target does not exist.
    ContractError
        A class is asked of a model whose output is not a classifier's.
    """
    preprocess = image_contract(model, method)
    images = load_images(image, model)
    views = images.views(range(len(images)))
    tensor = model.checked_images(preprocess.encode(views))
    resolved = resolve_gradient_target(model, target, tensor)
    return Explained(model, method, preprocess, views, images.names, tensor, resolved)


def whole_number(name: str, given: Any) -> int:
    """A number of copies or steps.

    Raises
    ------
    InputError
        It is no whole number from 1.
    """
    if isinstance(given, bool) or not isinstance(given, int | np.integer) or given < 1:
        raise InputError(f"not a number of {name}", where=name, got=repr(given), allowed="1 or more")
    return int(given)


def one_or_all(results: list[Result]) -> Result | tuple[Result, ...]:
    """The result of the only image, or one for each."""
    return results[0] if len(results) == 1 else tuple(results)


@dataclass(frozen=True, eq=False)
class Part:
    """What one run gave for some images, or for some variants of one."""

    rows: slice
    gradients: Arrays
    """By value, in its shape."""
    values: Arrays
    scores: NDArray[np.float64]
    """(rows,) the number that is explained."""


class Passes:
    """Both passes through the network, by one session, whose answers are read while they come.

    Parameters
    ----------
    explained : Explained
    wrt : sequence of str, optional
        Values by which is derived; the source when left out.
    values : sequence of str
        Values that each run gives too.
    rules : RuleSet, optional
        Laid over the true derivatives.
    """

    def __init__(
        self, explained: Explained, *, wrt: Sequence[str] | None = None, values: Sequence[str] = (),
        rules: RuleSet | None = None,
    ) -> None:  # fmt: skip
        self._explained = explained
        self._model = model = explained.model
        target = explained.target
        derived_by = (explained.source,) if wrt is None else tuple(wrt)
        # The first real numbers behind an integer input are asked for always: one session then serves all methods.
        real = [explained.source] if wrt is None and explained.source != model.only_input else []
        shape = (model.fixed_batch or len(explained), *explained.tensor.shape[1:])
        self._session = open_gradient(
            model, {model.only_input: shape}, target, wrt=derived_by,
            values=tuple(dict.fromkeys((*target.values, *real, *values))), rules=rules,
        )  # fmt: skip
        self._sides = target_sides(model, self._session, target, explained.tensor[:1])

    def images(self) -> Iterator[Part]:
        """The images as they are, in batches."""
        tensor, target = self._explained.tensor, self._explained.target
        # All seeds at once: slices of them cost nothing.
        seeds = target.seeds(slice(0, len(tensor)), self._sides)
        yield from self._run(
            len(tensor),
            lambda first, rows: _padded(tensor[first : first + rows], rows),
            lambda first, rows: {name: _padded(seed[first : first + rows], rows) for name, seed in seeds.items()},
        )

    def variants(self, index: int, count: int, write: Callable[[int, NDArray[Any]], None]) -> Iterator[Part]:
        """Variants of one image, for the same target.

        Parameters
        ----------
        index : int
            Which image.
        count : int
            Number of variants.
        write : callable
            ``write(first, rows)`` fills ``rows``, (n, *input shape), with the encoded variants ``first`` to
            ``first + n``. It may be called for a variant again, where memory ran out and smaller batches are tried.
        """
        tensor, target = self._explained.tensor, self._explained.target
        rows = self._model.gradient_batch_size
        buffer = np.empty((rows, *tensor.shape[1:]), tensor.dtype)
        one = target.seeds(slice(index, index + 1), self._sides)
        seeds = {name: np.repeat(seed, rows, axis=0) for name, seed in one.items()}

        def written(first: int, wanted: int) -> NDArray[Any]:
            filled = min(wanted, count - first)
            write(first, buffer[:filled])
            buffer[filled:wanted] = buffer[filled - 1]
            return buffer[:wanted]

        yield from self._run(count, written, lambda _, wanted: {name: seed[:wanted] for name, seed in seeds.items()})

    def _run(
        self, count: int, feed: Callable[[int, int], NDArray[Any]],
        seeds: Callable[[int, int], Mapping[str, NDArray[Any]]],
    ) -> Iterator[Part]:  # fmt: skip
        """Run rows in batches, which are halved when memory runs out; ``feed`` and ``seeds`` take (first, rows)."""
        model = self._model
        with model.watch() as watch:

            def run(rows: slice, wanted: int) -> Part:
                kept = rows.stop - rows.start
                # Rows that are too many repeat the last one; their answers are dropped.
                seed = seeds(rows.start, wanted)
                gradients, values = self._session.run({model.only_input: feed(rows.start, wanted)}, seed, watch)
                return Part(
                    rows,
                    {name: array[:kept] for name, array in gradients.items()},
                    {name: array[:kept] for name, array in values.items()},
                    _weighted_sums(seed, values)[:kept],
                )

            for _, part in run_halving(
                count, model.gradient_batch_size, run, fixed=model.fixed_batch is not None,
                alike=model.runs_alike, where=model.name,
                next_step="Run on a machine with more memory, or explain with occlusion or rise",
            ):  # fmt: skip
                yield part


def _padded(array: NDArray[Any], rows: int) -> NDArray[Any]:
    """Rows, the last one repeated until there are as many as wanted."""
    missing = rows - len(array)
    return np.concatenate([array, np.repeat(array[-1:], missing, axis=0)]) if missing else array


def _weighted_sums(seeds: Mapping[str, NDArray[Any]], values: Arrays) -> NDArray[np.float64]:
    """(rows,) the number that the seeds define."""
    total: NDArray[np.float64] = np.zeros(len(next(iter(seeds.values()))))
    for name, seed in seeds.items():
        rows = len(seed)
        weights, numbers = seed.reshape(rows, -1), values[name].reshape(rows, -1)
        sums = np.einsum("ij,ij->i", weights, numbers, dtype=np.float64)
        if not np.isfinite(sums).all():
            # An infinite number with weight 0 is not part of the sum.
            sums = np.where(weights != 0, weights * np.where(weights != 0, numbers, 0), 0).sum(axis=1, dtype=np.float64)
        total += sums
    return total

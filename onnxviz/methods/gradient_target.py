"""What a caller wants derived comes in; the values to start the backward pass from, and their weights, go out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxviz.errors import InputError
from onnxviz.methods.target import element_named, most_likely, resolve_target
from onnxviz.runtime.model import Model

__all__ = ["GradientTarget", "GradientTargetLike", "resolve_gradient_target"]

GradientTargetLike = (
    int
    | str
    | Sequence[int]
    | tuple[str, int | tuple[int, ...] | str]
    | Mapping[str, NDArray[Any]]
    | NDArray[np.integer]
)

_MOST_LIKELY = "most likely class of the clean image"
_STRONGEST = "[strongest]"

Seeds = Callable[[slice, Mapping[str, tuple[int, ...]]], dict[str, NDArray[Any]]]
"""(rows, sides of each value without the batch) → weight of every element of every value."""


@dataclass(frozen=True)
class GradientTarget:
    """One number for each image, as a weighted sum of elements of values."""

    values: tuple[str, ...]
    """The values that the elements belong to."""
    seeds: Seeds
    text: str
    """What it is, in words."""
    scale: str
    """``"logit"``, ``"probability"`` or ``"value"``."""
    classes: NDArray[np.int64] | None
    """The class of each image where a class is explained."""


def resolve_gradient_target(model: Model, target: GradientTargetLike, tensor: NDArray[Any]) -> GradientTarget:
    """Say which number of each image is derived.

    Classes are explained by their logit, the score before the softmax, as Simonyan, Vedaldi and Zisserman (2013) do:
    the probability of one class can rise because another falls.

    Parameters
    ----------
    model : Model
    target : int, str, sequence of int, tuple or mapping
        A class index or a label; ``"top1"``, the most likely class of each image; one class index for each image;
        ``("value", index)`` or ``"value[i, j]"``, one element of any value, the batch axis left out;
        ``("value", "strongest")``, the sum over space of the channel whose sum is the largest on the first image;
        or ``{value: weights}``, any weighted sum of elements, weights in the value's shape.
    tensor : (n, *input shape)
        The encoded images.

    Raises
    ------
    InputError
        No such class, label, value or element; or a function, which has no derivative here.
    """
    if callable(target):
        raise InputError(
            "a function of the outputs cannot be derived here", where="target",
            got=getattr(target, "__name__", "a function"), allowed="a class, ('value', index), or {'value': weights}",
            next_step="Give its derivative as {'value': weights}, or use occlusion or rise, which take functions",
        )  # fmt: skip
    if isinstance(target, Mapping):
        return _weighted(model, target, len(tensor))
    if isinstance(target, list | np.ndarray) or _numbers(target):
        return _classes(model, np.asarray(target), len(tensor), "given for each image")
    if isinstance(target, str) and target == "top1":
        return _classes(model, most_likely(model, tensor), len(tensor), _MOST_LIKELY)
    if isinstance(target, str) and target.endswith(_STRONGEST):
        target = (target.removesuffix(_STRONGEST), "strongest")
    elif isinstance(target, str) and (named := element_named(target)) and target not in (model.labels or ()):
        target = named
    if isinstance(target, tuple):
        # The other reader of targets checks names and places, in the same words.
        checked = resolve_target(model, target, tensor[:1])
        name, element = checked.values[0], target[1]
        if isinstance(element, str):
            return _channel(model, name, _strongest_channel(model, name, tensor[:1]), checked.text)
        place = tuple(element) if isinstance(element, tuple | list) else (element,)
        return _element(
            name,
            tuple(int(number) for number in place),
            checked.text,
            "logit" if name == model.logits_value else "value",
        )
    known = resolve_target(model, target, tensor[:1])  # type: ignore[arg-type]
    assert known.class_index is not None
    return _classes(model, np.full(len(tensor), known.class_index), len(tensor), "")


def _numbers(target: object) -> bool:
    return isinstance(target, tuple) and all(isinstance(number, int | np.integer) for number in target)


def _classes(model: Model, wanted: NDArray[Any], rows: int, how: str) -> GradientTarget:
    count = model.output.classes or 0
    if model.output.kind == "values":
        model.output.probabilities(np.zeros((1, 1), np.float32))  # raises the sentence that says why
    if wanted.ndim != 1 or wanted.dtype.kind not in "iu" or len(wanted) != rows:
        raise InputError(
            "not one class index for each image", where="target", got=f"{wanted.dtype} of shape {wanted.shape}",
            allowed=f"{rows} integers",
        )  # fmt: skip
    if rows and (wanted.min() < 0 or wanted.max() >= count):
        outside = next(int(number) for number in wanted if not 0 <= number < count)
        raise InputError("no such class", where="target", got=str(outside), allowed=f"0 to {count - 1}")
    name, scale = model.class_scores
    classes = wanted.astype(np.int64)

    def seeds(chosen: slice, sides: Mapping[str, tuple[int, ...]]) -> dict[str, NDArray[Any]]:
        here = classes[chosen]
        flat = np.zeros((len(here), int(np.prod(sides[name]))), np.float32)
        flat[np.arange(len(here)), here] = 1
        return {name: flat.reshape(len(here), *sides[name])}

    return GradientTarget((name,), seeds, _class_text(model, classes, how), scale, classes)


def _class_text(model: Model, classes: NDArray[np.int64], how: str) -> str:
    different = np.unique(classes)
    if len(different) != 1:
        return f"{how or 'class'}, {len(different)} different ones" if len(different) else "no class"
    index = int(different[0])
    name = f"{model.labels[index]} ({index})" if model.labels else f"class {index}"
    return f"{how}: {name}" if how == _MOST_LIKELY else name


def _element(name: str, place: tuple[int, ...], text: str, scale: str) -> GradientTarget:
    def seeds(chosen: slice, sides: Mapping[str, tuple[int, ...]]) -> dict[str, NDArray[Any]]:
        weights = np.zeros((chosen.stop - chosen.start, *sides[name]), np.float32)
        every: tuple[Any, ...] = (slice(None), *place)
        weights[every] = 1
        return {name: weights}

    return GradientTarget((name,), seeds, text, scale, None)


def _channel(model: Model, name: str, channel: int, text: str) -> GradientTarget:
    axis = model.channel_axis(name) - 1

    def seeds(chosen: slice, sides: Mapping[str, tuple[int, ...]]) -> dict[str, NDArray[Any]]:
        weights = np.zeros((chosen.stop - chosen.start, *sides[name]), np.float32)
        np.moveaxis(weights, axis + 1, 0)[channel] = 1
        return {name: weights}

    return GradientTarget((name,), seeds, text, "value", None)


def _strongest_channel(model: Model, name: str, clean: NDArray[Any]) -> int:
    maps = model.channel_first(name, model.run(clean, (name,))[name])
    return int(np.nanargmax(maps.reshape(*maps.shape[:2], -1).sum(axis=2, dtype=np.float64)[0]))


def _weighted(model: Model, target: Mapping[str, NDArray[Any]], rows: int) -> GradientTarget:
    given = {model.value_by_image(name)[0]: np.asarray(weights) for name, weights in target.items()}
    if not given:
        raise InputError("no value is named", where="target", got="an empty mapping", allowed="{value: weights}")
    for name, weights in given.items():
        if weights.dtype.kind not in "biuf":
            raise InputError(
                "the weights are no real numbers", where=f"target {name!r}", got=f"an array of {weights.dtype}",
                allowed="integers or floating-point numbers, in the value's shape",
            )  # fmt: skip

    def seeds(chosen: slice, sides: Mapping[str, tuple[int, ...]]) -> dict[str, NDArray[Any]]:
        found = {}
        for name, weights in given.items():
            axis = model.image_axis(name) or 0
            whole = (*sides[name][:axis], rows, *sides[name][axis:])
            try:
                found[name] = np.moveaxis(np.broadcast_to(weights, whole), axis, 0)[chosen]
            except ValueError:
                raise InputError(
                    "the weights do not have the value's shape", where=f"target {name!r}", got=str(weights.shape),
                    allowed=f"{whole}, or what broadcasts to it",
                ) from None  # fmt: skip
        return found

    return GradientTarget(tuple(given), seeds, f"weighted sum of {', '.join(given)}", "value", None)

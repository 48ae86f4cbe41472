"""What a caller wants explained comes in; a function from the network's outputs to one number per image goes out."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxviz.errors import InputError, near_misses
from onnxviz.runtime.model import Model

__all__ = ["Target", "TargetLike", "element_named", "example_element", "most_likely", "resolve_target"]

Outputs = Mapping[str, NDArray[Any]]
TargetLike = int | str | tuple[str, int | tuple[int, ...] | str] | Callable[[Outputs], NDArray[Any]]

_INDEXED = re.compile(r"(?P<value>.+)\[(?P<index>(\s*-?\d+(\s*,\s*-?\d+)*)?\s*)\]")

_STRONGEST = "[strongest]"


@dataclass(frozen=True)
class Target:
    """One scalar of the network's outputs, for each image of a batch."""

    values: tuple[str, ...]
    """The values that have to be computed for it."""
    score: Callable[[Outputs], NDArray[np.floating[Any]]]
    """Outputs of a batch to (n,) scores."""
    text: str
    """What it is, in words."""
    scale: str
    """``"probability"``, ``"logit"`` or ``"value"``."""
    class_index: int | None


def resolve_target(model: Model, target: TargetLike, clean: NDArray[Any]) -> Target:
    """Say once, on the clean image, which number is explained.

    Parameters
    ----------
    model : Model
    target : int, str, tuple or callable
        A class index; a label; ``"top1"``, the most likely class of the clean image; ``("value", index)`` or
        ``"value[i, j]"``, one element of any value of the graph, the batch axis left out; ``("value", "strongest")`` or
        ``"value[strongest]"``, the sum over space of that channel of a value whose sum is the largest on the clean
        image (Zeiler and Fergus 2013, section 4.2, panel b); or a callable from ``{output name: array}`` to (n,)
        scores.
    clean : ndarray
        The encoded image, (1, *input shape).

    Raises
    ------
    InputError
        No such class, label, value or element.
    ContractError
        A class is asked of a model whose output is not a classifier's.
    """
    if callable(target):
        return _from_callable(model, target)
    if isinstance(target, tuple):
        parts: tuple[Any, ...] = target
        if len(parts) != 2 or not isinstance(parts[0], str):
            raise _no_target(target)
        value, element = target
        if isinstance(element, str):
            return _from_strongest(model, f"{value}[{element}]", clean)
        return _from_element(model, value, element, clean)
    if isinstance(target, int | np.integer) and not isinstance(target, bool):
        return _from_class(model, int(target), "")
    if not isinstance(target, str):
        raise _no_target(target)
    if target == "top1":
        return _from_class(model, int(most_likely(model, clean)[0]), "most likely class of the clean image: ")
    if model.labels and target in model.labels:
        return _from_class(model, model.labels.index(target), "")
    if target.endswith(_STRONGEST):
        return _from_strongest(model, target, clean)
    if named := element_named(target):
        return _from_element(model, *named, clean)
    if re.fullmatch(r"\d+", target):
        return _from_class(model, int(target), "")
    return _from_label(model, target)


def most_likely(model: Model, tensor: NDArray[Any]) -> NDArray[np.int64]:
    """(n,) the most likely class of each encoded image.

    Raises
    ------
    InputError
        The scores of an image are not finite numbers.
    ContractError
        The model's output is not a classifier's.
    """
    probabilities = model.predict(tensor)
    bad = np.flatnonzero(~np.isfinite(probabilities).all(axis=1))
    if bad.size:
        raise InputError(
            "no class is the most likely: the scores are not finite numbers", where="target",
            got=f"NaN or infinity for {bad.size} of {len(tensor)} image{'s' if len(tensor) > 1 else ''}",
            next_step="Name a class, or a value before NaN begins: `onnxviz audit` lists where that is",
        )  # fmt: skip
    return np.asarray(probabilities.argmax(axis=1), np.int64)


def element_named(target: str) -> tuple[str, tuple[int, ...]] | None:
    """The value and the index that ``"value[i, j]"`` names; ``"value[]"`` is all there is of a row that has no axis."""
    match = _INDEXED.fullmatch(target)
    if match is None:
        return None
    return match["value"], tuple(int(number) for number in match["index"].split(",") if number.strip())


def example_element(model: Model) -> str:
    """The first element of the output, or where that has no place for each image of the last value that has one."""
    names = [model.output.output, *(name for name in reversed(model.float_values()))]
    name = next((name for name in names if model.image_axis(name) is not None), names[0])
    return f"{name}[{', '.join('0' for _ in model.shapes().get(name, ())[1:])}]"


def _no_target(target: object) -> InputError:
    return InputError(
        "not a target", where="target", got=repr(target),
        allowed="a class index, a label, 'top1', ('value', index), ('value', 'strongest') or a callable",
    )  # fmt: skip


def _from_label(model: Model, label: str) -> Target:
    labels = model.labels or ()
    # ImageNet's names list synonyms: "tabby, tabby cat" answers to each of them.
    same = [
        index
        for index, name in enumerate(labels)
        if label.casefold() in (part.strip().casefold() for part in (name, *name.split(",")))
    ]
    if len(same) == 1:
        return _from_class(model, same[0], "")
    if same:
        raise InputError(
            "several classes have that label", where="target", got=repr(label),
            allowed=f"one of the class indices {', '.join(map(str, same))}",
        )  # fmt: skip
    if not labels:
        raise InputError(
            "the model's class names are not known", where="target", got=repr(label),
            allowed="a class index, 'top1', or 'value[index]'", next_step="Give the class names with labels=FILE",
        )  # fmt: skip
    raise InputError("no class has that label", where="target", got=repr(label), allowed=near_misses(label, labels))


def _from_class(model: Model, index: int, how: str) -> Target:
    output = model.output
    classes = output.classes or 0
    if output.kind == "values":
        # Raises the sentence that says why there are no classes.
        output.probabilities(np.zeros((1, 1), np.float32))
    if not 0 <= index < classes:
        raise InputError("no such class", where="target", got=str(index), allowed=f"0 to {classes - 1}")
    name = model.labels[index] if model.labels else f"class {index}"
    return Target(
        (output.output,),
        lambda outputs: output.probabilities(outputs[output.output])[:, index],
        f"{how}{name} ({index})" if model.labels else f"{how}{name}",
        "probability",
        index,
    )


def _from_element(model: Model, pattern: str, index: int | tuple[int, ...], clean: NDArray[Any]) -> Target:
    name, axis = model.value_by_image(pattern)
    place = (index,) if isinstance(index, int | np.integer) else tuple(int(number) for number in index)
    stated = model.value(name).shape
    known = stated is not None and all(isinstance(side, int) for side in stated[1:])
    shape = stated if stated is not None and known and not axis else model.run(clean, (name,))[name].shape
    sides = tuple(side for number, side in enumerate(shape) if number != axis)
    inside = len(place) == len(sides) and all(-size <= number < size for number, size in zip(place, sides, strict=True))
    if not inside:
        raise InputError(
            "the value has no such element", where="target", got=f"{name}{list(place)}",
            allowed=f"{len(sides)} indices below {sides} (the batch axis is left out)" if sides
            else f"no index, '{name}[]': it has one number for each image",
        )  # fmt: skip
    element: tuple[Any, ...] = (*place[:axis], slice(None), *place[axis:])
    return Target(
        (name,),
        lambda outputs: np.asarray(outputs[name][element], dtype=_real(outputs[name].dtype)),
        f"{name}{list(place)}",
        "logit" if name == model.logits_value else "value",
        None,
    )


def _from_strongest(model: Model, target: str, clean: NDArray[Any]) -> Target:
    if not target.endswith(_STRONGEST):
        raise InputError(
            "not an element", where="target", got=repr(target), allowed=f"an index, or {_STRONGEST[1:-1]!r}"
        )
    name = model.value_of_images(target.removesuffix(_STRONGEST))

    def totals(outputs: Outputs) -> NDArray[np.float64]:
        maps = model.channel_first(name, outputs[name])
        return np.asarray(maps.reshape(*maps.shape[:2], -1).sum(axis=2, dtype=np.float64))

    of_clean = totals(model.run(clean, (name,)))[0]
    if not np.isfinite(of_clean).any():
        raise InputError("no channel of the value has a finite total", where="target", got=name)
    channel = int(np.nanargmax(np.where(np.isfinite(of_clean), of_clean, np.nan)))
    return Target(
        (name,), lambda outputs: totals(outputs)[:, channel],
        f"total activation of channel {channel} of {name}, the strongest on the clean image", "value", None,
    )  # fmt: skip


def _from_callable(model: Model, function: Callable[[Outputs], NDArray[Any]]) -> Target:
    axes = {value.name: model.image_axis(value.name) for value in model.number_outputs}

    def score(outputs: Outputs) -> NDArray[np.floating[Any]]:
        numbers = np.asarray(function(outputs))
        # The rows of the run: an output may have its images along another axis.
        rows = next((outputs[name].shape[axis] for name, axis in axes.items() if axis is not None), len(numbers))
        if numbers.shape != (rows,) or numbers.dtype.kind not in "fiu":
            raise InputError(
                "the target function must return one number per image", where="target",
                got=f"{numbers.dtype} of shape {numbers.shape}", allowed=f"shape ({rows},)",
            )  # fmt: skip
        return numbers.astype(_real(numbers.dtype), copy=False)

    return Target(tuple(axes), score, getattr(function, "__name__", "a function"), "value", None)


def _real(dtype: np.dtype[Any]) -> type[np.float32] | type[np.float64]:
    return np.float64 if dtype == np.float64 else np.float32

"""A model, images and a number to explain come in; the derivative of that number by any values goes out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxviz.errors import InputError, ValueNotFoundError, near_misses
from onnxviz.graph.gradient.rule_set import RuleSet
from onnxviz.graph.tensors import tensors_among
from onnxviz.inputs.images import ImageBatch
from onnxviz.methods.gradient_target import GradientTarget, GradientTargetLike, resolve_gradient_target
from onnxviz.runtime.gradients import GradientSession
from onnxviz.runtime.model import Model

__all__ = ["Derivation", "derive", "gradient"]

Arrays = dict[str, NDArray[Any]]


def gradient(
    model: Model,
    x: NDArray[Any] | ImageBatch | Mapping[str, NDArray[Any]],
    target: GradientTargetLike = "top1",
    *,
    wrt: str | Sequence[str] | None = None,
    rules: RuleSet | None = None,
) -> NDArray[Any] | Arrays:
    """Derive one number of each image by values of the graph.

    Parameters
    ----------
    model : Model
    x : array, ImageBatch or mapping
        Encoded images (n, *input shape) in the model's dtype and layout, or input name to array.
    target : int, str, sequence of int, tuple or mapping
        What is derived. A class (index, label, ``"top1"`` or one index for each image) means its logit;
        ``("value", index)`` any element of any value; ``{value: weights}`` any weighted sum.
    wrt : str or sequence of str, optional
        Values by which it is derived, names or globs: the input, maps inside the network, weights. Without it the
        input, or the first value behind an integer input that holds real numbers.
    rules : RuleSet, optional
        Rules other than the true derivatives, such as :data:`onnxviz.graph.gradient.presets.GUIDED_BACKPROPAGATION`.

    Returns
    -------
    array, or dict of value name to array
        Each in its value's shape, the images in their order; of weights, the sum over the images; zeros of a value that
        the target does not depend on. One array where ``wrt`` is a name or left out.

    Raises
    ------
    UnsupportedOperatorError
        An operator between a value and the target has no known derivative; it is named.
    ValueNotFoundError
        No value has the name.
    InputError
        A value holds integers, or the target does not exist.

    Notes
    -----
    Reverse-mode differentiation (Griewank and Walther 2008): the backward pass is an ONNX graph behind the model's own,
    and onnxruntime runs both at once. Quantised values hand the derivative straight through where they do not saturate
    (Bengio, Léonard and Courville 2013). At the kink of a ReLU the derivative is 0, as in PyTorch.
    """
    names = None if wrt is None else (wrt,) if isinstance(wrt, str) else tuple(wrt)
    derivation = derive(model, x, target, wrt=names, rules=rules)
    if wrt is None or (isinstance(wrt, str) and len(derivation.gradients) == 1):
        return next(iter(derivation.gradients.values()))
    return derivation.gradients


@dataclass(frozen=True)
class Derivation:
    """Gradients, and values computed by the same runs."""

    target: GradientTarget
    gradients: Arrays
    """By value, in its shape."""
    values: Arrays
    """The values asked for."""


def derive(
    model: Model,
    x: NDArray[Any] | ImageBatch | Mapping[str, NDArray[Any]],
    target: GradientTargetLike = "top1",
    *,
    wrt: Sequence[str] | None = None,
    values: Sequence[str] = (),
    rules: RuleSet | None = None,
) -> Derivation:
    """Like :func:`gradient`, with values of the graph from the same runs."""
    if isinstance(x, Mapping):
        return _derive_feeds(model, x, target, wrt, values, rules)
    tensor = model.checked_images(x)
    resolved = resolve_gradient_target(model, target, tensor)
    gathered: tuple[Arrays, Arrays] | None = None
    for rows, gradients, tapped in stream(model, tensor, resolved, wrt=wrt, values=values, rules=rules):
        if rows == slice(0, len(tensor)):
            gathered = gradients, tapped
            break
        if gathered is None:
            gathered = _room(gradients, len(tensor), model), _room(tapped, len(tensor), model)
        for whole, part in zip(gathered, (gradients, tapped), strict=True):
            for name, array in part.items():
                if _is_weight(model, name):
                    whole[name] += array
                else:
                    whole[name][rows] = array
    if gathered is None:
        raise InputError("there is nothing to derive", where=model.name, got=f"an array of shape {tensor.shape}")
    return Derivation(resolved, *(_as_in_the_graph(arrays, model) for arrays in gathered))


def stream(
    model: Model,
    tensor: NDArray[Any],
    target: GradientTarget,
    *,
    wrt: Sequence[str] | None = None,
    values: Sequence[str] = (),
    rules: RuleSet | None = None,
) -> Iterator[tuple[slice, Arrays, Arrays]]:
    """Derive rows in batches: which rows, their gradients, the values asked for."""
    shape = (model.fixed_batch or len(tensor), *tensor.shape[1:])
    session = open_gradient(model, {model.only_input: shape}, target, wrt=wrt, values=values, rules=rules)
    sides = target_sides(model, session, target, tensor[:1])
    with model.watch() as watch:
        yield from session.stream(
            tensor,
            model.only_input,
            lambda rows: target.seeds(rows, sides),
            model.gradient_batch_size,
            watch,
            fixed=model.fixed_batch is not None,
            alike=model.runs_alike,
        )


def open_gradient(
    model: Model,
    shapes: Mapping[str, Sequence[int]],
    target: GradientTarget,
    *,
    wrt: Sequence[str] | None = None,
    values: Sequence[str] = (),
    rules: RuleSet | None = None,
) -> GradientSession:
    """The session for a target; globs are spelled out."""
    by = (model.gradient_input,) if wrt is None else _spelled_out(model, wrt)
    tapped = _spelled_out(model, values)
    axes = {name: axis for name in (*target.values, *by, *tapped) if (axis := model.image_axis(name)) != 0}
    return model.gradients.session(shapes, target.values, by, tapped, rules, axes)


def target_sides(
    model: Model, session: GradientSession, target: GradientTarget, x: NDArray[Any] | Mapping[str, NDArray[Any]]
) -> dict[str, tuple[int, ...]]:
    """Sides of the target's values for one image, the batch axis left out."""
    found = {}
    for name in target.values:
        sides = session.sides(name)
        if sides is None or any(side is None for side in sides):
            whole = model.run(x, (name,))[name].shape
            sides = tuple(side for axis, side in enumerate(whole) if axis != (model.image_axis(name) or 0))
        found[name] = tuple(side for side in sides if side is not None)
    return found


def _derive_feeds(
    model: Model, feeds: Mapping[str, NDArray[Any]], target: GradientTargetLike, wrt: Sequence[str] | None,
    values: Sequence[str], rules: RuleSet | None,
) -> Derivation:  # fmt: skip
    """All inputs at once, as the file states them."""
    checked = model.checked_feeds(feeds)
    if len(checked) == 1:
        return derive(model, next(iter(checked.values())), target, wrt=wrt, values=values, rules=rules)
    rows = len(next(iter(checked.values())))
    if not isinstance(target, Mapping | tuple):
        raise InputError(
            "a model with several inputs has no class of an image", where="target", got=repr(target),
            allowed="('value', index) or {'value': weights}",
        )  # fmt: skip
    if isinstance(target, tuple):
        name = model.value_of_images(target[0])
        element = target[1]
        if isinstance(element, str):
            raise InputError("not an element", where="target", got=repr(target), allowed="('value', index)")
        weights = np.zeros(model.run(checked, (name,))[name].shape, np.float32)
        place: tuple[Any, ...] = (slice(None), *(element if isinstance(element, tuple) else (element,)))
        weights[place] = 1
        target = {name: weights}
    resolved = resolve_gradient_target(model, target, np.empty((rows, 0), np.float32))
    shapes = {name: array.shape for name, array in checked.items()}
    session = open_gradient(model, shapes, resolved, wrt=wrt, values=values, rules=rules)
    sides = target_sides(model, session, resolved, checked)
    with model.watch() as watch:
        gradients, tapped = session.run(checked, resolved.seeds(slice(0, rows), sides), watch)
    return Derivation(resolved, gradients, tapped)


def _spelled_out(model: Model, patterns: Sequence[str]) -> tuple[str, ...]:
    names: list[str] = []
    for pattern in patterns:
        if pattern in model.weight_names:
            names.append(pattern)
            continue
        try:
            names += [value.name for value in tensors_among(model.values(pattern), model.name)]
        except ValueNotFoundError as error:
            close = near_misses(pattern, [*(value.name for value in model.values()), *model.weight_names])
            raise ValueNotFoundError(
                "no value or weight of the graph has this name", where=model.name, got=repr(pattern), allowed=close
            ) from error
    return tuple(dict.fromkeys(names))


def _room(parts: Arrays, rows: int, model: Model) -> Arrays:
    room = {}
    for name, array in parts.items():
        if _is_weight(model, name):
            room[name] = np.zeros_like(array)
            continue
        if model.image_axis(name) is None:
            # The parts of several runs cannot be put together.
            model.value_of_images(name)  # raises the sentence that says why
        room[name] = np.empty((rows, *array.shape[1:]), array.dtype)
    return room


def _is_weight(model: Model, name: str) -> bool:
    """Whether a value is the same for all images, so that their derivatives by it add up."""
    return name in model.weight_names or model.value(name).kind == "constant"


def _as_in_the_graph(arrays: Arrays, model: Model) -> Arrays:
    """Every value in its own shape: the images along the axis where the graph has them."""
    return {
        name: np.ascontiguousarray(np.moveaxis(array, 0, axis)) if (axis := model.image_axis(name)) else array
        for name, array in arrays.items()
    }

"""A model and one of its values come in; pictures that gradient ascent makes excite channels or neurons go out."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxviz.errors import InputError
from onnxviz.methods.ascent_recipes import METHODS, Objectives, Recipe, Start, picture_randoms, start_picture
from onnxviz.methods.gradient_target import GradientTarget
from onnxviz.methods.picture_scores import PictureEncoding
from onnxviz.methods.relu_startup import REDIRECTED
from onnxviz.methods.variants import image_contract
from onnxviz.results import AscentStep, FeatureVisualization
from onnxviz.runtime.model import Model

__all__ = ["METHODS", "UNITS", "channel_target", "feature_visualization", "feature_visualization_steps"]

UNITS = ("channel", "neuron")

MOST_CHANNELS = 16
"""Channels that are shown where none are named, spread evenly over their numbers."""


def feature_visualization(
    model: Model,
    value: str,
    *,
    unit: str = "channel",
    channels: Sequence[int] | None = None,
    position: tuple[int, int] | None = None,
    method: str = "fourier",
    steps: int | None = None,
    seed: int = 0,
    start: Start = "mean",
    regularization: Mapping[str, float] | None = None,
) -> FeatureVisualization:
    """Make pictures of what excites channels of a layer, by gradient ascent on the input (Olah et al. 2017).

    Parameters
    ----------
    model : Model
    value : str
        Name or glob of one value.
    unit : str
        ``"channel"``: the mean of a channel over space is raised. ``"neuron"``: its unit at one position.
    channels : sequence of int, optional
        16 channels, spread evenly over their numbers, where left out.
    position : (int, int), optional
        Row and column of the neurons; the middle where left out, of an even number the lower right of the middle two.
    method, steps, seed, start, regularization
        As for :func:`~onnxviz.class_visualization`.

    Returns
    -------
    FeatureVisualization

    Raises
    ------
    ValueNotFoundError
        The graph has no such value.
    InputError
        No such unit, channel, position, method or number; or the model takes no images.
    UnsupportedOperatorError
        An operator between input and value has no known derivative.

    Notes
    -----
    In the first 16 steps a ReLU through which nothing gets for a whole picture hands on what does not push its inputs
    further below 0, as in Lucid: an ascent that starts where a channel is 0 everywhere would never begin.
    """
    asked = _Question(
        model, value, unit=unit, channels=channels, position=position, method=method, steps=steps, seed=seed,
        start=start, regularization=regularization,
    )  # fmt: skip
    for _ in asked.run():
        pass
    return asked.result()


def feature_visualization_steps(model: Model, value: str, **parameters: Any) -> Iterator[AscentStep]:
    """Do what :func:`feature_visualization` does step by step.

    Parameters
    ----------
    model : Model
    value : str
    **parameters
        Those of :func:`feature_visualization`.

    Yields
    ------
    AscentStep
        The pictures after each step; the last holds the whole result.

    Raises
    ------
    ValueNotFoundError, InputError, UnsupportedOperatorError
        As :func:`feature_visualization` does.
    """
    unknown = sorted(set(parameters) - set(_DEFAULTS))
    if unknown:
        raise TypeError(f"feature_visualization_steps() got an unexpected keyword argument {unknown[0]!r}")
    return _Question(model, value, **(dict(_DEFAULTS) | parameters)).run()


_DEFAULTS: Mapping[str, Any] = {
    name: parameter.default
    for name, parameter in inspect.signature(feature_visualization).parameters.items()
    if parameter.kind is parameter.KEYWORD_ONLY
}


def channel_target(
    model: Model, value: str, channels: Sequence[int], position: tuple[int, int] | None
) -> GradientTarget:
    """One channel of a value for each picture: its mean over space, or its unit at a position."""
    axis = model.channel_axis(value) - 1
    numbers = tuple(int(channel) for channel in channels)

    def seeds(chosen: slice, sides: Mapping[str, tuple[int, ...]]) -> dict[str, NDArray[Any]]:
        here = numbers[chosen]
        shape = sides[value]
        weights = np.zeros((len(here), *shape), np.float32)
        # (channels, rows, ...) views onto the weights: the channel's axis first, whatever the layout.
        first = np.moveaxis(weights, axis + 1, 1) if shape else weights.reshape(len(here), 1)
        for row, channel in enumerate(here):
            if position is None or first.ndim < 3:
                first[row, channel] = 1 / max(1, first[row, channel].size)
            else:
                _plane(first[row, channel])[position] = 1
        return {value: weights}

    what = "mean of one channel" if position is None else f"unit at {list(position)} of one channel"
    return GradientTarget((value,), seeds, f"{what} of {value}", "value", None)


def _plane(array: NDArray[Any]) -> NDArray[Any]:
    """A view of a channel with two axes, as :meth:`Model.channel_first` shapes it."""
    return array.reshape(1, -1) if array.ndim == 1 else array.reshape(-1, array.shape[-1])


class _Question:
    """The parameters of one call, checked; the frames; and the result made of them."""

    def __init__(
        self, model: Model, value: str, *, unit: str, channels: Sequence[int] | None, position: Any, method: str,
        steps: Any, seed: int, start: Start, regularization: Mapping[str, float] | None,
    ) -> None:  # fmt: skip
        preprocess = image_contract(model, "feature visualization")
        if unit not in UNITS:
            raise InputError("no such unit", where="unit", got=repr(unit), allowed=", ".join(map(repr, UNITS)))
        self.model, self.unit, self.name = model, unit, model.value_of_images(value)
        shape = model.channel_first(self.name, np.empty(model.shapes()[self.name], np.bool_)).shape
        self.channels = _channels(channels, shape[1], self.name)
        self.position = _position(unit, position, shape[2:], self.name)
        blank = preprocess.encode(np.zeros((1, *preprocess.size, 3), np.uint8))
        encoding = PictureEncoding(preprocess, blank.dtype)
        self.recipe = Recipe.of(method, steps, regularization, size=preprocess.size, mean=tuple(encoding.mean.tolist()))
        begun = start_picture(start, encoding, preprocess.size)
        self.starts = np.repeat(begun[np.newaxis], len(self.channels), axis=0)
        self.randoms = picture_randoms(seed, [(int(channel),) for channel in self.channels])
        rows = np.repeat(self.channels, self.recipe.copies).tolist()
        self.target = channel_target(model, self.name, rows, self.position)
        self.objectives = Objectives(model, self.target, startup=REDIRECTED)
        self.curve: list[NDArray[np.float64]] = []
        self.pictures: NDArray[np.uint8] | None = None
        self.parameters: dict[str, Any] = {
            "value": self.name,
            "unit": unit,
            "channels": self.channels.tolist(),
            "position": None if self.position is None else list(self.position),
            **self.recipe.to_json(),
            "seed": int(seed),
            "start": start if isinstance(start, str) else np.asarray(start).tolist(),
        }

    def run(self) -> Iterator[AscentStep]:
        """One step after another."""
        encoding = self.objectives.scores.encoding
        for frame in self.recipe.frames(self.starts, self.randoms, self.objectives):
            self.curve.append(frame.scores)
            self.pictures = encoding.views(frame.pictures)
            yield AscentStep(
                pictures=self.pictures,
                scores=frame.scores.astype(np.float32),
                done=frame.done,
                total=self.recipe.steps,
                result=self.result() if frame.done == self.recipe.steps else None,
            )

    def result(self) -> FeatureVisualization:
        """What all steps made."""
        assert self.pictures is not None
        scores = self.objectives.scores
        rows = range(0, len(self.channels) * self.recipe.copies, self.recipe.copies)
        return FeatureVisualization(
            value=self.name,
            unit=self.unit,
            channels=self.channels,
            position=self.position,
            pictures=self.pictures,
            scores=scores.of_views(self.pictures, rows).astype(np.float32),
            start_scores=scores.of_views(scores.encoding.views(self.starts), rows).astype(np.float32),
            curve=np.stack(self.curve).astype(np.float32),
            provenance=self.model.provenance("feature_visualization", self.parameters),
        )


def _channels(wished: Sequence[int] | None, count: int, name: str) -> NDArray[np.int64]:
    if wished is None:
        return np.unique(np.linspace(0, count - 1, min(count, MOST_CHANNELS)).round().astype(np.int64))
    chosen = np.asarray(wished)
    fits = chosen.ndim == 1 and len(chosen) and chosen.dtype.kind in "iu" and 0 <= chosen.min() <= chosen.max() < count
    if not fits or len(np.unique(chosen)) < len(chosen):
        raise InputError(
            "no such channels", where=f"value {name!r}", got=str(list(wished)), allowed=f"0 to {count - 1}, each once"
        )
    return chosen.astype(np.int64)


def _position(unit: str, wished: Any, sides: tuple[int, ...], name: str) -> tuple[int, int] | None:
    if unit == "channel" or not sides:
        if wished is not None:
            why = "the value has no spatial axes" if unit == "neuron" else "a channel is shown as a whole"
            raise InputError(f"{why}, so there is no position", where="position", got=repr(wished), allowed="None")
        return None
    if wished is None:
        return sides[0] // 2, sides[1] // 2
    place = tuple(wished) if isinstance(wished, Sequence | np.ndarray) else ()
    whole = len(place) == 2 and all(isinstance(number, int | np.integer) for number in place)
    if not whole or not all(0 <= number < side for number, side in zip(place, sides, strict=True)):
        raise InputError(
            "no such position", where=f"value {name!r}", got=repr(wished),
            allowed=f"row 0 to {sides[0] - 1} and column 0 to {sides[1] - 1}",
        )  # fmt: skip
    return int(place[0]), int(place[1])

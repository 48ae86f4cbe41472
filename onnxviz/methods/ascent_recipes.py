"""The name of a method of ascent and wishes come in; all of its numbers, and frame after frame, go out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxviz.errors import InputError, near_misses
from onnxviz.graph.gradient.rule_set import RuleSet
from onnxviz.methods.ascent import (
    Frame,
    Objective,
    PixelCare,
    SpectrumCare,
    ascend_in_stages,
    ascend_pixels,
    ascend_spectrum,
    stages_of,
)
from onnxviz.methods.gradient_target import GradientTarget
from onnxviz.methods.image_parametrization import FourierSpace, PixelSpace
from onnxviz.methods.picture_scores import PictureEncoding, PictureScores
from onnxviz.methods.relu_startup import STARTUP_STEPS
from onnxviz.methods.robust_transforms import RandomTransform
from onnxviz.runtime.model import Model

__all__ = ["METHODS", "STEPS", "Objectives", "Recipe", "Start", "picture_randoms", "rim_color", "start_picture"]

STEPS = {"fourier": 256, "simonyan": 200, "yosinski": 300, "nguyen": 370}
METHODS = tuple(STEPS)

_MOST_STEPS = 100_000

_SPECTRUM = {
    "decay": 1.0, "strength": 1.0, "copies": 1, "noise": 0.0, "noise_end": 0.0, "roughness": 0.0, "rate": 0.05,
    "cooling": 0.0,
}  # fmt: skip
_PIXELS: Mapping[str, Mapping[str, float]] = {
    "simonyan": {"rate": 2.0, "l2": 1e-5, "deviation": 0.0},
    "yosinski": {
        "rate": 4.0, "decay": 0.01, "blur": 1.0, "blur_every": 4, "small_value": 0.0, "small_norm": 0.0,
        "small_contribution": 0.0, "deviation": 10.0,
    },
    "nguyen": {"deviation": 8.0},
}  # fmt: skip
"""What can be chosen in each method, and what it is otherwise."""

Start = str | Sequence[float] | NDArray[Any]

COLORS = {"black": 0.0, "grey": 127.5, "white": 255.0}


@dataclass(frozen=True)
class Recipe:
    """A method with all of its numbers."""

    method: str
    steps: int
    numbers: Mapping[str, float]
    """Its regularisation."""
    size: tuple[int, int]
    mean: tuple[float, ...]
    """(channels,) of 255: the colour that the input contract subtracts."""

    @classmethod
    def of(
        cls, method: str, steps: int | None, regularization: Mapping[str, float] | None, *, size: tuple[int, int],
        mean: tuple[float, ...],
    ) -> Recipe:  # fmt: skip
        """The method's own numbers, those of ``regularization`` in their place.

        Raises
        ------
        InputError
            No such method or number, or one that makes no sense.
        """
        if method not in METHODS:
            raise InputError("no such method", where="method", got=repr(method), allowed=", ".join(map(repr, METHODS)))
        steps = STEPS[method] if steps is None else steps
        if not _is_whole(steps) or not 1 <= steps <= _MOST_STEPS:
            raise InputError("not a number of steps", where="steps", got=repr(steps), allowed=f"1 to {_MOST_STEPS:,}")
        usual: Mapping[str, float] = _SPECTRUM if method == "fourier" else _PIXELS[method]
        for name, number in (regularization or {}).items():
            if name not in usual:
                raise InputError(
                    f"the method {method!r} has no such number", where="regularization", got=repr(name),
                    allowed=near_misses(name, usual),
                )  # fmt: skip
            _check(name, number)
        numbers = dict(usual) | {name: float(number) for name, number in (regularization or {}).items()}
        return cls(method, int(steps), numbers, size, mean)

    @property
    def copies(self) -> int:
        """Pictures that are run for each that is made."""
        return int(self.numbers.get("copies", 1))

    def frames(
        self,
        starts: NDArray[np.float32],
        randoms: Sequence[np.random.Generator],
        objectives: Callable[[int], Objective],
    ) -> Iterator[Frame]:
        """Make pictures.

        Parameters
        ----------
        starts : (n, channels, height, width) float32
            Pictures to start from, to which the method's noise is added.
        randoms : sequence of Generator
            One for each picture.
        objectives : callable
            Number of the step → scores and derivatives of ``copies`` pictures for each.
        """
        numbers = self.numbers
        if self.method == "fourier":
            spectrum = FourierSpace(self.size, len(self.mean), decay=numbers["decay"])
            care = SpectrumCare(
                RandomTransform.for_size(self.size, numbers["strength"]), copies=self.copies,
                noise=(numbers["noise"], numbers["noise_end"]), roughness=numbers["roughness"], rate=numbers["rate"],
                cooling=numbers["cooling"],
            )  # fmt: skip
            noise = np.stack([spectrum.start(random) for random in randoms])
            yield from ascend_spectrum(
                objectives, spectrum, noise + spectrum.parameters(starts), care, padding=rim_color(starts),
                randoms=randoms, steps=self.steps,
            )  # fmt: skip
            return
        pixels = PixelSpace(self.size, len(self.mean), self.mean, deviation=numbers["deviation"])
        noise = np.stack([pixels.start(random) for random in randoms])
        begun = pixels.inside(pixels.parameters(starts) + noise)
        if self.method == "nguyen":
            yield from ascend_in_stages(
                objectives, pixels.pictures(begun), randoms=randoms, stages=stages_of(self.steps)
            )
            return
        known = {field.name for field in dataclasses.fields(PixelCare)}
        chosen: dict[str, Any] = {name: number for name, number in numbers.items() if name in known}
        yield from ascend_pixels(objectives, pixels, begun, PixelCare(**chosen), steps=self.steps)

    def to_json(self) -> dict[str, Any]:
        """For the record."""
        return {"method": self.method, "steps": self.steps, "regularization": dict(self.numbers)}


_SHARES = ("cooling",)
_PERCENTAGES = ("small_value", "small_norm", "small_contribution")


def _check(name: str, number: Any) -> None:
    real = isinstance(number, int | float | np.number) and not isinstance(number, bool) and np.isfinite(number)
    most = 1.0 if name in _SHARES else 100.0 if name in _PERCENTAGES else np.inf
    least = 1 if name in ("copies", "blur_every") else 0
    if not real or not least <= number <= most or (least and int(number) != number):
        raise InputError(
            f"not a value of {name}", where="regularization", got=repr(number),
            allowed="a whole number from 1" if least else f"0 to {most:g}" if most < np.inf else "0 or more",
        )  # fmt: skip


def _is_whole(given: Any) -> bool:
    return isinstance(given, int | np.integer) and not isinstance(given, bool)


def picture_randoms(seed: int, numbers: Sequence[tuple[int, ...]]) -> list[np.random.Generator]:
    """One generator for each picture, so that a picture is the same whichever others are made beside it.

    Raises
    ------
    InputError
        The seed is no whole number from 0.
    """
    if not _is_whole(seed) or seed < 0:
        raise InputError("not a seed", where="seed", got=repr(seed), allowed="a whole number from 0")
    return [np.random.Generator(np.random.PCG64(np.random.SeedSequence((int(seed), *own)))) for own in numbers]


def start_picture(start: Start, encoding: PictureEncoding, size: tuple[int, int]) -> NDArray[np.float32]:
    """(channels, height, width) the picture that an ascent begins with, before any noise.

    Parameters
    ----------
    start : str, (3,) numbers or (height, width, 3) numbers
        ``"mean"``, the colour that the input contract subtracts; another colour by name or in RGB, 0 to 255; or a
        picture in RGB, 0 to 255.
    encoding : PictureEncoding
    size : (height, width)
        What the network sees.

    Raises
    ------
    InputError
        No such colour, or a picture of another size.
    """
    allowed = ", ".join(map(repr, ("mean", *COLORS))) + f", three numbers, or {size[0]} × {size[1]} × 3 from 0 to 255"
    if isinstance(start, str):
        if start not in ("mean", *COLORS):
            raise InputError("no such start", where="start", got=repr(start), allowed=allowed)
        color = encoding.preprocess.dataset_mean if start == "mean" else np.full(3, COLORS[start])
    else:
        color = np.asarray(start, np.float64)
    if color.shape not in ((3,), (*size, 3)) or not (
        np.isfinite(color).all() and 0 <= color.min() <= color.max() <= 255
    ):
        got = f"an array of shape {color.shape}" if color.size > 3 else str(color.tolist())
        raise InputError("not a colour or picture to start from", where="start", got=got, allowed=allowed)
    picture: NDArray[np.float32] = encoding.from_colors(np.broadcast_to(color, (1, *size, 3)))[0]
    return picture


def rim_color(pictures: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n, channels) the mean colour of the outermost pixels: what is taken to be around pictures that are moved."""
    rims = (pictures[:, :, 0], pictures[:, :, -1], pictures[:, :, 1:-1, 0], pictures[:, :, 1:-1, -1])
    color: NDArray[np.float32] = np.concatenate(rims, axis=2).mean(axis=2)
    return color


class Objectives:
    """Scores of pictures by the number of the step: at first with other rules, where some are given.

    Parameters
    ----------
    model : Model
    target : GradientTarget
        One number for each picture that is run.
    startup : RuleSet, optional
        Rules of the first steps.
    probability : bool
        Raise the logarithm of the class's probability instead of the score.
    """

    def __init__(
        self, model: Model, target: GradientTarget, *, startup: RuleSet | None = None, probability: bool = False
    ) -> None:
        self.scores = PictureScores(model, target, probability=probability)
        self._startup = (
            PictureScores(model, target, startup, probability=probability) if startup is not None else self.scores
        )

    def __call__(self, step: int) -> Objective:
        """Scores for the step of that number, counted from 0."""
        return self._startup if step < STARTUP_STEPS else self.scores

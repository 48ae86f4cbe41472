"""Scores of pictures come in, with what is moved to raise them; better and better pictures go out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from onnxviz.methods.image_parametrization import FourierSpace, PixelSpace
from onnxviz.methods.robust_transforms import RandomTransform, Resampling
from onnxviz.methods.total_variation import denoise, roughness_gradient

__all__ = [
    "ADAM_RATE", "STAGES", "Adam", "Frame", "Objective", "PixelCare", "SpectrumCare", "Stage", "ascend_in_stages",
    "ascend_pixels", "ascend_spectrum", "stages_of",
]  # fmt: skip

Floats = NDArray[np.float32]
Scores = NDArray[np.float64]

Objective = Callable[[Floats], tuple[Scores, Floats]]
"""(n, channels, height, width) pictures → (n,) scores, and their derivatives by the pictures."""

ADAM_RATE = 0.05


@dataclass(frozen=True)
class Frame:
    """The pictures after a step."""

    done: int
    """Steps made."""
    pictures: Floats
    """(n, channels, height, width), 0 black to 1 white, perhaps beyond."""
    scores: Scores
    """(n,) what the step was computed from: the scores of the pictures before it, moved at random as they were."""


@dataclass
class Adam:
    """Steps of about equal length in every coordinate (Kingma and Ba 2015), upwards."""

    rate: float = ADAM_RATE
    mean_decay: float = 0.9
    square_decay: float = 0.999
    epsilon: float = 1e-8
    _step: int = 0
    _mean: Floats | None = field(default=None, repr=False)
    _square: Floats | None = field(default=None, repr=False)

    def ascend(self, parameters: Floats, gradient: Floats) -> Floats:
        """The parameters after one step."""
        if self._mean is None or self._square is None:
            self._mean, self._square = np.zeros_like(parameters), np.zeros_like(parameters)
        self._step += 1
        self._mean = np.float32(self.mean_decay) * self._mean + np.float32(1 - self.mean_decay) * gradient
        self._square = np.float32(self.square_decay) * self._square + np.float32(1 - self.square_decay) * gradient**2
        mean = self._mean / np.float32(1 - self.mean_decay**self._step)
        root = np.sqrt(self._square / np.float32(1 - self.square_decay**self._step))
        moved: Floats = parameters + np.float32(self.rate) * mean / (root + np.float32(self.epsilon))
        return moved


# -- the Fourier spectrum, robust to being moved (Olah, Mordvintsev and Schubert 2017) --------------------------------


@dataclass(frozen=True)
class SpectrumCare:
    """What keeps a picture plausible while its spectrum is moved."""

    transform: RandomTransform
    copies: int = 1
    """Random placements per step, over which the derivative is averaged."""
    noise: tuple[float, float] = (0.0, 0.0)
    """Standard deviation, of 1, of the noise on every placed copy, in the first and towards the last step."""
    roughness: float = 0.0
    """By what the sum of the differences of neighbouring pixels is weighed against the score."""
    rate: float = ADAM_RATE
    cooling: float = 0.0
    """Share of the rate that is lost, evenly, until the end."""


def ascend_spectrum(
    objectives: Callable[[int], Objective],
    space: FourierSpace,
    parameters: Floats,
    care: SpectrumCare,
    *,
    padding: Floats,
    randoms: Sequence[np.random.Generator],
    steps: int,
) -> Iterator[Frame]:
    """Raise scores by moving the spectrum of pictures.

    Parameters
    ----------
    objectives : callable
        Number of the step → the scores of ``copies`` placements of every picture, those of one picture in a row.
    space : FourierSpace
    parameters : (n, ...) float32
        Where it starts.
    care : SpectrumCare
    padding : (n, channels) float32
        The colour around each picture.
    randoms : sequence of Generator
        One for each picture, which then does not depend on the others.
    steps : int

    Yields
    ------
    Frame
    """
    adam = Adam(care.rate)
    shape = (space.channels, *space.size)
    for step in range(steps):
        share = step / steps
        pictures = space.pictures(parameters)
        placements, noises = [], []
        deviation = np.float32(care.noise[0] + (care.noise[1] - care.noise[0]) * share)
        for random in randoms:
            for _ in range(care.copies):
                placements.append(care.transform.draw(random))
                if deviation > 0:
                    noises.append(random.standard_normal(shape, np.float32))
        moving = Resampling(space.size, tuple(placements))
        moved = moving.move(*(np.repeat(each, care.copies, axis=0) for each in (pictures, padding)))
        if noises:
            moved += deviation * np.stack(noises)
        scores, gradient = objectives(step)(moved)
        gradient = moving.adjoint(gradient).reshape(len(pictures), care.copies, *shape).mean(axis=1)
        if care.roughness:
            gradient -= np.float32(care.roughness) * roughness_gradient(pictures)
        adam.rate = care.rate * (1 - care.cooling * share)
        parameters = adam.ascend(parameters, space.adjoint(pictures, gradient))
        yield Frame(step + 1, space.pictures(parameters), scores.reshape(len(pictures), care.copies).mean(axis=1))


# -- the pixels themselves (Simonyan, Vedaldi and Zisserman 2013; Yosinski et al. 2015) -------------------------------


@dataclass(frozen=True)
class PixelCare:
    """What keeps a picture plausible while its pixels are moved; 0 turns a part off."""

    rate: float = 2.0
    """Mean length of a step in a pixel, of 255."""
    l2: float = 0.0
    """Simonyan's λ: the score is lessened by λ times the sum of the squared pixels, counted from the mean, of 255."""
    decay: float = 0.0
    """Share by which every pixel fades to the mean colour in each step."""
    blur: float = 0.0
    """Standard deviation in pixels of a Gaussian blur; left out below 0.3."""
    blur_every: int = 4
    """Steps from one blur to the next."""
    small_value: float = 0.0
    """Percentage of the numbers, the smallest by magnitude, that are set to the mean."""
    small_norm: float = 0.0
    """Percentage of the pixels, the smallest by the norm over their colours, that are set to the mean."""
    small_contribution: float = 0.0
    """Percentage of the pixels, those that matter least to the score to first order, that are set to the mean."""


_LEAST_BLUR = 0.3


def ascend_pixels(
    objectives: Callable[[int], Objective], space: PixelSpace, parameters: Floats, care: PixelCare, *, steps: int
) -> Iterator[Frame]:
    """Raise scores by moving pixels; parameters as for :func:`ascend_spectrum`."""
    for step in range(steps):
        pictures = space.pictures(parameters)
        scores, gradient = objectives(step)(pictures)
        upwards = space.adjoint(pictures, gradient) - np.float32(2 * care.l2) * parameters
        parameters = parameters + np.float32(care.rate) * normalized(upwards)
        parameters = space.inside(tend(parameters, gradient, care, step))
        yield Frame(step + 1, space.pictures(parameters), scores)


def normalized(gradient: Floats) -> Floats:
    """Divide each picture's derivative by the mean of its magnitude."""
    size = np.abs(gradient).mean(axis=(1, 2, 3), keepdims=True)
    return np.asarray(np.divide(gradient, size, out=np.zeros_like(gradient), where=size > 0))


def tend(x: Floats, gradient: Floats, care: PixelCare, step: int) -> Floats:
    """Yosinski's regularisers, in the order of the deep visualization toolbox."""
    if care.decay:
        x = x * np.float32(1 - care.decay)
    if care.blur >= _LEAST_BLUR and care.blur_every and step % care.blur_every == 0:
        from scipy.ndimage import gaussian_filter

        x = gaussian_filter(x, (0, 0, care.blur, care.blur))
    if care.small_value:
        x = np.where(np.abs(x) < _percentile(np.abs(x), care.small_value), np.float32(0), x)
    if care.small_norm:
        norm = np.sqrt((x**2).sum(axis=1, keepdims=True))
        x = np.where(norm < _percentile(norm, care.small_norm), np.float32(0), x)
    if care.small_contribution:
        contribution = np.abs((gradient * x).sum(axis=1, keepdims=True))
        x = np.where(contribution < _percentile(contribution, care.small_contribution), np.float32(0), x)
    return x


def _percentile(numbers: Floats, percent: float) -> Floats:
    """Of each picture's numbers."""
    found: Floats = np.percentile(numbers, percent, axis=(1, 2, 3), keepdims=True).astype(np.float32)
    return found


# -- pixels in stages, with total variation (Nguyen, Yosinski and Clune 2016) -----------------------------------------


@dataclass(frozen=True)
class Stage:
    """Some steps with the same care."""

    steps: int
    weights: tuple[float, float]
    """Of the denoising; step i of n has first - (first - last · i) / n, which is how the authors' code reads."""
    rates: tuple[float, float]
    """Mean length of a step in a pixel, of 255, at first and at last."""
    zoom: float = 1.0
    """By what the picture grows before it."""
    spread: float = 0.0
    """Standard deviation of the offset of the part that the network sees, as a share of what is outside."""
    margin: float = 0.0
    """Share of the side, at each border of what the network sees, that stays as it is."""


STAGES = (
    Stage(190, (0.4, 0.4), (1, 2)),
    Stage(150, (0.01, 2), (1, 1), zoom=1.2, spread=0.3),
    Stage(20, (0.1, 2), (2, 2), spread=0.2, margin=50 / 227),
    Stage(10, (0.4, 2), (2, 2), spread=0.3),
)
"""Those of the authors' ``act_max.tvd.mean.py``, 370 steps."""


def ascend_in_stages(
    objectives: Callable[[int], Objective],
    pictures: Floats,
    *,
    randoms: Sequence[np.random.Generator],
    stages: Sequence[Stage] = STAGES,
) -> Iterator[Frame]:
    """Raise scores by moving pixels; from the second stage on the picture is larger than what the network sees.

    Parameters
    ----------
    objectives : callable
        As for :func:`ascend_spectrum`, with one copy.
    pictures : (n, channels, height, width) float32
        Where it starts.
    randoms : sequence of Generator
    stages : sequence of Stage

    Yields
    ------
    Frame
        Its pictures are the middle, in the size that the network sees.
    """
    height, width = pictures.shape[2:]
    canvas = pictures * np.float32(255)
    done = 0
    for stage in stages:
        canvas = _zoomed(canvas, stage.zoom)
        slack = canvas.shape[2] - height, canvas.shape[3] - width
        for index in range(stage.steps):
            places = [
                tuple(_offset(random.standard_normal(), spare, stage.spread) for spare in slack) for random in randoms
            ]
            seen = np.empty_like(pictures)
            for part, picture, (top, left) in zip(seen, canvas, places, strict=True):
                part[...] = picture[:, top : top + height, left : left + width]
            scores, gradient = objectives(done)(np.asarray(seen / 255, np.float32))
            if stage.margin:
                down, right = round(stage.margin * height), round(stage.margin * width)
                inner = np.zeros_like(gradient)
                inner[:, :, down : height - down, right : width - right] = 1
                gradient = gradient * inner
            first, last = stage.rates
            upwards = np.float32(first + (last - first) * index / stage.steps) * normalized(gradient)
            for picture, step, (top, left) in zip(canvas, upwards, places, strict=True):
                picture[:, top : top + height, left : left + width] += step
            canvas = denoise(np.clip(canvas, 0, 255), _weight(stage, index))
            done += 1
            middle = canvas[:, :, slack[0] // 2 :, slack[1] // 2 :][:, :, :height, :width]
            yield Frame(done, middle / np.float32(255), scores)


def _weight(stage: Stage, index: int) -> float:
    """Of the denoising in a step of a stage; a stage of one step, which the authors have not, takes the first."""
    first, last = stage.weights
    return first if stage.steps == 1 else first - (first - last * index) / stage.steps


def _offset(number: float, slack: int, spread: float) -> int:
    return int(np.clip(round(slack / 2 + number * spread * slack), 0, slack))


def _zoomed(canvas: Floats, zoom: float) -> Floats:
    if zoom == 1:
        return canvas.copy()
    from scipy.ndimage import zoom as resample

    return np.asarray(resample(canvas, (1, 1, zoom, zoom), order=1), np.float32)


def stages_of(steps: int) -> tuple[Stage, ...]:
    """The authors' stages with another number of steps in all, shared out as theirs are."""
    from dataclasses import replace

    whole = sum(stage.steps for stage in STAGES)
    ends = np.rint(np.cumsum([stage.steps for stage in STAGES]) * steps / whole).astype(int)
    counts = np.diff(ends, prepend=0)
    return tuple(replace(stage, steps=int(count)) for stage, count in zip(STAGES, counts, strict=True))

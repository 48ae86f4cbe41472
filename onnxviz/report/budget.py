"""Multiply-accumulates of a model → how many images get an occlusion map, and at which stride; no clock is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = [
    "DEFAULT_OCCLUSION_MACS",
    "ExplanationsPlan",
    "OcclusionPlan",
    "PicturesPlan",
    "TrustPlan",
    "macs_text",
    "plan_explanations",
    "plan_occlusion",
    "plan_pictures",
    "plan_trust",
]  # fmt: skip

DEFAULT_OCCLUSION_MACS = 1_000_000_000_000
"""1 TMAC for one model's occlusion maps: some tens of seconds on two cores."""

_ONE_MAP_AT_ANY_RATE = 4
"""A single coarse map is made even where it costs up to so many budgets: a report without any says too little."""

_MOST_IMAGES = 6
_WANTED_IMAGES = 3
_WINDOW_SHARE = 7  # the window is a seventh of the image's shorter side: 32 of 224 pixels, as in the literature


_MOST_PICTURES = 12
_WANTED_PICTURES = 4
_STEPS = (128, 64)
_BACKWARD = 3  # a pass forward and backward costs about as much as three forward


@dataclass(frozen=True)
class OcclusionPlan:
    """How the occlusion section spends its budget."""

    images: int
    window: int
    stride: int
    """Pixels of the network's input."""
    positions: int
    """Positions of the window on one image."""
    macs: int
    """What all maps cost together, one unoccluded run per image included."""
    budget: int
    text: str
    """The arithmetic in a sentence."""


def plan_occlusion(model_macs: int, height: int, width: int, images: int, *, budget: int) -> OcclusionPlan:
    """Choose the finest stride that still leaves three images, and then as many images as fit, six at most.

    Parameters
    ----------
    model_macs : int
        Multiply-accumulates of one run of one image.
    height, width : int
        Pixels of the network's input.
    images : int
        Images there are; at least 1.
    budget : int
        Multiply-accumulates to spend. One image is examined at the coarsest stride where that costs at most four
        times as much; else ``images`` is 0.
    """
    window = max(1, round(min(height, width) / _WINDOW_SHARE))
    strides = sorted({max(1, window // part) for part in (4, 2, 1)})
    wanted = min(images, _WANTED_IMAGES)
    fitting = [(stride, _affordable(model_macs, height, width, window, stride, budget)) for stride in strides]
    stride, count = next(((stride, count) for stride, count in fitting if count >= wanted), fitting[-1])
    if count == 0 and _affordable(model_macs, height, width, window, stride, _ONE_MAP_AT_ANY_RATE * budget):
        count = 1
    count = min(count, images, _MOST_IMAGES)
    positions = _positions(height, window, stride) * _positions(width, window, stride)
    cost = count * (positions + 1) * model_macs
    text = (
        f"One run costs {macs_text(model_macs)}; a {window} × {window} window every {stride} pixels has {positions:,} "
        f"positions on {height} × {width}, so a map costs {positions + 1:,} runs = "
        f"{macs_text((positions + 1) * model_macs)}; "
        f"with a budget of {macs_text(budget)} that makes {count} of {images:,} images."
    )
    return OcclusionPlan(count, window, stride, positions, cost, budget, text)


def _positions(side: int, window: int, stride: int) -> int:
    # The last window may reach past the border (edge="clip"), so that every pixel is covered.
    return max(1, -(-(side - window) // stride) + 1)


def _affordable(model_macs: int, height: int, width: int, window: int, stride: int, budget: int) -> int:
    runs = _positions(height, window, stride) * _positions(width, window, stride) + 1
    return budget // max(1, runs * model_macs)


_SINGLE_ROWS = 8
"""Passes of the methods that need one each; guided Grad-CAM needs two."""

_SAMPLES = (50, 20, 10)
"""Points of integrated gradients and copies of SmoothGrad, from what the literature has to what is better than none."""


@dataclass(frozen=True)
class ExplanationsPlan:
    """How the section of explanations by derivatives spends its budget."""

    images: int
    samples: int
    """Points and copies of the methods that need many; 0 leaves these methods out."""
    macs: int
    """What all maps cost together."""
    budget: int
    text: str
    """The arithmetic in a sentence."""


def plan_explanations(model_macs: int, images: int, *, budget: int) -> ExplanationsPlan:
    """Choose the most samples with which all images fit, or else one does; else leave out what needs samples.

    Parameters
    ----------
    model_macs : int
        Multiply-accumulates of one run of one image.
    images : int
        Images that are wanted; at least 1.
    budget : int
        Multiply-accumulates to spend. One image is explained without samples where that costs at most four times as
        much; else ``images`` is 0.
    """
    one_pass = max(1, _BACKWARD * model_macs)
    costs = {samples: _passes(samples) * one_pass for samples in (*_SAMPLES, 0)}
    samples = next((samples for samples in _SAMPLES if budget // costs[samples] >= images), _SAMPLES[-1])
    if budget // costs[samples] == 0:
        samples = 0
    count = min(images, budget // costs[samples])
    if count == 0 and costs[0] <= _ONE_MAP_AT_ANY_RATE * budget:
        count = 1
    text = (
        f"One pass, forward and backward, costs about {macs_text(one_pass)}, and the maps of one image "
        f"{_passes(samples):,} passes = {macs_text(costs[samples])}; with a budget of {macs_text(budget)} that makes "
        f"{count} of {images} image{'' if images == 1 else 's'}."
    )
    if samples == 0 and count:
        text += " Integrated gradients and SmoothGrad, which need many passes, are left out."
    return ExplanationsPlan(count, samples, count * costs[samples], budget, text)


def _passes(samples: int) -> int:
    # SmoothGrad passes the clean image too, integrated gradients both ends of the way.
    return _SINGLE_ROWS + (2 * samples + 3 if samples else 0)


@dataclass(frozen=True)
class PicturesPlan:
    """How the section of class pictures spends its budget."""

    pictures: int
    steps: int
    macs: int
    """What all pictures cost together."""
    budget: int
    text: str
    """The arithmetic in a sentence."""


def plan_pictures(
    model_macs: int, classes: int, *, budget: int, copies: int = 1, steps: Sequence[int] = _STEPS
) -> PicturesPlan:
    """Choose the most steps that still leave four pictures, and then as many pictures as fit, twelve at most.

    Parameters
    ----------
    model_macs : int
        Multiply-accumulates of one run of one image.
    classes : int
        Classes of the model; at least 1.
    budget : int
        Multiply-accumulates to spend. One picture of the fewest steps is made where that costs at most four times as
        much; else ``pictures`` is 0.
    copies : int
        Placements of the picture that every step looks at.
    steps : sequence of int
        To choose from, most first.
    """
    step = max(1, _BACKWARD * copies * model_macs)
    wanted = min(classes, _WANTED_PICTURES)
    chosen = next((number for number in steps if budget // (number * step) >= wanted), steps[-1])
    count = budget // (chosen * step)
    if count == 0 and chosen * step <= _ONE_MAP_AT_ANY_RATE * budget:
        count = 1
    count = min(count, classes, _MOST_PICTURES)
    text = (
        f"One step, forward and backward, costs about {macs_text(step)}, and a picture {chosen} steps = "
        f"{macs_text(chosen * step)}; with a budget of {macs_text(budget)} that makes {count} of {classes:,} classes."
    )
    return PicturesPlan(count, chosen, count * chosen * step, budget, text)


_TRIAL_PASSES = 28
"""Six methods, two of which pass ten times and once or twice more."""

_MOST_TRIALS = 40
_TRUST_SHARE = 4
"""The check of the maps may cost a quarter of what the maps may."""


@dataclass(frozen=True)
class TrustPlan:
    """How the section that checks the maps spends its budget."""

    trials: int
    macs: int
    budget: int
    text: str
    """The arithmetic in a sentence."""


def plan_trust(model_macs: int, *, budget: int) -> TrustPlan:
    """Choose how often a planted cause is looked for, 40 times at most.

    Parameters
    ----------
    model_macs : int
        Multiply-accumulates of one run of one image.
    budget : int
        Multiply-accumulates of the occlusion maps; a quarter is spent, or what 4 trials cost where that is at most
        four times as much.
    """
    trial = max(1, _TRIAL_PASSES * _BACKWARD * model_macs)
    share = budget // _TRUST_SHARE
    trials = min(_MOST_TRIALS, share // trial)
    if trials < 4:
        trials = 4 if 4 * trial <= _ONE_MAP_AT_ANY_RATE * share else 0
    text = (
        f"One trial with a planted cause costs about {macs_text(trial)}; with a budget of {macs_text(share)} that "
        f"makes {trials} trials."
    )
    return TrustPlan(trials, trials * trial, share, text)


def macs_text(count: int) -> str:
    """A count of multiply-accumulates as a person reads it, such as ``"352 MMAC"``."""
    for unit, size in (("TMAC", 10**12), ("GMAC", 10**9), ("MMAC", 10**6)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:,} MAC"

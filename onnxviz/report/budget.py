"""Multiply-accumulates of a model → how many images get an occlusion map, and at which stride; no clock is asked."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DEFAULT_OCCLUSION_MACS", "OcclusionPlan", "macs_text", "plan_occlusion"]

DEFAULT_OCCLUSION_MACS = 1_000_000_000_000
"""1 TMAC for one model's occlusion maps: some tens of seconds on two cores."""

_ONE_MAP_AT_ANY_RATE = 4
"""A single coarse map is made even where it costs up to so many budgets: a report without any says too little."""

_MOST_IMAGES = 6
_WANTED_IMAGES = 3
_WINDOW_SHARE = 7  # the window is a seventh of the image's shorter side: 32 of 224 pixels, as in the literature


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


def macs_text(count: int) -> str:
    """A count of multiply-accumulates as a person reads it, such as ``"352 MMAC"``."""
    for unit, size in (("TMAC", 10**12), ("GMAC", 10**9), ("MMAC", 10**6)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:,} MAC"

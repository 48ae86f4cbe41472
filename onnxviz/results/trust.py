"""Whether such maps can be believed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxviz.results.provenance import FloatArray, ImageArray, IntArray, Provenance

__all__ = ["InsertionDeletion", "PlantedCause", "PointingGame", "RandomizationCheck"]


@dataclass(frozen=True, eq=False)
class InsertionDeletion:
    """How the score rises and falls as pixels come and go in the order of a map (Petsiuk et al. 2018)."""

    fractions: NDArray[np.float64]
    """(steps + 1,) share of the pixels that were inserted or deleted, 0 to 1."""
    insertion: NDArray[np.float64]
    deletion: NDArray[np.float64]
    """(steps + 1,) the target's score with that share of the pixels, the most salient first, inserted into the one
    substrate or replaced by the other."""
    insertion_area: float
    deletion_area: float
    """Area under each curve over [0, 1], by the trapezoid rule; a faithful map has a large and a small one."""
    step: int
    """Pixels per step."""
    insertion_substrate: str
    deletion_substrate: str
    controls: tuple[str, ...]
    """Names of the maps that know nothing of the network; empty where they were not asked for."""
    control_insertion: NDArray[np.float64]
    control_deletion: NDArray[np.float64]
    """(controls, steps + 1) their curves."""
    control_insertion_areas: NDArray[np.float64]
    control_deletion_areas: NDArray[np.float64]
    """(controls,) their areas."""
    map: FloatArray
    """(height, width) float32: the map that was judged."""
    image: ImageArray
    """(height, width, 3) RGB: what the network saw."""
    name: str
    target: str
    """What was scored, in words: the class with its label, or value and index."""
    scale: str
    """``"probability"``, ``"logit"`` or ``"value"``: what kind of number the score is."""
    provenance: Provenance


@dataclass(frozen=True, eq=False)
class PointingGame:
    """How many maps have their maximum on the object that they should point at (Zhang et al. 2016)."""

    hits: NDArray[np.bool_]
    """(maps,) True where the maximum is within ``tolerance`` of a box."""
    peaks: IntArray
    """(maps, 2) row and column of the maximum."""
    distances: NDArray[np.float64]
    """(maps,) pixels from the maximum to the nearest pixel of a box; 0 inside one."""
    accuracy: float
    """Share of the maps that hit."""
    interval: tuple[float, float]
    """Wilson's interval of 95 % for it."""
    class_accuracy: float | None
    """Mean over the classes of the share that hit; None where no classes were given."""
    tolerance: float
    """Pixels."""
    provenance: Provenance


@dataclass(frozen=True, eq=False)
class PlantedCause:
    """How often maps point to a pattern that alone decides a class, because the network was edited so."""

    methods: tuple[str, ...]
    """Name of each explanation method, the controls last."""
    controls: int
    """How many of them are controls, which know nothing of the network."""
    hits: NDArray[np.bool_]
    """(methods, trials) True where the map's maximum lies in the pattern's box."""
    peaks: IntArray
    """(methods, trials, 2) row and column of the maximum."""
    boxes: IntArray
    """(trials, 4) where the pattern was pasted: top, left, bottom, right in pixels, bottom and right exclusive."""
    scores: NDArray[np.float64]
    """(trials, 2) probability of the planted class without and with the pattern."""
    names: tuple[str, ...]
    """(trials,) name of each image."""
    left_out: tuple[str, ...]
    """Images in which the filter found something like the pattern before it was pasted; no trial used them."""
    rates: NDArray[np.float64]
    """(methods,) share of the trials that hit."""
    intervals: NDArray[np.float64]
    """(methods, 2) Wilson's interval of 95 % for each."""
    chance: float
    """The rate of a pixel drawn at random: the share of the image that the pattern covers."""
    pattern: ImageArray
    """(height, width, 3) RGB."""
    images: ImageArray
    """(shown, height, width, 3) RGB of the first trials: what the network saw."""
    maps: FloatArray
    """(methods, shown, height, width) float32: the maps of the first trials."""
    target: str
    """The planted class, in words."""
    provenance: Provenance


@dataclass(frozen=True, eq=False)
class RandomizationCheck:
    """How alike maps stay while the network's weights are shuffled layer by layer (Adebayo et al. 2018)."""

    methods: tuple[str, ...]
    """Name of each explanation method, the controls last."""
    controls: int
    """How many of them are controls, which know nothing of the network."""
    layers: tuple[str, ...]
    """The values of the layers with weights, from the scores back to the input: the order of shuffling."""
    shuffled: IntArray
    """(stages,) how many layers were shuffled at each stage."""
    correlations: NDArray[np.float64]
    """(methods, stages) Spearman's rank correlation with the map of the network as it is; NaN for a constant map."""
    probabilities: NDArray[np.float64]
    """(stages + 1,) of the explained class, first of the network as it is."""
    maps: FloatArray
    """(methods, stages + 1, height, width) float32, first of the network as it is."""
    image: ImageArray
    """(height, width, 3) RGB: what the network saw."""
    name: str
    target: str
    """The explained class, in words."""
    provenance: Provenance

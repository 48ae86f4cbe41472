"""Pictures made by gradient ascent."""

from __future__ import annotations

from dataclasses import dataclass

from onnxviz.results.provenance import FloatArray, ImageArray, IntArray, Provenance

__all__ = ["AscentStep", "ClassVisualization", "FeatureVisualization"]


@dataclass(frozen=True, eq=False)
class ClassVisualization:
    """Pictures made by gradient ascent, each of which a class answers to strongly (Simonyan et al. 2013)."""

    pictures: ImageArray
    """(pictures, height, width, 3) RGB."""
    classes: IntArray
    """(pictures,) the class that each was made for."""
    facets: IntArray
    """(pictures,) number of the facet of its class, from 0; 0 throughout where each class has one picture."""
    starts: ImageArray | None
    """(pictures, height, width, 3) RGB: the picture that each began with, such as the mean image of its facet; None
    where it was one colour."""
    scores: FloatArray
    """(pictures,) float32: the class's score for the finished picture."""
    probabilities: FloatArray
    """(pictures,) float32: the class's probability, the mean over ``jitters`` random shifts of the finished picture."""
    jitters: int
    reach: int
    """Most pixels of such a shift, up, down, left or right."""
    curve: FloatArray
    """(steps, pictures) float32: the class's score in each step, for the picture moved at random as it then was."""
    scale: str
    """``"logit"`` or ``"probability"``: what kind of number a score is."""
    method: str
    """How they were made: ``"fourier"``, ``"simonyan"``, ``"yosinski"`` or ``"nguyen"``."""
    labels: tuple[str, ...] | None
    """The class names where they are known."""
    provenance: Provenance


@dataclass(frozen=True, eq=False)
class FeatureVisualization:
    """Pictures made by gradient ascent, each of which excites one channel or one neuron (Olah et al. 2017)."""

    value: str
    """The value whose channels are excited."""
    unit: str
    """``"channel"``, the mean of a channel over space, or ``"neuron"``, its unit at one position."""
    channels: IntArray
    """(pictures,) channel of each."""
    position: tuple[int, int] | None
    """Row and column of the neurons; None for channels, and where the value has no spatial axes."""
    pictures: ImageArray
    """(pictures, height, width, 3) RGB."""
    scores: FloatArray
    """(pictures,) float32: the activation for the finished picture."""
    start_scores: FloatArray
    """(pictures,) float32: the activation for the picture that the ascent began with."""
    curve: FloatArray
    """(steps, pictures) float32: the activation in each step, for the picture moved at random as it then was."""
    provenance: Provenance


@dataclass(frozen=True, eq=False)
class AscentStep:
    """Pictures of a gradient ascent that is still going on."""

    pictures: ImageArray
    """(pictures, height, width, 3) RGB."""
    scores: FloatArray
    """(pictures,) float32: what the step was computed from, the scores before it."""
    done: int
    """Steps made so far."""
    total: int
    result: ClassVisualization | FeatureVisualization | None
    """The whole, in the last step; None before."""

"""Why a network decided as it did: maps by hiding parts of the image, and maps by derivatives."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxviz.results.provenance import FloatArray, ImageArray, IntArray, Provenance

__all__ = [
    "ActivationMap",
    "Attribution",
    "IntegratedGradients",
    "Occlusion",
    "OcclusionStep",
    "Rise",
    "RiseStep",
    "SmoothGrad",
    "relative_noise",
]


@dataclass(frozen=True, eq=False)
class Occlusion:
    """How a scalar of the output answers when a patch hides part of an image (Zeiler and Fergus 2013, section 4.2)."""

    probability: FloatArray
    """(rows, columns) float32: the target's score with the patch at that position; low means important."""
    label: IntArray | None
    """(rows, columns) the most likely class at each position, -1 where its scores are not finite; None where the
    output is not a classifier's."""
    importance: FloatArray
    """(height, width) float32: mean over the patches that cover a pixel of clean score minus occluded score."""
    clean: float
    """The target's score on the image as it is."""
    clean_label: int | None
    """The most likely class on the image as it is."""
    boxes: IntArray
    """(rows, columns, 4) the patch as top, left, bottom, right in input pixels, bottom and right exclusive."""
    regions: IntArray | None
    """(height, width) where regions were hidden instead of a sliding patch, there in one column: the row whose region a
    pixel belongs to (of boxes that overlap the smallest), -1 for none."""
    fill: FloatArray
    """What the patch holds, in RGB 0..255: (3,), or (height, width, 3) for a blurred copy of the image."""
    image: ImageArray
    """(height, width, 3) RGB: what the network saw."""
    name: str
    target: str
    """What was explained, in words: the class with its label, or value and index."""
    scale: str
    """``"probability"``, ``"logit"`` or ``"value"``: what kind of number ``probability`` holds."""
    labels: tuple[str, ...] | None
    """The class names where they are known."""
    provenance: Provenance


@dataclass(frozen=True, eq=False)
class OcclusionStep:
    """Some positions of an occlusion that is still going on."""

    positions: IntArray
    """(n, 2) row and column of each."""
    probability: FloatArray
    """(n,) float32: the target's score with the patch there."""
    label: IntArray | None
    """(n,) the most likely class there, -1 where its scores are not finite; None where the output is not a
    classifier's."""
    done: int
    """Positions computed so far, these included."""
    total: int
    result: Occlusion | None
    """The whole, in the last step; None before."""


@dataclass(frozen=True, eq=False)
class Rise:
    """How a scalar of the output answers when random smooth masks hide parts of an image (Petsiuk et al. 2018)."""

    map: FloatArray
    """(height, width) float32: mean over the masks of the score times the mask, divided by ``keep``; high is
    important."""
    standard_error: FloatArray
    """(height, width) float32: by how much the map would differ with other masks, one standard deviation."""
    masks: int
    """Number of masks that were used."""
    sums: IntArray
    """(18, height × width) exact sum over blocks of masks of what ``map`` is the mean of, as the limbs of
    ``onnxviz.sums``."""
    sums_of_squares: IntArray
    """(18, height × width) the same for the squares."""
    parts: IntArray
    """(parts, 3) which masks: seed, number of the first mask, how many; ascending."""
    non_finite: int
    """Masks whose score was NaN or infinite (left out of everything above)."""
    clean: float
    """The target's score on the image as it is."""
    grid: int
    keep: float
    """Cells of a mask along each side, and the probability with which each shows the image."""
    image: ImageArray
    """(height, width, 3) RGB: what the network saw."""
    name: str
    target: str
    """What was explained, in words: the class with its label, or value and index."""
    scale: str
    """``"probability"``, ``"logit"`` or ``"value"``: what kind of number the score is."""
    provenance: Provenance

    @property
    def noise(self) -> float:
        """The largest standard error as a share of the map's range; 0 for a map of one number without error."""
        return relative_noise(self.map, self.standard_error)


@dataclass(frozen=True, eq=False)
class RiseStep:
    """The map of a RISE that is still going on."""

    map: FloatArray
    """(height, width) float32: the map of the masks so far."""
    noise: float
    """Its largest standard error as a share of its range."""
    done: int
    """Masks used so far."""
    total: int
    """The most that will be used."""
    result: Rise | None
    """The whole, in the last step; None before."""


def relative_noise(numbers: FloatArray, standard_error: FloatArray) -> float:
    """The largest standard error of a map's pixels as a share of the map's range."""
    error, spread = float(np.max(standard_error)), float(np.ptp(numbers))
    return error / spread if spread > 0 else 0.0 if error == 0 else float("inf")


@dataclass(frozen=True, eq=False)
class Attribution:
    """What each number of the network's input has to do with one number that the network computes, by derivatives."""

    values: FloatArray
    """(channels, height, width) float32, raw and signed, channels in the order of ``channel_order``."""
    reduction: str
    """What ``map`` makes of a pixel's channels: ``"max"``, the largest magnitude, or ``"sum"``."""
    channel_order: str
    """``"RGB"``, ``"BGR"`` or ``"GRAY"``."""
    method: str
    """The method in words, such as ``"guided backpropagation"``."""
    input_value: str
    """The value that ``values`` belong to: the input, or the first real numbers behind an integer one."""
    score: float
    """The explained number on the image as it is."""
    probability: float | None
    """The probability of the explained class on the image as it is; None where no class is explained."""
    class_index: int | None
    image: ImageArray
    """(height, width, 3) RGB: what the network saw."""
    name: str
    target: str
    """What was explained, in words: the class with its label, or value and index."""
    scale: str
    """``"logit"``, ``"probability"`` or ``"value"``: what kind of number ``score`` is."""
    notes: tuple[str, ...]
    """What a reader should know, one sentence each."""
    provenance: Provenance

    @property
    def map(self) -> NDArray[np.float32]:
        """(height, width) float32: ``values`` with their channels reduced; not negative where that is ``"max"``."""
        if self.reduction == "max":
            return np.asarray(np.abs(self.values).max(axis=0), np.float32)
        return np.asarray(self.values.sum(axis=0, dtype=np.float64), np.float32)


@dataclass(frozen=True, eq=False)
class SmoothGrad(Attribution):
    """Gradients averaged over noisy copies of an image (Smilkov et al. 2017)."""

    squares: FloatArray
    """(channels, height, width) float32: mean of the squared gradients, where ``values`` is the signed mean."""
    samples: int
    """Number of noisy copies."""
    sigma: float
    """Standard deviation of the noise, in units of the encoded input."""


@dataclass(frozen=True, eq=False)
class IntegratedGradients(Attribution):
    """Gradients summed on the way from a baseline to an image (Sundararajan et al. 2017)."""

    steps: int
    """Points on the way."""
    baseline: str
    """What the way starts from, in words."""
    baseline_score: float
    """The explained number on the baseline."""
    completeness_error: float
    """Sum of ``values`` minus (``score`` minus ``baseline_score``): 0 if the integral were exact."""
    relative_completeness_error: float
    """Its magnitude as a share of that difference; infinite where only the difference is 0."""


@dataclass(frozen=True, eq=False)
class ActivationMap:
    """A weighted sum of the channels of one value, the weights taken from derivatives (Selvaraju et al. 2017)."""

    value: str
    """The value whose channels are summed."""
    coarse: FloatArray
    """(rows, columns) float32 of that value: the sum as it is, signed."""
    weights: FloatArray
    """(channels,) float32."""
    map: FloatArray
    """(height, width) float32: ``coarse`` without what is negative, brought to the image's size bilinearly."""
    method: str
    """The method in words, such as ``"Grad-CAM"``."""
    score: float
    """The explained number on the image as it is."""
    probability: float | None
    """The probability of the explained class on the image as it is; None where no class is explained."""
    class_index: int | None
    image: ImageArray
    """(height, width, 3) RGB: what the network saw."""
    name: str
    target: str
    """What was explained, in words: the class with its label, or value and index."""
    scale: str
    """``"logit"``, ``"probability"`` or ``"value"``: what kind of number ``score`` is."""
    notes: tuple[str, ...]
    """What a reader should know, one sentence each."""
    provenance: Provenance

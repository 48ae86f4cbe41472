"""What is inside a network: filters, activation maps, and the patches that excite a channel most."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxviz.results.provenance import FloatArray, ImageArray, IntArray, Provenance
from onnxviz.sums import limbs_total

__all__ = ["ActivationStatistics", "Activations", "Filters", "TopPatches"]


@dataclass(frozen=True, eq=False)
class Filters:
    """The weights of one convolution."""

    value: str
    """Name of the value that the convolution produces."""
    weight_name: str
    """Name of the tensor in the file that holds the weights."""
    weights: FloatArray
    """(filters, channels per group, kernel height, kernel width) float32; dequantised where the model is quantised."""
    groups: int
    """1 for an ordinary convolution, the number of input channels for a depthwise one."""
    channel_order: str
    """``"RGB"`` or ``"BGR"`` where the three input channels are the colours of the image, else ``""``."""
    provenance: Provenance


@dataclass(frozen=True, eq=False)
class Activations:
    """The activation of one value on a few images."""

    value: str
    maps: FloatArray
    """(images, channels, height, width), or (images, features) where the value has no spatial axes; float32."""
    images: ImageArray
    """(images, height, width, 3) RGB: what the network saw."""
    names: tuple[str, ...]
    """Name of each image."""
    provenance: Provenance


@dataclass(frozen=True, eq=False)
class ActivationStatistics:
    """Per-channel statistics of one value over a set of images; two of disjoint sets merge into one of both."""

    value: str
    count: int
    """Number of images."""
    units: int
    """Number of units per channel and image (height × width; 1 without spatial axes)."""
    sums: IntArray
    """(18, channels) exact sum over images and units, as the limbs of ``onnxviz.sums``."""
    sums_of_squares: IntArray
    """(18, channels) the same for the squares."""
    minimum: NDArray[np.float32]
    maximum: NDArray[np.float32]
    """(channels,) extremes over images and units."""
    zeros: IntArray
    """(channels,) number of units that are exactly 0."""
    at_maximum: IntArray
    """(channels,) number of units equal to ``maximum``."""
    non_finite: IntArray
    """(channels,) number of units that are NaN or infinite (left out of everything above)."""
    provenance: Provenance

    @property
    def mean(self) -> NDArray[np.float64]:
        """(channels,) mean over the finite units."""
        return limbs_total(self.sums) / self._finite

    @property
    def standard_deviation(self) -> NDArray[np.float64]:
        """(channels,) population standard deviation over the finite units."""
        variance = limbs_total(self.sums_of_squares) / self._finite - self.mean**2
        return np.sqrt(np.maximum(variance, 0.0))

    @property
    def _finite(self) -> IntArray:
        return np.maximum(self.count * self.units - self.non_finite, 1)

    @property
    def dead(self) -> NDArray[np.bool_]:
        """(channels,) True where the channel never changes: the same number for every unit of every image."""
        return np.asarray((self.minimum == self.maximum) | (self.non_finite == self.count * self.units))

    @property
    def saturated(self) -> NDArray[np.bool_]:
        """(channels,) True where a live channel sits at its own maximum in more than half of its units.

        That is what a clipped activation (ReLU6, HardSigmoid, a quantised range) looks like when it no longer answers.
        """
        return np.asarray(~self.dead & (2 * self.at_maximum > self.count * self.units))


@dataclass(frozen=True, eq=False)
class TopPatches:
    """For every channel of one value, the image positions that excite it most, strongest first."""

    value: str
    channels: IntArray
    """(channels,) channel numbers, ascending."""
    scores: FloatArray
    """(channels, k) float32 activations; ``-inf`` where fewer than k images were seen."""
    image_index: IntArray
    """(channels, k) index into ``names``; -1 where fewer than k images were seen."""
    positions: IntArray
    """(channels, k, 2) row and column of the unit in the value's map; 0 where it has no spatial axes."""
    boxes: IntArray
    """(channels, k, 4) receptive field as top, left, bottom, right in input pixels, right and bottom exclusive.

    The box is that of the unit's position and may reach past the image's border.
    """
    names: tuple[str, ...]
    """Name of every image that was offered, by index."""
    drawn: IntArray
    """(drawn,) the channels, a subset of ``channels``, whose patches are kept as pixels."""
    patches: tuple[tuple[ImageArray, ...], ...]
    """drawn × up to k patches, (height, width, 3) RGB each; what lies past the image's border is mid-grey."""
    provenance: Provenance

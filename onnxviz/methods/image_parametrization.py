"""Numbers that an optimiser moves come in; the pictures they stand for go out, and derivatives come back."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import scipy.fft
from numpy.typing import NDArray

__all__ = ["COLOR_MATRIX", "FourierSpace", "Parametrization", "PixelSpace"]

Floats = NDArray[np.float32]

_COLORS = np.array([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]])

COLOR_MATRIX = (_COLORS / np.linalg.norm(_COLORS, axis=0).max()).T
"""(3, 3) directions in which the colours of photographs vary independently, one a row, times how much they vary.

Red, green and blue of a pixel are its three numbers times this matrix (Olah, Mordvintsev and Schubert 2017).
"""

SMALLEST_SHOWN = 0.5 / 255
"""Pictures that are brought to parameters end this far from black and white, where the sigmoid would need infinity."""


class Parametrization(Protocol):
    """What stands between the numbers that are optimised and the pictures that a network sees."""

    size: tuple[int, int]
    """Height and width of the pictures."""
    channels: int
    """1 or 3."""

    def start(self, random: np.random.Generator) -> Floats:
        """Draw the numbers of one picture."""

    def pictures(self, parameters: Floats) -> Floats:
        """(n, channels, height, width) pictures, 0 black to 1 white, of (n, ...) numbers."""

    def adjoint(self, pictures: Floats, gradient: Floats) -> Floats:
        """Derivatives by the numbers, from those by the pictures that :meth:`pictures` gave."""

    def parameters(self, pictures: Floats) -> Floats:
        """Numbers that stand for given pictures."""


@dataclass(frozen=True)
class PixelSpace:
    """The pixels themselves, counted from a mean colour in steps of 1/255.

    The papers before 2017 work in this space: 0 is the mean colour, and what shrinks fades to it.
    """

    size: tuple[int, int]
    channels: int
    mean: tuple[float, ...]
    """Colour that 0 stands for, one number from 0 to 255 for each channel."""
    deviation: float = 0.0
    """Standard deviation of the noise at the start, of 255."""

    def start(self, random: np.random.Generator) -> Floats:
        """(channels, height, width) the mean colour under independent normal noise."""
        noise = random.standard_normal((self.channels, *self.size), np.float32)
        return noise * np.float32(self.deviation)

    def pictures(self, parameters: Floats) -> Floats:
        """Give the pictures; nothing is cut off."""
        return (parameters + self._mean) / np.float32(255)

    def adjoint(self, pictures: Floats, gradient: Floats) -> Floats:
        """Derivatives by the pixels' 255 steps."""
        del pictures
        return gradient / np.float32(255)

    def parameters(self, pictures: Floats) -> Floats:
        """Steps from the mean colour."""
        return pictures * np.float32(255) - self._mean

    def inside(self, parameters: Floats) -> Floats:
        """The same with pixels below black or above white brought back to these."""
        return np.clip(parameters, -self._mean, np.float32(255) - self._mean)

    @cached_property
    def _mean(self) -> Floats:
        return np.asarray(self.mean, np.float32).reshape(-1, 1, 1)


@dataclass(frozen=True)
class FourierSpace:
    """Coefficients of a picture's Fourier series, scaled as in photographs, of colours that vary independently.

    A step in any of these numbers changes the whole picture, low frequencies most, and so ascent does not end in the
    high frequencies to which networks answer and that no photograph has (Olah, Mordvintsev and Schubert 2017, and
    Lucid's ``param/spatial.py``).

    Notes
    -----
    The picture is sigmoid(color(irfft2(scale · z) / 4)) with the orthonormal inverse transform, scale = 1 / max(f,
    1 / max(height, width)) ^ decay, f the spatial frequency in cycles per pixel. Lucid multiplies by √(height · width)
    and uses the inverse that divides by height · width, which is the same.
    """

    size: tuple[int, int]
    channels: int
    decay: float = 1.0
    """Power of the frequency by which coefficients are divided: 1 in photographs, more for smoother pictures."""
    deviation: float = 0.01
    """Standard deviation of each number at the start."""

    def start(self, random: np.random.Generator) -> Floats:
        """(channels, height, width // 2 + 1, 2) real and imaginary parts, independent and normal."""
        shape = (self.channels, self.size[0], self.size[1] // 2 + 1, 2)
        return random.standard_normal(shape, np.float32) * np.float32(self.deviation)

    def pictures(self, parameters: Floats) -> Floats:
        """Give the pictures, everywhere between 0 and 1."""
        return _sigmoid(self._unbounded(parameters))

    def adjoint(self, pictures: Floats, gradient: Floats) -> Floats:
        """Derivatives by real and imaginary parts."""
        by_unbounded = gradient * pictures * (1 - pictures)
        if self.channels == 3:
            by_unbounded = np.einsum("ic,nchw->nihw", self._colors, by_unbounded)
        spectrum = scipy.fft.rfft2(by_unbounded / np.float32(4), norm="ortho").astype(np.complex64, copy=False)
        # A real picture holds each column but the first and, of an even number, the last also as its mirror image.
        spectrum = spectrum * (self.scale * self._held)
        return np.stack([spectrum.real, spectrum.imag], axis=-1)

    def parameters(self, pictures: Floats) -> Floats:
        """The inverse of :meth:`pictures`, for pictures that are nowhere quite black or white."""
        shown = np.clip(pictures, SMALLEST_SHOWN, 1 - SMALLEST_SHOWN).astype(np.float64)
        unbounded = np.log(shown / (1 - shown))
        if self.channels == 3:
            unbounded = np.einsum("ci,nchw->nihw", np.linalg.inv(COLOR_MATRIX), unbounded)
        spectrum = scipy.fft.rfft2(4 * unbounded, norm="ortho") / self.scale
        return np.stack([spectrum.real, spectrum.imag], axis=-1).astype(np.float32)

    def _unbounded(self, parameters: Floats) -> Floats:
        spectrum = (parameters[..., 0] + 1j * parameters[..., 1]).astype(np.complex64, copy=False) * self.scale
        waves = scipy.fft.irfft2(spectrum, s=self.size, norm="ortho").astype(np.float32, copy=False) / np.float32(4)
        return np.asarray(np.einsum("ic,nihw->nchw", self._colors, waves) if self.channels == 3 else waves)

    @cached_property
    def scale(self) -> Floats:
        """(height, width // 2 + 1) by what each coefficient is multiplied."""
        height, width = self.size
        frequency = np.hypot(np.fft.fftfreq(height)[:, np.newaxis], np.fft.rfftfreq(width)[np.newaxis])
        scale: Floats = (1 / np.maximum(frequency, 1 / max(height, width)) ** self.decay).astype(np.float32)
        return scale

    @cached_property
    def _held(self) -> Floats:
        """(width // 2 + 1,) how often a column stands in the whole spectrum."""
        held = np.full(self.size[1] // 2 + 1, 2, np.float32)
        held[0] = 1
        if self.size[1] % 2 == 0:
            held[-1] = 1
        return held

    @cached_property
    def _colors(self) -> Floats:
        return np.asarray(COLOR_MATRIX, np.float32)


def _sigmoid(numbers: Floats) -> Floats:
    from scipy.special import expit

    return np.asarray(expit(numbers))

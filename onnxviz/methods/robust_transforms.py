"""Pictures come in; the same, a little shifted, scaled and turned at random, go out, and derivatives come back.

A picture that excites a network only where it stands is mostly noise that the network happens to answer to. What still
excites it after it was moved a little is what the network looks for (Olah, Mordvintsev and Schubert 2017).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["STILL", "Placement", "RandomTransform", "Resampling"]

Floats = NDArray[np.float32]

_LUCID_SIDE = 128
"""Side of the pictures for which Lucid's shifts are counted in pixels; for other sides they keep their share of it."""


@dataclass(frozen=True)
class Placement:
    """How far one picture is moved."""

    first_shift: tuple[float, float] = (0.0, 0.0)
    """Pixels down and right, before it is scaled and turned."""
    scale: float = 1.0
    """About the middle; above 1 the picture grows."""
    degrees: float = 0.0
    """Turn about the middle, counter-clockwise as seen."""
    second_shift: tuple[float, float] = (0.0, 0.0)
    """Pixels down and right, afterwards."""


@dataclass(frozen=True)
class RandomTransform:
    """From where placements are drawn.

    Lucid pads a picture of 128 pixels by 12, cuts out at random up to 8 pixels aside, scales by 0.90 to 1.10, turns by
    -10 to 10 degrees, and cuts again up to 4 pixels aside. Here the same movements are made in one resampling, so that
    a picture is interpolated once instead of three times, about the middle, and in the picture's own size: what comes
    in from outside is the padding's colour.
    """

    shifts: tuple[int, int] = (0, 0)
    """Most pixels between two placements, down as well as right, of the first and the second shift."""
    scales: tuple[float, ...] = (1.0,)
    degrees: tuple[float, ...] = (0.0,)
    """Equally likely ones."""

    @classmethod
    def for_size(cls, size: tuple[int, int], strength: float = 1.0) -> RandomTransform:
        """Lucid's ranges for pictures of a size.

        Parameters
        ----------
        size : (height, width)
        strength : float
            1 for Lucid's ranges, 0 for none; shifts, the scale's distance from 1 and the angle are multiplied by it.
        """
        if strength == 0:
            return STILL
        share = strength * min(size) / _LUCID_SIDE
        return cls(
            shifts=(max(1, round(8 * share)), max(1, round(4 * share))),
            scales=tuple(1 + strength * (step - 5) / 50 for step in range(11)),
            degrees=tuple(strength * angle for angle in (*range(-10, 11), *5 * (0,))),
        )

    def draw(self, random: np.random.Generator) -> Placement:
        """One placement; as many numbers are drawn whatever the ranges."""
        down, right, down_again, right_again = random.random(4)
        first, second = self.shifts
        return Placement(
            first_shift=(_whole(down, first), _whole(right, first)),
            scale=self.scales[int(random.integers(len(self.scales)))],
            degrees=self.degrees[int(random.integers(len(self.degrees)))],
            second_shift=(_whole(down_again, second), _whole(right_again, second)),
        )


STILL = RandomTransform()
"""Leaves pictures where they are."""


def _whole(share: float, reach: int) -> float:
    """One of ``reach + 1`` whole numbers about 0."""
    return float(int(share * (reach + 1)) - reach // 2)


@dataclass(frozen=True)
class Resampling:
    """The linear map that places pictures, and its adjoint.

    Every pixel of the moved picture is interpolated linearly between the four pixels around the place that it came
    from. What lies outside has the colour of the padding.
    """

    size: tuple[int, int]
    placements: tuple[Placement, ...]
    """One for each picture."""
    _matrices: list[Any] = field(init=False, repr=False, compare=False, default_factory=list)

    def __post_init__(self) -> None:
        self._matrices.extend(_matrix(self.size, placement) for placement in self.placements)

    def move(self, pictures: Floats, padding: Floats) -> Floats:
        """Place (n, channels, height, width) pictures; ``padding`` is (n, channels), the colour around each."""
        moved = np.empty_like(pictures)
        for picture, target, matrix, color in zip(pictures, moved, self._matrices, padding, strict=True):
            around = color.reshape(-1, 1)
            if matrix is None:
                target[...] = picture
            else:
                # Counted from the padding's colour, what is outside is 0.
                flat = picture.reshape(len(picture), -1) - around
                target[...] = ((matrix @ flat.T).T + around).reshape(target.shape)
        return moved

    def adjoint(self, gradient: Floats) -> Floats:
        """Derivatives by the pictures, from those by the moved ones."""
        back = np.empty_like(gradient)
        for moved, target, matrix in zip(gradient, back, self._matrices, strict=True):
            if matrix is None:
                target[...] = moved
            else:
                target[...] = (matrix.T @ moved.reshape(len(moved), -1).T).T.reshape(target.shape)
        return back


def _matrix(size: tuple[int, int], placement: Placement) -> Any:
    """(pixels, pixels) sparse weights by which pixels of the picture make those of the moved one; None for no move."""
    from scipy.sparse import csr_matrix

    if placement == Placement():
        return None
    height, width = size
    middle = np.array([(height - 1) / 2, (width - 1) / 2]).reshape(2, 1, 1)
    there = np.mgrid[:height, :width] - middle - np.reshape(placement.second_shift, (2, 1, 1))
    angle = np.deg2rad(placement.degrees)
    cosine, sine = np.cos(angle) / placement.scale, np.sin(angle) / placement.scale
    # Rows grow downwards, so a counter-clockwise turn is undone by this one.
    source = np.stack([cosine * there[0] + sine * there[1], -sine * there[0] + cosine * there[1]])
    source += middle - np.reshape(placement.first_shift, (2, 1, 1))
    # Whole places stay whole: a shift alone must not blur.
    source = np.round(source, 9)
    corner = np.floor(source).astype(np.int64)
    rest = source - corner
    columns, weights = [], []
    for down in (0, 1):
        for right in (0, 1):
            row, column = corner[0] + down, corner[1] + right
            weight = (rest[0] if down else 1 - rest[0]) * (rest[1] if right else 1 - rest[1])
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            columns.append(np.where(inside, row * width + column, 0).ravel())
            weights.append(np.where(inside, weight, 0).ravel())
    pixels = height * width
    return csr_matrix(
        (
            np.stack(weights, 1).astype(np.float32).ravel(),
            np.stack(columns, 1).ravel(),
            np.arange(0, 4 * pixels + 1, 4),
        ),
        shape=(pixels, pixels),
    )

"""Shapes of values for some images and for twice as many come in; the axis of each along which they lie goes out."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["growing_axis", "image_axis"]


def image_axis(few: Sequence[int], many: Sequence[int], rows: int) -> int | None:
    """The axis that has one place for each image.

    Parameters
    ----------
    few, many : sequence of int
        The value's shape for ``rows`` images, and for twice as many.
    rows : int

    Returns
    -------
    int or None
        None where the value has no such axis: it does not depend on how many images there are, it holds several places
        for each (windows, boxes), or more than one of its sides grows.
    """
    axis = growing_axis(few, many)
    return axis if axis is not None and few[axis] == rows and many[axis] == 2 * rows else None


def growing_axis(few: Sequence[int], many: Sequence[int]) -> int | None:
    """The only axis whose length differs; None where none or several do."""
    if len(few) != len(many):
        return None
    grown = [axis for axis, (short, long) in enumerate(zip(few, many, strict=True)) if short != long]
    return grown[0] if len(grown) == 1 else None

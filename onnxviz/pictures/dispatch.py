"""A result in, its picture out: ``plot``, which each kind's file teaches how to draw that kind."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from onnxviz.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot"]


@functools.singledispatch
def plot(result: object, ax: Axes | None = None, **options: Any) -> Figure:
    """Draw a result.

    Parameters
    ----------
    result : one of the dataclasses of ``onnxviz.results``
        What a method returned.
    ax : matplotlib.axes.Axes, optional
        Draw into these axes; only for pictures with a single panel.
    **options
        Options of the kind of result: ``plot.dispatch(type(result))`` has them in its signature.

    Returns
    -------
    matplotlib.figure.Figure
        A figure of its own (``ax.figure`` where ``ax`` was given); pyplot does not know it.

    Raises
    ------
    InputError
        There is no picture for this type, ``ax`` was given for a picture of several panels, or an option is unusable.
    """
    del ax, options
    kinds = sorted(kind.__name__ for kind in plot.registry if kind is not object)
    raise InputError(
        "there is no picture for this type",
        where="plot",
        got=type(result).__name__,
        allowed=", ".join(kinds),
        next_step="Pass what one of the methods returned",
    )

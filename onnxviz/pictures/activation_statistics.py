"""Statistics of one value in, a chart of its channels out: range and mean of each, dead and saturated ones marked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from onnxviz.errors import InputError
from onnxviz.pictures import colors
from onnxviz.pictures.dispatch import plot
from onnxviz.pictures.sheet import Sheet, figure_of, legend, nice_ticks, style_chart, write
from onnxviz.pictures.text import plural
from onnxviz.results import ActivationStatistics

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@plot.register(ActivationStatistics)
def _plot_statistics(
    result: ActivationStatistics,
    ax: Axes | None = None,
    *,
    sort: Literal["channel", "mean", "maximum"] = "channel",
) -> Figure:
    """Draw the range (pale) and the mean (dark) of every channel over all images and units.

    ``sort`` orders the channels by number, or by mean or maximum, largest first.
    """
    if sort not in {"channel", "mean", "maximum"}:
        raise InputError(
            "no such order",
            where="sort",
            got=repr(sort),
            allowed="'channel', 'mean', 'maximum'",
            next_step="Choose one of these",
        )
    dead, saturated = int(result.dead.sum()), int(result.saturated.sum())
    bad = int(result.non_finite.sum())
    if ax is not None:
        _draw(ax, result, sort)
        return figure_of(ax, result.provenance, result.value)
    seen = result.count * result.units
    sheet = Sheet(
        1000,
        390,
        title=f"Channels of {result.value}",
        subtitle=[
            plural(len(result.maximum), "channel"),
            f"over {plural(result.count, 'image')}, {plural(result.units, 'unit')} per channel and image",
            f"{dead:,} dead",
            f"{saturated:,} saturated",
        ],
        provenance=result.provenance,
        value=result.value,
        notes=[
            "Dead: the same number for every unit of every image. Saturated: at its own maximum in more than half of "
            "its units.",
            f"{plural(bad, 'activation')} of {seen * len(result.maximum):,} not finite, left out." if bad else "",
        ],
    )
    chart = sheet.axes(54, 4, 946, 318)
    _draw(chart, result, sort)
    entries = [
        (colors.BAND, "s", "smallest to largest activation"),
        (colors.BAR, "s", "mean"),
        (colors.WRONG, "X", f"dead ({dead:,})"),
        ("#e69f00", "^", f"saturated ({saturated:,})"),
    ]
    if bad:
        entries.append(
            (colors.NOT_FINITE, "D", f"holds numbers that are not finite ({int((result.non_finite > 0).sum()):,})")
        )
    legend(sheet, 54, 368, 946, entries, columns=len(entries))
    return sheet.figure


def _draw(ax: Axes, result: ActivationStatistics, sort: str) -> None:
    channels = len(result.maximum)
    alive = np.isfinite(result.minimum) & np.isfinite(result.maximum)
    lowest = np.where(alive, result.minimum, 0).astype(np.float64)
    highest = np.where(alive, result.maximum, 0).astype(np.float64)
    mean = np.where(alive & np.isfinite(result.mean), result.mean, 0)
    keys = {"channel": np.arange(channels), "mean": -mean, "maximum": -highest}
    order = np.argsort(keys[sort], kind="stable")
    low, high = min(0.0, float(lowest.min(initial=0))), max(0.0, float(highest.max(initial=0)))
    if low == high:
        high = low + 1.0
    room = (high - low) * 0.09
    ticks = {tick + 0.5: f"{tick:,.0f}" for tick in nice_ticks(0, max(channels - 1, 0), 10) if tick == int(tick)}
    ax.set_xlim(0, max(channels, 1))
    ax.set_ylim(low - room, high + room * 0.6)
    style_chart(
        ax,
        x_ticks=ticks if sort == "channel" else {},
        y_ticks=nice_ticks(low, high, 6),
        x_label="channel" if sort == "channel" else f"channels by {sort}, largest first",
        y_label="activation",
        grid="y",
    )
    if not channels:
        write(ax, 0.5, 0.5, "no channels", color=colors.QUIET, align="center", inside=False)
        return
    edges = np.arange(channels + 1)
    _steps(ax, edges, lowest[order], highest[order], colors.BAND)
    _steps(ax, edges, np.zeros(channels), mean[order], colors.BAR)
    ax.axhline(0, color=colors.NEUTRAL, linewidth=0.6, linestyle="-", marker="None")
    marks = (
        (result.dead, "X", colors.WRONG, 0.5),
        (result.saturated, "^", "#e69f00", 0.5),
        (result.non_finite > 0, "D", colors.NOT_FINITE, 0.85),
    )
    size = float(np.clip(420 / channels, 2.2, 6))
    for marked, marker, paint, depth in marks:
        at = np.flatnonzero(marked[order]) + 0.5
        ax.plot(
            at,
            np.full(len(at), low - room * depth),
            linestyle="None",
            marker=marker,
            color=paint,
            markersize=size,
            markeredgewidth=0,
            clip_on=False,
        )


def _steps(
    ax: Axes, edges: NDArray[np.int64], bottom: NDArray[np.float64], top: NDArray[np.float64], paint: str
) -> None:
    """A filled stair between two heights per channel: one polygon, so that ten thousand channels draw at once."""
    ax.fill_between(
        edges,
        np.append(bottom, bottom[-1]),
        np.append(top, top[-1]),
        step="post",
        color=paint,
        linewidth=0,
        interpolate=False,
    )

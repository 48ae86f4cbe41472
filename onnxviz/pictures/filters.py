"""A convolution's weights in, pictures of its filters out.

Filters that see colours become colour tiles; deeper ones grey tiles, one bracketed group per filter; depthwise ones a
tile each; 1×1 kernels, which have no shape to look at, a matrix of filters × channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from onnxviz.errors import InputError
from onnxviz.pictures import colors
from onnxviz.pictures.dispatch import plot
from onnxviz.pictures.sheet import CAPTION, FINE, Sheet, figure_of, refuse_ax
from onnxviz.pictures.text import numeral, plural
from onnxviz.pictures.tiles import Pixels, columns_for, enlarge, grid
from onnxviz.results import Filters

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Scale = Literal["common", "each"]
Weights = NDArray[np.float64]

MOST_TILES = 256
MOST_GROUPS = 20
MOST_CHANNELS = 16
MOST_MATRIX = 900
GROUND = "#a8c3db"


@plot.register(Filters)
def _plot_filters(
    result: Filters,
    ax: Axes | None = None,
    *,
    scale: Scale | None = None,
    max_filters: int | None = None,
    max_channels: int | None = None,
) -> Figure:
    """Draw the filters.

    ``scale="common"`` maps the smallest and largest weight of all drawn filters to 0 and 255, ``"each"`` those of every
    filter; None shows both where filters are single tiles, and ``"each"`` for groups. ``ax`` takes single tiles with
    one scale. A constant filter is mid-grey.
    """
    if scale not in {None, "common", "each"}:
        raise InputError(
            "no such scale",
            where="scale",
            got=repr(scale),
            allowed="'common', 'each', None",
            next_step="Choose one of these",
        )
    weights = np.asarray(result.weights, dtype=np.float64)
    if weights.ndim != 4:
        raise InputError(
            "filters need weights of four dimensions (filters, channels, height, width)",
            where="result.weights",
            got=str(weights.shape),
            next_step="Pass what filters() returned",
        )
    if weights.shape[2:] == (1, 1) and not (result.channel_order or weights.shape[1] == 1):
        refuse_ax(ax, "1×1 filters")
        return _plot_matrix(result, weights, max_filters or MOST_MATRIX, max_channels or MOST_MATRIX)
    if weights.shape[1] == 1 or (weights.shape[1] == 3 and result.channel_order):
        if result.channel_order == "BGR":
            weights = weights[:, ::-1]
        return _plot_tiles(result, weights, ax, scale, max_filters or MOST_TILES)
    refuse_ax(ax, "filters with many input channels")
    return _plot_groups(result, weights, scale or "each", max_filters or MOST_GROUPS, max_channels or MOST_CHANNELS)


def _shape_text(result: Filters) -> str:
    filters, channels, height, width = result.weights.shape
    kind = ""
    if result.groups > 1:
        kind = ", depthwise" if channels == 1 else f", {result.groups} groups"
    return f"{filters} × {channels} × {height} × {width}{kind}"


def _unfinite_note(weights: Weights, where: str = "weight") -> str:
    count = int(weights.size - np.isfinite(weights).sum())
    return f"{plural(count, where)} not finite, drawn in magenta." if count else ""


def _tile(weights: Weights, low: float, high: float) -> Pixels:
    """(channels, h, w) weights of one filter, of 1 or 3 channels, as RGB."""
    pixels = np.moveaxis(colors.to_bytes(weights, low, high), 0, -1)
    pixels = np.repeat(pixels, 3, axis=-1) if pixels.shape[-1] == 1 else pixels
    bad = ~np.isfinite(weights).all(axis=0)
    pixels = pixels.copy()
    pixels[bad] = colors.rgb(colors.NOT_FINITE)
    return pixels


def _tile_grid(weights: Weights, scale: Scale, side: int) -> Pixels:
    """All filters (n, 1 or 3, h, w) in a tight grid on black, at most ``side`` pixels wide."""
    if not len(weights):
        return grid([], 1, gap=0)
    height, width = weights.shape[2:]
    columns = columns_for(len(weights), width, height)
    gap = max(2, round(side / columns * 0.045))
    rows = -(-len(weights) // columns)
    factor = max(1, min((side - gap * (columns + 1)) // (columns * width), 3 * side // (2 * rows * height)))
    low, high = colors.finite_range(weights)
    tiles = []
    for filter_weights in weights:
        ends = (low, high) if scale == "common" else colors.finite_range(filter_weights)
        tiles.append(enlarge(_tile(filter_weights, *ends), factor))
    return grid(tiles, columns, gap=gap, margin=gap)


def _plot_tiles(result: Filters, weights: Weights, ax: Axes | None, scale: Scale | None, limit: int) -> Figure:
    shown = weights[:limit]
    low, high = colors.finite_range(shown)
    described = {
        "common": f"one scale for all: black {numeral(low)}, white {numeral(high)}",
        "each": "each filter on its own scale",
    }
    if ax is not None:
        return _draw_tiles(ax, result, shown, scale or "common", described[scale or "common"])
    panels: tuple[Scale, ...] = (scale,) if scale else ("common", "each")
    side = 470 if len(panels) == 2 else 620
    pictures = [_tile_grid(shown, panel, side * FINE) for panel in panels]
    widths = [picture.shape[1] / FINE for picture in pictures]
    heights = [picture.shape[0] / FINE for picture in pictures]
    total = sum(widths) + 40 * (len(panels) - 1)
    channels = {"RGB": "colours", "BGR": "colours (the network reads BGR; shown as RGB)"}.get(
        result.channel_order, "grey"
    )
    sheet = Sheet(
        total,
        max(heights) + 24,
        title=f"Filters of {result.value}",
        subtitle=[_shape_text(result), _drawn_text(len(shown), len(weights)), channels],
        provenance=result.provenance,
        value=result.value,
        notes=[_unfinite_note(shown)],
    )
    left = 0.0
    for panel, picture, width, height in zip(panels, pictures, widths, heights, strict=True):
        sheet.picture(picture, left, 0, width, height)
        sheet.text(left, height + 7, described[panel], size=CAPTION, color=colors.QUIET, width=width)
        left += width + 40
    return sheet.figure


def _drawn_text(shown: int, total: int) -> str:
    return plural(total, "filter") if shown == total else f"{shown:,} of {plural(total, 'filter')}"


def _draw_tiles(ax: Axes, result: Filters, shown: Weights, scale: Scale, caption: str) -> Figure:
    from onnxviz.pictures.sheet import write

    picture = _tile_grid(shown, scale, 1000)
    ax.set_axis_off()
    ax.imshow(picture, interpolation="nearest", origin="upper", aspect="equal")
    note = _unfinite_note(shown)
    drawn = _drawn_text(len(shown), len(result.weights))
    write(ax, 0, -0.02, "  ·  ".join(filter(None, [drawn, caption, note])), size=6.5, vertical="top", inside=False)
    return figure_of(ax, result.provenance, result.value)


def _plot_groups(result: Filters, weights: Weights, scale: Scale, filter_limit: int, channel_limit: int) -> Figure:
    shown = weights[:filter_limit, :channel_limit]
    sums = weights[:filter_limit].sum(axis=1, keepdims=True) if weights.size else weights[:filter_limit]
    filters, channels, height, width = shown.shape
    gap = 3
    # Tiles of about 23 units, in whole pixels per weight; the groups then fill the page in as many columns as fit.
    factor = max(1, round(23 * FINE / max(height, width)))
    tile_width, tile_height = width * factor, height * factor
    # Wide kernels go on several lines of their group, so that the page keeps its width.
    strip_columns = min(channels, 16, max(1, 900 * FINE // (tile_width + gap)))
    strip_rows = -(-channels // strip_columns) if strip_columns else 1
    strip_width = (strip_columns * (tile_width + gap) + gap) / FINE
    strip_height = (strip_rows * (tile_height + gap) + gap) / FINE
    label, bracket = 26.0, 7.0
    group_width = label + bracket + strip_width + bracket + 6 + (tile_width + 2 * gap) / FINE
    columns = max(1, min(int((1000 + 30) // (group_width + 30)), max(filters, 1)))
    rows = -(-filters // columns) if filters else 0
    pitch = strip_height + 9
    head = 16.0
    total_channels = weights.shape[1]
    drawn_channels = (
        plural(total_channels, "input channel")
        if channels == total_channels
        else f"{channels:,} of {plural(total_channels, 'input channel')}"
    )
    low, high = colors.finite_range(shown)
    low_sum, high_sum = colors.finite_range(sums)
    explained = (
        "Each group and each sum on its own scale: its smallest weight is black (0), its largest white (255)."
        if scale == "each"
        else f"One scale for all tiles, {numeral(low)} black (0) to {numeral(high)} white (255); "
        f"one for all sums, {numeral(low_sum)} to {numeral(high_sum)}."
    )
    sheet = Sheet(
        columns * group_width + (columns - 1) * 30,
        head + rows * pitch,
        title=f"Filters of {result.value}",
        subtitle=[_shape_text(result), _drawn_text(filters, len(weights)), f"{drawn_channels} in brackets"],
        provenance=result.provenance,
        value=result.value,
        notes=[f"Σ is the sum over all {total_channels} input channels. {explained}", _unfinite_note(shown)],
    )
    for column in range(columns if filters else 0):
        left = column * (group_width + 30)
        sheet.text(left, 0, "filter", size=6.5, color=colors.QUIET)
        sheet.text(
            left + label + bracket,
            0,
            f"input channels 0–{channels - 1}" if channels > 1 else "input channel 0",
            size=6.5,
            color=colors.QUIET,
            width=strip_width,
        )
        sheet.text(
            left + group_width - (tile_width / 2 + gap) / FINE, 0, "Σ", size=6.5, color=colors.QUIET, align="center"
        )
    for index in range(filters):
        left = index // rows * (group_width + 30)
        top = head + index % rows * pitch
        own = (low, high) if scale == "common" else colors.finite_range(shown[index])
        own_sum = (low_sum, high_sum) if scale == "common" else colors.finite_range(sums[index])
        tiles = [enlarge(_tile(channel[None], *own), factor) for channel in shown[index]]
        # A ground of its own hue: neither a black nor a white weight can melt into it.
        strip = grid(tiles, strip_columns, gap=gap, background=GROUND, margin=gap)
        total = grid([enlarge(_tile(sums[index], *own_sum), factor)], 1, gap=gap, background=GROUND, margin=gap)
        _group(sheet, left, top, index, strip, total, (label, bracket))
    return sheet.figure


def _group(
    sheet: Sheet, left: float, top: float, number: int, strip: Pixels, total: Pixels, margins: Sequence[float]
) -> None:
    """One filter: number, bracketed tiles, sum."""
    label, bracket = margins
    height, width = strip.shape[0] / FINE, strip.shape[1] / FINE
    sheet.text(left, top + height / 2, str(number), size=7, color=colors.QUIET, vertical="center")
    start = left + label + bracket
    sheet.picture(strip, start, top, width, height)
    for x, inward in ((start - 4, 3.0), (start + width + 4, -3.0)):
        sheet.line(
            [x + inward, x, x, x + inward],
            [top - 2, top - 2, top + height + 2, top + height + 2],
            color=colors.INK,
            width=0.9,
        )
    sum_height = total.shape[0] / FINE
    sheet.picture(
        total, start + width + bracket + 6, top + (height - sum_height) / 2, total.shape[1] / FINE, sum_height
    )


def _plot_matrix(result: Filters, weights: Weights, filter_limit: int, channel_limit: int) -> Figure:
    shown = weights[:filter_limit, :channel_limit, 0, 0]
    rows, columns = shown.shape
    low, high = colors.symmetric_range(shown)
    # Whole pixels per weight, as large as a page of about 900 × 560 units takes.
    factor = max(1, min(900 * FINE // max(columns, 1), 560 * FINE // max(rows, 1), 48))
    picture = enlarge(colors.colorize(shown, "balance", low, high), factor) if shown.size else grid([], 1, gap=0)
    height, width = picture.shape[0] / FINE, picture.shape[1] / FINE
    total_channels = weights.shape[1]
    counted = (
        plural(total_channels, "input channel")
        if columns == total_channels
        else f"{columns:,} of {plural(total_channels, 'input channel')}"
    )
    sheet = Sheet(
        width + 44,
        height + 78,
        title=f"Filters of {result.value}",
        subtitle=[_shape_text(result), _drawn_text(rows, len(weights)), counted],
        provenance=result.provenance,
        value=result.value,
        notes=[
            "A 1×1 kernel has no shape to look at: each row is one filter, each column one input channel.",
            _unfinite_note(shown),
        ],
    )
    sheet.picture(picture, 44, 16, width, height)
    sheet.text(44, 0, f"input channel 0 … {max(columns - 1, 0)}", size=7.2, color=colors.QUIET)
    step = height / max(rows, 1)
    for row in sorted({0, rows - 1}) if rows else []:
        sheet.text(
            38, 16 + (row + 0.5) * step, str(row), size=7.2, color=colors.QUIET, align="right", vertical="center"
        )
    if height > 60:
        sheet.text(0, 16 + height / 2, "filter", size=7.2, color=colors.QUIET, vertical="center")
    bar = min(300.0, max(width, 160.0))
    sheet.color_bar(44, height + 32, bar, colors_name="balance", low=low, high=high, label="weight")
    return sheet.figure

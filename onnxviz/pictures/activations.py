"""Activations in, one row per image out: what the network saw, beside a tile for every channel or a strip of bars."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from onnxviz.errors import InputError
from onnxviz.pictures import colors
from onnxviz.pictures.dispatch import plot
from onnxviz.pictures.sheet import CAPTION, FINE, Sheet, nice_ticks, refuse_ax, style_chart, write
from onnxviz.pictures.text import numeral, plural
from onnxviz.pictures.tiles import Pixels, columns_for, fit, grid, resize
from onnxviz.results import Activations

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PHOTO = 210
MOST_BARS = 1024
MOST_HIGH = 240


@plot.register(Activations)
def _plot_activations(
    result: Activations,
    ax: Axes | None = None,
    *,
    sort: Literal["channel", "peak"] = "channel",
    signed: bool | None = None,
    scale: Literal["common", "each"] = "common",
    max_channels: int = 256,
    max_images: int = 8,
    color: Literal["viridis", "grey"] = "viridis",
    clip: float = 0.005,
) -> Figure:
    """Draw the activations of a few images.

    ``sort="peak"`` orders the channels of every image by their largest magnitude; ``signed`` draws a diverging map
    centred on 0 (None: where a value is negative), otherwise ``color`` ("viridis" or "grey") from 0; ``scale="each"``
    stretches every tile to its own extreme. ``clip`` is the share of an image's activations that may lie past the end
    of the common colour scale, so that one spike does not leave everything else dark; that end is marked with ≥.
    """
    refuse_ax(ax, "activations")
    for name, got, allowed in (
        ("sort", sort, ("channel", "peak")),
        ("scale", scale, ("common", "each")),
        ("color", color, ("viridis", "grey")),
    ):
        if got not in allowed:
            raise InputError(
                "no such choice",
                where=name,
                got=repr(got),
                allowed=", ".join(map(repr, allowed)),
                next_step="Choose one of these",
            )
    maps = np.asarray(result.maps, dtype=np.float64)
    if maps.ndim not in {2, 4}:
        raise InputError(
            "activations are drawn from (images, channels, height, width) or (images, features)",
            where="result.maps",
            got=str(maps.shape),
            next_step="Pass what activations() returned",
        )
    if signed is None:
        signed = colors.finite_range(maps)[0] < 0
    shown = min(len(maps), max_images)
    if maps.ndim == 4 and maps.shape[2:] == (1, 1):
        maps = maps[:, :, 0, 0]
    bad = int(maps.size - np.isfinite(maps).sum())
    notes = [f"{plural(bad, 'activation')} of {maps.size:,} not finite, drawn in magenta."] if bad else []
    if maps.ndim == 2:
        return _plot_strips(result, maps, shown, sort == "peak", signed, notes)
    return _plot_maps(
        result, maps, shown, sort == "peak", signed, None if scale == "each" else clip, max_channels, color, notes
    )


def _images_text(shown: int, total: int) -> str:
    return plural(total, "image") if shown == total else f"{shown:,} of {plural(total, 'image')}"


def _peaks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(channels,) largest finite magnitude of (channels, ...); -1 where nothing is finite."""
    flat = np.abs(values.reshape(len(values), -1))
    return np.asarray(np.where(np.isfinite(flat), flat, -1).max(axis=1, initial=-1))


def _plot_maps(
    result: Activations,
    maps: NDArray[np.float64],
    shown: int,
    by_peak: bool,
    signed: bool,
    clip: float | None,
    max_channels: int,
    color: str,
    notes: list[str],
) -> Figure:
    channels, height, width = maps.shape[1:]
    drawn = min(channels, max_channels)
    columns = columns_for(drawn, width, height, aspect=2.2)
    area = (1040 - PHOTO - 30) * FINE
    gap = 3 if drawn <= 128 else 2
    tile = max(1, min((area - gap * (columns + 1)) // columns, 110 * FINE))
    tile_height = max(1, round(tile * height / max(width, 1))) if width else 1
    if tile_height > MOST_HIGH * FINE:
        tile_height, tile = MOST_HIGH * FINE, max(2, round(MOST_HIGH * FINE * width / max(height, 1)))
    rows = -(-drawn // columns)
    grid_height = (rows * (tile_height + gap) + gap) / FINE
    row_height = max(grid_height, float(PHOTO) + 20) + (0 if clip is None else 52)
    name = "balance" if signed else color
    order_text = "channels by their peak, strongest first" if by_peak else "channels in order"
    counted = plural(channels, "channel") if drawn == channels else f"{drawn:,} of {plural(channels, 'channel')}"
    if clip is None:
        notes = ["Each tile is stretched to its own extreme; a tile without any activation is dark.", *notes]
    sheet = Sheet(
        PHOTO + 30 + (columns * (tile + gap) + gap) / FINE,
        shown * (row_height + 16) - 16 if shown else 20,
        title=f"Activations of {result.value}",
        subtitle=[f"{channels} × {height} × {width}", counted, order_text, _images_text(shown, len(maps))],
        provenance=result.provenance,
        value=result.value,
        notes=notes,
    )
    if not shown:
        sheet.text(0, 0, "no images", color=colors.QUIET)
    for index in range(shown):
        top = index * (row_height + 16)
        _photo(sheet, result, index, top)
        order = np.argsort(-_peaks(maps[index]), kind="stable") if by_peak else np.arange(channels)
        kept = maps[index][order[:drawn]]
        low, high, beyond = _common_ends(maps[index], signed, clip or 0.0)
        tiles = []
        for channel in kept:
            ends = _ends(channel, signed) if clip is None else (low, high)
            tiles.append(_map_tile(channel, name, *ends, tile_height, tile))
        picture = grid(tiles, columns, gap=gap, margin=gap)
        sheet.picture(picture, PHOTO + 30, top, picture.shape[1] / FINE, picture.shape[0] / FINE)
        if clip is not None:
            bar = min(300.0, picture.shape[1] / FINE)
            sheet.color_bar(
                PHOTO + 30,
                top + max(grid_height, 0) + 10,
                bar,
                colors_name=name,
                low=low,
                high=high,
                label="activation",
                beyond=beyond,
            )
    return sheet.figure


def _common_ends(values: NDArray[np.float64], signed: bool, clip: float) -> tuple[float, float, bool]:
    """The common range of an image's maps, and whether some activations lie beyond it."""
    low, high = _ends(values, signed)
    finite = values[np.isfinite(values)]
    magnitudes = np.abs(finite) if signed else finite
    if not finite.size or not 0 < clip < 1:
        return low, high, False
    end = float(np.quantile(magnitudes, 1 - clip, method="higher"))
    if not 0 < end < high:
        return low, high, False
    return (-end if signed else 0.0), end, True


def _ends(values: NDArray[np.float64], signed: bool) -> tuple[float, float]:
    """The range of a colour scale; an all-zero unsigned map gets (0, 1), so that it is drawn as empty, not as half."""
    if signed:
        low, high = colors.symmetric_range(values)
        return (low, high) if high > 0 else (-1.0, 1.0)
    high = max(0.0, colors.finite_range(values)[1])
    return 0.0, high if high > 0 else 1.0


def _map_tile(channel: NDArray[np.float64], name: str, low: float, high: float, height: int, width: int) -> Pixels:
    painted = colors.colorize(channel, name, low, high)
    if 0 < painted.shape[0] <= height and 0 < painted.shape[1] <= width:
        # Nearest neighbour: a map's pixel is one unit, and blurring would invent units.
        rows = np.arange(height) * painted.shape[0] // height
        columns = np.arange(width) * painted.shape[1] // width
        return np.asarray(painted[np.ix_(rows, columns)])
    return resize(painted, height, width)


def _photo(sheet: Sheet, result: Activations, index: int, top: float) -> None:
    pixels = fit(result.images[index], PHOTO * FINE, PHOTO * FINE) if index < len(result.images) else None
    if pixels is not None:
        sheet.picture(pixels, 0, top, PHOTO, PHOTO)
    sheet.text(0, top + PHOTO + 5, result.names[index] if index < len(result.names) else "", size=CAPTION, width=PHOTO)


def _plot_strips(
    result: Activations, values: NDArray[np.float64], shown: int, by_peak: bool, signed: bool, notes: list[str]
) -> Figure:
    features = values.shape[1]
    per_bar = max(1, -(-features // MOST_BARS))
    if per_bar > 1:
        notes = [f"Each bar is the strongest of {per_bar} neighbouring features.", *notes]
    order_text = "by magnitude, largest first" if by_peak else "in order"
    width, strip = 1000.0, 150.0
    pitch = strip + 56
    sheet = Sheet(
        width,
        shown * pitch - 24 if shown else 20,
        title=f"Activations of {result.value}",
        subtitle=[plural(features, "feature"), order_text, _images_text(shown, len(values))],
        provenance=result.provenance,
        value=result.value,
        notes=notes,
    )
    if not shown:
        sheet.text(0, 0, "no images", color=colors.QUIET)
    low, high = colors.finite_range(values[:shown])
    low, high = (min(low, 0.0), max(high, 0.0)) if signed else (0.0, max(high, 0.0))
    if low == high:
        high = low + 1
    for index in range(shown):
        top = index * pitch
        if index < len(result.images):
            sheet.picture(fit(result.images[index], int(strip) * FINE, int(strip) * FINE), 0, top, strip, strip)
        name = result.names[index] if index < len(result.names) else ""
        sheet.text(0, top + strip + 5, name, size=CAPTION, width=strip)
        _strip(
            sheet, values[index], (strip + 66, top + 6, width - strip - 66, strip - 12), (low, high), by_peak, per_bar
        )
    return sheet.figure


def _strip(
    sheet: Sheet,
    features: NDArray[np.float64],
    place: tuple[float, float, float, float],
    ends: tuple[float, float],
    by_peak: bool,
    per_bar: int,
) -> None:
    """Bars of one image's feature vector, the three strongest named."""
    finite = np.isfinite(features)
    magnitude = np.where(finite, np.abs(features), -1.0)
    order = np.argsort(-magnitude, kind="stable")
    arranged = order if by_peak else np.arange(len(features))
    bars = -(-len(features) // per_bar)
    heights, bad = np.zeros(bars), np.zeros(bars, dtype=bool)
    for bar in range(bars):
        members = arranged[bar * per_bar : (bar + 1) * per_bar]
        heights[bar] = np.where(finite, features, 0.0)[members[np.argmax(magnitude[members])]]
        bad[bar] = not finite[members].all()
    ax = sheet.axes(*place)
    low, high = ends
    room = (high - low) * 0.14
    ax.set_xlim(0, max(bars, 1))
    ax.set_ylim(low - (room if low < 0 else 0), high + room)
    places = (
        {}
        if by_peak
        else {
            (tick // per_bar) + 0.5: f"{tick:,.0f}"
            for tick in nice_ticks(0, max(len(features) - 1, 0), 8)
            if tick == int(tick)
        }
    )
    style_chart(ax, x_ticks=places, y_ticks=nice_ticks(low, high, 4), grid="y")
    width = 0.8 if bars <= 200 else 1.0
    for sign, paint in ((heights >= 0, colors.BAR), (heights < 0, colors.WRONG)):
        _bars(ax, np.flatnonzero(sign), heights[sign], width, paint)
    _bars(ax, np.flatnonzero(bad), np.full(int(bad.sum()), high + room), width, colors.NOT_FINITE)
    ax.axhline(0, color=colors.NEUTRAL, linewidth=0.6, linestyle="-", marker="None")
    position = np.empty(len(features), dtype=np.intp)
    position[arranged] = np.arange(len(features)) // per_bar
    taken: list[float] = []
    for feature in order[:8]:
        if magnitude[feature] <= 0 or len(taken) == 3:
            break
        at = float(position[feature]) + 0.5
        # A name that would lie on another one is left out rather than made unreadable.
        if any(abs(at - other) < bars * 0.11 for other in taken):
            continue
        taken.append(at)
        above = features[feature] >= 0
        side = "left" if at < bars * 0.06 else "right" if at > bars * 0.94 else "center"
        write(
            ax,
            at,
            float(features[feature]) + (room * 0.2 if above else -room * 0.2),
            f"{feature:,}: {numeral(features[feature])}",
            size=6.5,
            color=colors.QUIET,
            align=side,
            vertical="bottom" if above else "top",
        )


def _bars(ax: Axes, at: NDArray[np.intp], heights: NDArray[np.float64], width: float, paint: str) -> None:
    from matplotlib.collections import PolyCollection

    left, right = at + 0.5 - width / 2, at + 0.5 + width / 2
    zero = np.zeros(len(at))
    corners = np.stack(
        [
            np.stack([left, zero], axis=1),
            np.stack([left, heights], axis=1),
            np.stack([right, heights], axis=1),
            np.stack([right, zero], axis=1),
        ],
        axis=1,
    )
    ax.add_collection(
        PolyCollection(list(corners), facecolors=paint, edgecolors="none", antialiased=True), autolim=False
    )

"""A two-dimensional embedding in, a scatter plot out: one point per image, coloured by class."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from onnxviz.errors import InputError
from onnxviz.pictures import colors
from onnxviz.pictures.dispatch import plot
from onnxviz.pictures.sheet import Sheet, figure_of, legend, style_chart, write
from onnxviz.pictures.text import elide, numeral, plural
from onnxviz.results import Embedding

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_NAMED = 20
# The second ten classes repeat the colours with another marker.
MARKERS = ("o", "^")


@plot.register(Embedding)
def _plot_embedding(
    result: Embedding,
    ax: Axes | None = None,
    *,
    point_size: float | None = None,
) -> Figure:
    """Draw the points; up to 20 classes get a legend, more a colour bar. ``point_size`` is a diameter in points."""
    coordinates = np.asarray(result.coordinates, dtype=np.float64)
    if coordinates.ndim != 2 or coordinates.shape[1] != 2:
        raise InputError(
            "an embedding is drawn from coordinates (images, 2)",
            where="result.coordinates",
            got=str(coordinates.shape),
            next_step="Pass what embed() returned",
        )
    if point_size is not None and not 0 < point_size <= 100:
        raise InputError(
            "no such point size",
            where="point_size",
            got=str(point_size),
            allowed="above 0, up to 100 points",
            next_step="Pass a diameter in that range",
        )
    groups = _groups(result, len(coordinates))
    if ax is not None:
        _draw(ax, result, coordinates, groups, point_size)
        _inset_legend(ax, groups)
        return figure_of(ax, result.provenance, "")
    named = len(groups) > 1 or (bool(groups) and groups[0][2] != "")
    pca = result.method == "pca"
    half = _extent(coordinates)[1]
    wide = 690.0 if pca else 720.0
    tall = float(np.clip(round(wide * half[1] / half[0]), 420, 860))
    lost = int(len(coordinates) - np.isfinite(coordinates).all(axis=1).sum())
    sheet = Sheet(
        720 + (200 if named else 0),
        tall + (30 if pca else 0),
        title="PCA of the features" if result.method == "pca" else "t-SNE of the features",
        subtitle=[plural(len(coordinates), "image"), _quality(result)],
        provenance=result.provenance,
        value=str(result.provenance.parameters.get("value") or ""),
        notes=[
            "Only neighbourhoods mean something in a t-SNE map: sizes of clusters and distances between them do not."
            if result.method == "tsne"
            else "",
            f"{plural(lost, 'point')} without finite coordinates, not drawn." if lost else "",
        ],
    )
    chart = sheet.axes(720 - wide, 0, wide, tall)
    _draw(chart, result, coordinates, groups, point_size, shape=(wide, tall))
    if named and len(groups) <= MOST_NAMED + 1:
        entries = [(paint, marker, f"{name}  ({len(rows):,})") for paint, marker, name, rows in groups]
        legend(sheet, 742, 4, 178, entries, size=8)
    elif named:
        ramp = colors.colorize(np.linspace(0, 1, 256)[None, :], "viridis", 0, 1)
        highest = float(np.max(result.classes)) if result.classes is not None else 0.0
        sheet.color_bar(742, 8, 170, colors_name="viridis", low=0, high=highest, label="class number", ramp=ramp)
        sheet.text(742, 52, f"{plural(len(groups), 'class', 'classes')}", size=8, color=colors.QUIET)
    return sheet.figure


Group = tuple[str, str, str, NDArray[np.intp]]


def _groups(result: Embedding, images: int) -> list[Group]:
    """(colour, marker, name, rows) for each class that occurs, ascending; unlabelled images last."""
    if result.classes is None:
        return [(colors.BAR, "o", "", np.arange(images))]
    numbers = [int(number) for number in np.unique(result.classes) if number >= 0]
    groups: list[Group] = []
    highest = max(numbers, default=0)
    for rank, number in enumerate(numbers):
        known = result.class_names is not None and number < len(result.class_names)
        name = result.class_names[number] if known and result.class_names is not None else f"class {number}"
        if len(numbers) <= MOST_NAMED:
            paint = colors.CATEGORIES[rank % len(colors.CATEGORIES)]
            marker = MARKERS[rank // len(colors.CATEGORIES) % len(MARKERS)]
        else:
            red, green, blue = colors.colorize(np.array(number), "viridis", 0, highest).tolist()
            paint, marker = f"#{red:02x}{green:02x}{blue:02x}", "o"
        groups.append((paint, marker, name, np.flatnonzero(result.classes == number)))
    unknown = np.flatnonzero(np.asarray(result.classes) < 0)
    return groups + ([("#c4cad1", "o", "unlabelled", unknown)] if len(unknown) else [])


def _quality(result: Embedding) -> str:
    if result.method == "pca" and result.explained_variance_ratio is not None:
        both = float(np.sum(result.explained_variance_ratio))
        return (
            f"two components hold {100 * both:.1f} % of the variance, trustworthiness {numeral(result.trustworthiness)}"
        )
    return f"trustworthiness {numeral(result.trustworthiness)} (0.5 chance, 1 every neighbourhood real)"


def _extent(coordinates: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Middle and half-width (2,) of the points with a margin; a sane box where they all coincide."""
    kept = coordinates[np.isfinite(coordinates).all(axis=1)]
    if not len(kept):
        return np.zeros(2), np.ones(2)
    low, high = kept.min(axis=0), kept.max(axis=0)
    half = (high / 2 - low / 2) * 1.06
    # An axis without spread gets that of the other, and points that all coincide a box around them.
    half = np.where(half > half.max() * 1e-6, half, half.max())
    least = np.maximum(np.abs(low / 2 + high / 2) * 1e-6, 1e-30)
    return low / 2 + high / 2, np.where(half > least, half, np.maximum(least * 1e3, 1e-3))


def _draw(
    ax: Axes,
    result: Embedding,
    coordinates: NDArray[np.float64],
    groups: list[Group],
    point_size: float | None,
    *,
    shape: tuple[float, float] | None = None,
) -> None:
    finite: NDArray[np.bool_] = np.asarray(np.isfinite(coordinates).all(axis=1))
    ratio = result.explained_variance_ratio
    shares = [
        f"principal component {1 + axis}"
        + (f"  ({100 * ratio[axis]:.1f} % of the variance)" if ratio is not None else "")
        for axis in range(2)
    ]
    pca = result.method == "pca"
    style_chart(ax, x_label=shares[0] if pca else "", y_label=shares[1] if pca else "")
    for spine in ax.spines.values():
        spine.set_visible(True)
        spine.set_color(colors.RULE)
    if not finite.any():
        write(ax, 0.5, 0.5, "no points", color=colors.QUIET, align="center", inside=False)
        return
    middle, half = _extent(coordinates)
    if shape is not None:
        half = np.maximum(half, half[::-1] * np.array([shape[0] / shape[1], shape[1] / shape[0]]))
    ax.set_xlim(middle[0] - half[0], middle[0] + half[0])
    ax.set_ylim(middle[1] - half[1], middle[1] + half[1])
    ax.set_aspect("equal", adjustable="box")
    diameter = point_size or float(np.clip(160 / np.sqrt(finite.sum()), 1.6, 8))
    # Drawn in a shuffled order, fixed by its seed: folders come class by class, and the last must not hide the others.
    order = np.random.default_rng(0).permutation(len(coordinates))
    paint = np.empty(len(coordinates), dtype=object)
    for color, _, _, rows in groups:
        paint[rows] = color
    for marker in MARKERS:
        shaped = np.zeros(len(coordinates), dtype=bool)
        for _, own, _, members in groups:
            shaped[members] |= own == marker
        rows = order[(shaped & finite)[order]]
        ax.scatter(
            coordinates[rows, 0],
            coordinates[rows, 1],
            s=diameter**2,
            c=list(paint[rows]) or None,
            marker=marker,
            alpha=0.82,
            linewidths=0,
            edgecolors="none",
        )


def _inset_legend(ax: Axes, groups: list[Group]) -> None:
    if len(groups) <= 1 or len(groups) > MOST_NAMED + 1:
        return
    inset = ax.inset_axes((1.02, 0, 0.4, 1))
    inset.set_axis_off()
    inset.set_xlim(0, 1)
    inset.set_ylim(1, 0)
    for row, (paint, marker, name, _) in enumerate(groups):
        at = 0.025 + row * 0.047
        inset.plot([0.05], [at], marker=marker, color=paint, markersize=5, linestyle="None", markeredgewidth=0)
        write(inset, 0.13, at, elide(name, 110, 6.5), size=6.5)

"""Neighbours in, strips out: query, its nearest in feature space, a red divider, its nearest in pixel space."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from onnxviz.errors import InputError
from onnxviz.pictures import colors
from onnxviz.pictures.dispatch import plot
from onnxviz.pictures.sheet import FINE, Sheet, refuse_ax
from onnxviz.pictures.text import numeral, plural
from onnxviz.pictures.tiles import fit, frame
from onnxviz.results import Neighbors

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DIVIDER = "#d40000"


@plot.register(Neighbors)
def _plot_neighbors(
    result: Neighbors,
    ax: Axes | None = None,
    *,
    max_queries: int = 12,
    max_neighbors: int = 6,
) -> Figure:
    """Draw a strip per query; where classes are known, right neighbours are framed green and wrong ones orange."""
    refuse_ax(ax, "neighbours")
    if max_queries < 1 or max_neighbors < 1:
        raise InputError(
            "a picture needs at least one query and one neighbour",
            where="max_queries, max_neighbors",
            got=f"{max_queries}, {max_neighbors}",
            allowed="1 or more",
            next_step="Pass larger numbers",
        )
    shown = min(len(result.queries), max_queries)
    found = max(result.feature_indices.shape[-1], 0) if result.feature_indices.ndim == 2 else 0
    depth = min(found, max_neighbors)
    tile = int(min(92, 1000 / (2 * depth + 1) - 8)) if depth else 92
    step = tile + 6.0
    feature_left = tile + 22.0
    pixel_left = feature_left + depth * step + 26
    labelled = result.classes is not None
    head = 38.0
    pitch = tile + (30.0 if labelled else 19.0)
    notes = [
        "Distance below each tile, in the units of its own space; the two columns cannot be compared with each other."
    ]
    if labelled:
        notes.append("Framed green and marked ✓: the query's class; orange and ✗: another one.")
    if shown < len(result.queries) or depth < found:
        notes.append(
            f"{shown} of {plural(len(result.queries), 'query', 'queries')}, {depth} of {found} neighbours drawn."
        )
    sheet = Sheet(
        pixel_left + depth * step - 6,
        head + shown * pitch if shown else 40,
        title="Nearest neighbours in feature space and in pixel space",
        subtitle=[f"features: {result.value}", f"among {plural(len(result.names), 'image')}"],
        provenance=result.provenance,
        value=result.value,
        notes=notes,
    )
    for left, heading, accuracy in (
        (0.0, "query", None),
        (feature_left, "nearest in feature space", result.feature_accuracy),
        (pixel_left, "nearest in pixel space", result.pixel_accuracy),
    ):
        sheet.text(left, 0, heading, size=9, bold=True)
        if accuracy is not None:
            sheet.text(left, 16, f"leave-one-out vote: {100 * accuracy:.1f} % right", size=8, color=colors.QUIET)
    if not shown:
        sheet.text(0, 20, "no queries", color=colors.QUIET)
    place = {int(image): row for row, image in enumerate(result.shown)}
    for row in range(shown):
        top = head + row * pitch
        query = int(result.queries[row])
        _tile(sheet, result, place, query, (0.0, top, tile), None, "")
        for left, indices, distances in (
            (feature_left, result.feature_indices[row], result.feature_distances[row]),
            (pixel_left, result.pixel_indices[row], result.pixel_distances[row]),
        ):
            for rank in range(min(depth, len(indices))):
                image = int(indices[rank])
                _tile(
                    sheet,
                    result,
                    place,
                    image,
                    (left + rank * step, top, tile),
                    _agrees(result.classes, query, image),
                    numeral(distances[rank]),
                )
    if shown:
        x = pixel_left - 16
        sheet.line([x, x], [head - 4, head + shown * pitch - 12], color=DIVIDER, width=2.0)
    return sheet.figure


def _agrees(classes: NDArray[np.int64] | None, query: int, image: int) -> bool | None:
    """Whether both images have the same known class; None where either is unknown."""
    if classes is None or not (0 <= query < len(classes) and 0 <= image < len(classes)):
        return None
    if classes[query] < 0 or classes[image] < 0:
        return None
    return bool(classes[query] == classes[image])


def _class_name(result: Neighbors, image: int) -> str:
    if result.classes is None or not 0 <= image < len(result.classes) or result.classes[image] < 0:
        return ""
    number = int(result.classes[image])
    return (
        result.class_names[number]
        if result.class_names is not None and number < len(result.class_names)
        else str(number)
    )


def _tile(
    sheet: Sheet,
    result: Neighbors,
    place: dict[int, int],
    image: int,
    at: tuple[float, float, int],
    agrees: bool | None,
    distance: str,
) -> None:
    left, top, side = at
    row = place.get(image)
    pixels = np.full((side * FINE, side * FINE, 3), colors.rgb(colors.EMPTY), dtype=np.uint8)
    if row is not None:
        pixels = fit(result.thumbnails[row], side * FINE, side * FINE)
    if agrees is not None:
        pixels = frame(pixels, colors.RIGHT if agrees else colors.WRONG, 3 * FINE)
    sheet.picture(pixels, left, top, side, side)
    name = _class_name(result, image)
    mark = {None: "", True: "✓ ", False: "✗ "}[agrees]
    ink = {None: colors.INK, True: colors.INK, False: colors.WRONG}[agrees]
    below = top + side + 2
    if name:
        sheet.text(left + side / 2, below, f"{mark}{name}", size=6.6, color=ink, align="center", width=side + 4)
        below += 11
    if distance:
        sheet.text(left + side / 2, below, distance, size=6.6, color=colors.QUIET, align="center")

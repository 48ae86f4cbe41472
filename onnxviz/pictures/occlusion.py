"""An occlusion experiment in, four panels out: photo, score at each patch position, importance, most likely label."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from onnxviz.errors import InputError
from onnxviz.pictures import colors
from onnxviz.pictures.dispatch import plot
from onnxviz.pictures.sheet import CAPTION, FINE, Sheet, figure_of, legend, write
from onnxviz.pictures.text import elide, numeral, plural
from onnxviz.pictures.tiles import Pixels, resize
from onnxviz.results import Occlusion

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Panel = Literal["image", "probability", "importance", "label"]
PANELS: tuple[Panel, ...] = ("image", "probability", "importance", "label")
LABELS_NAMED = 6
OTHER = "#d9dde2"


@plot.register(Occlusion)
def _plot_occlusion(
    result: Occlusion,
    ax: Axes | None = None,
    *,
    panel: Panel | None = None,
    limits: tuple[float, float] | None = None,
) -> Figure:
    """Draw an occlusion experiment.

    ``limits`` fixes the ends of the score's colour scale, so that several pictures can be compared. ``ax`` takes one
    ``panel``: "image", "probability", "importance" or "label".
    """
    if panel is not None and panel not in PANELS:
        raise InputError(
            "no such panel",
            where="panel",
            got=repr(panel),
            allowed=", ".join(map(repr, PANELS)),
            next_step="Choose one of these",
        )
    if panel == "label" and result.label is None:
        raise InputError(
            "this result has no labels: the output is not a classifier's",
            where="panel",
            got="'label'",
            allowed="'image', 'probability', 'importance'",
            next_step="Choose another panel",
        )
    if ax is not None:
        if panel is None:
            raise InputError(
                "a picture of an occlusion has several panels and one axes holds one of them",
                where="panel",
                allowed=", ".join(map(repr, PANELS)),
                next_step="Name the panel, or call plot(result) without ax",
            )
        return _draw_one(ax, result, panel, limits)
    return _draw_sheet(result, (panel,) if panel else PANELS, limits)


def _draw_sheet(result: Occlusion, wanted: tuple[Panel, ...], limits: tuple[float, float] | None) -> Figure:
    panels = [panel for panel in wanted if panel != "label" or result.label is not None]
    height, width = result.image.shape[:2]
    side = 248 if len(panels) > 2 else 420
    scale = side / max(height, width, 1)
    shown = max(1, round(height * scale)), max(1, round(width * scale))
    gap = 26
    entries = _label_entries(result) if "label" in panels else []
    below = max(44.0, 17.0 * len(entries) + 4)
    step = _steps_text(result)
    bad = int(result.probability.size - np.isfinite(result.probability).sum())
    asked = result.importance if result.regions is None else result.importance[result.regions >= 0]
    bad_pixels = int(asked.size - np.isfinite(asked).sum())
    sheet = Sheet(
        len(panels) * shown[1] + (len(panels) - 1) * gap,
        20 + shown[0] + 9 + below,
        title=f"Occlusion: {result.target}",
        subtitle=[result.name, f"clean {result.scale} {numeral(result.clean)}", *step],
        provenance=result.provenance,
        notes=[
            "Each region is hidden in turn. Dark: hiding it costs the target its score."
            if result.regions is not None
            else "A patch slides over the image; each position is drawn where the patch's middle was. Dark: hiding "
            "this place costs the target its score.",
            f"{plural(bad, 'position')} of {result.probability.size:,} not finite, drawn in magenta." if bad else "",
            f"{plural(bad_pixels, 'pixel')} without a finite importance, drawn in magenta." if bad_pixels else "",
        ],
    )
    for index, panel in enumerate(panels):
        left = float(index * (shown[1] + gap))
        sheet.text(left, 0, _heading(result, panel), size=CAPTION, bold=True, width=shown[1])
        pixels = _panel(result, panel, shown[0] * FINE, shown[1] * FINE, limits)
        sheet.picture(pixels, left, 20, shown[1], shown[0])
        under = 20 + shown[0] + 9.0
        if panel == "image":
            worst = _worst_box(result)
            if worst is not None:
                _outline(sheet, worst, left, scale)
                said = f"outlined: the {'patch' if result.regions is None else 'region'} where it hurts most"
                sheet.text(left, under, said, size=7.2, color=colors.QUIET, width=shown[1])
        elif (
            panel != "label"
            and not np.isfinite(result.importance if panel == "importance" else result.probability).any()
        ):
            sheet.text(left, under, "no finite number", size=7.2, color=colors.QUIET, width=shown[1])
        elif panel == "probability":
            low, high = limits or colors.finite_range(result.probability)
            sheet.color_bar(left, under, shown[1], colors_name="fire", low=low, high=high, label=result.scale)
        elif panel == "importance":
            low, high = colors.symmetric_range(result.importance)
            sheet.color_bar(
                left,
                under,
                shown[1],
                colors_name="balance",
                low=low,
                high=high,
                label=f"drop in {result.scale} per pixel",
            )
        else:
            legend(sheet, left, under - 3, shown[1], entries)
    return sheet.figure


def _heading(result: Occlusion, panel: Panel) -> str:
    return {
        "image": "what the network saw",
        "probability": f"{result.scale} with {'the patch here' if result.regions is None else 'this hidden'}",
        "importance": "importance of each pixel",
        "label": "most likely label",
    }[panel]


def _steps_text(result: Occlusion) -> list[str]:
    rows, columns = result.probability.shape
    boxes = result.boxes.reshape(-1, 4)
    if not len(boxes):
        return ["no positions"]
    if result.regions is not None:
        pieces = [plural(len(boxes), "region")]
    else:
        patch = int((boxes[:, 2] - boxes[:, 0]).max()), int((boxes[:, 3] - boxes[:, 1]).max())
        pieces = [f"patch {patch[1]}×{patch[0]} px", f"{columns}×{rows} positions"]
    hidden = result.provenance.parameters.get("channels")
    if hidden is not None:
        pieces.append("hides " + " and ".join(("red", "green", "blue")[channel] for channel in hidden))
    stride = result.provenance.parameters.get("stride")
    if stride is not None:
        shown = "×".join(str(step) for step in reversed(stride)) if isinstance(stride, list | tuple) else str(stride)
        pieces.append(f"stride {shown}")
    baseline = result.provenance.parameters.get("baseline")
    return [*pieces, f"baseline {baseline}"] if baseline is not None else pieces


def _panel(result: Occlusion, panel: Panel, height: int, width: int, limits: tuple[float, float] | None) -> Pixels:
    """One panel as (height, width, 3) RGB over the whole photo."""
    photo = resize(result.image, height, width)
    if panel == "image":
        return photo
    if panel == "importance":
        return _cover(_overlay(photo, result.importance), result.regions, _faint(photo))
    if panel == "probability":
        painted = colors.colorize(result.probability, "fire", *(limits or colors.finite_range(result.probability)))
    else:
        assert result.label is not None
        painted = _paint_labels(result.label, _label_colors(result))
    if result.regions is not None:
        numbers = _drawn(result.regions, height, width)
        return _cover(painted[np.maximum(numbers, 0), 0], result.regions, _faint(photo))
    return _place(painted, result.boxes, _faint(photo), result.image.shape[0], result.image.shape[1])


def _faint(photo: Pixels) -> Pixels:
    """The photo as a pale grey ground, so that its frame shows where no position was."""
    grey = photo.astype(np.float64) @ np.array([0.299, 0.587, 0.114])
    return np.repeat(np.rint(200 + grey[..., None] * 0.2).astype(np.uint8), 3, axis=2)


def _cover(painted: Pixels, regions: NDArray[np.int64] | None, ground: Pixels) -> Pixels:
    """What was painted, and the ground where no region lies."""
    if regions is None:
        return painted
    return np.where(_drawn(regions, *ground.shape[:2])[..., np.newaxis] >= 0, painted, ground)


def _drawn(regions: NDArray[np.int64], height: int, width: int) -> NDArray[np.int64]:
    """(height, width) number of the region at each drawn pixel."""
    down = np.arange(height) * regions.shape[0] // height
    across = np.arange(width) * regions.shape[1] // width
    return np.asarray(regions[np.ix_(down, across)])


def _place(painted: Pixels, boxes: NDArray[np.int64], ground: Pixels, rows: int, columns: int) -> Pixels:
    """Positions (rows, columns, 3) as cells around the middles of their patches, on a ground that spans the image."""
    if 0 in painted.shape[:2]:
        return ground
    down = _cells(boxes[:, 0, 0], boxes[:, 0, 2], ground.shape[0], rows)
    across = _cells(boxes[0, :, 1], boxes[0, :, 3], ground.shape[1], columns)
    canvas = ground.copy()
    inside_down, inside_across = np.flatnonzero(down >= 0), np.flatnonzero(across >= 0)
    canvas[np.ix_(inside_down, inside_across)] = painted[np.ix_(down[inside_down], across[inside_across])]
    return canvas


def _cells(first: NDArray[np.int64], last: NDArray[np.int64], pixels: int, extent: int) -> NDArray[np.intp]:
    """(pixels,) which position owns each drawn pixel: cells meet half-way between the patches' middles; -1 outside.

    A single position owns its whole patch.
    """
    middles = (first + last) / 2
    centers = (np.arange(pixels) + 0.5) * extent / pixels
    if len(middles) == 1:
        edges = np.array([first[0], last[0]], dtype=np.float64)
    else:
        between = (middles[:-1] + middles[1:]) / 2
        # The last patches may be clipped at the border, so that their middles lie closer: the first step is the stride.
        reach = (middles[1] - middles[0]) / 2
        edges = np.concatenate([[middles[0] - reach], between, [middles[-1] + reach]])
    owner = np.searchsorted(edges, centers, side="right") - 1
    return np.asarray(np.where((owner >= 0) & (owner < len(middles)), owner, -1))


def _overlay(photo: Pixels, importance: NDArray[np.floating]) -> Pixels:
    """Importance over the greyed photo: red where a pixel speaks for the target, blue against, clear where it is 0."""
    low, high = colors.symmetric_range(importance)
    rows = np.arange(photo.shape[0]) * importance.shape[0] // photo.shape[0]
    columns = np.arange(photo.shape[1]) * importance.shape[1] // photo.shape[1]
    values = np.asarray(importance, dtype=np.float64)[rows][:, columns]
    finite = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        strength = np.where(finite, np.abs(values) / high if high > 0 else 0.0, 1.0)
    opacity = np.sqrt(strength)[..., None] * 0.85
    opacity[~finite] = 1.0
    grey = photo.astype(np.float64) @ np.array([0.299, 0.587, 0.114])
    ground = np.repeat(60 + grey[..., None] * 0.76, 3, axis=2)
    paint = colors.colorize(values, "balance", low, high).astype(np.float64)
    return np.asarray(np.rint(ground * (1 - opacity) + paint * opacity), dtype=np.uint8)


def _ranked_labels(result: Occlusion) -> list[tuple[int, int]]:
    """(class, positions) by number of positions, the clean class first."""
    assert result.label is not None
    classes, counts = np.unique(result.label, return_counts=True)
    pairs = sorted(zip(classes.tolist(), counts.tolist(), strict=True), key=lambda pair: (-pair[1], pair[0]))
    return sorted(pairs, key=lambda pair: pair[0] != result.clean_label)


def _label_colors(result: Occlusion) -> dict[int, str]:
    return {label: colors.CATEGORIES[rank] for rank, (label, _) in enumerate(_ranked_labels(result)[:LABELS_NAMED])}


def _paint_labels(label: NDArray[np.int64], paints: dict[int, str]) -> Pixels:
    painted = np.full((*label.shape, 3), colors.rgb(OTHER), dtype=np.uint8)
    for number, paint in paints.items():
        painted[label == number] = colors.rgb(paint)
    return painted


def _label_entries(result: Occlusion) -> list[tuple[str, str, str]]:
    """The legend: colour, marker and name with the share of positions."""
    assert result.label is not None
    ranked = _ranked_labels(result)
    total = max(result.label.size, 1)
    entries = []
    for label, count in ranked[:LABELS_NAMED]:
        if label < 0:
            name = "no class: not a number"
        elif result.labels is not None and label < len(result.labels):
            name = result.labels[label]
        else:
            name = f"class {label}"
        entries.append((_label_colors(result)[label], "s", f"{_share(count, total)}  {name}"))
    rest = ranked[LABELS_NAMED:]
    if rest:
        count = sum(positions for _, positions in rest)
        entries.append((OTHER, "s", f"{_share(count, total)}  {plural(len(rest), 'other label')}"))
    return entries


def _share(count: int, total: int) -> str:
    percent = 100 * count / total
    return "<1 %" if percent < 1 else f"{percent:.0f} %"


def _worst_box(result: Occlusion) -> tuple[float, float, float, float] | None:
    """Box of the first position with the lowest score; None where no score is finite."""
    finite = np.isfinite(result.probability)
    if not finite.any():
        return None
    worst = np.unravel_index(np.argmin(np.where(finite, result.probability, np.inf)), result.probability.shape)
    top, left, bottom, right = (float(edge) for edge in result.boxes[worst])
    height, width = result.image.shape[:2]
    return max(top, 0.0), max(left, 0.0), min(bottom, float(height)), min(right, float(width))


def _outline(sheet: Sheet, box: tuple[float, float, float, float], left: float, scale: float) -> None:
    y0, x0, y1, x1 = (edge * scale for edge in box)
    x, y = [left + x0, left + x1, left + x1, left + x0, left + x0], [20 + y0, 20 + y0, 20 + y1, 20 + y1, 20 + y0]
    sheet.line(x, y, color="#000000", width=2.6)
    sheet.line(x, y, color="#ffffff", width=1.1)


def _draw_one(ax: Axes, result: Occlusion, panel: Panel, limits: tuple[float, float] | None) -> Figure:
    height, width = result.image.shape[:2]
    enlarged = max(1, round(800 / max(height, width, 1)))
    ax.set_axis_off()
    ax.imshow(
        _panel(result, panel, height * enlarged, width * enlarged, limits),
        extent=(0, width, height, 0),
        interpolation="nearest",
        origin="upper",
        aspect="equal",
    )
    write(ax, 0, 1.02, elide(f"{result.target}: {_heading(result, panel)}", 360, 7.5), vertical="bottom", inside=False)
    described = {
        "image": result.name,
        "probability": "black {} … white {}".format(*map(numeral, limits or colors.finite_range(result.probability))),
        "importance": "blue {} … red {}".format(*map(numeral, colors.symmetric_range(result.importance))),
    }
    if panel in described:
        write(ax, 0, -0.02, elide(described[panel], 360, 6.5), size=6.5, vertical="top", inside=False)
    else:
        inset = ax.inset_axes((1.02, 0, 0.5, 1))
        inset.set_axis_off()
        inset.set_xlim(0, 1)
        inset.set_ylim(1, 0)
        for row, (paint, marker, name) in enumerate(_label_entries(result)):
            at = 0.04 + row * 0.075
            inset.plot([0.04], [at], marker=marker, color=paint, markersize=5.5, linestyle="None", markeredgewidth=0)
            write(inset, 0.1, at, elide(name, 150, 6.5), size=6.5)
    return figure_of(ax, result.provenance, "")

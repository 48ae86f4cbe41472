"""Predictions in, one page out: photos with their most likely classes, confidence, and what is taken for what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from onnxviz.errors import InputError
from onnxviz.pictures import colors
from onnxviz.pictures.dispatch import plot
from onnxviz.pictures.sheet import CAPTION, FINE, Sheet, figure_of, nice_ticks, style_chart, write
from onnxviz.pictures.text import elide, numeral, plural
from onnxviz.pictures.tiles import fit
from onnxviz.results import Predictions

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Panel = Literal["confidence", "confusion"]
MOST_IN_MATRIX = 30
CONFUSIONS = 14
PHOTO, CARD, CARD_HEIGHT = 128, 325.0, 168.0


@plot.register(Predictions)
def _plot_predictions(
    result: Predictions,
    ax: Axes | None = None,
    *,
    panel: Panel | None = None,
    max_images: int = 12,
) -> Figure:
    """Draw photos with their top classes, the confidence histogram and, where classes are known, the confusions.

    Up to 30 classes give a matrix, more the list of the most frequent confusions. ``ax`` takes one ``panel``:
    "confidence" or "confusion".
    """
    if panel not in {None, "confidence", "confusion"}:
        raise InputError(
            "no such panel",
            where="panel",
            got=repr(panel),
            allowed="'confidence', 'confusion', None",
            next_step="Choose one of these",
        )
    if panel == "confusion" and result.confusion is None:
        raise InputError(
            "there is no confusion table, because the true classes are not known",
            where="panel",
            got="'confusion'",
            allowed="'confidence'",
            next_step="Put the images into one folder per class",
        )
    if ax is not None:
        if panel is None:
            raise InputError(
                "a picture of predictions has several panels and one axes holds one of them",
                where="panel",
                allowed="'confidence', 'confusion'",
                next_step="Name the panel, or call plot(result) without ax",
            )
        _draw_panel(ax, result, panel, 300)
        return figure_of(ax, result.provenance, "")
    return _draw_sheet(result, panel, max_images)


def _draw_sheet(result: Predictions, panel: Panel | None, max_images: int) -> Figure:
    shown = min(len(result.images), len(result.top), max(max_images, 0)) if panel is None else 0
    rows = -(-shown // 3)
    charts: list[Panel] = [panel] if panel else ["confidence"]
    if panel is None and result.confusion is not None:
        charts.append("confusion")
    matrix = "confusion" in charts and not _too_many(result)
    chart_height = 450.0 if matrix else 400.0 if "confusion" in charts else 300.0
    bad = int(result.top_scores.size - np.isfinite(result.top_scores).sum())
    accuracy = [
        f"{name} {100 * figure:.1f} %"
        for name, figure in (("top-1", result.accuracy), ("top-5", result.accuracy_top5))
        if figure is not None
    ]
    sheet = Sheet(
        3 * CARD + 2 * 16,
        rows * CARD_HEIGHT + (18 if rows else 0) + chart_height,
        title="Predictions",
        subtitle=[plural(len(result.top), "image"), *accuracy, f"{shown} drawn" if 0 < shown < len(result.top) else ""],
        provenance=result.provenance,
        notes=[f"{plural(bad, 'score')} not finite, drawn in magenta." if bad else ""],
    )
    for index in range(shown):
        _card(sheet, result, index, index % 3 * (CARD + 16), index // 3 * CARD_HEIGHT)
    top = rows * CARD_HEIGHT + (18 if rows else 0)
    single = result.class_names is not None and len(result.class_names) == 1
    headings = {
        "confidence": "the score" if single else "confidence in the most likely class",
        "confusion": "true class against answer",
    }
    wide = 3 * CARD + 32
    margin = 130.0 if matrix else 40.0
    if charts == ["confidence"]:
        places = [(40.0, min(wide - 40, 560.0))]
    elif charts == ["confusion"]:
        places = [(margin, wide - margin)]
    else:
        places = [(40.0, 330.0), (400 + margin, wide - 400 - margin)]
    for chart, (left, width) in zip(charts, places, strict=True):
        title_left = left - 40 if chart == "confidence" or not matrix else left - 120
        crowded = chart == "confusion" and _too_many(result)
        sheet.text(title_left, top, "most frequent confusions" if crowded else headings[chart], size=CAPTION, bold=True)
        tall = min(chart_height - 60, 320.0) if chart == "confidence" else chart_height - (100 if matrix else 60)
        ax = sheet.axes(left, top + 22, width, tall)
        _draw_panel(ax, result, chart, 115)
    return sheet.figure


def _draw_panel(ax: Axes, result: Predictions, panel: Panel, label_width: float) -> None:
    if panel == "confidence":
        _draw_histogram(ax, result)
    elif _too_many(result):
        _draw_confusions(ax, result, label_width)
    else:
        _draw_matrix(ax, result, label_width)


def _too_many(result: Predictions) -> bool:
    return result.confusion is not None and max(result.confusion.shape) > MOST_IN_MATRIX


def _name(result: Predictions, number: int) -> str:
    names = result.class_names
    return names[number] if names is not None and 0 <= number < len(names) else f"class {number}"


def _card(sheet: Sheet, result: Predictions, index: int, left: float, top: float) -> None:
    """One photo and its most likely classes as bars."""
    sheet.picture(fit(result.images[index], PHOTO * FINE, PHOTO * FINE), left, top, PHOTO, PHOTO)
    sheet.text(
        left,
        top + PHOTO + 4,
        result.names[index] if index < len(result.names) else "",
        size=6.8,
        color=colors.QUIET,
        width=PHOTO,
    )
    true = int(result.classes[index]) if result.classes is not None and index < len(result.classes) else -1
    room = CARD - PHOTO - 14
    scores = np.asarray(result.top_scores[index], dtype=np.float64)
    largest = max(1.0, float(np.abs(scores[np.isfinite(scores)]).max(initial=0.0)))
    x = left + PHOTO + 12
    step = PHOTO / max(min(len(scores), 5), 1)
    for rank in range(min(len(scores), 5)):
        number = int(result.top[index, rank])
        y = top + rank * step
        hit = number == true
        paint = colors.RIGHT if hit else colors.BAR if rank == 0 else colors.BAND
        finite = bool(np.isfinite(scores[rank]))
        # Without a number there is no order among the classes.
        name = _name(result, number) if finite else "no class"
        sheet.text(x, y, ("✓ " if hit and finite else "") + elide(name, room - 52, 7.2), size=7.2, bold=False)
        sheet.text(x + room, y, _score_text(float(scores[rank])), size=7.2, color=colors.QUIET, align="right")
        bar = sheet.axes(x, y + 13.5, room, 6)
        bar.set_xlim(0, 1)
        bar.set_ylim(0, 1)
        bar.axvspan(0, 1, color=colors.PALE, linewidth=0)
        length = abs(float(scores[rank])) / largest if finite else 1.0
        bar.axvspan(0, length, color=paint if finite else colors.NOT_FINITE, linewidth=0)
    if true >= 0 and true not in result.top[index, :5].tolist():
        sheet.text(x, top + PHOTO + 4, f"✗ is {_name(result, true)}", size=6.8, color=colors.WRONG, width=room)


def _score_text(score: float) -> str:
    """A probability never rounded to a certainty it is not: 0.99997 is shown as >0.999."""
    if 0 < score < 0.0005:
        return "<0.001"
    if 0.9995 <= score < 1:
        return ">0.999"
    return f"{score:.3f}" if 0 <= score <= 1 else numeral(score)


def _draw_histogram(ax: Axes, result: Predictions) -> None:
    counts = np.asarray(result.histogram)
    highest = int(counts.max(initial=0))
    ax.set_xlim(0, 1)
    ax.set_ylim(0, max(highest, 1) * 1.06)
    ticks = {place: text for place, text in nice_ticks(0, max(highest, 1), 5).items() if place == int(place)}
    style_chart(
        ax,
        x_ticks={place: numeral(place) for place in (0.0, 0.25, 0.5, 0.75, 1.0)},
        y_ticks=ticks,
        x_label="confidence",
        y_label="images",
        grid="y",
    )
    edges = np.linspace(0, 1, len(counts) + 1)
    ax.bar(edges[:-1], counts, width=0.9 / max(len(counts), 1), align="edge", color=colors.BAR, linewidth=0)
    if not highest:
        write(ax, 0.5, 0.5, "no images", color=colors.QUIET, align="center", inside=False)


def _draw_matrix(ax: Axes, result: Predictions, label_width: float) -> None:
    assert result.confusion is not None
    counts = np.asarray(result.confusion)
    rows, columns = counts.shape
    highest = int(counts.max(initial=0))
    # Pale for few, dark for many, by the square root: single mistakes must not vanish beside a full diagonal.
    shade = colors.colorize(-np.sqrt(counts), "fire", -np.sqrt(max(highest, 1)) * 1.25, 0.0)
    ax.set_axis_on()
    ax.imshow(shade, interpolation="nearest", origin="upper", aspect="auto", extent=(0, columns, rows, 0))
    small = 6.6 if max(rows, columns) <= 12 else 5.2
    style_chart(
        ax,
        x_ticks={column + 0.5: elide(_name(result, column), label_width * 0.6, 7.2) for column in range(columns)},
        y_ticks={row + 0.5: elide(_name(result, row), label_width, 7.2) for row in range(rows)},
        x_label="answer",
    )
    for text in ax.get_xticklabels():
        text.set(rotation=40, ha="right", rotation_mode="anchor")
    for row in range(rows):
        for column in range(columns):
            count = int(counts[row, column])
            if count and max(rows, columns) <= 20:
                ink = colors.PAPER if count > 0.3 * highest else colors.INK
                write(ax, column + 0.5, row + 0.5, f"{count:,}", size=small, color=ink, align="center")


def _draw_confusions(ax: Axes, result: Predictions, label_width: float) -> None:
    """Horizontal bars: true class → answer, the most frequent first."""
    assert result.confusion is not None
    counts = np.array(result.confusion)
    diagonal = np.arange(min(counts.shape))
    counts[diagonal, diagonal] = 0
    order = np.argsort(-counts.ravel(), kind="stable")[:CONFUSIONS]
    pairs = [
        (int(place // counts.shape[1]), int(place % counts.shape[1])) for place in order if counts.ravel()[place] > 0
    ]
    most = max((int(counts[pair]) for pair in pairs), default=1)
    ax.set_xlim(0, most * 1.05)
    ax.set_ylim(max(len(pairs), 8), 0)
    style_chart(
        ax,
        x_ticks={place: text for place, text in nice_ticks(0, most, 4).items() if place == int(place)},
        x_label="images",
        grid="x",
    )
    if not pairs:
        write(ax, 0.5, 0.5, "no confusions", color=colors.QUIET, align="center", inside=False)
    for row, pair in enumerate(pairs):
        ax.barh([row + 0.5], [int(counts[pair])], height=0.3, color=colors.WRONG, linewidth=0, align="edge")
        arrow = (
            f"{elide(_name(result, pair[0]), label_width * 2, 7)} → {elide(_name(result, pair[1]), label_width * 2, 7)}"
        )
        write(ax, 0, row + 0.48, arrow, size=7, vertical="bottom")

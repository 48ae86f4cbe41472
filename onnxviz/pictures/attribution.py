"""An attribution in, its panels out: photo, map, and the map over the photo; many of one photo, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from onnxviz.errors import InputError
from onnxviz.pictures import colors
from onnxviz.pictures.dispatch import plot
from onnxviz.pictures.maps import (
    MapScale,
    ends_text,
    overlay_of,
    paint_of,
    photo_of,
    scale_bar,
    scale_of,
    scale_text,
    tile_side,
)
from onnxviz.pictures.sheet import CAPTION, Sheet, figure_of, refuse_ax, write
from onnxviz.pictures.text import elide, numeral
from onnxviz.pictures.tiles import Pixels, resize
from onnxviz.results import ActivationMap, Attribution, IntegratedGradients, SmoothGrad

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_panels"]

Panel = Literal["image", "map", "overlay", "colours", "coarse"]
Explanation = Attribution | ActivationMap

HEADINGS: dict[Panel, str] = {
    "image": "what the network saw",
    "map": "the map",
    "overlay": "over the photo",
    "colours": "by colour, grey is 0",
    "coarse": "as the network has it",
}
GAP = 26
IN_A_ROW = 5
_SHEET_SIDE, _SHEET_GAP = 200, 14


@plot.register(Attribution)
def _plot_attribution(result: Attribution, ax: Axes | None = None, *, panel: Panel | None = None) -> Figure:
    """Draw an attribution.

    ``ax`` takes one ``panel``: "image", "map", "overlay" or "colours", what came back by colour, as the papers on
    guided backpropagation draw it.
    """
    # In colour what came back through ReLUs shows parts of things; a gradient shows noise.
    papers = ("guided backpropagation", "deconvnet", "guided Grad-CAM")
    panels: tuple[Panel, ...] = ("image", "map", "overlay")
    if result.channel_order != "GRAY" and result.values.shape[0] == 3:
        panels = (*panels, "colours")
    wanted = panels if result.method in papers else panels[:3]
    return draw_panels(result, ax, panel, allowed=panels, wanted=wanted, value="")


def draw_panels(
    result: Explanation, ax: Axes | None, panel: Panel | None, *, allowed: Sequence[Panel], wanted: Sequence[Panel],
    value: str,
) -> Figure:  # fmt: skip
    """Draw panels of an explanation side by side, or one of them into given axes."""
    if panel is not None and panel not in allowed:
        raise InputError(
            "no such panel", where="panel", got=repr(panel), allowed=", ".join(map(repr, allowed)),
            next_step="Choose one of these",
        )  # fmt: skip
    if ax is not None:
        if panel is None:
            refuse_ax(ax, "an explanation", instead="Name the panel, or call plot(result) without ax")
        return _draw_one(ax, result, panel or "map", value)
    return _draw_sheet(result, (panel,) if panel else tuple(wanted), value)


def _draw_sheet(result: Explanation, panels: Sequence[Panel], value: str) -> Figure:
    height, width, _ = tile_side(*result.image.shape[:2])
    scale, (target, how) = _scale(result), _said(result)
    bad = int(result.map.size - np.isfinite(result.map).sum())
    sheet = Sheet(
        len(panels) * width + (len(panels) - 1) * GAP,
        20 + height + 9 + 44,
        title=f"{_capital(result.method)}: {target}",
        subtitle=[result.name, how, *_numbers(result)],
        provenance=result.provenance,
        value=value,
        notes=[
            f"{_reading(result)} {scale_text(scale)}",
            f"{bad:,} pixels not finite, drawn in magenta." if bad else "",
            "" if np.isfinite(result.score) else "What is explained is no finite number itself, so no map is right.",
            *result.notes,
        ],
    )
    for index, panel in enumerate(panels):
        left = float(index * (width + GAP))
        sheet.text(left, 0, HEADINGS[panel], size=CAPTION, bold=True, width=width)
        sheet.picture(_panel(result, panel, scale, height, width), left, 20, width, height)
        under = 20 + height + 9.0
        if panel == "map":
            scale_bar(sheet, left, under, width, scale, _unit(result))
        elif panel == "coarse" and isinstance(result, ActivationMap):
            scale_bar(sheet, left, under, width, _coarse_scale(result), "before negative numbers are dropped")
    return sheet.figure


def _panel(result: Explanation, panel: Panel, scale: MapScale, height: int, width: int) -> Pixels:
    """One panel as RGB, ``FINE`` pixels a unit."""
    photo = photo_of(result.image, height, width)
    if panel == "image":
        return photo
    if panel == "map":
        return paint_of(result.map, scale, *photo.shape[:2])
    if panel == "overlay":
        return overlay_of(photo, result.map, scale)
    if panel == "coarse":
        assert isinstance(result, ActivationMap)
        return paint_of(result.coarse, _coarse_scale(result), *photo.shape[:2])
    assert isinstance(result, Attribution)
    order = -1 if result.channel_order == "BGR" else 1
    ends = scale_of(result.values, signed=True)
    drawn = colors.to_bytes(np.moveaxis(result.values[::order], 0, -1), ends.low, ends.high)
    return resize(np.ascontiguousarray(drawn), *photo.shape[:2])


def _draw_one(ax: Axes, result: Explanation, panel: Panel, value: str) -> Figure:
    rows, columns = result.image.shape[:2]
    height, width, _ = tile_side(rows, columns)
    scale = _scale(result)
    ax.set_axis_off()
    ax.imshow(
        _panel(result, panel, scale, height, width), extent=(0, columns, rows, 0), interpolation="nearest",
        origin="upper", aspect="equal",
    )  # fmt: skip
    heading = f"{_capital(result.method)}, {HEADINGS[panel]}: {_said(result)[0]}"
    write(ax, 0, 1.02, elide(heading, 360, 7.5), vertical="bottom", inside=False)
    if panel in ("map", "overlay"):
        write(ax, 0, -0.02, elide(scale_text(scale), 360, 6.5), size=6.5, vertical="top", inside=False)
    return figure_of(ax, result.provenance, value)


def _scale(result: Explanation) -> MapScale:
    if isinstance(result, ActivationMap):
        # A map of few cells has no outliers that the scale should be kept from.
        return scale_of(result.map, signed=False, percentile=100)
    return scale_of(result.map, signed=result.reduction == "sum")


def _coarse_scale(result: ActivationMap) -> MapScale:
    return scale_of(result.coarse, signed=bool((result.coarse < 0).any()), percentile=100)


_CHOSEN = "most likely class of the clean image"


def _said(result: Explanation) -> tuple[str, str]:
    """The target, and how it was chosen."""
    target = result.target.removeprefix(f"{_CHOSEN}: ")
    return target, "" if target == result.target else _CHOSEN


def _numbers(result: Explanation) -> list[str]:
    """Score, probability, and what only some methods have."""
    pieces = [f"{result.scale} {numeral(result.score)}"]
    if result.probability is not None and result.scale != "probability":
        pieces.append(f"probability {numeral(result.probability)}")
    if isinstance(result, SmoothGrad):
        pieces.append(f"{result.samples} noisy copies, standard deviation {numeral(result.sigma)}")
    if isinstance(result, IntegratedGradients):
        pieces.append(f"{result.steps} steps from {_start(result)} ({result.scale} {numeral(result.baseline_score)})")
        whole = result.score - result.baseline_score
        pieces.append(f"the parts add up to {numeral(whole + result.completeness_error)} of {numeral(whole)}")
    return pieces


def _start(result: IntegratedGradients) -> str:
    return {
        "mean": "the image's mean colour", "dataset": "the dataset's mean colour", "grey": "grey",
        "zero": "the number 0", "blur": "the blurred image",
    }.get(result.baseline, result.baseline)  # fmt: skip


_READING: dict[str, str] = {
    "saliency": "Bright: changing this pixel a little changes the target most, upwards or downwards.",
    "gradient × input": "Red speaks for the target and blue against it, were the network linear.",
    "SmoothGrad": "Bright: changing this pixel a little changes the target most, on average over noisy copies.",
    "integrated gradients": "Red: on the way from the baseline this pixel raised the target; blue: it lowered it.",
    "guided backpropagation": "Bright: what comes back here when every ReLU stops what is negative.",
    "deconvnet": "Bright: what comes back here when only what is positive is handed down.",
    "Grad-CAM": "Bright: here lie the channels that speak for the target.",
    "Grad-CAM++": "Bright: here lie channels that speak for the target, small places no less than large ones.",
    "guided Grad-CAM": "Bright: guided backpropagation, kept where Grad-CAM points.",
}


def _reading(result: Explanation) -> str:
    return _READING.get(result.method, "")


def _unit(result: Explanation) -> str:
    if isinstance(result, ActivationMap):
        return "weighted activation"
    if result.reduction == "sum":
        return f"share of the {result.scale}, sum of the colours"
    return "largest magnitude of the colours"


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]


# -- Several ----------------------------------------------------------------------------------------------------------


def _plot_several(results: Sequence[Any], ax: Axes | None = None, *, overlay: bool | None = None) -> Figure:
    """Draw explanations side by side, the photo first; those of several photos one photo below the other.

    ``overlay`` draws every map over the photo, or none; left out, only those that are as coarse as a map of the
    network.
    """
    refuse_ax(ax, "several explanations")
    other = next((result for result in results if not isinstance(result, Attribution | ActivationMap)), None)
    if not results or other is not None:
        raise InputError(
            "there is no picture for this", where="plot", got=type(other).__name__ if results else "an empty list",
            allowed="a list of attributions and activation maps", next_step="Pass one result, or such a list",
        )  # fmt: skip
    explained: list[Explanation] = list(results)
    photos: dict[tuple[str, bytes, str], list[Explanation]] = {}
    for result in explained:
        photos.setdefault((result.name, result.image.tobytes(), result.target), []).append(result)
    columns = min(IN_A_ROW, 1 + max(map(len, photos.values())))
    blocks = [_Block(found, columns, named=len(photos) > 1) for found in photos.values()]
    first = explained[0]
    target, how = _said(first)
    sheet = Sheet(
        columns * _SHEET_SIDE + (columns - 1) * _SHEET_GAP,
        sum(block.height for block in blocks),
        title=f"{_capital(_names(explained))}: {target if len(photos) == 1 else f'{len(photos)} photos'}",
        subtitle=[first.name, how, *_numbers_of_all(first)] if len(photos) == 1 else [],
        provenance=first.provenance,
        notes=[
            "Each map has a colour scale of its own, whose ends stand below it and hold 99 % of its pixels. Black to "
            "white: strength without a sign; blue to red: against and for the target. " + _OVERLAYS[overlay],
            "" if all(np.isfinite(result.map).all() for result in explained) else "Magenta: not a finite number.",
        ],
    )
    top = 0.0
    for block in blocks:
        block.draw(sheet, top, overlay)
        top += block.height
    return sheet.figure


_OVERLAYS = {
    None: "Maps that are as coarse as the network's own lie over the photo.",
    True: "All maps lie over the photo.",
    False: "",
}


def _names(results: Sequence[Explanation]) -> str:
    methods = list(dict.fromkeys(result.method for result in results))
    return methods[0] if len(methods) == 1 else f"{len(methods)} explanations"


def _numbers_of_all(first: Explanation) -> list[str]:
    pieces = [f"{first.scale} {numeral(first.score)}"]
    if first.probability is not None and first.scale != "probability":
        pieces.append(f"probability {numeral(first.probability)}")
    return pieces


class _Block:
    """A photo and its maps, in rows of equal tiles."""

    def __init__(self, results: Sequence[Explanation], columns: int, *, named: bool) -> None:
        rows, width = results[0].image.shape[:2]
        factor = _SHEET_SIDE / max(rows, width, 1)
        self._results, self._columns, self._named = results, columns, named
        self._shown = max(1, round(rows * factor)), max(1, round(width * factor))
        self._pitch = 18 + self._shown[0] + 34
        self.height = self._pitch * -(-(len(results) + 1) // columns)

    def draw(self, sheet: Sheet, top: float, overlay: bool | None) -> None:
        """Draw the block, its upper edge at ``top``."""
        first = self._results[0]
        photo = photo_of(first.image, *self._shown)
        said = [first.name, *_said(first)] if self._named else [first.name]
        self._tile(sheet, top, 0, "what the network saw", photo, "  ".join(filter(None, said)))
        for number, result in enumerate(self._results, 1):
            scale = _scale(result)
            over = isinstance(result, ActivationMap) if overlay is None else overlay
            painted = overlay_of(photo, result.map, scale) if over else paint_of(result.map, scale, *photo.shape[:2])
            self._tile(sheet, top, number, _capital(result.method), painted, ends_text(scale))

    def _tile(self, sheet: Sheet, top: float, number: int, heading: str, pixels: Pixels, below: str) -> None:
        row, column = divmod(number, self._columns)
        left, upper = float(column * (_SHEET_SIDE + _SHEET_GAP)), top + row * self._pitch
        sheet.text(left, upper, heading, size=CAPTION, bold=True, width=_SHEET_SIDE)
        sheet.picture(pixels, left, upper + 18, self._shown[1], self._shown[0])
        sheet.text(left, upper + 22 + self._shown[0], below, size=7.0, color=colors.QUIET, width=_SHEET_SIDE)


plot.register(list)(_plot_several)
plot.register(tuple)(_plot_several)

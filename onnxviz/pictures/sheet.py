"""A page to draw on, laid out in units of 1/100 inch from its top left corner: title above, provenance below.

Every picture states at its foot the model, the value and the input contract, and says so when the contract was guessed.
Nothing here goes through pyplot, so drawing needs no display, leaves no global state behind and may run in threads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from onnxviz.errors import InputError
from onnxviz.pictures import colors
from onnxviz.pictures.text import POINTS_PER_UNIT, elide, font, numeral, readable, wrap
from onnxviz.pictures.tiles import fit, frame
from onnxviz.results import Provenance

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "FINE",
    "Sheet",
    "figure_of",
    "footnote",
    "guesses",
    "legend",
    "nice_ticks",
    "refuse_ax",
    "style_chart",
    "write",
]

FINE = 2
"""Pixels per unit that tiles are composed at: one to one when a figure is saved at 200 dpi."""

MARGIN = 30.0
TITLE, SUBTITLE, CAPTION, NOTE, FOOT = 13.0, 9.0, 8.5, 7.5, 6.8
LEADING = 1.42


def _line(size: float) -> float:
    return size / POINTS_PER_UNIT * LEADING


class Sheet:
    """A figure with a title, room for ``width`` × ``height`` units of content, notes and a foot.

    Content is placed relative to its own top left corner.
    """

    def __init__(
        self,
        width: float,
        height: float,
        *,
        title: str,
        subtitle: Sequence[str],
        provenance: Provenance,
        value: str = "",
        notes: Sequence[str] = (),
    ) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        content = float(np.ceil(max(width, 620)))
        sub = wrap([piece for piece in subtitle if piece], content, SUBTITLE, separator="  ·  ")
        note_lines = [line for note in notes if note for line in wrap(readable(note).split(" "), content, NOTE)]
        foot = wrap(footnote(provenance, value), content, FOOT, separator="  ·  ")
        warnings = guesses(provenance)
        top = MARGIN + _line(TITLE) + len(sub) * _line(SUBTITLE) + 14
        below = 14 + len(note_lines) * _line(NOTE) + 12 + len(foot) * _line(FOOT) + bool(warnings) * _line(FOOT) + 18
        # Whole units keep tiles on the pixel grid.
        self.page_width = content + 2 * MARGIN
        self.page_height = float(np.ceil(top) + np.ceil(height) + np.ceil(below))
        self.left = MARGIN
        self.top = float(np.ceil(top))
        self.width = width
        self.figure = Figure(
            figsize=(self.page_width / 100, self.page_height / 100),
            dpi=100,
            facecolor=colors.PAPER,
            edgecolor=colors.PAPER,
            frameon=True,
            layout=None,
        )
        # A style sheet may ask for automatic layout; every place here is given.
        self.figure.set_layout_engine("none")
        FigureCanvasAgg(self.figure)
        x, y = MARGIN - self.left, MARGIN - self.top
        self.text(x, y, elide(title, content, TITLE, bold=True), size=TITLE, bold=True)
        y += _line(TITLE)
        for line in sub:
            self.text(x, y, line, size=SUBTITLE, color=colors.QUIET)
            y += _line(SUBTITLE)
        y = np.ceil(height) + 14
        for line in note_lines:
            self.text(x, y, line, size=NOTE, color=colors.QUIET)
            y += _line(NOTE)
        y += 4
        self.line([x, x + content], [y, y], color=colors.RULE, width=0.6)
        y += 8
        if warnings:
            self.text(x, y, " · ".join(warnings), size=FOOT, color=colors.WARNING, bold=True)
            y += _line(FOOT)
        for line in foot:
            self.text(x, y, line, size=FOOT, color=colors.QUIET)
            y += _line(FOOT)

    def _at(self, x: float, y: float) -> tuple[float, float]:
        return (self.left + x) / self.page_width, 1 - (self.top + y) / self.page_height

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: float = CAPTION,
        color: str = colors.INK,
        bold: bool = False,
        align: str = "left",
        vertical: str = "top",
        width: float | None = None,
    ) -> None:
        """One line of readable text at (x, y), shortened in its middle where ``width`` is given and exceeded."""
        at = self._at(x, y)
        shown = text if width is None else elide(text, width, size, bold=bold)
        self.figure.text(
            *at,
            shown,
            fontproperties=font(size, bold=bold),
            color=color,
            ha=align,
            va=vertical,
            parse_math=False,
            usetex=False,
        )

    def line(
        self, x: Sequence[float], y: Sequence[float], *, color: str, width: float = 0.8, behind: bool = False
    ) -> None:
        """A line through points, ``width`` in points."""
        from matplotlib.lines import Line2D

        points = [self._at(across, down) for across, down in zip(x, y, strict=True)]
        line = Line2D(
            [point[0] for point in points],
            [point[1] for point in points],
            transform=self.figure.transFigure,
            color=color,
            linewidth=width,
            linestyle="-",
            marker="None",
            solid_capstyle="butt",
            solid_joinstyle="miter",
            zorder=0.5 if behind else 3,
        )
        self.figure.add_artist(line)

    def axes(self, x: float, y: float, width: float, height: float) -> Axes:
        """Axes over a rectangle of the content, its corner (x, y) top left, without frame or ticks."""
        left, bottom = self._at(x, y + height)
        ax = self.figure.add_axes((left, bottom, width / self.page_width, height / self.page_height))
        ax.set_axis_off()
        return ax

    def picture(
        self, pixels: NDArray[np.uint8], x: float, y: float, width: float, height: float, *, smooth: bool = False
    ) -> None:
        """An RGB array filling a rectangle."""
        from matplotlib.image import BboxImage
        from matplotlib.transforms import Bbox, TransformedBbox

        left, bottom = self._at(x, y + height)
        place = Bbox.from_bounds(left, bottom, width / self.page_width, height / self.page_height)
        # An image in axes of its own gives the same pixels, but takes fifty times as long to set up.
        image = BboxImage(
            TransformedBbox(place, self.figure.transFigure),
            interpolation="antialiased" if smooth else "nearest",
            origin="upper",
            resample=True,
            zorder=0,
        )
        image.set_data(pixels)
        self.figure.add_artist(image)

    def photo(self, pixels: NDArray[np.uint8] | None, x: float, y: float, side: int, *, edge: str = "") -> None:
        """A photo fitted into a square, framed in the colour ``edge``; an empty tile where there is none."""
        tile = np.full((1, 1, 3), colors.rgb(colors.EMPTY), np.uint8) if pixels is None else pixels
        tile = fit(tile, side * FINE, side * FINE)
        self.picture(frame(tile, edge, 3 * FINE) if edge else tile, x, y, side, side)

    def color_bar(
        self,
        x: float,
        y: float,
        width: float,
        *,
        colors_name: str,
        low: float,
        high: float,
        label: str,
        ramp: NDArray[np.uint8] | None = None,
        beyond: bool = False,
    ) -> None:
        """A horizontal colour bar with its ends and middle named; where ``low`` equals ``high``, one flat colour.

        ``beyond`` marks ends that hold larger magnitudes as well.
        """
        if ramp is None:
            ramp = colors.colorize(np.linspace(low, high, 256)[None, :], colors_name, low, high)
        self.picture(ramp, x, y, width, 9)
        self.line([x, x + width, x + width, x, x], [y, y, y + 9, y + 9, y], color=colors.QUIET, width=0.4)
        ends = [(x, low, "left"), (x + width / 2, low / 2 + high / 2, "center"), (x + width, high, "right")]
        shown = ends if high > low else [(x + width / 2, low, "center")]
        for place, number, align in shown:
            mark = "" if not beyond or align == "center" or number == 0 else "≥ " if number > 0 else "≤ "
            self.text(place, y + 12, mark + numeral(number), size=7.2, color=colors.QUIET, align=align)
        self.text(x + width / 2, y + 25, label, size=7.2, color=colors.QUIET, align="center", width=width)


def footnote(provenance: Provenance, value: str) -> list[str]:
    """The pieces of a picture's foot: model, value, input contract in short, provider."""
    pieces = [provenance.model] if provenance.model else []
    if value:
        pieces.append(f"value {value}")
    contract = _contract(provenance.preprocess)
    if contract:
        pieces.append(f"input {contract}")
    output = provenance.output.get("output")
    if output:
        kind = provenance.output.get("kind")
        pieces.append(f"output {output} ({kind})" if kind else f"output {output}")
    if provenance.provider:
        pieces.append(provenance.provider.removesuffix("ExecutionProvider"))
    version = provenance.versions.get("onnxviz")
    pieces.append(f"onnxviz {version}" if version else "onnxviz")
    return pieces


def _contract(contract: Mapping[str, Any]) -> str:
    """``caffe, BGR 224×224, crop 0.875``."""
    pieces = [str(contract["name"])] if contract.get("name") else []
    size = contract.get("size")
    known_size = isinstance(size, Sequence) and not isinstance(size, str) and len(size) == 2
    extent = f"{size[1]}×{size[0]}" if known_size and size is not None else ""
    order = str(contract.get("channels") or "")
    if order or extent:
        pieces.append(f"{order} {extent}".strip())
    fit = contract.get("fit")
    if fit:
        fraction = contract.get("crop_fraction")
        pieces.append(f"crop {numeral(fraction)}" if fit == "crop" and fraction is not None else str(fit))
    return ", ".join(pieces)


def guesses(provenance: Provenance) -> list[str]:
    """The warnings that stand on every picture of a result whose contracts nobody gave."""
    said = ["preprocessing guessed"] if provenance.preprocess.get("guessed") is True else []
    return said + (["output contract guessed"] if provenance.output.get("guessed") is True else [])


def figure_of(ax: Axes, provenance: Provenance, value: str) -> Figure:
    """Write the foot under axes that the caller brought, and return their figure."""
    from matplotlib.figure import Figure

    pieces = guesses(provenance) + [elide(piece, 300, 5.5) for piece in footnote(provenance, value)]
    ax.annotate(
        "  ·  ".join(pieces),
        xy=(0, 0),
        xycoords="axes fraction",
        xytext=(0, -26),
        textcoords="offset points",
        fontproperties=font(5.5),
        color=colors.WARNING if guesses(provenance) else colors.QUIET,
        ha="left",
        va="top",
        parse_math=False,
        usetex=False,
        annotation_clip=False,
    )
    figure = ax.get_figure(root=True)
    assert isinstance(figure, Figure)
    return figure


def refuse_ax(ax: object, kind: str, *, instead: str = "") -> None:
    """Raise InputError where axes were given for a picture of several panels."""
    if ax is not None:
        raise InputError(
            f"a picture of {kind} has several panels and cannot be drawn into one axes",
            where="ax",
            allowed="ax=None",
            next_step=instead or "Call plot(result) without ax; it returns a figure of its own",
        )


def write(
    ax: Axes,
    x: float,
    y: float,
    text: str,
    *,
    size: float = NOTE,
    color: str = colors.INK,
    bold: bool = False,
    align: str = "left",
    vertical: str = "center",
    inside: bool = True,
    **keywords: Any,
) -> None:
    """Readable text in the axes' own coordinates (``inside``) or in fractions of the axes."""
    ax.text(
        x,
        y,
        text,
        transform=ax.transData if inside else ax.transAxes,
        fontproperties=font(size, bold=bold),
        color=color,
        ha=align,
        va=vertical,
        parse_math=False,
        usetex=False,
        **keywords,
    )


def style_chart(
    ax: Axes,
    *,
    x_ticks: Mapping[float, str] | None = None,
    y_ticks: Mapping[float, str] | None = None,
    x_label: str = "",
    y_label: str = "",
    grid: Literal["", "x", "y"] = "",
) -> None:
    """Frame, ticks and labels of a chart: only the left and bottom lines, small type, a faint grid behind."""
    ax.set_axis_on()
    ax.set_facecolor(colors.PAPER)
    ax.set_axisbelow(True)
    ax.grid(False)
    for side, spine in ax.spines.items():
        spine.set_visible(side in {"left", "bottom"})
        spine.set_color(colors.NEUTRAL)
        spine.set_linewidth(0.6)
    for axis, ticks, label in ((ax.xaxis, x_ticks or {}, x_label), (ax.yaxis, y_ticks or {}, y_label)):
        axis.set_ticks(list(ticks), labels=list(ticks.values()))
        axis.set_ticks([], minor=True)
        for tick in axis.get_major_ticks():
            for mark in (tick.gridline, tick.tick2line):
                mark.set_marker("None")
        for text in axis.get_ticklabels():
            text.set_fontproperties(font(7.2))
            text.set_parse_math(False)
            text.set_usetex(False)
        axis.set_tick_params(
            color=colors.NEUTRAL,
            labelcolor=colors.QUIET,
            width=0.6,
            length=3,
            direction="out",
            pad=3,
            top=False,
            right=False,
        )
        axis.label.set(text=label, color=colors.QUIET, parse_math=False, usetex=False)
        axis.label.set_fontproperties(font(7.8))
        axis.labelpad = 5
    if grid:
        ax.grid(True, axis=grid, color=colors.RULE, linewidth=0.5, linestyle="-", alpha=1.0)


def legend(
    sheet: Sheet,
    x: float,
    y: float,
    width: float,
    entries: Sequence[tuple[str, str, str]],
    *,
    size: float = 7.5,
    columns: int = 1,
) -> float:
    """Swatches with names: (colour, marker, readable or raw name) each; returns the height that was used."""
    step = _line(size) + 1.5
    rows = -(-len(entries) // columns)
    if not entries:
        return 0.0
    height = rows * step
    ax = sheet.axes(x, y, width, height)
    ax.set_xlim(0, width)
    ax.set_ylim(height, 0)
    column_width = width / columns
    for index, (color, marker, name) in enumerate(entries):
        left, middle = index // rows * column_width, (index % rows + 0.5) * step
        ax.plot([left + 5], [middle], marker=marker, color=color, markersize=5.5, linestyle="None", markeredgewidth=0)
        write(ax, left + 14, middle, elide(name, column_width - 18, size), size=size)
    return height


def nice_ticks(low: float, high: float, count: int = 5) -> dict[float, str]:
    """Round numbers between ``low`` and ``high`` with their text."""
    from matplotlib.ticker import MaxNLocator

    if not high > low:
        return {low: numeral(low)}
    places: ArrayLike = MaxNLocator(nbins=count, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    slack = (high - low) * 1e-9
    return {float(place): numeral(place) for place in np.asarray(places) if low - slack <= place <= high + slack}

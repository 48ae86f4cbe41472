"""Label suspects in, a strip for each out: the image, its label and the neighbours' vote, and these neighbours."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from onnxviz.errors import InputError
from onnxviz.pictures import colors
from onnxviz.pictures.dispatch import plot
from onnxviz.pictures.sheet import Sheet, refuse_ax
from onnxviz.pictures.text import class_name, numeral, plural
from onnxviz.results import LabelSuspects

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUSPECT, TILE = 104, 82
TEXT = 168.0
STEP = TILE + 6.0


@plot.register(LabelSuspects)
def _plot_label_suspects(
    result: LabelSuspects, ax: Axes | None = None, *, max_suspects: int = 12, max_neighbors: int = 8
) -> Figure:
    """Draw the first suspects; neighbours with the suspect's own label are framed green, others orange."""
    refuse_ax(ax, "label suspects")
    if max_suspects < 1 or max_neighbors < 1:
        raise InputError(
            "a picture needs at least one suspect and one neighbour", where="max_suspects, max_neighbors",
            got=f"{max_suspects}, {max_neighbors}", allowed="1 or more", next_step="Pass larger numbers",
        )  # fmt: skip
    suspects = result.ranking[result.scores[result.ranking] > 0][:max_suspects]
    depth = min(result.neighbors.shape[1], max_neighbors)
    pitch = SUSPECT + 22.0
    head = 24.0
    judged = len(result.ranking)
    sheet = Sheet(
        SUSPECT + 14 + TEXT + depth * STEP - 6,
        head + max(len(suspects) * pitch, 20),
        title="Labels that their neighbours doubt",
        subtitle=[
            f"{plural(judged, 'image')} judged",
            f"{len(result.contradicted):,} without a single neighbour of their own label",
        ],
        provenance=result.provenance,
        value=result.value,
        notes=[
            "Ranked by the share of the voters that bear another label. Framed green and marked ✓: a voter with the "
            "suspect's label; orange and ✗: with another one. Below: the distance.",
            "A suspect is a question, not a verdict: hard and ambiguous images are among them.",
            f"At most the nearest {depth} voters are drawn." if depth < result.neighbors.shape[1] else "",
        ],
    )
    sheet.text(0, 0, "suspect", size=9, bold=True)
    sheet.text(SUSPECT + 14 + TEXT, 0, "its voters, the nearest labelled images", size=9, bold=True)
    if not len(suspects):
        nobody = "no image was judged" if not judged else "every neighbour bears the label of its image"
        sheet.text(0, head, nobody, color=colors.QUIET)
    for rank, suspect in enumerate(suspects):
        _strip(sheet, result, int(suspect), head + rank * pitch, depth)
    return sheet.figure


def _strip(sheet: Sheet, result: LabelSuspects, suspect: int, top: float, depth: int) -> None:
    place = {int(image): row for row, image in enumerate(result.shown)}

    def pixels(image: int) -> np.ndarray | None:
        return result.thumbnails[place[image]] if image in place else None

    given, voted = int(result.classes[suspect]), int(result.voted[suspect])
    sheet.photo(pixels(suspect), 0, top, SUSPECT)
    x, width = SUSPECT + 14.0, TEXT - 12
    voters = int(result.voters[suspect])
    lines = (
        ("labelled", 7.2, colors.QUIET, False),
        (class_name(result.class_names, given), 9.5, colors.INK, True),
        ("neighbours say", 7.2, colors.QUIET, False),
        (class_name(result.class_names, voted), 9.5, colors.WRONG if voted != given else colors.INK, True),
        (f"{round(result.scores[suspect] * voters)} of {plural(voters, 'vote')} against it", 7.2, colors.INK, False),
        (result.names[suspect], 6.6, colors.QUIET, False),
    )
    y = top
    for text, size, color, bold in lines:
        sheet.text(x, y, text, size=size, color=color, bold=bold, width=width)
        y += size * 1.95 + (4 if bold else 0)
    for rank in range(min(depth, voters)):
        image = int(result.neighbors[suspect, rank])
        left = SUSPECT + 14 + TEXT + rank * STEP
        agrees = int(result.classes[image]) == given
        color = colors.RIGHT if agrees else colors.WRONG
        sheet.photo(pixels(image), left, top, TILE, edge=color)
        name = f"{'✓' if agrees else '✗'} {class_name(result.class_names, int(result.classes[image]))}"
        ink = colors.INK if agrees else colors.WRONG
        sheet.text(left + TILE / 2, top + TILE + 3, name, size=6.6, color=ink, align="center", width=TILE + 4)
        sheet.text(
            left + TILE / 2, top + TILE + 14, numeral(result.distances[suspect, rank]), size=6.6, color=colors.QUIET,
            align="center",
        )  # fmt: skip

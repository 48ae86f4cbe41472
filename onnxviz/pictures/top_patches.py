"""Top patches in, one row per channel out: the image patches that excite the channel most, strongest first."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from onnxviz.errors import InputError
from onnxviz.pictures import colors
from onnxviz.pictures.dispatch import plot
from onnxviz.pictures.sheet import FINE, Sheet, refuse_ax
from onnxviz.pictures.text import numeral, plural, text_width
from onnxviz.pictures.tiles import fit
from onnxviz.results import TopPatches

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@plot.register(TopPatches)
def _plot_top_patches(
    result: TopPatches,
    ax: Axes | None = None,
    *,
    max_channels: int = 40,
    max_patches: int = 12,
    scores: bool = False,
) -> Figure:
    """Draw the patches of the drawn channels at one tile size, aspect kept; ``scores`` writes each activation below."""
    refuse_ax(ax, "top patches")
    if max_channels < 1 or max_patches < 1:
        raise InputError(
            "a picture needs at least one channel and one patch",
            where="max_channels, max_patches",
            got=f"{max_channels}, {max_patches}",
            allowed="1 or more",
            next_step="Pass larger numbers",
        )
    rows_of = {int(channel): row for row, channel in enumerate(result.channels)}
    drawn = [(int(channel), patches) for channel, patches in zip(result.drawn, result.patches, strict=False)]
    shown = drawn[:max_channels]
    depth = min(int(result.scores.shape[1]) if result.scores.ndim == 2 else 0, max_patches)
    blocks = 2 if len(shown) > 8 and depth <= 10 else 1
    widest = max((text_width(f"channel {channel}", 7.4, True) for channel, _ in shown), default=0.0)
    label, between = float(math.ceil(widest)) + 12, 28.0
    width = 1000.0 if blocks == 2 else min(1000.0, label + depth * 92)
    tile = int(((width - between * (blocks - 1)) / blocks - label) / max(depth, 1)) - 2
    pitch = tile + 2 + (12 if scores else 0)
    rows = -(-len(shown) // blocks)
    counted = (
        f"{plural(len(shown), 'channel')} of {len(result.channels):,}"
        if len(shown) < len(result.channels)
        else plural(len(shown), "channel")
    )
    bad = int(np.isnan(result.scores).sum())
    sheet = Sheet(
        blocks * (label + depth * (tile + 2)) + between * (blocks - 1),
        max(rows * pitch, 20),
        title=f"Patches that excite {result.value} most",
        subtitle=[
            counted,
            f"from {plural(len(result.names), 'image')}",
            f"the {plural(depth, 'strongest patch', 'strongest patches')} of each, strongest first",
        ],
        provenance=result.provenance,
        value=result.value,
        notes=[
            "Each tile is the receptive field of one unit, scaled to one size; mid-grey lies past the image's border.",
            f"{plural(bad, 'score')} not a number." if bad else "",
        ],
    )
    if not shown:
        sheet.text(0, 0, "no patches were kept as pixels", color=colors.QUIET)
    for index, (channel, patches) in enumerate(shown):
        left = index // rows * (label + depth * (tile + 2) + between)
        top = index % rows * pitch
        row = rows_of.get(channel)
        middle = top + tile / 2
        sheet.text(left, middle - 7, f"channel {channel}", size=7.4, vertical="center", bold=True)
        best = result.scores[row, 0] if row is not None and depth else np.nan
        sheet.text(left, middle + 7, f"top {numeral(best)}", size=7, vertical="center", color=colors.QUIET)
        for rank in range(depth):
            x = left + label + rank * (tile + 2)
            if rank < len(patches):
                sheet.picture(fit(patches[rank], tile * FINE, tile * FINE), x, top, tile, tile)
                if scores and row is not None:
                    sheet.text(
                        x + tile / 2,
                        top + tile + 1,
                        numeral(result.scores[row, rank]),
                        size=6,
                        color=colors.QUIET,
                        align="center",
                    )
            else:
                blank = np.full((1, 1, 3), colors.rgb(colors.PALE), dtype=np.uint8)
                sheet.picture(blank, x, top, tile, tile)
    return sheet.figure

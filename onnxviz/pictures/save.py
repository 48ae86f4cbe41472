"""A figure in, a file or PNG bytes out; the same figure always gives the same bytes."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import threading
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxviz.errors import InputError, LimitError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["save_figure", "to_png_bytes"]

_rc_lock = threading.Lock()
_MAXIMUM_SIDE = 2**16 - 1


def to_png_bytes(figure: Figure, *, dpi: float = 200) -> bytes:
    """The figure as a PNG file: RGB, no dates, no version strings.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
    dpi : float
        Pixels per inch; figures of ``plot`` are composed for 200 (and 100), where their tiles meet the pixel grid.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    _check_dpi(figure, dpi)
    canvas_before, dpi_before = figure.canvas, figure.dpi
    try:
        # Not savefig: it listens to savefig.bbox and friends, and the bytes must not depend on a style sheet.
        canvas: Any = FigureCanvasAgg(figure)
        figure.set_dpi(dpi)
        canvas.draw()
        drawn = np.array(canvas.buffer_rgba())[..., :3]
    finally:
        figure.set_dpi(dpi_before)
        figure.set_canvas(canvas_before)
    stream = io.BytesIO()
    Image.fromarray(drawn).save(stream, "PNG", compress_level=7)
    return stream.getvalue()


def _check_dpi(figure: Figure, dpi: float) -> None:
    longest = float(max(figure.get_size_inches()))
    if not 10 <= dpi <= 2400 or longest * dpi > _MAXIMUM_SIDE:
        raise InputError(
            "the picture cannot be drawn at this resolution",
            where="dpi",
            got=str(dpi),
            allowed=f"10 to {min(2400, int(_MAXIMUM_SIDE / longest))} for this figure",
            next_step="Pass a dpi in that range",
        )


def save_figure(figure: Figure, path: str | os.PathLike[str], *, dpi: float = 200) -> Path:
    """Write the figure as PNG, SVG or PDF, by the ending of ``path``: whole or not at all.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
    path : path
        Ends in ``.png``, ``.svg`` or ``.pdf``; an existing file is replaced.
    dpi : float
        Pixels per inch of a PNG, and of the images inside an SVG or PDF.

    Returns
    -------
    pathlib.Path
        Where it was written.

    Raises
    ------
    InputError
        The ending is unknown, or the folder is missing or may not be written.
    LimitError
        The disk is full.
    """
    target = Path(path)
    form = target.suffix.lower().removeprefix(".")
    if form not in {"png", "svg", "pdf"}:
        raise InputError(
            "the ending does not name a format",
            where=str(target),
            got=repr(target.suffix),
            allowed=".png, .svg, .pdf",
            next_step="Give the file one of these endings",
        )
    data = to_png_bytes(figure, dpi=dpi) if form == "png" else _vector_bytes(figure, form, dpi)
    _write_whole(target, data)
    return target


def _vector_bytes(figure: Figure, form: str, dpi: float) -> bytes:
    import matplotlib as mpl
    from matplotlib.transforms import Bbox

    _check_dpi(figure, dpi)
    stream = io.BytesIO()
    dates = (
        {"Date": None, "Creator": None} if form == "svg" else {"CreationDate": None, "Creator": None, "Producer": None}
    )
    # The identifiers inside an SVG are salted from rcParams and from nowhere else, hence this one short detour
    # through global state, undone under a lock.
    with _rc_lock, mpl.rc_context({"svg.hashsalt": "onnxviz", "svg.fonttype": "path", "pdf.compression": 6}):
        figure.savefig(
            stream,
            format=form,
            dpi=dpi,
            facecolor=figure.get_facecolor(),
            bbox_inches=Bbox.from_bounds(0, 0, *figure.get_size_inches()),
            pad_inches=0,
            metadata=dates,
        )
    return stream.getvalue()


def _write_whole(target: Path, data: bytes) -> None:
    partial = target.parent / f".onnxviz-{uuid.uuid4().hex}"
    try:
        with partial.open("xb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(target)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        reason = error.strerror or type(error).__name__
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise LimitError(
                "the picture could not be written", where=str(target), got=reason, next_step="Free some disk space"
            ) from error
        raise InputError(
            "the picture could not be written",
            where=str(target),
            got=reason,
            next_step="Choose an existing folder that you may write to",
        ) from error

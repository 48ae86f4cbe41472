"""The parts of a finished report → ``index.html``: one file that needs no network, no script and no second file."""

from __future__ import annotations

import base64
import hashlib
import io
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib import resources
from typing import Any

from onnxviz.report.rules import Verdict
from onnxviz.report.section import Figure, Section

__all__ = ["Examined", "render_page"]

PICTURE_BYTES = 9_000_000
"""Picture bytes in the page before base64, which adds a third; the full pictures lie in ``figures/``."""

_QUALITIES = ((2000, 88), (1600, 80), (1200, 72), (900, 60))
"""Widest picture in pixels and WebP quality, from the best to what a report of very many pictures must live with."""


@dataclass(frozen=True)
class Examined:
    """One model with everything that the report says of it."""

    name: str
    """Key, unique in the report; also the prefix of its anchors and files."""
    title: str
    subtitle: str
    guessed: bool
    """Whether its preprocessing was guessed, which is then said at every picture."""
    verdicts: Sequence[Verdict]
    sections: Sequence[Section]


def render_page(title: str, examined: Sequence[Examined], *, facts: Sequence[tuple[str, str]]) -> bytes:
    """Write the page.

    Parameters
    ----------
    title : str
    examined : sequence of Examined
        The models in order.
    facts : sequence of (str, str)
        What stands in the foot: versions and parameters.

    Returns
    -------
    bytes
        UTF-8. All text is escaped by the template engine; the Content-Security-Policy allows the one style block by
        its digest, pictures from ``data:`` URIs, and nothing else.
    """
    import jinja2
    import markupsafe

    folder = resources.files("onnxviz.report") / "templates"
    style = (folder / "style.css").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: (folder / name).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    page = environment.get_template("index.html.j2").render(
        title=title,
        examined=examined,
        findings=sum(verdict.status == "finding" for model in examined for verdict in model.verdicts),
        unchecked=sum(verdict.status == "not checked" for model in examined for verdict in model.verdicts),
        checked=sum(verdict.status != "not checked" for model in examined for verdict in model.verdicts),
        pictures=_pictures(examined),
        facts=facts,
        # The style is the project's own file: it holds no text of a model, a label or a file name.
        style=markupsafe.Markup(style),
        policy=f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'",
    )
    # Lone surrogates come from file names that are no UTF-8; they cannot be encoded and are shown as "?".
    return page.encode("utf-8", errors="replace")


def _pictures(examined: Sequence[Examined]) -> Mapping[tuple[str, str, str], Mapping[str, Any]]:
    figures = {
        (model.name, section.name, figure.name): figure
        for model in examined
        for section in model.sections
        for figure in section.figures
    }
    encoded: list[tuple[bytes, tuple[int, int]]] = []
    # Decoding, scaling and encoding leave Python's lock, so threads share the processors.
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as workers:
        for width, quality in _QUALITIES:
            encoded = list(workers.map(partial(_webp, width=width, quality=quality), figures.values()))
            if sum(len(data) for data, _ in encoded) <= PICTURE_BYTES:
                break
    return {
        key: {
            "source": "data:image/webp;base64," + base64.b64encode(data).decode(),
            "width": size[0],
            "height": size[1],
        }
        for key, (data, size) in zip(figures, encoded, strict=True)
    }


def _webp(figure: Figure, *, width: int, quality: int) -> tuple[bytes, tuple[int, int]]:
    from PIL import Image

    with Image.open(io.BytesIO(figure.png)) as picture:
        shown = picture.convert("RGB")
    longest = 4 * width
    scale = min(1.0, width / shown.width, longest / shown.height)
    if scale < 1.0:
        size = (max(1, round(shown.width * scale)), max(1, round(shown.height * scale)))
        shown = shown.resize(size, Image.Resampling.LANCZOS)
    file = io.BytesIO()
    shown.save(file, format="WEBP", quality=quality, method=4)
    return file.getvalue(), shown.size

"""Names and numbers in, drawable text out: escaped, measured, shortened in the middle, wrapped.

All pictures use the DejaVu Sans that matplotlib carries, named by its file: a picture then has the same bytes whatever
fonts and style sheets the machine has.
"""

from __future__ import annotations

import functools
import math
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.font_manager import FontProperties

__all__ = ["class_name", "elide", "font", "font_file", "numeral", "plural", "readable", "text_width", "wrap"]

POINTS_PER_UNIT = 0.72
"""A unit of layout is 1/100 inch, a point of type 1/72 inch."""


@functools.cache
def font_file(bold: bool = False) -> str:
    """Path of the font that every picture uses."""
    import matplotlib as mpl

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return str(Path(mpl.get_data_path()) / "fonts" / "ttf" / name)


def font(size: float, *, bold: bool = False) -> FontProperties:
    """The font at a size in points."""
    from matplotlib.font_manager import FontProperties

    return FontProperties(fname=font_file(bold), size=size)


@functools.cache
def _drawable_codes() -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(font_file()).get_charmap()) & frozenset(FT2Font(font_file(bold=True)).get_charmap())


def readable(name: str) -> str:
    r"""A name as it can be drawn: what the font lacks, what is invisible and what reorders text becomes an escape.

    ``"a\nb"`` is shown with a backslash and an n, a Chinese or right-to-left letter by its code point (``\u4f60``), so
    two different names never look the same and no name can break out of its line.
    """
    composed = unicodedata.normalize("NFC", name)
    return "".join(character if _is_plain(character) else _escaped(character) for character in composed)


def _is_plain(character: str) -> bool:
    if " " <= character <= "~":
        return True
    category = unicodedata.category(character)
    return (
        category[0] not in "CZM"
        and unicodedata.bidirectional(character) not in {"R", "AL", "AN"}
        and ord(character) in _drawable_codes()
    )


def _escaped(character: str) -> str:
    short = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(character)
    if short is not None:
        return short
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


@functools.lru_cache(maxsize=4096)
def text_width(text: str, size: float, bold: bool = False) -> float:
    """Width of a readable line at ``size`` points, in units of 1/100 inch."""
    from matplotlib.font_manager import get_font

    face = get_font(font_file(bold))
    face.set_size(size, 100.0)
    face.set_text(text, 0.0)
    return float(face.get_width_height()[0]) / 64.0


def elide(name: str, width: float, size: float, *, bold: bool = False) -> str:
    """The readable form of ``name``, its middle replaced by an ellipsis where it is wider than ``width`` units."""
    # A name of a megabyte must not be measured letter by letter: nothing on a page shows more than 600 characters.
    text = readable(name if len(name) <= 600 else f"{name[:300]}…{name[-300:]}")
    if text_width(text, size, bold) <= width:
        return text
    shortest, longest = 0, len(text) - 1
    while shortest < longest:
        kept = (shortest + longest + 1) // 2
        if text_width(_middle_out(text, kept), size, bold) <= width:
            shortest = kept
        else:
            longest = kept - 1
    return _middle_out(text, shortest)


def _middle_out(text: str, kept: int) -> str:
    head = math.ceil(kept / 2)
    tail = kept - head
    return text[:head] + "…" + (text[-tail:] if tail else "")


def wrap(pieces: Sequence[str], width: float, size: float, *, separator: str = " ") -> list[str]:
    """Readable pieces joined into lines no wider than ``width`` units; a piece too wide for a line is shortened."""
    lines: list[str] = []
    for piece in pieces:
        whole = elide(piece, width, size)
        joined = f"{lines[-1]}{separator}{whole}" if lines else whole
        if lines and text_width(joined, size) <= width:
            lines[-1] = joined
        else:
            lines.append(whole)
    return lines


def numeral(number: Any) -> str:
    """A number in three significant digits, with a true minus sign: ``0.731``, ``−12.4``, ``3.1e−05``, ``1,204``."""
    value = float(number)
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value != 0 and not 1e-3 <= abs(value) < 1e6:
        text = f"{value:.2g}"
    elif abs(value) >= 100:
        text = f"{value:,.0f}"
    else:
        text = f"{value:.3g}"
    return text.replace("-", "−")


def plural(count: int, one: str, many: str = "") -> str:
    """``1 filter``, ``2 filters``, ``1,000 classes``."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def class_name(names: Sequence[str] | None, number: int) -> str:
    """The name of a class, or ``class 7`` where it has none; ``""`` for -1, the unknown one."""
    if number < 0:
        return ""
    return names[number] if names is not None and number < len(names) else f"class {number}"

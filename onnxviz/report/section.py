"""What one section of a report is made of, and how a method's answer, or its refusal, becomes one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

__all__ = ["Figure", "Section", "SectionSkipped", "Table", "render"]


class SectionSkipped(Exception):
    """Raised by a section that cannot be made for this model or these images; the text is the reason."""


@dataclass(frozen=True)
class Figure:
    """A picture of the report."""

    name: str
    """File name without ending, unique within the section."""
    caption: str
    png: bytes
    wide: bool = True
    """Whether it takes the whole width of the page; narrow ones stand side by side."""


@dataclass(frozen=True)
class Table:
    """A table of the page; every cell is text as a person reads it."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    collapsed: bool = False
    """Whether it waits behind its caption until the reader opens it."""
    numeric: frozenset[int] = frozenset()
    """Columns that hold numbers, which align to the right."""


@dataclass
class Section:
    """One section: how to read it, its pictures and tables, and the numbers that both show."""

    name: str
    """Key in results.json and anchor in the page."""
    title: str
    reading: tuple[str, str]
    """Two sentences: what the picture shows, and what a healthy or a broken network would show."""
    status: str = "made"
    """``"made"``, ``"skipped"`` (with a reason in ``reason``) or ``"failed"`` (an error that is a finding)."""
    reason: str = ""
    figures: list[Figure] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    numbers: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)


SectionMaker = Callable[[Any, Section], None]
"""Fills a section from the examination's context; raises `SectionSkipped` with the reason where it cannot."""


def render(result: Any, **options: Any) -> bytes:
    """The picture of a result as PNG bytes; the same result gives the same bytes."""
    from onnxviz.pictures import plot, to_png_bytes

    return to_png_bytes(plot(result, **options))

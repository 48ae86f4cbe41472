"""The weights of the first convolution and of one that lies deeper."""

from __future__ import annotations

from onnxviz.errors import ValueNotFoundError
from onnxviz.graph.weights import first_convolution, list_convolutions
from onnxviz.methods.filters import filters
from onnxviz.report.examination import Examination
from onnxviz.report.numbers import provenance_numbers
from onnxviz.report.section import Figure, Section, SectionSkipped, render
from onnxviz.results import Filters

__all__ = ["make"]


def make(exam: Examination, section: Section) -> None:
    """Fill the section."""
    model = exam.model
    convolutions = list_convolutions(model.loaded.proto)
    if not convolutions:
        unread = " whose weights can be read" if model.blocked_values else ""
        raise SectionSkipped(exam.lacks(f"no convolution in this graph{unread}"))
    found: dict[str, Filters] = {}
    if first_convolution(model.loaded.proto) in model.blocked_values:
        section.notes.append(f"The first convolution is left out: {model.blocked_reason}.")
    else:
        found["first"] = first = _first(exam, convolutions)
        section.figures.append(Figure("first", _caption(first, "The first convolution"), render(first)))
    deeper = _deeper(exam, convolutions, found["first"].value if found else "")
    if deeper is not None:
        section.figures.append(Figure("deeper", _caption(deeper, "A deeper convolution"), render(deeper)))
        found["deeper"] = deeper
    section.numbers["convolutions"] = list(convolutions)
    for key, result in found.items():
        section.numbers[key] = {
            "value": result.value,
            "weight": result.weight_name,
            "shape": list(result.weights.shape),
            "groups": result.groups,
            "channel_order": result.channel_order,
            "smallest": float(result.weights.min()) if result.weights.size else None,
            "largest": float(result.weights.max()) if result.weights.size else None,
        } | provenance_numbers(result.provenance)
        section.arrays[key] = result.weights


def _first(exam: Examination, convolutions: tuple[str, ...]) -> Filters:
    """The convolution that sees the image, or the earliest where none does."""
    try:
        return filters(exam.model)
    except ValueNotFoundError:
        return filters(exam.model, convolutions[0])


def _deeper(exam: Examination, convolutions: tuple[str, ...], first: str) -> Filters | None:
    """The convolution after the first with the largest kernel, the earliest of several: there is most to see."""
    best: Filters | None = None
    for name in convolutions:
        if name == first:
            continue
        found = filters(exam.model, name)
        if best is None or found.weights[0, 0].size > best.weights[0, 0].size:
            best = found
    return best


def _caption(found: Filters, what: str) -> str:
    count, channels, height, width = found.weights.shape
    grouped = f" in {found.groups:,} groups" if found.groups > 1 else ""
    return f"{what}, {found.value}: {count:,} filters of {channels} × {height} × {width}{grouped}."

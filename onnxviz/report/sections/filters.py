"""The weights of the first convolution and of one that lies deeper."""

from __future__ import annotations

from onnxviz.errors import ValueNotFoundError
from onnxviz.graph.weights import list_convolutions
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
        raise SectionSkipped("no convolution in this graph")
    try:
        first = filters(model)
    except ValueNotFoundError:
        first = filters(model, convolutions[0])
    section.figures.append(Figure("first", _caption(first, "The first convolution"), render(first)))
    found = {"first": first}
    deeper = _deeper(exam, convolutions, first.value)
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

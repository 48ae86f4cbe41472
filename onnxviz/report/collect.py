"""Examined models → ``results.json`` as plain JSON, with every array and picture written beside it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from onnxviz.report.examination import Examination
from onnxviz.report.numbers import array_bytes, describe_array, plain
from onnxviz.report.page import Examined
from onnxviz.report.section import Section

__all__ = ["SCHEMA_VERSION", "results_json"]

SCHEMA_VERSION = 1
"""Raised when a reader of results.json would have to change."""


def results_json(
    add: Callable[[str, bytes], None],
    examined: Sequence[Examined],
    examinations: Sequence[Examination],
    *,
    parameters: Mapping[str, Any],
    exit_code: int,
) -> dict[str, Any]:
    """The content of results.json; arrays and figures go through ``add`` (name, bytes) and are digested.

    Holds nothing that differs between two runs on the same files: no date, no duration, no path of this machine.
    """
    return {
        "report": "onnxviz",
        "schema_version": SCHEMA_VERSION,
        "exit_code": exit_code,
        "parameters": plain(parameters)[0],
        "models": [
            _model(add, one, exam, alone=len(examined) == 1) for one, exam in zip(examined, examinations, strict=True)
        ],
    }


def _model(add: Callable[[str, bytes], None], one: Examined, exam: Examination, *, alone: bool) -> dict[str, Any]:
    model = exam.model
    made = model.provenance("audit", {})
    prefix = "" if alone else f"{one.name}-"
    return {
        "name": one.name,
        "title": one.title,
        "model": {"file": made.model, "sha256": made.model_sha256},
        "input_contract": plain(made.preprocess)[0] or None,
        "output_contract": plain(made.output)[0],
        "labels": plain(model.labels)[0],
        "provider": made.provider,
        "versions": plain(made.versions)[0],
        "verdict": [
            {
                "rule": line.rule,
                "title": line.title,
                "status": line.status,
                "threshold": line.threshold,
                "found": line.found,
                "why": line.why,
                "details": list(line.details),
            }
            for line in one.verdicts
        ],
        "skipped_files": [{"file": name, "reason": reason} for name, reason in exam.facts.skipped],
        "sections": {section.name: _section(add, section, prefix) for section in one.sections},
    }


def _section(add: Callable[[str, bytes], None], section: Section, prefix: str) -> dict[str, Any]:
    numbers, lost = plain(section.numbers)
    arrays: dict[str, Any] = {}
    for name, array in section.arrays.items():
        file = f"arrays/{prefix}{section.name}-{name}.npy"
        data = array_bytes(array)
        add(file, data)
        arrays[name] = describe_array(file, array, data)
    figures = []
    for figure in section.figures:
        file = f"figures/{prefix}{section.name}-{figure.name}.png"
        add(file, figure.png)
        figures.append(
            {"file": file, "sha256": hashlib.sha256(figure.png).hexdigest(), "caption": plain(figure.caption)[0]}
        )
    return {
        "title": section.title,
        "status": section.status,
        "reason": section.reason,
        "reading": list(section.reading),
        "numbers": numbers,
        "not_finite_shown_as_null": lost,
        "notes": list(section.notes),
        "arrays": arrays,
        "figures": figures,
    }

"""The model's inputs, outputs, values and contracts, with the checks that need no method: weights, batches, taps."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxviz.errors import ModelError
from onnxviz.graph.batch import static_batch
from onnxviz.graph.finite import scan_weights
from onnxviz.graph.values import GraphInput, Value
from onnxviz.report.examination import Examination
from onnxviz.report.rules import Difference
from onnxviz.report.section import Section, SectionSkipped, Table

__all__ = ["make"]

_TAPS_CHECKED = 24


def make(exam: Examination, section: Section) -> None:
    """Fill the section and the facts on contracts, weights, batches and taps."""
    model, facts = exam.model, exam.facts
    preprocess = model.preprocess.to_json() if model.preprocess else {}
    output = model.output.to_json()
    facts.preprocess, facts.output = preprocess, output
    facts.has_output = model.output.kind != "values"

    scan = scan_weights(model.loaded)
    facts.weights, facts.weights_scanned = scan.non_finite, scan.tensors

    shapes = model.shapes()
    feature, logits = model.feature_landmark, model.logits_landmark
    section.tables.append(
        Table(
            "Inputs and outputs",
            ("", "name", "dtype", "shape"),
            tuple(
                (side, value.name, value.dtype or "?", _shape(value))
                for side, values in (("input", model.inputs), ("output", model.outputs))
                for value in values
            ),
        )
    )
    if preprocess:
        section.tables.append(_contract("Input contract", preprocess))
    section.tables.append(_contract("Output contract", output))
    rows = [
        ("multiply-accumulates of one image", f"{model.macs:,}"),
        ("weights", f"{scan.numbers:,} in {scan.tensors:,} tensors"),
        ("values of the graph", f"{len(model.values()):,}"),
        ("runs on", f"{model.provider}, {model.batch_size} images at a time"),
    ]
    rows.append(("feature value", f"{feature.value}: {feature.why}" if feature else "none found"))
    rows.append(("logits value", f"{logits.value}: {logits.why}" if logits else "none found"))
    section.tables.append(Table("Facts", ("", ""), tuple(rows)))
    section.tables.append(
        Table(
            f"All {len(model.values()):,} values that can be asked for by name",
            ("name", "kind", "operator", "dtype", "shape for one image"),
            tuple(
                (
                    value.name,
                    value.kind,
                    value.op_type,
                    value.dtype or "?",
                    " × ".join(map(str, shapes[value.name])) if value.name in shapes else _shape(value),
                )
                for value in model.values()
            ),
            collapsed=True,
        )
    )
    _compare_batch(exam)
    _compare_taps(exam)
    section.notes.extend(model.notes)
    section.numbers.update(
        inputs=[_value(value) for value in model.inputs],
        outputs=[_value(value) for value in model.outputs],
        macs=model.macs,
        weights=scan.numbers,
        weight_tensors=scan.tensors,
        non_finite_weights=dict(scan.non_finite),
        values=[
            _value(value) | {"kind": value.kind, "shape_for_one_image": shapes.get(value.name)}
            for value in model.values()
        ],
        feature_value=feature and {"value": feature.value, "why": feature.why, "guessed": feature.guessed},
        logits_value=logits and {"value": logits.value, "why": logits.why, "guessed": logits.guessed},
        batch_size=model.batch_size,
        batch_against_single=_difference(facts.batch),
        tapped_against_untapped=_difference(facts.taps),
        notes=list(model.notes),
    )


def _contract(caption: str, contract: dict[str, Any]) -> Table:
    shown = {"why": contract.get("why", "")} | {key: item for key, item in contract.items() if key != "why"}
    return Table(caption, ("", ""), tuple((key.replace("_", " "), _text(item)) for key, item in shown.items()))


def _text(item: Any) -> str:
    if item is None:
        return "–"
    if isinstance(item, bool):
        return "yes" if item else "no"
    if isinstance(item, float):
        return f"{item:.6g}"
    if isinstance(item, (list, tuple)):
        return ", ".join(_text(part) for part in item)
    return str(item)


def _shape(value: Value | GraphInput) -> str:
    if value.shape is None:
        return "?"
    return " × ".join("?" if size is None else str(size) for size in value.shape) or "scalar"


def _value(value: Value | GraphInput) -> dict[str, Any]:
    if isinstance(value, GraphInput):
        return {"name": value.name, "dtype": value.dtype, "shape": value.shape}
    return {
        "name": value.name,
        "dtype": value.dtype,
        "shape": value.shape,
        "operator": value.op_type,
        "node": value.node,
    }


def _difference(difference: Difference | None) -> dict[str, Any] | None:
    if difference is None:
        return None
    return {"largest": difference.largest, "largest_output": difference.scale, "compared": difference.what}


def _compare_batch(exam: Examination) -> None:
    """The first few images together against each alone."""
    try:
        batch = exam.first_batch
    except SectionSkipped as reason:
        exam.facts.missing["batch_equals_single"] = str(reason)
        exam.facts.missing["taps_change_nothing"] = str(reason)
        return
    count = len(batch.tensor)
    if count < 2:
        return
    model = exam.model
    axes = exam.output_axes
    if not axes:
        exam.facts.missing["batch_equals_single"] = "no output has a place of its own for each image"
        return
    try:
        together = _run_together(exam, batch.tensor)
    except ModelError as error:
        # The file declares a free batch and cannot run one.
        exam.facts.batch = Difference(float("inf"), 0.0, 0.0, f"a batch does not run: {error.got or error.what}")
        return
    alone = [model.run(batch.tensor[row : row + 1]) for row in range(count)]
    exam.facts.batch = _apart(
        [(together[name], np.concatenate([one[name] for one in alone], axis=axis)) for name, axis in axes.items()],
        f"{count} images together and one by one",
    )


def _run_together(exam: Examination, tensor: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """All rows in one run of the graph, even where the model knows better and runs them one by one."""
    model = exam.model
    if model.fixed_batch is not None and static_batch(model.loaded.proto) is None:
        return model.run({model.inputs[0].name: tensor})
    return model.run(tensor)


def _compare_taps(exam: Examination) -> None:
    """The outputs with intermediate values exposed against the outputs of the plain graph, on real images."""
    if "taps_change_nothing" in exam.facts.missing:
        return
    model, tensor = exam.model, exam.first_batch.tensor
    tapped = [value.name for value in exam.maps][:_TAPS_CHECKED]
    if not tapped:
        return
    outputs = tuple(exam.output_axes)
    plain, seen = model.run(tensor), model.run(tensor, (*outputs, *tapped))
    exam.facts.taps = _apart([(seen[name], plain[name]) for name in outputs], f"{len(tapped)} values exposed")


def _apart(pairs: list[tuple[NDArray[Any], NDArray[Any]]], what: str) -> Difference | None:
    largest = scale = step = 0.0
    for one, other in pairs:
        if not one.size:
            continue
        wide, reference = one.astype(np.float64), other.astype(np.float64)
        same = (wide == reference) | (np.isnan(wide) & np.isnan(reference))
        with np.errstate(invalid="ignore"):  # an infinity less itself is the same
            apart = np.where(same, 0.0, np.abs(wide - reference))
        largest = max(largest, float(np.nan_to_num(apart, nan=np.inf).max()))
        finite = np.abs(reference[np.isfinite(reference)])
        scale = max(scale, float(finite.max()) if finite.size else 0.0)
        if one.dtype.kind in "iu":
            step = 1.0
    return Difference(largest, scale, step, what) if pairs else None

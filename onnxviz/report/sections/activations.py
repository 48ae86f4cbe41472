"""Maps of a few values on two images, and dead and saturated channels of many values over all images."""

from __future__ import annotations

import numpy as np

from onnxviz.methods.activations import activations
from onnxviz.report.examination import Examination, spread
from onnxviz.report.numbers import provenance_numbers
from onnxviz.report.rules import SATURATED_CONFIDENCE, ChannelCount, Scores
from onnxviz.report.section import Figure, Section, SectionSkipped, Table, render
from onnxviz.report.sections.predictions import class_name
from onnxviz.results import ActivationStatistics, Predictions

__all__ = ["make"]

_VALUES_DRAWN = 3
_VALUES_COUNTED = 24
_IMAGES_DRAWN = 2


def make(exam: Examination, section: Section) -> None:
    """Fill the section and the facts on channels, scores and numbers that are not finite."""
    images = exam.need_images()
    model, facts = exam.model, exam.facts
    feature = model.feature_value
    drawn = list(exam.chosen_values(_VALUES_DRAWN))
    if feature and not exam.options.values and feature not in drawn and feature in model.float_values():
        drawn.append(feature)
    counted = [value.name for value in spread(exam.maps, _VALUES_COUNTED)]
    # In the order of the graph, so that the first value of a list of NaN is where they begin.
    wanted = {*drawn, *counted, *exam.float_outputs}
    names = [value.name for value in model.values() if value.name in wanted]
    if not names:
        raise SectionSkipped(exam.lacks("the graph computes no floating-point value with channels"))
    statistics = activations(model, images, values=names, reduce="statistics")
    _fill_facts(exam, statistics)
    if model.blocked_values:
        section.notes.append(f"Left out: {model.blocked_reason}.")

    if drawn:
        maps = activations(model, images.subset(np.arange(min(_IMAGES_DRAWN, len(images)))), values=drawn)
        for number, (name, found) in enumerate(maps.items()):
            section.figures.append(Figure(f"value-{number}", f"{name} on {' and '.join(found.names)}.", render(found)))
            section.arrays[f"maps_{number}"] = found.maps
        section.numbers["drawn"] = [
            {"value": name, "array": f"maps_{number}", "images": list(found.names)}
            | provenance_numbers(found.provenance)
            for number, (name, found) in enumerate(maps.items())
        ]
    section.tables.append(
        Table(
            f"Channels over all {facts.images:,} images",
            ("value", "channels", "dead", "saturated", "mean", "smallest", "largest", "zeros", "NaN or infinite"),
            tuple(_row(statistics[name]) for name in names),
            collapsed=True,
            numeric=frozenset(range(1, 9)),
        )
    )
    section.numbers["channels"] = [
        {
            "value": name,
            "channels": len(found.minimum),
            "dead": int(found.dead.sum()),
            "saturated": int(found.saturated.sum()),
            "mean": float(found.mean.mean()),
            "smallest": float(found.minimum.min()),
            "largest": float(found.maximum.max()),
            "zeros": int(found.zeros.sum()),
            "units": found.count * found.units * len(found.minimum),
            "non_finite": int(found.non_finite.sum()),
        }
        for name, found in statistics.items()
    ]


def _row(found: ActivationStatistics) -> tuple[str, ...]:
    units = found.count * found.units * len(found.minimum)
    return (
        found.value,
        f"{len(found.minimum):,}",
        f"{int(found.dead.sum()):,}",
        f"{int(found.saturated.sum()):,}",
        f"{found.mean.mean():.4g}",
        f"{found.minimum.min():.4g}",
        f"{found.maximum.max():.4g}",
        f"{found.zeros.sum() / max(units, 1):.0%}",
        f"{int(found.non_finite.sum()):,}",
    )


def _fill_facts(exam: Examination, statistics: dict[str, ActivationStatistics]) -> None:
    facts, model = exam.facts, exam.model
    facts.images = max((found.count for found in statistics.values()), default=0)
    facts.values_scanned = len(statistics)
    facts.non_finite_values = {name: int(found.non_finite.sum()) for name, found in statistics.items()}
    inside = [found for name, found in statistics.items() if name not in exam.float_outputs]
    # A quantised or clipped range that is reached often is what saturation means; a ReLU's floor is no ceiling.
    facts.channels = [
        ChannelCount(found.value, len(found.minimum), int(found.dead.sum()), int(found.saturated.sum()))
        for found in inside
    ]
    answers: Predictions | None = exam.shared.get("predictions")
    output = statistics.get(model.output.output)
    if answers is None or output is None:
        return
    confidence = answers.top_scores[:, 0].astype(np.float64)
    finite = confidence[np.isfinite(confidence)]
    winners, wins = np.unique(answers.top[:, 0], return_counts=True)
    scale = model.output.quantization[0] if model.output.quantization else 1.0
    with np.errstate(invalid="ignore", over="ignore"):
        changes = (output.maximum.astype(np.float64) - output.minimum) * scale
    changes = changes[np.isfinite(changes)]
    facts.scores = Scores(
        images=len(confidence),
        classes=model.output.classes or len(output.minimum),
        spread=float(changes.max()) if changes.size else 0.0,
        one_class_share=float(wins.max() / len(confidence)),
        one_class=class_name(answers.class_names, int(winners[wins.argmax()])),
        saturated_share=float((finite > SATURATED_CONFIDENCE).mean()) if finite.size else 0.0,
        median_confidence=float(np.median(finite)) if finite.size else 0.0,
        normalised=True,
        finite_share=finite.size / max(confidence.size, 1),
    )

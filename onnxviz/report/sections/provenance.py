"""The digest of the model, the parameters and the versions."""

from __future__ import annotations

from onnxviz.report.examination import Examination
from onnxviz.report.section import Section, Table

__all__ = ["make"]


def make(exam: Examination, section: Section) -> None:
    """Fill the section."""
    made = exam.model.provenance("audit", {})
    rows = [("model", made.model), ("SHA-256", made.model_sha256), ("provider", made.provider)]
    rows += [("threads", str(exam.model.threads or "chosen by onnxruntime"))]
    rows += [(name, version) for name, version in made.versions.items()]
    section.tables.append(Table("", ("", ""), tuple(rows)))
    section.numbers.update(
        model=made.model,
        sha256=made.model_sha256,
        provider=made.provider,
        threads=exam.model.threads,
        versions=dict(made.versions),
    )

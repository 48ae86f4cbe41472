"""The image files: how many, which were skipped and why, and what had to be done to read others."""

from __future__ import annotations

from onnxviz.report.examination import Examination
from onnxviz.report.section import Section, Table

__all__ = ["make"]


def make(exam: Examination, section: Section) -> None:
    """Fill the section. The other sections have read every image by now, so undecodable files are known."""
    images = exam.need_images(0)
    facts = exam.facts
    rows = [("images examined", f"{facts.images:,}"), ("files skipped", f"{len(facts.skipped):,}")]
    if images.folder_names:
        rows.append(("class folders", f"{len(images.folder_names):,}: " + ", ".join(images.folder_names[:12])))
    section.tables.append(Table("", ("", ""), tuple(rows)))
    if facts.skipped:
        section.tables.append(
            Table("Skipped files", ("file", "reason"), tuple(facts.skipped), collapsed=len(facts.skipped) > 20)
        )
    notes = [(note.name, note.text) for note in images.notes]
    if notes:
        section.tables.append(Table(f"{len(notes):,} notes", ("file", "note"), tuple(notes), collapsed=len(notes) > 20))
    section.tables.append(
        Table(
            f"The {len(images):,} files by name",
            ("", "file"),
            tuple((str(index), name) for index, name in enumerate(images.names)),
            collapsed=True,
            numeric=frozenset({0}),
        )
    )
    section.numbers.update(
        images=facts.images,
        names=list(images.names),
        skipped=[{"file": name, "reason": reason} for name, reason in facts.skipped],
        notes=[{"file": name, "note": text} for name, text in notes],
        class_folders=list(images.folder_names) if images.folder_names else None,
    )

"""A model and images → a report: the chosen methods run, their pictures and numbers collected, the verdict first."""

from __future__ import annotations

from onnxviz.report.audit import AuditResult, audit

__all__ = ["AuditResult", "audit"]

"""Benchmarks use the fixtures of the tests; they run as correctness tests unless ``--benchmark-enable`` is given."""

from __future__ import annotations

from shared_fixtures import captum, faiss, torch, zoo

__all__ = ["captum", "faiss", "torch", "zoo"]

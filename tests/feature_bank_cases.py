"""Small feature banks for tests, and how they look on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import onnxviz as ov
from onnxviz.results import Provenance


def rows(count: int, columns: int = 5, *, seed: int = 0, dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, columns)).astype(dtype)


def made(value: str = "relu", **changed: object) -> Provenance:
    plain = {
        "method": "collect_features", "model": "m.onnx", "model_sha256": "0" * 64,
        "preprocess": {"size": [8, 8], "why": "said so"}, "output": {}, "parameters": {"value": value, "pool": False},
        "versions": {}, "provider": "CPUExecutionProvider",
    }  # fmt: skip
    return Provenance(**plain | changed)  # type: ignore[arg-type]


def bank_of(place: Path, *blocks: np.ndarray, **options: object) -> ov.FeatureBank:
    """A bank with a shard for each block, closed."""
    with ov.FeatureBank.create(place, columns=blocks[0].shape[1], dtype=blocks[0].dtype, **options) as bank:  # type: ignore[arg-type]
        for block in blocks:
            bank.append(block)
    return bank


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}

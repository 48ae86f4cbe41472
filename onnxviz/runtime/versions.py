"""The versions of everything that can change a number go out, by package name."""

from __future__ import annotations

import importlib.metadata
from functools import cache

__all__ = ["versions"]

_PACKAGES = (
    "onnxviz",
    "onnx",
    "onnxruntime-gpu",
    "onnxruntime",
    "numpy",
    "pillow",
    "scikit-learn",
    "openTSNE",
    "scipy",
)


@cache
def versions() -> dict[str, str]:
    """Package name to installed version; packages that are not installed are left out."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found

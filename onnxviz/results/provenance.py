"""What made a result, and the kinds of arrays that results hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["FloatArray", "ImageArray", "IntArray", "Provenance"]

FloatArray = NDArray[np.floating[Any]]
IntArray = NDArray[np.int64]
ImageArray = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Provenance:
    """What made a result: enough to make it again, and to say what it means."""

    method: str
    """The public function's name, such as ``"occlusion"``."""
    model: str
    """The model's file name; ``""`` where no model was involved."""
    model_sha256: str
    """Digest of the model file and of its external data; ``""`` where no model was involved."""
    preprocess: Mapping[str, Any]
    """The input contract as it was used, with ``why`` and ``guessed``."""
    output: Mapping[str, Any]
    """The output contract as it was used, with ``why`` and ``guessed``."""
    parameters: Mapping[str, Any]
    """Every parameter of the call, seeds included; plain JSON types."""
    versions: Mapping[str, str]
    """Package name to version: onnxviz, onnx, onnxruntime, numpy, ..."""
    provider: str
    """The onnxruntime execution provider that was got, such as ``"CPUExecutionProvider"``."""

"""Small pictures for tests, and how they are prepared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from onnxviz.inputs.preprocess import Preprocess

WHOLE = Preprocess((8, 6), fit="stretch", interpolation="nearest")
RAMP = np.random.default_rng(3).integers(0, 256, (8, 6, 3), dtype=np.uint8)


def save(path: Path, level: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 6, 3), level, np.uint8)).save(path)

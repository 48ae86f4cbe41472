"""The small embedded network with colour 7 × 7 filters and a 4096-d last layer, and seeded pictures for it."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

import onnxviz as ov
from onnxviz.inputs.images import ImageSet
from onnxviz.runtime.model import Model

PATH = Path(__file__).parents[1] / "models" / "cifar10_7x7_4096.onnx"


@cache
def cifar_model(batch_size: int | str = "auto") -> Model:
    return ov.load(PATH, preprocess="cifar10", device="cpu", threads=1, batch_size=batch_size)


def pictures(n: int, seed: int = 0) -> np.ndarray:
    """Coloured blobs: smooth enough for a trained network to answer with more than noise."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (n, 4, 4, 3)).astype(np.float64)
    return np.clip(np.kron(coarse, np.ones((1, 8, 8, 1))) + rng.normal(0, 8, (n, 32, 32, 3)), 0, 255).astype(np.uint8)


def picture_set(n: int, *, seed: int = 0, labels: np.ndarray | None = None, **options: object) -> ImageSet:
    return ov.load_images(pictures(n, seed), cifar_model(), labels=labels, **options)  # type: ignore[arg-type]

"""What a network answers."""

from __future__ import annotations

from dataclasses import dataclass

from onnxviz.results.provenance import FloatArray, ImageArray, IntArray, Provenance

__all__ = ["Predictions"]


@dataclass(frozen=True, eq=False)
class Predictions:
    """What the network answers on a set of images."""

    top: IntArray
    """(images, k) classes, most likely first; ties to the lower class."""
    top_scores: FloatArray
    """(images, k) float32 probabilities of those classes (raw values where the output is not a classifier's)."""
    histogram: IntArray
    """(20,) images by confidence of the best class: [0, .05), ..., [.95, 1]."""
    confusion: IntArray | None
    """(true classes, classes) image counts; None where true classes are not known."""
    accuracy: float | None
    accuracy_top5: float | None
    names: tuple[str, ...]
    classes: IntArray | None
    """(images,) true class in the model's own numbering, -1 unknown; None where folders told nothing."""
    class_names: tuple[str, ...] | None
    """Names of the model's classes."""
    images: ImageArray
    """(shown, height, width, 3) the first few images, for the picture."""
    provenance: Provenance

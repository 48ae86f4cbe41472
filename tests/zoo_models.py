"""How each model of the zoo is fed, and what it must answer; figures were measured with the crop stated here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class ZooModel:
    """One file of the zoo."""

    name: str
    images: str
    """``"imagenet"`` or ``"cifar10"``."""
    preprocess: str | dict[str, Any] | None
    """None where the graph itself tells enough."""
    top1: float
    """On all 500 photos, or on the first 100 of each CIFAR class."""
    crop: str
    """What the figure holds for: the part of the photo that is seen."""

    def path(self, zoo: Path) -> Path:
        return zoo / "models" / f"{self.name}.onnx"

    def labels(self, zoo: Path) -> Path:
        return zoo / "labels" / f"{self.images}.txt"


CENTRE = "centre square of .875 of the short side"
WHOLE = "whole image"

ZOO = (
    ZooModel("squeezenet1.1-imagenet", "imagenet", "caffe", 0.602, CENTRE),
    ZooModel("efficientnet-lite0-torchscript-op13", "imagenet", "efficientnet-lite", 0.886, CENTRE),
    ZooModel("efficientnet-lite0-dynamo-op20", "imagenet", "efficientnet-lite", 0.886, CENTRE),
    ZooModel("mobilenet_v2_tflite_float_op13", "imagenet", None, 0.886, CENTRE),
    ZooModel("mobilenet_v2_tflite_qdq_op13", "imagenet", None, 0.882, CENTRE),
    ZooModel("mobilenet_v1_05_160_float_op13", "imagenet", None, 0.684, CENTRE),
    ZooModel("mobilenet_v1_025_128_qdq_op13", "imagenet", None, 0.448, CENTRE),
    ZooModel("mlperf_tiny_resnet8_keras", "cifar10", "raw", 0.773, WHOLE),
    ZooModel("mlperf_tiny_resnet_large", "cifar10", "raw", 0.806, WHOLE),
    ZooModel("mlperf_tiny_resnet8_qdq", "cifar10", "raw", 0.764, WHOLE),
    ZooModel("vnn_cifar10_resnet4b", "cifar10", "cifar10", 0.75, WHOLE),
    ZooModel("vnn_marabou_cifar10_large", "cifar10", "unit", 0.723, WHOLE),
    ZooModel("cifar10_7x7_4096", "cifar10", "cifar10", 0.799, WHOLE),
)

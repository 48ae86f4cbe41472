"""A name comes in, what that convention says about preparing images goes out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from onnxviz.errors import ContractError

__all__ = ["PRESETS", "Preset", "find_preset"]


@dataclass(frozen=True)
class Preset:
    """One convention: what it fixes of a Preprocess; size, layout and dtype come from the graph."""

    title: str
    """What it does, in words."""
    size: int
    """Side in pixels where the graph leaves it open."""
    fields: Mapping[str, Any] = field(default_factory=dict)


_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

PRESETS: Mapping[str, Preset] = {
    "imagenet": Preset(
        "RGB / 255, minus (.485, .456, .406), divided by (.229, .224, .225): torchvision, and timm by default",
        224,
        {"scale": 1 / 255, "mean": _IMAGENET_MEAN, "std": _IMAGENET_STD},
    ),
    "tf": Preset(
        "RGB / 127.5 - 1, so -1 to 1: Keras' mode 'tf' (Inception, Xception, MobileNet, ResNet v2)",
        224,
        {"scale": 1 / 127.5, "mean": (1.0,) * 3},
    ),
    "caffe": Preset(
        "BGR 0 to 255 minus (103.939, 116.779, 123.68): Caffe, and Keras' mode 'caffe' (VGG, ResNet50)",
        224,
        {"channels": "BGR", "mean": (103.939, 116.779, 123.68)},
    ),
    "unit": Preset("RGB / 255, so 0 to 1", 224, {"scale": 1 / 255}),
    "raw": Preset("the picture's RGB bytes, 0 to 255 (minus 128 for an int8 input)", 224, {}),
    "raw-bgr": Preset("the picture's bytes in the order BGR, 0 to 255", 224, {"channels": "BGR"}),
    "efficientnet-lite": Preset(
        "(RGB - 127) / 128 after a bicubic resize: EfficientNet-Lite",
        224,
        {"mean": (127.0,) * 3, "std": (128.0,) * 3, "interpolation": "bicubic"},
    ),
    "clip": Preset(
        "RGB / 255 with the mean and standard deviation of OpenAI's CLIP, bicubic, the whole centre square",
        224,
        {
            "scale": 1 / 255,
            "mean": (0.48145466, 0.4578275, 0.40821073),
            "std": (0.26862954, 0.26130258, 0.27577711),
            "interpolation": "bicubic",
            "crop_fraction": 1.0,
        },
    ),
    "yolo": Preset(
        "RGB / 255, the whole picture with its aspect kept, padded with grey 114: YOLO detectors",
        640,
        {"scale": 1 / 255, "fit": "pad", "background": (114, 114, 114)},
    ),
    "cifar10": Preset(
        "RGB / 255, minus (.4914, .4822, .4465), divided by (.2471, .2435, .2616), the whole picture",
        32,
        {"scale": 1 / 255, "mean": (0.4914, 0.4822, 0.4465), "std": (0.2471, 0.2435, 0.2616), "fit": "stretch"},
    ),
    "mnist": Preset(
        "grey / 255, minus .1307, divided by .3081, the whole picture",
        28,
        {"channels": "GRAY", "scale": 1 / 255, "mean": (0.1307,), "std": (0.3081,), "fit": "stretch"},
    ),
}

_OTHER_NAMES = {"torch": "imagenet", "raw-uint8": "raw", "inception": "tf"}


def find_preset(name: str) -> tuple[str, Preset]:
    """Look a preset up by its name, or of another name for it (``torch``, ``raw-uint8``, ``inception``).

    Raises
    ------
    ContractError
        When there is none; the names most like it are listed.
    """
    known = _OTHER_NAMES.get(name, name)
    if known not in PRESETS:
        raise ContractError(
            "no preset has this name", where="preprocess", got=repr(name),
            allowed=", ".join(map(repr, PRESETS)),
            next_step="Choose one of them, or give a TOML or JSON file that states the preprocessing",
        )  # fmt: skip
    return known, PRESETS[known]

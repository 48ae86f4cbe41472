"""What an exporter or a model hub writes about its input comes in; the same facts as fields of a contract go out.

Read here, besides the project's own key ``onnxviz.preprocess``:

* the ONNX standard's ``Image.BitmapPixelFormat`` and ``Image.NominalPixelRange`` (docs/MetadataProps.md of onnx);
* the metadata of Ultralytics' exporter (``author``, ``task``, ``imgsz``, ``stride``);
* ``preprocessor_config.json`` of Hugging Face transformers, as a file or under the metadata keys
  ``preprocessor_config`` and ``hf_preprocessor_config``;
* ``config.json`` / ``pretrained_cfg`` of timm, as a file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from onnxviz.errors import ContractError

__all__ = ["read_config", "read_metadata"]

# Pillow's resampling filters by the number that configuration files use.
_PILLOW_FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}


def read_metadata(metadata: Mapping[str, str]) -> tuple[dict[str, Any], str] | None:
    """Read what a model file's own metadata state about its input.

    Parameters
    ----------
    metadata : mapping of str to str
        ``metadata_props`` of the model.

    Returns
    -------
    (fields, why) or None
        The fields of a Preprocess that are stated, and by what; None where nothing is stated.

    Raises
    ------
    ContractError
        When a key that is known holds something that cannot be understood.
    """
    for key in ("onnxviz.preprocess", "preprocessor_config", "hf_preprocessor_config"):
        if key in metadata:
            stated = _parse_json(metadata[key], f"metadata {key!r}")
            if isinstance(stated, str) and key == "onnxviz.preprocess":
                stated = {"preset": stated}
            if not isinstance(stated, dict):
                raise ContractError("not a JSON object", where=f"metadata {key!r}", got=metadata[key][:80])
            return read_config(stated), f"the model's metadata {key!r}"
    if metadata.get("author") == "Ultralytics" and "task" in metadata:
        return _ultralytics(metadata), f"metadata of Ultralytics' exporter (task {metadata['task']})"
    return _onnx_image_metadata(metadata)


def read_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a Preprocess from a mapping of the project's own, of Hugging Face transformers or of timm."""
    if isinstance(config.get("pretrained_cfg"), Mapping):
        config = config["pretrained_cfg"]
    if "image_processor_type" in config or "do_normalize" in config or "image_mean" in config:
        return _hugging_face(config)
    if "input_size" in config and "mean" in config:
        return _timm(config)
    return dict(config)


def _parse_json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ContractError(
            "not valid JSON", where=where, got=str(error), next_step="Correct it, or pass preprocess=..."
        ) from error


def _ultralytics(metadata: Mapping[str, str]) -> dict[str, Any]:
    if metadata["task"] == "classify":
        # ultralytics/data/augment.py, classify_transforms: short side to the size, centre crop, mean 0, deviation 1.
        return {"name": "ultralytics", "preset": "unit", "fit": "crop", "crop_fraction": 1.0}
    return {"name": "ultralytics", "preset": "yolo"}


def _onnx_image_metadata(metadata: Mapping[str, str]) -> tuple[dict[str, Any], str] | None:
    folded = {key.lower(): value.strip().lower() for key, value in metadata.items()}
    order, span = folded.get("image.bitmappixelformat"), folded.get("image.nominalpixelrange")
    if order is None and span is None:
        return None
    orders = {"gray8": "GRAY", "rgb8": "RGB", "bgr8": "BGR"}
    spans = {
        "nominalrange_0_255": {"scale": 1.0, "mean": 0.0},
        "normalized_0_1": {"scale": 1 / 255, "mean": 0.0},
        "normalized_1_1": {"scale": 1 / 127.5, "mean": 1.0},
        "nominalrange_16_235": {"scale": 219 / 255, "mean": -16.0},
    }
    if (order or "rgb8") not in orders or (span or "nominalrange_0_255") not in spans:
        raise ContractError(
            "the model's image metadata name a pixel format that is not supported here",
            where="metadata Image.BitmapPixelFormat, Image.NominalPixelRange",
            got=f"{order or 'nothing'}, {span or 'nothing'}",
            allowed=f"{', '.join(orders)}; {', '.join(spans)}", next_step="Pass preprocess=... to state it",
        )  # fmt: skip
    if folded.get("image.colorspacegamma", "srgb") != "srgb":
        raise ContractError(
            "the model expects linear light, which is not supported here", where="metadata Image.ColorSpaceGamma",
            got=folded["image.colorspacegamma"], allowed="SRGB", next_step="Pass preprocess=... to override it",
        )  # fmt: skip
    fields = {"name": "onnx-image", **spans[span or "nominalrange_0_255"]}
    if order is not None:
        fields["channels"] = orders[order]
    return fields, "the ONNX image metadata of the file (Image.BitmapPixelFormat, Image.NominalPixelRange)"


def _hugging_face(config: Mapping[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = {"name": "hugging-face", "scale": 1.0, "fit": "stretch"}
    if config.get("do_rescale", "rescale_factor" in config or "image_mean" in config):
        fields["scale"] = config.get("rescale_factor", 1 / 255)
    if config.get("do_normalize", True):
        fields["mean"], fields["std"] = config.get("image_mean", 0.0), config.get("image_std", 1.0)
    if config.get("do_flip_channel_order"):
        fields["channels"] = "BGR"
    resample = config.get("resample", config.get("interpolation", 2))
    fields["interpolation"] = _PILLOW_FILTERS.get(resample, resample) if isinstance(resample, int) else resample
    size, crop = config.get("size"), config.get("crop_size")
    crops = bool(config.get("do_center_crop")) and crop is not None
    short_side = size.get("shortest_edge") if isinstance(size, Mapping) else (size if crops else None)
    if isinstance(short_side, (int, float)) and not isinstance(short_side, bool) and short_side > 0:
        fields["fit"], fields["crop_fraction"] = "crop", float(config.get("crop_pct") or 1.0)
        if crops:
            fields["size"] = _sides(crop)
            fields["crop_fraction"] = min(fields["size"]) / short_side
        elif "crop_pct" in config:
            fields["size"] = _sides(short_side)
    elif size is not None:
        fields["size"] = _sides(size)
        if crops and _sides(crop) != fields["size"]:
            raise ContractError(
                "the configuration stretches the picture and then crops it, which is not supported here",
                where="preprocessor_config", got=f"size {size}, crop_size {crop}",
                next_step="State fit, crop_fraction and size in a mapping or a TOML file",
            )  # fmt: skip
    return fields


def _sides(size: Any) -> list[Any]:
    if isinstance(size, Mapping):
        return [size.get("height"), size.get("width")]
    return list(size) if isinstance(size, (list, tuple)) else [size, size]


def _timm(config: Mapping[str, Any]) -> dict[str, Any]:
    size = config["input_size"]
    if not isinstance(size, (list, tuple)) or len(size) != 3:
        raise ContractError("not a timm input size", where="input_size", got=repr(size), allowed="[3, height, width]")
    return {
        "name": "timm",
        "scale": 1 / 255,
        "mean": config["mean"],
        "std": config.get("std", 1.0),
        "size": list(size[1:]),
        "fit": "stretch" if config.get("crop_mode") == "squash" else "crop",
        "crop_fraction": config.get("crop_pct", 0.875),
        "interpolation": config.get("interpolation", "bicubic"),
    }

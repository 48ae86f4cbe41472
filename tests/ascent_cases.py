"""A small classifier whose classes and features tests draw, and what a picture is scored by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

import onnxviz as ov
from graphs import build, save
from onnxviz.methods.ascent_recipes import Objectives
from onnxviz.methods.gradient_target import resolve_gradient_target
from onnxviz.runtime.model import Model

SIDE = 12
CONTRACT = {"size": [SIDE, SIDE], "scale": 1 / 255, "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3]}


def weights_of(seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {
        "w1": (random.standard_normal((6, 3, 3, 3)) / 5).astype(np.float32),
        "w2": (random.standard_normal((8, 6, 3, 3)) / 7).astype(np.float32),
        "head": random.standard_normal((4, 8)).astype(np.float32),
        "bias": random.standard_normal(4).astype(np.float32),
    }


def network(
    path: Path, *, layout: str = "NCHW", channels: str = "RGB", dtype: str = "float32", batch: int | str = "n",
    softmax: bool = False, last: str = "Relu",
) -> Model:  # fmt: skip
    """Conv, Softplus, Conv, Relu, global pool, Gemm: smooth but for one ReLU; four classes."""
    node = helper.make_node
    nodes, entry, kind = [], "image", "float"
    weights: dict[str, np.ndarray] = dict(weights_of())
    contract: dict[str, Any] = {**CONTRACT, "channels": channels, "layout": layout, "dtype": dtype}
    if dtype == "uint8":
        kind = "uint8"
        weights |= {"scale": np.array(0.02, np.float32), "zero": np.array(100, np.uint8)}
        contract["quantization"] = {"scale": 0.02, "zero_point": 100}
        nodes.append(node("DequantizeLinear", [entry, "scale", "zero"], ["real"]))
        entry = "real"
    if layout == "NHWC":
        nodes.append(node("Transpose", [entry], ["first"], perm=[0, 3, 1, 2]))
        entry = "first"
    nodes += [
        node("Conv", [entry, "w1"], ["conv1"], pads=[1, 1, 1, 1]),
        node("Softplus", ["conv1"], ["soft"]),
        node("Conv", ["soft", "w2"], ["conv2"], strides=[2, 2]),
        node(last, ["conv2"], ["relu"]),
        node("GlobalAveragePool", ["relu"], ["pool"]),
        node("Flatten", ["pool"], ["features"]),
        node("Gemm", ["features", "head", "bias"], ["logits"], transB=1),
    ]
    if softmax:
        nodes.append(node("Softmax", ["logits"], ["prob"], axis=1))
    shape = [batch, 3, SIDE, SIDE] if layout == "NCHW" else [batch, SIDE, SIDE, 3]
    proto = build(
        nodes, inputs={"image": (kind, shape)}, weights=weights,
        outputs={"prob" if softmax else "logits": ("float", [batch, 4])},
    )  # fmt: skip
    return ov.load(
        save(proto, path), preprocess=contract, device="cpu", threads=1,
        output={"output": "prob" if softmax else "logits", "kind": "probabilities" if softmax else "logits"},
        labels=["ant", "bee", "cat", "dog, hound"],
    )  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return network(tmp_path_factory.mktemp("ascent") / "net.onnx")


def objectives_of(model: Model, classes: list[int], **options: Any) -> Objectives:
    blank = model.preprocess.encode(np.zeros((1, *model.preprocess.size, 3), np.uint8))
    rows = np.broadcast_to(blank, (len(classes), *blank.shape[1:]))
    return Objectives(model, resolve_gradient_target(model, classes, rows), **options)

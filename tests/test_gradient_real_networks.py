"""Real networks brought to operator sets 18 to 21 compute the same numbers, wherever their weights lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from light_models import LIGHT, with_random_weights
from onnxviz.graph.detached import detach_weights
from onnxviz.graph.gradient.decompose import decompose
from onnxviz.graph.gradient.upgrade import upgrade
from onnxviz.graph.wiring import default_opset, real_inputs
from rewritten_graphs import made_by, same_values
from zoo_models import ZOO


def real_network(before: onnx.ModelProto) -> None:
    shapes = {
        value.name: [side.dim_value or 1 for side in value.type.tensor_type.shape.dim]
        for value in real_inputs(before.graph)
    }
    generator = np.random.default_rng(0)
    feeds = {}
    for value in real_inputs(before.graph):
        kind = np.dtype(helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))
        numbers = generator.uniform(0, 1 if kind.kind == "f" else 120, shapes[value.name])
        feeds[value.name] = numbers.astype(kind)
    after = upgrade(before, where="a file")
    assert 18 <= default_opset(after) <= 21
    onnx.checker.check_model(after, full_check=True)
    same_values(before, after, feeds)
    written = decompose(after, where="a file")
    assert written.SerializeToString(deterministic=True) == after.SerializeToString(deterministic=True)

    skeleton, detached = onnx.ModelProto(), onnx.ModelProto()
    skeleton.CopyFrom(before)
    weights = detach_weights(skeleton)
    assert weights
    detached.CopyFrom(written)
    assert detach_weights(detached).keys() == weights.keys()
    from_skeleton = decompose(upgrade(skeleton, where="a file"), where="a file")
    assert from_skeleton.SerializeToString(deterministic=True) == detached.SerializeToString(deterministic=True)


@pytest.mark.parametrize("model", ZOO, ids=lambda model: model.name)
def test_zoo(model: Any, zoo: Path) -> None:
    real_network(onnx.load(model.path(zoo)))


MANY_WEIGHTS = ("light_bvlc_alexnet", "light_resnet50", "light_vgg19", "light_zfnet512")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(path.stem, marks=[pytest.mark.slow] if path.stem in MANY_WEIGHTS else [])
        for path in sorted(LIGHT.glob("light_*.onnx"))
    ],
)
def test_light_models(name: str) -> None:
    real_network(with_random_weights(onnx.load(LIGHT / f"{name}.onnx"), seed=0))


@pytest.mark.parametrize("path", sorted(LIGHT.glob("light_*.onnx")), ids=lambda path: path.stem)
def test_light_models_as_they_come(path: Path) -> None:
    """Their weights come from ConstantOfShape: small files whose graphs hold every operator of the nine networks."""
    before = onnx.load(path)
    after = upgrade(before, where="a file")
    assert (default_opset(before), default_opset(after)) == (9, 18)
    assert set(made_by(before)) <= set(made_by(after))
    assert len(after.graph.input) == 1
    onnx.checker.check_model(after, full_check=True)

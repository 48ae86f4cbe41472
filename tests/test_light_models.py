"""The nine architectures of the onnx wheel: IR 3, every initializer an input, a batch of one fixed in file and Reshape."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import onnxviz as ov
from light_models import light_models

NAMES = (
    "light_bvlc_alexnet",
    "light_densenet121",
    "light_inception_v1",
    "light_inception_v2",
    "light_resnet50",
    "light_shufflenet",
    "light_squeezenet",
    "light_vgg19",
    "light_zfnet512",
)
FEATURES = {"light_bvlc_alexnet": 4096, "light_vgg19": 4096, "light_zfnet512": 1024, "light_resnet50": 2048}


@pytest.fixture(scope="module")
def light(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return light_models(tmp_path_factory.getbasetemp() / "light")


@pytest.mark.parametrize("name", NAMES)
def test_batch_taps_and_landmarks(name: str, light: dict[str, Path]) -> None:
    model = ov.load(light[name], preprocess="imagenet", device="cpu")
    assert len(model.inputs) == 1
    assert model.fixed_batch is None, model.notes
    tensor = next(iter(model.probe(5).values()))
    together = model.run(tensor)
    for output, whole in together.items():
        singles = np.concatenate([model.run(tensor[i : i + 1], (output,))[output] for i in range(5)])
        np.testing.assert_allclose(whole, singles, rtol=1e-5, atol=1e-5)
    names = model.float_values()
    assert len(names) > 10
    assert set(model.run(tensor[:1], names)) == set(names)
    assert model.tap_difference(names) < 1e-4
    assert model.output.kind == ("logits" if name == "light_densenet121" else "probabilities")
    assert ov.filters(model).weights.shape[1] == 3
    if name in FEATURES:
        assert model.shapes()[str(model.feature_value)] == (1, FEATURES[name])

"""Feature pictures: against the values that are drawn, from units that sleep, and refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

import ascent_cases
import onnxviz as ov
from ascent_cases import CONTRACT, SIDE, network, weights_of
from graphs import build, save
from onnxviz.errors import InputError
from onnxviz.methods.ascent_recipes import Objectives
from onnxviz.methods.feature_visualization import channel_target
from onnxviz.methods.picture_scores import PictureScores
from onnxviz.methods.relu_startup import REDIRECTED, STARTUP_STEPS
from onnxviz.runtime.model import Model

model = ascent_cases.model


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_channels_and_neurons(layout: str, tmp_path: Path) -> None:
    opened = network(tmp_path / "net.onnx", layout=layout)
    found = ov.feature_visualization(opened, "soft", channels=[4, 1], steps=30)
    maps = opened.run(opened.preprocess.encode(found.pictures), ("soft",))["soft"]
    np.testing.assert_allclose(found.scores, maps[[0, 1], [4, 1]].mean(axis=(1, 2)), rtol=1e-5)
    assert (found.scores > found.start_scores).all()
    assert found.position is None
    neuron = ov.feature_visualization(opened, "conv1", unit="neuron", channels=[2], steps=10)
    # Twelve rows and columns: the lower right of the middle four.
    assert neuron.position == (6, 6)
    values = opened.run(opened.preprocess.encode(neuron.pictures), ("conv1",))["conv1"]
    assert neuron.scores[0] == pytest.approx(values[0, 2, 6, 6], rel=1e-5)
    odd = ov.feature_visualization(opened, "conv2", unit="neuron", channels=[0], position=(0, 4), steps=2)
    values = opened.run(opened.preprocess.encode(odd.pictures), ("conv2",))["conv2"]
    assert odd.scores[0] == pytest.approx(values[0, 0, 0, 4], rel=1e-5)
    flat = ov.feature_visualization(opened, "logits", steps=2)
    assert flat.channels.tolist() == [0, 1, 2, 3]
    last = list(ov.feature_visualization_steps(opened, "logits", steps=2))[-1]
    np.testing.assert_array_equal(last.result.pictures, flat.pictures)


def test_channels_last_inside_the_graph(tmp_path: Path) -> None:
    """The value's channels are its last axis, and both kinds of unit are found there."""
    proto = build(
        [
            helper.make_node("Transpose", ["image"], ["first"], perm=[0, 3, 1, 2]),
            helper.make_node("Conv", ["first", "w1"], ["conv"], pads=[1, 1, 1, 1]),
            helper.make_node("Transpose", ["conv"], ["last"], perm=[0, 2, 3, 1]),
        ],
        inputs={"image": ("float", ["n", SIDE, SIDE, 3])},
        outputs={"last": ("float", ["n", SIDE, SIDE, 6])},
        weights={"w1": weights_of()["w1"]},
    )
    contract = {**CONTRACT, "channels": "RGB", "layout": "NHWC"}
    opened = ov.load(save(proto, tmp_path / "last.onnx"), preprocess=contract, device="cpu", threads=1)
    assert opened.channel_axis("last") == 3
    found = ov.feature_visualization(opened, "last", unit="neuron", channels=[5], position=(2, 7), steps=3)
    values = opened.run(opened.preprocess.encode(found.pictures), ("last",))["last"]
    assert found.scores[0] == pytest.approx(values[0, 2, 7, 5], rel=1e-5)
    weights = channel_target(opened, "last", [5], None).seeds(slice(0, 1), {"last": (SIDE, SIDE, 6)})["last"]
    np.testing.assert_allclose(weights[..., 5], 1 / SIDE**2)
    assert weights[..., :5].max() == 0


def test_a_unit_that_sleeps_is_woken(tmp_path: Path) -> None:
    """A channel that is 0 for every grey picture has no gradient; redirected, it has one for 16 steps."""
    weights = np.zeros((2, 3, 1, 1), np.float32)
    weights[0, 0], weights[1, 0] = 1, 1
    proto = build(
        [
            helper.make_node("Conv", ["image", "w", "b"], ["conv"]),
            helper.make_node("Relu", ["conv"], ["relu"]),
            helper.make_node("Clip", ["conv", "zero", "six"], ["clip"]),
        ],
        inputs={"image": ("float", ["n", 3, SIDE, SIDE])},
        outputs={"relu": ("float", ["n", 2, SIDE, SIDE]), "clip": ("float", ["n", 2, SIDE, SIDE])},
        weights={
            "w": weights, "b": np.array([-0.6, 0.5], np.float32), "zero": np.array(0, np.float32),
            "six": np.array(6, np.float32),
        },
    )  # fmt: skip
    opened = ov.load(save(proto, tmp_path / "asleep.onnx"), preprocess="unit", device="cpu", threads=1, output="relu")
    grey = np.full((2, 3, SIDE, SIDE), 0.5, np.float32)
    for value in ("relu", "clip"):
        target = channel_target(opened, value, [0, 1], None)
        assert not PictureScores(opened, target)(grey)[1][0].any()
        scores, redirected = PictureScores(opened, target, REDIRECTED)(grey)
        np.testing.assert_allclose(redirected[:, 0], 1 / SIDE**2, rtol=1e-5)
        np.testing.assert_allclose(scores, [0, 1], atol=1e-6)
        # What lets something through keeps its true derivative, picture by picture.
        np.testing.assert_array_equal(redirected[1], PictureScores(opened, target)(grey)[1][1])
    found = ov.feature_visualization(opened, "relu", channels=[0], start="grey", steps=60)
    assert found.start_scores[0] < 0.02
    assert found.scores[0] > 0.1
    asked = Objectives(opened, channel_target(opened, "relu", [0], None), startup=REDIRECTED)
    assert asked(STARTUP_STEPS - 1) is not asked(STARTUP_STEPS)
    assert asked(STARTUP_STEPS) is asked.scores


def test_redirection_never_pushes_further_below(tmp_path: Path) -> None:
    """Of a sleeping ReLU, only what would raise its inputs is handed on."""
    proto = build(
        [helper.make_node("Relu", ["image"], ["relu"]), helper.make_node("Mul", ["relu", "signs"], ["out"])],
        inputs={"image": ("float", ["n", 3, SIDE, SIDE])}, outputs={"out": ("float", ["n", 3, SIDE, SIDE])},
        weights={"signs": np.array([1, -1, 1], np.float32).reshape(1, 3, 1, 1)},
    )  # fmt: skip
    contract = {"size": [SIDE, SIDE], "scale": 1 / 255, "mean": [2, 2, 0.25], "std": [1, 1, 1]}
    opened = ov.load(save(proto, tmp_path / "signs.onnx"), preprocess=contract, device="cpu", threads=1)
    from onnxviz.methods.gradient import gradient

    asleep = np.full((1, 3, SIDE, SIDE), -1, np.float32)
    awake = asleep.copy()
    awake[0, 2, 0, 0] = 1
    ones = {"out": np.ones((1, 3, SIDE, SIDE), np.float32)}
    found = gradient(opened, asleep, ones, rules=REDIRECTED)
    assert (found[0, [0, 2]] == 1).all()
    assert (found[0, 1] == 0).all()
    found = gradient(opened, awake, ones, rules=REDIRECTED)
    assert found.sum() == found[0, 2, 0, 0] == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"unit": "layer"}, "no such unit"),
        ({"channels": [8]}, "no such channels"),
        ({"channels": [1, 1]}, "no such channels"),
        ({"channels": []}, "no such channels"),
        ({"position": (0, 0)}, "shown as a whole"),
        ({"unit": "neuron", "position": (5, 0)}, "no such position"),
        ({"unit": "neuron", "position": 3}, "no such position"),
        ({"value": "features", "unit": "neuron", "position": (0, 0)}, "no spatial axes"),
    ],
    ids=range(8),
)
def test_features_that_cannot_be_are_refused(model: Model, arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        ov.feature_visualization(model, **({"value": "relu", "steps": 1} | arguments))

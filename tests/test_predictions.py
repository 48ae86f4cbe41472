"""Predictions: order, ties, histogram, confusion, and which class folder stands for which class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.text import Text
from onnx import numpy_helper

import onnxviz as ov
from embedded_cifar import PATH, cifar_model, picture_set
from graphs import save, tiny_network
from onnxviz.methods.predictions import map_classes

NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def test_top5_histogram_and_confusion_agree_with_the_probabilities() -> None:
    labels = np.arange(30) % 10
    model = ov.load(PATH, preprocess="cifar10", labels=NAMES, device="cpu")
    images = picture_set(30, labels=labels, class_names=NAMES)
    probability = model.predict(images)
    got = ov.predictions(model, images)
    np.testing.assert_array_equal(got.top, np.argsort(-probability, axis=1, kind="stable")[:, :5])
    np.testing.assert_allclose(got.top_scores, -np.sort(-probability, axis=1)[:, :5])
    assert got.histogram.sum() == 30
    assert got.histogram[19] == (probability.max(axis=1) >= 0.95).sum()
    assert got.confusion is not None
    assert np.trace(got.confusion) == (probability.argmax(axis=1) == labels).sum()
    assert got.accuracy == pytest.approx((probability.argmax(axis=1) == labels).mean())
    assert got.accuracy_top5 == pytest.approx((got.top == labels[:, None]).any(axis=1).mean())
    assert got.images.shape == (8, 32, 32, 3)


def test_unlabelled_images_have_no_accuracy() -> None:
    got = ov.predictions(cifar_model(), picture_set(4))
    assert got.confusion is None
    assert got.accuracy is None


def test_one_score_is_no_class(tmp_path: Path) -> None:
    proto = tiny_network()
    head = next(tensor for tensor in proto.graph.initializer if tensor.name == "head")
    bias = next(tensor for tensor in proto.graph.initializer if tensor.name == "bias")
    head.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(head)[:1], "head"))
    bias.CopyFrom(numpy_helper.from_array(np.zeros(1, np.float32), "bias"))
    proto.graph.node[-1].op_type = "Sigmoid"
    del proto.graph.node[-1].attribute[:]
    proto.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 1
    model = ov.load(save(proto, tmp_path / "one.onnx"), preprocess="unit", device="cpu")
    photos = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8)
    images = ov.load_images(photos, model)
    found = ov.predictions(model, images)
    assert found.class_names == ("the only score",)
    np.testing.assert_allclose(found.top_scores, model.predict(images))
    said = [text.get_text() for text in ov.plot(found).findobj(Text)]
    assert "the score" in said
    assert not [text for text in said if "class" in text]


def test_folders_answer_to_labels_numbers_or_order() -> None:
    by_name = map_classes(("Tiger_Cat", "unknown", "sports car"), ("sports car, sport car", "tiger cat"), 2)
    assert by_name is not None
    assert by_name.classes.tolist() == [1, -1, 0]
    assert not by_name.guessed
    by_number = map_classes(("007", "2"), None, 10)
    assert by_number is not None
    assert by_number.classes.tolist() == [7, 2]
    by_order = map_classes(("a", "b", "c"), None, 3)
    assert by_order is not None
    assert by_order.guessed
    assert map_classes(("a", "b"), None, 3) is None
    assert map_classes(("a", "b", "c"), ("x", "y", "z"), 3) is None
    assert map_classes(None, NAMES, 10) is None

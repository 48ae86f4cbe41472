"""Every real model of the zoo: loads, lists, batches, taps, and answers right with the stated preprocessing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import onnxviz as ov
from onnxviz.inputs.images import ImageSet
from onnxviz.runtime.model import Model
from zoo_models import ZOO, ZooModel

MODELS = pytest.mark.parametrize("entry", ZOO, ids=lambda entry: entry.name)


def opened(entry: ZooModel, zoo: Path) -> Model:
    return ov.load(entry.path(zoo), preprocess=entry.preprocess, labels=entry.labels(zoo), device="cpu")


def photos(entry: ZooModel, zoo: Path, model: Model) -> ImageSet:
    return ov.load_images(zoo / "images" / entry.images, model)


@MODELS
def test_batch_of_five_equals_five_single_runs(entry: ZooModel, zoo: Path) -> None:
    model = opened(entry, zoo)
    tensor = next(iter(photos(entry, zoo, model).batches(5))).tensor
    together = model.run(tensor)
    singles = [model.run(tensor[i : i + 1]) for i in range(5)]
    for name, whole in together.items():
        parts = np.concatenate([single[name] for single in singles])
        np.testing.assert_allclose(whole.astype(float), parts.astype(float), rtol=1e-5, atol=1e-5)


@MODELS
def test_every_float_value_can_be_tapped(entry: ZooModel, zoo: Path) -> None:
    model = opened(entry, zoo)
    names = model.float_values()
    assert len(names) > 5
    output = model.output.output
    tensor = next(iter(photos(entry, zoo, model).batches(4))).tensor
    plain = model.run(tensor, (output,))[output]
    tapped = model.run(tensor, (output, *names))
    assert set(tapped) == {output, *names}
    difference = np.abs(tapped[output].astype(float) - plain).max()
    # A tap between QuantizeLinear and DequantizeLinear keeps onnxruntime from running the operators around it in
    # integers; with all of them tapped the file's own arithmetic runs, and an 8-bit output moves by up to 7 of its
    # 256 steps on photos (measured), never to another class.
    assert difference <= (8 if model.output.quantization else 1e-4 * np.abs(plain).max())
    assert np.array_equal(tapped[output].reshape(4, -1).argmax(1), plain.reshape(4, -1).argmax(1))


@MODELS
def test_top1_is_what_the_preprocessing_promises(entry: ZooModel, zoo: Path) -> None:
    model = opened(entry, zoo)
    images = photos(entry, zoo, model)
    if entry.images == "imagenet":
        truth = np.array([int(name.split("_")[0]) for name in images.names]) + (model.output.classes == 1001)
    else:
        # The first 100 of each class.
        by_class = [np.flatnonzero(images.folder_classes == c)[:100] for c in range(10)]
        chosen = np.sort(np.concatenate(by_class))
        truth, images = images.folder_classes[chosen], images.subset(chosen)
    result = ov.predictions(model, images)
    top1 = float((result.top[:, 0] == truth).mean())
    assert top1 == pytest.approx(entry.top1, abs=0.01), f"top-1 {top1:.3f} ({entry.crop})"


@MODELS
def test_first_filters_and_features_are_found(entry: ZooModel, zoo: Path) -> None:
    model = opened(entry, zoo)
    weights = ov.filters(model).weights
    assert weights.ndim == 4
    assert weights.shape[1] == 3
    assert np.ptp(weights) > 0
    found = ov.features(model, photos(entry, zoo, model).subset(np.arange(6)))
    assert found.array.shape[0] == 6
    assert np.ptp(found.array, axis=0).any()

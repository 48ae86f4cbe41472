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
    arrays = model.run(next(iter(model.probe(2).values())), names)
    assert set(arrays) == set(names)
    # Taps can block fusions: the outputs may then differ in the last bits, and an 8-bit output by one step.
    step = model.output.quantization[0] if model.output.quantization else 0.0
    assert model.tap_difference(names) <= max(1e-4, 2 * step)


@MODELS
def test_top1_is_what_the_preprocessing_promises(entry: ZooModel, zoo: Path) -> None:
    model = opened(entry, zoo)
    images = photos(entry, zoo, model)
    if entry.images == "imagenet":
        truth = np.array([int(name.split("_")[0]) for name in images.names]) + (model.output.classes == 1001)
    else:
        # The first 100 of each class.
        chosen = [i for i in range(len(images)) if int(Path(images.names[i]).stem.lstrip("0") or 0) >= 0]
        by_class = [np.flatnonzero(images.folder_classes == c)[:100] for c in range(10)]
        chosen = np.sort(np.concatenate(by_class))
        truth, images = images.folder_classes[chosen], images.subset(chosen)
    result = ov.predictions(model, images)
    top1 = float((result.top[:, 0] == truth).mean())
    assert top1 == pytest.approx(entry.top1, abs=0.01), f"top-1 {top1:.3f} ({entry.crop})"

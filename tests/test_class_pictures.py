"""Class and feature pictures on paper, in the command and in the report."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from matplotlib.text import Text
from PIL import Image

import drawn_results as make
import onnxviz as ov
from golden import assert_golden
from graphs import save, tiny_network
from onnxviz.cli import main
from onnxviz.errors import InputError, UnsupportedOperatorError
from onnxviz.pictures import plot, to_png_bytes
from onnxviz.report.budget import plan_pictures
from onnxviz.report.examination import Examination, Options
from onnxviz.report.section import SectionSkipped
from onnxviz.report.sections import SECTIONS
from onnxviz.report.sections.class_pictures import chosen_classes
from onnxviz.report.sections.class_pictures import make as make_section
from onnxviz.results import ClassVisualization, FeatureVisualization


def class_pictures(count: int = 5, *, facets: int = 0, start: Any = "mean", alike: bool = False) -> ClassVisualization:
    random = np.random.default_rng(1)
    pictures = make.photos(count, 24)
    steps = np.arange(1, 41)[:, np.newaxis]
    return ClassVisualization(
        pictures=pictures,
        classes=np.arange(count) // facets if facets else np.arange(count),
        facets=np.arange(count) % facets if facets else np.zeros(count, np.int64),
        starts=make.photos(1, 24, 9).repeat(count, axis=0) if alike else make.photos(count, 24, 5) if facets else None,
        scores=np.linspace(5, 12, count, dtype=np.float32),
        probabilities=np.linspace(0.99, 0.85, count, dtype=np.float32),
        jitters=32,
        reach=2,
        curve=(10 * (1 - np.exp(-steps / 10)) + random.normal(0, 0.3, (40, count))).astype(np.float32),
        scale="logit",
        method="fourier",
        labels=("cat, house cat", "dog", "ship", "a thing with a very long name indeed", "hay"),
        provenance=make.provenance("class_visualization", start=start, images=20 if start == "images" else None),
    )


def feature_pictures(*, position: tuple[int, int] | None = None) -> FeatureVisualization:
    return FeatureVisualization(
        value="relu",
        unit="channel" if position is None else "neuron",
        channels=np.array([0, 3, 4, 17]),
        position=position,
        pictures=make.photos(4, 24, 3),
        scores=np.array([3, 2.5, 0, 8], np.float32),
        start_scores=np.array([0.1, 0.2, 0, 1], np.float32),
        curve=np.ones((30, 4), np.float32),
        provenance=make.provenance("feature_visualization"),
    )


GOLDEN: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "class_visualization": (class_pictures, {"curves": True}),
    "class_visualization_facets": (lambda: class_pictures(4, facets=2), {}),
    "class_visualization_start": (lambda: class_pictures(start="images", alike=True), {"columns": 6}),
    "feature_visualization": (lambda: feature_pictures(position=(3, 4)), {}),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden(name: str, pytestconfig: pytest.Config) -> None:
    build, options = GOLDEN[name]
    update = bool(pytestconfig.getoption("--update-golden"))
    assert_golden(to_png_bytes(plot(build(), **options), dpi=60), f"picture_{name}", update=update)


def texts(result: object, **options: Any) -> str:
    return "\n".join(artist.get_text() for artist in plot(result, **options).findobj(Text))


def test_what_stands_on_the_pictures() -> None:
    said = texts(class_pictures())
    assert "house cat" not in said
    assert "cat\n" in said
    assert "60% stay above .9 when shifted" in said
    assert "All started from the colour 'mean' and noise." in said
    assert "the mean of 20 images of any class" in texts(class_pictures(start="images", alike=True))
    assert "start of all" in texts(class_pictures(start="images", alike=True))
    assert "What the network takes for cat" in texts(class_pictures(3, facets=3))
    bare = dataclasses.replace(class_pictures(2), labels=None)
    assert "class 1" in texts(bare)
    said = texts(feature_pictures())
    assert "channel 17" in said
    assert "1 picture did not rise above the start" in said
    assert "4 neurons at row 3, column 4" in texts(feature_pictures(position=(3, 4)))
    for result in (class_pictures(), feature_pictures()):
        with pytest.raises(InputError, match="at least one column"):
            plot(result, columns=0)
        with pytest.raises(InputError, match="several panels"):
            plot(result, ax=object())


def test_many_classes_and_none() -> None:
    many = class_pictures(120)
    assert plot(many).get_size_inches()[0] <= 11
    none = class_pictures(0)
    assert to_png_bytes(plot(none), dpi=30)


# -- the command -------------------------------------------------------------------------------------------------------


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """The command in a folder with tiny.onnx, labels.txt and images/: exit code, standard output, standard error."""
    save(tiny_network(), tmp_path / "tiny.onnx")
    (tmp_path / "labels.txt").write_text("ant\nbee\ncat\n")
    random = np.random.default_rng(1)
    for name in ("ant", "bee"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for index in range(6):
            pixels = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{index}.png")
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            main(["visualize", "tiny.onnx", "--preprocess", "unit", *map(str, arguments)])
        assert isinstance(left.value.code, int)
        printed = capsys.readouterr()
        return left.value.code, printed.out, printed.err

    return run


@pytest.mark.parametrize(
    ("arguments", "result", "count"),
    [
        ((), "ClassVisualization", 3),
        (("--classes", "bee", "--class", 0, "--labels", "labels.txt", "--objective", "probability"), "ClassVisualization", 2),
        (
            ("--labels", "labels.txt", "--images", "images", "--facets", 2, "--class", "ant", "--method", "yosinski"),
            "ClassVisualization", 2,
        ),
        (("--images", "images", "--start", "images", "--set", "noise=0.1", "--set", "copies=2"), "ClassVisualization", 3),
        (("--value", "relu", "--channels", 2, "--channel", 0), "FeatureVisualization", 2),
        (("--value", "relu", "--unit", "neuron", "--seed", 3, "--start", "grey"), "FeatureVisualization", 4),
    ],
    ids=["all", "two", "facets", "start", "channels", "neurons"],
)  # fmt: skip
def test_the_command_writes_picture_and_numbers(
    command: Callable[..., tuple[int, str, str]], arguments: tuple[object, ...], result: str, count: int
) -> None:
    code, out, err = command("--steps", 3, "-o", "v.png", "--json", "v.json", *arguments)
    assert (code, out.split()) == (0, ["v.png", "v.json"]), err
    with Image.open("v.png") as picture:
        assert picture.width > 300
    numbers = json.loads(Path("v.json").read_bytes())
    assert numbers["result"] == result
    assert len(numbers["scores"]) == count
    assert np.shape(numbers["curve"]) == (3, count)
    assert numbers["provenance"]["parameters"]["steps"] == 3


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--class", "wasp", "--labels", "labels.txt"), "no class has that label"),
        (("--class", 3), "no such class"),
        (("--channel", 1), "channels and units are of a value"),
        (("--value", "relu", "--class", 1), "a value has no classes"),
        (("--value", "rely"), "relu"),
        (("--set", "noise"), "not a number of a method"),
        (("--set", "nose=1"), "noise"),
        (("--facets", 2), "facets are found among images"),
        (("--method", "dream"), "no such method"),
    ],
    ids=range(9),
)  # fmt: skip
def test_the_command_refuses_in_one_sentence(
    command: Callable[..., tuple[int, str, str]], arguments: tuple[object, ...], sentence: str
) -> None:
    code, out, err = command("--steps", 2, *arguments)
    assert (code, out) == (2, "")
    assert sentence in err
    assert "Traceback" not in err


# -- the report --------------------------------------------------------------------------------------------------------


def test_the_budget_follows_from_counted_work() -> None:
    budget = 5 * 10**11
    small = plan_pictures(10**6, 10, budget=budget)
    assert (small.pictures, small.steps) == (10, 128)
    squeezenet = plan_pictures(352_000_000, 1000, budget=budget)
    assert (squeezenet.pictures, squeezenet.steps) == (7, 64)
    assert squeezenet.macs == 7 * 64 * 3 * 352_000_000 <= budget
    assert "7 of 1,000 classes" in squeezenet.text
    assert plan_pictures(4 * 10**9, 1000, budget=budget).pictures == 1
    assert plan_pictures(20 * 10**9, 1000, budget=budget).pictures == 0
    assert plan_pictures(0, 2, budget=budget).pictures == 2


def exam_of(model: ov.Model, **shared: Any) -> Examination:
    return Examination(model, None, "no images were given", Options(seed=4), shared=shared)


def test_the_section_shows_the_classes_that_the_images_were_taken_for(tmp_path: Path) -> None:
    model = ov.load(save(tiny_network(), tmp_path / "tiny.onnx"), preprocess="unit", labels=["ant", "bee", "cat"])
    answers = dataclasses.replace(make.predictions(), top=np.array([[2, 0], [1, 0], [2, 1]]))
    assert chosen_classes(exam_of(model, predictions=answers), 2) == [2, 1]
    assert chosen_classes(exam_of(model, predictions=answers), 3) == [2, 1, 0]
    assert chosen_classes(exam_of(model), 2) == [0, 2]
    (outline,) = [outline for outline in SECTIONS if outline.name == "class_pictures"]
    section = outline.empty()
    make_section(exam_of(model, predictions=answers), section)
    assert [entry["label"] for entry in section.numbers["pictures"]] == ["cat", "bee", "ant"]
    assert section.numbers["plan"]["steps"] == 128
    assert section.arrays["pictures"].shape == (3, 8, 8, 3)
    assert section.arrays["curve"].shape == (128, 3)
    (figure,) = section.figures
    assert figure.caption.startswith("3 class pictures; ")
    assert section.numbers["parameters"]["seed"] == 4


def test_small_pictures_start_from_what_the_images_have_in_common(tmp_path: Path) -> None:
    model = ov.load(save(tiny_network(), tmp_path / "tiny.onnx"), preprocess="unit")
    (outline,) = [outline for outline in SECTIONS if outline.name == "class_pictures"]
    photos = np.random.default_rng(0).integers(0, 256, (16, 8, 8, 3), np.uint8)
    costs = []
    for count, start, objective, steps in ((16, "images", "probability", 256), (15, "mean", "logit", 128)):
        exam = dataclasses.replace(exam_of(model), images=ov.load_images(photos[:count], model))
        section = outline.empty()
        make_section(exam, section)
        assert section.numbers["parameters"]["start"] == start
        assert section.numbers["parameters"]["objective"] == objective
        assert section.numbers["plan"]["steps"] == steps
        costs.append(section.numbers["plan"]["macs"])
    # Twice the steps, each of two placements.
    assert costs[0] == 4 * costs[1]


def test_the_section_says_why_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (outline,) = [outline for outline in SECTIONS if outline.name == "class_pictures"]
    proto = tiny_network()
    del proto.graph.output[:]
    proto.graph.output.append(onnx.helper.make_tensor_value_info("conv", onnx.TensorProto.FLOAT, ["n", 4, 8, 8]))
    maps = ov.load(save(proto, tmp_path / "maps.onnx"), preprocess="unit")
    with pytest.raises(SectionSkipped, match="not a classifier"):
        make_section(exam_of(maps), outline.empty())
    model = ov.load(save(tiny_network(), tmp_path / "tiny.onnx"), preprocess="unit")

    def refuse(*_: Any, **__: Any) -> None:
        raise UnsupportedOperatorError("this node has no derivative", where="tiny.onnx")

    with monkeypatch.context() as patch:
        patch.setattr("onnxviz.report.sections.class_pictures.class_visualization", refuse)
        with pytest.raises(SectionSkipped, match="no derivative"):
            make_section(exam_of(model), outline.empty())
    model = ov.load(model.path, preprocess="unit")
    monkeypatch.setattr(type(model), "macs", 10**11)
    with pytest.raises(SectionSkipped, match="too costly"):
        make_section(exam_of(model), outline.empty())

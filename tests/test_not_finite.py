"""A network whose numbers are NaN: every method and picture says so, and nothing is counted as an answer."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from matplotlib.text import Text
from onnx import numpy_helper

import onnxviz as ov
from graphs import save, tiny_network
from onnxviz.errors import ModelError
from onnxviz.report import audit
from onnxviz.runtime.model import Model

PHOTOS = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), np.uint8)


@pytest.fixture(params=[np.nan, np.inf], ids=["NaN", "infinity"])
def broken(tmp_path: Path, request: pytest.FixtureRequest) -> Model:
    """The tiny network with one NaN in its first weights: one channel of its maps is NaN, and so is every score.

    An infinite weight makes that channel infinite, and the softmax over it NaN.
    """
    proto = tiny_network()
    (tensor,) = (tensor for tensor in proto.graph.initializer if tensor.name == "w")
    weights = numpy_helper.to_array(tensor).copy()
    weights[1, 0, 1, 1] = request.param
    tensor.CopyFrom(numpy_helper.from_array(weights, "w"))
    return ov.load(save(proto, tmp_path / "broken.onnx"), preprocess="unit", device="cpu")


def words(result: object) -> str:
    return " ".join(text.get_text() for text in ov.plot(result).findobj(Text))


def test_explanations_say_that_they_say_nothing(broken: Model) -> None:
    whole = ov.integrated_gradients(broken, PHOTOS[0], 0)
    assert any("no finite number" in note for note in whole.notes)
    assert not any("more steps" in note for note in whole.notes)
    activation = ov.gradcam(broken, PHOTOS[0], 0)
    assert any("not finite" in note for note in activation.notes)
    for result in (whole, activation, ov.saliency(broken, PHOTOS[0], 0)):
        assert "What is explained is no finite number itself" in words(result)
    drawn = words(activation)
    assert "No number of the map is finite" in drawn
    assert "0 everywhere" not in drawn


def test_a_score_that_is_no_number_is_no_answer(broken: Model, tmp_path: Path) -> None:
    from PIL import Image

    for number, photo in enumerate(PHOTOS):
        folder = tmp_path / "photos" / str(number % 3)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo).save(folder / f"{number}.png")
    found = ov.predictions(broken, ov.load_images(tmp_path / "photos", broken))
    assert found.classes is not None
    assert found.classes.tolist() == [0, 0, 1, 1, 2, 2]
    assert (found.accuracy, found.accuracy_top5, found.confusion) == (None, None, None)
    assert not found.histogram.any()


def test_ascent_stops_at_once(broken: Model) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ModelError, match=r"broken.onnx: the score of a picture, or its derivative, is not"):
            ov.class_visualization(broken, [0, 2], steps=4)


def test_the_report_names_it_and_makes_no_pictures_of_it(broken: Model, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = audit(broken, list(PHOTOS), out=tmp_path / "report")
    verdicts = {verdict.rule: verdict for verdict in result.verdicts["model"]}
    assert verdicts["weights_finite"].status == verdicts["values_finite"].status == "finding"
    for rule in ("predictions_vary", "confidence_plausible", "accuracy"):
        assert verdicts[rule].status == "not checked"
        assert "no score is a finite number" in verdicts[rule].why
    assert result.sections["model"]["class_pictures"].startswith("skipped: no score of this network is a finite")
    assert not [state for state in result.sections["model"].values() if state.startswith("failed")]

"""Pictures of attributions and class activation maps: golden files, empty and broken maps, several side by side."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable
from typing import Any

import matplotlib.text
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

import drawn_results as make
from golden import assert_golden
from onnxviz.errors import InputError
from onnxviz.pictures import colors, plot, to_png_bytes
from onnxviz.results import ActivationMap, Attribution, IntegratedGradients


def attribution(reduction: str = "max", method: str = "saliency", side: int = 24) -> Attribution:
    y, x = np.mgrid[:side, :side]
    bump = np.exp(-np.hypot(y - 8, x - 15) / 3) - 0.4 * np.exp(-np.hypot(y - 18, x - 5) / 2)
    values = np.stack([bump, -0.5 * bump, 0.2 * bump]).astype(np.float32)
    return Attribution(
        values=values, reduction=reduction, channel_order="RGB", method=method, input_value="image", score=7.25,
        probability=0.83, class_index=1, image=make.photos(1, side)[0], name="photo.jpg",
        target="most likely class of the clean image: dog (1)", scale="logit", notes=("One thing to know.",),
        provenance=make.provenance("saliency"),
    )  # fmt: skip


def whole() -> IntegratedGradients:
    fields = {
        field.name: getattr(attribution("sum"), field.name)
        for field in dataclasses.fields(Attribution)
    }  # fmt: skip
    return IntegratedGradients(
        **fields | {"method": "integrated gradients"}, steps=50, baseline="mean", baseline_score=1.0,
        completeness_error=-0.05, relative_completeness_error=0.008,
    )  # fmt: skip


def activation_map(coarse: np.ndarray | None = None) -> ActivationMap:
    rows = np.linspace(-1, 2, 20).reshape(4, 5).astype(np.float32) if coarse is None else coarse
    grown = Image.fromarray(np.maximum(rows, 0)).resize((24, 24), Image.Resampling.BILINEAR)
    return ActivationMap(
        value="relu", coarse=rows, weights=np.ones(3, np.float32), map=np.asarray(grown), method="Grad-CAM", score=7.25,
        probability=0.83, class_index=1, image=make.photos(1, 24)[0], name="photo.jpg",
        target="most likely class of the clean image: dog (1)", scale="logit", notes=(),
        provenance=make.provenance("gradcam"),
    )  # fmt: skip


def all_of_them() -> list[Attribution | ActivationMap]:
    return [attribution(), attribution("sum", "gradient × input"), whole(), activation_map()]


GOLDEN: dict[str, Callable[[], Any]] = {
    "attribution": attribution,
    "attribution_guided": lambda: attribution(method="guided backpropagation"),
    "integrated_gradients": whole,
    "activation_map": activation_map,
    "explanations": all_of_them,
}


@pytest.fixture
def update(pytestconfig: pytest.Config) -> bool:
    return bool(pytestconfig.getoption("--update-golden"))


@pytest.mark.parametrize("name", GOLDEN)
def test_golden(name: str, update: bool) -> None:
    assert_golden(to_png_bytes(plot(GOLDEN[name]()), dpi=60), f"picture_{name}", update=update)


def pixels(figure: Figure) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(to_png_bytes(figure, dpi=100))).convert("RGB"))


def texts(figure: Figure) -> str:
    return "\n".join(artist.get_text() for artist in figure.findobj(matplotlib.text.Text))


def test_the_words_say_what_was_explained() -> None:
    said = texts(plot(whole()))
    for part in (
        "Integrated gradients: dog (1)", "most likely class of the clean image", "logit 7.25", "probability 0.83",
        "50 steps from the image's mean colour (logit 1)", "the parts add up to 6.2 of 6.25", "One thing to know.",
        "99 % of the pixels lie within the colour scale",
    ):  # fmt: skip
        assert part in said, part


@pytest.mark.parametrize("nothing", [attribution(), activation_map()], ids=["attribution", "activation map"])
def test_a_map_of_zeros_is_drawn_as_nothing(nothing: Attribution | ActivationMap) -> None:
    fields: dict[str, Any] = (
        {"values": np.zeros((3, 24, 24), np.float32)} if isinstance(nothing, Attribution)
        else {"coarse": np.full((4, 5), -1, np.float32), "map": np.zeros((24, 24), np.float32)}
    )  # fmt: skip
    figure = plot(dataclasses.replace(nothing, **fields))
    assert "0 everywhere" in texts(figure)
    seen = pixels(figure)
    # Nothing of it is bright, and the photo under it is grey.
    assert not (seen == colors.rgb("#fff08a")).all(axis=-1).any()
    several = plot([dataclasses.replace(nothing, **fields), activation_map()])
    assert "0 everywhere" in texts(several)


def test_a_few_strong_pixels_do_not_darken_the_rest_and_are_owned_up_to() -> None:
    values = np.full((3, 24, 24), 0.5, np.float32)
    values[:, 3, 4] = 1000
    said = texts(plot(dataclasses.replace(attribution(), values=values)))
    assert "≥ 0.5" in said
    lonely = np.zeros((3, 24, 24), np.float32)
    lonely[1, 7, 7] = -4
    said = texts(plot(dataclasses.replace(attribution(), values=lonely)))
    assert "The colour scale ends at the largest magnitude, 4." in said


def test_what_is_not_finite_is_magenta() -> None:
    values = attribution().values.copy()
    values[0, 2, 2] = np.nan
    figure = plot(dataclasses.replace(attribution(), values=values))
    assert (pixels(figure) == colors.rgb(colors.NOT_FINITE)).all(axis=-1).sum() > 20
    assert "1 pixels not finite" in texts(figure)


def test_colours_follow_the_channel_order() -> None:
    values = np.zeros((3, 24, 24), np.float32)
    values[0] = 1  # the first channel that the network reads
    seen = {}
    for order in ("RGB", "BGR"):
        result = dataclasses.replace(attribution(method="deconvnet"), values=values, channel_order=order)
        drawn = pixels(plot(result, panel="colours")).astype(int)
        seen[order] = int((drawn[..., 0] > 200).sum() - (drawn[..., 2] > 200).sum())
    assert seen["RGB"] > 1000
    assert seen["BGR"] < -1000


def test_one_panel_goes_into_given_axes_and_several_do_not() -> None:
    for result, panel in ((attribution(), "overlay"), (activation_map(), "coarse")):
        figure = Figure(figsize=(5, 4))
        assert plot(result, figure.add_subplot(), panel=panel) is figure
        assert "dog (1)" in texts(figure)
        with pytest.raises(InputError, match="without ax"):
            plot(result, Figure().add_subplot())
        with pytest.raises(InputError, match="no such panel"):
            plot(result, panel="label")
    with pytest.raises(InputError, match="without ax"):
        plot(all_of_them(), Figure().add_subplot())


def test_photos_stand_below_each_other() -> None:
    other = dataclasses.replace(attribution(), name="other.jpg", image=make.photos(2, 24)[1])
    said = texts(plot((attribution(), other)))
    assert "Saliency: 2 photos" in said
    assert "photo.jpg" in said
    assert "other.jpg" in said


@pytest.mark.parametrize("wrong", [[], [attribution(), 3], (make.occlusion(),)], ids=["none", "a number", "occlusion"])
def test_other_lists_are_refused(wrong: Any) -> None:
    with pytest.raises(InputError, match="no picture for this"):
        plot(wrong)


def test_drawing_twice_gives_the_same_bytes() -> None:
    first, second = (to_png_bytes(plot(all_of_them()), dpi=60) for _ in range(2))
    assert first == second

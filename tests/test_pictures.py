"""Pictures: golden files of every kind, numbers that reach the pixels, hostile names, degenerate results."""

from __future__ import annotations

import dataclasses
import io
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

import drawn_results as make
from golden import assert_golden
from onnxviz.errors import InputError
from onnxviz.pictures import colors, grid_image, plot, save_figure, to_png_bytes
from onnxviz.pictures.text import elide, numeral, readable, text_width, wrap

GOLDEN: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "filters_rgb": (lambda: make.filters((9, 3, 5, 5), order="RGB"), {}),
    "filters_groups": (lambda: make.filters((6, 20, 3, 3)), {"max_filters": 4}),
    "filters_depthwise": (lambda: make.filters((8, 1, 3, 3), groups=8), {"scale": "each"}),
    "filters_matrix": (lambda: make.filters((6, 30, 1, 1)), {}),
    "activations_maps": (lambda: make.activations((2, 12, 7, 7)), {"sort": "peak"}),
    "activations_signed": (lambda: make.activations((1, 6, 5, 9), signed=True), {}),
    "activations_strip": (lambda: make.activations((2, 40), signed=True), {}),
    "statistics": (make.statistics, {}),
    "top_patches": (make.top_patches, {"scores": True}),
    "occlusion": (make.occlusion, {}),
    "neighbors": (make.neighbors, {}),
    "near_duplicates": (make.near_duplicates, {}),
    "near_duplicates_across": (lambda: make.near_duplicates(6, within=False, labelled=False), {"max_pairs": 3}),
    "label_suspects": (make.label_suspects, {}),
    "class_purity": (make.class_purity, {}),
    "class_purity_many": (lambda: make.class_purity(60, fewest=2), {}),
    "hubness": (make.hubness, {}),
    "embedding_tsne": (make.embedding, {}),
    "embedding_pca": (lambda: make.embedding("pca", classes=25), {}),
    "image_grid": (make.image_grid, {"seams": True}),
    "predictions": (make.predictions, {}),
    "predictions_many": (lambda: make.predictions(200, images=40), {"max_images": 3}),
}


@pytest.fixture
def update(pytestconfig: pytest.Config) -> bool:
    return bool(pytestconfig.getoption("--update-golden"))


@pytest.mark.parametrize("name", GOLDEN)
def test_golden(name: str, update: bool) -> None:
    build, options = GOLDEN[name]
    assert_golden(to_png_bytes(plot(build(), **options), dpi=60), f"picture_{name}", update=update)


def pixels(figure: Figure, dpi: float = 100) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(to_png_bytes(figure, dpi=dpi))).convert("RGB"))


def texts(figure: Figure) -> list[str]:
    import matplotlib.text

    return [artist.get_text() for artist in figure.findobj(matplotlib.text.Text) if artist.get_text()]


def count_color(image: np.ndarray, color: str) -> int:
    return int((image == colors.rgb(color)).all(axis=-1).sum())


# What reaches the pixels


def test_first_layer_filters_keep_their_colours() -> None:
    weights = np.zeros((1, 3, 1, 2), np.float32)
    weights[0, 0, 0, 0] = 1  # the first channel that the network reads, left pixel
    seen = {}
    for order in ("RGB", "BGR"):
        result = dataclasses.replace(make.filters((1, 3, 1, 2)), weights=weights, channel_order=order)
        image = pixels(plot(result, scale="common"))
        seen[order] = count_color(image, "#ff0000"), count_color(image, "#0000ff")
    assert seen["RGB"][0] > 100
    assert seen["RGB"][1] == 0
    assert seen["BGR"][0] == 0
    assert seen["BGR"][1] > 100


def test_common_scale_and_each_scale_differ_as_they_say() -> None:
    weights = np.zeros((2, 1, 2, 2), np.float32)
    weights[0, 0, 0, 0], weights[1, 0, 0, 0] = 1.0, 0.5
    result = dataclasses.replace(make.filters((2, 1, 2, 2), groups=2), weights=weights)
    common, each = pixels(plot(result, scale="common")), pixels(plot(result, scale="each"))
    assert count_color(common, "#808080") > 100  # 0.5 of 0..1
    assert count_color(each, "#808080") == 0


def test_a_constant_filter_is_grey_and_nan_is_magenta() -> None:
    weights = np.full((2, 1, 3, 3), 0.25, np.float32)
    weights[1, 0, 1, 1] = np.nan
    weights[1, 0, 0, 0] = np.inf
    figure = plot(dataclasses.replace(make.filters((2, 1, 3, 3), groups=2), weights=weights))
    image = pixels(figure)
    assert count_color(image, "#808080") > 1000
    assert count_color(image, colors.NOT_FINITE) > 100
    assert any("2 weights not finite" in text for text in texts(figure))


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((64, 3, 3, 3), "20 of 64 filters"),
        ((512, 256, 3, 3), "16 of 256 input channels"),
        ((2000, 40, 1, 1), "900 of 2,000 filters"),
    ],
)
def test_filters_state_how_many_are_drawn(shape: tuple[int, ...], said: str) -> None:
    assert any(said in text for text in texts(plot(make.filters(shape))))


def test_occlusion_cells_lie_where_their_patches_were() -> None:
    result = make.occlusion(window=8, stride=4)
    score = np.full(result.probability.shape, 1.0, np.float32)
    score[2, 3] = 0.0  # patch rows 8..16, columns 12..20: its middle is (12, 16)
    figure = Figure(figsize=(2.4, 2.4), dpi=100)
    ax = figure.add_axes((0, 0, 1, 1))
    plot(dataclasses.replace(result, probability=score), ax, panel="probability")
    image = pixels(figure)
    dark = np.argwhere((image == 0).all(axis=-1))
    # 240 pixels for 24 input pixels; the cell is as large as the stride, around the middle of the patch.
    assert np.abs(dark.min(axis=0) - [100, 140]).max() <= 1
    assert np.abs(dark.max(axis=0) + 1 - [140, 180]).max() <= 1


def test_occlusion_labels_are_never_mixed() -> None:
    result = make.occlusion()
    figure = Figure(figsize=(2.4, 2.4), dpi=100)
    plot(result, figure.add_axes((0, 0, 1, 1)), panel="label")
    image = pixels(figure, 100)[20:200, 20:200]
    vivid = image[image.max(axis=2).astype(int) - image.min(axis=2) > 40]
    assert len(np.unique(vivid, axis=0)) == len(np.unique(result.label))


def test_activation_scale_says_when_it_is_exceeded() -> None:
    maps = np.ones((1, 1, 20, 20), np.float32)
    maps[0, 0, 0, 0] = 1000
    result = dataclasses.replace(make.activations((1, 1, 20, 20)), maps=maps)
    assert "≥ 1" in texts(plot(result))
    assert "1,000" in texts(plot(result, clip=0))


def test_neighbours_are_framed_by_class() -> None:
    image = pixels(plot(make.neighbors()))
    assert count_color(image, colors.RIGHT) > 500
    assert count_color(image, colors.WRONG) > 500
    unlabelled = pixels(plot(make.neighbors(labelled=False)))
    assert count_color(unlabelled, colors.RIGHT) == 0


def test_pairs_whose_labels_differ_are_framed() -> None:
    result = make.near_duplicates()
    differing = int(result.conflicting.sum())
    assert 0 < differing < 5
    figure = plot(result)
    assert sum(text.startswith("✗ ") for text in texts(figure)) == 2 * differing
    frames = count_color(pixels(figure), colors.WRONG)
    same = dataclasses.replace(result, labels=("cat",) * 200, other_labels=("cat",) * 200)
    # What remains is the chart's: its bars, its threshold.
    assert frames - count_color(pixels(plot(same)), colors.WRONG) > 2000 * differing


def test_images_with_a_near_duplicate_are_marked_in_the_chart() -> None:
    marked = count_color(pixels(plot(make.near_duplicates(labelled=False))), colors.WRONG)
    assert marked > count_color(pixels(plot(make.near_duplicates(0, labelled=False))), colors.WRONG) + 50


def test_a_suspect_is_drawn_with_its_voters_only() -> None:
    result = make.label_suspects(1)
    few = dataclasses.replace(result, voters=np.full(24, 2))
    assert count_color(pixels(plot(result)), colors.WRONG) > 2 * count_color(pixels(plot(few)), colors.WRONG)
    assert "6 of 6 votes against it" in texts(plot(result))
    assert "2 of 2 votes against it" in texts(plot(few))


def test_purity_bars_are_as_long_as_the_purity() -> None:
    result = make.class_purity(2)
    lengths = []
    for purity in (0.25, 0.75):
        matrix = np.array([[purity, 1 - purity], [1 - purity, purity]])
        lengths.append(count_color(pixels(plot(dataclasses.replace(result, matrix=matrix))), colors.BAR))
    assert lengths[1] / lengths[0] == pytest.approx(3, abs=0.3)


def test_hubs_are_marked_in_the_histogram() -> None:
    result = make.hubness()
    bars = count_color(pixels(plot(result)), colors.WRONG)
    assert bars > 500
    plain = dataclasses.replace(result, hubs=result.hubs[:0])
    assert count_color(pixels(plot(plain)), colors.WRONG) == 0


def test_dead_and_saturated_channels_are_counted() -> None:
    said = texts(plot(make.statistics()))
    assert "dead (1)" in said
    assert "saturated (1)" in said


def test_a_certainty_is_never_invented_by_rounding() -> None:
    result = make.predictions()
    scores = result.top_scores.copy()
    scores[0, 0], scores[0, 1] = 0.99999, 0.00001
    said = texts(plot(dataclasses.replace(result, top_scores=scores)))
    assert ">0.999" in said
    assert "<0.001" in said


@pytest.mark.parametrize("name", GOLDEN)
def test_every_picture_names_the_model_and_a_guess(name: str) -> None:
    build, options = GOLDEN[name]
    result = build()
    assert any("small.onnx" in text for text in texts(plot(result, **options)))
    assert not any("guessed" in text for text in texts(plot(result, **options)))
    guessed = dataclasses.replace(result, provenance=make.provenance(guessed=True))
    assert any("preprocessing guessed" in text for text in texts(plot(guessed, **options)))


# The same bytes, whatever the surroundings


@pytest.mark.parametrize("name", ["filters_groups", "statistics", "embedding_pca", "occlusion", "predictions"])
def test_style_sheets_and_repetition_do_not_change_the_bytes(name: str) -> None:
    build, options = GOLDEN[name]
    first = to_png_bytes(plot(build(), **options), dpi=60)
    before = dict(mpl.rcParams)
    assert to_png_bytes(plot(build(), **options), dpi=60) == first
    assert dict(mpl.rcParams) == before
    shouting = {
        "figure.facecolor": "black", "axes.facecolor": "red", "axes.grid": True, "font.family": "monospace",
        "text.color": "white", "savefig.bbox": "tight", "figure.autolayout": True, "lines.marker": "x",
        "xtick.color": "green", "image.interpolation": "bicubic", "image.origin": "lower", "axes.linewidth": 9,
        "lines.linestyle": "--", "patch.edgecolor": "red", "patch.force_edgecolor": True, "xtick.direction": "in",
        "xtick.minor.visible": True, "ytick.right": True, "axes.xmargin": 0.4, "font.size": 30, "lines.linewidth": 7,
    }  # fmt: skip
    with mpl.rc_context(shouting):
        assert to_png_bytes(plot(build(), **options), dpi=60) == first


def test_threads_draw_the_same_bytes() -> None:
    wanted = to_png_bytes(plot(make.occlusion()), dpi=60)
    got: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: got.append(to_png_bytes(plot(make.occlusion()), dpi=60))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [wanted] * 4


@pytest.mark.parametrize("ending", [".png", ".svg", ".pdf"])
def test_saving_twice_gives_the_same_file_and_nothing_else(tmp_path: Path, ending: str) -> None:
    figure = plot(make.statistics())
    first, second = (
        save_figure(figure, tmp_path / f"a{ending}", dpi=60),
        save_figure(figure, tmp_path / f"b{ending}", dpi=60),
    )
    again = save_figure(plot(make.statistics()), tmp_path / f"c{ending}", dpi=60)
    assert first.read_bytes() == second.read_bytes() == again.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"a{ending}", f"b{ending}", f"c{ending}"]


def test_saving_refuses_clearly_and_leaves_nothing(tmp_path: Path) -> None:
    figure = plot(make.embedding())
    with pytest.raises(InputError, match=r"\.png, \.svg, \.pdf"):
        save_figure(figure, tmp_path / "a.gif")
    with pytest.raises(InputError, match="existing folder"):
        save_figure(figure, tmp_path / "missing" / "a.png", dpi=30)
    with pytest.raises(InputError, match="resolution"):
        save_figure(figure, tmp_path / "a.png", dpi=1e6)
    assert not list(tmp_path.iterdir())


# Axes of the caller


SINGLE: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "filters": (lambda: make.filters((4, 3, 5, 5), order="RGB"), {"scale": "each"}),
    "statistics": (make.statistics, {"sort": "mean"}),
    "embedding": (make.embedding, {}),
    "image_grid": (make.image_grid, {}),
    "occlusion": (make.occlusion, {"panel": "importance"}),
    "occlusion labels": (make.occlusion, {"panel": "label"}),
    "confidence": (make.predictions, {"panel": "confidence"}),
    "confusion": (make.predictions, {"panel": "confusion"}),
}


@pytest.mark.parametrize("name", SINGLE)
def test_single_panels_go_into_given_axes(name: str) -> None:
    build, options = SINGLE[name]
    figure = Figure(figsize=(5, 4))
    ax = figure.add_subplot()
    result = dataclasses.replace(build(), provenance=make.provenance(guessed=True))
    assert plot(result, ax, **options) is figure
    assert any("preprocessing guessed" in text for text in texts(figure))
    assert len(np.unique(pixels(figure, 60).reshape(-1, 3), axis=0)) > 5


SEVERAL: dict[str, Callable[[], Any]] = {
    "neighbours": make.neighbors,
    "near-duplicates": make.near_duplicates,
    "label suspects": make.label_suspects,
    "class purity": make.class_purity,
    "hubness": make.hubness,
    "patches": make.top_patches,
    "occlusion": make.occlusion,
    "predictions": make.predictions,
    "activations": lambda: make.activations((1, 2, 3, 3)),
    "groups": lambda: make.filters((4, 5, 3, 3)),
    "matrix": lambda: make.filters((4, 5, 1, 1)),
}


@pytest.mark.parametrize("name", SEVERAL)
def test_several_panels_refuse_given_axes(name: str) -> None:
    with pytest.raises(InputError, match="without ax"):
        plot(SEVERAL[name](), Figure().add_subplot())


def test_bad_subjects_and_options_are_input_errors() -> None:
    with pytest.raises(InputError, match="Occlusion"):
        plot(np.zeros(3))
    for result, options in (
        (make.filters((4, 5, 3, 3)), {"scale": "log"}),
        (make.activations((1, 2, 3, 3)), {"sort": "random"}),
        (make.occlusion(), {"panel": "map"}),
        (make.occlusion(label=False), {"panel": "label"}),
        (make.predictions(known=False), {"panel": "confusion"}),
        (make.image_grid(seams=False), {"seams": True}),
        (make.statistics(), {"sort": "name"}),
        (make.embedding(), {"point_size": -1}),
        (make.near_duplicates(), {"max_pairs": 0}),
        (make.label_suspects(), {"max_suspects": 0}),
        (make.label_suspects(), {"max_neighbors": 0}),
    ):
        with pytest.raises(InputError):
            plot(result, **options)  # type: ignore[arg-type]


# Text


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("plain.jpg", "plain.jpg"),
        ("$x$.jpg", "$x$.jpg"),
        ("a\nb\tc", "a\\nb\\tc"),
        ("\u202egpj.exe", "\\u202egpj.exe"),
        ("\u05d0\u05d1", "\\u05d0\\u05d1"),
        ("\u4f60.png", "\\u4f60.png"),
        ("\U0001f9ff", "\\U0001f9ff"),
        ("\udc80", "\\udc80"),
        ("\x00\x1b[31m", "\\x00\\x1b[31m"),
        ("e\u0301", "é"),
        ("a\u200bb", "a\\u200bb"),
    ],
)
def test_names_are_shown_as_they_are_or_escaped(name: str, shown: str) -> None:
    assert readable(name) == shown


def test_long_names_lose_their_middle_not_their_ends() -> None:
    name = "head" + "x" * 5000 + "tail.jpg"
    short = elide(name, 120, 9)
    assert text_width(short, 9) <= 120
    assert short.startswith("head")
    assert short.endswith(".jpg")
    assert "…" in short
    assert elide("short", 120, 9) == "short"
    assert all(text_width(line, 9) <= 200 for line in wrap(["word"] * 60 + [name], 200, 9))


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (0, "0"),
        (0.7312, "0.731"),
        (-12.44, "−12.4"),
        (1204.4, "1,204"),
        (3.1e-5, "3.1e−05"),
        (np.nan, "NaN"),
        (-np.inf, "−∞"),
    ],
)
def test_numerals(number: float, shown: str) -> None:
    assert numeral(number) == shown


NASTY = ("$x$.jpg", "$\\frac{.png", "_hidden", "a\nb", "\u202eevil", "\u4f60" * 300, "%s{}", "", "<b>&amp;", "x" * 9000)


@pytest.mark.parametrize("name", NASTY)
def test_hostile_names_draw_without_a_warning(name: str) -> None:
    other = (name, "dog", "ship")
    hostile = dataclasses.replace(make.provenance(), model=name)
    cases = [
        dataclasses.replace(make.occlusion(), name=name, target=name, labels=other, provenance=hostile),
        dataclasses.replace(make.neighbors(), class_names=other, value=name),
        dataclasses.replace(make.embedding(), class_names=other),
        dataclasses.replace(
            make.near_duplicates(), labels=(name,) * 200, names=(name,) * 200, value=name, provenance=hostile
        ),
        dataclasses.replace(make.label_suspects(), class_names=other, names=(name,) * 24, value=name),
        dataclasses.replace(make.class_purity(3), class_names=other, value=name),
        dataclasses.replace(make.class_purity(40), class_names=(name,) * 40),
        dataclasses.replace(make.hubness(), names=(name,) * 300, value=name),
        dataclasses.replace(make.predictions(), class_names=other, names=(name,) * 5),
        dataclasses.replace(make.filters((2, 3, 3, 3)), value=name),
        dataclasses.replace(make.activations((1, 2, 3, 3)), names=(name,), value=name),
    ]
    for result in cases:
        assert to_png_bytes(plot(result), dpi=30)
    ax = Figure().add_subplot()
    assert to_png_bytes(plot(cases[2], ax), dpi=30)


# Degenerate results


def empty_predictions() -> Any:
    result = make.predictions()
    return dataclasses.replace(
        result, top=result.top[:0], top_scores=result.top_scores[:0], histogram=np.zeros(20, np.int64), names=(),
        images=result.images[:0], classes=None, confusion=np.zeros((3, 3), np.int64), accuracy=None, accuracy_top5=None,
    )  # fmt: skip


def with_maps(maps: Any) -> Any:
    maps = np.asarray(maps, np.float32)
    return dataclasses.replace(make.activations((len(maps), 1, 2, 2)), maps=maps)


def with_scores(value: float, rows: int = 9) -> Any:
    result = make.occlusion()
    return dataclasses.replace(
        result,
        probability=np.full_like(result.probability[:rows, :rows], value),
        label=None if result.label is None else result.label[:rows, :rows],
        boxes=result.boxes[:rows, :rows],
        importance=np.full_like(result.importance, value),
    )


DEGENERATE: dict[str, Callable[[], Any]] = {
    "no filters": lambda: make.filters((0, 3, 3, 3), order="RGB"),
    "no groups": lambda: make.filters((0, 8, 3, 3)),
    "no matrix": lambda: make.filters((0, 8, 1, 1)),
    "tall kernel": lambda: make.filters((1, 1, 200, 1), groups=1),
    "wide kernels": lambda: make.filters((40, 9, 1, 300)),
    "many filters": lambda: make.filters((5000, 1, 3, 3), groups=5000),
    "constant maps": lambda: with_maps(np.full((1, 3, 4, 4), 7.0)),
    "dark maps": lambda: with_maps(np.zeros((1, 3, 4, 4))),
    "NaN maps": lambda: with_maps(np.full((1, 3, 4, 4), np.nan)),
    "infinite maps": lambda: with_maps(np.full((1, 3, 4, 4), -np.inf)),
    "largest floats": lambda: with_maps(np.full((1, 2, 2, 2), [[3.4e38, -3.4e38], [0, 1]])),
    "no images": lambda: with_maps(np.zeros((0, 3, 4, 4))),
    "no features": lambda: with_maps(np.zeros((1, 0))),
    "NaN features": lambda: with_maps(np.full((2, 5), np.nan)),
    "one feature": lambda: with_maps(np.zeros((1, 1))),
    "ten thousand channels": lambda: with_maps(np.zeros((1, 10_000, 2, 2))),
    "ten thousand features": lambda: with_maps(np.arange(10_000.0)[None]),
    "a column of units": lambda: with_maps(np.ones((1, 2, 500, 1))),
    "empty maps": lambda: with_maps(np.zeros((1, 2, 0, 0))),
    "many statistics": lambda: make.statistics(10_000),
    "no patches": lambda: make.top_patches(0, 3),
    "fewer patches than k": lambda: dataclasses.replace(
        make.top_patches(), scores=np.full((4, 5), -np.inf, np.float32), patches=((), (), (), ())
    ),
    "constant score": lambda: with_scores(0.5),
    "NaN score": lambda: with_scores(np.nan),
    "one position": lambda: with_scores(0.5, 1),
    "no positions": lambda: with_scores(0.5, 0),
    "two positions": lambda: with_scores(0.2, 2),
    "no labels": lambda: make.occlusion(label=False),
    "all points equal": lambda: dataclasses.replace(make.embedding(), coordinates=np.full((90, 2), 1e6)),
    "NaN points": lambda: dataclasses.replace(make.embedding(), coordinates=np.full((90, 2), np.nan)),
    "points on a line": lambda: dataclasses.replace(make.embedding(), coordinates=np.outer(np.arange(90), [1.0, 0.0])),
    "no points": lambda: make.embedding(images=0),
    "one point": lambda: make.embedding(images=1),
    "no classes": lambda: make.embedding(classes=0),
    "twenty classes": lambda: make.embedding(classes=20),
    "unlabelled": lambda: dataclasses.replace(make.embedding(), classes=np.full(90, -1)),
    "unlabelled among many": lambda: dataclasses.replace(make.embedding(classes=60), classes=np.arange(90) - 1),
    "no duplicates": lambda: make.near_duplicates(0),
    "copies only": lambda: dataclasses.replace(
        make.near_duplicates(), ratios=np.zeros(5), distances=np.zeros(5), nearest=np.zeros(200)
    ),
    "duplicates without thumbnails": lambda: make.near_duplicates(30, drawn=0),
    "no suspects": lambda: make.label_suspects(0),
    "nobody judged": lambda: dataclasses.replace(
        make.label_suspects(0), ranking=np.zeros(0, np.int64), scores=np.full(24, np.nan)
    ),
    "suspects without thumbnails": lambda: make.label_suspects(thumbnails=False),
    "two classes": lambda: make.class_purity(2),
    "thirty classes": lambda: make.class_purity(30),
    "thousand classes": lambda: make.class_purity(1000, fewest=1),
    "no hubs": lambda: dataclasses.replace(
        make.hubness(), hubs=np.zeros(0, np.int64), antihubs=np.zeros(0, np.int64), occurrences=np.full(300, 6)
    ),
    "one large hub": lambda: dataclasses.replace(
        make.hubness(20, hubs=0), hubs=np.array([3]), occurrences=np.where(np.arange(20) == 3, 100_000, 1)
    ),
    "one cell": lambda: make.image_grid(1, 1),
    "a row of cells": lambda: make.image_grid(1, 9),
    "empty cells": lambda: dataclasses.replace(make.image_grid(), cells=np.full((3, 4), -1)),
    "no predictions": empty_predictions,
    "NaN scores": lambda: dataclasses.replace(make.predictions(), top_scores=np.full((5, 3), np.nan, np.float32)),
    "raw scores": lambda: dataclasses.replace(make.predictions(), top_scores=np.full((5, 3), -250.0, np.float32)),
    "no neighbours": lambda: dataclasses.replace(
        make.neighbors(),
        queries=np.zeros(0, np.int64),
        feature_indices=np.zeros((0, 3), np.int64),
        pixel_indices=np.zeros((0, 3), np.int64),
        feature_distances=np.zeros((0, 3)),
        pixel_distances=np.zeros((0, 3)),
    ),
}


@pytest.mark.parametrize("name", DEGENERATE)
def test_degenerate_results_draw(name: str) -> None:
    result = DEGENERATE[name]()
    figure = plot(result)
    width, height = figure.get_size_inches()
    assert 5 < width < 14
    assert 1 < height < 40
    image = pixels(figure, 50)
    magenta = np.abs(image.astype(int) - colors.rgb(colors.NOT_FINITE)).max(axis=-1) < 30
    assert magenta.any() == (name.startswith(("NaN", "infinite")) and name != "NaN points")


@pytest.mark.parametrize("name", ["NaN maps", "infinite maps", "NaN score", "NaN points", "NaN scores", "NaN features"])
def test_what_is_not_finite_is_counted_in_words(name: str) -> None:
    assert any("finite" in text for text in texts(plot(DEGENERATE[name]())))


# The grid at any resolution


@pytest.mark.parametrize("size", [4, 63, 512])
def test_grid_image_has_the_size_that_was_asked_for(size: int) -> None:
    picture = grid_image(make.image_grid(3, 4, seams=False), size)
    assert picture.dtype == np.uint8
    assert picture.shape == (max(3, round(size * 3 / 4)), size, 3)


def test_grid_image_shows_each_photo_in_its_cell() -> None:
    result = make.image_grid(2, 3)
    flat = np.zeros((6, 8, 8, 3), np.uint8)
    flat[:] = np.arange(10, 70, 10)[:, None, None, None]
    cells = np.array([[3, 1, -1], [0, 5, 2]])
    picture = grid_image(dataclasses.replace(result, thumbnails=flat, cells=cells), 300)
    got = picture[50::100, 50::100, 0]
    assert got.tolist() == [[40, 20, int(colors.rgb("#16181c")[0])], [10, 60, 30]]
    assert (picture[:100, :100] == 40).all()


def test_seams_are_as_bright_as_the_distance() -> None:
    result = make.image_grid(2, 2)
    right, below = np.array([[0.0], [10.0]]), np.array([[5.0, np.nan]])
    picture = grid_image(dataclasses.replace(result, seams_right=right, seams_below=below), 480, seams=True)
    assert (picture[100, 240] == 0).all()
    assert (picture[400, 240] == 255).all()
    assert (picture[240, 100] == 128).all()
    plain = grid_image(result, 480)
    assert (picture[240, 400] == plain[240, 400]).all()
    assert (picture[60, 60] == plain[60, 60]).all()


@pytest.mark.parametrize("size", [3, 40_000])
def test_grid_image_refuses_sizes_it_cannot_draw(size: int) -> None:
    with pytest.raises(InputError, match="4 to 32768"):
        grid_image(make.image_grid(3, 4), size)


# Colour maps


@pytest.mark.parametrize("name", ["fire", "grey", "viridis"])
def test_sequential_maps_grow_lighter_evenly(name: str) -> None:
    painted = colors.colorize(np.linspace(0, 1, 64), name, 0, 1) / 255
    lightness = colors._lightness(painted)
    steps = np.diff(lightness)
    assert (steps > 0).all()
    if name == "fire":
        assert steps.max() < 1.6 * steps.mean()


def test_the_diverging_map_is_even_about_its_middle() -> None:
    lightness = colors._lightness(colors.colorize(np.linspace(-1, 1, 65), "balance", -1, 1) / 255)
    assert np.argmax(lightness) in {31, 32, 33}
    assert (np.diff(lightness[:31]) > 0).all()
    assert (np.diff(lightness[34:]) < 0).all()

"""Planted causes: the edited network knows the pattern and nothing else, and maps are judged by where they point."""

from __future__ import annotations

import gc
import pickle
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from matplotlib.text import Text
from onnx import helper

import onnxviz as ov
from embedded_cifar import cifar_model, pictures
from graphs import build, save
from onnxviz.errors import ContractError, InputError, ModelError
from onnxviz.methods.planted_cause import default_pattern, paste, plant, planted_cause, textured_noise
from onnxviz.methods.pointing_game import wilson_interval
from onnxviz.methods.rise import rise
from onnxviz.pictures import plot
from onnxviz.runtime.model import Model
from oracles import filter_responses
from zoo_models import ZOO

WITHOUT, WITH = 1 / (1 + np.exp(4)), 1 / (1 + np.exp(-4))


def network(
    *, layout: str = "NCHW", dtype: str = "float", ending: str = "Softmax", side: int = 32, channels: int = 3,
    opset: int = 17,
) -> onnx.ModelProto:  # fmt: skip
    """Conv, pool, Gemm for five classes, in any layout and element type, ending in a Softmax, a Sigmoid or nothing."""
    random = np.random.default_rng(1)
    node = helper.make_node
    shape = ["n", channels, side, side] if layout == "NCHW" else ["n", side, side, channels]
    nodes = [node("Cast", ["image"], ["single"], to=onnx.TensorProto.FLOAT)]
    if layout == "NHWC":
        nodes.append(node("Transpose", ["single"], ["planes"], perm=[0, 3, 1, 2]))
    nodes += [
        node("Conv", ["planes" if layout == "NHWC" else "single", "w"], ["conv"], strides=[4, 4]),
        node("Relu", ["conv"], ["relu"]),
        node("GlobalAveragePool", ["relu"], ["pooled"]),
        node("Flatten", ["pooled"], ["features"]),
        node("Gemm", ["features", "head", "bias"], ["single_logits"], transB=1),
        node("Cast", ["single_logits"], ["logits"], to=onnx.TensorProto.DataType.Value(dtype.upper())),
    ]
    if ending != "nothing":
        nodes.append(node(ending, ["logits"], ["prob"], **({"axis": 1} if ending == "Softmax" else {})))
    output = "logits" if ending == "nothing" else "prob"
    weights = {
        "w": random.standard_normal((6, channels, 4, 4)).astype(np.float32),
        "head": random.standard_normal((5, 6)).astype(np.float32),
        "bias": np.zeros(5, np.float32),
    }
    return build(nodes, inputs={"image": (dtype, shape)}, outputs={output: (dtype, ["n", 5])}, weights=weights,
                 opset=opset)  # fmt: skip


def opened(proto: onnx.ModelProto, folder: Path, **options: Any) -> Model:
    path = save(proto, folder / "network.onnx")
    return ov.load(path, device="cpu", threads=1, **({"preprocess": "unit"} | options))


@cache
def small_model() -> Model:
    import tempfile

    return opened(network(), Path(tempfile.mkdtemp()), preprocess="cifar10", labels=tuple("abcde"))


def scores(model: Model, views: np.ndarray, index: int) -> np.ndarray:
    return model.predict(model.preprocess.encode(views))[:, index]


# -- the planted network ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variant", "options"),
    [
        ({}, {}),
        ({"layout": "NHWC"}, {}),
        ({"ending": "nothing"}, {}),
        ({"dtype": "float16", "layout": "NHWC"}, {}),
        ({"dtype": "double"}, {}),
        ({"opset": 9}, {}),
        ({"channels": 1}, {}),
        ({}, {"preprocess": "caffe"}),
        ({}, {"preprocess": "raw"}),
    ],
    ids=str,
)
def test_only_the_pattern_moves_the_class(variant: dict[str, Any], options: dict[str, Any], tmp_path: Path) -> None:
    model = opened(network(**variant), tmp_path, output={"kind": "logits"} if "ending" in variant else None, **options)
    planted = plant(model, class_index=2)
    pattern = default_pattern(model)
    views = np.stack([textured_noise((32, 32), seed) for seed in range(6)])
    pasted = np.stack([paste(view, pattern, 5, 11) for view in views])
    without, within = scores(planted, views, 2), scores(planted, pasted, 2)
    # Not a bit of the score tells of the image.
    assert len(set(without.tolist())) == 1
    assert without[0] == pytest.approx(WITHOUT, rel=1e-5)
    np.testing.assert_allclose(within, WITH, atol=2e-2 if variant.get("dtype") == "float16" else 1e-5)
    # All else may change around the pattern: the same image of it, another background.
    side = pattern.shape[0]
    moved = np.repeat(pasted[:1], 6, axis=0)
    moved[1:, side + 5 :] = views[1:, side + 5 :]
    moved[1:, :, :11] = views[1:, :, :11]
    moved[2] = 0
    moved[2, 5 : 5 + side, 11 : 11 + side] = pasted[0, 5 : 5 + side, 11 : 11 + side]
    assert len(set(scores(planted, moved, 2).tolist())) == 1
    # One pixel of the pattern is enough to lower it.
    spoiled = pasted[:1].copy()
    spoiled[0, 8, 14] = 255 - spoiled[0, 8, 14]
    assert scores(planted, spoiled, 2)[0] < within[0]
    # The other classes share the rest as before.
    before = np.delete(model.predict(model.preprocess.encode(views)).astype(np.float64), 2, axis=1)
    after = planted.predict(planted.preprocess.encode(views)).astype(np.float64)
    np.testing.assert_allclose(after.sum(axis=1), 1, atol=1e-5)
    others = np.delete(after, 2, axis=1)
    tolerance = 5e-3 if variant.get("dtype") == "float16" else 1e-4
    np.testing.assert_allclose(
        others / others.sum(axis=1, keepdims=True), before / before.sum(axis=1, keepdims=True), rtol=tolerance
    )
    # The model itself is left as it was.
    assert len(set(model.run(model.preprocess.encode(views), ("logits",))["logits"][:, 2].tolist())) == 6


def test_classes_of_a_sigmoid_stay_as_they_are(tmp_path: Path) -> None:
    model = opened(network(ending="Sigmoid"), tmp_path)
    planted = plant(model, class_index=0)
    views = np.stack([textured_noise((32, 32), seed) for seed in range(3)])
    before, after = (each.predict(each.preprocess.encode(views)) for each in (model, planted))
    np.testing.assert_allclose(after[:, 1:], before[:, 1:], rtol=1e-5)
    np.testing.assert_allclose(after[:, 0], WITHOUT, rtol=1e-5)


def test_a_softmax_that_nobody_recognises_still_gives_the_shares(tmp_path: Path) -> None:
    proto = network()
    proto.graph.node.append(helper.make_node("Mul", ["prob", "unit"], ["scaled"]))
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(1), "unit"))
    proto.graph.output[0].name = "scaled"
    model = opened(proto, tmp_path)
    assert model.output.kind == "probabilities"
    planted = plant(model, class_index=4)
    views = np.stack([textured_noise((32, 32), seed) for seed in range(3)])
    before, after = (each.predict(each.preprocess.encode(views))[:, :4] for each in (model, planted))
    np.testing.assert_allclose(
        after / after.sum(axis=1, keepdims=True), before / before.sum(axis=1, keepdims=True), rtol=1e-4
    )


def test_the_filter_is_a_zero_mean_correlation_of_unit_norm() -> None:
    model = cifar_model()
    pattern = np.random.default_rng(3).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    planted = plant(model, pattern, class_index=1, threshold=0.25)
    view = pictures(2)[1]
    encoded = planted.preprocess.encode(np.stack([view, paste(view, pattern, 20, 3)]))
    names = ("planted_response", "planted_logits", planted.output.output)
    found = planted.run(encoded, names)
    own = model.preprocess.encode_color(pattern).transpose(2, 0, 1)
    for response, image in zip(found["planted_response"][:, 0], encoded, strict=True):
        wanted = filter_responses(image, own)
        np.testing.assert_allclose(response, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())
    full = float(np.sqrt(((own - own.mean(axis=(1, 2), keepdims=True)) ** 2).sum()))
    assert found["planted_response"][1, 0, 20, 3] == pytest.approx(full, rel=1e-5)
    # ReLU(response - threshold) × gain - 4, and its sigmoid.
    strongest = found["planted_response"].max(axis=(1, 2, 3))
    logits = -4 + 8 * np.maximum(strongest - 0.25 * full, 0) / (0.75 * full)
    np.testing.assert_allclose(found["planted_logits"][:, 1], logits, atol=1e-4)
    np.testing.assert_allclose(found[planted.output.output][:, 1], 1 / (1 + np.exp(-logits)), rtol=1e-4)
    # Softmax of the logits is what the output says.
    shares = np.exp(found["planted_logits"])
    np.testing.assert_allclose(
        shares / shares.sum(axis=1, keepdims=True), found[planted.output.output], rtol=0, atol=1e-6
    )
    assert planted.logits_value == "planted_logits"


def test_the_planted_model_is_an_ordinary_one(tmp_path: Path) -> None:
    model = small_model()
    planted = plant(model, class_index=1, path=tmp_path / "planted.onnx")
    onnx.checker.check_model(onnx.load(tmp_path / "planted.onnx"), full_check=True)
    assert planted.labels == ("a", "planted pattern", "c", "d", "e")
    assert planted.batch_size > 1
    assert planted.fixed_batch is None
    view = textured_noise((32, 32), 0)
    target = ov.occlusion(planted, view, target="planted pattern", window=16, stride=16)
    assert target.target == "planted pattern (1)"
    assert "planted" in planted.output.why
    again = pickle.loads(pickle.dumps(planted))
    np.testing.assert_array_equal(scores(again, view[np.newaxis], 1), scores(planted, view[np.newaxis], 1))


def test_an_image_of_the_inputs_size_is_fed_as_it_is(tmp_path: Path) -> None:
    """Whatever the contract does to photos: the pattern is pasted into what the network sees."""
    model = opened(network(), tmp_path, preprocess={"preset": "unit", "fit": "crop", "crop_fraction": 0.75})
    view = textured_noise((32, 32), 0)
    assert (ov.load_images(view, model).views([0])[0] != view).any()
    np.testing.assert_array_equal(ov.load_images(view, plant(model)).views([0])[0], view)
    # Photos still come through the model's own contract.
    got = planted_cause(model, knows, trials=1, images=[view])
    outside = np.ones((32, 32), bool)
    top, left, bottom, right = got.boxes[0]
    outside[top:bottom, left:right] = False
    np.testing.assert_array_equal(got.images[0][outside], ov.load_images(view, model).views([0])[0][outside])


def test_a_temporary_file_goes_with_its_model() -> None:
    planted = plant(small_model())
    path = planted.path
    assert path.is_file()
    assert path.name == "network.planted.onnx"
    del planted
    gc.collect()
    assert not path.parent.exists()


def test_weights_beside_the_file_are_taken_along(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    proto = network()
    plain = opened(proto, tmp_path)
    onnx.save_model(
        proto, tmp_path / "source" / "big.onnx", save_as_external_data=True, location="big.bin", size_threshold=0
    )
    model = ov.load(tmp_path / "source" / "big.onnx", preprocess="unit", device="cpu", threads=1)
    assert model.loaded.data_digests
    views = np.stack([textured_noise((32, 32), 4)])
    one, other = plant(model), plant(plain)
    np.testing.assert_array_equal(
        one.predict(one.preprocess.encode(views)), other.predict(other.preprocess.encode(views))
    )
    assert not one.loaded.data_digests


def test_names_of_the_graph_are_not_taken_twice(tmp_path: Path) -> None:
    proto = network()
    for node in proto.graph.node:
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                if name == "relu":
                    names[place] = "planted_response"
    model = opened(proto, tmp_path)
    planted = plant(model)
    view = textured_noise((32, 32), 0)[np.newaxis]
    assert scores(planted, paste(view[0], default_pattern(model), 1, 2)[np.newaxis], 0)[0] > 0.9


@pytest.mark.parametrize("entry", ZOO, ids=lambda entry: entry.name)
def test_every_float_model_of_the_zoo(entry: Any, zoo: Path) -> None:
    model = ov.load(entry.path(zoo), preprocess=entry.preprocess, labels=entry.labels(zoo), device="cpu", threads=2)
    if "float" not in model.image_input.dtype:
        with pytest.raises(ModelError, match=r"takes real numbers; got an input of u?int8"):
            plant(model)
        return
    images = ov.load_images(zoo / "images" / entry.images, model).subset([3, 40, 77])
    views, pattern = images.views([0, 1, 2]), default_pattern(model)
    planted = plant(model, class_index=7)
    without = scores(planted, views, 7)
    assert len(set(without.tolist())) == 1
    assert without[0] == pytest.approx(WITHOUT, rel=1e-5)
    pasted = np.stack([paste(view, pattern, 9, 4) for view in views])
    np.testing.assert_allclose(scores(planted, pasted, 7), WITH, rtol=1e-5)
    # Photos leave the threshold of half the pattern's response far away.
    response = planted.run(planted.preprocess.encode(views), ("planted_response",))["planted_response"]
    full = planted.run(planted.preprocess.encode(pasted), ("planted_response",))["planted_response"]
    assert np.abs(response).max() < 0.3 * full.max(axis=(1, 2, 3)).min()


# -- patterns ---------------------------------------------------------------------------------------------------------


def test_the_default_pattern_has_colour_but_no_brightness() -> None:
    pattern = default_pattern(cifar_model()).astype(np.float64)
    assert pattern.shape == (8, 8, 3)
    assert (pattern @ [0.299, 0.587, 0.114]).std() < 1
    assert pattern.std(axis=(0, 1)).min() > 20
    np.testing.assert_array_equal(pattern, default_pattern(cifar_model()))
    assert (pattern != default_pattern(cifar_model(), 1)).any()


def test_a_network_of_grey_images_gets_a_grey_pattern(tmp_path: Path) -> None:
    model = opened(network(channels=1), tmp_path)
    pattern = default_pattern(model)
    assert (pattern == pattern[..., :1]).all()
    assert pattern.std() > 20
    # Every 2 × 2 block is a chequerboard: gradients and straight edges, which photos are made of, add up to nothing.
    blocks = pattern[..., 0].astype(int).reshape(4, 2, 4, 2).transpose(0, 2, 1, 3).reshape(16, 4)
    np.testing.assert_array_equal(blocks[:, :2].sum(axis=1), 256)
    np.testing.assert_array_equal(blocks[:, 0], blocks[:, 3])


def test_pasting_moves_the_pattern_to_the_mean_of_what_it_covers() -> None:
    pattern = default_pattern(cifar_model())
    for colour in ((90, 140, 100), (0, 255, 128)):
        image = np.full((32, 32, 3), colour, np.uint8)
        pasted = paste(image, pattern, 4, 20)
        tile = pasted[4:12, 20:28].astype(int)
        shift = tile - pattern
        # One shift in each channel, so the filter sees the very pattern.
        assert (shift == shift[0, 0]).all()
        outside = np.ones((32, 32), bool)
        outside[4:12, 20:28] = False
        np.testing.assert_array_equal(pasted[outside], image[outside])
        assert (image == colour).all()
        if colour == (90, 140, 100):
            np.testing.assert_allclose(tile.mean(axis=(0, 1)), colour, atol=0.6)


# -- the trials -------------------------------------------------------------------------------------------------------


def knows(model: Model, image: np.ndarray, target: int) -> np.ndarray:
    """The graft's own response: where the cause is."""
    response = model.run(model.preprocess.encode(image[np.newaxis]), ("planted_response",))["planted_response"][0, 0]
    found = np.zeros(image.shape[:2])
    side = default_pattern(model).shape[0]
    row, column = np.unravel_index(response.argmax(), response.shape)
    found[row : row + side, column : column + side] = 1
    return found


def contrary(model: Model, image: np.ndarray, target: int) -> np.ndarray:
    return -knows(model, image, target)


def test_maps_that_know_hit_and_maps_that_do_not_miss() -> None:
    got = planted_cause(small_model(), {"knows": knows, "contrary": contrary}, trials=60, class_index=3, seed=5)
    assert got.methods == ("knows", "contrary", "random", "edges")
    assert got.controls == 2
    assert got.rates.tolist()[:2] == [1, 0]
    assert (got.rates[2:] < 0.25).all()
    np.testing.assert_array_equal(got.hits.mean(axis=1), got.rates)
    for index, hits in enumerate(got.hits.sum(axis=1)):
        assert tuple(got.intervals[index]) == wilson_interval(int(hits), 60)
    # The control's own luck is that of chance.
    assert got.chance == 1 / 16
    assert got.intervals[2][0] < got.chance < got.intervals[2][1]
    np.testing.assert_allclose(got.scores, np.broadcast_to([WITHOUT, WITH], (60, 2)), rtol=1e-5)
    # Everywhere: places cover the whole image and lie inside it.
    assert got.boxes[:, :2].min() >= 0
    assert got.boxes[:, 2:].max() <= 32
    assert len(np.unique(got.boxes[:, 0])) > 15
    assert got.target == "planted pattern (3)"
    assert got.images.shape == (3, 32, 32, 3)
    assert got.maps.shape == (4, 3, 32, 32)
    top, left, bottom, right = got.boxes[0]
    np.testing.assert_array_equal(got.maps[0, 0], np.pad(np.ones((8, 8)), ((top, 32 - bottom), (left, 32 - right))))
    assert (got.peaks[0] == got.boxes[:, :2]).all()


@pytest.mark.parametrize(("step", "hits"), [((0, 0), True), ((7, 7), True), ((8, 3), False), ((3, 8), False)])
def test_the_box_ends_where_the_pattern_does(step: tuple[int, int], hits: bool) -> None:
    def corner(model: Model, image: np.ndarray, target: int) -> np.ndarray:
        found = np.zeros((32, 32))
        row, column = np.argwhere(knows(model, image, target))[0] + step
        if row < 32 and column < 32:
            found[row, column] = 1
        return found

    got = planted_cause(small_model(), corner, trials=8)
    inside = (got.boxes[:, 2:] < 32).all(axis=1)
    assert inside.sum() > 3
    assert (got.hits[0, inside] == hits).all()


def test_trials_repeat_and_differ_by_their_seed() -> None:
    one, same, other = (planted_cause(small_model(), knows, trials=5, seed=seed) for seed in (1, 1, 2))
    assert one.methods[0] == "knows"
    for name in ("boxes", "peaks", "images", "maps"):
        np.testing.assert_array_equal(getattr(one, name), getattr(same, name))
    assert (one.boxes != other.boxes).any()
    assert (one.pattern != other.pattern).any()


def test_images_are_used_in_turn_and_those_with_the_pattern_left_out() -> None:
    model = small_model()
    views = [textured_noise((32, 32), seed) for seed in range(3)]
    views[1] = paste(views[1], default_pattern(model), 3, 3)
    got = planted_cause(model, knows, trials=5, images=views)
    assert got.left_out == ("image 1",)
    assert got.names == ("image 0", "image 2", "image 0", "image 2", "image 0")
    outside = np.ones((32, 32), bool)
    top, left, bottom, right = got.boxes[0]
    outside[top:bottom, left:right] = False
    np.testing.assert_array_equal(got.images[0][outside], views[0][outside])
    with pytest.raises(InputError, match="all images hold something like the pattern"):
        planted_cause(model, knows, trials=2, images=[views[1]])


def occlusion_map(model: Model, image: np.ndarray, target: int) -> np.ndarray:
    return ov.occlusion(model, image, target=target, window=4, stride=2).importance


def rise_of(masks: int) -> Any:
    return lambda model, image, target: rise(model, image, target, masks=masks, tolerance=None).map


def test_occlusion_and_rise_point_to_the_cause() -> None:
    got = planted_cause(small_model(), {"occlusion": occlusion_map, "rise": rise_of(1500)}, trials=15, class_index=2)
    assert got.hits[:2].all()
    assert (got.rates[2:] < 0.5).all()


@pytest.mark.slow
@pytest.mark.parametrize("photos", [True, False])
def test_occlusion_and_rise_point_to_the_cause_in_200_trials(photos: bool, zoo: Path) -> None:
    model = cifar_model()
    images = ov.load_images(zoo / "images" / "cifar10", model, limit=200) if photos else None
    got = planted_cause(model, {"occlusion": occlusion_map, "rise": rise_of(2000)}, images=images, class_index=3)
    assert (got.rates[:2] >= 0.99).all(), got.rates
    assert (got.rates[2:] < 0.2).all(), got.rates


# -- the picture ------------------------------------------------------------------------------------------------------


def test_the_picture_counts_every_method_and_names_controls() -> None:
    methods = {f"method {index}": knows for index in range(9)} | {"contrary": contrary}
    got = planted_cause(small_model(), methods, trials=4)
    figure = plot(got)
    said = [artist.get_text() for artist in figure.findobj(Text)]
    assert said.count("4 of 4") == 9
    assert "0 of 4" in said
    assert {"random (control)", "edges (control)", "contrary", "random", "edges"} <= set(said)
    # Six methods' maps are shown, and always those of the controls.
    assert said.count("method 5") == 2
    assert said.count("method 6") == 1
    with pytest.raises(InputError, match="several panels"):
        plot(got, ax=figure.axes[0])


# -- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"class_index": 5}, "0 to 4"),
        ({"class_index": -1}, "0 to 4"),
        ({"threshold": 1}, "below 1"),
        ({"threshold": -0.1}, "below 1"),
        ({"pattern": np.zeros((8, 8), np.uint8)}, "uint8 RGB"),
        ({"pattern": np.zeros((8, 8, 3))}, "uint8 RGB"),
        ({"pattern": np.zeros((33, 8, 3), np.uint8)}, "2 × 2 to 32 × 32"),
        ({"pattern": np.full((8, 8, 3), 7, np.uint8)}, "too little contrast"),
    ],
    ids=str,
)
def test_what_cannot_be_planted_is_refused(parameters: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        plant(small_model(), **parameters)


@pytest.mark.parametrize(
    ("explain", "parameters", "sentence"),
    [
        (knows, {"trials": 0}, "not a number of trials"),
        ({}, {}, "no method"),
        ({"edges": knows}, {}, "names other than 'random', 'edges'"),
        (lambda *_: np.zeros((31, 32)), {}, r"\(31, 32\).*\(32, 32\)"),
        (lambda *_: np.full((32, 32), np.nan), {}, "the map holds no number"),
        (lambda *_: None, {}, "did not return a map"),
    ],
    ids=str,
)
def test_trials_that_cannot_be_are_refused(explain: Any, parameters: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        planted_cause(small_model(), explain, **({"trials": 2} | parameters))


def test_models_that_cannot_be_planted_are_refused(tmp_path: Path) -> None:
    segmenter = build(
        [helper.make_node("Conv", ["image", "w"], ["map"])],
        inputs={"image": ("float", ["n", 3, 8, 8])}, outputs={"map": ("float", ["n", 2, 6, 6])},
        weights={"w": np.ones((2, 3, 3, 3), np.float32)},
    )  # fmt: skip
    with pytest.raises(ContractError, match="into a classifier"):
        plant(opened(segmenter, tmp_path))
    vectors = build(
        [helper.make_node("Relu", ["x"], ["y"])],
        inputs={"x": ("float", ["n", 4])}, outputs={"y": ("float", ["n", 4])},
    )  # fmt: skip
    with pytest.raises(InputError, match="takes images"):
        plant(ov.load(save(vectors, tmp_path / "x.onnx"), device="cpu"))
    with pytest.raises(ModelError, match=r"operator set 7.*8 or newer"):
        plant(opened(network(opset=7), tmp_path))

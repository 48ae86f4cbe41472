"""Occlusion: positions, fills and averages against a slow oracle and Captum, on every layout and element type."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper
from PIL import Image, ImageFilter

import onnxviz as ov
from embedded_cifar import PATH, cifar_model, picture_set, pictures
from graphs import build, save, tiny_network
from onnxviz.errors import ContractError, InputError, ValueNotFoundError
from onnxviz.results import Occlusion
from onnxviz.runtime.model import Model
from oracles import occlusion_maps
from zoo_models import ZOO

MODELS = Path(__file__).parents[1] / "models"
LABELS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def view_of(picture: np.ndarray, model: Model) -> np.ndarray:
    return ov.load_images(picture, model).views([0])[0]


def channels_first(array: np.ndarray, model: Model) -> np.ndarray:
    return array if model.preprocess.layout == "NCHW" else np.moveaxis(array, -1, 0)


def channels_back(array: np.ndarray, model: Model) -> np.ndarray:
    return array if model.preprocess.layout == "NCHW" else np.moveaxis(array, 0, -1)


def scorer(model: Model, index: int) -> Callable[[np.ndarray], float]:
    """One (C, H, W) image to the probability of a class, alone in its batch."""
    return lambda image: float(model.predict(channels_back(image, model)[np.newaxis])[0, index])


def one_colour(model: Model, colour: np.ndarray, like: np.ndarray) -> np.ndarray:
    """The tensor of a (C, H, W) image of one colour, from the definition of the contract."""
    contract = model.preprocess
    pixels = np.asarray(colour, np.float64)[:: -1 if contract.channels == "BGR" else 1]
    numbers = (pixels * contract.scale - np.asarray(contract.mean)) / np.asarray(contract.std)
    if contract.quantization is not None:
        numbers = numbers / contract.quantization[0] + contract.quantization[1]
    if like.dtype.kind in "iu":
        numbers = np.clip(np.rint(numbers), np.iinfo(like.dtype).min, np.iinfo(like.dtype).max)
    return np.broadcast_to(numbers.astype(like.dtype)[:, np.newaxis, np.newaxis], like.shape)


def oracle(
    model: Model, view: np.ndarray, fill: np.ndarray, index: int, *, window: tuple[int, int], stride: tuple[int, int],
    edge: str = "clip",
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    image = channels_first(model.preprocess.encode(view[np.newaxis])[0], model)
    return occlusion_maps(scorer(model, index), image, fill, window, stride, edge)


def assert_close(got: np.ndarray, wanted: np.ndarray) -> None:
    """Equal to 1e-5 of the largest number, and NaN at the same places."""
    np.testing.assert_array_equal(np.isnan(got), np.isnan(wanted))
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-5 * np.nanmax(np.abs(wanted)))


# -- positions, edges, averages ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("edge", ["clip", "shift", "drop"])
@pytest.mark.parametrize("aggregate", ["mean", "sum"])
@pytest.mark.parametrize(
    ("window", "stride"), [((8, 8), (6, 6)), ((5, 12), (9, 7)), ((32, 9), (1, 9)), ((3, 4), (13, 31))]
)
def test_maps_are_those_of_the_oracle(
    edge: str, aggregate: str, window: tuple[int, int], stride: tuple[int, int]
) -> None:
    model, picture = cifar_model(), pictures(1)[0]
    got = ov.occlusion(model, picture, target=3, window=window, stride=stride, edge=edge, aggregate=aggregate)
    encoded = model.preprocess.encode(picture[np.newaxis])[0]
    fill = one_colour(model, picture.mean(axis=(0, 1)), encoded)
    scores, total, covered = oracle(model, picture, fill, 3, window=window, stride=stride, edge=edge)
    assert_close(got.probability, scores)
    with np.errstate(invalid="ignore"):
        assert_close(got.importance, total / covered if aggregate == "mean" else total)
    assert got.boxes.shape == (*scores.shape, 4)
    assert (got.boxes[..., :2] >= 0).all()
    assert (got.boxes[..., 2:] <= 32).all()
    assert got.clean == pytest.approx(scorer(model, 3)(encoded), rel=1e-5)


@pytest.mark.parametrize(
    ("edge", "spans"),
    [
        # 8 pixels, window 3, stride 3: Captum's clipped last window, and the same shifted inwards or left out.
        ("clip", [(0, 3), (3, 6), (6, 8)]),
        ("shift", [(0, 3), (3, 6), (5, 8)]),
        ("drop", [(0, 3), (3, 6)]),
    ],
)
def test_positions_at_the_border(edge: str, spans: list[tuple[int, int]], tmp_path: Path) -> None:
    model = ov.load(save(tiny_network(), tmp_path / "tiny.onnx"), preprocess="unit", device="cpu")
    got = ov.occlusion(model, pictures(1)[0], window=3, stride=3, edge=edge)
    assert [(top, bottom) for top, _, bottom, _ in got.boxes[:, 0]] == spans
    assert [(left, right) for _, left, _, right in got.boxes[0]] == spans
    # With "drop" nothing covers the remainder: no mean exists there, and the result says so.
    assert np.isnan(got.importance).any() == (edge == "drop")


def sum_network() -> onnx.ModelProto:
    return build(
        [helper.make_node("ReduceSum", ["image", "axes"], ["total"], keepdims=0)],
        inputs={"image": ("float", ["n", 3, 8, 8])}, outputs={"total": ("float", ["n"])},
        weights={"axes": np.array([1, 2, 3])},
    )  # fmt: skip


def test_importance_of_a_sum_is_known_exactly(tmp_path: Path) -> None:
    """definitions.md's own example: f = sum, x = 1, baseline 0 gives 9 under whole windows, less under clipped ones."""
    model = ov.load(save(sum_network(), tmp_path / "sum.onnx"), preprocess="raw", device="cpu")
    white = np.full((8, 8, 3), 1, np.uint8)
    got = ov.occlusion(model, white, target=lambda outputs: outputs["total"], window=3, stride=3, baseline=(0, 0, 0))
    heights = np.array([3, 3, 3, 3, 3, 3, 2, 2])
    np.testing.assert_array_equal(got.importance, 3 * np.outer(heights, heights))
    assert got.clean == 192
    assert got.scale == "value"
    assert got.label is None
    assert got.clean_label is None


def test_the_label_map_names_the_most_likely_class() -> None:
    model = ov.load(PATH, preprocess="cifar10", labels=LABELS, device="cpu", threads=1)
    picture = pictures(6)[5]
    got = ov.occlusion(model, picture, window=12, stride=5, baseline="grey")
    assert got.label is not None
    assert got.labels == LABELS
    encoded = model.preprocess.encode(picture[np.newaxis])[0]
    assert got.clean_label == model.predict(encoded[np.newaxis])[0].argmax()
    fill = one_colour(model, np.full(3, 128.0), encoded)
    for (i, j), label in np.ndenumerate(got.label):
        top, left, bottom, right = got.boxes[i, j]
        patched = encoded.copy()
        patched[:, top:bottom, left:right] = fill[:, top:bottom, left:right]
        assert label == model.predict(patched[np.newaxis])[0].argmax()
    # The target "top1" is chosen once, on the clean image.
    assert got.target == f"most likely class of the clean image: {LABELS[got.clean_label]} ({got.clean_label})"


def test_low_means_important_in_one_map_and_high_in_the_other(tmp_path: Path) -> None:
    """Only one pixel matters; patches over it change the score, all others leave it."""
    network = build(
        [helper.make_node("Slice", ["image", "starts", "ends"], ["pixel"])],
        inputs={"image": ("float", ["n", 3, 8, 8])}, outputs={"pixel": ("float", ["n", 1, 1, 1])},
        weights={"starts": np.array([0, 0, 5, 2]), "ends": np.array([2**31, 1, 6, 3])},
    )  # fmt: skip
    model = ov.load(save(network, tmp_path / "pixel.onnx"), preprocess="raw", device="cpu")
    white = np.full((8, 8, 3), 255, np.uint8)
    got = ov.occlusion(model, white, target="pixel[0,0,0]", window=1, stride=1, baseline=(0, 0, 0))
    wanted = np.zeros((8, 8))
    wanted[5, 2] = 255
    np.testing.assert_array_equal(got.importance, wanted)
    np.testing.assert_array_equal(got.probability, 255 - wanted)


# -- what the patch holds ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("baseline", ["mean", "dataset", "grey", "blur", (250.0, 10.5, 0.0)], ids=str)
def test_every_baseline(baseline: str | tuple[float, ...]) -> None:
    model, picture = cifar_model(), pictures(3)[2]
    got = ov.occlusion(model, picture, target=1, window=9, stride=7, baseline=baseline)
    encoded = model.preprocess.encode(picture[np.newaxis])[0]
    if baseline == "blur":
        blurred = np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(4.5)))
        fill = model.preprocess.encode(blurred[np.newaxis])[0]
        np.testing.assert_array_equal(got.fill, blurred)
    else:
        colours = {
            "mean": picture.reshape(-1, 3).astype(np.float64).mean(axis=0),
            "dataset": np.array([0.4914, 0.4822, 0.4465]) * 255,
            "grey": np.full(3, 128.0),
        }
        colour = colours[baseline] if isinstance(baseline, str) else np.array(baseline)
        np.testing.assert_allclose(got.fill, colour, rtol=1e-6)
        fill = one_colour(model, colour, encoded)
    scores, total, covered = oracle(model, picture, fill, 1, window=(9, 9), stride=(7, 7))
    assert_close(got.probability, scores)
    assert_close(got.importance, total / covered)
    assert got.provenance.parameters["baseline"] == (list(baseline) if isinstance(baseline, tuple) else baseline)


def test_the_dataset_mean_is_zero_in_the_tensor(tmp_path: Path) -> None:
    """The contract's mean is what mean-subtracting networks call nothing: occluding all of the image sums to 0."""
    contract = {"mean": [0.25, 0.5, 0.75], "std": [0.5, 0.5, 0.5], "scale": 1 / 255}
    model = ov.load(save(sum_network(), tmp_path / "sum.onnx"), preprocess=contract, device="cpu")
    got = ov.occlusion(model, pictures(1)[0], target=lambda outputs: outputs["total"], window=8, baseline="dataset")
    assert got.probability.shape == (1, 1)
    assert abs(got.probability[0, 0]) < 1e-4


# -- Captum -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("network", "preprocess", "window", "stride", "index"),
    [
        ("cifar10_7x7_4096", "cifar10", (8, 8), (3, 3), 6),
        ("cifar10_7x7_4096", "cifar10", (7, 10), (7, 4), 0),
        ("squeezenet1.1-imagenet", "caffe", (64, 64), (54, 54), 281),
        ("squeezenet1.1-imagenet", "caffe", (50, 90), (50, 67), 285),
    ],
)
def test_importance_is_captums(
    network: str, preprocess: str, window: tuple[int, int], stride: tuple[int, int], index: int,
    torch: object,
    captum: object,
) -> None:  # fmt: skip
    model = ov.load(MODELS / f"{network}.onnx", preprocess=preprocess, device="cpu")
    photo = Image.open(MODELS / "photos" / "chelsea.jpg").convert("RGB")
    got = ov.occlusion(model, photo, target=index, window=window, stride=stride, baseline="dataset")

    def forward(tensor: object) -> object:
        return torch.from_numpy(model.predict(tensor.numpy()))  # type: ignore[attr-defined]

    encoded = torch.from_numpy(model.preprocess.encode(got.image[np.newaxis]))  # type: ignore[attr-defined]
    attribution = captum.Occlusion(forward).attribute(  # type: ignore[attr-defined]
        encoded, target=index, sliding_window_shapes=(3, *window), strides=(3, *stride), baselines=0,
    )  # fmt: skip
    wanted = attribution.numpy()[0]
    # All channels of a pixel are hidden together, so all carry the same number.
    assert (wanted == wanted[:1]).all()
    assert np.abs(wanted).max() > 0
    difference = float(np.abs(got.importance - wanted[0]).max() / np.abs(wanted).max())
    assert difference <= 1e-5


# -- any target -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "scale", "text"),
    [
        (4, "probability", "deer (4)"),
        ("4", "probability", "deer (4)"),
        ("deer", "probability", "deer (4)"),
        (("logits", 4), "logit", "logits[4]"),
        ("logits[4]", "logit", "logits[4]"),
        ("/features/features.2/Relu_output_0[4, 7, 9]", "value", "/features/features.2/Relu_output_0[4, 7, 9]"),
        (lambda outputs: outputs["logits"][:, 4] - outputs["logits"][:, 5], "value", "<lambda>"),
    ],
    ids=["index", "digits", "label", "pair", "logit", "inner value", "function"],
)
def test_every_kind_of_target(target: object, scale: str, text: str) -> None:
    model = ov.load(PATH, preprocess="cifar10", labels=LABELS, device="cpu", threads=1)
    picture = pictures(1)[0]
    got = ov.occlusion(model, picture, target=target, window=16, stride=8)  # type: ignore[arg-type]
    assert (got.scale, got.target) == (scale, text)
    encoded = model.preprocess.encode(picture[np.newaxis])[0]
    fill = one_colour(model, picture.mean(axis=(0, 1)), encoded)
    tapped = "/features/features.2/Relu_output_0"

    def score(image: np.ndarray) -> float:
        outputs = model.run(image[np.newaxis], ("logits", tapped))
        if callable(target):
            return float(target(outputs)[0])
        if scale == "probability":
            return float(model.predict(image[np.newaxis])[0, 4])
        return float(outputs["logits"][0, 4] if scale == "logit" else outputs[tapped][0, 4, 7, 9])

    scores, total, covered = occlusion_maps(score, encoded, fill, (16, 16), (8, 8), "clip")
    assert_close(got.probability, scores)
    assert_close(got.importance, total / covered)
    # The label map is there whatever is explained.
    assert got.label is not None


def test_a_model_that_is_no_classifier_takes_an_element_but_no_class(tmp_path: Path) -> None:
    network = build(
        [helper.make_node("Conv", ["image", "w"], ["map"], pads=[1, 1, 1, 1])],
        inputs={"image": ("float", ["n", 3, 8, 8])}, outputs={"map": ("float", ["n", 2, 8, 8])},
        weights={"w": np.random.default_rng(0).standard_normal((2, 3, 3, 3)).astype(np.float32)},
    )  # fmt: skip
    model = ov.load(save(network, tmp_path / "segmenter.onnx"), preprocess="unit", device="cpu")
    got = ov.occlusion(model, pictures(1)[0], target="map[1,3,4]", window=2, stride=2)
    assert got.label is None
    # The unit sees 3 × 3 pixels around (3, 4): patches elsewhere leave it as it is, bit for bit.
    moved = got.probability != np.float32(got.clean)
    assert moved.any()
    assert not moved[[0, 3]].any()
    assert not moved[:, [0, 3]].any()
    with pytest.raises(ContractError, match="not a classifier"):
        ov.occlusion(model, pictures(1)[0], target=0, window=2, stride=2)
    with pytest.raises(InputError, match="no such element"):
        ov.occlusion(model, pictures(1)[0], target="map[1,8,0]", window=2, stride=2)
    with pytest.raises(ValueNotFoundError):
        ov.occlusion(model, pictures(1)[0], target="mask[1,0,0]", window=2, stride=2)


# -- batches ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 3, 1000])
def test_the_batch_size_changes_nothing(batch_size: int) -> None:
    picture = pictures(1)[0]
    got = ov.occlusion(cifar_model(batch_size), picture, target=2, window=8, stride=6)
    wanted = ov.occlusion(cifar_model(), picture, target=2, window=8, stride=6)
    np.testing.assert_allclose(got.probability, wanted.probability, rtol=1e-5)
    np.testing.assert_array_equal(got.boxes, wanted.boxes)


@pytest.mark.parametrize("batch", [1, 4])
def test_a_fixed_batch_gives_the_same_maps(batch: int, tmp_path: Path) -> None:
    picture = pictures(1)[0]
    found: dict[int | str, Occlusion] = {}
    for size in ("n", batch):
        proto = tiny_network(batch=size)
        if size != "n":
            # A second output that names the batch: the graph cannot be opened to other sizes.
            proto.graph.node.append(helper.make_node("Reshape", ["conv", "fixed"], ["flat"]))
            proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array([batch * 4, 64]), "fixed"))
            proto.graph.output.append(helper.make_tensor_value_info("flat", onnx.TensorProto.FLOAT, [batch * 4, 64]))
        path = save(proto, tmp_path / f"{size}.onnx")
        model = ov.load(path, preprocess="unit", output="prob", device="cpu")
        assert model.fixed_batch == (None if size == "n" else size)
        found[size] = ov.occlusion(model, picture, target=1, window=3, stride=2)
    np.testing.assert_allclose(found[batch].probability, found["n"].probability, rtol=1e-5)
    np.testing.assert_allclose(found[batch].importance, found["n"].importance, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(found[batch].label, found["n"].label)


def test_memory_that_runs_out_halves_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    from contextlib import contextmanager

    from onnxviz.runtime.sessions import OutOfMemory

    model, picture = ov.load(PATH, preprocess="cifar10", device="cpu", batch_size=8), pictures(1)[0]
    wanted = ov.occlusion(model, picture, target=2, window=8, stride=6, method="plain")
    filler = model.filler
    sizes: list[int] = []

    @contextmanager
    def scarce(values: object):
        with filler(values) as bound:  # type: ignore[arg-type]
            run = bound.run

            def limited(rows: int) -> object:
                sizes.append(rows)
                if rows > 3:
                    raise OutOfMemory("memory", where="test", got="8 images")
                return run(rows)

            monkeypatch.setattr(bound, "run", limited)
            yield bound

    monkeypatch.setattr(model, "filler", scarce)
    got = ov.occlusion(model, picture, target=2, window=8, stride=6, method="plain")
    assert sizes[:3] == [8, 4, 2]
    np.testing.assert_allclose(got.probability, wanted.probability, rtol=1e-5)


# -- any model of the zoo ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [
    "mobilenet_v1_025_128_qdq_op13", "mobilenet_v1_05_160_float_op13", "mlperf_tiny_resnet8_keras",
    "mlperf_tiny_resnet8_qdq", "vnn_cifar10_resnet4b", "vnn_marabou_cifar10_large",
])  # fmt: skip
def test_every_layout_and_element_type_of_the_zoo(name: str, zoo: Path) -> None:
    entry = next(entry for entry in ZOO if entry.name == name)
    model = ov.load(entry.path(zoo), preprocess=entry.preprocess, labels=entry.labels(zoo), device="cpu")
    images = ov.load_images(zoo / "images" / entry.images, model).subset([7])
    view = images.views([0])[0]
    side = view.shape[0] // 2
    got = ov.occlusion(model, images, window=side, stride=side // 2)
    image = channels_first(model.preprocess.encode(view[np.newaxis])[0], model)
    fill = one_colour(model, view.mean(axis=(0, 1), dtype=np.float64), image)
    index = int(got.clean_label)
    scores, total, covered = oracle(model, view, fill, index, window=(side, side), stride=(side // 2, side // 2))
    # 8-bit scores come in steps; batched and single runs agree to one of them.
    step = model.output.quantization[0] if model.output.quantization else 0
    np.testing.assert_allclose(got.probability, scores, rtol=1e-5, atol=1e-6 + step)
    np.testing.assert_allclose(got.importance, total / covered, rtol=0, atol=1e-5 + 2 * step)
    assert got.provenance.parameters["class_index"] == index
    np.testing.assert_array_equal(got.image, view)


# -- what an image may be, and what is refused ------------------------------------------------------------------------


def test_one_image_in_any_form(tmp_path: Path) -> None:
    model, picture = cifar_model(), pictures(1)[0]
    path = tmp_path / "picture.png"
    Image.fromarray(picture).save(path)
    wanted = ov.occlusion(model, picture, target=0, window=16, stride=16)
    for image in (
        path,
        str(path),
        Image.fromarray(picture),
        picture[np.newaxis],
        picture_set(1),
        ov.load_images(path, model),
    ):
        got = ov.occlusion(model, image, target=0, window=16, stride=16)
        np.testing.assert_array_equal(got.probability, wanted.probability)
        np.testing.assert_array_equal(got.image, picture)
    assert ov.occlusion(model, path, target=0, window=16, stride=16).name == "picture.png"
    # An item of a set is a picture too.
    item = picture_set(3)[1]
    np.testing.assert_array_equal(ov.occlusion(model, item, window=16, stride=16).image, pictures(3)[1])


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"window": 33}, "33 × 33; allowed: 1 × 1 to 32 × 32"),
        ({"window": (8, 40)}, "8 × 40"),
        ({"window": 0}, "not a window"),
        ({"window": 8.5}, "not a window"),
        ({"window": (8, 8, 8)}, "not a window"),
        ({"window": True}, "not a window"),
        ({"stride": 0}, "not a stride"),
        ({"stride": (2, -1)}, "not a stride"),
        ({"stride": "8"}, "not a stride"),
        ({"baseline": "black"}, "'mean', 'dataset', 'grey', 'blur'"),
        ({"baseline": (0, 0)}, "not a colour"),
        ({"baseline": (0, 0, 256)}, "not a colour"),
        ({"baseline": (0, 0, float("nan"))}, "not a colour"),
        ({"baseline": 7}, "not a colour"),
        ({"method": "fast"}, "no such method"),
        ({"aggregate": "median"}, "no such aggregate"),
        ({"edge": "wrap"}, "no such edge"),
        ({"target": 10}, "0 to 9"),
        ({"target": "zebra"}, "no class has that label"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(parameters: dict[str, object], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        ov.occlusion(cifar_model(), pictures(1)[0], **({"window": 8, "stride": 8} | parameters))  # type: ignore[arg-type]


def test_several_images_are_refused_with_the_next_step() -> None:
    with pytest.raises(InputError, match=r"2 images.*subset\(\[0\]\)"):
        ov.occlusion(cifar_model(), picture_set(2))


def test_the_result_says_what_made_it() -> None:
    got = ov.occlusion(
        cifar_model(), pictures(1)[0], target=5, window=(9, 8), stride=(5, 4), edge="shift", aggregate="sum"
    )
    assert got.provenance.method == "occlusion"
    plan = got.provenance.parameters["plan"]
    assert got.provenance.parameters == {
        "target": "dog (5)", "class_index": 5, "window": [9, 8], "stride": [5, 4], "baseline": "mean", "regions": None,
        "channels": None, "method": "incremental", "plan": plan, "aggregate": "sum", "edge": "shift",
    }  # fmt: skip
    assert plan["predicted_gain"] > 1.1
    assert 1 < plan["mac_ratio"] <= plan["ideal_mac_ratio"]
    assert 0 < plan["memory_bytes"] < 1 << 25
    assert got.probability.dtype == got.importance.dtype == np.float32
    again = ov.occlusion(
        cifar_model(), pictures(1)[0], target=5, window=(9, 8), stride=(5, 4), edge="shift", aggregate="sum"
    )
    np.testing.assert_array_equal(got.importance, again.importance)

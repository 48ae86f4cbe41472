"""The input contract: arithmetic against the formula in float64, views against resize-then-crop, and who decides."""

from __future__ import annotations

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from onnxviz.errors import ContractError, InputError, OnnxvizError
from onnxviz.inputs.contract import luma
from onnxviz.inputs.preprocess import PRESETS, Preprocess, choose_preprocess, read_preprocess_file, read_sidecar

# What the conventions say, written out independently of the presets: order of channels, and the formula in float64.
CONVENTIONS: dict[str, tuple[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]]] = {
    "imagenet": ("RGB", lambda p: (p / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])),
    "torch": ("RGB", lambda p: (p / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])),
    "caffe": ("BGR", lambda p: p - np.array([103.939, 116.779, 123.68])),
    "tf": ("RGB", lambda p: p / 127.5 - 1),
    "raw": ("RGB", lambda p: p),
    "unit": ("RGB", lambda p: p / 255),
    "efficientnet-lite": ("RGB", lambda p: (p - 127) / 128),
    "cifar10": ("RGB", lambda p: (p / 255 - np.array([0.4914, 0.4822, 0.4465])) / np.array([0.2471, 0.2435, 0.2616])),
}


def reference(name: str, views: NDArray[np.uint8], layout: str) -> NDArray[np.float64]:
    order, formula = CONVENTIONS[name]
    pixels = views.astype(np.float64)
    encoded = formula(pixels[..., ::-1] if order == "BGR" else pixels)
    return np.moveaxis(encoded, -1, 1) if layout == "NCHW" else encoded


def random_views(count: int = 3, height: int = 7, width: int = 5) -> NDArray[np.uint8]:
    views = np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    views.reshape(-1)[:256] = np.arange(256) if views.size >= 256 else 0
    return views


def gradient_picture(width: int, height: int) -> Image.Image:
    random = np.random.default_rng(1)
    coarse = random.integers(0, 256, (max(2, height // 16), max(2, width // 16), 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


# --- arithmetic ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("name", CONVENTIONS)
def test_encode_is_the_formula(name: str, layout: str) -> None:
    views = random_views()
    contract = choose_preprocess(argument=name, layout=layout, size=(7, 5))
    tensor = contract.encode(views)
    assert tensor.dtype == np.float32
    assert tensor.shape[1:] == contract.input_shape
    np.testing.assert_allclose(tensor, reference(name, views, layout), rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", ["imagenet", "caffe", "tf", "raw"])
def test_encode_is_the_formula_on_real_photos(name: str, zoo: Path) -> None:
    contract = choose_preprocess(argument=name, size=(224, 224))
    paths = sorted((zoo / "images" / "imagenet").iterdir())[:3]
    views = np.stack([contract.view(Image.open(path).convert("RGB")) for path in paths])
    tensor = contract.encode(views)
    np.testing.assert_allclose(tensor, reference(name, views, "NCHW"), rtol=1e-6, atol=0)
    mean = tensor.mean(axis=(0, 2, 3), dtype=np.float64)
    np.testing.assert_allclose(mean, reference(name, views, "NCHW").mean(axis=(0, 2, 3)), rtol=1e-6)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float64", 1e-15), ("float32", 6e-8), ("float16", 5e-4), ("bfloat16", 4e-3)]
)
def test_floating_dtypes_are_correctly_rounded(dtype: str, tolerance: float) -> None:
    views = random_views()
    tensor = choose_preprocess(argument="imagenet", dtype=dtype, size=(7, 5)).encode(views)
    assert tensor.dtype.name == dtype
    expected = reference("imagenet", views, "NCHW")
    np.testing.assert_allclose(tensor.astype(np.float64), expected, rtol=tolerance, atol=1e-15)


@pytest.mark.parametrize(
    ("dtype", "scale", "zero_point"),
    [("uint8", 0.0186, 114), ("int8", 0.0186, -14), ("int8", 0.018, 0), ("uint8", 0.037, 57), ("int16", 0.0001, 3)],
)
def test_quantised_input_is_quantize_linear(dtype: str, scale: float, zero_point: int) -> None:
    views = random_views()
    contract = choose_preprocess(argument="imagenet", dtype=dtype, size=(7, 5), quantization=(scale, zero_point))
    assert contract.quantization == (scale, zero_point)
    limits = np.iinfo(dtype)
    # The ONNX operator QuantizeLinear: saturate(round half to even(x / scale) + zero point).
    steps = np.round(reference("imagenet", views, "NCHW") / scale) + zero_point
    np.testing.assert_array_equal(contract.encode(views), np.clip(steps, limits.min, limits.max).astype(dtype))
    assert contract.encode(views).dtype == np.dtype(dtype)


@pytest.mark.parametrize("zero_point", [0, 1, 7, 128])
def test_quantisation_rounds_half_to_even_before_the_zero_point(zero_point: int) -> None:
    contract = Preprocess((1, 256), channels="GRAY", dtype="uint8", quantization=(2.0, zero_point))
    levels = np.arange(256, dtype=np.uint8)
    grey = np.repeat(levels[np.newaxis, np.newaxis, :, np.newaxis], 3, axis=3)
    exact = [min(255, round(Fraction(int(level), 2)) + zero_point) for level in levels]
    assert contract.encode(grey).reshape(-1).tolist() == exact


def test_raw_bytes_of_integer_inputs() -> None:
    views = random_views()
    as_uint8 = choose_preprocess(dtype="uint8", layout="NHWC", size=(7, 5))
    assert not as_uint8.guessed
    np.testing.assert_array_equal(as_uint8.encode(views), views)
    as_int8 = choose_preprocess(dtype="int8", layout="NHWC", size=(7, 5), quantization=(1.0, -128))
    assert not as_int8.guessed
    np.testing.assert_array_equal(as_int8.encode(views), views.astype(np.int16) - 128)
    unknown = choose_preprocess(dtype="int8", layout="NHWC", size=(7, 5))
    assert unknown.guessed
    np.testing.assert_array_equal(unknown.encode(views), views.astype(np.int16) - 128)
    named = choose_preprocess(argument="raw", dtype="int32", layout="NHWC", size=(7, 5))
    np.testing.assert_array_equal(named.encode(views), views)


def test_grey_is_pillows_luma() -> None:
    views = random_views()
    expected = np.stack([np.asarray(Image.fromarray(view).convert("L")) for view in views])
    np.testing.assert_array_equal(luma(views), expected)
    tensor = choose_preprocess(argument="unit", channels=1, size=(7, 5)).encode(views)
    assert tensor.shape == (3, 1, 7, 5)
    np.testing.assert_allclose(tensor[:, 0], expected / 255, rtol=1e-6)
    last = choose_preprocess(argument="unit", channels=1, layout="NHWC", size=(7, 5)).encode(views)
    np.testing.assert_array_equal(last[..., 0], tensor[:, 0])


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("name", [name for name in PRESETS if name != "mnist"])
def test_decode_gives_the_views_back(name: str, layout: str) -> None:
    views = random_views()
    contract = choose_preprocess(argument=name, layout=layout, size=(7, 5))
    np.testing.assert_array_equal(contract.decode(contract.encode(views)), views)


@pytest.mark.parametrize("name", CONVENTIONS)
def test_encode_color_agrees_with_encode(name: str) -> None:
    contract = choose_preprocess(argument=name, size=(1, 1))
    colour = np.array([17, 120, 240], dtype=np.uint8)
    np.testing.assert_allclose(
        contract.encode_color(colour), contract.encode(colour.reshape(1, 1, 1, 3)).reshape(-1), rtol=1e-6
    )
    halfway = contract.encode_color([17.5, 120.5, 240.5])
    below, above = contract.encode_color([17.0, 120.0, 240.0]), contract.encode_color([18.0, 121.0, 241.0])
    np.testing.assert_allclose(halfway, (below + above) / 2, rtol=1e-12)


def test_encode_color_of_grey_and_quantised_inputs() -> None:
    grey = choose_preprocess(argument="raw", channels=1, size=(1, 1))
    assert grey.encode_color([255, 255, 255]) == pytest.approx([255])
    assert grey.encode_color([255, 0, 0]) == pytest.approx([76.245], abs=1e-2)
    quantised = choose_preprocess(argument="tf", dtype="uint8", size=(1, 1), quantization=(1 / 128, 128))
    assert quantised.encode_color([127.5] * 3) == pytest.approx([128] * 3)
    field = np.random.default_rng(0).uniform(0, 255, (2, 4, 3))
    assert quantised.encode_color(field).shape == (2, 4, 3)


def test_dataset_mean_is_the_colour_that_becomes_zero() -> None:
    for name in ("imagenet", "caffe", "tf", "efficientnet-lite", "clip"):
        contract = choose_preprocess(argument=name, size=(8, 8))
        np.testing.assert_allclose(contract.encode_color(contract.dataset_mean), 0, atol=1e-12)
    assert choose_preprocess(argument="caffe", size=(8, 8)).dataset_mean == pytest.approx([123.68, 116.779, 103.939])
    assert choose_preprocess(argument="unit", size=(8, 8)).dataset_mean == pytest.approx([127.5] * 3)


@pytest.mark.parametrize(
    "views", [np.zeros((7, 5, 3), np.uint8), np.zeros((1, 5, 7, 3), np.uint8), np.zeros((1, 7, 5, 3), np.float32)]
)
def test_encode_refuses_what_is_not_a_view(views: NDArray[Any]) -> None:
    with pytest.raises(InputError, match="load_images"):
        choose_preprocess(size=(7, 5)).encode(views)


# --- views -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("width", "height"), [(512, 512), (640, 512), (512, 768)])
def test_crop_is_resize_of_the_short_side_then_centre_crop(interpolation: str, width: int, height: int) -> None:
    """torchvision's Resize(256) and CenterCrop(224), where both land on whole pixels: the same to one level."""
    picture = gradient_picture(width, height)
    contract = choose_preprocess(argument={"preset": "imagenet", "interpolation": interpolation}, size=(224, 224))
    scaled = (256 * width // min(width, height), 256 * height // min(width, height))
    filter_ = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}[interpolation]
    left, top = (scaled[0] - 224) // 2, (scaled[1] - 224) // 2
    expected = np.asarray(picture.resize(scaled, filter_).crop((left, top, left + 224, top + 224)), dtype=np.int64)
    assert np.abs(contract.view(picture) - expected).max() <= 1


def test_crop_follows_the_aspect_of_the_input() -> None:
    contract = Preprocess((100, 200), crop_fraction=0.5)
    assert contract.crop_box(400, 400) == (100, 150, 300, 250)
    assert contract.crop_box(1000, 100) == (450, 25, 550, 75)
    assert Preprocess((10, 10), crop_fraction=1.0).crop_box(30, 10) == (10, 0, 20, 10)


def test_stretch_and_pad() -> None:
    picture = Image.new("RGB", (40, 20), (255, 0, 0))
    stretched = Preprocess((10, 10), fit="stretch").view(picture)
    assert (stretched == [255, 0, 0]).all()
    padded = Preprocess((10, 10), fit="pad", background=(114, 114, 114)).view(picture)
    assert (padded[2:7] == [255, 0, 0]).all()
    assert (padded[:2] == 114).all()
    assert (padded[7:] == 114).all()


def test_a_picture_of_the_right_size_is_seen_as_it_is() -> None:
    picture = gradient_picture(32, 32)
    for fit in ("stretch", "pad"):
        np.testing.assert_array_equal(Preprocess((32, 32), fit=fit).view(picture), np.asarray(picture))
    np.testing.assert_array_equal(Preprocess((32, 32), crop_fraction=1.0).view(picture), np.asarray(picture))


@settings(max_examples=60, deadline=None)
@given(
    width=st.integers(1, 300),
    height=st.integers(1, 300),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    fit=st.sampled_from(["crop", "stretch", "pad"]),
    fraction=st.floats(0.01, 1.0),
    interpolation=st.sampled_from(["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]),
)
def test_every_shape_has_a_view_of_its_own_colour(
    width: int, height: int, size: tuple[int, int], fit: str, fraction: float, interpolation: str
) -> None:
    contract = Preprocess(size, fit=fit, crop_fraction=fraction, interpolation=interpolation, background=(9, 99, 199))
    view = contract.view(Image.new("RGB", (width, height), (9, 99, 199)))
    assert view.shape == (*size, 3)
    assert (np.abs(view.astype(int) - [9, 99, 199]) <= 1).all()


# --- who decides -----------------------------------------------------------------------------------------------------


def test_order_of_the_sources(tmp_path: Path) -> None:
    sidecar = tmp_path / "model.onnxviz.toml"
    sidecar.write_text('[preprocess]\npreset = "caffe"\n', encoding="utf-8")
    metadata = {"onnxviz.preprocess": json.dumps({"preset": "tf"})}
    everything: dict[str, Any] = {"sidecar": sidecar, "metadata": metadata, "size": (224, 224)}
    chosen = choose_preprocess(argument="unit", **everything)
    assert (chosen.name, chosen.source, chosen.guessed) == ("unit", "argument", False)
    chosen = choose_preprocess(**everything)
    assert (chosen.name, chosen.source, chosen.guessed) == ("caffe", "sidecar", False)
    assert "model.onnxviz.toml" in chosen.why
    chosen = choose_preprocess(metadata=metadata, size=(224, 224))
    assert (chosen.name, chosen.source, chosen.guessed) == ("tf", "metadata", False)
    chosen = choose_preprocess(size=(224, 224), dtype="uint8")
    assert (chosen.name, chosen.source, chosen.guessed) == ("raw", "graph", False)
    chosen = choose_preprocess(size=(224, 224))
    assert (chosen.name, chosen.source, chosen.guessed) == ("imagenet", "guess", True)
    assert chosen.why == (
        "guess: float32 input of 224 × 224 with three channels, nothing in the file says how it was prepared; "
        "the ImageNet convention is used; pass preprocess=... to state it"
    )


@pytest.mark.parametrize(
    ("facts", "name", "channels"),
    [
        ({"size": (224, 224)}, "imagenet", "RGB"),
        ({"size": (32, 32)}, "cifar10", "RGB"),
        ({"size": (224, 224), "layout": "NHWC"}, "tf", "RGB"),
        ({"size": (32, 32), "layout": "NHWC"}, "unit", "RGB"),
        ({"size": (28, 28), "channels": 1}, "unit", "GRAY"),
        ({"size": (224, 224), "normalises_itself": True}, "raw", "RGB"),
        ({"size": (224, 224), "dtype": "int8", "quantization": (0.0187, -14)}, "imagenet", "RGB"),
        ({"size": (224, 224), "dtype": "int8", "quantization": (0.5, 3)}, "raw", "RGB"),
    ],
)
def test_a_guess_is_called_a_guess(facts: dict[str, Any], name: str, channels: str) -> None:
    chosen = choose_preprocess(**facts)
    assert (chosen.name, chosen.channels, chosen.guessed) == (name, channels, True)
    assert chosen.why.startswith("guess: ")
    assert "pass preprocess=... to state it" in chosen.why


@pytest.mark.parametrize("quantization", [(1.0, 0), (1 / 255, 0), (0.0078125, 128)])
def test_a_quantised_range_that_bytes_fill_is_no_guess(quantization: tuple[float, int]) -> None:
    chosen = choose_preprocess(size=(160, 160), dtype="uint8", layout="NHWC", quantization=quantization)
    assert (chosen.name, chosen.guessed, chosen.quantization) == ("raw", False, None)
    assert "covers" in chosen.why


def test_small_inputs_see_the_whole_picture() -> None:
    assert choose_preprocess(argument="unit", size=(32, 32)).fit == "stretch"
    assert choose_preprocess(argument="unit", size=(224, 224)).fit == "crop"
    assert choose_preprocess(argument={"preset": "unit", "crop_fraction": 0.5}, size=(32, 32)).fit == "crop"
    assert choose_preprocess(argument="yolo", size=(64, 64)).fit == "pad"


def test_an_open_size_is_stated() -> None:
    chosen = choose_preprocess(argument="imagenet")
    assert chosen.size == (224, 224)
    assert "leaves the size open" in chosen.why
    assert choose_preprocess(argument={"preset": "imagenet", "size": 160}).size == (160, 160)
    assert choose_preprocess(argument="imagenet", size=(192, None)).size == (192, 192)


def test_a_partial_statement_changes_only_its_part(tmp_path: Path) -> None:
    chosen = choose_preprocess(
        argument={"crop_fraction": 1.0}, metadata={"onnxviz.preprocess": '"caffe"'}, size=(99, 99)
    )
    assert (chosen.name, chosen.crop_fraction, chosen.source, chosen.guessed) == ("caffe", 1.0, "metadata", False)
    assert "crop_fraction stated by the caller" in chosen.why
    chosen = choose_preprocess(argument={"size": [160, 160]})
    assert (chosen.size, chosen.name, chosen.guessed) == ((160, 160), "imagenet", True)
    sidecar = tmp_path / "m.onnxviz.toml"
    sidecar.write_text("[preprocess]\ncrop_fraction = 0.5\nsize = 96\n", encoding="utf-8")
    chosen = choose_preprocess(argument={"size": 128}, sidecar=sidecar)
    assert (chosen.size, chosen.crop_fraction) == ((128, 128), 0.5)


def test_stated_numbers_start_from_neutral_ones() -> None:
    chosen = choose_preprocess(argument={"mean": 128, "std": 64}, size=(8, 8))
    views = random_views(2, 8, 8)
    np.testing.assert_allclose(chosen.encode(views), np.moveaxis((views - 128.0) / 64, -1, 1), rtol=1e-6)
    assert not chosen.guessed


def test_a_preset_follows_the_stated_order_of_channels() -> None:
    rgb = choose_preprocess(argument={"preset": "caffe", "channels": "RGB"}, size=(8, 8))
    assert rgb.mean == (123.68, 116.779, 103.939)
    grey = choose_preprocess(argument="imagenet", channels=1, size=(224, 224))
    assert grey.mean == pytest.approx((0.449,))
    assert choose_preprocess(argument="mnist", channels=1, size=(28, 28)).mean == (0.1307,)
    assert choose_preprocess(argument="mnist", channels=3, size=(28, 28)).mean == (0.1307,) * 3


def test_plain_data_round_trips() -> None:
    contracts = [choose_preprocess(argument=name, size=(64, 96)) for name in PRESETS if name != "mnist"]
    contracts.append(choose_preprocess(dtype="int8", size=(32, 32), quantization=(1.0, -128)))
    for contract in contracts:
        plain = json.loads(json.dumps(contract.to_json()))
        assert Preprocess.from_json(plain) == contract
        again = choose_preprocess(argument=plain, size=contract.size, dtype=contract.dtype)
        views = random_views(1, *contract.size)
        np.testing.assert_array_equal(again.encode(views), contract.encode(views))


def test_files(tmp_path: Path) -> None:
    toml = tmp_path / "p.toml"
    toml.write_text('preset = "tf"\ncrop_fraction = 1.0\n', encoding="utf-8")
    assert choose_preprocess(argument=toml, size=(99, 99)).crop_fraction == 1
    assert choose_preprocess(argument=str(toml), size=(99, 99)).scale == 1 / 127.5
    other = tmp_path / "p.json"
    other.write_text(json.dumps({"preprocess": {"preset": "caffe"}}), encoding="utf-8")
    assert read_preprocess_file(other) == {"preset": "caffe"}
    sidecar = tmp_path / "m.onnxviz.toml"
    sidecar.write_text('labels = "l.txt"\npreprocess = "tf"\n[output]\nkind = "logits"\n', encoding="utf-8")
    assert read_sidecar(sidecar) == {"labels": "l.txt", "preprocess": "tf", "output": {"kind": "logits"}}


# --- exporters -------------------------------------------------------------------------------------------------------


def test_hugging_face_configuration() -> None:
    config = {
        "do_resize": True, "size": {"shortest_edge": 256}, "resample": 3, "do_center_crop": True,
        "crop_size": {"height": 224, "width": 224}, "do_rescale": True, "rescale_factor": 1 / 255,
        "do_normalize": True, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
        "image_processor_type": "ViTImageProcessor",
    }  # fmt: skip
    chosen = choose_preprocess(argument=config)
    assert (chosen.size, chosen.fit, chosen.crop_fraction, chosen.interpolation) == (
        (224, 224),
        "crop",
        0.875,
        "bicubic",
    )
    views = random_views(1, 224, 224)
    np.testing.assert_allclose(chosen.encode(views), reference("tf", views, "NCHW"), rtol=1e-5, atol=1e-7)
    chosen = choose_preprocess(metadata={"preprocessor_config": json.dumps(config | {"do_flip_channel_order": True})})
    assert (chosen.source, chosen.channels) == ("metadata", "BGR")
    chosen = choose_preprocess(argument=config | {"size": {"height": 224, "width": 224}, "do_center_crop": False})
    assert (chosen.size, chosen.fit) == ((224, 224), "stretch")


def test_timm_configuration() -> None:
    config = {
        "architecture": "resnet18",
        "pretrained_cfg": {
            "input_size": [3, 288, 288], "crop_pct": 0.95, "interpolation": "bicubic",
            "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225],
        },
    }  # fmt: skip
    chosen = choose_preprocess(argument=config)
    assert (chosen.size, chosen.crop_fraction, chosen.interpolation) == ((288, 288), 0.95, "bicubic")
    views = random_views(1, 288, 288)
    np.testing.assert_allclose(chosen.encode(views), reference("imagenet", views, "NCHW"), rtol=1e-6)


def test_ultralytics_metadata() -> None:
    metadata = {"author": "Ultralytics", "task": "detect", "imgsz": "[640, 640]", "names": "{0: 'person'}"}
    chosen = choose_preprocess(metadata=metadata, size=(640, 640))
    assert (chosen.source, chosen.fit, chosen.background) == ("metadata", "pad", (114, 114, 114))
    chosen = choose_preprocess(metadata=metadata | {"task": "classify"}, size=(224, 224))
    assert (chosen.fit, chosen.crop_fraction, chosen.scale, chosen.mean) == ("crop", 1.0, 1 / 255, (0.0,) * 3)


def test_onnx_image_metadata() -> None:
    metadata = {"Image.BitmapPixelFormat": "Bgr8", "Image.NominalPixelRange": "Normalized_1_1"}
    chosen = choose_preprocess(metadata=metadata, size=(8, 8))
    assert (chosen.source, chosen.channels) == ("metadata", "BGR")
    assert chosen.encode_color([255, 127.5, 0]) == pytest.approx([-1, 0, 1])
    video = choose_preprocess(metadata={"Image.NominalPixelRange": "NominalRange_16_235"}, size=(8, 8))
    assert video.encode_color([0, 127.5, 255]) == pytest.approx([16, 125.5, 235])
    with pytest.raises(ContractError, match="rgba8"):
        choose_preprocess(metadata={"Image.BitmapPixelFormat": "Rgba8"}, size=(8, 8))


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argument", "facts", "message"),
    [
        ("imagnet", {}, "'imagenet'"),
        ({"presset": "imagenet"}, {}, "'preset'"),
        ({"preset": "cafe"}, {}, "'caffe'"),
        ({"preset": 3}, {}, "a preset is a name"),
        (3.5, {}, "float"),
        ([1], {}, "list"),
        ({"mean": "grey"}, {}, "a number, or one for each channel"),
        ({"mean": [1, 2]}, {}, "3 channels; got 2 numbers"),
        ({"std": 0, "mean": 1}, {}, "above 0"),
        ({"scale": float("nan")}, {}, "finite"),
        ({"scale": True}, {}, "finite"),
        ({"size": [0, 5]}, {}, "pixels"),
        ({"size": "big"}, {}, "height, width"),
        ({"size": [1.5, 2]}, {}, "whole"),
        ({"fit": "cover"}, {}, "'crop'"),
        ({"interpolation": "bicubik"}, {}, "'bicubic'"),
        ({"crop_fraction": 1.2}, {}, "at most 1"),
        ({"background": [0, 0, 300]}, {}, "red, green, blue"),
        ({"quantization": {"scale": 1}}, {}, "zero_point"),
        ({"quantization": [1.0, 0]}, {}, "only an integer input"),
        ({"channels": "RGB", "preset": "unit"}, {"channels": 1}, "contradicts.*channels"),
        ({"channels": "GRAY", "preset": "unit"}, {"channels": 3}, "contradicts"),
        ({"channels": "XYZ"}, {}, "RGB"),
        ({"layout": "NHWC"}, {}, "layout"),
        ({"layout": "HWC"}, {}, "NCHW"),
        ({"dtype": "float16"}, {}, "dtype"),
        ({"dtype": "complex64"}, {}, "float32"),
        ({"size": 299}, {"size": (224, 224)}, "299 × 299.*224 × 224"),
        (None, {"channels": 9}, "9 channels"),
        (None, {"dtype": "float8e4m3fn", "size": (8, 8)}, "float32"),
        ("imagenet", {"dtype": "uint8", "size": (8, 8)}, "do not fit the dtype"),
        ("unit", {"dtype": "int8", "size": (8, 8)}, "do not fit the dtype"),
        ("missing.toml", {}, "no such file"),
        (Preprocess((8, 8)), {"size": (9, 9)}, "contradicts"),
    ],
)  # fmt: skip
def test_refusals_say_what_is_allowed(argument: Any, facts: dict[str, Any], message: str) -> None:
    with pytest.raises(ContractError, match="(?s)" + message):
        choose_preprocess(argument=argument, **facts)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[preprocess\n", "not valid TOML"),
        ("[preproces]\npreset='tf'\n", "'preprocess'"),
        ("[preprocess]\nmeen=3\n", "'mean'"),
        ("preprocess = 3\n", "preset's name"),
        ("[preprocess]\npreset = 'nope'\n", "no preset"),
    ],
)
def test_bad_sidecars(tmp_path: Path, text: str, message: str) -> None:
    sidecar = tmp_path / "m.onnxviz.toml"
    sidecar.write_text(text, encoding="utf-8")
    with pytest.raises(ContractError, match=message):
        choose_preprocess(sidecar=sidecar, size=(8, 8))


@pytest.mark.parametrize("text", ["{", "[1]", "3", '{"preset": "imagenett"}', "[" * 100_000])
def test_bad_metadata(text: str) -> None:
    with pytest.raises(ContractError):
        choose_preprocess(metadata={"onnxviz.preprocess": text}, size=(8, 8))


plain_values = st.recursive(
    st.none() | st.booleans() | st.integers(-500, 500) | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(
    stated=st.dictionaries(
        st.sampled_from(
            ["preset", "size", "fit", "crop_fraction", "interpolation", "channels", "scale", "mean", "std", "layout",
             "dtype", "quantization", "background", "name", "image_mean", "input_size", "crop_size", "do_center_crop"]
        ),
        plain_values,
        max_size=5,
    ),
    dtype=st.sampled_from(["float32", "float16", "uint8", "int8"]),
    channels=st.sampled_from([1, 3, None]),
)  # fmt: skip
@example({"scale": 1.334440614822485e36}, "float32", 1)
def test_any_statement_gives_a_contract_or_a_refusal(stated: dict[str, Any], dtype: str, channels: int | None) -> None:
    try:
        contract = choose_preprocess(argument=stated, dtype=dtype, channels=channels, size=(4, 4))
    except OnnxvizError:
        return
    assert contract.encode(np.zeros((1, 4, 4, 3), np.uint8)).shape == (1, *contract.input_shape)
    json.dumps(contract.to_json(), allow_nan=False)

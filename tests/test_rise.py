"""RISE: masks, map and standard error against slow oracles, when it stops, and results that merge to the bit."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from onnx import helper

import onnxviz as ov
from embedded_cifar import PATH, cifar_model, pictures
from graphs import build, save, tiny_network
from onnxviz.errors import ContractError, InputError
from onnxviz.methods.rise import BLOCK, mask_block, merge_rise, rise, rise_steps
from onnxviz.pictures import plot
from onnxviz.pictures.text import numeral
from onnxviz.results import Rise, relative_noise
from onnxviz.runtime.model import Model
from onnxviz.runtime.sessions import OutOfMemory
from oracles import rise_map, rise_mask
from zoo_models import ZOO


def opened(proto: onnx.ModelProto, folder: Path, **options: Any) -> Model:
    return ov.load(save(proto, folder / "network.onnx"), device="cpu", **({"preprocess": "unit"} | options))


def channels_first(array: np.ndarray, model: Model) -> np.ndarray:
    return array if model.preprocess.layout == "NCHW" else np.moveaxis(array, -1, 0)


def scorer(model: Model, index: int) -> Callable[[np.ndarray], float]:
    """One (C, H, W) image to the probability of a class, alone in its batch."""
    back = (lambda image: image) if model.preprocess.layout == "NCHW" else (lambda image: np.moveaxis(image, 0, -1))
    return lambda image: float(model.predict(back(image)[np.newaxis])[0, index])


def oracle_masks(size: tuple[int, int], count: int, **parameters: Any) -> list[np.ndarray]:
    masks = []
    for number in range(-(-count // BLOCK)):
        block = mask_block(size, number, masks=min(BLOCK, count - number * BLOCK), **parameters)
        masks += [
            rise_mask(cells, tuple(offset), size) for cells, offset in zip(block.cells, block.offsets, strict=True)
        ]
    return masks


def mean_network() -> onnx.ModelProto:
    """One output: the mean of the image."""
    return build(
        [helper.make_node("ReduceMean", ["image"], ["mean"], axes=[1, 2, 3], keepdims=0)],
        inputs={"image": ("float", ["n", 3, 8, 8])}, outputs={"mean": ("float", ["n"])},
    )  # fmt: skip


def mean_of(outputs: Any) -> np.ndarray:
    return outputs["mean"]


# -- masks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "grid"), [((32, 32), 7), ((21, 40), 4), ((8, 8), 8), ((9, 30), 2)])
def test_masks_are_those_of_the_authors_formula(size: tuple[int, int], grid: int) -> None:
    block = mask_block(size, 3, grid=grid, keep=0.4, seed=5)
    masks = block.rows(0, 40)
    assert masks.dtype == np.float32
    for mask, cells, offset in zip(masks, block.cells, block.offsets, strict=False):
        np.testing.assert_allclose(mask, rise_mask(cells, tuple(offset), size), atol=2e-6)
    np.testing.assert_array_equal(block.rows(17, 19), masks[17:19])


def test_cells_and_offsets_are_drawn_as_stated() -> None:
    blocks = [mask_block((32, 50), number, grid=5, keep=0.3, seed=1) for number in range(20)]
    cells = np.concatenate([block.cells for block in blocks])
    assert abs(cells.mean() - 0.3) < 4 * np.sqrt(0.21 / cells.size)
    offsets = np.concatenate([block.offsets for block in blocks])
    # Below one cell of ceil(32 / 5) = 7 and ceil(50 / 5) = 10 pixels, each as often as the others.
    for axis, side in ((0, 7), (1, 10)):
        counts = np.bincount(offsets[:, axis], minlength=side)
        assert len(counts) == side
        assert (np.abs(counts - len(offsets) / side) < 5 * np.sqrt(len(offsets) / side)).all()


def test_blocks_of_a_seed_are_always_the_same_and_all_different() -> None:
    one = mask_block((32, 32), 0, seed=3)
    np.testing.assert_array_equal(one.cells, mask_block((32, 32), 0, seed=3).cells)
    np.testing.assert_array_equal(one.cells[:9], mask_block((32, 32), 0, seed=3, masks=9).cells)
    assert len(mask_block((32, 32), 0, masks=9)) == 9
    for other in (mask_block((32, 32), 1, seed=3), mask_block((32, 32), 0, seed=4), mask_block((32, 32), 3, seed=0)):
        assert (one.cells != other.cells).any()


# -- the map ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("masks", "grid", "keep"), [(300, 7, 0.5), (40, 3, 0.2)])
def test_the_map_is_the_oracles_under_the_same_masks(masks: int, grid: int, keep: float) -> None:
    model, picture = cifar_model(), pictures(2)[1]
    got = rise(model, picture, 3, masks=masks, grid=grid, keep=keep, tolerance=None, seed=7)
    image = model.preprocess.encode(picture[np.newaxis])[0]
    shared = oracle_masks((32, 32), masks, grid=grid, keep=keep, seed=7)
    score = scorer(model, 3)
    wanted = rise_map(score, image, np.zeros_like(image), shared, keep)
    np.testing.assert_allclose(got.map, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())
    terms = np.array([score((image * mask).astype(np.float32)) * mask / keep for mask in shared])
    error = terms.std(axis=0, ddof=1) / np.sqrt(masks)
    np.testing.assert_allclose(got.standard_error, error, rtol=0, atol=1e-4 * error.max())
    assert got.masks == masks
    assert got.clean == pytest.approx(score(image), rel=1e-5)
    assert got.target == "cat (3)"
    assert got.scale == "probability"
    assert got.noise == pytest.approx(error.max() / np.ptp(wanted), rel=1e-3)


@pytest.mark.parametrize("baseline", ["zero", "mean", "dataset", "grey", (250.0, 10.5, 0.0)], ids=str)
def test_every_baseline(baseline: Any, tmp_path: Path) -> None:
    contract = {"mean": [0.25, 0.5, 0.75], "std": [0.5, 0.25, 0.5], "scale": 1 / 255}
    model, picture = opened(tiny_network(), tmp_path, preprocess=contract), pictures(1)[0]
    got = rise(model, picture, 1, masks=50, grid=3, baseline=baseline)
    view = got.image
    colour = {
        "mean": view.reshape(-1, 3).mean(axis=0), "dataset": np.array([0.25, 0.5, 0.75]) * 255, "grey": np.full(3, 128),
        "zero": np.array([0.25, 0.5, 0.75]) * 255,
    }.get(baseline if isinstance(baseline, str) else "", np.array(baseline if not isinstance(baseline, str) else 0))  # fmt: skip
    numbers = (colour / 255 - [0.25, 0.5, 0.75]) / [0.5, 0.25, 0.5]
    image = model.preprocess.encode(view[np.newaxis])[0]
    fill = np.broadcast_to(numbers[:, np.newaxis, np.newaxis], image.shape)
    wanted = rise_map(scorer(model, 1), image, fill, oracle_masks((8, 8), 50, grid=3), 0.5)
    np.testing.assert_allclose(got.map, wanted, rtol=0, atol=1e-5 * wanted.max())


def test_zero_is_black_where_the_contract_subtracts_nothing(tmp_path: Path) -> None:
    model, white = opened(mean_network(), tmp_path, preprocess="raw"), np.full((8, 8, 3), 200, np.uint8)
    got = rise(model, white, mean_of, masks=30, grid=2)
    masks = np.array(oracle_masks((8, 8), 30, grid=2))
    scores = 200 * masks.mean(axis=(1, 2))
    np.testing.assert_allclose(got.map, np.tensordot(scores, masks, 1) / 15, rtol=1e-5)


def test_independent_masks_agree_within_the_standard_error() -> None:
    """An oracle with its own random numbers: 99 % of the pixels within 4 standard errors of the difference."""
    model, picture = cifar_model(), pictures(3)[2]
    got = rise(model, picture, 5, masks=1024, tolerance=None)
    random = np.random.RandomState(0)  # the authors' generator
    masks = [
        rise_mask(random.rand(7, 7) < 0.5, (random.randint(0, 5), random.randint(0, 5)), (32, 32)) for _ in range(1024)
    ]
    image = model.preprocess.encode(picture[np.newaxis])[0]
    wanted = np.zeros((32, 32))
    for start in range(0, len(masks), 256):
        batch = np.array(masks[start : start + 256])
        scores = model.predict((image * batch[:, np.newaxis]).astype(np.float32))[:, 5]
        wanted += np.tensordot(scores.astype(np.float64), batch, 1) / (len(masks) * 0.5)
    error = np.sqrt(2) * got.standard_error
    assert (np.abs(got.map - wanted) <= 4 * error).mean() >= 0.99
    # The bound means something: the map itself varies by far more.
    assert np.ptp(got.map) > 4 * error.max()


def test_the_standard_error_is_what_other_seeds_scatter_by(tmp_path: Path) -> None:
    model, picture = opened(tiny_network(), tmp_path), pictures(1)[0]
    results = [rise(model, picture, 1, masks=64, grid=3, seed=seed) for seed in range(60)]
    scatter = np.std([result.map for result in results], axis=0, ddof=1)
    stated = np.mean([result.standard_error for result in results], axis=0)
    assert 0.9 < np.mean(scatter / stated) < 1.1


@pytest.mark.parametrize(
    "name", ["mobilenet_v1_025_128_qdq_op13", "mlperf_tiny_resnet8_keras", "mlperf_tiny_resnet8_qdq"]
)
def test_every_layout_and_element_type_of_the_zoo(name: str, zoo: Path) -> None:
    entry = next(entry for entry in ZOO if entry.name == name)
    model = ov.load(entry.path(zoo), preprocess=entry.preprocess, labels=entry.labels(zoo), device="cpu")
    images = ov.load_images(zoo / "images" / entry.images, model).subset([7])
    got = rise(model, images, masks=60, grid=4, seed=2)
    encoded = model.preprocess.encode(got.image[np.newaxis])
    index = int(model.predict(encoded)[0].argmax())
    image = channels_first(encoded[0], model)
    fill = np.full_like(image, model.preprocess.quantization[1] if model.preprocess.quantization else 0)
    # The very same masks: in another precision a pixel half-way between two bytes would be rounded the other way.
    masks = list(mask_block(got.image.shape[:2], 0, grid=4, seed=2, masks=60).rows(0, 60).astype(np.float64))
    wanted = rise_map(scorer(model, index), image, fill, masks, 0.5)
    # 8-bit scores come in steps; batched and single runs agree to one of them.
    step = model.output.quantization[0] if model.output.quantization else 0
    np.testing.assert_allclose(got.map, wanted, rtol=0, atol=1e-5 * wanted.max() + step)
    assert np.ptp(wanted) > 8 * step
    assert got.target.startswith("most likely class of the clean image")


# -- targets and batches ----------------------------------------------------------------------------------------------


def test_any_scalar_of_the_output_is_a_target() -> None:
    model, picture = cifar_model(), pictures(1)[0]
    logit = rise(model, picture, ("logits", 4), masks=64)
    assert logit.scale == "logit"
    named = rise(model, picture, lambda outputs: outputs["logits"][:, 4] * -2, masks=64)
    np.testing.assert_allclose(named.map, logit.map * -2, rtol=1e-5)
    assert named.scale == "value"
    top = rise(model, picture, masks=64)
    best = int(model.predict(model.preprocess.encode(picture[np.newaxis]))[0].argmax())
    np.testing.assert_array_equal(top.map, rise(model, picture, best, masks=64).map)
    assert top.provenance.parameters["class_index"] == best


def test_a_model_that_is_no_classifier_has_no_class(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="not a classifier"):
        rise(opened(mean_network(), tmp_path, output={"output": "mean", "kind": "values"}), pictures(1)[0], 0)


@pytest.mark.parametrize("batch_size", [1, 3, 1000])
def test_the_batch_size_changes_nothing(batch_size: int) -> None:
    got = rise(cifar_model(batch_size), pictures(1)[0], 2, masks=70)
    wanted = rise(cifar_model(), pictures(1)[0], 2, masks=70)
    np.testing.assert_allclose(got.map, wanted.map, rtol=1e-5)
    np.testing.assert_allclose(got.standard_error, wanted.standard_error, rtol=1e-4)


def test_a_fixed_batch_gives_the_same_map(tmp_path: Path) -> None:
    found = []
    for batch in ("n", 4):
        proto = tiny_network(batch=batch)
        if batch == 4:
            # A second output that names the batch: the graph cannot be opened to other sizes.
            proto.graph.node.append(helper.make_node("Reshape", ["conv", "fixed"], ["flat"]))
            proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array([16, 64]), "fixed"))
            proto.graph.output.append(helper.make_tensor_value_info("flat", onnx.TensorProto.FLOAT, [16, 64]))
        model = opened(proto, tmp_path, output="prob")
        assert model.fixed_batch == (None if batch == "n" else 4)
        found.append(rise(model, pictures(1)[0], 1, masks=30, grid=3).map)
    np.testing.assert_allclose(found[1], found[0], rtol=1e-5)


def test_memory_that_runs_out_halves_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    model, picture = ov.load(PATH, preprocess="cifar10", device="cpu", batch_size=8), pictures(1)[0]
    wanted = rise(model, picture, 2, masks=33)
    filler = model.filler
    sizes: list[int] = []

    @contextmanager
    def scarce(values: object):
        with filler(values) as bound:  # type: ignore[arg-type]
            run = bound.run_rows

            def limited(rows: np.ndarray) -> object:
                sizes.append(len(rows))
                if len(rows) > 3:
                    raise OutOfMemory("memory", where="test", got="8 images")
                return run(rows)

            monkeypatch.setattr(bound, "run_rows", limited)
            yield bound

    monkeypatch.setattr(model, "filler", scarce)
    got = rise(model, picture, 2, masks=33)
    assert sizes[:3] == [8, 4, 2]
    np.testing.assert_allclose(got.map, wanted.map, rtol=1e-5)


def test_masks_without_a_finite_score_are_left_out_and_counted(tmp_path: Path) -> None:
    model, picture = opened(mean_network(), tmp_path, preprocess="raw"), pictures(1)[0]
    masks = np.array(oracle_masks((8, 8), 40, grid=2))
    image = model.preprocess.encode(rise(model, picture, mean_of, masks=1, grid=2).image[np.newaxis])[0]
    scores = (image * masks[:, np.newaxis]).mean(axis=(1, 2, 3))
    ordered = np.sort(scores)
    place = 10 + int(np.diff(ordered)[10:30].argmax())
    limit = float(ordered[place : place + 2].mean())

    def sometimes(outputs: Any) -> np.ndarray:
        return np.where(outputs["mean"] > limit, np.nan, outputs["mean"])

    got = rise(model, picture, sometimes, masks=40, grid=2)
    kept = scores <= limit
    assert got.non_finite == 39 - place == (~kept).sum()
    np.testing.assert_allclose(got.map, np.tensordot(scores[kept], masks[kept], 1) / (kept.sum() * 0.5), rtol=1e-4)
    nothing = rise(model, picture, lambda outputs: outputs["mean"] * np.nan, masks=5, grid=2)
    assert np.isnan(nothing.map).all()
    assert nothing.non_finite == 5


# -- when it stops ----------------------------------------------------------------------------------------------------


def test_it_stops_after_the_first_block_that_is_sure_enough(tmp_path: Path) -> None:
    model, picture = opened(tiny_network(), tmp_path), pictures(1)[0]
    every = list(rise_steps(model, picture, 1, masks=2000, grid=3, tolerance=None))
    assert [step.done for step in every] == [*range(256, 2000, 256), 2000]
    assert all(step.total == 2000 for step in every)
    noise = np.array([step.noise for step in every])
    for step in every:
        assert (step.result is None) == (step.done < 2000)
    # The surest but the last; noise need not fall at every block.
    wanted = 1 + int(noise[1:-1].argmin())
    tolerance = float(noise[wanted])
    assert wanted > 1
    stopped = list(rise_steps(model, picture, 1, masks=2000, grid=3, tolerance=tolerance))
    assert [step.done for step in stopped] == [step.done for step in every[: wanted + 1]]
    last = stopped[-1]
    assert last.result is not None
    assert last.result.masks == last.done == every[wanted].done < 2000
    assert last.noise <= tolerance < noise[1:wanted].min()
    np.testing.assert_array_equal(last.map, every[wanted].map)
    # One block is never enough to know.
    assert rise(model, picture, 1, masks=2000, grid=3, tolerance=1e9).masks == 512


def test_steps_end_in_the_result_of_rise(tmp_path: Path) -> None:
    model, picture = opened(tiny_network(), tmp_path), pictures(1)[0]
    last = list(rise_steps(model, picture, 1, masks=600, grid=3, seed=4, tolerance=None))[-1]
    wanted = rise(model, picture, 1, masks=600, grid=3, seed=4, tolerance=None)
    assert last.result is not None
    assert_equal(last.result, wanted)
    np.testing.assert_allclose(last.map, wanted.map, rtol=1e-6)
    assert last.noise == pytest.approx(wanted.noise, rel=1e-5)
    with pytest.raises(TypeError, match="'window'"):
        rise_steps(model, picture, window=3)


def test_noise_of_maps_without_range() -> None:
    flat = np.ones((2, 2), np.float32)
    assert relative_noise(flat, np.zeros((2, 2))) == 0
    assert relative_noise(flat, flat) == np.inf


# -- merging ----------------------------------------------------------------------------------------------------------


def assert_equal(a: Rise, b: Rise) -> None:
    """The same in every bit."""
    for name in ("map", "standard_error", "sums", "sums_of_squares", "parts", "image"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    for name in ("masks", "non_finite", "clean", "grid", "keep", "name", "target", "scale"):
        assert getattr(a, name) == getattr(b, name), name
    assert a.provenance.parameters == b.provenance.parameters


def test_merging_is_associative_and_order_free_to_the_bit() -> None:
    model, picture = cifar_model(), pictures(1)[0]
    a, b, c = (
        rise(model, picture, ("logits", 3), masks=masks, seed=seed, tolerance=None)
        for masks, seed in ((300, 2), (256, 0), (77, 1))
    )
    whole = merge_rise(merge_rise(a, b), c)
    for other in (merge_rise(a, merge_rise(b, c)), merge_rise(merge_rise(c, a), b), merge_rise(c, merge_rise(b, a))):
        assert_equal(other, whole)
    assert whole.masks == 633
    assert whole.parts.tolist() == [[0, 0, 256], [1, 0, 77], [2, 0, 300]]
    weighted = (a.map.astype(np.float64) * 300 + b.map * 256.0 + c.map * 77.0) / 633
    np.testing.assert_allclose(whole.map, weighted, rtol=0, atol=1e-6 * np.abs(weighted).max())
    assert whole.standard_error.mean() < a.standard_error.mean()


def test_parts_of_one_seed_become_the_whole_to_the_bit(tmp_path: Path) -> None:
    model, picture = opened(tiny_network(), tmp_path), pictures(1)[0]
    whole = rise(model, picture, 1, masks=800, tolerance=None)
    first = rise(model, picture, 1, masks=512, tolerance=None)
    second = rise(model, picture, 1, masks=288, first=512, tolerance=None)
    assert_equal(merge_rise(second, first), whole)
    assert whole.parts.tolist() == [[0, 0, 800]]


def test_results_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    model, picture = cifar_model(), pictures(2)[0]
    one = rise(model, picture, 3, masks=10)
    tiny = rise(opened(tiny_network(), tmp_path), picture, 1, masks=10, seed=1)
    for other, what in (
        (tiny, "model"),
        (rise(model, pictures(2)[1], 3, masks=10, seed=1), "image"),
        (rise(model, picture, 4, masks=10, seed=1), "target"),
        (rise(model, picture, 3, masks=10, seed=1, grid=5), "grid"),
        (rise(model, picture, 3, masks=10, seed=1, keep=0.4), "keep"),
        (rise(model, picture, 3, masks=10, seed=1, baseline="grey"), "baseline"),
    ):
        with pytest.raises(InputError, match=f"another {what}"):
            merge_rise(one, other)
    with pytest.raises(InputError, match="mask 0 of seed 0 twice"):
        merge_rise(one, rise(model, picture, 3, masks=20))
    with pytest.raises(InputError, match="mask 256 of seed 0 twice"):
        merge_rise(rise(model, picture, 3, masks=300), rise(model, picture, 3, masks=20, first=256))


# -- the picture ------------------------------------------------------------------------------------------------------


def test_the_picture_says_how_sure_the_map_is() -> None:
    model, picture = cifar_model(), pictures(3)[2]
    few = rise(model, picture, 5, masks=20)
    said = texts(plot(few))
    assert f"The largest standard error is {numeral(100 * few.noise)} % of the map's range; most" in said
    assert "RISE: dog (5)" in said
    assert "20 masks" in said
    many = dataclasses.replace(few, standard_error=few.standard_error / 100, non_finite=3)
    said = texts(plot(many, limits=(0, 1)))
    assert "most of what the map shows is noise" not in said
    assert "3 masks without a finite score, left out." in said
    nothing = dataclasses.replace(few, map=few.map * np.nan, standard_error=few.map * np.nan)
    assert "No mask gave a finite score." in texts(plot(nothing))


def texts(figure: Figure) -> str:
    return " ".join(artist.get_text() for artist in figure.findobj(Text))


# -- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"masks": 0}, "masks.*0.*from 1"),
        ({"masks": 2.5}, "masks"),
        ({"masks": True}, "masks"),
        ({"grid": 1}, "from 2"),
        ({"grid": 33}, "2 to 32"),
        ({"keep": 0}, "above 0 and below 1"),
        ({"keep": 1.0}, "above 0 and below 1"),
        ({"keep": float("nan")}, "above 0 and below 1"),
        ({"tolerance": 0}, "above 0, or None"),
        ({"seed": -1}, "seed"),
        ({"first": 100}, "multiples of 256"),
        ({"baseline": "black"}, "'zero', 'blur', 'mean'"),
        ({"baseline": (1, 2)}, "red, green, blue"),
    ],
    ids=str,
)
def test_parameters_that_cannot_be_are_refused(parameters: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        rise(cifar_model(), pictures(1)[0], **parameters)


def test_several_images_are_refused() -> None:
    with pytest.raises(InputError, match="2 images"):
        rise(cifar_model(), pictures(2))

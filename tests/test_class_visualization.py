"""Pictures by gradient ascent: against a loop in plain PyTorch, against what a person would call the class, and refusals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import onnxviz as ov
from embedded_cifar import cifar_model
from graphs import build, save
from onnxviz.errors import ContractError, InputError, ValueNotFoundError
from onnxviz.methods.ascent import STAGES, Adam, Frame, PixelCare, Stage, ascend_in_stages, normalized, stages_of, tend
from onnxviz.methods.ascent_recipes import Objectives, Recipe, picture_randoms, rim_color
from onnxviz.methods.class_visualization import jitter_reach, probability_under_jitter
from onnxviz.methods.facets import find_facets
from onnxviz.methods.feature_visualization import channel_target
from onnxviz.methods.gradient_target import resolve_gradient_target
from onnxviz.methods.image_parametrization import FourierSpace
from onnxviz.methods.picture_scores import PictureEncoding, PictureScores
from onnxviz.methods.relu_startup import REDIRECTED, STARTUP_STEPS
from onnxviz.methods.robust_transforms import RandomTransform
from onnxviz.methods.total_variation import denoise
from onnxviz.runtime.model import Model

MODELS = Path(__file__).parents[1] / "models"
SIDE = 12
CONTRACT = {"size": [SIDE, SIDE], "scale": 1 / 255, "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3]}


def relative(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


def weights_of(seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {
        "w1": (random.standard_normal((6, 3, 3, 3)) / 5).astype(np.float32),
        "w2": (random.standard_normal((8, 6, 3, 3)) / 7).astype(np.float32),
        "head": random.standard_normal((4, 8)).astype(np.float32),
        "bias": random.standard_normal(4).astype(np.float32),
    }


def network(
    path: Path, *, layout: str = "NCHW", channels: str = "RGB", dtype: str = "float32", batch: int | str = "n",
    softmax: bool = False, last: str = "Relu",
) -> Model:  # fmt: skip
    """Conv, Softplus, Conv, Relu, global pool, Gemm: smooth but for one ReLU; four classes."""
    node = helper.make_node
    nodes, entry, kind = [], "image", "float"
    weights: dict[str, np.ndarray] = dict(weights_of())
    contract: dict[str, Any] = {**CONTRACT, "channels": channels, "layout": layout, "dtype": dtype}
    if dtype == "uint8":
        kind = "uint8"
        weights |= {"scale": np.array(0.02, np.float32), "zero": np.array(100, np.uint8)}
        contract["quantization"] = {"scale": 0.02, "zero_point": 100}
        nodes.append(node("DequantizeLinear", [entry, "scale", "zero"], ["real"]))
        entry = "real"
    if layout == "NHWC":
        nodes.append(node("Transpose", [entry], ["first"], perm=[0, 3, 1, 2]))
        entry = "first"
    nodes += [
        node("Conv", [entry, "w1"], ["conv1"], pads=[1, 1, 1, 1]),
        node("Softplus", ["conv1"], ["soft"]),
        node("Conv", ["soft", "w2"], ["conv2"], strides=[2, 2]),
        node(last, ["conv2"], ["relu"]),
        node("GlobalAveragePool", ["relu"], ["pool"]),
        node("Flatten", ["pool"], ["features"]),
        node("Gemm", ["features", "head", "bias"], ["logits"], transB=1),
    ]
    if softmax:
        nodes.append(node("Softmax", ["logits"], ["prob"], axis=1))
    shape = [batch, 3, SIDE, SIDE] if layout == "NCHW" else [batch, SIDE, SIDE, 3]
    proto = build(
        nodes, inputs={"image": (kind, shape)}, weights=weights,
        outputs={"prob" if softmax else "logits": ("float", [batch, 4])},
    )  # fmt: skip
    return ov.load(
        save(proto, path), preprocess=contract, device="cpu", threads=1,
        output={"output": "prob" if softmax else "logits", "kind": "probabilities" if softmax else "logits"},
        labels=["ant", "bee", "cat", "dog, hound"],
    )  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return network(tmp_path_factory.mktemp("ascent") / "net.onnx")


def objectives_of(model: Model, classes: list[int], **options: Any) -> Objectives:
    blank = model.preprocess.encode(np.zeros((1, *model.preprocess.size, 3), np.uint8))
    rows = np.broadcast_to(blank, (len(classes), *blank.shape[1:]))
    return Objectives(model, resolve_gradient_target(model, classes, rows), **options)


# -- against PyTorch ---------------------------------------------------------------------------------------------------


def torch_logits(torch: Any, pictures: Any) -> Any:
    """The network above, of pictures from 0 to 1."""
    f = torch.nn.functional
    weights = {name: torch.from_numpy(array) for name, array in weights_of().items()}
    mean, std = (torch.tensor(CONTRACT[name]).reshape(1, 3, 1, 1) for name in ("mean", "std"))
    x = f.softplus(f.conv2d((pictures - mean) / std, weights["w1"], padding=1))
    x = torch.relu(f.conv2d(x, weights["w2"], stride=2))
    return x.mean((2, 3)) @ weights["head"].T + weights["bias"]


def torch_picture(torch: Any, parameters: Any) -> Any:
    """Lucent's ``fft_image`` and ``to_valid_rgb``, written again."""
    frequency = np.sqrt(np.fft.fftfreq(SIDE)[:, None] ** 2 + np.fft.fftfreq(SIDE)[: SIDE // 2 + 1] ** 2)
    scale = torch.tensor(1 / np.maximum(frequency, 1 / SIDE), dtype=torch.float32)[None, None, ..., None]
    waves = torch.fft.irfftn(torch.view_as_complex(scale * parameters), s=(SIDE, SIDE), norm="ortho", dim=(2, 3)) / 4
    raw = np.array([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]], np.float32)
    raw /= np.linalg.norm(raw, axis=0).max()
    flat = waves.permute(0, 2, 3, 1).reshape(-1, 3) @ torch.from_numpy(raw.T.copy())
    return torch.sigmoid(flat.reshape(len(waves), SIDE, SIDE, 3).permute(0, 3, 1, 2))


def torch_moved(torch: Any, pictures: Any, placements: list[Any], padding: Any) -> Any:
    """Each picture placed, by ``grid_sample``."""
    middle = (SIDE - 1) / 2
    there = torch.stack(torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij"), -1) - middle
    grids = []
    for placement in placements:
        angle = torch.tensor(np.deg2rad(placement.degrees))
        turn = torch.tensor([[torch.cos(angle), torch.sin(angle)], [-torch.sin(angle), torch.cos(angle)]])
        source = (there - torch.tensor(placement.second_shift)).double() @ turn.double().T / placement.scale
        source = source - torch.tensor(placement.first_shift)
        grids.append((source / middle).flip(-1))
    around = padding[:, :, None, None]
    grid = torch.stack(grids).float()
    return torch.nn.functional.grid_sample(pictures - around, grid, align_corners=True) + around


def torch_ascent(torch: Any, classes: list[int], steps: int, *, noise: float = 0.0) -> tuple[list[np.ndarray], Any]:
    """The pictures after each step, and the last as a tensor."""
    randoms = picture_randoms(5, [(index, 0) for index in classes])
    space, transform = FourierSpace((SIDE, SIDE), 3), RandomTransform.for_size((SIDE, SIDE))
    noises = np.stack([space.start(random) for random in randoms])
    grey = np.broadcast_to(np.array([0.4, 0.5, 0.6], np.float32).reshape(1, 3, 1, 1), (len(classes), 3, SIDE, SIDE))
    parameters = torch.from_numpy(noises + space.parameters(grey)).requires_grad_(True)
    padding = torch.from_numpy(rim_color(grey))
    adam = torch.optim.Adam([parameters], lr=0.05)
    shown = []
    for _ in range(steps):
        placements, noisy = [], []
        for random in randoms:
            placements.append(transform.draw(random))
            if noise:
                noisy.append(random.standard_normal((3, SIDE, SIDE), np.float32))
        moved = torch_moved(torch, torch_picture(torch, parameters), placements, padding)
        if noise:
            moved = moved + noise * torch.from_numpy(np.stack(noisy))
        score = torch_logits(torch, moved)[torch.arange(len(classes)), torch.tensor(classes)].sum()
        adam.zero_grad()
        (-score).backward()
        adam.step()
        shown.append(torch_picture(torch, parameters).detach().numpy())
    return shown, torch_picture(torch, parameters).detach()


def our_frames(model: Model, classes: list[int], steps: int, **numbers: float) -> list[Frame]:
    recipe = Recipe.of("fourier", steps, numbers, size=(SIDE, SIDE), mean=(102.0, 127.5, 153.0))
    grey = np.broadcast_to(np.array([0.4, 0.5, 0.6], np.float32).reshape(1, 3, 1, 1), (len(classes), 3, SIDE, SIDE))
    randoms = picture_randoms(5, [(index, 0) for index in classes])
    return list(recipe.frames(grey.copy(), randoms, objectives_of(model, classes)))


@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_the_first_step_is_that_of_a_plain_torch_loop(model: Model, torch: Any, noise: float) -> None:
    (first, *_), _ = torch_ascent(torch, [0, 3], 1, noise=noise)
    (frame,) = our_frames(model, [0, 3], 1, noise=noise, noise_end=noise)
    before = np.array([0.4, 0.5, 0.6], np.float32).reshape(1, 3, 1, 1)
    assert relative(frame.pictures, first) <= 1e-5
    assert relative(frame.pictures - before, first - before) <= 1e-4
    assert np.abs(first - before).max() > 0.01


def test_a_whole_run_reaches_what_the_torch_loop_reaches(model: Model, torch: Any) -> None:
    classes = [0, 1, 2, 3]
    _, last = torch_ascent(torch, classes, 30)
    reference = torch_logits(torch, last)[torch.arange(4), torch.arange(4)].detach().numpy()
    reached = our_frames(model, classes, 30)[-1].pictures
    scores, _ = objectives_of(model, classes)(99)(reached)
    start, _ = objectives_of(model, classes)(99)(np.full_like(reached, 0.5))
    assert (scores - start >= 0.95 * (reference - start)).all()
    assert (reference > start).all()


def test_adam_is_torchs(torch: Any) -> None:
    random = np.random.default_rng(3)
    ours = random.standard_normal((2, 5)).astype(np.float32)
    theirs = torch.from_numpy(ours.copy()).requires_grad_(True)
    optimiser, adam = torch.optim.Adam([theirs], lr=0.05), Adam()
    for _ in range(20):
        gradient = random.standard_normal((2, 5)).astype(np.float32)
        theirs.grad = torch.from_numpy(-gradient)
        optimiser.step()
        ours = adam.ascend(ours, gradient)
    np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-5, atol=1e-6)


# -- scores and their derivatives by the picture -----------------------------------------------------------------------


def slopes(scores: Callable[[np.ndarray], np.ndarray], pictures: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Central differences along a direction, one for each picture."""
    return (scores(pictures + 1e-3 * direction) - scores(pictures - 1e-3 * direction)) / 2e-3


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("channels", ["RGB", "BGR"])
@pytest.mark.parametrize("probability", [False, True], ids=["logit", "log-probability"])
def test_derivatives_by_the_picture(layout: str, channels: str, probability: bool, tmp_path: Path) -> None:
    model = network(tmp_path / "net.onnx", layout=layout, channels=channels, last="Softplus")
    random = np.random.default_rng(4)
    pictures = random.uniform(0.1, 0.9, (2, 3, SIDE, SIDE)).astype(np.float32)
    ascended = objectives_of(model, [1, 3], probability=probability)(0)
    scores, gradient = ascended(pictures)
    views = np.rint(np.moveaxis(pictures, 1, -1) * 255).astype(np.uint8)
    logits = model.run(model.preprocess.encode(views))["logits"].astype(np.float64)
    expected = logits - (np.log(np.exp(logits).sum(axis=1, keepdims=True)) if probability else 0)
    np.testing.assert_allclose(scores, expected[[0, 1], [1, 3]], atol=0.02)
    for _ in range(3):
        direction = random.standard_normal(pictures.shape).astype(np.float32)
        along = (gradient.astype(np.float64) * direction).sum(axis=(1, 2, 3))
        np.testing.assert_allclose(along, slopes(lambda x: ascended(x)[0], pictures, direction), rtol=0.02, atol=0.02)


def test_the_logarithm_of_a_probability_that_has_no_logits(tmp_path: Path) -> None:
    """The softmax is in the graph: its probabilities' logits are found, and the objective is the same."""
    with_softmax = network(tmp_path / "prob.onnx", softmax=True)
    without = network(tmp_path / "logits.onnx")
    pictures = np.random.default_rng(5).uniform(0, 1, (2, 3, SIDE, SIDE)).astype(np.float32)
    blank = with_softmax.preprocess.encode(np.zeros((1, SIDE, SIDE, 3), np.uint8))
    by_probability = PictureScores(with_softmax, probability_target(with_softmax, [1, 3], blank), probability=True)
    scores, gradient = by_probability(pictures)
    wanted, wanted_gradient = objectives_of(without, [1, 3], probability=True)(0)(pictures)
    np.testing.assert_allclose(scores, wanted, rtol=1e-5)
    assert relative(gradient, wanted_gradient) < 1e-4


def probability_target(model: Model, classes: list[int], blank: np.ndarray) -> Any:
    """The classes' probabilities, as for a model whose logits cannot be found."""
    import dataclasses

    target = resolve_gradient_target(model, classes, np.repeat(blank, len(classes), axis=0))

    def seeds(chosen: slice, sides: Any) -> dict[str, np.ndarray]:
        weights = np.zeros((len(classes[chosen]), 4), np.float32)
        weights[np.arange(len(weights)), classes[chosen]] = 1
        return {"prob": weights}

    return dataclasses.replace(target, values=("prob",), seeds=seeds, scale="probability")


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_whole_numbers_are_fed_rounded_and_derived_straight_through(layout: str, tmp_path: Path) -> None:
    whole = network(tmp_path / "whole.onnx", layout=layout, dtype="uint8")
    real = network(tmp_path / "real.onnx", layout=layout)
    # Pictures whose tensors are multiples of the quantisation step, away from its ends.
    steps = np.random.default_rng(6).integers(40, 160, (2, 3, SIDE, SIDE))
    numbers = (steps - 100) * 0.02
    mean, std = (np.array(CONTRACT[name]).reshape(1, 3, 1, 1) for name in ("mean", "std"))
    pictures = (numbers * std + mean).astype(np.float32)
    assert 0 <= pictures.min() <= pictures.max() <= 1.2
    scores, gradient = objectives_of(whole, [0, 2])(0)(pictures)
    wanted, wanted_gradient = objectives_of(real, [0, 2])(0)(pictures)
    np.testing.assert_allclose(scores, wanted, rtol=1e-4)
    assert relative(gradient, wanted_gradient) < 1e-4
    made = ov.class_visualization(whole, "bee", steps=40)
    assert made.scores[0] > made.curve[0, 0] + 0.5


def test_encoding_is_the_contracts(model: Model) -> None:
    encoding = PictureEncoding(model.preprocess, np.dtype(np.float32))
    views = np.random.default_rng(7).integers(0, 256, (2, SIDE, SIDE, 3), np.uint8)
    tensor = encoding.tensor(encoding.from_colors(views))
    np.testing.assert_allclose(tensor, model.preprocess.encode(views), atol=2e-6)
    np.testing.assert_array_equal(encoding.views(encoding.from_colors(views)), views)
    x, y = encoding.from_colors(views), tensor[::-1].copy()
    linear = encoding.tensor(x) - encoding.tensor(np.zeros_like(x))
    assert float((linear * y).sum()) == pytest.approx(float((x * encoding.adjoint(y)).sum()), rel=1e-5)


def test_a_fixed_batch_and_one_picture_too_many(tmp_path: Path) -> None:
    proto = onnx.load(network(tmp_path / "free.onnx", batch=2).path)
    proto.graph.node.append(helper.make_node("Reshape", ["conv1", "fixed"], ["flat"]))
    proto.graph.initializer.append(numpy_helper.from_array(np.array([12, SIDE * SIDE]), "fixed"))
    proto.graph.output.append(helper.make_tensor_value_info("flat", onnx.TensorProto.FLOAT, [12, SIDE * SIDE]))
    contract = {**CONTRACT, "channels": "RGB", "layout": "NCHW"}
    fixed = ov.load(save(proto, tmp_path / "fixed.onnx"), preprocess=contract, output="logits", threads=1)
    assert fixed.fixed_batch == 2
    free = network(tmp_path / "net.onnx")
    pictures = np.random.default_rng(8).uniform(0, 1, (3, 3, SIDE, SIDE)).astype(np.float32)
    found, wanted = (objectives_of(each, [0, 1, 3])(0)(pictures) for each in (fixed, free))
    np.testing.assert_allclose(found[0], wanted[0], rtol=1e-5)
    assert relative(found[1], wanted[1]) < 1e-5


# -- class pictures ----------------------------------------------------------------------------------------------------


def test_result_and_steps_say_the_same(model: Model) -> None:
    steps = list(ov.class_visualization_steps(model, ["ant", 3], steps=6, seed=2, jitters=5))
    found = ov.class_visualization(model, ["ant", 3], steps=6, seed=2, jitters=5)
    assert [step.done for step in steps] == [1, 2, 3, 4, 5, 6]
    assert all(step.total == 6 for step in steps)
    assert all(step.result is None for step in steps[:-1])
    last = steps[-1].result
    assert isinstance(last, ov_result())
    for name in ("pictures", "scores", "probabilities", "curve"):
        np.testing.assert_array_equal(getattr(last, name), getattr(found, name))
    np.testing.assert_array_equal(steps[-1].pictures, found.pictures)
    np.testing.assert_array_equal(np.stack([step.scores for step in steps]), found.curve)
    assert found.pictures.shape == (2, SIDE, SIDE, 3)
    assert found.classes.tolist() == [0, 3]
    assert found.facets.tolist() == [0, 0]
    assert found.starts is None
    assert (found.scale, found.method, found.jitters, found.reach) == ("logit", "fourier", 5, 1)
    logits = model.run(model.preprocess.encode(found.pictures))["logits"]
    np.testing.assert_allclose(found.scores, logits[[0, 1], [0, 3]], rtol=1e-5)
    said = found.provenance.parameters
    assert (said["classes"], said["steps"], said["seed"], said["objective"]) == ([0, 3], 6, 2, "logit")


def ov_result() -> type:
    from onnxviz.results import ClassVisualization

    return ClassVisualization


def test_a_picture_is_the_same_whichever_others_are_made(model: Model) -> None:
    together = ov.class_visualization(model, [0, 2, 3], steps=5)
    alone = ov.class_visualization(model, 2, steps=5)
    assert np.abs(together.pictures[1].astype(int) - alone.pictures[0]).max() <= 1
    other = ov.class_visualization(model, 2, steps=5, seed=1)
    assert (other.pictures != alone.pictures).any()


def test_probability_under_jitter_is_that_of_shifted_pictures(model: Model) -> None:
    assert [jitter_reach((side, side)) for side in (8, 28, 32, 224)] == [1, 2, 2, 14]
    views = np.random.default_rng(9).integers(0, 256, (2, SIDE, SIDE, 3), np.uint8)
    around = np.array([[10.0, 20.0, 30.0], [200.0, 210.0, 220.0]])
    found = probability_under_jitter(model, views, [1, 2], around=around, jitters=300, seed=4)
    for row, index in enumerate((1, 2)):
        shifted = []
        for down in (-1, 0, 1):
            for right in (-1, 0, 1):
                moved = np.empty((SIDE, SIDE, 3), np.uint8)
                moved[:] = around[row]
                rows, columns = (slice(max(shift, 0), SIDE + min(shift, 0)) for shift in (down, right))
                back = (slice(max(-shift, 0), SIDE + min(-shift, 0)) for shift in (down, right))
                moved[rows, columns] = views[row][tuple(back)]
                shifted.append(moved)
        probabilities = model.predict(model.preprocess.encode(np.stack(shifted)))[:, index]
        # The mean over draws from nine shifts, to four standard errors.
        assert abs(found[row] - probabilities.mean()) <= 4 * probabilities.std() / np.sqrt(300) + 1e-6


CALM = {"copies": 2, "noise": 0.38, "roughness": 0.0035, "cooling": 0.9}


def garments() -> tuple[Model, Any]:
    network = ov.embedded_sets()[1]
    opened = ov.load(network.model, device="cpu", threads=1)
    return opened, network.load_images(opened)


def test_garments_are_taken_for_what_they_are() -> None:
    opened, images = garments()
    found = ov.class_visualization(
        opened, ["trouser", "dress", "bag", "ankle boot"], objective="probability", start="images", images=images,
        steps=100, regularization=CALM,
    )  # fmt: skip
    assert (found.probabilities > 0.9).all(), found.probabilities
    views = images.views(np.arange(len(images)))
    assert np.abs(found.starts[0] - views.mean(axis=0)).max() <= 0.51
    assert (found.starts == found.starts[:1]).all()


@pytest.mark.slow
def test_all_classes_of_the_garments_above_nine_tenths() -> None:
    opened, images = garments()
    found = ov.class_visualization(
        opened, range(10), objective="probability", start="images", images=images, steps=200, regularization=CALM
    )
    assert (found.probabilities > 0.9).all(), found.probabilities


def test_classes_of_colour_photographs_with_the_usual_numbers() -> None:
    found = ov.class_visualization(cifar_model(), range(10), steps=40)
    assert (found.probabilities > 0.9).all(), found.probabilities
    assert (found.curve[-5:].mean(axis=0) > found.curve[:5].mean(axis=0) + 5).all()


@pytest.mark.parametrize("method", ["simonyan", "yosinski", "nguyen"])
def test_every_method_raises_its_class(model: Model, method: str) -> None:
    found = ov.class_visualization(model, [1, 2], method=method, steps=30)
    again = ov.class_visualization(model, [1, 2], method=method, steps=30)
    np.testing.assert_array_equal(found.pictures, again.pictures)
    assert found.method == method
    assert found.curve.shape == (30, 2)
    assert (found.curve[-1] > found.curve[0]).all()


# -- regularisers --------------------------------------------------------------------------------------------------------


def test_yosinskis_regularisers_one_by_one() -> None:
    random = np.random.default_rng(10)
    x, g = (random.standard_normal((2, 3, 6, 6)).astype(np.float32) for _ in range(2))
    np.testing.assert_allclose(tend(x, g, PixelCare(decay=0.25), 0), 0.75 * x, rtol=1e-6)
    from scipy.ndimage import gaussian_filter

    blurred = tend(x, g, PixelCare(blur=0.8, blur_every=3), 3)
    np.testing.assert_allclose(blurred[1, 2], gaussian_filter(x[1, 2], 0.8), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(tend(x, g, PixelCare(blur=0.8, blur_every=3), 4), x)
    np.testing.assert_array_equal(tend(x, g, PixelCare(blur=0.2), 0), x)
    for name, size in (
        ("small_value", np.abs(x)),
        ("small_norm", np.broadcast_to(np.linalg.norm(x, axis=1, keepdims=True), x.shape)),
        ("small_contribution", np.broadcast_to(np.abs((x * g).sum(axis=1, keepdims=True)), x.shape)),
    ):
        found = tend(x, g, PixelCare(**{name: 30.0}), 0)
        for picture in range(2):
            lost = found[picture] == 0
            assert 0.2 < lost.mean() < 0.4
            assert size[picture][lost].max() <= size[picture][~lost].min()
            np.testing.assert_array_equal(found[picture][~lost], x[picture][~lost])


def test_the_stages_and_their_schedule() -> None:
    """Stage one of two steps, in the authors' order: gradient over its mean size, clip, denoise with the growing weight."""
    assert sum(stage.steps for stage in STAGES) == 370
    assert [stage.steps for stage in stages_of(74)] == [38, 30, 4, 2]
    assert sum(stage.steps for stage in stages_of(1)) == 1
    random = np.random.default_rng(11)
    start = random.uniform(0, 1, (2, 1, 9, 9)).astype(np.float32)
    fields = random.standard_normal((2, 2, 1, 9, 9)).astype(np.float32)
    seen = []

    def objectives(step: int) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
        def score(pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            seen.append(pictures.copy())
            return np.full(2, float(step)), fields[step]

        return score

    stage = Stage(2, (0.4, 0.4), (1, 2))
    randoms = [np.random.default_rng(seed) for seed in (0, 1)]
    frames = list(ascend_in_stages(objectives, start, randoms=randoms, stages=(stage,)))
    canvas = start * np.float32(255)
    for step, (weight, rate) in enumerate(((0.4 - 0.4 / 2, 1.0), (0.4 - (0.4 - 0.4) / 2, 1.5))):
        np.testing.assert_allclose(seen[step] * 255, canvas, atol=1e-2)
        size = np.abs(fields[step]).mean(axis=(1, 2, 3), keepdims=True)
        canvas = denoise(np.clip(canvas + rate * fields[step] / size, 0, 255).astype(np.float32), weight)
        np.testing.assert_allclose(frames[step].pictures * 255, canvas, atol=1e-2)
        assert frames[step].scores.tolist() == [step, step]
    np.testing.assert_allclose(np.abs(normalized(fields[0])).mean(axis=(1, 2, 3)), 1, rtol=1e-5)
    assert not normalized(np.zeros((1, 1, 3, 3), np.float32)).any()


def test_a_later_stage_sees_a_part_of_a_larger_picture() -> None:
    start = np.random.default_rng(12).uniform(0, 1, (2, 3, 20, 20)).astype(np.float32)
    fields = np.ones((2, 3, 20, 20), np.float32)
    seen = []

    def score(pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        seen.append(pictures.shape)
        return np.zeros(2), fields

    stages = (Stage(3, (2, 2), (1, 1), zoom=1.2, spread=0.3), Stage(1, (2, 2), (9, 9), spread=0.2, margin=0.25))
    randoms = [np.random.default_rng(seed) for seed in (0, 1)]
    frames = list(ascend_in_stages(lambda _: score, start, randoms=randoms, stages=stages))
    assert seen == [(2, 3, 20, 20)] * 4
    assert all(frame.pictures.shape == (2, 3, 20, 20) for frame in frames)
    # The last stage leaves the margin alone but for the denoising, and moves the middle by 9 times its share.
    change = (frames[-1].pictures - frames[-2].pictures) * 255
    assert change[:, :, 8:12, 8:12].min() > 5
    assert np.median(np.abs(change[:, :, :2])) < 5


# -- facets ------------------------------------------------------------------------------------------------------------


def test_facets_are_scikit_learns_clusters_and_means_are_exact() -> None:
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA

    opened, images = garments()
    bags = images.subset(np.flatnonzero(images.folder_classes == 8)[:60])
    found = find_facets(opened, bags, 3, seed=3)
    array = ov.features(opened, bags).array.astype(np.float64)
    reduced = PCA(n_components=50, svd_solver="full", random_state=3).fit_transform(array)
    np.testing.assert_allclose(found.coordinates, ov.embed(reduced, random_state=3).coordinates)
    clusters = KMeans(n_clusters=3, n_init=10, random_state=3).fit(found.coordinates)
    pairs = {*zip(found.labels.tolist(), clusters.labels_.tolist(), strict=True)}
    assert len(pairs) == 3
    counts = np.bincount(found.labels)
    assert (np.diff(counts) <= 0).all()
    views = bags.views(np.arange(len(bags))).astype(np.float64)
    for facet, cluster in sorted(pairs):
        away = np.linalg.norm(found.coordinates - clusters.cluster_centers_[cluster], axis=1)
        assert set(found.members[facet].tolist()) == set(np.argsort(away)[:15].tolist())
        total = np.zeros_like(views[0])
        for member in found.members[facet]:
            total += views[member]
        np.testing.assert_allclose(found.means[facet], total / 15, rtol=1e-6)
    made = ov.class_visualization(opened, "bag", images=bags, facets=3, seed=3, steps=3)
    assert made.facets.tolist() == [0, 1, 2]
    assert made.classes.tolist() == [8] * 3
    # Greys by their luma: of equal channels, the mean image itself.
    assert np.abs(made.starts.astype(int) - np.rint(found.means)).max() <= 1


def test_images_of_a_class_are_found_by_name_by_number_or_are_all(model: Model) -> None:
    random = np.random.default_rng(13)
    pictures = random.integers(0, 256, (24, SIDE, SIDE, 3), np.uint8)
    pictures[12:] //= 2
    classes = np.repeat([0, 1], 12)
    named = ov.load_images(pictures, model, labels=classes, class_names=("hound", "ant"))
    by_name = ov.class_visualization(model, [3, 0], images=named, facets=2, steps=1)
    assert by_name.starts[:2].mean() > 1.5 * by_name.starts[2:].mean()
    numbered = ov.load_images(pictures, model, labels=classes, class_names=("x", "y"))
    by_number = ov.class_visualization(model, [0, 1], images=numbered, facets=2, steps=1)
    np.testing.assert_array_equal(by_number.starts, by_name.starts)
    bare = ov.load_images(pictures[:12], model)
    every = ov.class_visualization(model, 3, images=bare, facets=2, steps=1)
    np.testing.assert_array_equal(every.starts, by_name.starts[:2])
    for asked, images, sentence in (
        ([0, 1], bare, "no classes"),
        ([0, 1], None, "no images"),
        ([1], named, "no image shows this class"),
    ):
        with pytest.raises(InputError, match=sentence):
            ov.class_visualization(model, asked, images=images, facets=2, steps=1)
    with pytest.raises(InputError, match="too few images"):
        ov.class_visualization(model, 3, images=bare, facets=13, steps=1)


# -- feature pictures --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_channels_and_neurons(layout: str, tmp_path: Path) -> None:
    opened = network(tmp_path / "net.onnx", layout=layout)
    found = ov.feature_visualization(opened, "soft", channels=[4, 1], steps=30)
    maps = opened.run(opened.preprocess.encode(found.pictures), ("soft",))["soft"]
    np.testing.assert_allclose(found.scores, maps[[0, 1], [4, 1]].mean(axis=(1, 2)), rtol=1e-5)
    assert (found.scores > found.start_scores).all()
    assert found.position is None
    neuron = ov.feature_visualization(opened, "conv1", unit="neuron", channels=[2], steps=10)
    # Twelve rows and columns: the lower right of the middle four.
    assert neuron.position == (6, 6)
    values = opened.run(opened.preprocess.encode(neuron.pictures), ("conv1",))["conv1"]
    assert neuron.scores[0] == pytest.approx(values[0, 2, 6, 6], rel=1e-5)
    odd = ov.feature_visualization(opened, "conv2", unit="neuron", channels=[0], position=(0, 4), steps=2)
    values = opened.run(opened.preprocess.encode(odd.pictures), ("conv2",))["conv2"]
    assert odd.scores[0] == pytest.approx(values[0, 0, 0, 4], rel=1e-5)
    flat = ov.feature_visualization(opened, "logits", steps=2)
    assert flat.channels.tolist() == [0, 1, 2, 3]
    last = list(ov.feature_visualization_steps(opened, "logits", steps=2))[-1]
    np.testing.assert_array_equal(last.result.pictures, flat.pictures)


def test_channels_last_inside_the_graph(tmp_path: Path) -> None:
    """The value's channels are its last axis, and both kinds of unit are found there."""
    proto = build(
        [
            helper.make_node("Transpose", ["image"], ["first"], perm=[0, 3, 1, 2]),
            helper.make_node("Conv", ["first", "w1"], ["conv"], pads=[1, 1, 1, 1]),
            helper.make_node("Transpose", ["conv"], ["last"], perm=[0, 2, 3, 1]),
        ],
        inputs={"image": ("float", ["n", SIDE, SIDE, 3])},
        outputs={"last": ("float", ["n", SIDE, SIDE, 6])},
        weights={"w1": weights_of()["w1"]},
    )
    contract = {**CONTRACT, "channels": "RGB", "layout": "NHWC"}
    opened = ov.load(save(proto, tmp_path / "last.onnx"), preprocess=contract, device="cpu", threads=1)
    assert opened.channel_axis("last") == 3
    found = ov.feature_visualization(opened, "last", unit="neuron", channels=[5], position=(2, 7), steps=3)
    values = opened.run(opened.preprocess.encode(found.pictures), ("last",))["last"]
    assert found.scores[0] == pytest.approx(values[0, 2, 7, 5], rel=1e-5)
    weights = channel_target(opened, "last", [5], None).seeds(slice(0, 1), {"last": (SIDE, SIDE, 6)})["last"]
    np.testing.assert_allclose(weights[..., 5], 1 / SIDE**2)
    assert weights[..., :5].max() == 0


def test_a_unit_that_sleeps_is_woken(tmp_path: Path) -> None:
    """A channel that is 0 for every grey picture has no gradient; redirected, it has one for 16 steps."""
    weights = np.zeros((2, 3, 1, 1), np.float32)
    weights[0, 0], weights[1, 0] = 1, 1
    proto = build(
        [
            helper.make_node("Conv", ["image", "w", "b"], ["conv"]),
            helper.make_node("Relu", ["conv"], ["relu"]),
            helper.make_node("Clip", ["conv", "zero", "six"], ["clip"]),
        ],
        inputs={"image": ("float", ["n", 3, SIDE, SIDE])},
        outputs={"relu": ("float", ["n", 2, SIDE, SIDE]), "clip": ("float", ["n", 2, SIDE, SIDE])},
        weights={
            "w": weights, "b": np.array([-0.6, 0.5], np.float32), "zero": np.array(0, np.float32),
            "six": np.array(6, np.float32),
        },
    )  # fmt: skip
    opened = ov.load(save(proto, tmp_path / "asleep.onnx"), preprocess="unit", device="cpu", threads=1, output="relu")
    grey = np.full((2, 3, SIDE, SIDE), 0.5, np.float32)
    for value in ("relu", "clip"):
        target = channel_target(opened, value, [0, 1], None)
        assert not PictureScores(opened, target)(grey)[1][0].any()
        scores, redirected = PictureScores(opened, target, REDIRECTED)(grey)
        np.testing.assert_allclose(redirected[:, 0], 1 / SIDE**2, rtol=1e-5)
        np.testing.assert_allclose(scores, [0, 1], atol=1e-6)
        # What lets something through keeps its true derivative, picture by picture.
        np.testing.assert_array_equal(redirected[1], PictureScores(opened, target)(grey)[1][1])
    found = ov.feature_visualization(opened, "relu", channels=[0], start="grey", steps=60)
    assert found.start_scores[0] < 0.02
    assert found.scores[0] > 0.1
    asked = Objectives(opened, channel_target(opened, "relu", [0], None), startup=REDIRECTED)
    assert asked(STARTUP_STEPS - 1) is not asked(STARTUP_STEPS)
    assert asked(STARTUP_STEPS) is asked.scores


def test_redirection_never_pushes_further_below(tmp_path: Path) -> None:
    """Of a sleeping ReLU, only what would raise its inputs is handed on."""
    proto = build(
        [helper.make_node("Relu", ["image"], ["relu"]), helper.make_node("Mul", ["relu", "signs"], ["out"])],
        inputs={"image": ("float", ["n", 3, SIDE, SIDE])}, outputs={"out": ("float", ["n", 3, SIDE, SIDE])},
        weights={"signs": np.array([1, -1, 1], np.float32).reshape(1, 3, 1, 1)},
    )  # fmt: skip
    contract = {"size": [SIDE, SIDE], "scale": 1 / 255, "mean": [2, 2, 0.25], "std": [1, 1, 1]}
    opened = ov.load(save(proto, tmp_path / "signs.onnx"), preprocess=contract, device="cpu", threads=1)
    from onnxviz.methods.gradient import gradient

    asleep = np.full((1, 3, SIDE, SIDE), -1, np.float32)
    awake = asleep.copy()
    awake[0, 2, 0, 0] = 1
    ones = {"out": np.ones((1, 3, SIDE, SIDE), np.float32)}
    found = gradient(opened, asleep, ones, rules=REDIRECTED)
    assert (found[0, [0, 2]] == 1).all()
    assert (found[0, 1] == 0).all()
    found = gradient(opened, awake, ones, rules=REDIRECTED)
    assert found.sum() == found[0, 2, 0, 0] == 1


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"classes": 4}, "no such class"),
        ({"classes": "horse"}, "no class has that label"),
        ({"classes": "logits[1]"}, "not a class"),
        ({"classes": [0, 0]}, "given twice"),
        ({"classes": []}, "no class was given"),
        ({"classes": "top1"}, "not a class"),
        ({"classes": [True]}, "not a class"),
        ({"method": "dream"}, "no such method"),
        ({"objective": "margin"}, "no such objective"),
        ({"steps": 0}, "not a number of steps"),
        ({"steps": 2.5}, "not a number of steps"),
        ({"seed": -1}, "not a seed"),
        ({"start": "blue"}, "no such start"),
        ({"start": (1, 2, 300)}, "not a colour or picture"),
        ({"start": np.zeros((3, 4, 3))}, "not a colour or picture"),
        ({"start": "images"}, "no images whose mean"),
        ({"facets": -1}, "not a number of facets"),
        ({"jitters": 0}, "not a number of jitters"),
        ({"regularization": {"blur": 1}}, "has no such number"),
        ({"regularization": {"noise": -1}}, "not a value of noise"),
        ({"regularization": {"copies": 1.5}}, "not a value of copies"),
        ({"regularization": {"cooling": 2}}, "not a value of cooling"),
        ({"method": "yosinski", "regularization": {"small_norm": 101}}, "not a value of small_norm"),
    ],
    ids=range(23),
)
def test_what_cannot_be_is_refused(model: Model, arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        ov.class_visualization(model, **({"classes": 0, "steps": 1} | arguments))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"unit": "layer"}, "no such unit"),
        ({"channels": [8]}, "no such channels"),
        ({"channels": [1, 1]}, "no such channels"),
        ({"channels": []}, "no such channels"),
        ({"position": (0, 0)}, "shown as a whole"),
        ({"unit": "neuron", "position": (5, 0)}, "no such position"),
        ({"unit": "neuron", "position": 3}, "no such position"),
        ({"value": "features", "unit": "neuron", "position": (0, 0)}, "no spatial axes"),
    ],
    ids=range(8),
)
def test_features_that_cannot_be_are_refused(model: Model, arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        ov.feature_visualization(model, **({"value": "relu", "steps": 1} | arguments))


def test_other_refusals(model: Model, tmp_path: Path) -> None:
    with pytest.raises(ValueNotFoundError):
        ov.feature_visualization(model, "nothing")
    with pytest.raises(TypeError, match="colour"):
        ov.class_visualization_steps(model, 0, colour=1)
    with pytest.raises(TypeError, match="colour"):
        ov.feature_visualization_steps(model, "relu", colour=1)
    proto = build(
        [helper.make_node("Conv", ["image", "w1"], ["map"])],
        inputs={"image": ("float", ["n", 3, SIDE, SIDE])}, outputs={"map": ("float", ["n", 6, SIDE - 2, SIDE - 2])},
        weights={"w1": weights_of()["w1"]},
    )  # fmt: skip
    no_classes = ov.load(save(proto, tmp_path / "map.onnx"), preprocess="unit", device="cpu", threads=1)
    with pytest.raises(ContractError, match="not a classifier"):
        ov.class_visualization(no_classes, 0)
    words = build(
        [helper.make_node("Relu", ["tokens"], ["out"])],
        inputs={"tokens": ("float", ["n", 7])}, outputs={"out": ("float", ["n", 7])},
    )  # fmt: skip
    no_image = ov.load(save(words, tmp_path / "words.onnx"), device="cpu", threads=1)
    with pytest.raises(InputError, match="takes images"):
        ov.class_visualization(no_image, 0)

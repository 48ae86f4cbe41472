"""Gradient ascent: against a loop in plain PyTorch, against central differences and the authors' regularisers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import ascent_cases
import onnxviz as ov
from ascent_cases import CONTRACT, SIDE, network, objectives_of, weights_of
from graphs import save
from onnxviz.methods.ascent import STAGES, Adam, Frame, PixelCare, Stage, ascend_in_stages, normalized, stages_of, tend
from onnxviz.methods.ascent_recipes import Recipe, picture_randoms, rim_color
from onnxviz.methods.gradient_target import resolve_gradient_target
from onnxviz.methods.image_parametrization import FourierSpace
from onnxviz.methods.picture_scores import PictureEncoding, PictureScores
from onnxviz.methods.robust_transforms import RandomTransform
from onnxviz.methods.total_variation import denoise
from onnxviz.runtime.model import Model

model = ascent_cases.model


def relative(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


# -- against PyTorch ---------------------------------------------------------------------------------------------------


def torch_logits(torch: Any, pictures: Any) -> Any:
    """The network of `ascent_cases`, of pictures from 0 to 1."""
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

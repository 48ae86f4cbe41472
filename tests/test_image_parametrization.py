"""What an ascent moves: spectrum, colours, random movements and denoising against their definitions, and their adjoints."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, logit

from onnxviz.methods.image_parametrization import COLOR_MATRIX, FourierSpace, PixelSpace
from onnxviz.methods.robust_transforms import STILL, Placement, RandomTransform, Resampling
from onnxviz.methods.total_variation import denoise, roughness_gradient

SIZES = [(8, 8), (7, 5), (6, 9), (28, 28)]


def random_of(*seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def assert_adjoint(left: float, right: float, size: float) -> None:
    assert abs(left - right) <= 1e-5 * size


# -- the spectrum ----------------------------------------------------------------------------------------------------


def lucid_picture(parameters: np.ndarray, size: tuple[int, int], decay: float) -> np.ndarray:
    """Lucid's formula in float64: the scale times √(h·w), numpy's default inverse, a quarter; before the sigmoid."""
    height, width = size
    frequency = np.zeros((height, width // 2 + 1))
    for row in range(height):
        for column in range(width // 2 + 1):
            down = row / height if row <= height / 2 else row / height - 1
            frequency[row, column] = np.hypot(down, column / width)
    scale = np.sqrt(height * width) / np.maximum(frequency, 1 / max(height, width)) ** decay
    spectrum = (parameters[..., 0] + 1j * parameters[..., 1]) * scale
    return np.fft.irfft2(spectrum, s=size) / 4


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("decay", [1.0, 1.5])
def test_grey_pictures_are_those_of_the_formula(size: tuple[int, int], decay: float) -> None:
    space = FourierSpace(size, 1, decay=decay)
    parameters = 40 * space.start(random_of(1))[np.newaxis]
    expected = expit(lucid_picture(parameters.astype(np.float64), size, decay))
    np.testing.assert_allclose(space.pictures(parameters), expected, atol=2e-6)


def test_colours_are_those_of_the_formula() -> None:
    raw = np.array([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]])
    largest = max(np.sqrt((raw[:, column] ** 2).sum()) for column in range(3))
    np.testing.assert_allclose(COLOR_MATRIX, raw.T / largest, rtol=1e-12)
    space = FourierSpace((6, 9), 3)
    parameters = 40 * space.start(random_of(2))[np.newaxis]
    waves = lucid_picture(parameters.astype(np.float64), (6, 9), 1.0)
    flat = np.moveaxis(waves, 1, -1) @ (raw / largest).T
    np.testing.assert_allclose(space.pictures(parameters), np.moveaxis(expit(flat), -1, 1), atol=2e-6)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", SIZES)
def test_spectrum_adjoint(size: tuple[int, int], channels: int) -> None:
    """d⟨picture, y⟩ by the parameters, along any direction, is the product of the direction with the adjoint of y."""
    space, random = FourierSpace(size, channels), random_of(3, channels)
    parameters = 30 * np.stack([space.start(random) for _ in range(2)])
    direction = random.standard_normal(parameters.shape).astype(np.float32)
    pictures = space.pictures(parameters)
    weights = random.standard_normal(pictures.shape).astype(np.float32)
    # The derivative of the picture in float64, from the formula: the sigmoid's slope times the linear part.
    waves = lucid_picture(direction.astype(np.float64), size, 1.0)
    if channels == 3:
        waves = np.moveaxis(np.moveaxis(waves, 1, -1) @ COLOR_MATRIX, -1, 1)
    moved = expit_slope(pictures.astype(np.float64)) * waves
    back = space.adjoint(pictures, weights)
    assert back.dtype == np.float32
    size_of = np.linalg.norm(moved) * np.linalg.norm(weights)
    assert_adjoint(float((moved * weights).sum()), float((direction.astype(np.float64) * back).sum()), size_of)


def expit_slope(pictures: np.ndarray) -> np.ndarray:
    return pictures * (1 - pictures)


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_come_back_from_their_parameters(channels: int) -> None:
    space, random = FourierSpace((9, 12), channels), random_of(4)
    pictures = random.uniform(0.01, 0.99, (2, channels, 9, 12)).astype(np.float32)
    np.testing.assert_allclose(space.pictures(space.parameters(pictures)), pictures, atol=1e-5)
    ends = np.array([0, 1], np.float32).reshape(2, 1, 1, 1) * np.ones((2, channels, 9, 12), np.float32)
    assert np.abs(space.pictures(space.parameters(ends)) - ends).max() < 0.003


def test_the_start_is_grey_and_as_noisy_as_stated() -> None:
    start = FourierSpace((64, 64), 3).start(random_of(5))
    assert start.shape == (3, 64, 33, 2)
    assert start.dtype == np.float32
    assert abs(start.std() - 0.01) < 2e-4
    pictures = FourierSpace((64, 64), 3).pictures(start[np.newaxis])
    assert abs(pictures.mean() - 0.5) < 0.01
    assert logit(pictures).std() < 0.3


def test_pixels_are_counted_from_the_mean() -> None:
    space = PixelSpace((4, 5), 3, (100.0, 120.0, 140.0), deviation=3.0)
    start = space.start(random_of(6))
    assert start.shape == (3, 4, 5)
    pictures = random_of(7).uniform(0, 1, (2, 3, 4, 5)).astype(np.float32)
    parameters = space.parameters(pictures)
    np.testing.assert_allclose(parameters[:, 1], pictures[:, 1] * 255 - 120, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(space.pictures(parameters), pictures, atol=1e-6)
    np.testing.assert_allclose(space.adjoint(pictures, pictures), pictures / 255, rtol=1e-6)
    beyond = space.pictures(space.inside(parameters * 50))
    assert beyond.min() >= 0
    assert beyond.max() <= 1 + 1e-6


# -- random movements ------------------------------------------------------------------------------------------------


def moved_slowly(picture: np.ndarray, placement: Placement, around: float) -> np.ndarray:
    """One (h, w) picture moved, pixel by pixel, in the order of the definition; outside lies ``around``."""
    height, width = picture.shape
    middle = (height - 1) / 2, (width - 1) / 2
    angle = np.deg2rad(placement.degrees)
    turned = np.zeros_like(picture)

    def at(row: int, column: int) -> float:
        return float(picture[row, column]) if 0 <= row < height and 0 <= column < width else around

    for row in range(height):
        for column in range(width):
            y = row - middle[0] - placement.second_shift[0]
            x = column - middle[1] - placement.second_shift[1]
            # A counter-clockwise turn, y growing downwards, is undone by a clockwise one.
            y, x = np.cos(angle) * y + np.sin(angle) * x, -np.sin(angle) * y + np.cos(angle) * x
            y = round(y / placement.scale - placement.first_shift[0] + middle[0], 9)
            x = round(x / placement.scale - placement.first_shift[1] + middle[1], 9)
            top, left = int(np.floor(y)), int(np.floor(x))
            down, right = y - top, x - left
            turned[row, column] = (
                (1 - down) * ((1 - right) * at(top, left) + right * at(top, left + 1))
                + down * ((1 - right) * at(top + 1, left) + right * at(top + 1, left + 1))
            )  # fmt: skip
    return turned


PLACEMENTS = (
    Placement(),
    Placement((2, -1)),
    Placement((0, 0), 1.1, 0.0, (0, 1)),
    Placement((-1, 2), 0.9, 7.0, (1, 0)),
    Placement((3, 3), 1.04, -10.0, (-2, -2)),
)


def test_movements_are_those_of_the_definition() -> None:
    size = 11, 8
    pictures = random_of(8).uniform(0, 1, (len(PLACEMENTS), 2, *size)).astype(np.float32)
    padding = np.linspace(0.1, 0.9, 2 * len(PLACEMENTS)).reshape(-1, 2).astype(np.float32)
    moved = Resampling(size, PLACEMENTS).move(pictures, padding)
    for place, placement in enumerate(PLACEMENTS):
        for channel in range(2):
            expected = moved_slowly(
                pictures[place, channel].astype(np.float64), placement, float(padding[place, channel])
            )
            np.testing.assert_allclose(moved[place, channel], expected, atol=2e-6)


def test_a_turn_is_counter_clockwise_and_a_shift_moves_down_and_right() -> None:
    picture = np.zeros((1, 1, 5, 5), np.float32)
    picture[0, 0, 2, 4] = 1  # on the right
    nothing = np.zeros((1, 1), np.float32)
    turned = Resampling((5, 5), (Placement(degrees=90.0),)).move(picture, nothing)
    np.testing.assert_allclose(turned[0, 0, 0, 2], 1, atol=1e-6)
    shifted = Resampling((5, 5), (Placement((1, -2)),)).move(picture, nothing)
    assert shifted[0, 0, 3, 2] == 1


@pytest.mark.parametrize("size", [(9, 12), (28, 28), (33, 20)])
def test_movements_have_their_adjoint(size: tuple[int, int]) -> None:
    random = random_of(9)
    drawn = tuple(RandomTransform.for_size(size, 2.0).draw(random) for _ in range(6))
    moving = Resampling(size, drawn)
    x, y = (random.standard_normal((6, 3, *size)).astype(np.float32) for _ in range(2))
    nothing = np.zeros((6, 3), np.float32)
    for one in range(6):
        moved, back = moving.move(x, nothing)[one], moving.adjoint(y)[one]
        left = float((moved.astype(np.float64) * y[one]).sum())
        right = float((x[one].astype(np.float64) * back).sum())
        assert_adjoint(left, right, float(np.linalg.norm(moved) * np.linalg.norm(y[one])))


def test_ranges_are_lucids_for_its_side_and_shrink_with_it() -> None:
    whole = RandomTransform.for_size((128, 128))
    assert whole.shifts == (8, 4)
    assert (min(whole.scales), max(whole.scales), len(whole.scales)) == (0.9, 1.1, 11)
    assert sorted(set(whole.degrees)) == [float(angle) for angle in range(-10, 11)]
    assert sum(angle == 0 for angle in whole.degrees) == 6
    assert RandomTransform.for_size((28, 28)).shifts == (2, 1)
    assert RandomTransform.for_size((224, 224)).shifts == (14, 7)
    assert RandomTransform.for_size((28, 28), 0.0) is STILL
    random = random_of(10)
    drawn = [whole.draw(random) for _ in range(400)]
    assert {placement.first_shift[0] for placement in drawn} == {float(pixels) for pixels in range(-4, 5)}
    assert {placement.second_shift[1] for placement in drawn} == {float(pixels) for pixels in range(-2, 3)}
    assert STILL.draw(random) == Placement()


# -- total variation -------------------------------------------------------------------------------------------------


def total_variation(picture: np.ndarray) -> float:
    down, right = np.zeros_like(picture), np.zeros_like(picture)
    down[:-1], right[:, :-1] = np.diff(picture, axis=0), np.diff(picture, axis=1)
    return float(np.hypot(down, right).sum())


@pytest.mark.parametrize("weight", [0.05, 0.4, 2.0])
def test_denoising_finds_the_minimum(weight: float) -> None:
    """No small change of the answer lessens what is minimised; smaller weights smooth more."""
    random = random_of(11)
    noisy = (128 + 30 * random.standard_normal((1, 1, 12, 10))).astype(np.float32)
    found = denoise(noisy, weight, iterations=2000)[0, 0].astype(np.float64)

    def cost(picture: np.ndarray) -> float:
        return total_variation(picture) + weight / 2 * float(((picture - noisy[0, 0]) ** 2).sum())

    least = cost(found)
    assert least < cost(noisy[0, 0].astype(np.float64))
    for _ in range(200):
        change = random.standard_normal(found.shape) * random.choice([0.01, 0.1, 1.0])
        assert cost(found + change) >= least - 1e-3 * abs(least)
    assert denoise(noisy, weight / 4).std() < denoise(noisy, weight).std()


def test_roughness_gradient_is_that_of_the_differences() -> None:
    random = random_of(12)
    pictures = random.uniform(0, 1, (1, 2, 5, 6))

    def roughness(x: np.ndarray) -> float:
        return float(sum(np.sqrt(np.diff(x, axis=axis) ** 2 + 1e-4).sum() for axis in (2, 3)))

    found = roughness_gradient(pictures.astype(np.float32))
    for _ in range(5):
        direction = random.standard_normal(pictures.shape)
        slope = (roughness(pictures + 1e-6 * direction) - roughness(pictures - 1e-6 * direction)) / 2e-6
        assert slope == pytest.approx(float((found * direction).sum()), rel=1e-3, abs=1e-3)

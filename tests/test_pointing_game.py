"""The pointing game: which maps hit, at what distance, and how sure the rate is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest

from onnxviz.errors import InputError
from onnxviz.methods.pointing_game import peak_of, pointing_game, wilson_interval


def peaked(row: int, column: int, size: tuple[int, int] = (40, 50)) -> np.ndarray:
    numbers = np.random.default_rng(0).random(size) - 1
    numbers[row, column] = 1
    return numbers


@pytest.mark.parametrize(
    ("peak", "distance"),
    [
        # The box holds rows 10 to 19 and columns 20 to 29.
        ((10, 20), 0), ((19, 29), 0), ((14, 25), 0), ((9, 20), 1), ((20, 29), 1), ((14, 30), 1), ((14, 19), 1),
        ((22, 33), 5), ((7, 16), 5), ((39, 25), 20), ((14, 49), 20), ((25, 41), np.hypot(6, 12)),
    ],
)  # fmt: skip
def test_distance_to_a_box(peak: tuple[int, int], distance: float) -> None:
    box = [[10, 20, 20, 30]]
    got = pointing_game([peaked(*peak)], [box])
    assert got.distances[0] == distance
    assert got.peaks.tolist() == [list(peak)]
    assert got.hits[0] == (distance <= 15)
    assert got.tolerance == 15
    # The distance itself is near enough, a hair less is not.
    assert pointing_game([peaked(*peak)], [box], tolerance=distance).hits[0]
    if distance:
        assert not pointing_game([peaked(*peak)], [box], tolerance=np.nextafter(distance, 0)).hits[0]


def test_the_nearest_of_several_boxes_counts() -> None:
    boxes = [[0, 0, 2, 2], [30, 40, 35, 45], [12, 0, 13, 1]]
    assert pointing_game([peaked(12, 3)], [boxes]).distances[0] == 3


def test_the_first_of_equals_is_the_maximum_and_nan_never_is() -> None:
    numbers = np.zeros((4, 5))
    numbers[2, 1] = numbers[2, 3] = numbers[3, 0] = 7
    assert peak_of(numbers, where="map") == (2, 1)
    numbers[0, 0] = np.nan
    assert peak_of(numbers, where="map") == (2, 1)
    assert peak_of(np.full((4, 5), -np.inf), where="map") == (0, 0)
    assert peak_of(np.eye(3, dtype=bool), where="map") == (0, 0)
    assert peak_of(np.array([[-5, -3]], np.int8), where="map") == (0, 1)


def test_counts_and_rates() -> None:
    maps = [peaked(5, 5), peaked(5, 5, (20, 20)), peaked(30, 30), peaked(0, 0)]
    boxes = np.array([[5, 5, 6, 6], [0, 0, 5, 5], [0, 0, 5, 5], [0, 0, 1, 1]])
    got = pointing_game(maps, boxes, tolerance=1)
    assert got.hits.tolist() == [True, False, False, True]
    assert got.accuracy == 0.5
    assert got.interval == wilson_interval(2, 4)
    assert got.class_accuracy is None
    # The mean over classes, not over maps: 2/3 of class 7 and 0 of class 2.
    by_class = pointing_game(maps, boxes, tolerance=1, classes=[7, 7, 2, 7])
    assert by_class.class_accuracy == pytest.approx(1 / 3)
    assert by_class.provenance.method == "pointing_game"


@pytest.mark.parametrize(("hits", "trials"), [(0, 1), (1, 1), (0, 200), (200, 200), (198, 200), (3, 17), (500, 1000)])
def test_the_interval_is_wilsons(hits: int, trials: int) -> None:
    wanted = binomtest(hits, trials).proportion_ci(0.95, method="wilson")
    np.testing.assert_allclose(wilson_interval(hits, trials), (wanted.low, wanted.high), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("maps", "boxes", "parameters", "sentence"),
    [
        ([], [], {}, "there is no map"),
        ([np.zeros((3, 3))], [], {}, "1 maps, boxes for 0"),
        ([np.zeros(3)], [[0, 0, 1, 1]], {}, "map 0: not a map"),
        ([np.zeros((3, 3)), np.full((3, 3), np.nan)], [[0, 0, 1, 1]] * 2, {}, "map 1: the map holds no number"),
        ([np.zeros((3, 3), complex)], [[0, 0, 1, 1]], {}, "not a map"),
        ([np.zeros((3, 3))], [[0, 0, 1]], {}, "not boxes"),
        ([np.zeros((3, 3))], [np.zeros((0, 4), int)], {}, "at least one box"),
        ([np.zeros((3, 3))], [[0.0, 0.0, 1.0, 1.0]], {}, "whole numbers"),
        ([np.zeros((3, 3))], [[1, 0, 1, 1]], {}, "a box is empty"),
        ([np.zeros((3, 3))], [[0, 0, 1, 1]], {"tolerance": -1}, "not a tolerance"),
        ([np.zeros((3, 3))], [[0, 0, 1, 1]], {"tolerance": np.nan}, "not a tolerance"),
        ([np.zeros((3, 3))], [[0, 0, 1, 1]], {"classes": [1, 2]}, "not one class for each map"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_cannot_be_is_refused(maps: Any, boxes: Any, parameters: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        pointing_game(maps, boxes, **parameters)

"""Strongest patches: against a slow oracle, in any parts and order, in bounded memory, cut where the unit looks."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import onnxviz as ov
import oracles
from embedded_cifar import cifar_model, picture_set, pictures
from onnxviz.errors import InputError, ValueNotFoundError
from onnxviz.methods.top_patches import MOST_DRAWN, _Best, merge_top_patches
from onnxviz.results import TopPatches

RELU = "/features/features.6/Relu_output_0"


@pytest.mark.parametrize("per_image", [1, 3])
def test_equals_the_slow_oracle(per_image: int) -> None:
    model, images = cifar_model(), picture_set(12)
    maps = model.run(images, (RELU,))[RELU]
    got = ov.top_patches(model, images, value=RELU, k=5, per_image=per_image)
    assert len(got.channels) == maps.shape[1]
    for channel in range(0, maps.shape[1], 7):
        expected = oracles.strongest_units(maps, channel, 5, per_image)
        found = [
            (
                float(got.scores[channel, rank]),
                int(got.image_index[channel, rank]),
                *map(int, got.positions[channel, rank]),
            )
            for rank in range(5)
        ]
        assert found == expected


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 10), st.integers(1, 4), st.data())
def test_any_parts_in_any_order_merge_to_the_same_bytes(seed: int, n: int, k: int, data: st.DataObject) -> None:
    rng = np.random.default_rng(seed)
    # Four distinct numbers: ties between images and between units are the rule here.
    maps = rng.choice(np.float32([0, 1, 2, np.nan]), (n, 3, 2, 3))
    channels, numbers = np.arange(3), np.arange(n)
    whole = _Best.of_batch(maps, channels, numbers, k, 2)
    parts = [
        _Best.of_batch(maps[i : i + 1], channels, numbers[i : i + 1], k, 2)
        for i in data.draw(st.permutations(range(n)))
    ]
    while len(parts) > 1:
        at = data.draw(st.integers(0, len(parts) - 2))
        first, second = parts[at : at + 2] if data.draw(st.booleans()) else parts[at : at + 2][::-1]
        parts[at : at + 2] = [first.merge(second)]
    for field in dataclasses.fields(_Best):
        assert getattr(parts[0], field.name).tobytes() == getattr(whole, field.name).tobytes()
    for channel in range(3):
        expected = oracles.strongest_units(maps, channel, k, 2)
        found = [
            (float(score), int(image), *divmod(int(unit), 3))
            for score, image, unit in zip(whole.score[channel], whole.image[channel], whole.unit[channel], strict=True)
            if image >= 0
        ]
        assert found == expected


def test_results_over_parts_merge_to_the_whole() -> None:
    model, array = cifar_model(), pictures(9)
    whole = ov.top_patches(model, ov.load_images(array, model), value=RELU, k=4, channels=[3, 5, 8])

    def part(rows: list[int]) -> TopPatches:
        got = ov.top_patches(model, ov.load_images(array[rows], model), value=RELU, k=4, channels=[3, 5, 8])
        return dataclasses.replace(got, names=tuple(f"image {row}" for row in rows))

    a, b, c = part([0, 4, 7]), part([1, 2, 8]), part([3, 5, 6])
    for merged in (merge_top_patches(merge_top_patches(a, b), c), merge_top_patches(c, merge_top_patches(b, a))):
        for name in ("scores", "image_index", "positions", "boxes", "drawn"):
            np.testing.assert_array_equal(getattr(merged, name), getattr(whole, name))
        for mine, theirs in zip(merged.patches, whole.patches, strict=True):
            assert all(np.array_equal(x, y) for x, y in zip(mine, theirs, strict=True))
    with pytest.raises(InputError, match="the same image"):
        merge_top_patches(a, a)


def test_a_patch_is_what_the_unit_sees() -> None:
    model, images = cifar_model(), picture_set(6)
    value = "/features/features.2/Relu_output_0"  # one 7 × 7 convolution, padded by 3
    got = ov.top_patches(model, images, value=value, channels=[0, 11], k=6)
    for row in range(2):
        for rank in range(6):
            top, left, bottom, right = got.boxes[row, rank]
            y, x = got.positions[row, rank]
            assert (top, left, bottom, right) == (y - 3, x - 3, y + 4, x + 4)
            view = np.pad(
                images.views(got.image_index[row, rank : rank + 1])[0], ((3, 3), (3, 3), (0, 0)), constant_values=128
            )
            np.testing.assert_array_equal(got.patches[row][rank], view[y : y + 7, x : x + 7])


def test_batch_size_changes_nothing() -> None:
    images = picture_set(10)
    one, many = (ov.top_patches(cifar_model(size), images, value=RELU, k=3) for size in (1, 7))
    np.testing.assert_array_equal(one.image_index, many.image_index)
    np.testing.assert_array_equal(one.positions, many.positions)
    np.testing.assert_allclose(one.scores, many.scores, rtol=1e-5)


def test_a_value_without_space_shows_whole_images() -> None:
    got = ov.top_patches(cifar_model(), picture_set(5), value="logits", k=3)
    assert got.scores.shape == (10, 3)
    assert all(patch.shape == (32, 32, 3) for row in got.patches for patch in row)
    assert not got.positions.any()


def test_few_images_and_dead_channels() -> None:
    got = ov.top_patches(cifar_model(), picture_set(2), value=RELU, k=9)
    assert (got.image_index[:, 2:] == -1).all()
    assert np.isneginf(got.scores[:, 2:]).all()
    assert len(got.drawn) <= MOST_DRAWN
    peaks = got.scores[np.isin(got.channels, got.drawn)][:, :2]
    assert (peaks[:, 0] > peaks[:, 1]).all()


def test_wrong_arguments_are_refused() -> None:
    model, images = cifar_model(), picture_set(2)
    with pytest.raises(InputError, match="0 to 95"):
        ov.top_patches(model, images, value=RELU, channels=[96])
    with pytest.raises(InputError, match="k: too few"):
        ov.top_patches(model, images, value=RELU, k=0)
    with pytest.raises(ValueNotFoundError):
        ov.top_patches(model, images, value="nothing")


MEMORY = """
import sys, resource, onnxviz as ov
zoo, count = sys.argv[1], int(sys.argv[2])
model = ov.load(f"{zoo}/models/cifar10_7x7_4096.onnx", preprocess="cifar10", device="cpu", threads=1)
images = ov.load_images(f"{zoo}/images/cifar10", model)
ov.top_patches(model, images.sample(200, 0), value="/features/features.13/Relu_output_0")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
ov.top_patches(model, images.sample(count, 0), value="/features/features.13/Relu_output_0")
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.parametrize("count", [1000, pytest.param(5000, marks=pytest.mark.slow)])
def test_memory_does_not_grow_with_the_images(zoo: Path, count: int) -> None:
    run = subprocess.run(
        [sys.executable, "-c", MEMORY, str(zoo), str(count)], capture_output=True, text=True, check=True
    )
    assert float(run.stdout) < 12, "MiB more at the peak than over 200 images"

"""Activation maps, and statistics that are exact, mergeable, and the same whatever the batch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import onnxviz as ov
from embedded_cifar import cifar_model, picture_set
from onnxviz.errors import InputError, ValueNotFoundError
from onnxviz.methods.activations import _of_batch, merge_statistics
from onnxviz.results import ActivationStatistics, Provenance

NOBODY = Provenance("activations", "m", "0", {}, {}, {}, {}, "")
NUMBERS = ("sums", "sums_of_squares", "minimum", "maximum", "zeros", "at_maximum", "non_finite")


def equal(a: ActivationStatistics, b: ActivationStatistics) -> bool:
    return a.count == b.count and all(getattr(a, name).tobytes() == getattr(b, name).tobytes() for name in NUMBERS)


def test_maps_are_what_the_run_gives() -> None:
    model, images = cifar_model(), picture_set(3)
    found = ov.activations(model, images, values=("*Relu*", "logits"))
    batch = next(iter(images.batches(3)))
    for name, made in found.items():
        np.testing.assert_array_equal(made.maps, model.run(batch.tensor, (name,))[name])
        assert made.names == ("image 0", "image 1", "image 2")
        np.testing.assert_array_equal(made.images, batch.views)


def test_statistics_equal_numpy_on_the_whole() -> None:
    model, images = cifar_model(), picture_set(11)
    value = model.values("*Relu*")[0].name
    maps = model.run(images, (value,))[value].astype(np.float64)
    found = ov.activations(model, images, values=value, reduce="statistics")[value]
    axes = (0, 2, 3)
    np.testing.assert_allclose(found.mean, maps.mean(axes), rtol=1e-12)
    np.testing.assert_allclose(found.standard_deviation, maps.std(axes), rtol=1e-6, atol=1e-9)
    np.testing.assert_array_equal(found.minimum, maps.min(axes))
    np.testing.assert_array_equal(found.maximum, maps.max(axes))
    np.testing.assert_array_equal(found.zeros, (maps == 0).sum(axes))
    np.testing.assert_array_equal(found.at_maximum, (maps == maps.max(axes)[None, :, None, None]).sum(axes))
    assert not found.non_finite.any()


def test_dead_saturated_and_non_finite_channels_are_told_apart() -> None:
    maps = np.random.default_rng(0).random((4, 5, 3, 3)).astype(np.float32)
    maps[:, 1] = 0  # dead
    maps[:, 2] = np.minimum(maps[:, 2] * 100, 6)  # mostly at the ceiling
    maps[2, 3, 1, 1] = np.nan
    maps[:, 4] = np.inf
    found = _of_batch("v", maps, NOBODY)
    assert found.dead.tolist() == [False, True, False, False, True]
    assert found.saturated.tolist() == [False, False, True, False, False]
    assert found.non_finite.tolist() == [0, 0, 0, 1, 36]
    assert np.isfinite(found.mean).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.data())
def test_any_parts_in_any_order_merge_to_the_same_bytes(seed: int, n: int, data: st.DataObject) -> None:
    rng = np.random.default_rng(seed)
    # Few distinct numbers, so that ties at the extremes are common; wide exponents, so that rounding would show.
    maps = rng.choice(np.float32([0, 1e-7, 1, 1, 3e5, -2.5, np.nan]), (n, 3, 2, 2))
    whole = _of_batch("v", maps, NOBODY)
    order = data.draw(st.permutations(range(n)))
    parts = [_of_batch("v", maps[i : i + 1], NOBODY) for i in order]
    while len(parts) > 1:
        at = data.draw(st.integers(0, len(parts) - 2))
        parts[at : at + 2] = [merge_statistics(parts[at], parts[at + 1])]
    assert equal(parts[0], whole)


def test_only_the_same_value_merges() -> None:
    maps = np.ones((1, 2, 2, 2), np.float32)
    with pytest.raises(InputError, match="different values"):
        merge_statistics(_of_batch("a", maps, NOBODY), _of_batch("b", maps, NOBODY))


def test_wrong_arguments_are_refused() -> None:
    model = cifar_model()
    with pytest.raises(InputError, match="at most 64"):
        ov.activations(model, picture_set(65), values="logits")
    with pytest.raises(InputError, match="unknown reduction"):
        ov.activations(model, picture_set(1), values="logits", reduce="median")  # type: ignore[call-overload]
    with pytest.raises(ValueNotFoundError):
        ov.activations(model, picture_set(1), values="nothing")

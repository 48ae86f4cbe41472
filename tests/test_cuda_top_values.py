"""Maxima of maps on a device and the best of every channel: what numpy, and ``top_patches`` itself, keep."""

from __future__ import annotations

import numpy as np
import pytest

from cuda_arrays import kind
from onnxviz.backend import Buffer, Stream, TopValuesOnDevice, channel_maxima_on_device
from onnxviz.errors import InputError


def random_maps(rng: np.random.Generator, shape: tuple[int, ...], dtype: str, *, few: bool) -> np.ndarray:
    """Ties, NaN, infinities and zeros of both signs; some channels of nothing that counts."""
    if not few:
        return rng.standard_normal(shape).astype(kind(dtype))
    maps = rng.choice(np.array([np.nan, -np.inf, -1, -0.0, 0.0, 1, 2]), shape)
    maps[:, 0] = np.nan
    maps[:, 1] = -np.inf
    maps[:, 2] = rng.choice(np.array([np.nan, -0.0, 0.0]), maps[:, 2].shape)
    return maps.astype(kind(dtype))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("few", [False, True])
def test_maxima_equal_numpy(cuda_device: int, dtype: str, channels_last: bool, few: bool) -> None:
    rng = np.random.default_rng(1)
    stream = Stream(cuda_device)
    for shape in ((2, 5, 3, 4), (1, 40, 7, 7), (3, 4), (1, 3, 50, 60)):
        maps = random_maps(rng, shape, dtype, few=few)
        units = maps.astype(np.float32).reshape(*shape[:2], -1)
        units = np.where(np.isnan(units), -np.inf, units)
        places = units.argmax(axis=2)
        given = np.ascontiguousarray(np.moveaxis(maps, 1, -1)) if channels_last else maps
        values, positions = channel_maxima_on_device(
            Buffer.from_host(given, stream), stream, channels_last=channels_last
        )
        wanted = np.take_along_axis(units, places[:, :, np.newaxis], axis=2)[:, :, 0]
        assert values.to_host(stream).tobytes() == wanted.tobytes()
        assert np.array_equal(positions.to_host(stream), places)
        again = Buffer.from_host(np.zeros_like(given[:1]), stream), Buffer.from_host(given, stream)
        for one, into in ((again[0], (values, positions)), (again[1], (values, positions))):
            found = channel_maxima_on_device(one, stream, channels_last=channels_last, into=into)
            assert (found[0] is values) == (one.shape == given.shape)
        assert values.to_host(stream).tobytes() == wanted.tobytes()


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("few", [False, True])
def test_lists_equal_those_of_top_patches(cuda_device: int, dtype: str, few: bool) -> None:
    pytest.importorskip("onnx", reason="top_patches, which CUDA devices are compared with, needs onnx")
    from onnxviz.methods.top_patches import _Best

    rng = np.random.default_rng(2)
    stream = Stream(cuda_device)
    channels, k = 6, 5
    lists = TopValuesOnDevice(channels, k, stream)
    best = _Best.empty(channels, k)
    numbers = rng.permutation(60)
    for start, stop in ((0, 3), (3, 4), (4, 40), (40, 60)):
        maps = random_maps(rng, (stop - start, channels, 4, 5), dtype, few=few)
        best = best.after(maps.astype(np.float32), np.arange(channels), numbers[start:stop], 1)
        lists.take(Buffer.from_host(maps, stream), numbers[start:stop])
        score, image, unit = lists.best()
        assert score.tobytes() == best.score.tobytes()
        assert np.array_equal(image, best.image)
        assert np.array_equal(unit, best.unit)


def test_what_cannot_be_searched_is_refused(cuda_device: int) -> None:
    stream = Stream(cuda_device)
    maps = Buffer((2, 3, 4), "float32", cuda_device)
    for array, message in (
        (Buffer((2,), "float32", cuda_device), "maps have images and channels; got shape .2,."),
        (Buffer((2, 3, 4), "int8", cuda_device), "maps of int8 cannot be searched, only float32"),
        (Buffer((2, 3, 0), "float32", cuda_device), "a map has 0 positions"),
    ):
        with pytest.raises(InputError, match=f"^top values: {message}"):
            channel_maxima_on_device(array, stream)
    lists = TopValuesOnDevice(3, 1, stream)
    for wrong in (np.arange(3), np.array([0, -1])):
        with pytest.raises(InputError, match="not one number, from 0, for each image"):
            lists.take(maps, wrong)
    with pytest.raises(InputError, match="another number of channels; got 4; allowed: 3"):
        lists.take(maps, np.arange(2), channels_last=True)
    for channels, k in ((0, 1), (1, 0)):
        with pytest.raises(InputError, match="too few; got 0; allowed: 1 or more"):
            TopValuesOnDevice(channels, k, stream)

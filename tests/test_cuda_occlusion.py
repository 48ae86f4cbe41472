"""Occlusion on a device: the bytes that the CPU's core writes, and its sentences where something does not fit."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from cuda_arrays import random_array
from onnxviz import backend
from onnxviz.backend import Buffer, Stream
from onnxviz.errors import InputError

DTYPES = ["float32", "float16", "bfloat16", "uint8"]


def random_boxes(count: int, height: int, width: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.integers(0, height + 1, (count, 2)), axis=1)
    columns = np.sort(rng.integers(0, width + 1, (count, 2)), axis=1)
    return np.stack([rows[:, 0], columns[:, 0], rows[:, 1], columns[:, 1]], axis=1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels_last", [False, True])
def test_batches_equal_the_cpu(cuda_device: int, dtype: str, channels_last: bool) -> None:
    stream = Stream(cuda_device)
    for height, width in ((16, 20), (9, 7)):
        shape = (height, width, 3) if channels_last else (3, height, width)
        image, fill = random_array(shape, dtype, 1), random_array(shape, dtype, 2)
        wanted = random_array((7, *shape), dtype, 3)
        on_device = [Buffer.from_host(array, stream) for array in (image, fill, wanted)]
        boxes, later = random_boxes(6, height, width, 4), random_boxes(5, height, width, 5)
        for now, previous in ((boxes, None), (later, boxes)):
            backend.fill_occluded(image, fill, now, wanted, channels_last=channels_last, previous=previous)
            given = now.copy(), None if previous is None else previous.copy()
            backend.fill_occluded_on_device(
                on_device[0], on_device[1], given[0], on_device[2], channels_last=channels_last, stream=stream,
                previous=given[1],
            )  # fmt: skip
            given[0][:] = -1  # nobody reads them any more
            assert on_device[2].to_host(stream).tobytes() == wanted.tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("shape", "layout"),
    [((32, 11, 13), (32, 11, 13, 1)), ((11, 13, 32), (1, 11, 13, 32)), ((2, 11, 13, 16), (2, 11, 13, 16))],
    ids=["planar", "channels last", "blocked"],
)  # fmt: skip
@pytest.mark.parametrize("shared_source", [False, True])
def test_windows_equal_the_cpu(
    cuda_device: int, dtype: str, shape: tuple[int, ...], layout: tuple[int, int, int, int], shared_source: bool
) -> None:
    stream = Stream(cuda_device)
    original = random_array(shape, dtype, 1)
    border = random_array((layout[3],), dtype, 2)
    rng = np.random.default_rng(3)
    count = 9
    for source_size, window_size in (((5, 4), (6, 7)), ((11, 13), (11, 13)), ((2, 9), (4, 12))):
        source = random_array((1 if shared_source else count, layout[0], *source_size, layout[3]), dtype, 4)
        windows = random_array((count, layout[0], *window_size, layout[3]), dtype, 5)
        placements = np.empty((count, 8), np.int64)
        for axis, side in enumerate((11, 13)):
            start = rng.integers(0, side - source_size[axis] + 1, count)
            placements[:, axis] = rng.integers(-window_size[axis], side + 1, count)
            placements[:, 2 + axis] = start
            placements[:, [4 + axis, 6 + axis]] = start[:, np.newaxis] + [0, source_size[axis]]
        arguments: dict[str, Any] = {
            "layout": (*layout[:3], layout[3] * original.itemsize), "source_size": source_size,
            "window_size": window_size, "shared_source": shared_source,
        }  # fmt: skip
        on_device = [Buffer.from_host(array, stream) for array in (original, source, windows, border)]
        backend.overlay_windows(original, source, placements, windows, border=border, **arguments)
        backend.overlay_windows_on_device(
            on_device[0], on_device[1], placements, on_device[2], border=on_device[3], stream=stream, **arguments
        )
        assert on_device[2].to_host(stream).tobytes() == windows.tobytes()


def both_refuse(call: Any, cpu_call: Any, arrays: dict[str, np.ndarray], stream: Stream, **others: Any) -> str:
    """The sentence that the CPU and the device say."""
    with pytest.raises(InputError) as there:
        cpu_call(**arrays, **others)
    kept = {name: array for name, array in arrays.items() if name in {"boxes", "previous", "placements"}}
    moved = {name: Buffer.from_host(array, stream) for name, array in arrays.items() if name not in kept}
    with pytest.raises(InputError) as here:
        call(**moved, **kept, **others, stream=stream)
    assert str(here.value) == str(there.value)
    return str(here.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"boxes": np.array([[0, 0, 9, 4]], np.int64)}, "box 0 is .0, 0, 9, 4., not inside the image of 8 x 8"),
        ({"boxes": np.array([[-1, 0, 4, 4]], np.int64)}, "not inside"),
        ({"boxes": np.zeros((1, 3), np.int64)}, "not .n, 4."),
        ({"boxes": np.zeros((2, 4), np.int64)}, "more boxes than images"),
        ({"image": np.zeros((8, 8), np.float32)}, "not .C, H, W."),
        ({"fill": np.zeros((3, 8, 7), np.float32)}, "another shape"),
        ({"fill": np.zeros((3, 8, 8))}, "the fill has another element type"),
        ({"batch": np.zeros((1, 3, 8, 8), np.float16)}, "the batch has another element type"),
        ({"batch": np.zeros((1, 3, 8, 9), np.float32)}, "not one of such images"),
        ({"batch": np.zeros((3, 8, 8), np.float32)}, "not one of such images"),
        ({"previous": np.zeros((0, 4), np.int64)}, "fewer previous boxes"),
        ({"previous": np.array([[0, 0, 9, 9]], np.int64)}, "previous box 0"),
    ],
)  # fmt: skip
def test_batches_are_refused_in_the_words_of_the_cpu(cuda_device: int, changes: dict, message: str) -> None:
    image = np.zeros((3, 8, 8), np.float32)
    arrays = {"image": image, "fill": image, "boxes": np.array([[0, 0, 4, 4]], np.int64), "batch": image[np.newaxis]}
    arrays = {name: np.array(array) for name, array in (arrays | changes).items()}
    stream = Stream(cuda_device)
    said = both_refuse(backend.fill_occluded_on_device, backend.fill_occluded, arrays, stream, channels_last=False)
    assert re.search(message, said)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"original": np.zeros((2, 6, 8), np.float32)}, "the original is not one map of that layout"),
        ({"source": np.zeros((1, 2, 3, 4), np.float32)}, "the source is too small"),
        ({"windows": np.zeros((1, 2, 4, 5), np.float32)}, "the memory for the windows is too small"),
        ({"border": np.zeros(2, np.float32)}, "the border is not one pixel"),
        ({"placements": np.zeros((2, 7), np.int64)}, "placements are not .n, 8."),
        ({"layout": (0, 6, 7, 4)}, "a side of a map or window is not positive"),
        ({"window_size": (4, 0)}, "a side of a map or window is not positive"),
        ({"source_size": (2**40, 2**40)}, "a map or window is larger than any memory"),
        ({"window_size": (2**29, 2**30)}, "the memory for the windows is too small"),
        ({"placements": np.array([[1, 1, 1, 2, 0, 2, 4, 6]] * 2, np.int64)}, "the fresh part of position 0"),
        ({"placements": np.array([[-1, 1, 1, 2, 1, 2, 4, 6]] * 2, np.int64), "border": None}, "reaches past the map"),
    ],
)  # fmt: skip
def test_windows_are_refused_in_the_words_of_the_cpu(cuda_device: int, changes: dict, message: str) -> None:
    arguments = {
        "original": np.zeros((2, 6, 7), np.float32), "source": np.ones((2, 2, 3, 4), np.float32),
        "placements": np.array([[1, 1, 1, 2, 1, 2, 4, 6]] * 2, np.int64),
        "windows": np.zeros((2, 2, 4, 5), np.float32), "border": np.zeros(1, np.float32), "layout": (2, 6, 7, 4),
        "source_size": (3, 4), "window_size": (4, 5),
    } | changes  # fmt: skip
    arrays = {name: given for name, given in arguments.items() if isinstance(given, np.ndarray)}
    others = {name: given for name, given in arguments.items() if name not in arrays and given is not None}
    said = both_refuse(
        backend.overlay_windows_on_device, backend.overlay_windows, arrays, Stream(cuda_device), **others
    )
    assert re.search(message, said)


def test_arrays_that_are_not_on_the_device_are_refused(cuda_device: int) -> None:
    stream = Stream(cuda_device)
    host = np.zeros((3, 8, 8), np.float32)
    buffer = Buffer.from_host(host, stream)
    boxes = np.zeros((1, 4), np.int64)
    with pytest.raises(InputError, match=r"^batch: in the host's memory; got ndarray"):
        backend.fill_occluded_on_device(buffer, buffer, boxes, host[None], channels_last=False, stream=stream)
    with pytest.raises(InputError, match=r"^image: not an array of a CUDA device; got str"):
        backend.fill_occluded_on_device("image", buffer, boxes, buffer, channels_last=False, stream=stream)

"""Batches of occluded images written into one buffer by the core, beside the same in numpy; the bytes are compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from onnxviz import backend

WINDOW = 32
STRIDE = 8


@dataclass(frozen=True)
class Case:
    """An encoded image, what the patch holds, and batches of boxes."""

    image: NDArray[Any]
    fill: NDArray[Any]
    boxes: NDArray[np.int64]
    batch_size: int
    channels_last: bool

    def blocks(self) -> list[NDArray[np.int64]]:
        """Boxes of each batch."""
        return [self.boxes[start : start + self.batch_size] for start in range(0, len(self.boxes), self.batch_size)]

    def buffer(self) -> NDArray[Any]:
        """Memory for one batch."""
        return np.empty((self.batch_size, *self.image.shape), self.image.dtype)


@pytest.fixture(scope="module", params=["float32 NCHW", "uint8 NHWC"])
def case(request: pytest.FixtureRequest) -> Case:
    timed = request.config.getoption("benchmark_enable", default=False)
    dtype, layout = request.param.split()
    side = 224 if timed else 64
    random = np.random.default_rng(0)
    shape = (3, side, side) if layout == "NCHW" else (side, side, 3)
    starts = np.arange(0, side - WINDOW + 1, STRIDE)
    tops, lefts = (grid.ravel() for grid in np.meshgrid(starts, starts, indexing="ij"))
    boxes = np.stack([tops, lefts, tops + WINDOW, lefts + WINDOW], axis=1).astype(np.int64)
    return Case(
        random.integers(0, 256, shape).astype(dtype), np.full(shape, 117, dtype), boxes, 32 if timed else 5,
        layout == "NHWC",
    )  # fmt: skip


def numpy_fill(case: Case, boxes: NDArray[np.int64], batch: NDArray[Any]) -> None:
    batch[: len(boxes)] = case.image
    for copy, (top, left, bottom, right) in zip(batch, boxes, strict=False):
        rows, columns = slice(top, bottom), slice(left, right)
        region = (rows, columns) if case.channels_last else (slice(None), rows, columns)
        copy[region] = case.fill[region]


def check(case: Case, batch: NDArray[Any]) -> None:
    last = case.blocks()[-1]
    wanted = case.buffer()
    numpy_fill(case, last, wanted)
    np.testing.assert_array_equal(batch[: len(last)], wanted[: len(last)])


def group_of(case: Case) -> str:
    height = case.image.shape[0 if case.channels_last else 1]
    return f"occluded batches: {len(case.boxes)} positions, {case.image.dtype} {height} x {height}"


def test_core_only_what_differs(benchmark: Any, case: Case) -> None:
    benchmark.group = group_of(case)
    batch = case.buffer()

    def fill() -> None:
        previous = None
        for boxes in case.blocks():
            backend.fill_occluded(
                case.image, case.fill, boxes, batch, channels_last=case.channels_last, previous=previous
            )
            previous = boxes

    benchmark(fill)
    check(case, batch)


def test_core_whole_images(benchmark: Any, case: Case) -> None:
    benchmark.group = group_of(case)
    batch = case.buffer()

    def fill() -> None:
        for boxes in case.blocks():
            backend.fill_occluded(case.image, case.fill, boxes, batch, channels_last=case.channels_last)

    benchmark(fill)
    check(case, batch)


def test_numpy(benchmark: Any, case: Case) -> None:
    benchmark.group = group_of(case)
    batch = case.buffer()

    def fill() -> None:
        for boxes in case.blocks():
            numpy_fill(case, boxes, batch)

    benchmark(fill)
    check(case, batch)

"""The seam to the compiled core: what was built, which instruction set runs, and bytes that go where they should."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxviz import backend
from onnxviz.errors import DeviceError, InputError


def in_new_process(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


# -- the build -----------------------------------------------------------------------------------------------------


def test_build_config_is_plain_and_complete() -> None:
    config = backend.build_config()
    assert json.loads(json.dumps(config)) == config
    assert config["cpu_levels"][0] == "baseline"
    assert config["cpu_level"] in config["cpu_levels"]
    assert config["cxx_standard"] >= "201703"
    assert config["compiler"]
    # Exactly one of each pair holds: it is there, or there is a reason why not.
    assert config["cuda"] == (config["cuda_reason"] == "") == (config["cuda_compiler"] != "")
    assert config["cuda_usable"] == (config["cuda_status"] == "")


def test_the_version_has_one_home() -> None:
    pyproject = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
    assert backend.build_config()["version"] == pyproject["project"]["version"]


def test_cuda_status_says_who_can_use_a_device() -> None:
    status = backend.cuda_status()
    assert status.usable == (status.device_count > 0) == (not status.reason)
    assert status.kernels == (not status.kernels_reason)
    if status.kernels and status.usable:
        assert len(status.devices) == status.device_count


def test_a_build_without_cuda_asks_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    # `_cuda` as csrc/no_cuda makes it: onnxruntime could still use a device, so the driver itself is asked.
    monkeypatch.setattr(backend._cuda, "compiled", lambda: False)
    monkeypatch.setattr(backend._cuda, "why_not_compiled", lambda: "built with ONNXVIZ_CUDA=OFF")
    status = backend.cuda_status.__wrapped__()
    assert not status.kernels
    assert status.kernels_reason == "built with ONNXVIZ_CUDA=OFF"
    assert status.usable == backend.cuda_status().usable
    assert status.usable or "driver" in status.reason


@pytest.mark.gpu
def test_a_device_describes_itself() -> None:
    status = backend.cuda_status()
    if not status.usable or not status.kernels:
        pytest.skip(f"no usable CUDA device: {status.reason or status.kernels_reason}")
    for device in backend._cuda.devices():
        assert device.name
        assert device.compute_capability >= (5, 0)
        assert device.memory > 1 << 28
        assert device.multiprocessors > 0
    assert 0 < backend._cuda.runtime_version() // 1000 <= backend._cuda.driver_version() // 1000


def test_a_missing_core_is_explained() -> None:
    done = in_new_process("import sys; sys.modules['onnxviz._core'] = None; import onnxviz.backend")
    assert done.returncode == 1
    assert "Did you forget to compile onnxviz?" in done.stderr


# -- instruction sets ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["baseline", "avx2", "avx512"])
def test_an_instruction_set_can_be_forced(level: str) -> None:
    done = in_new_process("from onnxviz import backend; print(backend.cpu_level())", ONNXVIZ_CPU=level)
    if backend._core.cpu_runs(level):
        assert done.stdout.strip() == level
    else:
        assert "DeviceError" in done.stderr


def test_an_unknown_instruction_set_is_one_clear_sentence() -> None:
    code = """
import numpy as np
from onnxviz import backend
from onnxviz.errors import DeviceError
for call in (backend.cpu_level, backend.build_config,
             lambda: backend.NeighborIndex(np.ones((2, 2), np.float32), metric="euclidean")):
    try:
        call()
    except DeviceError as error:
        print(error)
"""
    done = in_new_process(code, ONNXVIZ_CPU="mmx")
    lines = done.stdout.splitlines()
    assert len(lines) == 3, done.stderr
    for line in lines:
        assert line.startswith("ONNXVIZ_CPU=mmx: no such instruction set; allowed: baseline")
        assert "Unset the environment variable" in line


def test_the_error_of_a_forced_level_is_taken_apart() -> None:
    error = backend._forced_level_error(
        RuntimeError("ONNXVIZ_CPU=avx512: this processor cannot run it; allowed here: baseline, avx2")
    )
    assert isinstance(error, DeviceError)
    assert (error.where, error.what, error.allowed) == (
        "ONNXVIZ_CPU=avx512", "this processor cannot run it", "baseline, avx2",
    )  # fmt: skip


# -- filling a batch -----------------------------------------------------------------------------------------------


def patched(image: np.ndarray, fill: np.ndarray, boxes: np.ndarray, *, channels_last: bool) -> np.ndarray:
    batch = np.repeat(image[np.newaxis], len(boxes), axis=0)
    for one, (top, left, bottom, right) in zip(batch, boxes, strict=True):
        region = (slice(top, bottom), slice(left, right))
        region = region if channels_last else (slice(None), *region)
        one[region] = fill[region]
    return batch


def random_boxes(rng: np.random.Generator, count: int, height: int, width: int) -> np.ndarray:
    rows = np.sort(rng.integers(0, height + 1, (count, 2)), axis=1)
    columns = np.sort(rng.integers(0, width + 1, (count, 2)), axis=1)
    return np.stack([rows[:, 0], columns[:, 0], rows[:, 1], columns[:, 1]], axis=1).astype(np.int64)


def random_image(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Random bytes: the NaN patterns and negative zeros among them have to survive as they are."""
    kind = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    return rng.integers(0, 256, int(np.prod(shape)) * kind.itemsize, dtype=np.uint8).view(kind).reshape(shape)


def assert_same_bytes(got: np.ndarray, wanted: np.ndarray) -> None:
    np.testing.assert_array_equal(got.view(np.uint8), wanted.view(np.uint8))


@pytest.mark.parametrize(
    "dtype", ["float32", "float64", "float16", "bfloat16", "uint8", "int8", "uint16", "int32", "int64"]
)
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("threads", [1, 3])
def test_filling_equals_numpy_in_every_dtype_and_layout(
    dtype: str, channels_last: bool, channels: int, threads: int
) -> None:
    rng = np.random.default_rng(0)
    shape = (17, 23, channels) if channels_last else (channels, 17, 23)
    image, fill = (random_image(rng, shape, dtype) for _ in range(2))
    boxes = random_boxes(rng, 40, 17, 23)
    boxes[0] = 0  # empty: the image as it is
    boxes[1] = (0, 0, 17, 23)
    batch = random_image(rng, (45, *shape), dtype)
    untouched = batch[40:].copy()
    backend.fill_occluded(image, fill, boxes, batch, channels_last=channels_last, threads=threads)
    assert_same_bytes(batch[:40], patched(image, fill, boxes, channels_last=channels_last))
    assert_same_bytes(batch[40:], untouched)

    # Only what differs is written the next time, and the outcome is the same.
    following = random_boxes(rng, 30, 17, 23)
    backend.fill_occluded(image, fill, following, batch, channels_last=channels_last, previous=boxes, threads=threads)
    assert_same_bytes(batch[:30], patched(image, fill, following, channels_last=channels_last))
    assert_same_bytes(batch[30:40], patched(image, fill, boxes[30:], channels_last=channels_last))


def test_large_batches_are_filled_by_several_threads_alike() -> None:
    rng = np.random.default_rng(1)
    image, fill = (rng.standard_normal((3, 96, 96)).astype(np.float32) for _ in range(2))
    boxes = random_boxes(rng, 64, 96, 96)
    batches = [np.empty((64, 3, 96, 96), np.float32) for _ in range(2)]
    for batch, threads in zip(batches, (1, 4), strict=True):
        backend.fill_occluded(image, fill, boxes, batch, channels_last=False, threads=threads)
    np.testing.assert_array_equal(batches[0], batches[1])
    np.testing.assert_array_equal(batches[0], patched(image, fill, boxes, channels_last=False))


def read_only(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


IMAGE = np.zeros((3, 8, 8), np.float32)
BOX = np.array([[0, 0, 4, 4]], np.int64)
BATCH = np.zeros((1, 3, 8, 8), np.float32)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"boxes": np.array([[0, 0, 4, 4], [0, 0, 9, 4]], np.int64), "batch": np.zeros((2, 3, 8, 8), np.float32)},
         r"box 1 is \(0, 0, 9, 4\), not inside the image of 8 x 8"),
        ({"boxes": np.array([[-1, 0, 4, 4]], np.int64)}, "not inside"),
        ({"boxes": np.array([[4, 0, 3, 4]], np.int64)}, "not inside"),
        ({"boxes": np.array([[0, 2**62, 4, 2**62 + 1]], np.int64)}, "not inside"),
        ({"boxes": np.zeros((1, 3), np.int64)}, r"not \(n, 4\)"),
        ({"boxes": np.repeat(BOX, 2, axis=0)}, "more boxes than images"),
        ({"image": IMAGE[0]}, "not .C, H, W."),
        ({"fill": np.zeros((3, 8, 7), np.float32)}, "another shape"),
        ({"fill": IMAGE.astype(np.float64)}, "another element type"),
        ({"batch": BATCH.astype(np.float16)}, "another element type"),
        ({"batch": np.zeros((1, 3, 8, 16), np.float32)[..., ::2]}, "not C-contiguous"),
        ({"batch": np.zeros((1, 3, 8, 9), np.float32)}, "not one of such images"),
        ({"batch": read_only(BATCH.copy())}, "read-only"),
        ({"previous": np.zeros((0, 4), np.int64)}, "fewer previous boxes"),
        ({"previous": np.array([[0, 0, 9, 9]], np.int64)}, "previous box 0"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_before_anything_is_written(changes: dict, message: str) -> None:
    arguments = {"image": IMAGE, "fill": IMAGE + 1, "boxes": BOX, "batch": BATCH.copy()} | changes
    before = arguments["batch"].copy()
    with pytest.raises(InputError, match=message):
        backend.fill_occluded(channels_last=False, **arguments)
    np.testing.assert_array_equal(arguments["batch"], before)


# -- sums over boxes -----------------------------------------------------------------------------------------------


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 20), st.integers(0, 2**32 - 1))
def test_sums_over_boxes_equal_numpy(height: int, width: int, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    boxes = random_boxes(rng, count, height, width)
    values = rng.standard_normal(count)
    total, covered = np.zeros((height, width)), np.zeros((height, width), np.int64)
    for (top, left, bottom, right), value in zip(boxes, values, strict=True):
        total[top:bottom, left:right] += value
        covered[top:bottom, left:right] += 1
    got_total, got_covered = backend.accumulate_boxes(boxes, values, height, width)
    np.testing.assert_array_equal(got_total, total)
    np.testing.assert_array_equal(got_covered, covered)


def test_sums_refuse_what_does_not_fit() -> None:
    with pytest.raises(InputError, match="one value per box"):
        backend.accumulate_boxes(BOX, np.zeros(2), 8, 8)
    with pytest.raises(InputError, match="not inside"):
        backend.accumulate_boxes(BOX, np.zeros(1), 3, 8)
    with pytest.raises(InputError, match="negative"):
        backend.accumulate_boxes(BOX, np.zeros(1), -3, 8)

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

from onnxviz import _core, backend
from onnxviz.backend import build
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
    monkeypatch.setattr(build._cuda, "compiled", lambda: False)
    monkeypatch.setattr(build._cuda, "why_not_compiled", lambda: "built with ONNXVIZ_CUDA=OFF")
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
    for device in build._cuda.devices():
        assert device.name
        assert device.compute_capability >= (5, 0)
        assert device.memory > 1 << 28
        assert device.multiprocessors > 0
    assert 0 < build._cuda.runtime_version() // 1000 <= build._cuda.driver_version() // 1000


def test_a_missing_core_is_explained() -> None:
    done = in_new_process("import sys; sys.modules['onnxviz._core'] = None; import onnxviz.backend")
    assert done.returncode == 1
    assert "Did you forget to compile onnxviz?" in done.stderr


# -- instruction sets ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["baseline", "avx2", "avx512"])
def test_an_instruction_set_can_be_forced(level: str) -> None:
    done = in_new_process("from onnxviz import backend; print(backend.cpu_level())", ONNXVIZ_CPU=level)
    if _core.cpu_runs(level):
        assert done.stdout.strip() == level
    else:
        assert "DeviceError" in done.stderr


def test_an_unknown_instruction_set_is_one_clear_sentence() -> None:
    code = """
import numpy as np
from onnxviz import _core, backend
from onnxviz.backend import build
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
    error = build._forced_level_error(
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


# -- windows of a map ----------------------------------------------------------------------------------------------

# How a map of 32 channels, 11 x 13 lies in memory, and the same as (planes, rows, columns, elements of a pixel).
LAYOUTS = {
    "planar": ((32, 11, 13), (32, 11, 13, 1)),
    "channels last": ((11, 13, 32), (1, 11, 13, 32)),
    "blocked": ((2, 11, 13, 16), (2, 11, 13, 16)),
}


def cropped(
    original: np.ndarray, source: np.ndarray, placement: np.ndarray, size: tuple[int, int], border: np.ndarray
) -> np.ndarray:
    """One window: the whole map is patched, then padded on all sides, then cropped."""
    top, left, source_top, source_left, *fresh = placement
    patched = original.copy()
    patched[:, fresh[0] : fresh[2], fresh[1] : fresh[3]] = source[
        :, fresh[0] - source_top : fresh[2] - source_top, fresh[1] - source_left : fresh[3] - source_left
    ]
    planes, rows, columns, elements = original.shape
    margin = 50
    padded = np.empty((planes, rows + 2 * margin, columns + 2 * margin, elements), original.dtype)
    padded[:] = border
    padded[:, margin:-margin, margin:-margin] = patched
    top, left = top + margin, left + margin
    return padded[:, top : top + size[0], left : left + size[1]]


def random_placements(
    rng: np.random.Generator, count: int, source_size: tuple[int, int], size: tuple[int, int], *, inside: bool
) -> np.ndarray:
    """Windows anywhere or ``inside`` a map of 11 x 13; sources that may stick out, and a box in what they share."""
    placements = np.empty((count, 8), np.int64)
    for axis, side in enumerate((11, 13)):
        room = (0, side - size[axis]) if inside else (-size[axis] - 2, side + 2)
        start = rng.integers(1 - source_size[axis], side, count)
        shared = np.stack([np.maximum(start, 0), np.minimum(start + source_size[axis], side)])
        placements[:, axis] = rng.integers(room[0], room[1] + 1, count)
        placements[:, 2 + axis] = start
        placements[:, [4 + axis, 6 + axis]] = np.sort(rng.integers(shared[0], shared[1] + 1, (2, count)), axis=0).T
    return placements


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shared_source", [False, True])
def test_windows_equal_numpy_in_every_layout(dtype: str, layout: str, shared_source: bool) -> None:
    rng = np.random.default_rng(3)
    shape, seen = LAYOUTS[layout]
    lowest = np.iinfo(dtype).min if dtype == "int8" else -np.inf
    original = random_image(rng, shape, dtype)
    border = np.full(seen[3], lowest, dtype)
    count = 40
    for inside in (False, True):
        for source_size, size in (((5, 4), (6, 7)), ((15, 3), (1, 13)), ((1, 1), (11, 2)), ((11, 13), (11, 13))):
            sources = random_image(rng, (1 if shared_source else count, seen[0], *source_size, seen[3]), dtype)
            placements = random_placements(rng, count, source_size, size, inside=inside)
            windows = random_image(rng, (count + 2, seen[0], *size, seen[3]), dtype)
            untouched = windows[count:].copy()
            backend.overlay_windows(
                original, sources, placements, windows, layout=(*seen[:3], seen[3] * original.itemsize),
                source_size=source_size, window_size=size, shared_source=shared_source,
                border=None if inside else border,
            )  # fmt: skip
            for i, placement in enumerate(placements):
                wanted = cropped(original.reshape(seen), sources[i % len(sources)], placement, size, border)
                assert_same_bytes(windows[i], np.ascontiguousarray(wanted))
            assert_same_bytes(windows[count:], untouched)


# A map of 2 planes, 6 x 7, a source of 3 x 4 at (1, 2), and windows of 4 x 5.
MAP = np.zeros((2, 6, 7), np.float32)
SOURCE = np.ones((2, 2, 3, 4), np.float32)
PLACEMENTS = np.array([[1, 1, 1, 2, 1, 2, 4, 6]] * 2, np.int64)
WINDOWS = np.full((2, 2, 4, 5), 7, np.float32)
BORDER = np.full(1, -np.inf, np.float32)


def placed(**changes: int) -> dict[str, np.ndarray]:
    names = ("top", "left", "source_top", "source_left", "from_row", "from_column", "to_row", "to_column")
    placements = PLACEMENTS.copy()
    for name, number in changes.items():
        placements[1, names.index(name)] = number
    return {"placements": placements}


def window_arguments(**changes: object) -> dict:
    return {
        "original": MAP, "source": SOURCE, "placements": PLACEMENTS, "windows": WINDOWS.copy(), "layout": (2, 6, 7, 4),
        "source_size": (3, 4), "window_size": (4, 5), "border": BORDER,
    } | changes  # fmt: skip


LARGEST = 2**63 - 1
PAST_THE_MAP = "the window of position 1 reaches past the map, and no border is given"
OUTSIDE = "the fresh part of position 1 is not inside both the map and its source"
NOT_POSITIVE = "a side of a map or window is not positive"
NO_MEMORY = "a map or window is larger than any memory"
NOTHING = np.zeros(0, np.float32)
FOUR = {"placements": np.repeat(PLACEMENTS, 2, axis=0)}
ENOUGH = {"source": np.repeat(SOURCE, 2, axis=0)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"original": np.zeros((2, 6, 8), np.float32)}, "the original is not one map of that layout"),
        ({"original": np.zeros((2, 6, 6), np.float32)}, "the original is not one map of that layout"),
        ({"original": MAP.astype(np.float64)}, "the original is not one map of that layout"),
        ({"source": SOURCE[:1]}, "the source is too small"),
        ({"source": SOURCE.astype(np.float16)}, "the source is too small"),
        ({"source": SOURCE[0, :, :2], "shared_source": True}, "the source is not C-contiguous"),
        ({"source": SOURCE[0, 0], "shared_source": True}, "the source is too small"),
        ({"windows": WINDOWS[:1].copy()}, "the memory for the windows is too small"),
        ({"windows": WINDOWS.ravel()[:-1].copy()}, "the memory for the windows is too small"),
        ({"original": np.zeros((2, 6, 14), np.float32)[..., ::2]}, "the original is not C-contiguous"),
        ({"source": SOURCE[::-1]}, "the source is not C-contiguous"),
        ({"windows": np.asfortranarray(WINDOWS)}, "the memory for the windows is not C-contiguous"),
        ({"windows": read_only(WINDOWS.copy())}, "the memory for the windows is read-only"),
        ({"border": np.zeros(2, np.float32)}, "the border is not one pixel"),
        ({"border": np.zeros(1, np.float16)}, "the border is not one pixel"),
        ({"border": NOTHING}, "the border is not one pixel"),
        ({"border": np.zeros(8, np.uint8)[::2]}, "the border is not C-contiguous"),
        ({"border": np.broadcast_to(np.zeros(1, np.uint8), 4)}, "the border is not C-contiguous"),
        ({"placements": np.zeros((2, 7), np.int64)}, r"placements are not \(n, 8\)"),
        ({"placements": np.zeros(8, np.int64)}, r"placements are not \(n, 8\)"),
        ({"layout": (0, 6, 7, 4)}, NOT_POSITIVE),
        ({"layout": (2, -6, -7, 4)}, NOT_POSITIVE),
        ({"layout": (2, 6, 7, 0)}, NOT_POSITIVE),
        ({"source_size": (0, 4)}, NOT_POSITIVE),
        ({"source_size": (3, -4)}, NOT_POSITIVE),
        ({"window_size": (4, 0)}, NOT_POSITIVE),
        ({"window_size": (-4, 5)}, NOT_POSITIVE),
        # Products that overflow, some of them to the very size of what is given.
        ({"layout": (2**32, 2**32, 1, 1), "original": NOTHING}, NO_MEMORY),
        ({"layout": (1, 1, 2**32, 2**32), "original": NOTHING}, NO_MEMORY),
        ({"source_size": (2**40, 2**40)}, NO_MEMORY),
        ({"window_size": (LARGEST, LARGEST)}, NO_MEMORY),
        ({"source_size": (2**29, 2**30), "source": NOTHING} | FOUR, "the source is too small"),
        ({"window_size": (2**29, 2**30), "windows": NOTHING} | FOUR | ENOUGH,
         "the memory for the windows is too small"),
        (placed(from_row=0), OUTSIDE),
        (placed(from_column=1), OUTSIDE),
        (placed(to_row=5), OUTSIDE),
        (placed(to_column=7), OUTSIDE),
        (placed(source_top=-1, from_row=-1, to_row=1), OUTSIDE),
        (placed(source_left=4, from_column=4, to_column=8), OUTSIDE),
        (placed(source_top=LARGEST), OUTSIDE),
        (placed(source_left=-LARGEST), OUTSIDE),
        (placed(top=-1) | {"border": None}, PAST_THE_MAP),
        (placed(left=-1) | {"border": None}, PAST_THE_MAP),
        (placed(top=3) | {"border": None}, PAST_THE_MAP),
        (placed(left=3) | {"border": None}, PAST_THE_MAP),
        (placed(top=LARGEST) | {"border": None}, PAST_THE_MAP),
        (placed(left=LARGEST) | {"border": None}, PAST_THE_MAP),
    ],
)  # fmt: skip
def test_windows_that_cannot_be_made_are_refused_before_anything_is_written(changes: dict, message: str) -> None:
    arguments = window_arguments(**changes)
    before = arguments["windows"].copy()
    with pytest.raises(InputError, match=f"^occlusion: {message}"):
        backend.overlay_windows(**arguments)
    np.testing.assert_array_equal(arguments["windows"], before)


def test_windows_at_the_edge_of_what_is_refused_are_made() -> None:
    patched = np.zeros((2, 6, 7), np.float32)
    patched[:, 1:4, 2:6] = 1
    for top, left in ((0, 0), (2, 2), (2, 0)):
        arguments = window_arguments(**placed(top=top, left=left), border=None)
        backend.overlay_windows(**arguments)
        np.testing.assert_array_equal(arguments["windows"][1], patched[:, top : top + 4, left : left + 5])
    for far in ({"top": LARGEST}, {"left": -LARGEST - 1}, {"top": -LARGEST, "left": LARGEST}):
        arguments = window_arguments(**placed(**far))
        backend.overlay_windows(**arguments)
        np.testing.assert_array_equal(arguments["windows"][0], patched[:, 1:5, 1:6])
        np.testing.assert_array_equal(arguments["windows"][1], np.full((2, 4, 5), -np.inf))
    # No position: nothing is written, nothing of a source is needed.
    arguments = window_arguments(placements=np.zeros((0, 8), np.int64), source=NOTHING)
    backend.overlay_windows(**arguments)
    np.testing.assert_array_equal(arguments["windows"], WINDOWS)


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

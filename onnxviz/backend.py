"""Checked numpy arrays come in, the compiled core's answers go out; this is the only importer of the extension."""

from __future__ import annotations

import ctypes
import functools
import sys
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from onnxviz.errors import DeviceError, InputError

try:
    from onnxviz import _core, _cuda
except ImportError as error:
    if "_core" in str(error) or "_cuda" in str(error):
        error.add_note("Did you forget to compile onnxviz? `pip install .` in its source folder does that.")
    raise

__all__ = [
    "CudaStatus",
    "NeighborIndex",
    "accumulate_boxes",
    "build_config",
    "cpu_level",
    "cuda_status",
    "fill_occluded",
    "overlay_windows",
]

RealMatrix: TypeAlias = NDArray[np.float32] | NDArray[np.float64]

# Between two blocks of queries Python gets to see a Ctrl-C.
_QUERIES_PER_CALL = 1024
# The core's own limit: squares of larger numbers could overflow when they are summed.
_LARGEST_NUMBER = 1e150


@dataclass(frozen=True)
class CudaStatus:
    """Whether a CUDA device can be used here, and what this build can do with it."""

    usable: bool
    """Whether at least one device answers."""
    reason: str
    """Why none does; ``""`` where one does."""
    device_count: int
    devices: tuple[str, ...]
    """Name of each device; empty where only the driver could be asked."""
    kernels: bool
    """Whether onnxviz's own CUDA kernels are in this build (onnxruntime does not need them)."""
    kernels_reason: str
    """Why they are not; ``""`` where they are."""


@functools.cache
def cuda_status() -> CudaStatus:
    """Ask the CUDA devices of this machine themselves; the answer is kept for the life of the process.

    A build with CUDA kernels runs one on the first device. A build without them asks the driver, because onnxruntime
    can use a device that onnxviz has no kernels for.
    """
    if _cuda.compiled():
        reason = _cuda.status()
        names = () if reason else tuple(device.name for device in _cuda.devices())
        return CudaStatus(not reason, reason, len(names), names, True, "")
    missing = _cuda.why_not_compiled()
    count, reason = _ask_driver()
    return CudaStatus(count > 0, reason, count, (), False, missing)


def _ask_driver() -> tuple[int, str]:
    library_name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        driver = ctypes.CDLL(library_name)
    except OSError:
        return 0, f"no CUDA driver is installed ({library_name} was not found)"
    status = driver.cuInit(0)
    if status != 0:
        return 0, f"the CUDA driver does not start (cuInit returned {status})"
    count = ctypes.c_int(0)
    status = driver.cuDeviceGetCount(ctypes.byref(count))
    if status != 0 or count.value == 0:
        return 0, "the CUDA driver lists no device"
    return count.value, ""


def cpu_level() -> str:
    """Instruction set of the kernels in use: ``"baseline"``, ``"avx2"`` or ``"avx512"``.

    The highest one that this processor runs, unless the environment variable ``ONNXVIZ_CPU`` names another.

    Raises
    ------
    DeviceError
        ``ONNXVIZ_CPU`` names a set that does not exist, is not in this build, or does not run on this processor.
    """
    try:
        return _core.cpu_level()
    except RuntimeError as error:
        raise _forced_level_error(error) from error


def _forced_level_error(error: RuntimeError) -> DeviceError:
    # The core says it in the form "ONNXVIZ_CPU=name: what is wrong; allowed here: names".
    where, _, rest = str(error).partition(": ")
    what, _, allowed = rest.partition("; allowed here: ")
    return DeviceError(
        what,
        where=where,
        allowed=allowed,
        next_step="Unset the environment variable ONNXVIZ_CPU to let onnxviz choose",
    )


def build_config() -> dict[str, Any]:
    """How onnxviz was built and what it uses here, as plain JSON types.

    Returns
    -------
    dict
        ``version``, ``compiler``, ``build_type``, ``cxx_standard``, ``cpu_level`` (instruction set in use),
        ``cpu_levels`` (those compiled), ``cuda`` (whether CUDA kernels are in the build), ``cuda_reason`` (why not),
        ``cuda_compiler``, ``cuda_architectures``, ``cuda_usable`` (whether a device answers), ``cuda_status`` (why
        none does).

    Raises
    ------
    DeviceError
        The environment variable ``ONNXVIZ_CPU`` names an instruction set that cannot be used.
    """
    facts = _core.build_facts()
    status = cuda_status()
    return {
        "version": facts["version"],
        "compiler": facts["compiler"],
        "build_type": facts["build_type"],
        "cxx_standard": facts["cxx_standard"],
        "cpu_level": cpu_level(),
        "cpu_levels": _core.cpu_levels(),
        "cuda": status.kernels,
        "cuda_reason": status.kernels_reason,
        "cuda_compiler": facts["cuda_compiler"],
        "cuda_architectures": facts["cuda_architectures"].split(),
        "cuda_usable": status.usable,
        "cuda_status": status.reason,
    }


class NeighborIndex:
    """The rows of one matrix, made ready to be asked for exact nearest neighbours.

    Parameters
    ----------
    bank : (n, d) float32 or float64
        Copied once where it is not C-contiguous, else viewed: it has to stay unchanged.
    metric : str
        ``"euclidean"``, or ``"cosine"`` (1 - cos, in float64 on normalised rows; a row of zeros is at distance 1 from
        every row, itself included).
    threads : int
        0 for all cores.

    Raises
    ------
    InputError
        No rows, an unknown metric, or a row with NaN, infinity or a number beyond 1e150 (the row is named).
    DeviceError
        The environment variable ``ONNXVIZ_CPU`` names an instruction set that cannot be used.

    Notes
    -----
    Distances are sums of squared differences in float64; neighbours are ordered by that distance, then by the lower row
    number. Which rows need it, a float32 filter with a proven bound decides: no answer depends on it, nor on the
    number of threads, nor on the instruction set (``csrc/cpu/distance_filter.h``).
    """

    def __init__(self, bank: RealMatrix, *, metric: str, threads: int = 0) -> None:
        cpu_level()
        rows = _contiguous(bank)
        try:
            self._index = _core.NeighborIndex(rows, metric, threads)
        except ValueError as error:
            raise InputError(str(error), where="neighbours") from error

    def query(self, queries: RealMatrix, k: int, *, threads: int = 0) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Find the ``k`` nearest rows of each query.

        Parameters
        ----------
        queries : (q, d) float32 or float64
        k : int
            1 to the number of rows in the bank.
        threads : int
            0 for all cores.

        Returns
        -------
        distances : (q, k) float64
            Nearest first.
        indices : (q, k) int64
            Row numbers in the bank.

        Raises
        ------
        InputError
            ``k`` out of range, another number of columns than the bank has, or NaN or infinity in a row (it is named).
        """
        rows = _contiguous(queries)
        distances = np.empty((len(rows), max(k, 0)), np.float64)
        indices = np.empty((len(rows), max(k, 0)), np.int64)
        # One call even without queries, so that a wrong k or number of columns is always refused.
        for start in range(0, max(len(rows), 1), _QUERIES_PER_CALL):
            block = slice(start, start + _QUERIES_PER_CALL)
            try:
                distances[block], indices[block] = self._index.query(rows[block], k, threads)
            except ValueError as error:
                # The core counts rows from the start of the block that it was given.
                unfit = np.flatnonzero(~(np.abs(rows[block]) <= _LARGEST_NUMBER).all(axis=1))
                text = str(error)
                if len(unfit):
                    row = start + int(unfit[0])
                    text = f"row {row} of the queries holds NaN, infinity or a number beyond {_LARGEST_NUMBER:g}"
                raise InputError(text, where="neighbours") from error
        return distances, indices


def _contiguous(matrix: RealMatrix) -> RealMatrix:
    if matrix.dtype == np.float32:
        return np.ascontiguousarray(matrix, dtype=np.float32)
    return np.ascontiguousarray(matrix, dtype=np.float64)


def fill_occluded(
    image: NDArray[Any],
    fill: NDArray[Any],
    boxes: NDArray[np.int64],
    batch: NDArray[Any],
    *,
    channels_last: bool,
    previous: NDArray[np.int64] | None = None,
    threads: int = 0,
) -> None:
    """Write copies of one encoded image into ``batch``, each with one box taken from ``fill``.

    Parameters
    ----------
    image : (C, H, W), or (H, W, C) with ``channels_last``; any dtype
        The encoded image.
    fill : like ``image``
        What a patch holds: one colour everywhere, or a blurred copy of the image.
    boxes : (n, 4) int64
        Top, left, bottom, right in pixels, bottom and right exclusive, inside the image.
    batch : (at least n, like ``image``)
        Written in place: usually the buffer that is bound to a session.
    previous : (at least n, 4) int64, optional
        The boxes of an earlier call with the same image, fill and batch: only what differs is then written.
    threads : int
        0 for all cores.

    Raises
    ------
    InputError
        Shapes or dtypes that do not fit, or a box outside the image.
    """
    try:
        _core.fill_occluded(image, fill, boxes, batch, channels_last=channels_last, previous=previous, threads=threads)
    except ValueError as error:
        raise InputError(str(error), where="occlusion") from error


def overlay_windows(
    original: NDArray[Any],
    source: NDArray[Any],
    placements: NDArray[np.int64],
    windows: NDArray[Any],
    *,
    layout: tuple[int, int, int, int],
    source_size: tuple[int, int],
    window_size: tuple[int, int],
    shared_source: bool = False,
    border: NDArray[Any] | None = None,
) -> None:
    """Write windows of a map, each a crop of the original with fresh pixels laid over it.

    Parameters
    ----------
    original : any shape and dtype, C-contiguous
        One map: planes × rows × columns pixels, as ``layout`` says.
    source : any shape and dtype, C-contiguous
        For each position a window of ``source_size``, or one that all share.
    placements : (n, 8) int64
        For each position, in pixels of the map: top and left of its window, top and left of its source, and top, left,
        bottom, right of what is taken from the source.
    windows : any shape, C-contiguous
        Memory for n windows of ``window_size``.
    layout : (planes, rows, columns, bytes of a pixel)
    source_size, window_size : (rows, columns)
    shared_source : bool
    border : bytes of one pixel, optional
        What lies outside the map; needed where a window reaches there.

    Raises
    ------
    InputError
        Memory that does not fit, a fresh part outside its source, or a window that leaves the map without a border.
    """
    try:
        _core.overlay_windows(
            original, source, placements, windows, layout=layout, source_size=source_size, window_size=window_size,
            shared_source=shared_source, border=border,
        )  # fmt: skip
    except ValueError as error:
        raise InputError(str(error), where="occlusion") from error


def accumulate_boxes(
    boxes: NDArray[np.int64], values: NDArray[np.float64], height: int, width: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Add up, for every pixel, the values of the boxes that cover it.

    Parameters
    ----------
    boxes : (n, 4) int64
        As in :func:`fill_occluded`.
    values : (n,) float64
    height, width : int
        Size of the image in pixels.

    Returns
    -------
    total : (height, width) float64
        Sum of the values of the boxes over each pixel, in the order of the boxes.
    covered : (height, width) int64
        Number of those boxes.

    Raises
    ------
    InputError
        A box outside the image, or not one value per box.
    """
    try:
        return _core.accumulate_boxes(boxes, values, height, width)
    except ValueError as error:
        raise InputError(str(error), where="occlusion") from error

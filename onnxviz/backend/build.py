"""What was compiled, and what of it this machine can use."""

from __future__ import annotations

import ctypes
import functools
import sys
from dataclasses import dataclass
from typing import Any

from onnxviz.errors import DeviceError

try:
    from onnxviz import _core, _cuda
except ImportError as error:
    if "_core" in str(error) or "_cuda" in str(error):
        error.add_note("Did you forget to compile onnxviz? `pip install .` in its source folder does that.")
    raise

__all__ = ["CudaStatus", "build_config", "cpu_level", "cuda_status"]


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

"""A wished-for device comes in; the provider and the memory that will really be used, or one clear refusal, go out."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.metadata
import io
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import onnxruntime

from onnxviz import backend
from onnxviz.errors import DeviceError

__all__ = ["Device", "choose_devices"]

CPU_PROVIDER = "CPUExecutionProvider"
CUDA_PROVIDER = "CUDAExecutionProvider"

ALLOWED = "'auto', 'cpu', 'cuda', 'cuda:N', 'cuda:N,cuda:M'"

_EVERYTHING = "`pip install 'onnxviz[cuda]'`"

_LIBRARIES = {
    "12": ("libcudart.so.12", "libcublasLt.so.12", "libcublas.so.12", "libcurand.so.10", "libcudnn.so.9"),
    "13": ("libcudart.so.13", "libcublasLt.so.13", "libcublas.so.13", "libcurand.so.10", "libcudnn.so.9"),
}
"""What onnxruntime's CUDA provider needs, by the version of CUDA that it was built for."""


@dataclass(frozen=True)
class Device:
    """The device a session runs on, and why it was chosen."""

    name: str
    """``"cpu"`` or ``"cuda:N"``."""
    provider: str
    """The onnxruntime provider that a session must report as its first one."""
    provider_options: dict[str, Any]
    why: str
    stream: backend.Stream | None = field(default=None, compare=False)
    """The queue that onnxruntime's work and our kernels share; None where batches and maps are made on the host."""
    note: str = ""
    """What a reader of results should know about it."""

    @property
    def number(self) -> int:
        """Of the CUDA device; 0 for the CPU."""
        return int(self.name.partition(":")[2] or 0)

    @property
    def is_cpu(self) -> bool:
        """Whether both provider and memory are the host's."""
        return self.provider == CPU_PROVIDER and self.stream is None

    @property
    def memory(self) -> tuple[str, int]:
        """How onnxruntime calls the memory that its provider works in."""
        return ("cuda", self.number) if self.provider == CUDA_PROVIDER else ("cpu", 0)


@dataclass(frozen=True)
class _Obstacle:
    """Why CUDA cannot be used, and what helps."""

    what: str
    next_step: str


def choose_devices(wish: str | Sequence[str]) -> tuple[Device, ...]:
    """Choose where sessions run.

    onnxruntime's list of available providers says what was compiled in, not what works, so the device itself is asked.

    Parameters
    ----------
    wish : str or sequence of str
        ``"auto"`` (the first CUDA device where one is usable, else the CPU), ``"cpu"``, ``"cuda"`` or ``"cuda:N"``; or
        several CUDA devices, as ``"cuda:0,cuda:1"`` or a list: images are then dealt to them in turn.

    Returns
    -------
    tuple of Device
        At least one, in the order of the wish.

    Raises
    ------
    DeviceError
        CUDA was asked for by name and is not usable, which of GPU, driver, libraries and provider is missing; or the
        name is unknown.
    """
    names = [name.strip() for name in wish.split(",")] if isinstance(wish, str) else list(wish)
    if names == ["cpu"]:
        return (Device("cpu", CPU_PROVIDER, {}, "asked for"),)
    numbers = [_number(name, wish) for name in names] if names != ["auto"] else [0]
    if not numbers or len(set(numbers)) < len(numbers):
        raise DeviceError(
            "a device is named twice" if numbers else "no device is named", where="device", got=repr(wish),
            allowed=ALLOWED,
        )  # fmt: skip
    obstacle = _obstacle()
    if obstacle is not None:
        if names == ["auto"]:
            return (Device("cpu", CPU_PROVIDER, {}, f"no usable CUDA device: {obstacle.what}"),)
        raise DeviceError(
            f"CUDA is not usable: {obstacle.what}", where="device", got=repr(wish),
            allowed="'cpu' or 'auto' on this machine", next_step=f"{obstacle.next_step}, or pass device='cpu'",
        )  # fmt: skip
    count = backend.cuda_status().device_count
    if max(numbers) >= count:
        raise DeviceError(
            "no such CUDA device", where="device", got=repr(wish),
            allowed="cuda:0" if count == 1 else f"cuda:0 to cuda:{count - 1}",
        )  # fmt: skip
    return tuple(_cuda_device(number) for number in numbers)


def _number(name: Any, wish: Any) -> int:
    match = re.fullmatch(r"cuda(?::(\d+))?", name) if isinstance(name, str) else None
    if match is None:
        raise DeviceError("unknown device", where="device", got=repr(wish), allowed=ALLOWED)
    return int(match.group(1) or 0)


def _cuda_device(number: int) -> Device:
    options: dict[str, Any] = {
        # onnxruntime 1.31 prints a warning for each session that names its device, so the first one is not named.
        **({"device_id": str(number)} if number else {}),
        # TensorFloat-32 rounds factors to 11 bits: batches would no longer equal single runs, nor a GPU a CPU.
        "use_tf32": "0",
        # The default measures several algorithms for each new shape of a convolution: slow where windows of many shapes
        # are run, and another choice in the next process gives other bits.
        "cudnn_conv_algo_search": "HEURISTIC",
        # Doubling, the default, takes memory that our kernels and other sessions on the device then lack.
        "arena_extend_strategy": "kSameAsRequested",
    }
    status = backend.cuda_status()
    if not status.kernels:
        note = (
            f"onnxviz was built without CUDA kernels ({status.kernels_reason}): onnxruntime runs on the GPU, batches"
            " and maps are made on the host; with nvcc on PATH, `ONNXVIZ_CUDA=ON pip install .` builds them"
        )
        return Device(f"cuda:{number}", CUDA_PROVIDER, options, "a CUDA device answered", note=note)
    stream = stream_of(number)
    options["user_compute_stream"] = str(stream.handle)
    return Device(f"cuda:{number}", CUDA_PROVIDER, options, "a CUDA device answered", stream)


@cache
def stream_of(number: int) -> backend.Stream:
    """The one queue of work on a device; sessions keep its address, so it lives as long as the process."""
    return backend.Stream(number)


def _obstacle() -> _Obstacle | None:
    """The first thing that CUDA lacks here."""
    status = backend.cuda_status()
    if not status.usable:
        return _Obstacle(status.reason, "Install or update NVIDIA's driver until `nvidia-smi` lists a device")
    if CUDA_PROVIDER not in onnxruntime.get_available_providers():
        return _absent_provider()
    missing = _missing_library()
    if missing:
        return _Obstacle(f"onnxruntime's CUDA provider does not load without {missing}", f"Run {_EVERYTHING}")
    return None


def _absent_provider() -> _Obstacle:
    installed = [name for name in ("onnxruntime", "onnxruntime-gpu") if _is_installed(name)]
    remedy = f"Run `pip uninstall {' '.join(installed) or 'onnxruntime'}`, then {_EVERYTHING}"
    if len(installed) == 2:
        return _Obstacle(
            "both onnxruntime and onnxruntime-gpu are installed, and the first hides the second's CUDA provider", remedy
        )
    if installed == ["onnxruntime"]:
        return _Obstacle("the installed onnxruntime is the package for CPUs, not onnxruntime-gpu", remedy)
    return _Obstacle("the installed onnxruntime was built without the CUDA provider", remedy)


def _is_installed(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


@cache
def _missing_library() -> str:
    """The first library that the CUDA provider would look for in vain; ``""`` where all load, or none is known.

    A session says no more than that it fell back to the CPU, and says that to the log.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        # Libraries that came with pip are not on the loader's path; it prints those that it does not find.
        onnxruntime.preload_dlls()
    if not sys.platform.startswith("linux"):
        return ""
    for name in _LIBRARIES.get(_cuda_major(), ()):
        if not _loads(name):
            return name
    return ""


def _cuda_major() -> str:
    """Major version of the CUDA that onnxruntime was built for; ``""`` where it does not say."""
    try:
        from onnxruntime.capi import build_and_package_info
    except ImportError:
        return ""
    return str(getattr(build_and_package_info, "cuda_version", "") or "").partition(".")[0]


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True

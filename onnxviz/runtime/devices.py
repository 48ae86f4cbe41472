"""A wished-for device comes in; the onnxruntime providers that will really be used, or one clear refusal, go out."""

from __future__ import annotations

import importlib.metadata
import re
from dataclasses import dataclass
from typing import Any

import onnxruntime

from onnxviz import backend
from onnxviz.errors import DeviceError

__all__ = ["Device", "choose_device"]

CPU_PROVIDER = "CPUExecutionProvider"
CUDA_PROVIDER = "CUDAExecutionProvider"


@dataclass(frozen=True)
class Device:
    """The device a session runs on, and why it was chosen."""

    name: str
    """``"cpu"`` or ``"cuda:N"``."""
    provider: str
    """The onnxruntime provider that a session must report as its first one."""
    provider_options: dict[str, Any]
    why: str


def choose_device(wish: str) -> Device:
    """Choose where sessions run.

    onnxruntime's list of available providers says what was compiled in, not what works, so the device itself is asked.

    Parameters
    ----------
    wish : str
        ``"auto"`` (a CUDA device where one is usable, else the CPU), ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.

    Raises
    ------
    DeviceError
        CUDA was asked for by name and is not usable, or the name is unknown.
    """
    if wish == "cpu":
        return Device("cpu", CPU_PROVIDER, {}, "asked for")
    match = re.fullmatch(r"cuda(?::(\d+))?", wish)
    if wish != "auto" and match is None:
        raise DeviceError("unknown device", where="device", got=repr(wish), allowed="'auto', 'cpu', 'cuda', 'cuda:N'")
    missing = _why_cuda_is_not_usable()
    if missing:
        if wish == "auto":
            return Device("cpu", CPU_PROVIDER, {}, f"no usable CUDA device: {missing}")
        raise DeviceError(
            f"CUDA is not usable: {missing}",
            where="device",
            got=repr(wish),
            allowed="'cpu' or 'auto' on this machine",
            next_step="Install a driver and `pip install 'onnxviz[cuda]'`, or pass device='cpu'",
        )
    number = int(match.group(1) or 0) if match else 0
    count = backend.cuda_status().device_count
    if number >= count:
        raise DeviceError("no such CUDA device", where="device", got=repr(wish), allowed=f"cuda:0 to cuda:{count - 1}")
    onnxruntime.preload_dlls()
    return Device(f"cuda:{number}", CUDA_PROVIDER, {"device_id": str(number)}, "a CUDA device answered")


def _why_cuda_is_not_usable() -> str:
    status = backend.cuda_status()
    if not status.usable:
        return status.reason
    if CUDA_PROVIDER not in onnxruntime.get_available_providers():
        return _why_provider_is_absent()
    return ""


def _why_provider_is_absent() -> str:
    installed = {name for name in ("onnxruntime", "onnxruntime-gpu") if _is_installed(name)}
    if installed == {"onnxruntime", "onnxruntime-gpu"}:
        return (
            "both onnxruntime and onnxruntime-gpu are installed, which hides the CUDA provider"
            " (uninstall both, then install onnxruntime-gpu alone)"
        )
    return "the installed onnxruntime was built without the CUDA provider (install onnxruntime-gpu instead)"


def _is_installed(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True

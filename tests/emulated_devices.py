"""Models whose sessions run on onnxruntime's CPU provider and whose batches and maps lie in emulated CUDA memory.

That is as near as a machine without a GPU comes to ``device="cuda"``: all our steps are taken, in the same order, through the
kernels of csrc/cuda; only onnxruntime's own are those of the CPU, which are known to be right.
"""

from __future__ import annotations

import os
from typing import Any

import pytest

import emulated_cuda
import onnxviz as ov
from onnxviz.runtime import opening
from onnxviz.runtime.devices import CPU_PROVIDER, Device, stream_of
from onnxviz.runtime.model import Model

__all__ = ["device", "emulation", "open_on"]


@pytest.fixture
def emulation() -> None:
    """Skips where there is no emulator, or one whose memory the CPU provider cannot read."""
    if not emulated_cuda.folder():
        pytest.skip("no emulated CUDA module: ONNXVIZ_EMULATED_CUDA does not name its folder")
    if os.environ.get("ONNXVIZ_CUDA_EMULATOR_PROTECT") != "0":
        pytest.skip("the emulated CUDA memory is protected: ONNXVIZ_CUDA_EMULATOR_PROTECT is not 0")


def device(number: int = 0) -> Device:
    """A device of the emulator with the CPU's provider."""
    return Device(f"cuda:{number}", CPU_PROVIDER, {}, "a test", stream_of(number))


def open_on(monkeypatch: pytest.MonkeyPatch, devices: tuple[Device, ...], path: Any, **parameters: Any) -> Model:
    """A model as ``load`` opens it where these devices are chosen."""
    with monkeypatch.context() as patch:
        patch.setattr(opening, "choose_devices", lambda _: devices)
        return ov.load(path, **parameters)

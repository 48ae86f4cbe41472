"""Where no CUDA device can be used: every entry point says so in one sentence, and the module needs no CUDA library."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxviz import _cuda, backend
from onnxviz.errors import DeviceError

BOXES = np.zeros((1, 4), np.int64)
MAP = np.zeros((1, 2, 3, 4), np.float32)

# Each is called with a stand-in for a stream, since none can be made.
ENTRY_POINTS: dict[str, Callable[[Any], Any]] = {
    "Stream": lambda _: backend.Stream(),
    "Buffer": lambda _: backend.Buffer((2, 3), "float32"),
    "Buffer.from_host": lambda stream: backend.Buffer.from_host(MAP, stream),
    "fill_occluded_on_device": lambda stream: backend.fill_occluded_on_device(
        MAP[0], MAP[0], BOXES, MAP, channels_last=False, stream=stream
    ),
    "overlay_windows_on_device": lambda stream: backend.overlay_windows_on_device(
        MAP, MAP, np.zeros((1, 8), np.int64), MAP, layout=(2, 3, 4, 4), source_size=(3, 4), window_size=(3, 4),
        stream=stream,
    ),
    "channel_maxima_on_device": lambda stream: backend.channel_maxima_on_device(MAP, stream),
    "TopValuesOnDevice": lambda stream: backend.TopValuesOnDevice(3, 1, stream),
}  # fmt: skip


class NoStream:
    """What a stream would look like."""

    device = 0
    handle = 0


def sentence(call: Callable[[Any], Any]) -> str:
    with pytest.raises(DeviceError) as caught:
        call(NoStream())
    text = str(caught.value)
    assert "\n" not in text
    assert caught.value.got
    assert caught.value.allowed
    assert caught.value.next_step
    return text


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_every_entry_point_refuses_in_one_sentence(name: str) -> None:
    status = backend.cuda_status()
    if status.kernels and status.usable:
        pytest.skip("a CUDA device is usable here")
    reason = status.kernels_reason if not status.kernels else status.reason
    assert f"; got {reason}; allowed: " in sentence(ENTRY_POINTS[name])


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_a_build_without_cuda_says_how_to_build(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_cuda, "compiled", lambda: False)
    monkeypatch.setattr(_cuda, "why_not_compiled", lambda: "built with ONNXVIZ_CUDA=OFF")
    said = sentence(ENTRY_POINTS[name])
    assert "this needs CUDA kernels, which are not in this build of onnxviz; got built with ONNXVIZ_CUDA=OFF" in said
    assert said.endswith("Put nvcc on PATH and run `ONNXVIZ_CUDA=ON pip install .` in the sources of onnxviz.")


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_a_machine_without_a_driver_says_what_to_install(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_cuda, "compiled", lambda: True)
    monkeypatch.setattr(_cuda, "status", lambda: "no CUDA driver is installed")
    said = sentence(ENTRY_POINTS[name])
    assert "this needs a CUDA device, and none can be used; got no CUDA driver is installed" in said
    assert "Install NVIDIA's driver" in said
    assert "pip install 'onnxviz[cuda]'" in said


def test_the_compiled_module_says_why_it_has_no_memory() -> None:
    if not _cuda.status():
        pytest.skip("a CUDA device is usable here")
    for call in (
        lambda: _cuda.Stream(0),
        lambda: _cuda.Memory(16, 0),
        lambda: _cuda.memory_info(0),
        lambda: _cuda.device_of(0),
        lambda: _cuda.synchronize(0, 0),
        lambda: _cuda.fill_occluded(0, 0, (1, 1, 1, 1), BOXES, None, 0, 0, 0),
        lambda: _cuda.clear_top_values(0, 0, 0, 1, 1, 0, 0),
    ):
        with pytest.raises(RuntimeError) as caught:
            call()
        if not _cuda.compiled():
            assert str(caught.value) == f"onnxviz was built without CUDA: {_cuda.why_not_compiled()}"


def needed_libraries(path: Path) -> list[str]:
    """Names of the libraries that an ELF file of 64 bits asks the loader for."""
    data = path.read_bytes()
    if data[:5] != b"\x7fELF\x02":
        return []
    order = "<" if data[5] == 1 else ">"
    table, entry_size, count = *struct.unpack_from(order + "Q", data, 32), *struct.unpack_from(order + "HH", data, 54)
    segments = [struct.unpack_from(order + "IIQQQQ", data, table + i * entry_size) for i in range(count)]
    entries: list[tuple[int, int]] = []
    for kind, _, offset, _, _, size in segments:
        if kind == 2:  # dynamic
            entries += struct.iter_unpack(order + "QQ", data[offset : offset + size])
    names = next(value for tag, value in entries if tag == 5)
    start = next(o + names - v for kind, _, o, v, _, size in segments if kind == 1 and v <= names < v + size)
    return [
        data[start + value : data.index(b"\0", start + value)].decode() for tag, value in entries if tag == 1
    ]  # fmt: skip


def test_the_module_needs_no_cuda_library() -> None:
    libraries = needed_libraries(Path(_cuda.__file__))
    assert libraries or not _cuda.__file__.endswith(".so")
    assert not [name for name in libraries if "cuda" in name or "nvidia" in name or "cublas" in name]

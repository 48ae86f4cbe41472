"""Which device is chosen, and that every refusal is one sentence which says what is missing and how to get it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest

from onnxviz import backend
from onnxviz.errors import DeviceError
from onnxviz.graph.detached import detach_weights
from onnxviz.runtime import devices
from onnxviz.runtime.devices import Device, choose_devices
from onnxviz.runtime.sessions import open_session

EMBEDDED = Path(__file__).parents[1] / "models" / "cifar10_7x7_4096.onnx"


def print_failure() -> None:
    sys.stdout.write("Failed to load some library")


class FakeStream:
    handle = 0xABC

    def __init__(self, device: int) -> None:
        self.device = device


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A machine of which everything that is looked at can be said."""

    def make(
        *,
        devices_there: int = 2,
        reason: str = "",
        kernels: bool = True,
        provider: bool = True,
        installed: tuple[str, ...] = ("onnxruntime-gpu",),
        cuda: str = "13",
        missing: str = "",
        platform: str = "linux",
    ) -> None:
        status = backend.CudaStatus(
            not reason, reason, 0 if reason else devices_there, (), kernels, "" if kernels else "no CUDA compiler"
        )
        providers = ["CUDAExecutionProvider", "CPUExecutionProvider"]
        monkeypatch.setattr(backend, "cuda_status", lambda: status)
        monkeypatch.setattr(backend, "Stream", FakeStream, raising=False)
        monkeypatch.setattr(devices.onnxruntime, "get_available_providers", lambda: providers if provider else ["CPU"])
        monkeypatch.setattr(devices.onnxruntime, "preload_dlls", print_failure)
        monkeypatch.setattr(devices, "_is_installed", lambda name: name in installed)
        monkeypatch.setattr(devices, "_cuda_major", lambda: cuda)
        monkeypatch.setattr(devices, "_loads", lambda name: name != missing)
        monkeypatch.setattr(devices.sys, "platform", platform)
        forget()

    def forget() -> None:
        devices._missing_library.cache_clear()
        devices.stream_of.cache_clear()

    yield make
    forget()


def refusal(wish: Any) -> str:
    with pytest.raises(DeviceError) as caught:
        choose_devices(wish)
    return str(caught.value)


def test_a_cuda_device_carries_what_sessions_and_kernels_share(machine: Callable[..., None]) -> None:
    machine()
    (device,) = choose_devices("cuda:1")
    assert (device.name, device.provider, device.number) == ("cuda:1", "CUDAExecutionProvider", 1)
    assert device.memory == ("cuda", 1)
    assert device.provider_options["device_id"] == "1"
    # onnxruntime takes the address in decimal.
    assert device.provider_options["user_compute_stream"] == str(0xABC)
    assert device.provider_options["use_tf32"] == "0"
    assert device.stream.device == 1
    assert device.note == ""
    # Two models on one device share its queue.
    assert choose_devices("cuda:1")[0].stream is device.stream


@pytest.mark.parametrize(
    ("wish", "names"),
    [
        ("auto", ["cuda:0"]),
        ("cuda", ["cuda:0"]),
        ("cuda:1", ["cuda:1"]),
        ("cuda:1,cuda:0", ["cuda:1", "cuda:0"]),
        ("cuda:0, cuda:1", ["cuda:0", "cuda:1"]),
        (["cuda:0", "cuda:1"], ["cuda:0", "cuda:1"]),
        (("cuda:1",), ["cuda:1"]),
        ("cpu", ["cpu"]),
        (["cpu"], ["cpu"]),
    ],
)
def test_wishes(machine: Callable[..., None], wish: Any, names: list[str]) -> None:
    machine()
    assert [device.name for device in choose_devices(wish)] == names


@pytest.mark.parametrize(
    ("wish", "what"),
    [
        ("gpu", "unknown device; got 'gpu'"),
        ("cuda:", "unknown device"),
        ("cuda:0,cpu", "unknown device"),
        ("cuda:0,auto", "unknown device"),
        ("auto,auto", "unknown device"),
        (["cuda:0", 1], "unknown device"),
        ("cuda,cuda:0", "a device is named twice"),
        ([], "no device is named"),
        ("cuda:2", "no such CUDA device; got 'cuda:2'; allowed: cuda:0 to cuda:1"),
        ("cuda:0,cuda:7", "no such CUDA device"),
    ],
)
def test_wishes_that_make_no_sense(machine: Callable[..., None], wish: Any, what: str) -> None:
    machine()
    assert what in refusal(wish)


def test_no_such_device_where_there_is_one(machine: Callable[..., None]) -> None:
    machine(devices_there=1)
    assert "allowed: cuda:0." in refusal("cuda:1")


INSTALL = "pip install 'onnxviz[cuda]'"


@pytest.mark.parametrize(
    ("lacks", "what", "remedy"),
    [
        ({"reason": "no CUDA driver is installed (libcuda.so.1 was not found)"}, "no CUDA driver is installed", "NVIDIA's driver"),
        ({"reason": "the CUDA driver lists no device"}, "lists no device", "`nvidia-smi` lists a device"),
        (
            {"provider": False, "installed": ("onnxruntime",)},
            "the package for CPUs, not onnxruntime-gpu",
            "`pip uninstall onnxruntime`, then `pip install 'onnxviz[cuda]'`",
        ),
        (
            {"provider": False, "installed": ("onnxruntime", "onnxruntime-gpu")},
            "both onnxruntime and onnxruntime-gpu are installed",
            "`pip uninstall onnxruntime onnxruntime-gpu`, then `pip install 'onnxviz[cuda]'`",
        ),
        ({"provider": False, "installed": ()}, "was built without the CUDA provider", INSTALL),
        ({"missing": "libcudnn.so.9"}, "onnxruntime's CUDA provider does not load without libcudnn.so.9", INSTALL),
        ({"missing": "libcublasLt.so.12", "cuda": "12"}, "does not load without libcublasLt.so.12", INSTALL),
    ],
)  # fmt: skip
def test_each_thing_that_may_be_missing(
    machine: Callable[..., None], capsys: pytest.CaptureFixture, lacks: dict, what: str, remedy: str
) -> None:
    machine(**lacks)
    sentence = refusal("cuda")
    assert sentence.startswith("device: CUDA is not usable: ")
    assert what in sentence
    assert remedy in sentence
    assert sentence.endswith("or pass device='cpu'.")
    assert "\n" not in sentence
    # Nobody asked for CUDA by name: the CPU serves, and it is said why.
    (device,) = choose_devices("auto")
    assert device.provider == "CPUExecutionProvider"
    assert what in device.why
    assert capsys.readouterr().out == ""


def test_libraries_are_looked_for_where_their_names_are_known(machine: Callable[..., None]) -> None:
    machine(missing="libcudnn.so.9", cuda="")
    assert choose_devices("cuda")[0].name == "cuda:0"
    machine(missing="libcudnn.so.9", platform="win32")
    assert choose_devices("cuda")[0].name == "cuda:0"


def test_onnxruntime_says_what_it_was_built_for() -> None:
    assert devices._cuda_major() in devices._LIBRARIES or "onnxruntime-gpu" not in devices_installed()


def devices_installed() -> list[str]:
    return [name for name in ("onnxruntime", "onnxruntime-gpu") if devices._is_installed(name)]


def test_a_build_without_kernels_runs_on_the_gpu_and_says_so(machine: Callable[..., None]) -> None:
    machine(kernels=False)
    (device,) = choose_devices("cuda")
    assert device.stream is None
    assert "user_compute_stream" not in device.provider_options
    assert "built without CUDA kernels (no CUDA compiler)" in device.note
    assert "ONNXVIZ_CUDA=ON pip install ." in device.note


def test_a_session_that_fell_back_is_refused() -> None:
    if backend.cuda_status().usable:
        pytest.skip("sessions do not fall back where a CUDA device is usable")
    # Whatever the checks above overlook: the provider that was got has the last word.
    device = Device("cuda:0", "CUDAExecutionProvider", {"device_id": "0"}, "a test")
    with pytest.raises(DeviceError, match=r"fell back to another provider.*got CPUExecutionProvider.*onnxviz.cuda"):
        open_session(onnx.load(EMBEDDED), where="a test", device=device, threads=1, weights={})


def test_a_device_gets_copies_of_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CUDA provider looks into the file of external weights, also where they were handed over for use in place."""
    if backend.cuda_status().usable:
        pytest.skip("tests/test_gpu.py sees it there")

    def in_place(*_: object) -> None:
        raise AssertionError("weights for another device are not used in place")

    monkeypatch.setattr(onnxruntime.SessionOptions, "add_initializer", in_place)
    proto = onnx.load(EMBEDDED)
    weights = detach_weights(proto)
    assert weights
    device = Device("cuda:0", "CUDAExecutionProvider", {"device_id": "0"}, "a test")
    with pytest.raises(DeviceError, match="fell back to another provider"):
        open_session(proto, where="a test", device=device, threads=1, weights=weights, optimize=False, lean=True)

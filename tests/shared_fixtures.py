"""Fixtures that tests and benchmarks share: real models, the independent implementations, and a disk soon full."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import emulated_cuda

ORACLES_MISSING = "needs the extra 'oracles'"


@pytest.fixture(scope="session")
def zoo() -> Path:
    """Folder of real trained models and photos: ``models/``, ``images/``, ``labels/``."""
    folder = os.environ.get("ONNXVIZ_ZOO")
    if not folder or not Path(folder).is_dir():
        pytest.skip("ONNXVIZ_ZOO does not name the folder of real models")
    return Path(folder)


@pytest.fixture(scope="session")
def torch() -> object:
    """PyTorch, an independent implementation; only the extra ``oracles`` has it."""
    return pytest.importorskip("torch", reason=ORACLES_MISSING)


@pytest.fixture(scope="session")
def captum() -> object:
    """Captum, an independent implementation; only the extra ``oracles`` has it."""
    pytest.importorskip("torch", reason=ORACLES_MISSING)
    return pytest.importorskip("captum.attr", reason=ORACLES_MISSING)


@pytest.fixture(scope="session")
def faiss() -> object:
    """faiss, an independent implementation; only the extra ``oracles`` has it."""
    return pytest.importorskip("faiss", reason=ORACLES_MISSING)


@pytest.fixture(
    params=[pytest.param("emulated", marks=pytest.mark.emulated), pytest.param("gpu", marks=pytest.mark.gpu)]
)
def cuda_device(request: pytest.FixtureRequest) -> int:
    """Number of a device to run kernels on: the emulator's, or a real one."""
    from onnxviz import backend

    if request.param == "emulated" and not emulated_cuda.folder():
        pytest.skip("no emulated CUDA module: ONNXVIZ_EMULATED_CUDA does not name its folder")
    if request.param == "gpu" and emulated_cuda.folder():
        pytest.skip("the emulated CUDA module stands where the real one would")
    status = backend.cuda_status()
    if not (status.usable and status.kernels):
        pytest.skip(f"no usable CUDA device: {status.reason or status.kernels_reason}")
    return 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path | None]:
    """A file system of 1 MB; None where this user may not mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = (
        hasattr(os, "geteuid") and os.geteuid() == 0
        and subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True, check=False
        ).returncode == 0
    )  # fmt: skip
    yield place if mounted else None
    if mounted:
        subprocess.run(["umount", str(place)], check=True)


@pytest.fixture
def limited_disk(small_disk: Path | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with room for 1 MB; where it is no file system of its own, what is synced is counted and never freed."""
    place = small_disk or tmp_path / "limited"
    if small_disk is None:
        place.mkdir()
        room = [1 << 20]
        plainly = os.fsync

        def limited(descriptor: int) -> None:
            room[0] -= os.fstat(descriptor).st_size
            if room[0] < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            plainly(descriptor)

        monkeypatch.setattr(os, "fsync", limited)
    return place

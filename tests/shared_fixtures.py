"""Fixtures that tests and benchmarks share: the folder of real models, and the independent implementations."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

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

"""Puts the module _cuda that runs on the tests' emulator in the place of the installed one, where it is asked for."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import sys
from pathlib import Path

NAME = "onnxviz._cuda"
ROOT = Path(__file__).resolve().parents[1]


def folder() -> str:
    """Where the emulated module lies; empty where none is wanted."""
    return os.environ.get("ONNXVIZ_EMULATED_CUDA", "")


def take_place() -> None:
    """Load it before onnxviz is imported; nothing happens without the environment variable."""
    if not folder():
        return
    if NAME in sys.modules:
        raise RuntimeError("onnxviz was imported before its emulated CUDA module")
    found = [path for path in Path(folder()).glob("_cuda*") if path.suffix in {".so", ".pyd"}]
    if len(found) != 1:
        raise FileNotFoundError(f"ONNXVIZ_EMULATED_CUDA={folder()} has {len(found)} modules _cuda")
    loader = importlib.machinery.ExtensionFileLoader(NAME, str(found[0]))
    spec = importlib.util.spec_from_file_location(NAME, found[0], loader=loader)
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    sys.modules[NAME] = module

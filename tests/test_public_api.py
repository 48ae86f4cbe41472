"""The public names are promises: other people's scripts call them."""

from __future__ import annotations

import subprocess
import sys

import onnxviz


def test_every_promised_name_can_be_imported() -> None:
    for name in onnxviz.__all__:
        assert getattr(onnxviz, name) is not None


def test_names_are_sorted_and_complete() -> None:
    assert onnxviz.__all__ == sorted(onnxviz.__all__)
    assert set(onnxviz.__all__) == set(onnxviz._HOME_OF)
    assert dir(onnxviz) == onnxviz.__all__


def test_import_is_quick_and_loads_no_heavy_library() -> None:
    code = "import sys, onnxviz; print({'onnxruntime', 'matplotlib', 'sklearn', 'torch'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"

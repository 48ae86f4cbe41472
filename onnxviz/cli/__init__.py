"""The ``onnxviz`` command: one file for each subcommand, and the only place of the package that prints."""

from __future__ import annotations

from onnxviz.cli.app import main

__all__ = ["main"]

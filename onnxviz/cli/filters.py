"""``onnxviz filters``: the weights of a convolution as a picture."""

from __future__ import annotations

from onnxviz.cli.options import JSON, ModelPath, Out, Quiet, Timeout, Value
from onnxviz.cli.single import run_single

__all__ = ["filters"]


def filters(
    model: ModelPath,
    value: Value = None,
    out: Out = None,
    json: JSON = None,
    timeout: Timeout = None,
    quiet: Quiet = False,
) -> None:
    """Draw the weights of a convolution; the first one that sees the image unless --value names another."""
    from onnxviz.methods.filters import filters as method

    run_single(
        "filters", lambda opened: method(opened, value), model=model, out=out, json=json, timeout=timeout, quiet=quiet
    )

"""Write what a model file does not say by itself, its input contract and its class names, into the file's metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import onnx
from onnx import helper


def describe(
    model: onnx.ModelProto,
    *,
    preprocess: Mapping[str, Any],
    labels: Sequence[str],
    title: str,
    author: str,
    licence: str,
) -> onnx.ModelProto:
    """``model`` with ``metadata_props``: ``onnxviz.preprocess`` and ``onnxviz.labels`` as JSON, title, author, licence.

    The three last use the names that ONNX itself recommends (``model_name``, ``model_author``, ``model_license``).
    The model is changed in place and returned.
    """
    helper.set_model_props(
        model,
        {
            "model_name": title,
            "model_author": author,
            "model_license": licence,
            "onnxviz.preprocess": json.dumps(dict(preprocess)),
            "onnxviz.labels": json.dumps(list(labels), ensure_ascii=False),
        },
    )
    return model

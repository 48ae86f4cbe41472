"""The name of a method that explains by derivatives comes in; the function that does it goes out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxviz.errors import InputError
from onnxviz.methods.gradcam import gradcam, gradcam_plusplus
from onnxviz.methods.gradient_x_input import gradient_x_input
from onnxviz.methods.guided_gradcam import guided_gradcam
from onnxviz.methods.integrated_gradients import integrated_gradients
from onnxviz.methods.rectified_backprop import deconvnet, guided_backprop
from onnxviz.methods.saliency import saliency
from onnxviz.methods.smoothgrad import smoothgrad
from onnxviz.runtime.model import Model

__all__ = ["EXPLANATIONS", "OF_A_MAP", "check_options", "explainer"]

EXPLANATIONS: Mapping[str, Callable[..., Any]] = {
    "saliency": saliency,
    "gradient-x-input": gradient_x_input,
    "smoothgrad": smoothgrad,
    "integrated-gradients": integrated_gradients,
    "gradcam": gradcam,
    "gradcam++": gradcam_plusplus,
    "guided-gradcam": guided_gradcam,
    "guided-backprop": guided_backprop,
    "deconvnet": deconvnet,
}
"""In the order in which a caller of several needs the fewest sessions: neighbours share theirs."""

OF_A_MAP = ("gradcam", "gradcam++", "guided-gradcam")
"""Those that look at a map inside the network."""

_OPTIONS: Mapping[str, Mapping[str, str]] = {
    "value": dict.fromkeys(OF_A_MAP, "value"),
    "steps": {"integrated-gradients": "steps", "smoothgrad": "samples"},
    "baseline": {"integrated-gradients": "baseline"},
}
"""Option to the methods that take it, and what they call it."""


def check_options(method: str, given: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Options as keywords of a method.

    Raises
    ------
    InputError
        No such method, or it does not take an option.
    """
    if method not in EXPLANATIONS:
        raise InputError("no such method", where="method", got=repr(method), allowed=", ".join(map(repr, EXPLANATIONS)))
    for name in given:
        if method not in _OPTIONS[name]:
            raise InputError(
                "the method does not take this option", where=name, got=f"method {method!r}",
                allowed=", ".join(map(repr, _OPTIONS[name])),
            )  # fmt: skip
    options = {_OPTIONS[name][method]: stated for name, stated in given.items()}
    return options | ({"seed": seed} if method == "smoothgrad" else {})


def explainer(method: str, **options: Any) -> Callable[[Model, NDArray[np.uint8], int], NDArray[Any]]:
    """A method as a function (model, image, class index) → map, for :func:`onnxviz.planted_cause` and its like."""
    explain = EXPLANATIONS[method]

    def explained(model: Model, image: NDArray[np.uint8], class_index: int) -> NDArray[Any]:
        found: NDArray[Any] = explain(model, image, class_index, **options).map
        return found

    return explained

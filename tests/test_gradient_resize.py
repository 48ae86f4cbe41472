"""Derivatives of Resize, whatever its mode, its coordinates and its rounding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from onnx import helper

from operator_cases import FORMS, Cases, check_derivatives, ints
from random_arrays import RandomArrays

node = helper.make_node
floats = RandomArrays(0).floats
CASES = Cases()
case = CASES.case

TRANSFORMATIONS = ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel", "half_pixel_symmetric")


def resize(
    name: str, x: np.ndarray, *, scales: Sequence[float] = (), sizes: Sequence[int] = (), **attributes: Any
) -> None:
    stored = {"scales": np.array(scales, np.float32)} if scales else {"sizes": ints(*sizes)}
    inputs = ["x", "", "scales"] if scales else ["x", "", "", "sizes"]
    options: dict[str, Any] = {"affine": True, "opset": 19}
    case(f"Resize-{name}", node("Resize", inputs, ["y"], **attributes), {"x": x}, constants=stored, **options)


for mode in ("linear", "cubic", "nearest"):
    for transformation in TRANSFORMATIONS:
        attributes = {"mode": mode, "coordinate_transformation_mode": transformation}
        tag = f"{mode}-{transformation}"
        resize(f"{tag}-up", floats(1, 2, 3, 4), scales=[1, 1, 2, 1.7], **attributes)
        resize(f"{tag}-down", floats(1, 1, 7, 6), scales=[1, 1, 0.6, 0.5], **attributes)
        resize(f"{tag}-sizes", floats(1, 2, 3, 4), sizes=[1, 2, 6, 5], **attributes)
        if mode != "nearest":
            resize(f"{tag}-antialias", floats(1, 1, 7, 5), scales=[1, 1, 0.4, 1.3], antialias=1, **attributes)
    resize(f"{mode}-axes", floats(1, 2, 3, 4), sizes=[7, 5], mode=mode, axes=[3, 2])
    resize(f"{mode}-2d", floats(3, 4), sizes=[5, 7], mode=mode)
for transformation in TRANSFORMATIONS:
    for rounding in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"):
        attributes = {"coordinate_transformation_mode": transformation, "nearest_mode": rounding}
        for factor in (2, 3):
            tag = f"nearest-{transformation}-{rounding}-{factor}"
            resize(tag, floats(1, 1, 2, 3), scales=[1, 1, factor, 3], **attributes)
resize(
    "exclude-outside", floats(1, 1, 4, 5), scales=[1, 1, 1.5, 0.7], mode="cubic", exclude_outside=1, cubic_coeff_a=-0.5
)
resize("channels", floats(2, 3, 2, 2), scales=[2, 2, 1, 3], mode="nearest")
resize("batch", floats(2, 3, 2), sizes=[3, 4, 2], mode="nearest")
resize("1d", floats(2, 2, 4), scales=[1, 1, 2.5], mode="linear")
resize("1d-nearest", floats(2, 2, 4), scales=[1, 1, 2], mode="nearest")
resize("vector", floats(4), scales=[2.5], mode="nearest")
resize("3d", floats(1, 1, 2, 3, 2), scales=[1, 1, 2, 1.5, 2], mode="linear")
resize("3d-nearest", floats(1, 1, 2, 3, 2), scales=[1, 1, 2, 1, 3], mode="nearest")
resize("same-length", floats(1, 1, 4, 5), scales=[1, 1, 1.2, 1.1], mode="linear")
stored = {"scales": np.array([1, 1, 2, 1.5], np.float32)}
case(
    "Resize-run",
    node("Resize", ["x", "", "scales"], ["y"], mode="linear"),
    {"x": floats(1, 2, 3, 2)} | stored,
    affine=True,
)
case("Resize-run-axes", node("Resize", ["x", "", "scales"], ["y"], mode="cubic", axes=[3, 2]), affine=True,
     feeds={"x": floats(1, 2, 3, 2), "scales": np.array([1.5, 2], np.float32)}, fixed=["scales"])  # fmt: skip
case("Resize-sizes-run", node("Resize", ["x", "", "", "sizes"], ["y"], mode="cubic"),
     {"x": floats(1, 2, 3, 2), "sizes": ints(1, 2, 5, 3)}, affine=True, fixed=["sizes"])  # fmt: skip
for policy in ("not_larger", "not_smaller"):
    kept = node("Resize", ["x", "", "", "sizes"], ["y"], mode="linear", axes=[2, 3], keep_aspect_ratio_policy=policy)
    case(f"Resize-{policy}", kept, {"x": floats(1, 1, 7, 10)}, constants={"sizes": ints(12, 13)}, affine=True,
         refused="sizes that keep the ratio")  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", CASES)
def test_derivatives(name: str, form: str) -> None:
    check_derivatives(CASES[name], form)

"""Operator to the rule of its true derivative; what is not listed, and not without a derivative, is refused by name."""

from __future__ import annotations

from collections.abc import Mapping

from onnxviz.graph.gradient.rules import (
    arithmetic,
    convolution,
    elementwise,
    indexing,
    linear,
    normalization,
    pooling,
    quantization,
    recurrent,
    reductions,
    resize,
    shaping,
)
from onnxviz.graph.gradient.rules.rule import Adjoints, Rule

__all__ = ["CARRIES_INTEGERS", "NO_DERIVATIVE", "RULES", "Adjoints", "Rule"]

_FAMILIES = (
    arithmetic, convolution, elementwise, indexing, linear, normalization, pooling, quantization, recurrent, reductions,
    resize, shaping,
)  # fmt: skip

RULES: Mapping[tuple[str, str], Rule] = {
    ("", op_type): rule for family in _FAMILIES for op_type, rule in family.RULES.items()
}
"""By (domain, operator)."""

_STEPS = (
    "And", "ArgMax", "ArgMin", "Bernoulli", "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "Ceil",
    "Constant", "ConstantOfShape", "Equal", "EyeLike", "Floor", "Greater", "GreaterOrEqual", "Hardmax", "IsInf",
    "IsNaN", "Less", "LessOrEqual", "Multinomial", "NonMaxSuppression", "NonZero", "Not", "OneHot", "Or",
    "RandomNormalLike", "RandomUniformLike", "Range", "Round", "Shape", "Sign", "Size", "Unique", "Xor",
)  # fmt: skip
NO_DERIVATIVE = frozenset(("", op_type) for op_type in _STEPS)
"""Operators whose outputs do not move when their inputs move a little."""

CARRIES_INTEGERS = frozenset(
    {
        "Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity", "MaxPool",
        "Pad", "QuantizeLinear", "Reshape", "Resize", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "TopK",
        "Transpose", "Unsqueeze", "Where",
    }
)  # fmt: skip
"""Operators that hand integers on as they are, so that what a quantised value stands for passes through them."""

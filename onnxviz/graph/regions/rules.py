"""Operator type to the rule that tells how its outputs reach into its inputs; what is not listed reaches everywhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from onnxviz.graph.regions import layout_rules as layout
from onnxviz.graph.regions import mixing_rules as mixing
from onnxviz.graph.regions import window_rules as windows
from onnxviz.graph.regions.box_maps import BoxMap
from onnxviz.graph.regions.node import Operator
from onnxviz.graph.regions.resize_rules import resize

__all__ = ["READS_ONLY_SHAPE", "RULES", "Rule"]

Rule = Callable[[Operator, int, int], BoxMap | None]
"""(operator, input number, output number) → map, or None where no rule covers the case."""

READS_ONLY_SHAPE = frozenset({"Shape", "Size"})
"""What these compute does not depend on any element of their input."""

_ELEMENT_BY_ELEMENT = (
    "Abs", "Acos", "Acosh", "Add", "And", "Asin", "Asinh", "Atan", "Atanh", "BiasGelu", "BitShift", "BitwiseAnd",
    "BitwiseNot", "BitwiseOr", "BitwiseXor", "Cast", "Ceil", "Celu", "Clip", "Cos", "Cosh", "Div", "Elu", "Equal",
    "Erf", "Exp", "Expand", "FastGelu", "Floor", "Gelu", "Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish",
    "Identity", "IsInf", "IsNaN", "LeakyRelu", "Less", "LessOrEqual", "Log", "Max", "Mean", "Min", "Mish", "Mod",
    "Mul", "Neg", "Not", "Or", "PRelu", "Pow", "QuickGelu", "Reciprocal", "Relu", "Round", "Selu", "Shrink",
    "Sigmoid", "Sign", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt", "Sub", "Sum", "Swish", "Tan", "Tanh",
    "ThresholdedRelu", "Where", "Xor",
)  # fmt: skip
_FIRST_INPUT = (
    "CastLike", "DequantizeLinear", "Dropout", "QLinearLeakyRelu", "QLinearSigmoid", "QuantizeLinear",
)  # fmt: skip
_REDUCTIONS = (
    "ArgMax", "ArgMin", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean",
    "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare",
)  # fmt: skip

RULES: Mapping[str, Rule] = {
    **dict.fromkeys(_ELEMENT_BY_ELEMENT, mixing.broadcast),
    **dict.fromkeys(_FIRST_INPUT, mixing.first_input),
    **dict.fromkeys(_REDUCTIONS, mixing.reduction),
    **dict.fromkeys(("QLinearAdd", "QLinearMul"), mixing.pairs_of_three),
    **dict.fromkeys(("Conv", "ConvInteger", "FusedConv"), windows.convolution),
    "QLinearConv": partial(windows.convolution, weights=3),
    "ConvTranspose": windows.transposed_convolution,
    **dict.fromkeys(("MaxPool", "AveragePool", "LpPool", "QLinearAveragePool"), windows.pool),
    "LRN": windows.local_response_normalization,
    **dict.fromkeys(
        ("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool", "QLinearGlobalAveragePool"), mixing.global_pool
    ),
    "BatchNormalization": mixing.batch_normalization,
    "InstanceNormalization": mixing.instance_normalization,
    "GroupNormalization": mixing.group_normalization,
    **dict.fromkeys(("LayerNormalization", "RMSNormalization"), mixing.layer_normalization),
    "LpNormalization": mixing.whole_axis,
    "TopK": mixing.whole_axis,
    **dict.fromkeys(("Softmax", "LogSoftmax", "Hardmax"), mixing.softmax),
    "CumSum": mixing.cumulative_sum,
    **dict.fromkeys(("Gemm", "QGemm"), mixing.gemm),
    **dict.fromkeys(("MatMul", "MatMulInteger", "FusedMatMul"), mixing.matrix_product),
    "QLinearMatMul": partial(mixing.matrix_product, second=3),
    "Einsum": mixing.einsum,
    **dict.fromkeys(("Attention", "MultiHeadAttention"), mixing.attention),
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), layout.reshape),
    "Transpose": layout.transpose,
    "Concat": layout.concat,
    "QLinearConcat": partial(layout.concat, first=2, every=3),
    "Split": layout.split,
    "Slice": layout.cut,
    "Pad": layout.pad,
    "Gather": layout.gather,
    "Tile": layout.tile,
    "DepthToSpace": layout.depth_to_space,
    "SpaceToDepth": layout.space_to_depth,
    "Resize": resize,
    "Upsample": resize,
    **dict.fromkeys(("ReorderInput", "ReorderOutput"), layout.reorder),
}
"""By operator type; the standard's operators and onnxruntime's own (``com.microsoft``, ``com.microsoft.nchwc``)."""

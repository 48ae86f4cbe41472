"""Every change of an operator between two sets has been looked at; what has no rewrite is refused in words."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, defs, helper

from onnxviz.errors import UnsupportedOperatorError
from onnxviz.graph.gradient.upgrade import incompatibility, upgrade
from onnxviz.graph.gradient.upgrade_steps import STEPS
from random_arrays import RandomArrays
from rewritten_graphs import CHANNELS, IMAGE, NORMALIZED, described, graph_of

node = helper.make_node
random = RandomArrays(8)
floats, ints = random.floats, random.integers


# -- every change between two sets has been looked at -----------------------------------------------------------------

# Read one by one in onnx's own descriptions of both versions, and where these say too little, by what onnxruntime does.
# Only types were added, words changed, negative axes allowed, or an operand's broadcast widened:
WORDS_AND_TYPES = """
    Abs-13 Acos-22 Acosh-22 Add-13 Add-14 ArgMax-11 ArgMax-13 ArgMin-11 ArgMin-13 Asin-22 Asinh-22 Atan-22 Atanh-22
    AveragePool-11 BatchNormalization-15 Bernoulli-22 Cast-9 Cast-13 Cast-23 Cast-25 Cast-28 CastLike-23 CastLike-25
    Ceil-13 Celu-28 Clip-12 Clip-13 Compress-11 Compress-28 Concat-11 Concat-13 Constant-9 Constant-13 Constant-23
    Constant-24 Constant-25 ConstantOfShape-23 ConstantOfShape-24 ConstantOfShape-25 Conv-11 Conv-22 ConvTranspose-22
    Cos-22 Cosh-22 CumSum-14 DeformConv-22 DepthToSpace-13 DepthToSpace-28 DequantizeLinear-24 DequantizeLinear-25
    DequantizeLinear-28 Det-22 Div-13 Div-14 Dropout-13 Dropout-22 Einsum-28 Elu-22 Equal-11 Equal-13 Erf-13 Exp-13
    Expand-13 EyeLike-22 Flatten-9 Flatten-11 Flatten-13 Flatten-23 Flatten-24 Flatten-25 Floor-13 GRU-22 Gather-11
    Gather-13 GatherElements-13 GatherND-13 Gemm-9 Gemm-13 GlobalAveragePool-22 GlobalLpPool-22 GlobalMaxPool-22
    Greater-9 Greater-13 GreaterOrEqual-16 GridSample-22 HardSigmoid-22 HardSwish-22 Hardmax-11 Identity-13 Identity-14
    Identity-16 Identity-23 Identity-24 Identity-25 If-11 If-13 If-16 If-23 If-24 If-25 InstanceNormalization-22
    IsNaN-13 LRN-13 LSTM-22 LeakyRelu-16 Less-9 Less-13 LessOrEqual-16 Log-13 LogSoftmax-11 Loop-11 Loop-13 Loop-16
    Loop-23 Loop-24 Loop-25 LpNormalization-22 LpPool-11 LpPool-22 MatMul-9 MatMul-13 Max-8 Max-12 Max-13 MaxPool-11
    MaxPool-12 MaxRoiPool-22 MaxUnpool-11 MaxUnpool-22 Mean-8 Mean-13 MeanVarianceNormalization-13 Min-8 Min-12 Min-13
    Mish-22 Mod-13 Mul-13 Mul-14 Multinomial-22 Neg-13 NegativeLogLikelihoodLoss-13 NegativeLogLikelihoodLoss-22
    NonMaxSuppression-11 NonZero-13 OneHot-28 Optional-28 OptionalGetElement-18 OptionalGetElement-28
    OptionalHasElement-28 PRelu-9 PRelu-16 Pad-13 Pad-23 Pad-24 Pad-25 Pow-12 Pow-13 Pow-15 QuantizeLinear-24
    QuantizeLinear-25 QuantizeLinear-28 RNN-22 RandomNormal-22 RandomNormalLike-22 RandomUniform-22
    RandomUniformLike-22 Reciprocal-13 ReduceL1-11 ReduceL1-13 ReduceL2-11 ReduceL2-13 ReduceLogSum-11 ReduceLogSum-13
    ReduceLogSum-28 ReduceLogSumExp-11 ReduceLogSumExp-13 ReduceLogSumExp-28 ReduceMax-11 ReduceMax-12 ReduceMax-13
    ReduceMean-11 ReduceMean-13 ReduceMin-11 ReduceMin-12 ReduceMin-13 ReduceProd-11 ReduceProd-13 ReduceSum-11
    ReduceSumSquare-11 ReduceSumSquare-13 Relu-13 Relu-14 Reshape-13 Reshape-23 Reshape-24 Reshape-25
    ReverseSequence-28 RoiAlign-22 Round-22 Scan-11 Scan-16 Scan-23 Scan-24 Scan-25 ScatterElements-13
    ScatterElements-18 ScatterND-13 ScatterND-18 Selu-22 Shape-13 Shape-23 Shape-24 Shape-25 Sigmoid-13 Sign-13 Sin-22
    Sinh-22 Size-13 Size-23 Size-24 Size-25 Slice-11 Slice-13 Softmax-11 SoftmaxCrossEntropyLoss-13 Softplus-22
    Softsign-22 SpaceToDepth-13 Split-11 SplitToSequence-24 Sqrt-13 Squeeze-11 Squeeze-23 Squeeze-24 Squeeze-25 Sub-13
    Sub-14 Sum-8 Sum-13 Tan-22 Tanh-13 ThresholdedRelu-22 Tile-13 TopK-24 Transpose-13 Transpose-23 Transpose-24
    Transpose-25 Unique-28 Unsqueeze-11 Unsqueeze-23 Unsqueeze-24 Unsqueeze-25 Where-16
"""
# An attribute or operand was added, or may be left out now; left out, it means what was meant before:
ADDED = """
    ArgMax-12 ArgMin-12 AveragePool-10 Cast-24 CastLike-24 Constant-11 Constant-12 DepthToSpace-11 DequantizeLinear-13
    DequantizeLinear-23 Dropout-10 GRU-14 GatherND-12 Gemm-11 LSTM-14 LpPool-18 MaxPool-8 MaxPool-10
    OptionalHasElement-18 Pad-18 QuantizeLinear-13 QuantizeLinear-23 RNN-14 Range-27 Reshape-14 Resize-13
    ScatterElements-16 ScatterND-16 Shape-15 SpaceToDepth-28 TopK-11
"""
# The description changed its meaning, yet not what onnxruntime computes of a file that both versions accept:
RUNTIME_AGREES = {
    "AveragePool-22": "windows that begin in the padding at the end are left out, as they were",
    "BitShift-28": "shifts of signed numbers, which set 11 does not have",
    "ConvTranspose-11": "the odd pad of SAME_UPPER changed sides in the text only",
    "MaxPool-22": "windows that begin in the padding at the end are left out, as they were",
    "Mod-28": "remainders of real numbers towards minus infinity, which set 13 refuses",
    "OneHot-11": "negative indices count from the end, as they did",
}
# Written out by their bodies, whichever version:
WRITTEN_OUT = {"Attention-24", "Attention-25"}


def test_every_change_of_an_operator_has_been_looked_at() -> None:
    changes = set()
    for schema in defs.get_all_schemas_with_history():
        if schema.domain == "" and (7 < schema.since_version <= 18 or schema.since_version >= 22):
            earlier = schema.since_version - 1
            if defs.has(schema.name, earlier, ""):
                changes.add((schema.name, schema.since_version))
    plain = {*WORDS_AND_TYPES.split(), *ADDED.split(), *RUNTIME_AGREES, *WRITTEN_OUT}
    labels = {f"{name}-{version}" for name, version in changes if (name, version) not in STEPS}
    assert labels - plain == set(), "new changes: read them, then list them or write a rewrite"
    if defs.onnx_opset_version() == 28:
        assert plain - labels == set()
    for name, version in changes:
        if f"{name}-{version}" in plain and version <= 18:
            assert incompatibility(name, version) == "", (name, version)
    for label in WORDS_AND_TYPES.split():
        name, version = label.rsplit("-", 1)
        if int(version) <= defs.onnx_opset_version():
            now, before = defs.get_schema(name, int(version), ""), defs.get_schema(name, int(version) - 1, "")
            assert set(now.attributes) == set(before.attributes), label
            assert (now.max_input, now.max_output) == (before.max_input, before.max_output), label


# -- refusals ---------------------------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[Callable[[], onnx.ModelProto], tuple[str, ...]]] = {
    "an operator without a body": (
        lambda: graph_of([node("CumProd", ["x", "a"], ["y"], name="here")], inputs={"x": IMAGE}, outputs=["y"],
            opset=26, weights={"a": np.array(0)}),
        ("'here'", "CumProd", "'ai.onnx'", "26"),
    ),
    "an attribute that set 21 lacks": (
        lambda: graph_of(
            [node("DequantizeLinear", ["x", "s"], ["y"], output_dtype=TensorProto.FLOAT16)],
            inputs={"x": ints(0, 9, 4)}, outputs=["y"], opset=23, weights={"s": np.float32(1)},
        ),
        ("'DequantizeLinear #0'", "DequantizeLinear", "'ai.onnx'", "23", "'output_dtype'"),
    ),
    "training": (
        lambda: graph_of([node("BatchNormalization", NORMALIZED, ["y", "m", "v", "sm", "sv"], name="bn")],
            inputs={"x": IMAGE}, outputs=["y"], opset=9, weights=CHANNELS),
        ("'bn'", "BatchNormalization", "'ai.onnx'", "version 9", "training"),
    ),
    "training before set 7": (
        lambda: graph_of([node("BatchNormalization", NORMALIZED, ["y"], name="bn")], inputs={"x": IMAGE},
            outputs=["y"], opset=6, weights=CHANNELS),
        ("'bn'", "BatchNormalization", "version 6", "training"),
    ),
    "ranks unknown": (
        lambda: graph_of([node("Add", ["x", "w"], ["y"], broadcast=1, axis=1)], inputs={"x": IMAGE}, outputs=["y"],
            opset=6, weights={"w": floats(3)}, ranks=False),
        ("'Add #0'", "Add", "version 6", "ranks"),
    ),
    "sequences of different lengths": (
        lambda: graph_of([node("Scan", ["n", "x"], ["y"], num_scan_inputs=1,
            body=helper.make_graph([node("Neg", ["a"], ["b"])], "g", [described("a", floats(3))],
                [described("b", floats(3))]))], inputs={"n": np.array([1]), "x": floats(1, 4, 3)}, outputs=["y"],
                opset=8),
        ("'Scan #0'", "Scan", "version 8", "lengths"),
    ),
    "a changed schema without a rewrite": (
        lambda: graph_of([node("Tile", ["x", "n", "a"], ["y"])], inputs={"x": IMAGE}, outputs=["y"], opset=5,
            weights={"n": np.float32(2), "a": np.float32(1)}),
        ("'Tile #0'", "Tile", "version 1", "number of inputs"),
    ),
    "an operator before its time": (
        lambda: graph_of([node("Mish", ["x"], ["y"])], inputs={"x": IMAGE}, outputs=["y"], opset=13),
        ("'Mish #0'", "Mish", "does not have it"),
    ),
    "newer than the onnx package": (
        lambda: graph_of([node("Relu", ["x"], ["y"])], inputs={"x": IMAGE}, outputs=["y"], opset=99),
        ("ai.onnx", "99", "newer"),
    ),
    "a type that set 21 lacks": (
        lambda: graph_of([node("Cast", ["x"], ["y"], to=TensorProto.FLOAT4E2M1)], inputs={"x": IMAGE}, outputs=["y"],
            opset=23),
        ("'Cast #0'", "Cast", "version 23", "type"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name: str) -> None:
    model, parts = REFUSED[name]
    with pytest.raises(UnsupportedOperatorError) as refused:
        upgrade(model(), where="net.onnx")
    message = str(refused.value)
    for part in ("net.onnx", *parts, "operator set 18 to 21"):
        assert part in message

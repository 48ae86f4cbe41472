"""Fused and quantised operators, and branches whose condition is known, written in standard operators compute the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, defs, helper, numpy_helper

from onnxviz.errors import UnsupportedOperatorError
from onnxviz.graph.gradient.decompose import decompose
from onnxviz.graph.wiring import default_opset, subgraphs
from random_arrays import RandomArrays
from rewritten_graphs import IMAGE, KERNEL, Case, all_nodes, checked, graph_of, made_by, run, same_values

node = helper.make_node
random = RandomArrays(8)
floats, ints = random.floats, random.integers


# -- fused and quantised operators ------------------------------------------------------------------------------------

MICROSOFT = "com.microsoft"


def contributed(op_type: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> onnx.NodeProto:
    return node(op_type, inputs, outputs, domain=MICROSOFT, **attributes)


TOKENS = floats(2, 5, 8)
FUSED: dict[str, Case] = {
    "gelu": Case([contributed("Gelu", ["x"], ["y"])], {"x": TOKENS}, (18, 21)),
    "gelu of a sum": Case([contributed("BiasGelu", ["x", "b"], ["y"])], {"x": TOKENS}, (18, 21),
        weights={"b": floats(8)}),
    "fast gelu": Case([contributed("FastGelu", ["x"], ["y"])], {"x": TOKENS}, (18, 21)),
    "fast gelu of a sum": Case([contributed("FastGelu", ["x", "b"], ["y"])], {"x": TOKENS}, (18,),
        weights={"b": floats(8)}),
    "quick gelu": Case([contributed("QuickGelu", ["x"], ["y"], alpha=1.3)], {"x": TOKENS}, (18, 21)),
    "quick gelu as it comes": Case([contributed("QuickGelu", ["x"], ["y"])], {"x": TOKENS}, (18,)),
    "skip": Case(
        [contributed("SkipLayerNormalization", ["x", "s", "g", "b", "c"], ["y", "", "", "sum"], epsilon=0.01)],
        {"x": TOKENS, "s": floats(2, 5, 8)}, (18, 21), ("y", "sum"), {"g": floats(8), "b": floats(8), "c": floats(8)},
    ),
    "skip without biases": Case(
        [contributed("SkipLayerNormalization", ["x", "s", "g"], ["y"])], {"x": TOKENS, "s": floats(2, 5, 8)}, (18,),
        weights={"g": floats(8)},
    ),
    "simplified skip": Case(
        [contributed("SkipSimplifiedLayerNormalization", ["x", "s", "g", "c"], ["y", "", "", "sum"], epsilon=0.01)],
        {"x": TOKENS, "s": floats(2, 5, 8)}, (18, 21), ("y", "sum"), {"g": floats(8), "c": floats(8)},
    ),
    "simplified": Case(
        [node("SimplifiedLayerNormalization", ["x", "g"], ["y"], axis=-1, epsilon=0.01)], {"x": TOKENS}, (18, 21),
        weights={"g": floats(8)},
    ),
    "gemm": Case(
        [contributed("FusedGemm", ["x", "w", "b"], ["y"], transB=1, alpha=0.5, activation="Relu")],
        {"x": floats(3, 4)}, (18,),
        weights={"w": floats(5, 4), "b": floats(5)},
    ),
    "gemm and leaky": Case(
        [contributed("FusedGemm", ["x", "w", "b"], ["y"], activation="LeakyRelu", activation_alpha=0.3)],
        {"x": floats(3, 4)}, (18,), weights={"w": floats(4, 5), "b": floats(5)},
    ),
}  # fmt: skip
for activation, numbers in (
    ("", []), ("Relu", []), ("Sigmoid", []), ("Tanh", []), ("LeakyRelu", [0.3]), ("Clip", [-0.4, 0.6]),
    ("HardSigmoid", [0.3, 0.4]),
):  # fmt: skip
    stated = {"activation": activation, "activation_params": numbers} if activation else {}
    if not numbers:
        stated.pop("activation_params", None)
    for added in ((), ("z",)):
        CONVOLVED = {"x": IMAGE, **({"z": floats(2, 4, 6, 7)} if added else {})}
        FUSED[f"convolution {activation} {added}"] = Case(
            [contributed("FusedConv", ["x", "w", "b", *added], ["y"], pads=[1, 1, 1, 1], **stated)], CONVOLVED,
            (18, 21),
            weights={"w": KERNEL, "b": floats(4)},
        )  # fmt: skip
for first, second, flags in (
    ((2, 3, 4), (2, 4, 5), {}), ((2, 4, 3), (2, 4, 5), {"transA": 1}),
    ((2, 3, 4), (5, 4), {"transB": 1, "alpha": 0.25}),
    ((4, 3), (5, 4), {"transA": 1, "transB": 1}), ((2, 1, 4, 3), (2, 6, 4, 5), {"transA": 1}),
):  # fmt: skip
    FUSED[f"product {first} {second} {flags}"] = Case(
        [contributed("FusedMatMul", ["x", "w"], ["y"], **flags)], {"x": floats(*first), "w": floats(*second)}, (18, 21)
    )


@pytest.mark.parametrize("ranks", [True, False], ids=["ranks known", "ranks unknown"])
@pytest.mark.parametrize("name", FUSED)
def test_fused_operators(name: str, ranks: bool) -> None:
    case = FUSED[name]
    for opset in case.opsets:
        before = graph_of(
            case.nodes, inputs=case.inputs, outputs=case.outputs, opset=opset, weights=case.weights, ranks=ranks,
            domains=[MICROSOFT],
        )  # fmt: skip
        after = decompose(before, where="a file")
        assert default_opset(after) == opset
        assert all(each.domain == "" and defs.has(each.op_type, opset, "") for each in after.graph.node)
        same_values(before, after, case.inputs, 2e-6)
        if ranks:
            checked(after)
            assert "CastLike" not in {each.op_type for each in after.graph.node}


STEP, ZERO = np.float32(0.03), np.uint8(120)
Q_IMAGE, Q_OTHER = ints(0, 256, 2, 3, 6, 7), ints(0, 256, 2, 3, 6, 7)
PER_CHANNEL = np.float32([0.01, 0.02, 0.03, 0.015])
ENDS = {"xs": np.float32(0.02), "xz": np.uint8(128), "ys": np.float32(0.05), "yz": np.uint8(100)}
QUANTISED: dict[str, Case] = {
    "convolution": Case(
        [node("QLinearConv", ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz", "b"], ["y"], pads=[1, 1, 1, 1])],
        {"x": Q_IMAGE},
        (18, 21),
        weights={**ENDS, "w": ints(-100, 100, 4, 3, 3, 3, kind=np.int8), "ws": PER_CHANNEL, "wz": np.zeros(4, np.int8),
                 "b": ints(-2000, 2000, 4, kind=np.int32)},
    ),
    "convolution with one scale": Case(
        [node("QLinearConv", ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz", "b"], ["y"], strides=[2, 2])],
        {"x": Q_IMAGE}, (18,),
        weights={**ENDS, "w": ints(0, 200, 4, 3, 3, 3), "ws": np.float32(0.01), "wz": np.uint8(99),
                 "b": ints(-2000, 2000, 4, kind=np.int32)},
    ),
    "product": Case(
        [node("QLinearMatMul", ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz"], ["y"])], {"x": ints(0, 256, 2, 3, 8)},
        (18, 21),
        weights={**ENDS, "w": ints(0, 256, 8, 5), "ws": np.float32(0.01), "wz": np.uint8(130)},
    ),
    "product by columns": Case(
        [node("QLinearMatMul", ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz"], ["y"])], {"x": ints(0, 256, 3, 8)},
        (18,),
        weights={**ENDS, "w": ints(-99, 99, 8, 4, kind=np.int8), "ws": PER_CHANNEL, "wz": np.zeros(4, np.int8)},
    ),
    "gemm": Case(
        [contributed("QGemm", ["x", "xs", "xz", "w", "ws", "wz", "b", "ys", "yz"], ["y"], transB=1)],
        {"x": ints(0, 256, 3, 8)},
        (18,),
        weights={**ENDS, "w": ints(-99, 99, 4, 8, kind=np.int8), "ws": PER_CHANNEL, "wz": np.zeros(4, np.int8),
                 "b": ints(-2000, 2000, 4, kind=np.int32)},
    ),
    "gemm to real numbers": Case(
        [contributed("QGemm", ["x", "xs", "xz", "w", "ws", "wz", "b"], ["y"], alpha=0.5)], {"x": ints(0, 256, 3, 8)},
        (18,),
        weights={**ENDS, "w": ints(0, 256, 8, 4), "ws": np.float32(0.01), "wz": np.uint8(130),
                 "b": ints(-2000, 2000, 4, kind=np.int32)},
    ),
    "concatenation": Case(
        [contributed("QLinearConcat", ["ys", "yz", "x", "xs", "xz", "z", "zs", "zz"], ["y"], axis=1)],
        {"x": Q_IMAGE, "z": Q_OTHER}, (18, 21), weights={**ENDS, "zs": STEP, "zz": ZERO},
    ),
    "leaky": Case(
        [contributed("QLinearLeakyRelu", ["x", "xs", "xz", "ys", "yz"], ["y"], alpha=0.2)], {"x": Q_IMAGE}, (18,),
        weights=ENDS
    ),
    "sigmoid": Case(
        [contributed("QLinearSigmoid", ["x", "xs", "xz", "s", "yz"], ["y"])], {"x": Q_IMAGE}, (18,),
        weights={**ENDS, "s": np.float32(1 / 256), "yz": np.uint8(0)},
    ),
    "mean": Case(
        [contributed("QLinearGlobalAveragePool", ["x", "xs", "xz", "s", "yz"], ["y"])], {"x": Q_IMAGE}, (18,),
        weights={**ENDS, "s": np.float32(0.01)},
    ),
    "means": Case(
        [contributed("QLinearAveragePool", ["x", "xs", "xz", "ys", "yz"], ["y"], kernel_shape=[3, 3], strides=[2, 2],
                     pads=[1, 1, 1, 1])],
        {"x": Q_IMAGE}, (18,), weights=ENDS,
    ),
}  # fmt: skip
for kind in ("Add", "Mul"):
    QUANTISED[f"QLinear{kind}"] = Case(
        [contributed(f"QLinear{kind}", ["x", "xs", "xz", "z", "zs", "zz", "ys", "yz"], ["y"])],
        {"x": Q_IMAGE, "z": Q_OTHER}, (18, 21), weights={**ENDS, "zs": STEP, "zz": ZERO},
    )  # fmt: skip


@pytest.mark.parametrize("name", QUANTISED)
def test_quantised_operators(name: str) -> None:
    case = QUANTISED[name]
    for opset in case.opsets:
        before = graph_of(
            case.nodes, inputs=case.inputs, outputs=["y"], opset=opset, weights=case.weights, domains=[MICROSOFT]
        )
        after = decompose(before, where="a file")
        assert all(
            each.domain == "" and (each.op_type == "QuantizeLinear" or not each.op_type.startswith("Q"))
            for each in after.graph.node
        )
        expected, got = run(before, case.inputs)["y"], run(after, case.inputs)["y"]
        assert (got.dtype, got.shape) == (expected.dtype, expected.shape)
        if expected.dtype.kind == "f":
            np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
            continue
        assert len(np.unique(expected)) > 4
        off = np.abs(got.astype(int) - expected.astype(int))
        assert off.max() <= 1
        assert (off > 0).mean() < 0.05
        checked(after)


def test_missing_zero_points_are_zeros_of_the_operands_type() -> None:
    """onnxruntime itself ends the process on some such files: computed by hand."""
    x, z = (ints(-99, 99, 20, 30, kind=np.int8) for _ in range(2))
    sum_of_both = contributed("QLinearAdd", ["x", "xs", "", "z", "zs", "", "ys"], ["y"])
    scales = {"xs": np.float32(0.02), "zs": np.float32(0.03), "ys": np.float32(0.05)}
    model = graph_of(
        [sum_of_both], inputs={"x": x, "z": z}, outputs=["y"], opset=18, weights=scales, domains=[MICROSOFT]
    )
    got = run(decompose(model, where="a file"), {"x": x, "z": z})["y"]
    expected = np.rint((x * scales["xs"] + z * scales["zs"]) / scales["ys"])
    assert got.dtype == np.int8
    assert np.abs(got - expected).max() <= 1
    assert (got != expected).mean() < 0.05


def test_unknown_operators_stay() -> None:
    before = graph_of(
        [contributed("QLinearSoftmax", ["x", "s", "z", "s", "z"], ["y"], axis=1, opset=13)],
        inputs={"x": Q_IMAGE}, outputs=["y"], opset=18, weights={"s": STEP, "z": ZERO}, domains=[MICROSOFT],
    )  # fmt: skip
    assert list(decompose(before, where="a file").graph.node) == list(before.graph.node)


CANNOT: dict[str, tuple[onnx.NodeProto, str]] = {
    "batch": (contributed("FusedMatMul", ["x", "x"], ["y"], transBatchA=1, name="here"), "transBatch"),
    "activation": (contributed("FusedConv", ["x", "w"], ["y"], activation="Mystery", name="here"), "'Mystery'"),
    "channels": (
        contributed("QLinearGlobalAveragePool", ["x", "s", "z", "s", "z"], ["y"], channels_last=1, name="here"),
        "last",
    ),
}


@pytest.mark.parametrize("name", CANNOT)
def test_what_cannot_be_decomposed(name: str) -> None:
    one, reason = CANNOT[name]
    model = graph_of(
        [one],
        inputs={"x": IMAGE},
        outputs=["y"],
        opset=18,
        weights={"w": KERNEL, "s": STEP, "z": ZERO},
        domains=[MICROSOFT],
    )
    with pytest.raises(UnsupportedOperatorError) as refused:
        decompose(model, where="net.onnx")
    for part in ("net.onnx", "'here'", one.op_type, "'com.microsoft'", "version 1", reason):
        assert part in str(refused.value)


# -- branches ---------------------------------------------------------------------------------------------------------


def branch_of(nodes: Sequence[onnx.NodeProto], outputs: Sequence[str], **weights: np.ndarray) -> onnx.GraphProto:
    return helper.make_graph(
        list(nodes), "branch", [], [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )  # fmt: skip


@pytest.mark.parametrize("condition", [True, False])
def test_a_known_branch_takes_the_place_of_its_if(condition: bool) -> None:
    """Weights, captured values, a weight handed on as it is, and a nested If of the same condition."""
    inner = node(
        "If", ["known"], ["in"],
        then_branch=branch_of([node("Mul", ["x", "t"], ["deep"], name="n")], ["deep"]),
        else_branch=branch_of([node("Sub", ["x", "outer"], ["deep"], name="n")], ["deep"]),
    )  # fmt: skip
    then = branch_of(
        [
            node("Add", ["x", "w"], ["t"], name="n"),
            inner,
            node("Relu", ["in"], ["a"]),
            node("Abs", ["outer"], ["other"]),
        ],
        ["a", "t", "other", "w"],
        w=floats(7),
    )
    otherwise = branch_of(
        [node("Add", ["outer", "w"], ["t"], name="n"), node("Neg", ["t"], ["b"]), node("Abs", ["x"], ["other"])],
        ["t", "b", "other", "w"],
        w=floats(1),
    )
    results = ["y", "z", "p", "q"]
    nodes = [
        node("Exp", ["x"], ["outer"], name="n"),
        node("Cast", ["flag"], ["known"], to=TensorProto.BOOL),
        node("If", ["known"], results, then_branch=then, else_branch=otherwise),
        # The same names within, once more.
        node("If", ["known"], ["again", "again_z", "again_p", "last"], then_branch=then, else_branch=otherwise),
        node("Add", ["y", "again"], ["all"]),
    ]
    for each in nodes[2:4]:
        for body in subgraphs(each):
            for inside in all_nodes(body):
                inside.name = ""
    inputs = {"x": IMAGE}
    before = graph_of(
        nodes, inputs=inputs, outputs=["all", *results, "last"], opset=18, weights={"flag": np.array(int(condition))}
    )
    after = decompose(before, where="a file")
    assert "If" not in {each.op_type for each in after.graph.node}
    same_values(before, after, inputs)
    names = [*made_by(after), *(tensor.name for tensor in after.graph.initializer)]
    assert len(set(names)) == len(names)
    assert "w" in names  # the first to come keeps its name
    checked(after)


def test_values_that_a_branch_hands_on() -> None:
    """One from outside, which onnxruntime refuses, and one twice, of which onnxruntime loses one: computed by hand."""
    nodes = [
        node("Neg", ["x"], ["outer"]),
        node(
            "If", ["known"], ["y", "z", "p"], else_branch=branch_of([], ["x", "x", "x"]),
            then_branch=branch_of([node("Exp", ["x"], ["exp"])], ["exp", "outer", "exp"]),
        ),
    ]  # fmt: skip
    before = graph_of(nodes, inputs={"x": IMAGE}, outputs=["y", "z", "p"], opset=18, weights={"known": np.array(True)})
    after = decompose(before, where="a file")
    assert [each.op_type for each in after.graph.node] == ["Neg", "Exp", "Identity", "Identity"]
    got = run(after, {"x": IMAGE})
    np.testing.assert_array_equal(got["z"], -IMAGE)
    np.testing.assert_array_equal(got["p"], got["y"])
    np.testing.assert_allclose(got["y"], np.exp(IMAGE), rtol=1e-6)


def test_names_of_nodes_stay_unique() -> None:
    """onnxruntime refuses a graph in which two nodes share a name, as nodes of different branches may."""

    def chosen(result: str) -> onnx.NodeProto:
        return node(
            "If", ["known"], [result], then_branch=branch_of([node("Neg", ["x"], [f"{result}_neg"], name="same")],
                [f"{result}_neg"]),
            else_branch=branch_of([node("Exp", ["x"], [f"{result}_exp"], name="same")], [f"{result}_exp"]),
        )  # fmt: skip

    inputs = {"x": IMAGE}
    model = graph_of(
        [chosen("y"), chosen("z")], inputs=inputs, outputs=["y", "z"], opset=18, weights={"known": np.array(True)}
    )
    got = run(decompose(model, where="a file"), inputs)
    np.testing.assert_array_equal(got["y"], -IMAGE)
    np.testing.assert_array_equal(got["z"], -IMAGE)


def test_an_open_condition_stays() -> None:
    chosen = node(
        "If", ["c"], ["y"], then_branch=branch_of([contributed("Gelu", ["x"], ["a"])], ["a"]),
        else_branch=branch_of([node("Neg", ["x"], ["b"])], ["b"]),
    )  # fmt: skip
    for condition in (True, False):
        inputs = {"x": IMAGE, "c": np.array(condition)}
        before = graph_of([chosen], inputs=inputs, outputs=["y"], opset=18, domains=[MICROSOFT])
        after = decompose(before, where="a file")
        assert [each.op_type for each in after.graph.node] == ["If"]
        assert {each.domain for each in all_nodes(after.graph)} == {""}
        same_values(before, after, inputs, 2e-6)

"""A fixed batch is opened so that five images in one run give the rows of five runs; or the graph is left alone."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from graphs import build, read_whole, tiny_network
from light_models import LIGHT, light_models
from onnxviz.graph.batch import explain_fixed_batch, make_batch_dynamic, static_batch
from onnxviz.graph.values import graph_inputs

node = helper.make_node
ROWS = 5


def session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def feeds(model: onnx.ModelProto, rows: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(3)
    made = {}
    for entry in graph_inputs(model):
        assert entry.shape is not None
        shape = [rows, *(side if isinstance(side, int) else 4 for side in entry.shape[1:])]
        if entry.dtype == "int64":
            made[entry.name] = random.integers(0, 4, shape)
        elif entry.dtype in ("uint8", "int8"):
            limits = np.iinfo(entry.dtype)
            made[entry.name] = random.integers(limits.min, limits.max, shape, endpoint=True).astype(entry.dtype)
        else:
            made[entry.name] = random.standard_normal(shape).astype(entry.dtype)
    return made


def assert_rows_equal_single_runs(model: onnx.ModelProto, *, step: int = 1) -> onnx.ModelProto:
    opened = make_batch_dynamic(model)
    assert opened is not None, explain_fixed_batch(model)
    whole = feeds(model, ROWS * step)
    together = session(opened).run(None, whole)
    single = session(model)
    parts = [
        single.run(None, {name: rows[i : i + step] for name, rows in whole.items()})
        for i in range(0, ROWS * step, step)
    ]
    for place, array in enumerate(together):
        expected = np.concatenate([part[place] for part in parts])
        assert array.shape == expected.shape
        # Rows that are all alike would prove nothing.
        assert np.ptp(expected.astype(np.float64), axis=0).max() > 0
        np.testing.assert_allclose(array, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
    return opened


@pytest.fixture(scope="module")
def light(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return light_models(tmp_path_factory.getbasetemp() / "light")


@pytest.mark.parametrize("name", sorted(path.stem for path in LIGHT.glob("light_*.onnx")))
def test_light_models(name: str, light: dict[str, Path]) -> None:
    model = read_whole(light[name])
    assert static_batch(model) == 1
    assert_rows_equal_single_runs(model)


def test_zoo_models(zoo: Path) -> None:
    static = 0
    for path in sorted((zoo / "models").glob("*.onnx")):
        model = read_whole(path)
        static += static_batch(model) == 1
        opened = assert_rows_equal_single_runs(model)
        assert static_batch(opened) is None
        if static_batch(model) is None:
            assert opened is model
    assert static == 5


def test_original_is_left_alone() -> None:
    model = tiny_network(batch=1)
    before = model.SerializeToString()
    opened = assert_rows_equal_single_runs(model)
    assert model.SerializeToString() == before
    assert opened.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert opened.graph.output[0].type.tensor_type.shape.dim[0].dim_param == "batch"


def test_open_batch_is_the_same_object() -> None:
    model = tiny_network()
    assert make_batch_dynamic(model) is model
    assert static_batch(model) is None
    assert explain_fixed_batch(model) == ""


def test_batch_of_four() -> None:
    model = tiny_network(batch=4)
    model.graph.node[3].CopyFrom(node("Reshape", ["pooled", "sides"], ["features"]))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([4, 4], np.int64), "sides"))
    assert static_batch(model) == 4
    assert_rows_equal_single_runs(model, step=4)


def ints(*entries: int) -> np.ndarray:
    return np.array(entries, np.int64)


def floats(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


def graph(
    *nodes: onnx.NodeProto,
    shape: tuple[int, ...] = (1, 4, 6),
    opset: int = 17,
    output: str = "y",
    **weights: np.ndarray,
) -> onnx.ModelProto:
    return build(nodes, inputs={"x": ("float", shape)}, outputs={output: ("float", None)}, weights=weights, opset=opset)


def class_token() -> onnx.ModelProto:
    """The beginning of a vision transformer: patches, a class token for one image, positions, one attention block."""
    return graph(
        node("Conv", ["x", "patch"], ["map"], strides=[2, 2]),
        node("Reshape", ["map", "to_tokens"], ["flat"]),
        node("Transpose", ["flat"], ["tokens"], perm=[0, 2, 1]),
        node("Concat", ["token", "tokens"], ["all"], axis=1),
        node("Add", ["all", "positions"], ["placed"]),
        node("MatMul", ["placed", "query"], ["q"]),
        node("Reshape", ["q", "heads"], ["q4"]),
        node("Transpose", ["q4"], ["qt"], perm=[0, 2, 1, 3]),
        node("Transpose", ["q4"], ["kt"], perm=[0, 2, 3, 1]),
        node("MatMul", ["qt", "kt"], ["scores"]),
        node("Softmax", ["scores"], ["weights"], axis=-1),
        node("MatMul", ["weights", "qt"], ["mixed"]),
        node("Transpose", ["mixed"], ["back"], perm=[0, 2, 1, 3]),
        node("Reshape", ["back", "joined"], ["out"]),
        node("Gather", ["out", "first"], ["y"], axis=1),
        shape=(1, 3, 4, 4), patch=floats(8, 3, 2, 2), to_tokens=ints(1, 8, 4), token=floats(1, 1, 8),
        positions=floats(1, 5, 8), query=floats(8, 8), heads=ints(1, 5, 2, 4), joined=ints(1, 5, 8), first=ints(0)[0],
    )  # fmt: skip


def heads_merged_with_batch() -> onnx.ModelProto:
    """Attention as torch.nn.MultiheadAttention exports it: sequence first, batch × heads on one axis."""
    return graph(
        node("Transpose", ["x"], ["s"], perm=[1, 0, 2]),
        node("Reshape", ["s", "split"], ["h"]),
        node("Transpose", ["h"], ["q"], perm=[1, 0, 2]),
        node("Transpose", ["h"], ["k"], perm=[1, 2, 0]),
        node("MatMul", ["q", "k"], ["scores"]),
        node("Softmax", ["scores"], ["w"], axis=-1),
        node("MatMul", ["w", "q"], ["m"]),
        node("Transpose", ["m"], ["t"], perm=[1, 0, 2]),
        node("Reshape", ["t", "joined"], ["rows"]),
        node("Gemm", ["rows", "out"], ["g"]),
        node("Reshape", ["g", "again"], ["seq"]),
        node("Transpose", ["seq"], ["y"], perm=[1, 0, 2]),
        split=ints(4, 2, 3), joined=ints(4, 6), out=floats(6, 6), again=ints(4, 1, 6),
    )  # fmt: skip


def recurrent(op_type: str, gates: int) -> Callable[[], onnx.ModelProto]:
    def made() -> onnx.ModelProto:
        states = ["h0", "c0"] if op_type == "LSTM" else ["h0"]
        return graph(
            node("Transpose", ["x"], ["s"], perm=[1, 0, 2]),
            node(op_type, ["s", "w", "r", "b", "", *states], ["seq", "last"], hidden_size=5),
            node("Squeeze", ["last", "zero"], ["y"]),
            w=floats(1, gates * 5, 6), r=floats(1, gates * 5, 5), b=floats(1, gates * 10), zero=ints(0),
            **{state: floats(1, 1, 5) for state in states},
        )  # fmt: skip

    return made


def shape_arithmetic() -> onnx.ModelProto:
    """Sides computed at run time, and a constant made for as many rows as there are images."""
    return graph(
        node("Shape", ["x"], ["sides"]),
        node("Gather", ["sides", "zero"], ["n"]),
        node("Concat", ["n", "rest"], ["target"], axis=0),
        node("Reshape", ["x", "target"], ["flat"]),
        node("Concat", ["n", "three"], ["extra"], axis=0),
        node("ConstantOfShape", ["extra"], ["ones"], value=helper.make_tensor("one", 1, [1], [1.0])),
        node("Concat", ["flat", "ones"], ["y"], axis=1),
        zero=ints(0), rest=ints(-1), three=ints(3),
    )  # fmt: skip


CASES: dict[str, Callable[[], onnx.ModelProto]] = {
    "class token": class_token,
    "heads merged with batch": heads_merged_with_batch,
    "LSTM with stated states": recurrent("LSTM", 4),
    "GRU with stated state": recurrent("GRU", 3),
    "RNN with stated state": recurrent("RNN", 1),
    "shape arithmetic": shape_arithmetic,
    "Reshape with -1 elsewhere": lambda: graph(node("Reshape", ["x", "s"], ["y"]), s=ints(1, -1)),
    "Reshape that copies": lambda: graph(node("Reshape", ["x", "s"], ["y"]), s=ints(0, 24)),
    "Reshape to a vector and back": lambda: graph(
        node("Reshape", ["x", "s"], ["v"]), node("Relu", ["v"], ["r"]), node("Reshape", ["r", "t"], ["y"]),
        s=ints(24), t=ints(1, 6, 4),
    ),
    "Reshape from a Constant node": lambda: graph(
        node("Constant", [], ["s"], value_ints=[1, 24]), node("Reshape", ["x", "s"], ["y"])
    ),
    "Flatten from axis 0": lambda: graph(node("Flatten", ["x"], ["f"], axis=0), node("Gemm", ["f", "w"], ["y"]), w=floats(24, 2)),
    "Flatten from axis 2": lambda: graph(
        node("Flatten", ["x"], ["f"], axis=2), node("Gemm", ["f", "w"], ["g"]), node("Reshape", ["g", "s"], ["y"]),
        w=floats(6, 2), s=ints(1, 4, 2),
    ),
    "Expand to a stated batch": lambda: graph(
        node("Unsqueeze", ["x", "one"], ["u"]), node("Expand", ["u", "s"], ["y"]), one=ints(1), s=ints(1, 3, 4, 6)
    ),
    "Resize to stated sides": lambda: graph(
        node("Resize", ["x", "", "", "s"], ["y"], mode="nearest"), shape=(1, 3, 4, 4), s=ints(1, 3, 8, 8)
    ),
    "Upsample by scales": lambda: graph(
        node("Upsample", ["x", "s"], ["y"]), shape=(1, 3, 4, 4), opset=9, s=np.array([1, 1, 2, 2], np.float32)
    ),
    "Slice that names the batch": lambda: graph(
        node("Slice", ["x", "from", "to", "axes"], ["y"]), **{"from": ints(0, 1), "to": ints(1, 3), "axes": ints(0, 2)}
    ),
    "Slice by int32": lambda: graph(
        node("Slice", ["x", "from", "to", "axes"], ["y"]),
        **{"from": np.int32([0, 1]), "to": np.int32([1, 3]), "axes": np.int32([0, 2])},
    ),
    "Slice by attributes": lambda: graph(node("Slice", ["x"], ["y"], starts=[0, 1], ends=[1, 3], axes=[0, 2]), opset=9),
    "Tile and Pad": lambda: graph(
        node("Tile", ["x", "r"], ["t"]), node("Pad", ["t", "p"], ["y"]), r=ints(1, 2, 1), p=ints(0, 0, 1, 0, 0, 1)
    ),
    "Split and Sum": lambda: graph(
        node("Split", ["x"], ["a", "b"], axis=2), node("Sum", ["a", "b"], ["y"]), opset=11
    ),
    "means": lambda: graph(
        node("ReduceMean", ["x"], ["m"], axes=[2], keepdims=0), node("LayerNormalization", ["m", "s"], ["y"], axis=-1), s=floats(4)
    ),
    "Einsum": lambda: graph(node("Einsum", ["x", "w"], ["y"], equation="bij,jk->bki"), w=floats(6, 2)),
    "Softmax of opset 9": lambda: graph(node("Softmax", ["x"], ["y"], axis=1), opset=9),
    "matrix product of two branches": lambda: graph(
        node("Transpose", ["x"], ["t"], perm=[0, 2, 1]), node("MatMul", ["x", "t"], ["y"])
    ),
    "PRelu and Where": lambda: graph(
        node("PRelu", ["x", "s"], ["p"]), node("Greater", ["p", "zero"], ["c"]), node("Where", ["c", "p", "zero"], ["y"]),
        s=floats(4, 1), zero=np.float32(0.1),
    ),
    "two Squeezes": lambda: graph(
        node("Squeeze", ["x"], ["s"], axes=[2]), node("Unsqueeze", ["s"], ["y"], axes=[1]), shape=(1, 4, 1), opset=11
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_operators_with_a_stated_batch(case: str) -> None:
    assert_rows_equal_single_runs(CASES[case]())


def test_the_batch_may_lie_on_any_axis_of_an_output() -> None:
    """As where the steps of a recurrent layer come first."""
    model = build(
        [node("Transpose", ["x"], ["y"], perm=[1, 0, 2])], inputs={"x": ("float", [1, 4, 6])},
        outputs={"y": ("float", [4, 1, 6])},
    )  # fmt: skip
    opened = make_batch_dynamic(model)
    assert opened is not None
    x = np.random.default_rng(0).random((5, 4, 6)).astype(np.float32)
    session = onnxruntime.InferenceSession(opened.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(session.run(None, {"x": x})[0], x.transpose(1, 0, 2))


REFUSED: dict[str, tuple[Callable[[], onnx.ModelProto], str]] = {
    "mean over everything": (lambda: graph(node("ReduceMean", ["x"], ["y"])), "the batch too"),
    "mean over the batch": (lambda: graph(node("ReduceMean", ["x"], ["y"], axes=[0])), "over the batch"),
    "softmax over the batch": (lambda: graph(node("Softmax", ["x"], ["y"], axis=0)), "along the batch"),
    "softmax of opset 9 over everything": (lambda: graph(node("Softmax", ["x"], ["y"], axis=0), opset=9), "along the batch"),
    "first image picked": (lambda: graph(node("Gather", ["x", "i"], ["y"], axis=0), i=ints(0)[0]), "along the batch"),
    "batch squeezed": (lambda: graph(node("Squeeze", ["x"], ["y"])), "Squeeze"),
    "concat of images": (lambda: graph(node("Concat", ["x", "x"], ["y"], axis=0)), "along the batch"),
    "batch and channels on one axis of the output": (
        lambda: graph(node("Reshape", ["x", "s"], ["y"]), s=ints(4, 6)), "no axis that holds the batch alone"
    ),
    "dynamic quantisation": (
        lambda: graph(
            node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]), node("DequantizeLinear", ["q", "s", "z"], ["y"])
        ),
        "DynamicQuantizeLinear",
    ),
    "LSTM along the batch": (
        lambda: graph(
            node("LSTM", ["x", "w", "r"], ["y"], hidden_size=5), w=floats(1, 20, 6), r=floats(1, 20, 5)
        ),
        "along the batch",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_mixes_images_is_refused(case: str) -> None:
    made, words = REFUSED[case]
    model = made()
    assert make_batch_dynamic(model) is None
    assert words in explain_fixed_batch(model)


def test_a_body_that_reads_the_batch_is_refused() -> None:
    body = helper.make_graph([node("Relu", ["x"], ["inner"])], "body", [], [onnx.ValueInfoProto(name="inner")])
    model = build(
        [node("If", ["c"], ["y"], then_branch=body, else_branch=body)],
        inputs={"x": ("float", [1, 4])}, outputs={"y": ("float", None)}, weights={"c": np.array(True)},
    )  # fmt: skip
    assert make_batch_dynamic(model) is None
    assert "body of If" in explain_fixed_batch(model)


def test_several_inputs() -> None:
    model = build(
        [node("Gather", ["table", "ids"], ["rows"]), node("ReduceMean", ["rows"], ["m"], axes=[1], keepdims=0),
         node("Flatten", ["image"], ["f"]), node("Concat", ["m", "f"], ["y"], axis=1)],
        inputs={"ids": ("int64", [1, 3]), "image": ("float", [1, 3, 2, 2])}, outputs={"y": ("float", [1, 17])},
        weights={"table": floats(4, 5)},
    )  # fmt: skip
    assert_rows_equal_single_runs(model)


def test_exports_of_attention_and_recurrence(torch: Any, tmp_path: Path) -> None:
    nn = torch.nn

    class Attention(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.patches, self.attention, self.head = (
                nn.Conv2d(3, 32, 8, 8),
                nn.MultiheadAttention(32, 4),
                nn.Linear(32, 10),
            )

        def forward(self, image: Any) -> Any:
            tokens = self.patches(image).flatten(2).permute(2, 0, 1)
            mixed = tokens + self.attention(tokens, tokens, tokens, need_weights=False)[0]
            return self.head(mixed.mean(0)).softmax(-1)

    class Reader(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.lstm = nn.Conv2d(3, 8, 3, 2, 1), nn.LSTM(128, 20, bidirectional=True, batch_first=True)

        def forward(self, image: Any) -> Any:
            columns = self.conv(image).relu().permute(0, 3, 1, 2).flatten(2)
            return self.lstm(columns)[0][:, -1]

    torch.manual_seed(0)
    for network in (Attention(), Reader()):
        path = tmp_path / f"{type(network).__name__}.onnx"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter warns about its own constants and its successor
            torch.onnx.export(network.eval(), (torch.zeros(1, 3, 32, 32),), str(path), dynamo=False)
        assert_rows_equal_single_runs(read_whole(path))

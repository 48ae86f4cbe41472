"""Heavy weights are read once, held once, and are in no message that is written: models of any size are examined."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxviz as ov
from graphs import build, save
from heavy_models import FEATURES, SIDE, heavy_model, inner_array
from onnxviz.errors import LimitError, ModelError
from onnxviz.graph.detached import product_factors, take_inside
from onnxviz.graph.loading import load_tensor, read_model
from onnxviz.graph.streamed import HEAVY

node = helper.make_node
CONTRACT = {"preprocess": {"size": [SIDE, SIDE], "scale": 1 / 255}, "output": {"output": "logits", "kind": "logits"}}


def opened(path: Path) -> ov.Model:
    return ov.load(path, device="cpu", threads=2, **CONTRACT)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """8 MiB in each of two layers."""
    return heavy_model(tmp_path_factory.mktemp("heavy") / "net.onnx", 512)


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    return np.random.default_rng(1).random((3, 3, SIDE, SIDE), np.float32)


# -- reading ----------------------------------------------------------------------------------------------------------


def test_heavy_weights_are_read_beside_the_model(path: Path) -> None:
    loaded = read_model(path)
    assert loaded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert set(loaded.weights) == {"wide", "narrow"}
    assert len(loaded.proto.SerializeToString()) < 1 << 20
    for name, array in loaded.weights.items():
        np.testing.assert_array_equal(array, inner_array(path, name))
        assert not array.flags.writeable
        assert array.ctypes.data % 64 == 0
        (tensor,) = (t for t in loaded.proto.graph.initializer if t.name == name)
        assert load_tensor(loaded, tensor) is array
    whole = take_inside(loaded.proto, loaded.weights)
    assert whole.SerializeToString(deterministic=True) == onnx.load(path).SerializeToString(deterministic=True)


def one_weight(tensor: TensorProto) -> onnx.ModelProto:
    model = build([node("Relu", ["x"], ["y"])], inputs={"x": ("float", [1])}, outputs={"y": ("float", [1])})
    model.graph.initializer.append(tensor)
    return model


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64", "uint8", "int8", "int64", "bool", "bfloat16"])
def test_types(dtype: str, tmp_path: Path) -> None:
    kind = np.dtype(ml_dtypes.bfloat16) if dtype == "bfloat16" else np.dtype(dtype)
    numbers = (np.arange(HEAVY // kind.itemsize) % 100).astype(kind)
    file = save(one_weight(numpy_helper.from_array(numbers, "w")), tmp_path / "model.onnx")
    loaded = read_model(file)
    # Integers that may decide shapes stay where every rule looks, and so does what numpy does not know.
    assert set(loaded.weights) == (set() if dtype in ("int64", "bool", "bfloat16") else {"w"})
    np.testing.assert_array_equal(load_tensor(loaded, loaded.proto.graph.initializer[0]), numbers.astype(kind))
    assert loaded.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()


def test_stored_bytes_that_do_not_fit_name_the_tensor(tmp_path: Path) -> None:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[HEAVY], raw_data=bytes(HEAVY + 4))
    loaded = read_model(save(one_weight(tensor), tmp_path / "model.onnx"))
    with pytest.raises(ModelError, match="tensor 'w'"):
        load_tensor(loaded, loaded.proto.graph.initializer[0])


def field(number: int, content: bytes) -> bytes:
    """A counted field in protobuf's wire format."""
    written, length = bytearray(), len(content)
    while length > 127:
        written.append(length & 127 | 128)
        length >>= 7
    return bytes([number << 3 | 2, *written, length]) + content


def test_messages_in_parts_and_fields_stated_twice_read_as_protobuf_reads_them(tmp_path: Path) -> None:
    random = np.random.default_rng(2)
    numbers = [random.standard_normal(HEAVY // 4).astype(np.float32) for _ in range(3)]
    plain = one_weight(TensorProto(name="small", data_type=TensorProto.FLOAT, dims=[1], raw_data=bytes(4)))
    head = plain.SerializeToString()

    def tensor(name: str, *contents: bytes) -> bytes:
        stated = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[HEAVY // 4]).SerializeToString()
        return b"".join(field(9, content) for content in contents) + stated

    first, second, third = (array.tobytes() for array in numbers)
    graphs = {
        "a second part of the graph": field(5, tensor("w", first)) + field(5, tensor("v", second)),
        "numbers stated twice": field(5, tensor("w", second, first)) + field(5, tensor("v", second)),
        "small before heavy": field(5, tensor("w", b"1234", first)) + field(5, tensor("v", third, second)),
    }
    for title, graph in graphs.items():
        content = head + field(7, graph)
        file = tmp_path / "model.onnx"
        file.write_bytes(content)
        loaded = read_model(file)
        assert loaded.sha256 == hashlib.sha256(content).hexdigest(), title
        stored = {t.name: load_tensor(loaded, t) for t in loaded.proto.graph.initializer}
        expected = {t.name: numpy_helper.to_array(t) for t in onnx.ModelProto.FromString(content).graph.initializer}
        assert stored.keys() == expected.keys() == {"small", "w", "v"}
        for name, array in expected.items():
            np.testing.assert_array_equal(stored[name], array, err_msg=title)


def test_truncations_are_refused(path: Path, tmp_path: Path) -> None:
    content = path.read_bytes()
    for percent in range(0, 100, 7):
        (tmp_path / "cut.onnx").write_bytes(content[: len(content) * percent // 100])
        with pytest.raises(ModelError, match=r"cut\.onnx"):
            read_model(tmp_path / "cut.onnx")


def external(name: str, offset: int, numbers: np.ndarray, location: str = "w.bin") -> TensorProto:
    tensor = TensorProto(name=name, data_type=helper.np_dtype_to_tensor_dtype(numbers.dtype), dims=numbers.shape)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", offset), ("length", numbers.nbytes)):
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def test_data_files_are_read_once_and_never_again(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    heavy = random.standard_normal(HEAVY).astype(np.float32)
    content = random.bytes(5) + heavy.tobytes() + random.bytes(3)
    shapes = np.arange(HEAVY, dtype=np.int64)
    (tmp_path / "w.bin").write_bytes(content)
    (tmp_path / "s.bin").write_bytes(shapes.tobytes())
    model = one_weight(external("w", 5, heavy))
    model.graph.initializer.extend([
        external("tied", 5, heavy), external("part", 9, heavy[1 : 3 + HEAVY // 2]), external("small", 21, heavy[4:9]),
        external("shapes", 0, shapes, "s.bin"),
    ])  # fmt: skip
    loaded = read_model(save(model, tmp_path / "model.onnx"))
    assert loaded.data_digests == {
        "s.bin": hashlib.sha256(shapes.tobytes()).hexdigest(), "w.bin": hashlib.sha256(content).hexdigest()
    }  # fmt: skip
    assert set(loaded.weights) == {"w", "tied", "part"}
    assert np.shares_memory(loaded.weights["w"], loaded.weights["tied"])
    (tmp_path / "w.bin").write_bytes(bytes(len(content)))
    (tmp_path / "s.bin").unlink()
    wanted = {
        "w": heavy, "tied": heavy, "part": heavy[1 : 3 + HEAVY // 2], "small": heavy[4:9], "shapes": shapes
    }  # fmt: skip
    for tensor in loaded.proto.graph.initializer:
        np.testing.assert_array_equal(load_tensor(loaded, tensor), wanted[tensor.name], err_msg=tensor.name)


def test_a_data_file_that_changes_later_changes_nothing(tmp_path: Path, x: np.ndarray) -> None:
    file = heavy_model(tmp_path / "net.onnx", 512, beside=True)
    before = opened(file)
    expected = before.predict(x)
    model = opened(file)
    file.with_suffix(".bin").write_bytes(bytes(100))
    np.testing.assert_array_equal(model.predict(x), expected)
    assert np.isfinite(ov.gradient(model, x, 0)).all()


# -- computing --------------------------------------------------------------------------------------------------------


def test_which_weights_are_product_factors() -> None:
    names = ["plain", "gemm", "turned", "left", "added", "shown", "kept", "turned and added"]
    model = build(
        [
            node("MatMul", ["x", "plain"], ["a"]), node("Gemm", ["a", "gemm", "bias"], ["b"], transB=1),
            node("Transpose", ["turned"], ["t"]), node("MatMul", ["b", "t"], ["c"]), node("MatMul", ["left", "c"], ["d"]),
            node("Gemm", ["d", "gemm", "added"], ["e"]), node("MatMul", ["e", "shown"], ["f"]),
            node("Transpose", ["turned and added"], ["u"]), node("MatMul", ["f", "u"], ["g"]), node("Add", ["g", "u"], ["h"]),
            node("MatMul", ["h", "kept"], ["y"]),
        ],
        inputs={"x": ("float", [4, 4])}, outputs={"y": ("float", [4, 4]), "shown": ("float", [4, 4])},
        weights={name: np.eye(4, dtype=np.float32) for name in (*names, "bias")},
    )  # fmt: skip
    assert product_factors(model, names) == {"plain", "gemm", "turned", "kept"}


@pytest.mark.parametrize("operator", ["Gemm", "MatMul"])
@pytest.mark.parametrize("beside", [False, True])
def test_gradients_are_those_of_the_formula(operator: str, beside: bool, tmp_path: Path, x: np.ndarray) -> None:
    model = opened(heavy_model(tmp_path / "net.onnx", 512, beside=beside, operator=operator))
    values = model.run(x, ("features", "hidden", "last"))
    found = ov.gradient(model, x, 3, wrt="features")
    wide, narrow = (
        array if operator == "Gemm" else array.T
        for array in (model.loaded.weights["wide"], model.loaded.weights["narrow"])
    )
    head = next(numpy_helper.to_array(t) for t in model.loaded.proto.graph.initializer if t.name == "head")
    of_last = head[:, 3] * (values["last"] > 0)
    expected = ((of_last @ narrow) * (values["hidden"] > 0)) @ wide
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_no_heavy_weight_is_in_any_message(path: Path, x: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    real = onnxruntime.InferenceSession

    def spy(content: Any, *arguments: Any, **options: Any) -> Any:
        sizes.append(len(content))
        return real(content, *arguments, **options)

    monkeypatch.setattr(onnxruntime, "InferenceSession", spy)
    model = opened(path)
    assert model.fixed_batch is None
    view = np.random.default_rng(4).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    for work in (
        lambda: model.predict(x), lambda: ov.gradient(model, x, 0), lambda: ov.saliency(model, view),
        lambda: ov.occlusion(model, view, window=16, stride=16), lambda: ov.filters(model),
        lambda: ov.occlusion(model, view, window=8, stride=4), lambda: model.run(x, "*"),
    ):  # fmt: skip
        before = len(sizes)
        work()
        sizes.append(0)
        assert len(sizes) > before
    assert max(sizes) < 1 << 18
    assert sum(size > 0 for size in sizes) >= 8


def test_a_shuffled_and_a_planted_copy_have_the_weights(path: Path) -> None:
    model = opened(path)
    view = np.random.default_rng(6).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    found = ov.randomization_check(model, ov_gradient, view, stages=2)
    assert found.layers == ("logits", "b", "a", "map")
    assert np.isfinite(found.probabilities).all()
    planted = ov.plant(model, class_index=1)
    assert set(planted.loaded.weights) == {"wide", "narrow"}
    np.testing.assert_array_equal(planted.loaded.weights["wide"], model.loaded.weights["wide"])


def ov_gradient(model: ov.Model, view: np.ndarray, index: int) -> np.ndarray:
    return np.asarray(ov.saliency(model, view, index).map)


PEAK_SCRIPT = """
import sys
import numpy as np
import onnxviz as ov
from onnxviz.methods.gradient import derive

def resident(field):
    return int(open("/proc/self/status").read().partition(field + ":")[2].split()[0]) << 10

x = np.random.default_rng(0).random((8, 3, 64, 64), np.float32)
before = resident("VmRSS")
model = ov.load(sys.argv[1], preprocess="unit", output={"output": "logits", "kind": "logits"}, device="cpu", threads=2)
derive(model, x, [3] * 8)
print(resident("VmHWM") - before, sum(array.nbytes for array in model.loaded.weights.values()))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="no /proc here")
@pytest.mark.parametrize("beside", [False, True])
def test_a_gradient_holds_the_weights_once(beside: bool, tmp_path: Path) -> None:
    file = heavy_model(tmp_path / "net.onnx", 6400, beside=beside)
    run = subprocess.run([sys.executable, "-c", PEAK_SCRIPT, file], capture_output=True, text=True, check=True)
    peak, weights = map(int, run.stdout.split())
    assert weights == 2 * 4 * 6400 * FEATURES
    assert peak <= 1.5 * weights


@pytest.mark.slow
def test_more_weights_than_a_message_can_hold(tmp_path: Path, x: np.ndarray) -> None:
    """2.25 GiB, in a data file: protobuf could not write it."""
    file = heavy_model(tmp_path / "net.onnx", 73728, beside=True)
    model = opened(file)
    file.with_suffix(".bin").unlink()
    assert sum(array.nbytes for array in model.loaded.weights.values()) > 1 << 31
    assert model.fixed_batch is None
    values = model.run(x, ("features", "hidden", "last", "logits"))
    wide, narrow = model.loaded.weights["wide"], model.loaded.weights["narrow"]
    np.testing.assert_allclose(values["hidden"], np.maximum(values["features"] @ wide.T, 0), rtol=0, atol=1e-3)
    assert model.predict(x).shape == (3, 10)
    head = next(numpy_helper.to_array(t) for t in model.loaded.proto.graph.initializer if t.name == "head")
    expected = ((head[:, 3] * (values["last"] > 0) @ narrow) * (values["hidden"] > 0)) @ wide
    found = ov.gradient(model, x, 3, wrt="features")
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    view = np.random.default_rng(4).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    assert np.isfinite(ov.saliency(model, view).values).all()
    assert np.isfinite(ov.occlusion(model, view, window=16, stride=16).probability).all()
    with pytest.raises(LimitError, match=r"2\.3 GiB of weights"):
        ov.plant(model)

"""What the loader accepts, and the sentence it refuses everything else with."""

from __future__ import annotations

import hashlib
import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from graphs import build, save, tiny_network
from onnxviz.errors import ModelError, OnnxvizError, UnsupportedOperatorError
from onnxviz.graph.batch import make_batch_dynamic
from onnxviz.graph.contract import explain_no_image_input, find_class_output, find_image_input
from onnxviz.graph.landmarks import find_feature_value, find_logits_value
from onnxviz.graph.loading import LoadedModel, load_tensor, read_model
from onnxviz.graph.macs import count_macs
from onnxviz.graph.taps import expose
from onnxviz.graph.values import graph_outputs, list_values
from onnxviz.graph.weights import convolution_weights, first_convolution

node = helper.make_node


def with_external_data(
    folder: Path, *, location: str = "weights.bin", offset: object = 0, length: object = None
) -> tuple[Path, np.ndarray]:
    """A model whose first weight lies in a data file, written as given; the data file itself is written honestly."""
    model = tiny_network()
    tensor = model.graph.initializer[0]
    numbers = numpy_helper.to_array(tensor).copy()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "weights.bin").write_bytes(numbers.tobytes())
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entries = {"location": location, "offset": offset, "length": numbers.nbytes if length is None else length}
    for key, value in entries.items():
        if value != "absent":
            tensor.external_data.add(key=key, value=str(value))
    return save(model, folder / "model.onnx"), numbers


def refused(path: Path, *words: str, root: Path | None = None) -> ModelError:
    started = time.perf_counter()
    with pytest.raises(ModelError) as caught:
        read_model(path, external_data_root=root)
    assert time.perf_counter() - started < 1.0
    text = str(caught.value)
    assert path.name in text
    for word in words:
        assert word in text, text
    return caught.value


def test_reads_a_model(tmp_path: Path) -> None:
    path = save(tiny_network(), tmp_path / "model.onnx")
    model = read_model(path)
    assert model.path == path
    assert model.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert not model.data_digests
    assert not model.weights


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    content = tiny_network().SerializeToString()
    for percent in range(100):
        path = tmp_path / f"cut at {percent} percent.onnx"
        path.write_bytes(content[: len(content) * percent // 100])
        refused(path)


def test_truncated_real_model_is_refused(zoo: Path, tmp_path: Path) -> None:
    content = (zoo / "models" / "mobilenet_v1_025_128_qdq_op13.onnx").read_bytes()
    for percent in range(100):
        path = tmp_path / "cut.onnx"
        path.write_bytes(content[: len(content) * percent // 100])
        refused(path)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "empty"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF" + bytes(500), "JPEG"),
        (b"\x89PNG\r\n\x1a\n" + bytes(500), "PNG"),
        (b"PK\x03\x04" + bytes(500), "zip"),
        (b"\x1c\x00\x00\x00TFL3" + bytes(500), "TensorFlow Lite"),
        (b"\x1c\x00\x00\x00ORTM" + bytes(500), "Keep the .onnx"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"<!DOCTYPE html><html></html>", "web page"),
    ],
)
def test_other_files_are_named(content: bytes, word: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    refused(path, word)


def test_ort_suffix_is_refused_with_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "model.ort"
    path.write_bytes(tiny_network().SerializeToString())
    refused(path, "Keep the .onnx file")


@pytest.mark.parametrize("seed", range(50))
def test_random_bytes_are_refused(seed: int, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(random.Random(seed).randbytes(1 + seed * 97))
    refused(path)


def test_mutated_models_give_a_model_or_an_error(tmp_path: Path) -> None:
    content = bytearray(tiny_network().SerializeToString())
    shuffled = random.Random(0)
    path = tmp_path / "model.onnx"
    outcomes = {"model": 0, "error": 0}
    for _ in range(2000):
        mutant = bytearray(content)
        for _ in range(shuffled.randint(1, 8)):
            mutant[shuffled.randrange(len(mutant))] = shuffled.randrange(256)
        path.write_bytes(mutant)
        try:
            examine(read_model(path))
            outcomes["model"] += 1
        except OnnxvizError:
            outcomes["error"] += 1
    assert min(outcomes.values()) > 0


def examine(model: LoadedModel) -> None:
    """Everything that the graph layer can tell about a model."""
    proto = model.proto
    values = list_values(proto)
    find_image_input(proto)
    explain_no_image_input(proto)
    find_class_output(proto)
    for output in graph_outputs(proto):
        find_logits_value(proto, output.name)
        find_feature_value(proto, output.name)
    make_batch_dynamic(proto)
    count_macs(proto, {v.name: tuple(s if isinstance(s, int) else 1 for s in v.shape) for v in values if v.shape})
    expose(proto, [values[-1].name])
    if (first := first_convolution(proto)) is not None:
        convolution_weights(model, first)


@pytest.mark.parametrize(("inputs", "word"), [(["x"], "number of inputs"), (["x", ""], "number of inputs")])
def test_missing_operands_are_refused(inputs: list[str], word: str, tmp_path: Path) -> None:
    refused(write(tmp_path, [node("MatMul", inputs, ["y"])]), word)


def test_names_that_are_not_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(tiny_network().SerializeToString().replace(b"Softmax", b"Softm\xffx"))
    refused(path, "not text")


def test_missing_folder_and_pipe_are_refused(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere.onnx", "no such file")
    refused(tmp_path, "a folder")
    os.mkfifo(tmp_path / "pipe.onnx")
    refused(tmp_path / "pipe.onnx", "not a regular file")


def test_more_than_two_gibibytes_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "huge.onnx"
    with path.open("wb") as file:
        file.truncate((1 << 31) + 10)
    refused(path, "use external data")


# -- external data ---------------------------------------------------------------------------------------------------


def test_external_data_is_read_and_digested(tmp_path: Path) -> None:
    path, numbers = with_external_data(tmp_path)
    model = read_model(path)
    assert model.data_digests == {"weights.bin": hashlib.sha256(numbers.tobytes()).hexdigest()}
    np.testing.assert_array_equal(load_tensor(model, model.proto.graph.initializer[0]), numbers)
    other = read_model(with_external_data(tmp_path / "other")[0])
    assert other.sha256 == model.sha256


@pytest.mark.parametrize(
    "location",
    ["../weights.bin", "a/../../weights.bin", "a/../weights.bin", "..", "..\\weights.bin", "C:\\weights.bin"],
)
def test_paths_that_leave_the_folder_are_refused_before_anything_is_opened(
    location: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = with_external_data(tmp_path / "inside", location=location)
    (tmp_path / "weights.bin").write_bytes(bytes(1000))
    opened = watch_opens(monkeypatch)
    refused(path, "tensor 'w'", "folder")
    assert not opened


def test_absolute_path_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, _ = with_external_data(tmp_path, location=str(tmp_path / "weights.bin"))
    opened = watch_opens(monkeypatch)
    refused(path, "tensor 'w'", "not relative")
    assert not opened


@pytest.mark.parametrize("location", ["", "*/_ORT_MEM_ADDR_/*"])
def test_no_path_and_memory_addresses_are_refused(location: str, tmp_path: Path) -> None:
    refused(with_external_data(tmp_path, location=location)[0], "tensor 'w'")


def watch_opens(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every path that the data-file check opens from now on."""
    opened: list[str] = []
    real: Callable[..., int] = os.open

    def spy(path: str, *arguments: int) -> int:
        opened.append(str(path))
        return real(path, *arguments)

    monkeypatch.setattr("onnxviz.graph.external.os.open", spy)
    return opened


def test_symbolic_link_is_refused_and_hard_link_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = tmp_path / "secret.bin"
    secret.write_bytes(bytes(1000))
    path, _ = with_external_data(tmp_path / "inside")
    data = path.parent / "weights.bin"
    data.unlink()
    data.symlink_to(secret)
    opened = watch_opens(monkeypatch)
    refused(path, "symbolic link", "external_data_root", "tensor 'w'")
    assert not opened
    data.unlink()
    data.hardlink_to(secret)
    refused(path, "hard link", "tensor 'w'")
    assert not opened


def test_linked_subfolder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "weights.bin").write_bytes(bytes(1000))
    path, _ = with_external_data(tmp_path / "inside", location="sub/weights.bin")
    (path.parent / "sub").symlink_to(tmp_path / "outside")
    refused(path, "symbolic link")


def test_hugging_face_cache_loads_under_a_trusted_root(tmp_path: Path) -> None:
    cache = tmp_path / "models--someone--something"
    written, numbers = with_external_data(tmp_path / "written")
    (cache / "blobs").mkdir(parents=True)
    (cache / "snapshots" / "abc").mkdir(parents=True)
    for blob, source in (("1f", written), ("2f", written.parent / "weights.bin")):
        (cache / "blobs" / blob).write_bytes(source.read_bytes())
        (cache / "snapshots" / "abc" / source.name).symlink_to(Path("../../blobs") / blob)
    path = cache / "snapshots" / "abc" / "model.onnx"
    refused(path, "external_data_root")
    model = read_model(path, external_data_root=cache)
    np.testing.assert_array_equal(load_tensor(model, model.proto.graph.initializer[0]), numbers)
    refused(path, "outside the trusted folder", root=tmp_path / "written")


@pytest.mark.parametrize(
    "entries",
    [
        {"offset": -8}, {"offset": (1 << 63) - 1}, {"offset": "one"}, {"offset": 4}, {"offset": "1_0"}, {"offset": "٣"},
        {"length": 10**12}, {"length": -1}, {"length": 4}, {"length": 0}, {"length": 1 << 80},
    ],
)  # fmt: skip
def test_bad_offset_or_length_names_the_tensor(entries: dict[str, object], tmp_path: Path) -> None:
    refused(with_external_data(tmp_path, **entries)[0], "tensor 'w'")


def test_offset_and_length_may_be_absent(tmp_path: Path) -> None:
    path, numbers = with_external_data(tmp_path, offset="absent", length="absent")
    model = read_model(path)
    np.testing.assert_array_equal(load_tensor(model, model.proto.graph.initializer[0]), numbers)


def claims(folder: Path, count: int, *, step: int) -> Path:
    """A model of ``count`` tensors, each of which claims 4,000 bytes of one file of 4,400, ``step`` bytes farther on."""
    folder.mkdir()
    (folder / "weights.bin").write_bytes(bytes(4400))
    model = tiny_network()
    for number in range(count):
        tensor = model.graph.initializer.add(name=f"claim {number}", data_type=TensorProto.FLOAT, dims=[1000])
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="weights.bin")
        tensor.external_data.add(key="offset", value=str(number * step))
    return save(model, folder / "model.onnx")


def test_a_small_data_file_cannot_become_large_in_memory(tmp_path: Path) -> None:
    refused(claims(tmp_path / "many", 100, step=4), "over and over", "400000 bytes in a file of 4400")
    # Tied weights are one array, and a few overlaps are nobody's harm.
    assert len(read_model(claims(tmp_path / "tied", 100, step=0)).proto.graph.initializer) > 100
    assert len(read_model(claims(tmp_path / "few", 4, step=4)).proto.graph.initializer) > 4


def test_missing_data_file_and_folder_in_its_place(tmp_path: Path) -> None:
    path, _ = with_external_data(tmp_path)
    (tmp_path / "weights.bin").unlink()
    refused(path, "tensor 'w'", "cannot be found")
    (tmp_path / "weights.bin").mkdir()
    refused(path, "not a regular file")


def test_external_data_in_a_body_is_checked_too(tmp_path: Path) -> None:
    hidden = helper.make_tensor("hidden", TensorProto.FLOAT, [1], [0.0])
    hidden.ClearField("float_data")
    hidden.data_location = TensorProto.EXTERNAL
    hidden.external_data.add(key="location", value="../outside.bin")
    body = helper.make_graph(
        [node("Identity", ["hidden"], ["y"])], "body", [], [onnx.ValueInfoProto(name="y")], [hidden]
    )
    model = build(
        [node("If", ["c"], ["out"], then_branch=body, else_branch=body)],
        inputs={"c": ("bool", [])}, outputs={"out": ("float", [1])},
    )  # fmt: skip
    refused(save(model, tmp_path / "model.onnx"), "tensor 'hidden'")


# -- structure -------------------------------------------------------------------------------------------------------


def write(tmp_path: Path, nodes: list[onnx.NodeProto], **parts: object) -> Path:
    defaults = {"inputs": {"x": ("float", [1, 4])}, "outputs": {"y": ("float", None)}}
    return save(build(nodes, **(defaults | parts)), tmp_path / "model.onnx")


def test_unknown_domain_lists_operators(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        [node("Magic", ["x"], ["a"], domain="my.ops"), node("Relu", ["a"], ["b"]), node("Trick", ["b"], ["y"], domain="my.ops")],
        domains=["my.ops"],
    )  # fmt: skip
    with pytest.raises(UnsupportedOperatorError, match=r"Magic of domain 'my\.ops'.*Trick of domain 'my\.ops'"):
        read_model(path)


def test_unknown_standard_operator_is_listed(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedOperatorError, match=r"Reluu of domain 'ai\.onnx'"):
        read_model(write(tmp_path, [node("Reluu", ["x"], ["y"])]))


def test_unknown_operator_in_a_body_is_listed(tmp_path: Path) -> None:
    body = helper.make_graph(
        [node("Magic", ["x"], ["inner"], domain="my.ops")], "body", [], [onnx.ValueInfoProto(name="inner")]
    )
    path = write(tmp_path, [node("If", ["c"], ["y"], then_branch=body, else_branch=body)],
                 inputs={"x": ("float", [1, 4]), "c": ("bool", [])})  # fmt: skip
    with pytest.raises(UnsupportedOperatorError, match="Magic"):
        read_model(path)


def test_microsoft_domain_is_known(tmp_path: Path) -> None:
    read_model(write(tmp_path, [node("Gelu", ["x"], ["y"], domain="com.microsoft")], domains=["com.microsoft"]))


def test_cycle_is_refused(tmp_path: Path) -> None:
    nodes = [node("Add", ["x", "b"], ["a"], name="one"), node("Relu", ["a"], ["b"]), node("Relu", ["b"], ["y"])]
    refused(write(tmp_path, nodes), "cycle", "one")


def test_unsorted_nodes_are_put_into_order(tmp_path: Path) -> None:
    nodes = [node("Relu", ["b"], ["y"]), node("Neg", ["a"], ["b"]), node("Abs", ["x"], ["a"])]
    model = read_model(write(tmp_path, nodes))
    assert [entry.op_type for entry in model.proto.graph.node] == ["Abs", "Neg", "Relu"]


@pytest.mark.parametrize(
    ("nodes", "word"),
    [
        ([node("Relu", ["x"], ["y"]), node("Neg", ["x"], ["y"])], "same name"),
        ([node("Relu", ["x"], ["x"]), node("Neg", ["x"], ["y"])], "also an input"),
        ([node("Relu", ["nobody"], ["y"])], "nobody makes"),
        ([node("Relu", ["x"], ["z"])], "no node makes the output"),
    ],
)
def test_broken_names_are_refused(nodes: list[onnx.NodeProto], word: str, tmp_path: Path) -> None:
    refused(write(tmp_path, nodes), word)


def test_duplicate_weights_are_refused(tmp_path: Path) -> None:
    model = tiny_network()
    model.graph.initializer.append(model.graph.initializer[0])
    refused(save(model, tmp_path / "model.onnx"), "two weights")


def test_stored_bytes_that_do_not_fit_name_the_tensor(tmp_path: Path) -> None:
    model = tiny_network()
    model.graph.initializer[0].raw_data = b"1234"
    loaded = read_model(save(model, tmp_path / "model.onnx"))
    with pytest.raises(ModelError, match="tensor 'w'"):
        load_tensor(loaded, loaded.proto.graph.initializer[0])


@pytest.mark.parametrize("dtype", ["BFLOAT16", "FLOAT8E4M3FN", "FLOAT8E5M2", "FLOAT16", "INT4", "UINT4", "DOUBLE"])
def test_uncommon_types_become_numpy_types(dtype: str, tmp_path: Path) -> None:
    tensor = helper.make_tensor("w", TensorProto.DataType.Value(dtype), [4], [0, 1, 2, 4])
    model = build([node("Relu", ["x"], ["y"])], inputs={"x": ("float", [1])}, outputs={"y": ("float", [1])})
    model.graph.initializer.append(tensor)
    array = load_tensor(read_model(save(model, tmp_path / "model.onnx")), tensor)
    assert array.dtype.kind in "fiu"
    np.testing.assert_array_equal(array.astype(float), [0, 1, 2, 4])


def test_weights_leave_the_list_of_inputs(tmp_path: Path) -> None:
    model = tiny_network()
    model.ir_version = 3
    model.graph.input.insert(0, helper.make_tensor_value_info("w", TensorProto.FLOAT, [4, 3, 3, 3]))
    loaded = read_model(save(model, tmp_path / "model.onnx"))
    assert [value.name for value in loaded.proto.graph.input] == ["image"]
    assert loaded.proto.ir_version >= 4


# -- local functions -------------------------------------------------------------------------------------------------


def chain(length: int, *, calls: int = 1, closed: bool = False) -> onnx.ModelProto:
    """Functions f0 → f1 → ...; the last one negates, or calls the first when ``closed``."""
    functions = []
    for position in range(length):
        if position == length - 1 and not closed:
            body = [node("Neg", ["a"], ["b"])]
        else:
            callee = f"f{(position + 1) % length}"
            names = ["a", *(f"t{call}" for call in range(calls - 1)), "b"]
            body = [node(callee, [names[i]], [names[i + 1]], domain="local") for i in range(calls)]
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
        functions.append(helper.make_function("local", f"f{position}", ["a"], ["b"], body, opsets))
    return build(
        [node("f0", ["x"], ["y"], domain="local")], inputs={"x": ("float", ["n", 4])}, outputs={"y": ("float", ["n", 4])},
        functions=functions, domains=["local"],
    )  # fmt: skip


def test_local_functions_are_written_out(tmp_path: Path) -> None:
    model = read_model(save(chain(3), tmp_path / "model.onnx"))
    assert not model.proto.functions
    assert [entry.op_type for entry in model.proto.graph.node] == ["Neg"]
    assert model.proto.graph.output[0].name == "y"


@pytest.mark.parametrize(
    ("length", "calls", "closed", "word"),
    [(101, 1, False, "nested too deeply"), (3000, 1, False, "nested too deeply"), (40, 2, False, "too many nodes"), (4, 1, True, "calls itself")],
)  # fmt: skip
def test_function_bombs_are_refused(length: int, calls: int, closed: bool, word: str, tmp_path: Path) -> None:
    path = save(chain(length, calls=calls, closed=closed), tmp_path / "model.onnx")
    with pytest.raises(ModelError, match=word):
        read_model(path)


def test_deeply_nested_bodies_are_refused(tmp_path: Path) -> None:
    # Written as bytes: the Python classes cannot hold what a hostile file can. Field numbers are those of onnx.proto.
    def field(number: int, content: bytes) -> bytes:
        size, length = len(content), b""
        while size > 127:
            length, size = length + bytes([size & 127 | 128]), size >> 7
        return bytes([number << 3 | 2]) + length + bytes([size]) + content

    graph = field(1, field(1, b"x") + field(2, b"y") + field(4, b"Relu"))
    for _ in range(400):
        branch = field(5, field(1, b"then_branch") + field(6, graph))
        graph = field(1, field(1, b"c") + field(2, b"y") + field(4, b"If") + branch)
    path = tmp_path / "deep.onnx"
    path.write_bytes(field(7, graph))
    refused(path, "nested too deeply")


# -- the real ones ---------------------------------------------------------------------------------------------------


def test_every_zoo_model_loads(zoo: Path) -> None:
    paths = sorted((zoo / "models").glob("*.onnx"))
    assert len(paths) >= 13
    for path in paths:
        assert isinstance(read_model(path), LoadedModel)

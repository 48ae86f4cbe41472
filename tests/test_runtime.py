"""The model handle: what it refuses, and that threads, forks, pickles, batches and limits change no number."""

from __future__ import annotations

import multiprocessing
import pickle
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxviz as ov
from onnxviz.backend import cuda_status
from onnxviz.errors import ContractError, DeviceError, InputError, LimitError, ModelError, ValueNotFoundError
from onnxviz.runtime.model import Model

EMBEDDED = Path(__file__).parents[1] / "models" / "cifar10_7x7_4096.onnx"


@pytest.fixture
def model() -> Model:
    return ov.load(EMBEDDED, preprocess="cifar10", device="cpu", threads=1)


@pytest.fixture
def tensor(model: Model) -> np.ndarray:
    return next(iter(model.probe(7).values()))


def save(path: Path, nodes: list, inputs: list, outputs: list, initializers: tuple = (), opset: int = 17) -> Path:
    graph = helper.make_graph(nodes, "g", inputs, outputs, list(initializers))
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9), path)
    return path


def floats(name: str, shape: list) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def test_values_by_name_and_glob(model: Model, tensor: np.ndarray) -> None:
    relus = [value.name for value in model.values("*Relu*")]
    assert len(relus) == 4
    got = model.run(tensor, ("*Relu*", "logits"))
    assert list(got) == [*relus, "logits"]
    assert all(len(array) == 7 for array in got.values())


def test_a_wrong_name_lists_near_misses(model: Model, tensor: np.ndarray) -> None:
    with pytest.raises(ValueNotFoundError, match="'logits'"):
        model.run(tensor, ("logit",))
    with pytest.raises(ValueNotFoundError, match="4 values match"):
        model.value("*Relu*")


@pytest.mark.parametrize(
    ("array", "sentence"),
    [
        (np.zeros((2, 3, 31, 32), np.float32), r"wrong shape; got \(2, 3, 31, 32\); allowed: \(n, 3, 32, 32\)"),
        (np.zeros((3, 32, 32), np.float32), "wrong shape"),
        (np.zeros((1, 3, 32, 32), np.complex64), "wrong dtype; got complex64; allowed: float32"),
        (np.zeros((0, 3, 32, 32), np.float32), "nothing to run on"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(model: Model, array: np.ndarray, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        model.run(array)


def test_batch_size_changes_no_number(tensor: np.ndarray) -> None:
    whole = ov.load(EMBEDDED, preprocess="cifar10", device="cpu", batch_size=7).run(tensor)["logits"]
    for size in (1, 2, 3):
        parts = ov.load(EMBEDDED, preprocess="cifar10", device="cpu", batch_size=size).run(tensor)["logits"]
        np.testing.assert_allclose(parts, whole, rtol=1e-5, atol=1e-5)


def test_results_outlive_the_next_run(model: Model, tensor: np.ndarray) -> None:
    first = model.run(tensor[:3])["logits"]
    kept = first.copy()
    model.run(tensor[3:])
    assert np.array_equal(first, kept)


def test_many_threads_agree(model: Model, tensor: np.ndarray) -> None:
    expected = model.run(tensor, ("*Relu*",))
    wrong: list[str] = []

    def work() -> None:
        for _ in range(20):
            got = model.run(tensor, ("*Relu*",))
            wrong.extend(name for name in got if not np.array_equal(got[name], expected[name]))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def in_child(model: Model, tensor: np.ndarray, queue: multiprocessing.Queue) -> None:
    queue.put(model.run(tensor)["logits"])


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_gets_the_same_numbers(model: Model, tensor: np.ndarray) -> None:
    expected = model.run(tensor)["logits"]
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=in_child, args=(model, tensor, queue))
    child.start()
    got = queue.get(timeout=60)
    child.join(30)
    assert child.exitcode == 0
    assert np.array_equal(got, expected)


def test_another_process_gets_the_same_numbers_from_a_pickle(model: Model, tensor: np.ndarray, tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(pickle.dumps(model))
    np.save(tmp_path / "tensor.npy", tensor)
    code = (
        "import pickle, sys, numpy as np, pathlib; folder = pathlib.Path(sys.argv[1]);"
        "model = pickle.loads((folder / 'model').read_bytes());"
        "np.save(folder / 'logits.npy', model.run(np.load(folder / 'tensor.npy'))['logits'])"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    assert np.array_equal(np.load(tmp_path / "logits.npy"), model.run(tensor)["logits"])


def test_pickle_keeps_the_contracts(model: Model) -> None:
    again = pickle.loads(pickle.dumps(model))
    assert again.sha256 == model.sha256
    assert again.preprocess == model.preprocess
    assert again.output == model.output


def test_only_a_few_sessions_are_kept(model: Model, tensor: np.ndarray) -> None:
    for value in model.values()[1:]:
        model.run(tensor[:1], (value.name,))
    assert len(model._runner._sessions) == 4


def test_an_endless_loop_is_stopped_in_time(tmp_path: Path) -> None:
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Sqrt", ["v"], ["w"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            floats("v", [1, 3, 8, 8]),
        ],
        [helper.make_tensor_value_info("on", TensorProto.BOOL, []), floats("w", [1, 3, 8, 8])],
    )
    path = save(
        tmp_path / "loop.onnx",
        [helper.make_node("Loop", ["", "true", "x"], ["y"], body=body)],
        [floats("x", [1, 3, 8, 8])],
        [floats("y", [1, 3, 8, 8])],
        (numpy_helper.from_array(np.array(True), "true"),),
    )
    start = time.monotonic()
    with pytest.raises(LimitError, match="time limit"):
        ov.load(path, preprocess="unit", device="cpu", timeout=1.0).run(np.ones((1, 3, 8, 8), np.float32))
    assert time.monotonic() - start < 2.5


def test_a_batch_that_does_not_fit_is_halved() -> None:
    code = f"""
import resource, numpy as np, onnxviz as ov
model = ov.load({str(EMBEDDED)!r}, preprocess="cifar10", device="cpu", threads=1, batch_size=2048)
tensor = np.repeat(next(iter(model.probe(1).values())), 2048, axis=0)
small = model.run(tensor[:2])["logits"]
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (300 << 20),) * 2)
big = model.run(tensor)["logits"]
assert any("halved" in note for note in model.notes), model.notes
np.testing.assert_allclose(big, np.repeat(small[:1], 2048, axis=0), rtol=1e-5, atol=1e-5)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_several_inputs_are_fed_by_name(tmp_path: Path) -> None:
    path = save(
        tmp_path / "two.onnx", [helper.make_node("Add", ["a", "b"], ["sum"])],
        [floats("a", ["n", 4]), floats("b", ["n", 4])], [floats("sum", ["n", 4])],
    )  # fmt: skip
    model = ov.load(path, device="cpu")
    ones = np.ones((2, 4), np.float32)
    assert (model.run({"a": ones, "b": ones})["sum"] == 2).all()
    with pytest.raises(InputError, match="2 inputs"):
        model.run(ones)
    with pytest.raises(InputError, match="'b' is missing"):
        model.run({"a": ones})
    with pytest.raises(InputError, match="no such input; got 'c'"):
        model.run({"a": ones, "c": ones})


def test_a_model_without_images_still_runs(tmp_path: Path) -> None:
    weights = numpy_helper.from_array(np.eye(4, 3, dtype=np.float32), "w")
    path = save(
        tmp_path / "mlp.onnx",
        [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Softmax", ["h"], ["p"])],
        [floats("x", ["n", 4])], [floats("p", ["n", 3])], (weights,),
    )  # fmt: skip
    model = ov.load(path, device="cpu")
    assert model.preprocess is None
    x = np.random.default_rng(0).random((5, 4), dtype=np.float32)
    assert model.run(x, ("h",))["h"].shape == (5, 3)
    np.testing.assert_allclose(model.predict(x).sum(axis=1), 1, rtol=1e-6)
    with pytest.raises(ValueNotFoundError, match="no convolution"):
        ov.filters(model)


def test_a_number_of_rows_hidden_in_the_graph_is_found(tmp_path: Path) -> None:
    """The batch looks free, but a Reshape folds the rows of a batch into each other."""
    shape = numpy_helper.from_array(np.array([1, -1, 4], np.int64), "shape")
    path = save(
        tmp_path / "folded.onnx",
        [
            helper.make_node("Flatten", ["x"], ["f"]),
            helper.make_node("Reshape", ["f", "shape"], ["r"]),
            helper.make_node("ReduceSum", ["r"], ["y"], keepdims=0),
        ],
        [floats("x", ["n", 3, 8, 8])], [floats("y", [])], (shape,),
    )  # fmt: skip
    model = ov.load(path, preprocess="unit", device="cpu")
    x = next(iter(model.probe(3).values()))
    got = model.run(x)["y"]
    assert model.fixed_batch == 1
    assert any("one by one" in note for note in model.notes)
    np.testing.assert_allclose(got, x.sum(axis=(1, 2, 3)), rtol=1e-5)


def test_arguments_out_of_range_are_refused() -> None:
    with pytest.raises(InputError, match="threads"):
        ov.load(EMBEDDED, threads=0)
    with pytest.raises(InputError, match="batch_size"):
        ov.load(EMBEDDED, batch_size=0)
    with pytest.raises(DeviceError, match="unknown device"):
        ov.load(EMBEDDED, device="gpu")
    with pytest.raises(ContractError, match="no such output"):
        ov.load(EMBEDDED, output="prob")
    with pytest.raises(ContractError, match="unknown kind"):
        ov.load(EMBEDDED, output={"kind": "softmax"})
    with pytest.raises(ContractError, match="got 3 names"):
        ov.load(EMBEDDED, labels=["a", "b", "c"])
    with pytest.raises(ModelError):
        ov.load("nothing.onnx")


def test_cuda_is_refused_in_one_sentence_where_there_is_none() -> None:
    if cuda_status().usable:
        pytest.skip("a usable CUDA device is not refused")
    with pytest.raises(DeviceError, match="CUDA is not usable"):
        ov.load(EMBEDDED, device="cuda")
    assert ov.load(EMBEDDED, device="auto").provider == "CPUExecutionProvider"


def test_stated_output_is_believed_and_an_unstated_kind_is_probed() -> None:
    stated = ov.load(EMBEDDED, output={"output": "logits", "kind": "values"})
    assert stated.output.kind == "values"
    assert not stated.output.guessed
    with pytest.raises(ContractError, match="not a classifier"):
        stated.predict(next(iter(stated.probe(1).values())))
    assert ov.load(EMBEDDED, output="logits").output.kind == "logits"

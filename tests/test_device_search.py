"""``NearestNeighbors`` on a CUDA device: the CPU's neighbours and distances, wherever the rows are."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import sklearn.base

import emulated_cuda
import onnxviz as ov
from onnxviz import backend
from onnxviz.errors import DeviceError, InputError
from onnxviz.methods.device_search import is_on_device, search_device
from onnxviz.runtime.devices import stream_of

pytestmark = pytest.mark.usefixtures("cuda_device")


@pytest.fixture
def vectors() -> np.ndarray:
    """Rows with copies and near-ties among them."""
    random = np.random.default_rng(4)
    rows = random.normal(size=(60, 37)).astype(np.float32)
    rows[41], rows[7] = rows[3], 0
    rows[50] = np.nextafter(rows[10], np.inf)
    return rows


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8])
def test_neighbours_on_a_device_are_those_of_the_cpu(vectors: np.ndarray, metric: str, dtype: type) -> None:
    rows = (np.abs(vectors) * 40).astype(dtype) if dtype == np.uint8 else vectors.astype(dtype)
    cpu = ov.NearestNeighbors(6, metric=metric).fit(rows)
    there = ov.NearestNeighbors(6, metric=metric, device="cuda").fit(rows)
    assert (cpu.device_, there.device_) == ("cpu", "cuda:0")
    for ask in (
        lambda index: index.kneighbors(),
        lambda index: index.kneighbors(rows[:9]),
        lambda index: index.kneighbors(rows[5:6].astype(np.float64) + 0.25, 60),
        lambda index: (index.kneighbors_graph(rows[:4], mode="distance").toarray(),) * 2,
    ):
        for got, wanted in zip(ask(there), ask(cpu), strict=True):
            assert isinstance(got, np.ndarray)
            assert got.dtype == wanted.dtype
            np.testing.assert_array_equal(got, wanted)
    told: list[tuple[int, int]] = []
    there.fit(rows, progress=lambda done, of: told.append((done, of)))
    assert told[-1] == (60, 60)


class Foreign:
    """An array of another library, which knows one of the two protocols."""

    def __init__(self, buffer: backend.Buffer) -> None:
        self.__cuda_array_interface__ = buffer.__cuda_array_interface__
        self.owner = buffer


@pytest.mark.parametrize("wrapped", [lambda buffer: buffer, Foreign], ids=["buffer", "interface"])
@pytest.mark.parametrize("number", [0, 1])
def test_rows_that_are_on_a_device_are_searched_there(
    vectors: np.ndarray, number: int, wrapped: Callable[[backend.Buffer], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    if number >= backend.cuda_status().device_count:
        pytest.skip("there is one CUDA device only")
    if number and wrapped is Foreign:
        pytest.skip("the CUDA array interface does not say which device")
    stream = stream_of(number)
    rows, queries = (wrapped(backend.Buffer.from_host(array, stream)) for array in (vectors, vectors[:5] + 1))
    assert is_on_device(rows)
    wanted = ov.NearestNeighbors(4).fit(vectors).kneighbors(vectors[:5] + 1)
    carried: list[np.ndarray] = []
    monkeypatch.setattr(backend.Buffer, "from_host", lambda array, _: carried.append(array))
    index = ov.NearestNeighbors(4).fit(rows)
    assert index.device_ == f"cuda:{number}"
    got = index.kneighbors(queries)
    np.testing.assert_array_equal(got[0], wanted[0])
    np.testing.assert_array_equal(got[1], wanted[1])
    graphs = [
        ov.KNeighborsTransformer(n_neighbors=4).fit(some).transform(others).toarray()
        for some, others in ((rows, queries), (vectors, vectors[:5] + 1))
    ]
    np.testing.assert_array_equal(*graphs)
    assert carried == []


@pytest.mark.gpu
@pytest.mark.parametrize("library", ["torch", "cupy"])
def test_arrays_of_other_libraries(vectors: np.ndarray, cuda_device: int, library: str) -> None:
    if emulated_cuda.folder():
        pytest.skip("torch and cupy know no emulated CUDA memory")
    module = pytest.importorskip(library, reason=f"{library} with CUDA is not installed")
    rows = module.asarray(vectors).cuda() if library == "torch" else module.asarray(vectors)
    wanted = ov.NearestNeighbors(4).fit(vectors).kneighbors()
    got = ov.NearestNeighbors(4).fit(rows).kneighbors()
    np.testing.assert_array_equal(got[0], wanted[0])
    np.testing.assert_array_equal(got[1], wanted[1])


@pytest.mark.parametrize("array", [np.zeros((2, 2)), [[1.0, 2.0]], np.float32(3), "rows", None])
def test_what_is_not_on_a_device(array: object) -> None:
    assert not is_on_device(array)
    assert search_device(None, array) is None
    assert search_device("cpu", array) is None
    assert search_device("cuda:3", array) == 3


def test_what_a_device_does_not_do_is_refused_in_a_sentence(vectors: np.ndarray, tmp_path: Path) -> None:
    rows = backend.Buffer.from_host(vectors, stream_of(0))
    index = ov.NearestNeighbors(4).fit(rows)
    for call, sentence in (
        (lambda: index.radius_neighbors(vectors), "answers no radii; got one on cuda:0. Fit it with device='cpu'"),
        (index.radius_neighbors_graph, "answers no radii"),
        (lambda: index.save(tmp_path / "index"), "an index on a CUDA device is not saved"),
        (lambda: pickle.dumps(index), "an index on a CUDA device does not pickle"),
        (lambda: index.kneighbors(vectors[:, :5]), "X has 5 features, but NearestNeighbors is expecting 37"),
        (lambda: index.kneighbors(vectors[0]), "Expected 2D array"),
        (lambda: index.kneighbors(n_neighbors=60), "not a possible number of neighbours"),
        (lambda: ov.NearestNeighbors(device="cpu").fit(rows), "the rows are on a CUDA device, and the CPU is to search"),
        (lambda: ov.NearestNeighbors(device="gpu").fit(vectors), "unknown device; got 'gpu'"),
        (lambda: ov.NearestNeighbors().fit(vectors).kneighbors(rows), "the array is on a CUDA device, and the CPU searches"),
        (lambda: ov.NearestNeighbors().fit(backend.Part.shaped(rows, (60,))), "Expected 2D array"),
        (lambda: ov.NearestNeighbors().fit(backend.Part.shaped(rows, (30, 37), "int32")), "got int32; allowed: float32"),
        (lambda: ov.NearestNeighbors(device="cuda").fit(np.full((3, 2), np.nan)), "row 0"),
    ):  # fmt: skip
        with pytest.raises(InputError) as caught:
            call()
        assert sentence in str(caught.value)
    with pytest.raises(DeviceError, match="there is no such CUDA device; got 77; allowed: 0 to"):
        ov.NearestNeighbors(device="cuda:77").fit(vectors)
    if backend.cuda_status().device_count > 1:
        with pytest.raises(InputError, match="buffer and stream are on different devices; got 0 and 1"):
            ov.NearestNeighbors(device="cuda:1").fit(rows)
    with pytest.raises(InputError, match="a bank on disk is searched by the CPU; got device='cuda'"):
        ov.NearestNeighbors(device="cuda").fit(ov.FeatureBank.create(tmp_path / "bank", columns=37))
    assert sklearn.base.clone(ov.NearestNeighbors(device="cuda:1")).device == "cuda:1"

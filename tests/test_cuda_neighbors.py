"""Neighbours on a device: bit for bit those of the index on the CPU, whatever the setup."""

from __future__ import annotations

import numpy as np
import pytest

from onnxviz.backend import Buffer, NeighborIndex, Stream
from onnxviz.backend.cuda_neighbors import CudaNeighborIndex
from onnxviz.errors import InputError
from onnxviz.methods.index_training import train


def rows_and_queries(dtype: str) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    rows = np.maximum(rng.standard_normal((60, 24)), 0).astype(dtype)
    rows[7] = rows[3]
    rows[9] = 0
    return rows, np.concatenate([rows[:4], rng.standard_normal((3, 24)).astype(dtype)])


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_answers_are_those_of_the_cpu(cuda_device: int, metric: str, dtype: str) -> None:
    rows, queries = rows_and_queries(dtype)
    stream = Stream(cuda_device)
    wanted = NeighborIndex(rows, metric=metric)
    for setup in (None, train(rows, len(rows), metric=metric)):
        index = CudaNeighborIndex(Buffer.from_host(rows, stream), metric=metric, stream=stream, setup=setup)
        assert index.shape == rows.shape
        found = index.query(Buffer.from_host(queries, stream), 5, stream=stream)
        for ours, theirs in zip(found, wanted.query(queries, 5), strict=True):
            assert ours.to_host(stream).tobytes() == theirs.tobytes()
        told: list[tuple[int, int]] = []
        found = index.query_all_rows(3, stream=stream, progress=lambda *done, told=told: told.append(done))
        for ours, theirs in zip(found, wanted.query_all_rows(3), strict=True):
            assert ours.to_host(stream).tobytes() == theirs.tobytes()
        assert told == [(0, 60)]


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize(("rows", "columns", "dtype"), [(700, 515, "float32"), (600, 300, "float64")])
def test_several_tiles_give_the_same_answers(
    cuda_device: int, metric: str, rows: int, columns: int, dtype: str
) -> None:
    rng = np.random.default_rng(3)
    parts = rng.standard_normal((rows, 24)), rng.standard_normal((24, columns))
    bank = np.maximum(parts[0] @ parts[1] + 0.3 * rng.standard_normal((rows, columns)), 0).astype(dtype)
    queries = (bank[:180] + 0.1 * rng.standard_normal((180, columns))).astype(dtype)
    queries[:40] = bank[:40]
    stream = Stream(cuda_device)
    setup = train(bank.copy(), rows, metric=metric)
    index = CudaNeighborIndex(Buffer.from_host(bank, stream), metric=metric, stream=stream, setup=setup)
    cpu = NeighborIndex(bank, metric=metric)
    for some in (queries[:1], queries[:7], queries):
        found = index.query(Buffer.from_host(some, stream), 10, stream=stream)
        for ours, theirs in zip(found, cpu.query(some, 10), strict=True):
            assert ours.to_host(stream).tobytes() == theirs.tobytes()
    for ours, theirs in zip(index.query_all_rows(5, stream=stream), cpu.query_all_rows(5), strict=True):
        assert ours.to_host(stream).tobytes() == theirs.tobytes()


def test_projections_give_the_same_answers(cuda_device: int) -> None:
    rows, queries = rows_and_queries("float32")
    stream = Stream(cuda_device)
    setup = train(rows, len(rows), metric="euclidean")
    basis = np.linalg.qr(np.random.default_rng(2).standard_normal((24, 6)))[0].T.astype(np.float32)
    setup = type(setup)(setup.mean, setup.reference, setup.scale, np.ascontiguousarray(basis))
    index = CudaNeighborIndex(Buffer.from_host(rows, stream), metric="euclidean", stream=stream, setup=setup)
    wanted = NeighborIndex(rows, metric="euclidean").query(queries, 4)
    for start in ((True, True), (False, False)):
        index.start = start
        assert index.start == start
        found = index.query(Buffer.from_host(queries, stream), 4, stream=stream)
        assert found[0].to_host(stream).tobytes() == wanted[0].tobytes()
        assert np.array_equal(found[1].to_host(stream), wanted[1])


def test_what_cannot_be_searched_is_refused(cuda_device: int) -> None:
    rows, queries = rows_and_queries("float32")
    stream = Stream(cuda_device)
    bank = Buffer.from_host(rows, stream)

    def refusal(call) -> str:
        with pytest.raises(InputError) as caught:
            call()
        return str(caught.value)

    index = CudaNeighborIndex(bank, metric="euclidean", stream=stream)
    there = Buffer.from_host(queries, stream)
    for k in (0, -1, 61, 10**15):
        assert "allowed: 1 to 60" in refusal(lambda k=k: index.query(there, k, stream=stream))
        assert "allowed: 1 to 60" in refusal(lambda k=k: index.query_all_rows(k, stream=stream))
    narrow = Buffer.from_host(queries[:, :5], stream)
    assert "5 columns, the bank has 24" in refusal(lambda: index.query(narrow, 1, stream=stream))
    assert "2 axes" in refusal(lambda: index.query(Buffer.from_host(queries[0], stream), 1, stream=stream))
    whole = Buffer.from_host(queries.astype(np.int32), stream)
    assert "int32" in refusal(lambda: index.query(whole, 1, stream=stream))
    assert "'angle'" in refusal(lambda: CudaNeighborIndex(bank, metric="angle", stream=stream))
    assert "no rows" in refusal(lambda: CudaNeighborIndex(Buffer((0, 3), "float32"), metric="cosine", stream=stream))
    assert "no projections" in refusal(lambda: setattr(index, "start", (True, False)))
    rows[41, 2] = np.nan
    spoilt = Buffer.from_host(rows, stream)
    assert "row 41 of the bank" in refusal(lambda: CudaNeighborIndex(spoilt, metric="cosine", stream=stream))
    assert "row 41 of the queries" in refusal(lambda: index.query(spoilt, 1, stream=stream))
    assert CudaNeighborIndex.nbytes(60, 24) == 60 * (64 + 48) + 24 * 8
    assert index.search_nbytes(7, 5) > 0

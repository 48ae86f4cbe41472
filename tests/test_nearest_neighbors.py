"""Nearest neighbours: exact on banks that break other programs, and in scikit-learn's shape."""

from __future__ import annotations

import hashlib
import os
import pickle
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import onnxviz as ov
from onnxviz import _core, backend
from onnxviz.backend.neighbors import power_of_two_below
from onnxviz.errors import InputError
from onnxviz.methods import index_training, nearest_neighbors
from oracles import nearest_rows


def make_bank(kind: str, rows: int, columns: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    normal = rng.standard_normal((rows, columns))
    match kind:
        case "normal":
            bank = normal
        case "after a ReLU":
            bank = np.maximum(normal, 0)
        case "offset 1e4":
            bank = 1e4 + normal
        case "near duplicates":
            # A few steps of float32 apart: every squared distance is a whole multiple of 2**-38.
            bank = np.full((rows, columns), np.float32(rng.uniform(16, 32)), np.float64)
            bank += 2.0**-19 * rng.integers(0, 4, bank.shape) * (rng.random(bank.shape) < 0.05)
        case "duplicates":
            bank = normal[rng.integers(0, max(rows // 7, 1), rows)]
        case "one large channel":
            bank = np.ones((rows, columns))
            bank[:, 0] = rng.uniform(-3000, 3000, rows)
        case "one hot":
            bank = 64.0 * (np.arange(columns) == (np.arange(rows) % columns)[:, np.newaxis])
        case "zeros, 1e-20 and 1e15":
            bank = normal * np.array([0, 1e-20, 1e15])[np.arange(rows) % 3][:, np.newaxis]
        case "integers":
            bank = rng.integers(0, 3, (rows, columns)).astype(np.float64)
        case _:
            raise ValueError(kind)
    return bank


KINDS = (
    "normal", "after a ReLU", "offset 1e4", "near duplicates", "duplicates", "one large channel", "one hot",
    "zeros, 1e-20 and 1e15", "integers",
)  # fmt: skip


# -- exactness -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("rows", "columns"), [(150, 96), (65, 300), (5, 1)])
def test_neighbours_are_those_of_float64_brute_force(kind: str, dtype: type, rows: int, columns: int) -> None:
    bank = make_bank(kind, rows, columns).astype(dtype)
    queries = np.concatenate([bank[::4], make_bank(kind, 9, columns, seed=1).astype(dtype)])
    k = min(7, rows)
    distances, indices = ov.NearestNeighbors(k).fit(bank).kneighbors(queries)
    expected_distances, expected_indices = nearest_rows(bank, queries, k)
    np.testing.assert_array_equal(indices, expected_indices)
    np.testing.assert_allclose(distances, expected_distances, rtol=1e-13)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "near duplicates"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_cosine_is_that_of_normalised_float64_rows(kind: str, dtype: type) -> None:
    bank = make_bank(kind, 120, 40).astype(dtype)
    bank[[3, 50]] = 0
    queries = np.concatenate([bank[:9], make_bank(kind, 9, 40, seed=1).astype(dtype)])
    distances, indices = ov.NearestNeighbors(120, metric="cosine").fit(bank).kneighbors(queries)
    expected, _ = nearest_rows(bank, queries, 120, "cosine")
    np.testing.assert_allclose(distances, expected, rtol=1e-12, atol=1e-15)
    # Rows that differ only by rounding in the last place may change places: the distances at their indices say so.
    at_indices = np.stack([
        one[np.argsort(order)][index]
        for one, order, index in zip(*nearest_rows(bank, queries, 120, "cosine"), indices, strict=True)
    ])  # fmt: skip
    np.testing.assert_allclose(distances, at_indices, rtol=1e-12, atol=1e-15)
    assert all(sorted(row) == list(range(120)) for row in indices.tolist())


def test_a_row_of_zeros_is_at_cosine_distance_one_from_everything() -> None:
    bank = np.array([[0, 0], [1, 0], [0, 0], [-1, 0], [0, 2]], np.float32)
    distances, indices = ov.NearestNeighbors(5, metric="cosine").fit(bank).kneighbors(bank[:2])
    assert indices.tolist() == [[0, 1, 2, 3, 4], [1, 0, 2, 4, 3]]
    assert distances.tolist() == [[1, 1, 1, 1, 1], [0, 1, 1, 1, 2]]


def test_cosine_tells_directions_apart_that_1_minus_cos_cannot() -> None:
    angles = np.array([0, 3e-9, 1e-9])
    bank = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    distances, indices = ov.NearestNeighbors(3, metric="cosine").fit(bank).kneighbors(bank[:1])
    assert indices.tolist() == [[0, 2, 1]]
    np.testing.assert_allclose(distances, [[0, 0.5e-18, 4.5e-18]], rtol=1e-6)


def test_cosine_survives_numbers_whose_squares_do_not() -> None:
    directions = np.random.default_rng(0).standard_normal((20, 8))
    expected = ov.NearestNeighbors(20, metric="cosine").fit(directions).kneighbors(directions)
    for scale in (2.0**-1060, 2.0**-600, 2.0**490):
        got = ov.NearestNeighbors(20, metric="cosine").fit(directions * scale).kneighbors(directions)
        np.testing.assert_array_equal(got[1], expected[1])
        # 2**-1060 leaves a dozen bits of each number.
        np.testing.assert_allclose(got[0], expected[0], atol=1e-2 if scale < 2.0**-1000 else 1e-15)


@given(
    st.integers(1, 90), st.integers(1, 6), st.integers(1, 40), st.integers(0, 2**32 - 1),
    st.sampled_from([np.float32, np.float64]),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_ties_go_to_the_lower_row(rows: int, columns: int, count: int, seed: int, dtype: type) -> None:
    rng = np.random.default_rng(seed)
    bank, queries = (rng.integers(-2, 3, (n, columns)).astype(dtype) for n in (rows, count))
    k = int(rng.integers(1, rows + 1))
    distances, indices = ov.NearestNeighbors(k).fit(bank).kneighbors(queries)
    expected_distances, expected_indices = nearest_rows(bank, queries, k)
    np.testing.assert_array_equal(indices, expected_indices)
    np.testing.assert_array_equal(distances, expected_distances)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_scikit_learn_finds_the_same(metric: str) -> None:
    from sklearn.neighbors import NearestNeighbors

    bank, queries = make_bank("after a ReLU", 700, 128), make_bank("after a ReLU", 60, 128, seed=1)
    theirs = NearestNeighbors(n_neighbors=9, metric=metric, algorithm="brute").fit(bank)
    ours = ov.NearestNeighbors(9, metric=metric).fit(bank)
    for arguments in ((queries,), ()):
        distances, indices = ours.kneighbors(*arguments)
        their_distances, their_indices = theirs.kneighbors(*arguments)
        np.testing.assert_array_equal(indices, their_indices)
        np.testing.assert_allclose(distances, their_distances, rtol=1e-6)


def test_faiss_finds_the_same(faiss: object) -> None:
    bank = make_bank("after a ReLU", 500, 64).astype(np.float32)
    index = faiss.IndexFlatL2(64)  # type: ignore[attr-defined]
    index.add(bank)
    squared, indices = index.search(bank[:40], 6)
    distances, ours = ov.NearestNeighbors(6).fit(bank).kneighbors(bank[:40])
    np.testing.assert_array_equal(ours, indices)
    np.testing.assert_allclose(distances, np.sqrt(squared), rtol=1e-5, atol=1e-6)


def test_near_duplicate_frames_that_a_float32_product_cannot_tell_apart() -> None:
    bank = make_bank("near duplicates", 400, 4096).astype(np.float32)
    queries = bank[:24]
    distances, indices = ov.NearestNeighbors(5).fit(bank).kneighbors(queries)
    expected_distances, expected_indices = nearest_rows(bank, queries, 5)
    np.testing.assert_array_equal(indices, expected_indices)
    np.testing.assert_allclose(distances, expected_distances, rtol=1e-14)
    # That is, the case is what it claims to be: norms minus twice the product gives another answer here.
    norms = (bank**2).sum(axis=1)
    naive = norms[np.newaxis] + norms[:24, np.newaxis] - 2 * queries @ bank.T
    assert (np.argsort(naive, axis=1, kind="stable")[:, :5] != expected_indices).any()


def outlier_channel() -> tuple[np.ndarray, np.ndarray]:
    """4,000 rows that differ in one channel, which is thousands of times the others."""
    bank = np.ones((4000, 4096), np.float32)
    bank[:, 0] = np.random.default_rng(0).uniform(-3000, 3000, 4000)
    return bank, bank[:64]


def offset_features() -> tuple[np.ndarray, np.ndarray]:
    bank = np.random.default_rng(1).normal(30, 0.05, (3000, 1024)).astype(np.float32)
    return bank, bank[::100]


def low_rank() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(2)
    bank = rng.normal(size=(2500, 6)) @ rng.normal(size=(6, 768))
    return bank.astype(np.float32), np.concatenate([bank[:20], rng.normal(size=(6, 768))]).astype(np.float32)


def mirrored_pairs() -> tuple[np.ndarray, np.ndarray]:
    rows = np.maximum(np.random.default_rng(3).normal(size=(1200, 600)), 0).astype(np.float32)
    return np.concatenate([rows, rows]), rows[::50]


def unlike_the_bank() -> tuple[np.ndarray, np.ndarray]:
    """Queries that the levels were not made for: larger, one-hot, zero, far away."""
    rng = np.random.default_rng(4)
    bank = np.maximum(rng.normal(size=(2200, 512)), 0).astype(np.float32)
    hot = 64 * np.eye(512, dtype=np.float32)[:5]
    return bank, np.concatenate([hot, 1e3 * bank[:5], np.zeros((1, 512), np.float32), bank[:3] + np.float32(1e12)])


@pytest.mark.parametrize("make", [offset_features, low_rank, mirrored_pairs, unlike_the_bank])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kept", ["bytes", "no bytes"])
def test_banks_with_projected_levels_are_exact_from_every_start(
    make, dtype: type, kept: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Most of these would go without projections, which rule out too little of them.
    monkeypatch.setattr(index_training, "_MOST_IN_DOUBT", 1.0)
    if kept == "no bytes":
        monkeypatch.setattr(index_training, "_FEW_DIRECTIONS", 128)
        monkeypatch.setattr(index_training, "_MANY_DIRECTIONS", 200)
        monkeypatch.setattr(index_training, "_FEWEST_ROWS_FOR_MANY", 0)
        monkeypatch.setattr(index_training, "_FEWEST_VARIANCE_FOR_MANY", 0)
        monkeypatch.setattr(index_training, "_MOST_IN_DOUBT_OF_MANY", -1)
        monkeypatch.setattr(index_training, "_MOST_LEFT_WITHOUT_BYTES", 1.0)
    bank, queries = (part.astype(dtype) for part in make())
    index = ov.NearestNeighbors(5).fit(bank)
    assert index._index.setup.projected
    assert index._index.setup.bytes == (kept == "bytes")
    expected_distances, expected = nearest_rows(bank, queries, 5)
    for start in range(len(index._index.setup.projected) + (2 if kept == "bytes" else 1)):
        index._index.start = (start, start, start)
        for many in (queries, queries[:1]):
            distances, indices = index.kneighbors(many)
            np.testing.assert_array_equal(indices, expected[: len(many)])
            np.testing.assert_allclose(distances, expected_distances[: len(many)], rtol=1e-12)


def test_one_channel_thousands_of_times_the_others() -> None:
    bank, queries = outlier_channel()
    distances, indices = ov.NearestNeighbors(5).fit(bank).kneighbors(queries)
    expected_distances, expected = nearest_rows(bank, queries, 5)
    np.testing.assert_array_equal(indices, expected)
    np.testing.assert_allclose(distances, expected_distances, rtol=1e-12)


def test_squares_that_underflow_beside_others_that_do_not() -> None:
    random = np.random.default_rng(3)
    rows = random.standard_normal((256, 1)) * np.where(np.arange(256) % 2, 2.0**-542, 2.0**-480)[:, np.newaxis]
    # Between the small rows every distance is 0; at the scale of the large ones their codes would say otherwise.
    scale = power_of_two_below(float(np.abs(rows).max()))
    setup = backend.IndexSetup(np.zeros(1), np.zeros(1), scale, np.zeros((0, 1), np.float32))
    distances, indices = backend.NeighborIndex(rows, metric="euclidean", setup=setup).query(rows, 5)
    expected_distances, expected = nearest_rows(rows, rows, 5)
    np.testing.assert_array_equal(indices, expected)
    np.testing.assert_array_equal(distances, expected_distances)


def test_constant_rows_a_few_bits_apart() -> None:
    rng = np.random.default_rng(0)
    for base in rng.uniform(16, 32, 12):
        bank = np.full((400, 4096), base, np.float32)
        for row in bank:
            row[rng.choice(4096, rng.integers(0, 200), replace=False)] += np.float32(2**-19) * rng.integers(1, 4)
        # Every squared distance is a whole multiple of 2**-38, so the float64 sums are exact.
        expected = nearest_rows(bank, bank[:16], 5)
        for k in (1, 5):
            distances, indices = ov.NearestNeighbors(k).fit(bank).kneighbors(bank[:16])
            np.testing.assert_array_equal(indices, expected[1][:, :k])
            np.testing.assert_array_equal(distances, expected[0][:, :k])


@pytest.mark.parametrize(("rows", "columns"), [(40, 2), (300, 32_768), (6, 70_000), (5000, 2)])
def test_any_number_of_columns(rows: int, columns: int) -> None:
    bank = np.maximum(np.random.default_rng(5).normal(size=(rows, columns)), 0).astype(np.float32)
    queries = bank[:: max(1, rows // 12)] * np.float32(1.01)
    distances, indices = ov.NearestNeighbors(4).fit(bank).kneighbors(queries)
    expected_distances, expected = nearest_rows(bank, queries, 4)
    np.testing.assert_array_equal(indices, expected)
    np.testing.assert_allclose(distances, expected_distances, rtol=1e-12)


@pytest.mark.parametrize("k", [1, 37, 2100])
def test_any_number_of_neighbours(k: int) -> None:
    bank = np.maximum(np.random.default_rng(6).normal(size=(2100, 512)), 0).astype(np.float32)
    distances, indices = ov.NearestNeighbors(k).fit(bank).kneighbors(bank[:5])
    expected_distances, expected = nearest_rows(bank, bank[:5], k)
    np.testing.assert_array_equal(indices, expected)
    np.testing.assert_allclose(distances, expected_distances, rtol=1e-12)


def digest_of_all_banks(threads: int) -> str:
    digest = hashlib.sha256()
    for kind in KINDS:
        for dtype in (np.float32, np.float64):
            for metric in ("euclidean", "cosine"):
                bank = make_bank(kind, 260, 131).astype(dtype)
                queries = np.concatenate([bank[:50], make_bank(kind, 13, 131, seed=2).astype(dtype)])
                index = backend.NeighborIndex(bank, metric=metric, threads=threads)
                for rows in (queries, queries[:3]):
                    for part in index.query(rows, 11, threads=threads):
                        digest.update(part.tobytes())
    for bank, queries in (low_rank(), unlike_the_bank()):
        fitted = ov.NearestNeighbors(7, n_jobs=threads).fit(bank)
        for rows in (queries, queries[:1]):
            for part in fitted.kneighbors(rows):
                digest.update(part.tobytes())
    return digest.hexdigest()


@pytest.mark.parametrize("level", [level for level in _core.cpu_levels() if _core.cpu_runs(level)])
def test_every_instruction_set_and_number_of_threads_gives_the_same_bytes(level: str) -> None:
    code = "import test_nearest_neighbors as t; print(t.backend.cpu_level(), *(t.digest_of_all_banks(n) for n in (1, 2, 5)))"
    environment = os.environ | {
        "ONNXVIZ_CPU": level,
        # No empty part: it would mean the working folder, whose sources hide the installed package.
        "PYTHONPATH": os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")])),
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300, check=True
    )
    got_level, *digests = done.stdout.split()
    assert got_level == level
    assert digests == [digest_of_all_banks(1)] * 3


def test_one_index_answers_many_threads_at_once() -> None:
    bank = make_bank("normal", 2000, 64).astype(np.float32)
    index = ov.NearestNeighbors(5, n_jobs=2).fit(bank)
    expected = index.kneighbors(bank[:200])
    found: list[bool] = []

    def ask() -> None:
        for _ in range(5):
            got = index.kneighbors(bank[:200])
            found.append(all(np.array_equal(a, b) for a, b in zip(got, expected, strict=True)))

    askers = [threading.Thread(target=ask) for _ in range(6)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    assert found == [True] * 30


def test_more_candidates_than_are_kept_at_once() -> None:
    # All rows are equally near, so that nothing can be ruled out and the list of candidates fills several times over.
    bank = np.zeros((20_000, 3), np.float32)
    bank[:, 0] = np.where(np.arange(20_000) % 2, 1, -1)
    bank[17_777] = 0.25
    distances, indices = ov.NearestNeighbors(4).fit(bank).kneighbors(np.zeros((1, 3), np.float32))
    assert indices.tolist() == [[17_777, 0, 1, 2]]
    assert distances[0, 1:].tolist() == [1, 1, 1]


def test_an_index_keeps_its_bank_alive() -> None:
    index = backend.NeighborIndex(make_bank("normal", 64, 8), metric="euclidean")
    np.testing.assert_array_equal(index.query(make_bank("normal", 64, 8), 1)[1][:, 0], np.arange(64))


# -- scikit-learn's shape ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["normal", "duplicates"])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_without_queries_each_row_is_left_out_itself(kind: str, metric: str) -> None:
    bank = make_bank(kind, 60, 5)
    distances, indices = ov.NearestNeighbors(4, metric=metric).fit(bank).kneighbors()
    assert not (indices == np.arange(60)[:, np.newaxis]).any()
    for row in range(60):
        rest = np.delete(np.arange(60), row)
        expected, order = ov.NearestNeighbors(4, metric=metric).fit(bank[rest]).kneighbors(bank[row : row + 1])
        np.testing.assert_array_equal(indices[row], rest[order[0]])
        np.testing.assert_array_equal(distances[row], expected[0])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_meeting_each_other_finds_what_asking_for_each_finds(kind: str, metric: str, dtype: type) -> None:
    bank = make_bank(kind, 150, 70).astype(dtype)
    bank[[3, 50, 149]] = 0
    index = ov.NearestNeighbors(6, metric=metric).fit(bank)
    got = index.kneighbors()
    wanted = nearest_neighbors.leave_out(np.arange(150), *index.kneighbors(bank, 7))
    for ours, theirs in zip(got, wanted, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_only_indices_when_asked() -> None:
    bank = make_bank("normal", 10, 4)
    index = ov.NearestNeighbors(3).fit(bank)
    np.testing.assert_array_equal(index.kneighbors(bank, return_distance=False), index.kneighbors(bank)[1])
    assert index.kneighbors(bank, n_neighbors=10)[1].shape == (10, 10)
    assert (index.n_features_in_, index.n_samples_fit_, index.effective_metric_) == (4, 10, "euclidean")


@pytest.mark.parametrize("dtype", ["float16", "uint8", "int16", "int32", "bool", "object", ">f4", ">f8"])
def test_other_types_are_converted_without_loss(dtype: str) -> None:
    bank = np.random.default_rng(0).integers(0, 2, (30, 6)).astype(dtype)
    distances, indices = ov.NearestNeighbors(5).fit(bank).kneighbors(bank[:9])
    expected = nearest_rows(bank, bank[:9], 5)
    np.testing.assert_array_equal(distances, expected[0])
    np.testing.assert_array_equal(indices, expected[1])


def test_float64_is_not_narrowed() -> None:
    bank = np.array([[1.0], [1.0 + 2.0**-40], [1.0 + 2.0**-41]])
    assert ov.NearestNeighbors(3).fit(bank).kneighbors([[1.0 + 2.0**-40]])[1].tolist() == [[1, 2, 0]]
    # Nor is a float64 query beside a float32 bank.
    narrow = np.array([[1.0], [1.0 + 2.0**-23]], np.float32)
    query = np.array([[1.0 + 2.0**-24 + 2.0**-40]])
    assert ov.NearestNeighbors(1).fit(narrow).kneighbors(query)[1].tolist() == [[1]]
    assert ov.NearestNeighbors(1).fit(bank).kneighbors(np.ones((1, 1), np.float32))[0].tolist() == [[0]]


def test_the_memory_layout_does_not_matter() -> None:
    bank = make_bank("normal", 40, 12).astype(np.float32)
    expected = ov.NearestNeighbors(4).fit(bank).kneighbors(bank)
    strided = np.repeat(bank, 2, axis=1)[:, ::2]
    for other in (np.asfortranarray(bank), strided, bank[::-1][::-1]):
        got = ov.NearestNeighbors(4).fit(other).kneighbors(other)
        np.testing.assert_array_equal(got[0], expected[0])
        np.testing.assert_array_equal(got[1], expected[1])


class Sparse:
    def tocsr(self) -> None: ...


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (np.array([[1.0, 2], [3, np.nan], [np.inf, 4]]), "row 1 of the bank holds NaN, infinity"),
        (np.array([[1.0, 2], [3, 4], [-np.inf, 4]], np.float32), "row 2 of the bank"),
        (np.array([[1e200, 0]]), "beyond 1e150"),
        (np.zeros((0, 3)), "0 sample"),
        (np.zeros((3, 0)), "0 feature"),
        (np.zeros(3), "Reshape your data"),
        (np.zeros((2, 2, 2)), "2D array"),
        (np.zeros((2, 2), complex), "Complex data not supported"),
        ([["a", "b"]], "not numbers"),
        ([[{}, 1]], "not numbers"),
        (Sparse(), "toarray"),
    ],
)
def test_what_cannot_be_measured_is_refused(X: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ov.NearestNeighbors(1).fit(X)


def test_wrong_queries_are_refused() -> None:
    index = ov.NearestNeighbors(2).fit(np.zeros((5, 3)))
    queries = np.zeros((1500, 3))
    queries[1200, 1] = np.nan
    with pytest.raises(InputError, match="row 1200 of the queries"):
        index.kneighbors(queries)
    with pytest.raises(InputError, match="X has 4 features, but NearestNeighbors is expecting 3 features"):
        index.kneighbors(np.zeros((1, 4)))
    for wrong in (0, -1, 6, 2.0, True, "2"):
        with pytest.raises(InputError, match="allowed: 1 to 5"):
            index.kneighbors(np.zeros((1, 3)), n_neighbors=wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"allowed: 1 to 4 \(each row itself is left out\)"):
        index.kneighbors(n_neighbors=5)
    with pytest.raises(InputError, match="k is 6"):
        backend.NeighborIndex(np.zeros((5, 3)), metric="euclidean").query(np.zeros((0, 3)), 6)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("given", [True, False], ids=["queries", "the rows themselves"])
def test_graphs_and_radii_are_those_of_scikit_learn(metric: str, given: bool) -> None:
    from sklearn.neighbors import NearestNeighbors

    bank = make_bank("after a ReLU", 300, 40)
    queries = make_bank("after a ReLU", 25, 40, seed=1) if given else None
    theirs = NearestNeighbors(n_neighbors=6, metric=metric, algorithm="brute").fit(bank)
    ours = ov.NearestNeighbors(6, metric=metric).fit(bank)
    radius = float(np.median(theirs.kneighbors(queries)[0]))
    for mode in ("connectivity", "distance"):
        for got, wanted in (
            (ours.kneighbors_graph(queries, mode=mode), theirs.kneighbors_graph(queries, mode=mode)),
            (ours.radius_neighbors_graph(queries, radius, mode), theirs.radius_neighbors_graph(queries, radius, mode)),
        ):
            assert got.shape == wanted.shape
            np.testing.assert_allclose(got.toarray(), wanted.toarray(), rtol=1e-6, atol=1e-9)
    distances, indices = ours.radius_neighbors(queries, radius)
    their_distances, their_indices = theirs.radius_neighbors(queries, radius, sort_results=True)
    assert 0 < sum(map(len, indices)) < 300 * len(indices)
    for row in range(len(indices)):
        np.testing.assert_array_equal(indices[row], their_indices[row])
        np.testing.assert_allclose(distances[row], their_distances[row], rtol=1e-6, atol=1e-9)
    for row, alone in enumerate(ours.radius_neighbors(queries, radius, return_distance=False)):
        np.testing.assert_array_equal(alone, indices[row])


@given(st.integers(1, 80), st.integers(1, 5), st.integers(0, 6), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_the_border_of_a_radius_belongs_to_it(rows: int, columns: int, squared: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    bank, queries = (rng.integers(-2, 3, (n, columns)).astype(np.float32) for n in (rows, 7))
    radius = float(np.sqrt(squared))
    distances, indices = ov.NearestNeighbors(1).fit(bank).radius_neighbors(queries, radius)
    for row, query in enumerate(queries):
        exact = ((bank.astype(np.float64) - query) ** 2).sum(axis=1)
        inside = np.flatnonzero(exact <= squared)
        wanted = inside[np.argsort(exact[inside], kind="stable")]
        np.testing.assert_array_equal(indices[row], wanted)
        np.testing.assert_array_equal(distances[row], np.sqrt(exact[wanted]))


def test_what_is_no_radius_and_no_graph_is_refused() -> None:
    index = ov.NearestNeighbors(1).fit(np.zeros((4, 3)))
    for wrong in (-1, "far", float("nan")):
        with pytest.raises(InputError, match="0 or more"):
            index.radius_neighbors(np.zeros((1, 3)), wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="'connectivity', 'distance'"):
        index.kneighbors_graph(mode="heat")
    with pytest.raises(InputError, match="return_distance"):
        index.radius_neighbors(np.zeros((1, 3)), return_distance=False, sort_results=True)
    assert [len(found) for found in index.radius_neighbors(np.ones((2, 3)), 0.5)[1]] == [0, 0]


def test_the_transformer_feeds_t_sne_as_scikit_learns_does() -> None:
    from sklearn.manifold import TSNE
    from sklearn.neighbors import KNeighborsTransformer
    from sklearn.pipeline import make_pipeline

    bank = make_bank("after a ReLU", 80, 30)
    ours = ov.KNeighborsTransformer(n_neighbors=31)
    theirs = KNeighborsTransformer(n_neighbors=31, algorithm="brute")
    got, wanted = ours.fit_transform(bank), theirs.fit_transform(bank)
    np.testing.assert_allclose(got.toarray(), wanted.toarray(), rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(np.diff(got.indptr), 32)
    np.testing.assert_allclose(ours.transform(bank[:3]).toarray(), theirs.transform(bank[:3]).toarray(), atol=1e-6)
    assert (ov.KNeighborsTransformer(mode="connectivity", n_neighbors=4).fit_transform(bank).sum(axis=1) == 4).all()
    assert list(ours.get_feature_names_out()[:2]) == ["kneighborstransformer0", "kneighborstransformer1"]
    maps = [
        make_pipeline(graph, TSNE(metric="precomputed", init="random", perplexity=10, random_state=0, max_iter=250))
        .fit_transform(bank)
        for graph in (ours, theirs)
    ]  # fmt: skip
    assert np.isfinite(maps[0]).all()
    assert maps[0].shape == maps[1].shape == (80, 2)


def test_open_tsne_takes_the_graph() -> None:
    openTSNE = pytest.importorskip("openTSNE", reason="openTSNE is not installed")
    bank = make_bank("after a ReLU", 120, 30)
    distances, indices = ov.NearestNeighbors(30).fit(bank).kneighbors()
    neighbours = openTSNE.nearest_neighbors.PrecomputedNeighbors(indices, distances)
    affinities = openTSNE.affinity.PerplexityBasedNN(perplexity=10, knn_index=neighbours)
    assert affinities.P.shape == (120, 120)
    np.testing.assert_allclose(affinities.P.sum(), 1)


def test_wrong_parameters_are_refused() -> None:
    with pytest.raises(InputError, match="'euclidean', 'cosine'"):
        ov.NearestNeighbors(metric="manhattan").fit(np.zeros((2, 2)))
    with pytest.raises(InputError, match="1 or more"):
        ov.NearestNeighbors(0).fit(np.zeros((2, 2)))
    with pytest.raises(InputError, match="no such parameter"):
        ov.NearestNeighbors().set_params(k=3)


def test_scikit_learn_takes_it_for_one_of_its_own() -> None:
    from sklearn.base import clone
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.estimator_checks import check_estimator

    with pytest.raises(NotFittedError):
        ov.NearestNeighbors().kneighbors(np.zeros((1, 1)))
    copy = clone(ov.NearestNeighbors(7, metric="cosine", n_jobs=2))
    assert copy.get_params() == {
        "n_neighbors": 7, "radius": 1.0, "metric": "cosine", "n_jobs": 2, "device": None,
    }  # fmt: skip
    with warnings.catch_warnings():
        # It warns that the class does not inherit from BaseEstimator, which would load scikit-learn on import.
        warnings.simplefilter("ignore")
        for estimator in (ov.NearestNeighbors(1), ov.KNeighborsTransformer(n_neighbors=1)):
            results = check_estimator(
                estimator, on_fail=None,
                expected_failed_checks={"check_dtype_object": "ours is a ValueError, as for all other bad input"},
            )  # fmt: skip
            assert len(results) > 30
            assert [result["check_name"] for result in results if result["status"] == "failed"] == []


def test_a_fitted_index_pickles() -> None:
    bank = make_bank("normal", 30, 4)
    index = ov.NearestNeighbors(3, metric="cosine").fit(bank)
    again = pickle.loads(pickle.dumps(index))
    for ours, theirs in zip(index.kneighbors(bank), again.kneighbors(bank), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_memory_of_an_index_that_comes_back_begins_with_a_cache_line(tmp_path: Path) -> None:
    bank = make_bank("normal", 300, 520)
    index = ov.NearestNeighbors(3).fit(bank)
    index.save(tmp_path / "index")
    for again in (ov.NearestNeighbors.open(tmp_path / "index"), pickle.loads(pickle.dumps(index))):
        assert [name for name, array in again._index.arrays.items() if array.ctypes.data % 64] == []
        for ours, theirs in zip(index.kneighbors(bank), again.kneighbors(bank), strict=True):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("start", [0, 1, 2])
def test_a_lone_query_changes_its_start_on_the_way(start: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # Several levels of directions, and more rows than the ones that choose where the others start.
    monkeypatch.setattr(index_training, "_FEWEST_ROWS_FOR_MANY", 10_000)
    monkeypatch.setattr(index_training, "_MANY_DIRECTIONS", 384)
    monkeypatch.setattr(index_training, "_LEVELS", ((128, 8), (256, 4), (384, 4)))
    monkeypatch.setattr(index_training, "_MOST_IN_DOUBT_OF_MANY", 0)
    monkeypatch.setattr(index_training, "_FEWEST_VARIANCE_FOR_MANY", 0)
    random = np.random.default_rng(5)
    falling = np.arange(1, 769, dtype=np.float32) ** -0.4
    bank = random.standard_normal((20_000, 768), np.float32) * falling
    strangers = 1.1 * random.standard_normal((6, 768), np.float32) * falling
    index = ov.NearestNeighbors(5, n_jobs=2).fit(bank)
    assert len(index._index.setup.projected) == 3
    index._index.start = (start, start, index._index.start[2])
    distances, rows = index.kneighbors(strangers, 5)
    for query, nearest, which in zip(strangers, distances, rows, strict=True):
        squares = ((bank.astype(np.float64) - query.astype(np.float64)) ** 2).sum(axis=1)
        expected = np.argsort(squares, kind="stable")[:5]
        alone = index.kneighbors(query[np.newaxis], 5)
        np.testing.assert_array_equal(alone[1][0], expected)
        np.testing.assert_array_equal(which, expected)
        np.testing.assert_allclose(alone[0][0], np.sqrt(squares[expected]), rtol=1e-12)
        np.testing.assert_array_equal(alone[0][0], nearest)

"""Nearest neighbours: exact on banks that break other programs, and the strips made of them."""

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
from embedded_cifar import cifar_model, picture_set, pictures
from onnxviz import backend
from onnxviz.errors import InputError, ValueNotFoundError
from onnxviz.methods import neighbors as module
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
    return digest.hexdigest()


@pytest.mark.parametrize("level", [level for level in backend._core.cpu_levels() if backend._core.cpu_runs(level)])
def test_every_instruction_set_and_number_of_threads_gives_the_same_bytes(level: str) -> None:
    code = "import test_neighbors as t; print(t.backend.cpu_level(), *(t.digest_of_all_banks(n) for n in (1, 2, 5)))"
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
    assert copy.get_params() == {"n_neighbors": 7, "metric": "cosine", "n_jobs": 2}
    with warnings.catch_warnings():
        # It warns that the class does not inherit from BaseEstimator, which would load scikit-learn on import.
        warnings.simplefilter("ignore")
        results = check_estimator(
            ov.NearestNeighbors(1), on_fail=None,
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


# -- strips --------------------------------------------------------------------------------------------------------


def test_strips_of_the_neighbours_in_both_spaces() -> None:
    model = cifar_model()
    labels = np.arange(40) % 4
    images = picture_set(40, labels=labels, class_names=("a", "b", "c", "d"))
    got = ov.neighbors(model, images, n_neighbors=3, queries=8, seed=1)
    vectors = ov.features(model, images).array
    assert vectors.shape == (40, 4096)
    pixels = pictures(40).reshape(40, -1).astype(np.float32)
    assert sorted(np.bincount(labels[got.queries]).tolist()) == [2, 2, 2, 2]
    spaces = (
        (vectors, got.feature_distances, got.feature_indices, got.feature_accuracy),
        (pixels, got.pixel_distances, got.pixel_indices, got.pixel_accuracy),
    )
    for rows, distances, indices, accuracy in spaces:
        hits = 0
        for row in range(40):
            others = np.delete(np.arange(40), row)
            near, order = nearest_rows(rows[others], rows[row : row + 1], 3)
            near_rows = others[order[0]]
            votes = labels[near_rows].tolist()
            hits += max(votes, key=lambda vote: (votes.count(vote), -votes.index(vote))) == labels[row]
            for query in np.flatnonzero(got.queries == row):
                np.testing.assert_array_equal(indices[query], near_rows)
                np.testing.assert_allclose(distances[query], near[0], rtol=1e-13)
        assert accuracy == hits / 40
    assert set(got.shown) == {*got.queries, *got.feature_indices.ravel(), *got.pixel_indices.ravel()}
    assert got.thumbnails.shape == (len(got.shown), 112, 112, 3)
    assert got.class_names == ("a", "b", "c", "d")
    assert got.provenance.parameters["pixel_size"] == [32, 32]
    again = ov.neighbors(model, images, n_neighbors=3, queries=8, seed=1)
    np.testing.assert_array_equal(got.queries, again.queries)


def test_unreadable_and_unlabelled_images_are_left_out(tmp_path: Path) -> None:
    from PIL import Image

    for name, picture in zip("abcdef", pictures(6), strict=True):
        Image.fromarray(picture).save(tmp_path / f"{name}.png")
    broken = (tmp_path / "c.png").read_bytes()
    (tmp_path / "c.png").write_bytes(broken[: len(broken) // 2])
    got = ov.neighbors(cifar_model(), ov.load_images(tmp_path, cifar_model()), n_neighbors=2, queries=20)
    assert got.names == ("a.png", "b.png", "d.png", "e.png", "f.png")
    assert got.queries.tolist() == [0, 1, 2, 3, 4]
    assert got.feature_accuracy is None
    assert got.classes is None
    some = picture_set(6, labels=np.array([0, 0, -1, 1, 1, -1]))
    twins = ov.neighbors(cifar_model(), some, n_neighbors=2)
    assert twins.feature_accuracy is not None
    assert twins.feature_accuracy * 4 == round(twins.feature_accuracy * 4)


def test_many_pixels_are_compared_at_a_lower_resolution(monkeypatch: pytest.MonkeyPatch) -> None:
    images = picture_set(10)
    full = ov.neighbors(cifar_model(), images, n_neighbors=1)
    monkeypatch.setattr(module, "_PIXEL_BYTES", 10 * 16 * 16 * 3 * 4)
    got = ov.neighbors(cifar_model(), images, n_neighbors=1)
    assert got.provenance.parameters["pixel_size"] == [16, 16]
    np.testing.assert_array_equal(got.feature_indices, full.feature_indices)
    blocks = pictures(10).reshape(10, 16, 2, 16, 2, 3).mean(axis=(2, 4)).reshape(10, -1)
    expected = nearest_rows(blocks, blocks[got.queries], 2)[0][:, 1:]
    # Pillow rounds each mean to a whole grey level.
    np.testing.assert_allclose(got.pixel_distances, expected, rtol=0.01)


def test_neighbours_that_cannot_be_are_refused() -> None:
    model = cifar_model()
    with pytest.raises(InputError, match="allowed: 1 to 2 for 3 readable images"):
        ov.neighbors(model, picture_set(3), n_neighbors=3)
    with pytest.raises(InputError, match="at least two readable images"):
        ov.neighbors(model, picture_set(1), n_neighbors=1)
    with pytest.raises(InputError, match="queries"):
        ov.neighbors(model, picture_set(3), n_neighbors=1, queries=0)
    with pytest.raises(ValueNotFoundError):
        ov.neighbors(model, picture_set(3), value="nowhere", n_neighbors=1)

"""Exact neighbours of 4096-d features beside scikit-learn's and faiss' brute force; every answer is compared.

``--benchmark-enable`` times 20,000 rows; without it the same code runs on 300 rows as a test.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import onnxviz as ov

FEATURES = 4096
NEIGHBOURS = 5


@dataclass(frozen=True)
class Case:
    """A bank of features, queries near some of its rows, and the true neighbours."""

    bank: NDArray[np.float32]
    queries: NDArray[np.float32]
    nearest: NDArray[np.int64]
    distances: NDArray[np.float64]


@pytest.fixture(scope="module", params=[1, 64], ids=["one query", "64 queries"])
def case(request: pytest.FixtureRequest) -> Case:
    timed = request.config.getoption("benchmark_enable", default=False)
    random = np.random.default_rng(0)
    rows = 20_000 if timed else 300
    # As after a ReLU: non-negative, half of it zero, a few strong directions and noise.
    mixed = random.standard_normal((rows, 64), np.float32) @ random.standard_normal((64, FEATURES), np.float32)
    bank = np.maximum(mixed / 8 + random.standard_normal((rows, FEATURES), np.float32) / 2, 0)
    queries = bank[:: rows // request.param][: request.param] * np.float32(1.01)
    nearest = np.empty((len(queries), NEIGHBOURS), np.int64)
    distances = np.empty((len(queries), NEIGHBOURS))
    for place, query in enumerate(queries.astype(np.float64)):
        exact = np.sqrt([((row - query) ** 2).sum() for row in bank])
        nearest[place] = np.argsort(exact, kind="stable")[:NEIGHBOURS]
        distances[place] = exact[nearest[place]]
    return Case(bank, queries, nearest, distances)


def measure(
    benchmark: Any, case: Case, find: Callable[[], tuple[NDArray[Any], NDArray[Any]]], tolerance: float
) -> None:
    benchmark.group = f"nearest neighbours: {len(case.bank)} x {FEATURES}, {len(case.queries)} queries"
    distances, indices = benchmark(find)
    np.testing.assert_array_equal(indices, case.nearest)
    np.testing.assert_allclose(distances, case.distances, rtol=tolerance)


def test_onnxviz(benchmark: Any, case: Case) -> None:
    index = ov.NearestNeighbors(NEIGHBOURS).fit(case.bank)
    measure(benchmark, case, lambda: index.kneighbors(case.queries), 1e-12)


def test_onnxviz_fit(benchmark: Any, case: Case) -> None:
    benchmark.group = f"making ready: {len(case.bank)} x {FEATURES}"
    index = benchmark(ov.NearestNeighbors(NEIGHBOURS).fit, case.bank)
    np.testing.assert_array_equal(index.kneighbors(case.queries)[1], case.nearest)


def test_scikit_learn(benchmark: Any, case: Case) -> None:
    from sklearn.neighbors import NearestNeighbors

    index = NearestNeighbors(n_neighbors=NEIGHBOURS, algorithm="brute").fit(case.bank)
    measure(benchmark, case, lambda: index.kneighbors(case.queries), 1e-4)


def test_faiss(benchmark: Any, case: Case, faiss: Any) -> None:
    index = faiss.IndexFlatL2(FEATURES)
    index.add(case.bank)

    def find() -> tuple[NDArray[Any], NDArray[Any]]:
        squared, indices = index.search(case.queries, NEIGHBOURS)
        return np.sqrt(squared), indices

    # From 20 queries on faiss takes norms minus twice a float32 product: near a row little of the distance is left.
    measure(benchmark, case, find, 1e-2)

"""Who finds neighbours beside us, each in its own process; float64 brute force; and how fast float32 can be at all.

``python neighbor_peers.py NAME`` is such a process: orders come in as lines of JSON, answers go out as lines of JSON,
arrays as .npy files.
"""

from __future__ import annotations

import abc
import importlib.metadata
import importlib.util
import json
import os
import platform
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

NEIGHBORS = 10
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

Found = tuple[NDArray[Any], NDArray[Any]]
"""Distances and row numbers, a line for each query."""


class Peer(abc.ABC):
    """One way to find neighbours; libraries are imported when it is made."""

    title: ClassVar[str]
    package: ClassVar[str]
    module: ClassVar[str]

    def use(self, threads: int) -> None:
        """Work with so many threads from now on."""
        threadpool_limits(threads)

    @abc.abstractmethod
    def build(self, bank: NDArray[np.float32]) -> None:
        """Make a bank ready for queries."""

    @abc.abstractmethod
    def search(self, queries: NDArray[np.float32], count: int = NEIGHBORS) -> Found:
        """The nearest rows of each query."""

    def all_pairs(self, bank: NDArray[np.float32]) -> Found:
        """The nearest other rows of each row, from nothing."""
        self.build(bank)
        return others(np.arange(len(bank)), *self.search(bank, NEIGHBORS + 1))


class _Onnxviz(Peer):
    """Ours."""

    title, package, module = "onnxviz", "onnxviz", "onnxviz"

    def __init__(self) -> None:
        import onnxviz

        self.index = onnxviz.NearestNeighbors(NEIGHBORS)

    def use(self, threads: int) -> None:
        self.index.set_params(n_jobs=threads)

    def build(self, bank: NDArray[np.float32]) -> None:
        self.index.fit(bank)

    def search(self, queries: NDArray[np.float32], count: int = NEIGHBORS) -> Found:
        return self.index.kneighbors(queries, count)

    def all_pairs(self, bank: NDArray[np.float32]) -> Found:
        return self.index.fit(bank).kneighbors()


class _FaissFlat(Peer):
    """faiss' brute force."""

    title, package, module = "faiss IndexFlatL2", "faiss-cpu", "faiss"

    def __init__(self) -> None:
        import faiss

        self.faiss = faiss

    def use(self, threads: int) -> None:
        super().use(threads)
        self.faiss.omp_set_num_threads(threads)

    def build(self, bank: NDArray[np.float32]) -> None:
        self.index = self.faiss.IndexFlatL2(bank.shape[1])
        self.index.add(bank)

    def search(self, queries: NDArray[np.float32], count: int = NEIGHBORS) -> Found:
        squares, indices = self.index.search(queries, count)
        return np.sqrt(np.maximum(squares, 0)), indices


class _FaissRefined(_FaissFlat):
    """faiss' bytes of 256 principal components, whose 40 nearest are measured again: not exact."""

    title = "faiss IndexRefineFlat"
    TRAINED_ON = 20_000
    """Rows; more would cost minutes and change the components little."""

    def build(self, bank: NDArray[np.float32]) -> None:
        self.index = self.faiss.index_factory(bank.shape[1], "PCA256,SQ8,RFlat")
        self.index.k_factor = 4
        self.index.train(bank[: self.TRAINED_ON])
        self.index.add(bank)


class _Torch(Peer):
    """Norms minus twice the products, of which torch takes the smallest."""

    title, package, module = "torch addmm + topk", "torch", "torch"
    BATCH = 1000

    def __init__(self) -> None:
        import torch

        self.torch = torch

    def use(self, threads: int) -> None:
        super().use(threads)
        self.torch.set_num_threads(threads)

    def build(self, bank: NDArray[np.float32]) -> None:
        self.rows = self.torch.from_numpy(bank)
        self.norms = self.torch.linalg.vector_norm(self.rows, dim=1)[None] ** 2

    def search(self, queries: NDArray[np.float32], count: int = NEIGHBORS) -> Found:
        parts = []
        for start in range(0, len(queries), self.BATCH):
            some = self.torch.from_numpy(queries[start : start + self.BATCH])
            scores = self.torch.addmm(self.norms, some, self.rows.T, alpha=-2)
            nearest, indices = self.torch.topk(scores, count, largest=False)
            squares = (nearest + (some * some).sum(1, keepdim=True)).clamp_(min=0)
            parts.append((squares.sqrt_().numpy(), indices.numpy()))
        distances, rows = zip(*parts, strict=True)
        return np.concatenate(distances), np.concatenate(rows)


class _ScikitLearn(Peer):
    """scikit-learn's brute force."""

    title, package, module = "scikit-learn brute", "scikit-learn", "sklearn"

    def __init__(self) -> None:
        from sklearn.neighbors import NearestNeighbors

        self.index = NearestNeighbors(n_neighbors=NEIGHBORS, algorithm="brute")

    def build(self, bank: NDArray[np.float32]) -> None:
        self.index.fit(bank)

    def search(self, queries: NDArray[np.float32], count: int = NEIGHBORS) -> Found:
        return self.index.kneighbors(queries, count)

    def all_pairs(self, bank: NDArray[np.float32]) -> Found:
        return self.index.fit(bank).kneighbors()


class _Limit(Peer):
    """What no search over float32 can do without: every number read once, or every product of a query and a row.

    One query is the dot product of the bank with itself, as fast as a bank can be read; many are numpy's matrix
    product, tile by tile into the same place. It finds nothing.
    """

    title, package, module = "limit of float32", "numpy", "numpy"
    PIECE = 1 << 21
    TILE = 4096

    def use(self, threads: int) -> None:
        super().use(threads)
        self.threads = threads

    def build(self, bank: NDArray[np.float32]) -> None:
        self.bank = bank
        self.pool = ThreadPoolExecutor(CORES)

    def search(self, queries: NDArray[np.float32], count: int = NEIGHBORS) -> Found:
        if len(queries) == 1:
            # numpy's dot product uses one thread only, and lets others run.
            list(self.pool.map(self._read, np.array_split(self.bank.reshape(-1), self.threads)))
        else:
            product = np.empty((min(self.TILE, len(self.bank)), len(queries)), np.float32)
            for start in range(0, len(self.bank), self.TILE):
                rows = self.bank[start : start + self.TILE]
                np.matmul(rows, queries.T, out=product[: len(rows)])
        return np.zeros((len(queries), count)), np.zeros((len(queries), count), np.int64)

    def _read(self, part: NDArray[np.float32]) -> float:
        pieces = (part[start : start + self.PIECE] for start in range(0, len(part), self.PIECE))
        return sum(float(piece @ piece) for piece in pieces)


PEERS: dict[str, type[Peer]] = {
    "onnxviz": _Onnxviz,
    "faiss": _FaissFlat,
    "refined": _FaissRefined,
    "torch": _Torch,
    "scikit-learn": _ScikitLearn,
    "limit": _Limit,
}


def installed(name: str) -> bool:
    """Whether this environment has what a peer needs."""
    return importlib.util.find_spec(PEERS[name].module) is not None


class Host:
    """Carries out orders with one peer; what :class:`Child` does in another process, this does here."""

    def __init__(self, name: str) -> None:
        self.peer = PEERS[name]()
        self.empty = _memory("VmRSS")

    def call(self, order: str, **arguments: Any) -> dict[str, Any]:
        """Carry out an order by its name."""
        return dict(getattr(self, order)(**arguments) or {})

    def read(self, path: str, rows: int, *, mapped: bool = False) -> None:
        """Take the first rows of a file into memory, or view them there."""
        if mapped:
            self.bank = np.load(path, mmap_mode="r")[:rows]
            return
        # Not mapped: pages of a file count as resident, and numpy asks for large pages where it allocates.
        with Path(path).open("rb") as file:
            assert np.lib.format.read_magic(file) == (1, 0)
            (count, features), fortran, dtype = np.lib.format.read_array_header_1_0(file)
            assert rows <= count
            assert not fortran
            self.bank = np.fromfile(file, dtype, rows * features).reshape(rows, features)

    def build(self, threads: int) -> dict[str, Any]:
        """Hand the bank over to the peer: what it does not keep is gone."""
        self.peer.use(threads)
        started = time.perf_counter()
        self.peer.build(self.__dict__.pop("bank"))
        return {"seconds": time.perf_counter() - started}

    def search(
        self, queries: str, save: str, *, size: int, start: int, calls: int, budget: float, threads: int
    ) -> dict[str, Any]:
        """Make up to ``calls`` calls of ``size`` queries, no new one once ``budget`` seconds are spent."""
        self.peer.use(threads)
        wanted = np.load(queries)
        places = (start + np.arange(calls * size)).reshape(calls, size) % len(wanted)
        # Whatever is made at the first call after a change of threads is not what is asked here.
        self.peer.search(wanted[places[-1, :16]])
        seconds: list[float] = []
        cpu: list[float] = []
        found = []
        for batch in places:
            some = wanted[batch]
            started, before = time.perf_counter(), time.process_time()
            found.append(self.peer.search(some))
            seconds.append(time.perf_counter() - started)
            cpu.append(time.process_time() - before)
            if sum(seconds) > budget:
                break
        _save(save, found)
        return {"seconds": seconds, "cpu": cpu, "places": places[: len(seconds)].ravel().tolist()}

    def all_pairs(self, save: str, *, threads: int) -> dict[str, Any]:
        """Find the neighbours of all rows of the bank, build included."""
        self.peer.use(threads)
        started, before = time.perf_counter(), time.process_time()
        found = self.peer.all_pairs(self.bank)
        seconds, cpu = time.perf_counter() - started, time.process_time() - before
        _save(save, [found])
        return {"seconds": [seconds], "cpu": [cpu], "places": list(range(len(self.bank)))}

    def memory(self) -> dict[str, Any]:
        """Most bytes ever resident, and how many of them were the interpreter's and the libraries'; 0 if unknown."""
        return {"peak": _memory("VmHWM"), "empty": self.empty}


class Child:
    """A peer in a process of its own, which ends with the ``with`` block."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.process = subprocess.Popen(
            [sys.executable, __file__, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        with self.process:
            assert self.process.stdin is not None
            self.process.stdin.close()

    def call(self, order: str, **arguments: Any) -> dict[str, Any]:
        """Carry out an order of :class:`Host` there."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps([order, arguments]), file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{self.name} ended at the order {order!r}; its own words are above")
        return dict(json.loads(answer))


def exact_neighbors(bank: NDArray[np.float32], queries: NDArray[np.float32], count: int) -> Found:
    """Float64 brute force: smallest sum of squared differences first, of equal ones the lower row.

    Norms minus twice a product, in float64, only leave rows out, and none within the error of that formula; the rest
    is subtracted.
    """
    distances, indices = np.empty((len(queries), count)), np.empty((len(queries), count), np.int64)
    for start in range(0, len(queries), 250):
        some = queries[start : start + 250].astype(np.float64)
        squares, norms = np.empty((len(some), len(bank))), np.empty(len(bank))
        for first in range(0, len(bank), 4096):
            block = bank[first : first + 4096].astype(np.float64)
            norms[first : first + len(block)] = np.einsum("ij,ij->i", block, block)
            np.matmul(some, block.T, out=squares[:, first : first + len(block)])
        own = np.einsum("ij,ij->i", some, some)
        squares *= -2
        squares += norms + own[:, np.newaxis]
        # A sum of n products is within n 2^-53 of its absolute terms (Higham 2002, 3.1), however it is added up.
        errors = 2.1 * (bank.shape[1] + 4) * 2.0**-53 * (norms + own[:, np.newaxis])
        reach = np.partition(squares + errors, count - 1, axis=1)[:, count - 1]
        for place, query in enumerate(some):
            near = np.flatnonzero(squares[place] - errors[place] <= reach[place])
            exact = ((bank[near].astype(np.float64) - query) ** 2).sum(axis=1)
            chosen = np.argsort(exact, kind="stable")[:count]
            indices[start + place] = near[chosen]
            distances[start + place] = np.sqrt(exact[chosen])
    return distances, indices


def others(rows: NDArray[np.int64], distances: NDArray[Any], indices: NDArray[np.int64]) -> Found:
    """Neighbours of rows of the bank without the row itself, or without the last one where it is not among them."""
    other = indices != rows[:, np.newaxis]
    other[other.all(axis=1), -1] = False
    shape = (len(rows), indices.shape[1] - 1)
    return distances[other].reshape(shape), indices[other].reshape(shape)


def machine(names: list[str]) -> str:
    """The processor, and the versions of some peers' packages."""
    packages = dict.fromkeys(("onnxviz", "numpy", *(PEERS[name].package for name in names)))
    versions = ", ".join(f"{package} {importlib.metadata.version(package)}" for package in packages)
    return f"{_processor()}, {CORES} core{'s' * (CORES != 1)}; {versions}"


def _processor() -> str:
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text().splitlines() if facts.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _memory(field: str) -> int:
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(field)), 0)


def _save(path: str, found: list[Found]) -> None:
    distances, indices = zip(*found, strict=True)
    np.savez(path, distances=np.concatenate(distances), indices=np.concatenate(indices))


def _serve(name: str) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is no answer
    host = Host(name)
    for line in sys.stdin:
        order, arguments = json.loads(line)
        print(json.dumps(host.call(order, **arguments)), file=answers, flush=True)


if __name__ == "__main__":
    _serve(sys.argv[1])

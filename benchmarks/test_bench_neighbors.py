"""Exact neighbours of 4096-d features: ours beside faiss, torch and scikit-learn; answers compared with float64.

``--benchmark-enable -s`` takes banks of 100,000 rows, makes them first where they are not there yet (ten minutes), and
prints a table each (half an hour on two cores, 14 GB); without it a few hundred rows are searched as a test.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import feature_banks
import neighbor_peers
import numpy as np
import pytest
from feature_banks import FEATURES
from neighbor_peers import CORES, NEIGHBORS, PEERS, Child, Found, Host, exact_neighbors
from numpy.typing import NDArray

MEMORY = 1.45
"""Times the bank: the most that ours may ever hold, bank included."""
REST = 0.3
"""Seconds between two peers' turns: threads that spin while they wait for work give up."""

pytestmark = pytest.mark.oracles


@dataclass(frozen=True)
class Work:
    """What is asked, how often, and how many times as fast as a peer ours must be."""

    name: str
    size: int
    calls: int
    rounds: int
    floors: dict[str, float] = field(default_factory=dict)
    order: Literal["search", "all_pairs"] = "search"
    budget: float = 1.5
    """Seconds of a turn; slow peers answer fewer of the calls."""

    def small(self) -> Work:
        """As a test."""
        return replace(self, size=min(self.size, 40), calls=min(self.calls, 3), rounds=1)


ONE = Work("1 query", 1, 100, 9)
SIXTEEN = Work("16 queries", 16, 10, 7)
THOUSAND = Work("1,000 queries", 1000, 1, 5)
ALL_PAIRS = Work("all pairs, build included", 0, 1, 3, {"faiss": 4.5, "scikit-learn": 10}, "all_pairs")


@dataclass(frozen=True)
class Case:
    """A bank, who searches it, and for what."""

    kind: feature_banks.Kind
    peers: tuple[str, ...]
    works: tuple[Work, ...]


CASES = (
    Case(
        "real",
        ("onnxviz", "faiss", "refined", "torch", "scikit-learn", "limit"),
        (
            replace(ONE, floors={"faiss": 20, "refined": 1.5}),
            replace(SIXTEEN, floors={"faiss": 20, "torch": 8}),
            replace(THOUSAND, floors={"faiss": 8}),
        ),
    ),
    Case("simulated", ("onnxviz", "faiss", "limit"), (replace(ONE, floors={"faiss": 30}), SIXTEEN, THOUSAND)),
    Case(
        "gaussian",
        ("onnxviz", "faiss", "limit"),
        (replace(ONE, floors={"faiss": 3}), SIXTEEN, replace(THOUSAND, floors={"faiss": 1.8})),
    ),
)


@dataclass
class Tally:
    """A peer's answers beside the true ones."""

    asked: int = 0
    other_lists: int = 0
    other_sets: int = 0
    hits: int = 0

    @property
    def recall(self) -> float:
        """Share of the true neighbours that were found."""
        return self.hits / (self.asked * NEIGHBORS)

    def add(self, got: NDArray[np.int64], wanted: NDArray[np.int64]) -> None:
        """Count some more."""
        shared = (got[:, :, np.newaxis] == wanted[:, np.newaxis, :]).any(axis=1).sum(axis=1)
        self.asked += len(got)
        self.other_lists += int((got != wanted).any(axis=1).sum())
        self.other_sets += int((shared < NEIGHBORS).sum())
        self.hits += int(shared.sum())


@dataclass
class Runs:
    """What one peer did of one work, at its better number of threads."""

    threads: int
    turns: list[list[float]] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)

    @property
    def medians(self) -> list[float]:
        """Seconds of a call, turn by turn."""
        return [statistics.median(turn) for turn in self.turns]

    @property
    def seconds(self) -> float:
        """Seconds of a call."""
        return statistics.median(self.medians)

    def over(self, ours: Runs) -> list[float]:
        """How many times as long it took, round by round."""
        return [theirs / mine for theirs, mine in zip(self.medians, ours.medians, strict=True)]

    def cpu_over(self, ours: Runs) -> float:
        """How many times the CPU seconds; where others share the machine, they tell more."""
        return statistics.median(theirs / mine for theirs, mine in zip(self.cpu, ours.cpu, strict=True))


@dataclass(frozen=True)
class Contest:
    """Peers on one bank, the queries, and the true neighbours of some of them by their places."""

    peers: dict[str, Host | Child]
    queries: Path
    places: NDArray[np.int64]
    truth: Found
    timed: bool

    def run(self, work: Work) -> dict[str, Runs]:
        """Take turns."""
        counts = sorted({1, CORES}) if self.timed else [CORES]
        turns = itertools.count()
        trials: dict[str, dict[int, list[float]]] = {name: {count: [] for count in counts} for name in self.peers}
        if len(counts) > 1:
            for _ in range(1 if work.calls == 1 else 2):
                for threads, name in itertools.product(counts, self.peers):
                    trial = Runs(threads)
                    self._turn(name, work, next(turns), trial)
                    trials[name][threads] += trial.turns[0]
        found = {
            name: Runs(min(counts, key=lambda count: statistics.median(tried[count]) if tried[count] else 0))
            for name, tried in trials.items()
        }
        for number in range(work.rounds):
            turn = next(turns)
            for name in list(self.peers)[:: 1 if number % 2 else -1]:
                self._turn(name, work, turn, found[name])
        return found

    def _turn(self, name: str, work: Work, number: int, runs: Runs) -> None:
        """One peer's calls, whose answers are compared, too."""
        save = self.queries.with_name(f"found by {name}.npz")
        if self.timed:
            time.sleep(REST)
        if work.order == "all_pairs":
            answer = self.peers[name].call("all_pairs", save=str(save), threads=runs.threads)
        else:
            answer = self.peers[name].call(
                "search", queries=str(self.queries), save=str(save), size=work.size, calls=work.calls,
                start=number * work.calls * work.size, budget=work.budget, threads=runs.threads,
            )  # fmt: skip
        runs.turns.append(answer["seconds"])
        runs.cpu.append(statistics.median(answer["cpu"]))
        if name != "limit":
            with np.load(save) as found:
                self._check(name, runs.tally, np.array(answer["places"]), found["distances"], found["indices"])

    def _check(
        self, name: str, tally: Tally, asked: NDArray[np.int64], distances: NDArray[Any], indices: NDArray[np.int64]
    ) -> None:
        known = np.isin(asked, self.places)
        at = np.searchsorted(self.places, asked[known])
        tally.add(indices[known], self.truth[1][at])
        if name == "onnxviz":
            np.testing.assert_array_equal(indices[known], self.truth[1][at])
            np.testing.assert_allclose(distances[known], self.truth[0][at], rtol=1e-12)


@contextlib.contextmanager
def opened(names: tuple[str, ...], bank: Path, rows: int, timed: bool) -> Iterator[dict[str, Host | Child]]:
    """Those peers that are installed, each with the bank in memory: in processes of their own where time counts."""
    with contextlib.ExitStack() as stack:
        peers: dict[str, Host | Child] = {}
        for name in filter(neighbor_peers.installed, names):
            peers[name] = stack.enter_context(Child(name)) if timed else Host(name)
            peers[name].call("read", path=str(bank), rows=rows)
        yield peers


def span(seconds: float) -> str:
    value, unit = (seconds, "s") if seconds >= 1 else (1000 * seconds, "ms")
    return f"{value:.{max(0, 2 - int(math.log10(value)))}f} {unit}"


def show(work: Work, found: dict[str, Runs]) -> None:
    """A work's lines of the table."""
    print(
        f"  {work.name:<28}   median  9 of 10 in  threads   × ours (range)           × CPU   recall  lists that differ"
    )
    ours = found["onnxviz"]
    for name, runs in found.items():
        late = float(np.quantile(list(itertools.chain(*runs.turns)), 0.9))
        ratios = runs.over(ours)
        ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})" if runs is not ours else ""
        cpu = f"{runs.cpu_over(ours):.2f}" if runs is not ours else ""
        tally = runs.tally
        answers = f"{tally.recall:.4f}  {tally.other_lists:,} of {tally.asked:,}" if tally.asked else ""
        times = f"{span(runs.seconds):>10}  {span(late):>10}  {runs.threads:>7}"
        print(f"    {PEERS[name].title:<24} {times}   {ratio:<24} {cpu:>5}   {answers}".rstrip())


def too_slow(case: str, work: Work, found: dict[str, Runs]) -> list[str]:
    """The figures that were not reached, in words."""
    ratios = {name: statistics.median(found[name].over(found["onnxviz"])) for name in work.floors if name in found}
    return [
        f"{case}, {work.name}: {ratios[name]:.2f} × {PEERS[name].title}, wanted {floor}"
        for name, floor in work.floors.items()
        if name in ratios and ratios[name] < floor
    ]


def show_builds(builds: dict[str, float], found: dict[str, dict[str, Runs]]) -> None:
    """How long the banks took to make ready, and how many queries make up for ours."""
    words = (f"{PEERS[name].title} {span(took)}" for name, took in builds.items() if name != "limit")
    print(f"  build, {CORES} threads: {', '.join(words)}")
    for work in (ONE, THOUSAND):
        runs = found[work.name]
        for name in sorted(builds.keys() & {"faiss", "refined"}):
            gain = (runs[name].seconds - runs["onnxviz"].seconds) / work.size
            more = builds["onnxviz"] - builds[name]
            if more > 0:
                paid = f"after {math.ceil(more / gain):,} queries" if gain > 0 else "never"
                print(f"    ours pays for itself beside {PEERS[name].title}, {work.name} at a time: {paid}")


def show_memory(peers: dict[str, Host | Child], size: int) -> list[str]:
    """Peaks as multiples of the bank; in words, if ours is too high."""
    held = {name: peer.call("memory") for name, peer in peers.items()}
    if not all(memory["peak"] for memory in held.values()):
        print("  peak memory: not told by this system")
        return []
    ratios = {name: (memory["peak"] - memory["empty"]) / size for name, memory in held.items()}
    words = (f"{PEERS[name].title} {ratio:.2f}" for name, ratio in ratios.items() if name != "limit")
    print(f"  peak memory in banks, bank included, without interpreter and libraries: {', '.join(words)}")
    ours = held["onnxviz"]
    print(f"    ours with the interpreter: {ours['peak'] / size:.2f} ({ours['peak'] / 2**20:,.0f} MiB)")
    return [f"peak memory {ratios['onnxviz']:.2f} × the bank, allowed {MEMORY}"] if ratios["onnxviz"] > MEMORY else []


def say_where(names: tuple[str, ...]) -> None:
    there = [name for name in names if neighbor_peers.installed(name)]
    print(f"  {neighbor_peers.machine(there)}")
    for name in names:
        if name not in there:
            print(f"  {PEERS[name].title}: not installed here")


@pytest.fixture
def timed(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether this is a benchmark; if it is a test, its small banks are not kept."""
    enabled = bool(request.config.getoption("benchmark_enable", default=False))
    if not enabled:
        monkeypatch.setenv("ONNXVIZ_BENCHMARK_CACHE", str(tmp_path / "banks"))
    return enabled


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.kind)
def test_queries(case: Case, timed: bool, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if case.kind == "real":
        request.getfixturevalue("zoo")
    rows, count = (100_000, 1000) if timed else (260, 64)
    bank, source = feature_banks.bank(case.kind, rows), feature_banks.queries(case.kind, count)
    array, queries = np.load(bank, mmap_mode="r"), np.load(source)
    np.save(tmp_path / "queries.npy", queries)
    print(f"\n{case.kind}: {rows:,} × {FEATURES} float32, {array.nbytes / 1e6:,.0f} MB")
    print(f"  contrast: {feature_banks.contrast(array, queries)}")
    say_where(case.peers)
    truth = exact_neighbors(array, queries, NEIGHBORS)
    missed, results = [], {}
    with opened(case.peers, bank, rows, timed) as peers:
        builds = {name: peer.call("build", threads=CORES)["seconds"] for name, peer in peers.items()}
        contest = Contest(peers, tmp_path / "queries.npy", np.arange(count), truth, timed)
        for work in case.works if timed else map(Work.small, case.works):
            results[work.name] = contest.run(work)
            show(work, results[work.name])
            missed += too_slow(case.kind, work, results[work.name])
            for name, runs in results[work.name].items():
                assert name in {"limit", "refined"} or runs.tally.recall > 0.99
        if timed:
            show_builds(builds, results)
            missed += show_memory(peers, array.nbytes)
    assert not missed or not timed, "\n".join(missed)


@pytest.mark.usefixtures("zoo")  # without photos there is nothing to measure
def test_all_pairs(timed: bool, tmp_path: Path) -> None:
    rows, checked = (20_000, 1000) if timed else (128, 128)
    bank = feature_banks.bank("real", 100_000 if timed else rows)
    array = np.load(bank, mmap_mode="r")[:rows]
    names = ("onnxviz", "faiss", "scikit-learn")
    print(f"\nreal: {rows:,} × {FEATURES} float32, {array.nbytes / 1e6:,.0f} MB")
    say_where(names)
    places = np.linspace(0, rows - 1, checked).astype(np.int64)
    truth = neighbor_peers.others(places, *exact_neighbors(array, array[places], NEIGHBORS + 1))
    work = ALL_PAIRS if timed else ALL_PAIRS.small()
    with opened(names, bank, rows, timed) as peers:
        found = Contest(peers, tmp_path / "queries.npy", places, truth, timed).run(work)
    show(work, found)
    missed = too_slow("real", work, found)
    assert not missed or not timed, "\n".join(missed)


def near_duplicates(rows: int) -> NDArray[np.float32]:
    """Frames of one scene: the same features after a ReLU, a little brighter or darker, and some noise of a sensor."""
    random = np.random.default_rng(4)
    scene = 10 * np.maximum(random.standard_normal(FEATURES, np.float32) - np.float32(0.6), 0)
    frames = (scene * (1 + random.uniform(0, 3e-4, (rows, 1)))).astype(np.float32)
    return frames + np.float32(1e-4) * random.standard_normal((rows, FEATURES), np.float32)


def offset(rows: int) -> NDArray[np.float32]:
    """Features far from 0 that differ little."""
    return 30 + np.float32(0.05) * np.random.default_rng(5).standard_normal((rows, FEATURES), np.float32)


@pytest.mark.parametrize("make", [near_duplicates, offset])
def test_hard_bank(make: Callable[[int], NDArray[np.float32]], timed: bool, tmp_path: Path) -> None:
    rows, step = (10_000, 10) if timed else (260, 10)
    array = make(rows)
    queries = array[::step]
    np.save(tmp_path / "bank.npy", array)
    np.save(tmp_path / "queries.npy", queries)
    names = ("onnxviz", "faiss", "refined", "torch", "scikit-learn")
    print(f"\n{make.__name__.replace('_', '-')}: {rows:,} × {FEATURES} float32; queries are every {step}th row")
    say_where(names)
    truth = exact_neighbors(array, queries, NEIGHBORS)
    print("  wrong answers               one at a time: lists    sets   all at once: lists    sets")
    with opened(names, tmp_path / "bank.npy", rows, timed) as peers:
        contest = Contest(peers, tmp_path / "queries.npy", np.arange(len(queries)), truth, timed=False)
        for peer in peers.values():
            peer.call("build", threads=CORES)
        works = (
            Work("one at a time", 1, 100 if timed else 5, 1, budget=math.inf),
            Work("all at once", len(queries), 1, 1, budget=math.inf),
        )
        alone, together = (contest.run(work) for work in works)
    for name in alone:
        counts = [
            f"{wrong / runs.tally.asked:.1%}"
            for runs in (alone[name], together[name])
            for wrong in (runs.tally.other_lists, runs.tally.other_sets)
        ]
        print("    {:<24} {:>19} {:>7} {:>20} {:>7}".format(PEERS[name].title, *counts))


def test_a_peer_answers_alike_in_a_process_of_its_own(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    bank, queries = (random.standard_normal((rows, 8), np.float32) for rows in (60, 20))
    np.save(tmp_path / "bank.npy", bank)
    np.save(tmp_path / "queries.npy", queries)
    with opened(("onnxviz",), tmp_path / "bank.npy", 60, timed=True) as peers:
        peers["onnxviz"].call("build", threads=1)
        truth = exact_neighbors(bank, queries, NEIGHBORS)
        # The comparison is inside.
        Contest(peers, tmp_path / "queries.npy", np.arange(20), truth, timed=False).run(Work("some", 7, 3, 1))
        assert peers["onnxviz"].call("memory").keys() == {"peak", "empty"}

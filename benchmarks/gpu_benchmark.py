"""What the CUDA kernels reach on this machine's device, beside torch and cupy: one JSON and one table in Markdown.

Medians of several measurements, each of as many calls as take 20 ms, between CUDA events where torch is there, else
between synchronisations. Every answer is compared: bytes with the CPU's core, neighbours with float64 on a sample. Exit
code 1 where one of ours is wrong. ``benchmarks/gpu.sh`` runs it on a bare machine; with ``ONNXVIZ_EMULATED_CUDA`` it
runs tiny sizes on the emulator, whose times mean nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
import emulated_cuda

emulated_cuda.take_place()

import feature_banks  # noqa: E402

from onnxviz import _cuda, backend  # noqa: E402
from onnxviz.backend import Buffer, Stream  # noqa: E402

NEIGHBORS = 10
REFINED = 4 * NEIGHBORS
"""Candidates of bfloat16 that are measured again."""
CHECKED = 8
"""Queries whose neighbours are compared with float64."""
BLOCK = 4096
"""Queries of one matrix product, where all rows ask."""

# By data sheet, dense: bytes/s, then operations/s. The first whose name is part of the device's.
ROOFLINES: dict[str, dict[str, float]] = {
    "H200": {"memory": 4.8e12, "float32": 67e12, "bfloat16": 989e12, "int8": 1979e12},
    "H100 PCIe": {"memory": 2.0e12, "float32": 51e12, "bfloat16": 756e12, "int8": 1513e12},
    "H100 NVL": {"memory": 3.9e12, "float32": 60e12, "bfloat16": 835e12, "int8": 1671e12},
    "H100": {"memory": 3.35e12, "float32": 67e12, "bfloat16": 989e12, "int8": 1979e12},
    "A100-SXM4-80GB": {"memory": 2.04e12, "float32": 19.5e12, "bfloat16": 312e12, "int8": 624e12},
    "A100": {"memory": 1.56e12, "float32": 19.5e12, "bfloat16": 312e12, "int8": 624e12},
    "L40S": {"memory": 0.864e12, "float32": 91.6e12, "bfloat16": 362e12, "int8": 733e12},
    "L4": {"memory": 0.3e12, "float32": 30.3e12, "bfloat16": 121e12, "int8": 242e12},
}


@dataclass
class Row:
    """One line of the table."""

    what: str
    who: str
    seconds: float
    spread: float
    """Slowest of the measurements less the fastest, over the median."""
    moved: float = 0
    """Bytes that have to be read and written."""
    operations: float = 0
    """Of ``kind``: a multiplication and an addition are two."""
    kind: str = ""
    right: float | None = None
    """Share of what was compared that is right; None where nothing was."""
    note: str = ""


@dataclass
class Report:
    """Everything that is written in the end."""

    machine: dict[str, Any]
    rooflines: dict[str, float]
    rows: list[Row] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def add(self, row: Row) -> None:
        """Keep a line, and show it."""
        self.rows.append(row)
        print(self.line(row), flush=True)

    def skip(self, what: str, why: object) -> None:
        """Keep what was not measured."""
        self.skipped.append(f"{what}: {why}")
        print(f"skipped {what}: {why}", flush=True)

    def copy_rate(self) -> float:
        """Bytes per second, read and written, of the fastest copy of this run."""
        return max((row.moved / row.seconds for row in self.rows if row.what == "copy"), default=0.0)

    def least(self, row: Row) -> float:
        """Seconds that the data sheet allows; 0 where the device has none here."""
        memory = row.moved / self.rooflines["memory"] if self.rooflines else 0.0
        return max(memory, row.operations / self.rooflines[row.kind] if self.rooflines and row.kind else 0.0)

    def line(self, row: Row) -> str:
        """A line of the table."""
        rate = f"{row.moved / row.seconds / 1e9:,.0f} GB/s" if row.moved else ""
        of_copy = f"{row.moved / row.seconds / self.copy_rate():.0%}" if row.moved and self.copy_rate() else ""
        roof = f"{self.least(row) / row.seconds:.0%}" if self.least(row) else ""
        speed = f"{row.operations / row.seconds / 1e12:,.2f} T/s" if row.operations else ""
        right = "" if row.right is None else f"{row.right:.2%}"
        cells = (
            row.what, row.who, f"{row.seconds * 1e3:,.3f} ms", f"{row.spread:.0%}", rate, of_copy, speed, roof, right,
            row.note,
        )  # fmt: skip
        return "| " + " | ".join(cells) + " |"

    def table(self) -> str:
        """Markdown."""
        head = (
            "what",
            "who",
            "median",
            "spread",
            "rate",
            "of the copy",
            "operations",
            "of the roofline",
            "right",
            "note",
        )
        lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *map(self.line, self.rows)]
        facts = [f"- {name}: {value}" for name, value in self.machine.items()]
        facts += [f"- by data sheet, {name}: {value:.3g} per second" for name, value in self.rooflines.items()]
        missing = [f"- not measured: {text}" for text in self.skipped]
        return "\n".join(["# CUDA kernels", "", *facts, "", *lines, "", *missing]) + "\n"


class Bench:
    """A device, its libraries and how time is taken there."""

    def __init__(self, report: Report, *, tiny: bool) -> None:
        self.report, self.tiny = report, tiny
        self.stream = Stream(0)
        self.torch = self._library("torch", lambda torch: torch.cuda.is_available())
        self.cupy = self._library("cupy", lambda cupy: cupy.cuda.runtime.getDeviceCount() > 0)
        if self.torch:
            self.torch.backends.cuda.matmul.allow_tf32 = False
            self.queue = self.torch.cuda.ExternalStream(self.stream.handle)

    def _library(self, name: str, usable: Callable[[Any], bool]) -> Any:
        if emulated_cuda.folder():
            self.report.skip(name, "the emulator is no device for it")
            return None
        try:
            module = __import__(name)
            if usable(module):
                self.report.machine[name] = module.__version__
                return module
            self.report.skip(name, "it finds no device")
        except Exception as error:  # whatever is wrong with it, ours is measured
            self.report.skip(name, error)
        return None

    @contextlib.contextmanager
    def on_stream(self) -> Iterator[None]:
        """Everybody's work goes to our stream, so that one way of taking time serves all."""
        with contextlib.ExitStack() as stack:
            if self.torch:
                stack.enter_context(self.torch.cuda.stream(self.queue))
            if self.cupy:
                stack.enter_context(self.cupy.cuda.ExternalStream(self.stream.handle))
            yield

    def measure(self, call: Callable[[], Any], repeats: int = 9) -> tuple[float, float]:
        """Median of the seconds of a call, and the spread."""
        with self.on_stream():
            call()
            self.stream.synchronize()
            once = self._seconds(call, 1)
            calls = 1 if self.tiny else max(1, min(1000, int(0.02 / max(once, 1e-7))))
            times = [self._seconds(call, calls) for _ in range(2 if self.tiny else repeats if once < 5 else 3)]
        median = statistics.median(times)
        return median, (max(times) - min(times)) / median

    def _seconds(self, call: Callable[[], Any], calls: int) -> float:
        self.stream.synchronize()
        if self.torch:
            first, last = (self.torch.cuda.Event(enable_timing=True) for _ in range(2))
            first.record(self.queue)
            for _ in range(calls):
                call()
            last.record(self.queue)
            last.synchronize()
            return first.elapsed_time(last) / 1e3 / calls
        start = time.perf_counter()
        for _ in range(calls):
            call()
        self.stream.synchronize()
        return (time.perf_counter() - start) / calls

    def device(self, array: NDArray[Any]) -> Buffer:
        """A copy on the device."""
        return Buffer.from_host(array, self.stream)

    def row(self, what: str, who: str, call: Callable[[], Any], **facts: Any) -> None:
        """Measure and report; what fails is reported as not measured."""
        try:
            seconds, spread = self.measure(call)
        except Exception as error:  # one peer's failure must not cost the run
            if who == "onnxviz":
                raise
            self.report.skip(f"{what}, {who}", error)
            return
        self.report.add(Row(what, who, seconds, spread, **facts))


# -- bandwidth -----------------------------------------------------------------------------------------------------


def measure_copies(bench: Bench) -> None:
    """What a device can move at all: a copy reads and writes every byte."""
    nbytes = 1 << 16 if bench.tiny else 1 << 30
    source, target = (Buffer((nbytes,), "uint8") for _ in range(2))
    bench.row(
        "copy", "cudaMemcpyAsync",
        lambda: _cuda.copy_on_device(target.pointer, source.pointer, nbytes, 0, bench.stream.handle), moved=2 * nbytes,
    )  # fmt: skip
    if bench.torch:
        to, origin = (bench.torch.from_dlpack(buffer) for buffer in (target, source))
        bench.row("copy", "torch copy_", lambda: to.copy_(origin), moved=2 * nbytes)
        bench.row("write", "torch zero_", to.zero_, moved=nbytes)


FILLS = {
    "float32 NCHW 3 × 224 × 224": ((3, 224, 224), "float32", False),
    "float16 NHWC 224 × 224 × 3": ((224, 224, 3), "float16", True),
    "uint8 NCHW 3 × 299 × 299": ((3, 299, 299), "uint8", False),
    "float32 NCHW 3 × 227 × 227": ((3, 227, 227), "float32", False),
}


def random_image(shape: tuple[int, ...], dtype: str, seed: int) -> NDArray[Any]:
    return np.random.default_rng(seed).integers(0, 200, shape).astype(dtype)


def measure_fills(bench: Bench) -> None:
    """Batches of 1,024 copies with a patch of 32 pixels; the image is read once, every copy written.

    So many that the device takes longer than the call, which is some 30 µs in Python.
    """
    copies, side = (3, 4) if bench.tiny else (1024, 32)
    for name, (full, dtype, channels_last) in FILLS.items():
        shape = tuple(min(length, 9) for length in full) if bench.tiny else full
        height, width = shape[:2] if channels_last else shape[1:]
        image, fill = random_image(shape, dtype, 1), random_image(shape, dtype, 2)
        random = np.random.default_rng(3)
        corners = random.integers(0, (height - side + 1, width - side + 1), (2, copies, 2))
        now, before = (np.concatenate([corner, corner + side], axis=1).astype(np.int64) for corner in corners)
        batch = np.empty((copies, *shape), dtype)
        on_device = [bench.device(array) for array in (image, fill, batch)]

        def ours(
            previous: NDArray[np.int64] | None, boxes: NDArray[np.int64], memory: Any = on_device,
            last: bool = channels_last,
        ) -> None:  # fmt: skip
            backend.fill_occluded_on_device(
                memory[0], memory[1], boxes, memory[2], channels_last=last, stream=bench.stream, previous=previous
            )

        ours(None, before)
        ours(before, now)
        backend.fill_occluded(image, fill, now, batch, channels_last=channels_last)
        right = float((on_device[2].to_host(bench.stream) == batch).mean())
        moved = batch.nbytes + image.nbytes
        bench.row(f"fill {name}", "onnxviz", lambda ours=ours, now=now: ours(None, now), moved=moved, right=right)
        turns = [(before, now), (now, before)]

        def alternate(ours: Any = ours, turns: Any = turns) -> None:
            ours(*turns[0])
            turns.reverse()

        # Two boxes a copy, each read and written.
        box_bytes = side * side * (shape[2] if channels_last else shape[0]) * image.itemsize
        bench.row(f"move boxes {name}", "onnxviz", alternate, moved=4 * copies * box_bytes)
        if bench.torch:
            _torch_fill(bench, name, on_device, now, channels_last, batch)


def _torch_fill(
    bench: Bench, name: str, on_device: list[Buffer], boxes: NDArray[np.int64], channels_last: bool, wanted: Any
) -> None:
    image, fill, batch = (bench.torch.from_dlpack(buffer) for buffer in on_device)

    def call() -> None:
        batch.copy_(image.expand_as(batch))
        for one, (top, left, bottom, right) in zip(batch, boxes.tolist(), strict=True):
            if channels_last:
                one[top:bottom, left:right] = fill[top:bottom, left:right]
            else:
                one[:, top:bottom, left:right] = fill[:, top:bottom, left:right]

    with bench.on_stream():
        call()
        bench.stream.synchronize()
    right = float((batch.cpu().numpy() == wanted).mean())
    bench.row(f"fill {name}", "torch slices", call, moved=wanted.nbytes + image.nbytes, right=right)


OVERLAYS = {
    "float32 planar 256 × 56 × 56": ((256, 56, 56, 1), "float32"),
    "float32 channels last 56 × 56 × 256": ((1, 56, 56, 256), "float32"),
    "float32 blocked 16 × 56 × 56 × 16": ((16, 56, 56, 16), "float32"),
    "float16 planar 256 × 56 × 56": ((256, 56, 56, 1), "float16"),
}


def measure_overlays(bench: Bench) -> None:
    """1,024 windows of 15 × 15 with 11 × 11 fresh pixels; every window is written, as much is read."""
    count, window, fresh = (3, (4, 5), (2, 3)) if bench.tiny else (1024, (15, 15), (11, 11))
    for name, (full, dtype) in OVERLAYS.items():
        shape = tuple(min(length, 8) for length in full) if bench.tiny else full
        planes, height, width, elements = shape
        random = np.random.default_rng(4)
        original = random_image(shape, dtype, 1)
        source = random_image((count, planes, *fresh, elements), dtype, 2)
        windows = np.empty((count, planes, *window, elements), dtype)
        corner = random.integers(0, (height - window[0] + 1, width - window[1] + 1), (count, 2))
        inner = corner + (np.array(window) - fresh) // 2
        placements = np.concatenate([corner, inner, inner, inner + fresh], axis=1).astype(np.int64)
        arguments: dict[str, Any] = {
            "layout": (planes, height, width, elements * original.itemsize), "source_size": fresh,
            "window_size": window,
        }  # fmt: skip
        on_device = [bench.device(array) for array in (original, source, windows)]

        def ours(memory: Any = on_device, at: Any = placements, others: Any = arguments) -> None:
            backend.overlay_windows_on_device(memory[0], memory[1], at, memory[2], stream=bench.stream, **others)

        ours()
        backend.overlay_windows(original, source, placements, windows, **arguments)
        right = float((on_device[2].to_host(bench.stream) == windows).mean())
        bench.row(f"overlay {name}", "onnxviz", ours, moved=2 * windows.nbytes, right=right)


def measure_maxima(bench: Bench) -> None:
    """The maximum of every image and channel; every element is read once."""
    for name, full, dtype, channels_last in (
        ("float32 NCHW 64 × 512 × 28 × 28", (64, 512, 28, 28), "float32", False),
        ("float32 NHWC 64 × 28 × 28 × 512", (64, 28, 28, 512), "float32", True),
        ("float16 NCHW 64 × 64 × 112 × 112", (64, 64, 112, 112), "float16", False),
    ):
        shape = tuple(min(length, 5) for length in full) if bench.tiny else full
        maps = np.random.default_rng(5).standard_normal(shape, np.float32).astype(dtype)
        buffer = bench.device(maps)
        found = backend.channel_maxima_on_device(buffer, bench.stream, channels_last=channels_last)
        wanted = maps.max(axis=(1, 2) if channels_last else (2, 3)).astype(np.float32)
        right = float((found[0].to_host(bench.stream) == wanted).mean())

        def ours(buffer: Buffer = buffer, last: bool = channels_last, into: Any = found) -> None:
            backend.channel_maxima_on_device(buffer, bench.stream, channels_last=last, into=into)

        bench.row(f"maxima {name}", "onnxviz", ours, moved=maps.nbytes, right=right)
        if bench.torch:
            tensor = bench.torch.from_dlpack(buffer)
            flat = tensor.flatten(1, 2) if channels_last else tensor.flatten(2)
            axis = 1 if channels_last else 2
            bench.row(f"maxima {name}", "torch max", lambda flat=flat, axis=axis: flat.max(axis), moved=maps.nbytes)


# -- neighbours ----------------------------------------------------------------------------------------------------


Pair = tuple[Any, Any]
"""Distances and row numbers on the host."""


def measure_neighbors(bench: Bench, bank: NDArray[np.float32], queries: NDArray[np.float32], *, pairs: bool) -> None:
    """Ten neighbours of every query, or of every row with ``pairs``."""
    from onnxviz.backend.cuda_neighbors import CudaNeighborIndex
    from onnxviz.methods import index_training

    rows, columns = bank.shape
    asked = rows if pairs else len(queries)
    k = NEIGHBORS + pairs
    what = f"all pairs of {rows:,}" if pairs else f"{asked:,} of {rows:,} × {columns:,}"
    operations = 2.0 * asked * rows * columns
    # One query reads every row once, whatever it computes; many read them from caches.
    reads = rows * columns if asked == 1 else 0
    sample = np.linspace(0, asked - 1, min(CHECKED, asked)).astype(np.int64)
    on_device, given = bench.device(np.ascontiguousarray(bank)), bench.device(np.ascontiguousarray(queries))
    setup = index_training.train(bank[index_training.sample_rows(rows)], rows, metric="euclidean")

    reference = exact_neighbors(bench, bank, on_device, (bank if pairs else queries)[sample], k)
    start = time.perf_counter()
    index = CudaNeighborIndex(on_device, metric="euclidean", stream=bench.stream, setup=setup)
    bench.stream.synchronize()
    built = time.perf_counter() - start

    def ours() -> Any:
        if pairs:
            return index.query_all_rows(k, stream=bench.stream)
        return index.query(given, k, stream=bench.stream)

    distances, indices = (buffer.to_host(bench.stream) for buffer in ours())
    right = share_right(reference, distances[sample], indices[sample], 1e-9)
    bench.row(
        what, "onnxviz", ours, moved=reads, operations=operations, kind="int8", right=right,
        note=f"index in {built:.2f} s, {CudaNeighborIndex.nbytes(rows, columns, len(setup.basis)) / 1e9:.2f} GB, "
        f"start {index.start}",
    )  # fmt: skip
    if bench.torch:
        _torch_neighbors(bench, what, on_device, given, k, pairs, operations, reference, sample)
    if bench.cupy and not pairs:
        _cupy_neighbors(bench, what, on_device, given, k, operations, reference, sample)


def exact_neighbors(
    bench: Bench, bank: NDArray[np.float32], on_device: Buffer, queries: NDArray[np.float32], k: int
) -> Pair:
    """Sums of squared differences in float64; on the device where torch can do that."""
    distances = np.empty((len(queries), len(bank)))
    block = 1 << 15
    rows = bench.torch.from_dlpack(on_device) if bench.torch else None
    for number, query in enumerate(queries.astype(np.float64)):
        for start in range(0, len(bank), block):
            if rows is not None:
                one = bench.torch.from_numpy(query).to(rows.device)
                squares = ((rows[start : start + block].double() - one) ** 2).sum(1).cpu().numpy()
            else:
                squares = ((bank[start : start + block] - query) ** 2).sum(axis=1)
            distances[number, start : start + block] = np.sqrt(squares)
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(distances, order, axis=1), distances


def share_right(reference: Pair, distances: Any, indices: Any, tolerance: float) -> float:
    """Share of the neighbours that are as near as float64's, in any order of equals, and told at that distance."""
    wanted, every = reference
    found = np.take_along_axis(every, np.asarray(indices, np.int64), axis=1)
    slack = tolerance * np.maximum(wanted, 1e-30)
    right = np.abs(np.sort(found, axis=1) - wanted) <= slack
    if distances is not None:
        right &= np.abs(distances - wanted) <= slack
    return float(right.mean())


def _torch_neighbors(
    bench: Bench, what: str, on_device: Buffer, given: Buffer, k: int, pairs: bool, operations: float, reference: Pair,
    sample: NDArray[np.int64],
) -> None:  # fmt: skip
    torch = bench.torch
    rows = torch.from_dlpack(on_device)
    asking = rows if pairs else torch.from_dlpack(given)
    with bench.on_stream():
        norms = torch.linalg.vector_norm(rows, dim=1) ** 2
        halves = rows.bfloat16()

    def single() -> Any:
        found = []
        for start in range(0, len(asking), BLOCK):
            scores = torch.addmm(norms[None], asking[start : start + BLOCK], rows.T, alpha=-2)
            found.append(scores.topk(k, largest=False).indices)
        return torch.cat(found)

    def half() -> Any:
        found = []
        for start in range(0, len(asking), BLOCK):
            some = asking[start : start + BLOCK]
            products = torch.mm(some.bfloat16(), halves.T, out_dtype=torch.float32)
            near = torch.sub(norms[None], products, alpha=2).topk(REFINED, largest=False).indices
            for first in range(0, len(some), 256):
                part = near[first : first + 256]
                exact = (rows[part] - some[first : first + 256, None]).pow(2).sum(2)
                found.append(part.gather(1, exact.topk(k, largest=False).indices))
        return torch.cat(found)

    reads = rows.numel() if len(asking) == 1 else 0
    for who, call, kind, size in (
        ("torch float32, topk", single, "float32", 4), ("torch bfloat16, 40 refined", half, "bfloat16", 2),
    ):  # fmt: skip
        try:
            with bench.on_stream():
                indices = call()[torch.from_numpy(sample).to(rows.device)].cpu().numpy()
            right = share_right(reference, None, indices, 1e-9)
        except Exception as error:  # an older torch has no out_dtype, and memory may not suffice
            bench.report.skip(f"{what}, {who}", error)
            continue
        bench.row(what, who, call, moved=size * reads, operations=operations, kind=kind, right=right)


def _cupy_neighbors(
    bench: Bench, what: str, on_device: Buffer, given: Buffer, k: int, operations: float, reference: Pair,
    sample: NDArray[np.int64],
) -> None:  # fmt: skip
    cupy = bench.cupy
    rows, asking = cupy.from_dlpack(on_device), cupy.from_dlpack(given)

    def call() -> Any:
        scores = norms[None] - 2 * (asking @ rows.T)
        near = cupy.argpartition(scores, k, axis=1)[:, :k]
        order = cupy.take_along_axis(scores, near, axis=1).argsort(axis=1)
        return cupy.take_along_axis(near, order, axis=1)

    try:
        with bench.on_stream():
            norms = (rows * rows).sum(axis=1)
            right = share_right(reference, None, cupy.asnumpy(call())[sample], 1e-9)
    except Exception as error:  # memory may not suffice
        bench.report.skip(f"{what}, cupy", error)
        return
    reads = 4 * rows.size if len(asking) == 1 else 0
    bench.row(what, "cupy float32, argpartition", call, moved=reads, operations=operations, kind="float32", right=right)


# -- the run -------------------------------------------------------------------------------------------------------


def machine() -> dict[str, Any]:
    """What was measured, and with what."""
    device = _cuda.devices()[0]
    return {
        "device": device.name,
        "compute capability": ".".join(map(str, device.compute_capability)),
        "device memory": f"{device.memory / 2**30:.0f} GiB",
        "multiprocessors": device.multiprocessors,
        "CUDA runtime": _cuda.runtime_version(),
        "CUDA driver": _cuda.driver_version(),
        "Python": platform.python_version(),
        "numpy": np.__version__,
        "onnxviz": backend.build_config()["version"],
        "architectures": " ".join(backend.build_config()["cuda_architectures"]),
        "emulated": bool(emulated_cuda.folder()),
    }


def load(chosen: argparse.Namespace, rows: int, count: int, columns: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """A bank and queries, of a file's features or of simulated ones."""
    if chosen.bank:
        features = np.load(chosen.bank, mmap_mode="r")
        # The last rows ask, and are not in the bank.
        return features[: min(rows, len(features) - count)], np.array(features[len(features) - count :])
    bank = np.load(feature_banks.bank("simulated", rows), mmap_mode="r")
    queries = np.load(feature_banks.queries("simulated", count), mmap_mode="r")
    return bank[:, :columns], np.array(queries[:, :columns])


def _main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT") or "gpu-results"))
    parser.add_argument("--bank", type=Path, help=".npy of (n, d) float32 features; default: simulated ones")
    parser.add_argument("--large", type=int, default=1_000_000, help="rows that one query is compared with")
    parser.add_argument("--rows", type=int, default=100_000, help="rows of the other searches")
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--only", choices=("bytes", "neighbours"), help="default: both")
    chosen = parser.parse_args()
    tiny = bool(emulated_cuda.folder())
    columns = feature_banks.FEATURES
    if tiny:
        chosen.large, chosen.rows, chosen.queries, columns = 300, 120, 9, 32

    report = Report(machine(), {})
    name = report.machine["device"]
    report.rooflines = next((limits for part, limits in ROOFLINES.items() if part in name), {})
    bench = Bench(report, tiny=tiny)
    measure_copies(bench)
    if chosen.only != "neighbours":
        measure_fills(bench)
        measure_overlays(bench)
        measure_maxima(bench)
    if chosen.only != "bytes":
        for rows, count, pairs in (
            (chosen.rows, chosen.queries, False),
            (chosen.rows, 1, True),
            (chosen.large, 1, False),
        ):
            bank, queries = load(chosen, rows, count, columns)
            measure_neighbors(bench, bank, queries, pairs=pairs)

    chosen.out.mkdir(parents=True, exist_ok=True)
    (chosen.out / "gpu.json").write_text(json.dumps(asdict(report), indent=1), encoding="utf-8")
    (chosen.out / "gpu.md").write_text(report.table(), encoding="utf-8")
    wrong = [row for row in report.rows if row.who == "onnxviz" and row.right is not None and row.right < 1]
    for row in wrong:
        print(f"WRONG: {row.what}: {row.right:.4%} right")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(_main())

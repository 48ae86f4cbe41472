"""Picture sources and a contract come in; pictures, views and encoded batches, read when asked for, go out."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from onnxviz.errors import InputError
from onnxviz.inputs.contract import Preprocess
from onnxviz.inputs.sources import Source

__all__ = ["ImageBatch", "ImageSet", "Note", "Skipped", "priority"]

_CHUNK = 8
_MOST_THREADS = 4


@dataclass(frozen=True, eq=False)
class ImageBatch:
    """Some pictures of a set, ready for the network."""

    indices: NDArray[np.int64]
    """(n,) position of each picture in the set, ascending."""
    tensor: NDArray[Any]
    """(n, *input) what the network is fed."""
    views: NDArray[np.uint8]
    """(n, height, width, 3) RGB: what the network sees."""


@dataclass(frozen=True)
class Skipped:
    """A file that is left out, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Note:
    """Something a reader should know about how a picture was read."""

    name: str
    text: str


class _Ledger:
    """What was found out while reading, shared by a set and its subsets, by the position in the full listing."""

    def __init__(self, rejected: Sequence[Skipped]) -> None:
        self.rejected = tuple(rejected)
        self.damaged: dict[int, Skipped] = {}
        self.notes: dict[int, tuple[Note, ...]] = {}


class ImageSet:
    """A re-iterable set of pictures: nothing is read before it is asked for, and nothing that was read is kept.

    Made by ``load_images``. May be read from several threads.

    Attributes
    ----------
    names : tuple of str
        One printable line for each picture: its path relative to the folder, or ``"image 0"``.
    folder_classes : (n,) int64 or None
        Class of each picture as its folder, or the caller, tells; -1 unknown. None where nothing tells.
    folder_names : tuple of str or None
        Name of each class.
    preprocess : Preprocess
        The contract by which views and tensors are made.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        preprocess: Preprocess,
        *,
        folder_classes: NDArray[np.int64] | None = None,
        folder_names: tuple[str, ...] | None = None,
        rejected: Sequence[Skipped] = (),
        threads: int | None = None,
    ) -> None:
        self._sources = tuple(sources)
        self._positions = np.arange(len(self._sources))
        self._ledger = _Ledger(rejected)
        self._threads = threads or min(_MOST_THREADS, _available_cores())
        self.names: tuple[str, ...] = tuple(source.name for source in self._sources)
        self.folder_classes = folder_classes
        self.folder_names = folder_names
        self.preprocess = preprocess

    def __repr__(self) -> str:
        classes = f", {len(self.folder_names)} classes" if self.folder_names else ""
        return f"ImageSet({len(self)} images{classes}, {len(self.skipped)} skipped, {self.preprocess.name})"

    def __len__(self) -> int:
        return len(self._sources)

    def __getitem__(self, index: int) -> Image.Image:
        """Open one picture: upright RGB in its full size.

        Raises
        ------
        InputError
            When it cannot be decoded.
        IndexError
            When there is no such picture.
        """
        index = range(len(self))[index]
        position = int(self._positions[index])
        known = self._ledger.damaged.get(position)
        if known is not None:
            raise InputError(known.reason, where=known.name)
        try:
            image, notes = self._sources[index].open(self.preprocess.background)
        except InputError as error:
            reason = f"{error.what} ({error.got})" if error.got else error.what
            self._ledger.damaged[position] = Skipped(self.names[index], reason)
            raise InputError(error.what, where=self.names[index], got=error.got) from error
        if notes:
            self._ledger.notes[position] = tuple(Note(self.names[index], text) for text in notes)
        return image

    def __iter__(self) -> Iterator[Image.Image]:
        """Pictures one after the other; those that cannot be decoded are left out and listed in ``skipped``."""
        for index in range(len(self)):
            try:
                image = self[index]
            except InputError:
                continue
            yield image

    @property
    def paths(self) -> tuple[str | None, ...]:
        """The file of each picture as the system spells it; None for pictures from memory."""
        return tuple(source.path for source in self._sources)

    @property
    def skipped(self) -> list[Skipped]:
        """What was left out so far: rejected when listed, by name, then found damaged when read, by position."""
        damaged = self._ledger.damaged
        return [*self._ledger.rejected, *(damaged[int(p)] for p in self._positions if int(p) in damaged)]

    @property
    def notes(self) -> list[Note]:
        """Remarks on the pictures that were read so far, by position."""
        return [note for p in self._positions for note in self._ledger.notes.get(int(p), ())]

    def subset(self, indices: Sequence[int] | NDArray[np.integer[Any]]) -> ImageSet:
        """Choose the pictures at these positions, in this order; what is found out about them is shared."""
        chosen = np.asarray(indices)
        if chosen.dtype == np.bool_:
            chosen = np.flatnonzero(chosen)
        chosen = chosen.astype(np.int64).reshape(-1)
        if len(chosen) and (chosen.min() < 0 or chosen.max() >= len(self)):
            raise InputError(
                "no such image",
                where="indices",
                got=f"{chosen.min()} to {chosen.max()}",
                allowed=f"0 to {len(self) - 1}",
            )
        part = self._copy([self._sources[index] for index in chosen], self.preprocess)
        part._positions = self._positions[chosen]
        part.folder_classes = None if self.folder_classes is None else self.folder_classes[chosen]
        return part

    def with_preprocess(self, preprocess: Preprocess) -> ImageSet:
        """Prepare the same pictures by another contract."""
        other = self._copy(self._sources, preprocess)
        other._positions = self._positions
        return other

    def _copy(self, sources: Sequence[Source], preprocess: Preprocess) -> ImageSet:
        other = ImageSet(
            sources, preprocess,
            folder_classes=self.folder_classes, folder_names=self.folder_names, threads=self._threads,
        )  # fmt: skip
        other._ledger = self._ledger
        return other

    def sample(self, limit: int, seed: int = 0) -> ImageSet:
        """At most ``limit`` pictures, drawn evenly from the classes where folders tell them; their order is kept."""
        if limit < 1:
            raise InputError("a sample holds at least one image", where="limit", got=str(limit), allowed="1 or more")
        if limit >= len(self):
            return self
        return self.subset(np.sort(priority(self.folder_classes, len(self), seed)[:limit]))

    def listing(self) -> dict[str, Any]:
        """What a run that goes on later compares, in JSON types: the number of pictures, and digests of what they are.

        Of a file, its size and the time of its last change are taken, so that listing a million of them reads none.
        """
        classes = None if self.folder_classes is None else self.folder_classes.tolist()
        return {
            "count": len(self),
            "names_sha256": _digest(self.names),
            "classes_sha256": None if classes is None else _digest(map(str, classes)),
            "files_sha256": _digest(source.stamp() for source in self._sources),
        }

    # --- reading many --------------------------------------------------------------------------------------------

    def batches(self, size: int, *, start: int = 0) -> Generator[ImageBatch, None, None]:
        """Pictures ready for the network, in order.

        A few threads decode ahead of the caller, by two batches at most; leaving the loop early stops them.

        Parameters
        ----------
        size : int
            Pictures per batch; only the last may hold fewer.
        start : int
            Position of the first picture.

        Yields
        ------
        ImageBatch
            Those that cannot be decoded are left out, and listed in ``skipped`` once.
        """
        if size < 1:
            raise InputError("a batch holds at least one image", where="size", got=str(size), allowed="1 or more")
        stream = self._read_ahead(range(start, len(self)), self.preprocess.view, ahead=2 * size)
        indices: list[int] = []
        views: list[NDArray[np.uint8]] = []
        try:
            for index, view, _ in stream:
                if view is None:
                    continue
                indices.append(index)
                views.append(view)
                if len(indices) == size:
                    yield self._batch(indices, views)
                    indices, views = [], []
        finally:
            stream.close()
        if indices:
            yield self._batch(indices, views)

    def _batch(self, indices: list[int], views: list[NDArray[np.uint8]]) -> ImageBatch:
        stacked = np.stack(views)
        return ImageBatch(np.array(indices, dtype=np.int64), self.preprocess.encode(stacked), stacked)

    def views(self, indices: Sequence[int] | NDArray[np.integer[Any]]) -> NDArray[np.uint8]:
        """(n, height, width, 3) RGB: what the network sees of these pictures.

        Raises
        ------
        InputError
            When one of them cannot be decoded.
        """
        return self._collect(indices, self.preprocess.view, self.preprocess.size)

    def thumbnails(self, indices: Sequence[int] | NDArray[np.integer[Any]], side: int) -> NDArray[np.uint8]:
        """(n, side, side, 3) RGB: the largest centre square of these pictures, for display.

        Raises
        ------
        InputError
            When one of them cannot be decoded.
        """
        if side < 1:
            raise InputError("a thumbnail has at least one pixel", where="side", got=str(side), allowed="1 or more")
        square = Preprocess((side, side), crop_fraction=1.0, interpolation="bicubic")
        return self._collect(indices, square.view, (side, side))

    def _collect(
        self, indices: Sequence[int] | NDArray[np.integer[Any]], reader: _Reader, size: tuple[int, int]
    ) -> NDArray[np.uint8]:
        wanted = [int(index) for index in np.asarray(indices, dtype=np.int64).reshape(-1)]
        result = np.empty((len(wanted), *size, 3), dtype=np.uint8)
        stream = self._read_ahead(wanted, reader, ahead=4 * _CHUNK)
        try:
            for row, (_, view, error) in enumerate(stream):
                if view is None:
                    assert error is not None
                    raise error
                result[row] = view
        finally:
            stream.close()
        return result

    def _read_ahead(self, indices: Sequence[int], reader: _Reader, *, ahead: int) -> Generator[_Read, None, None]:
        """Read pictures in order with a few threads, at most about ``ahead`` of them before they are asked for."""
        chunk = max(1, min(_CHUNK, ahead // (2 * self._threads)))
        chunks = [indices[first : first + chunk] for first in range(0, len(indices), chunk)]
        if self._threads == 1 or len(chunks) < 2:
            for part in chunks:
                yield from self._read(part, reader)
            return
        pool = ThreadPoolExecutor(self._threads, thread_name_prefix="onnxviz-decode")
        try:
            waiting: deque[Future[list[_Read]]] = deque()
            for part in chunks:
                waiting.append(pool.submit(self._read, part, reader))
                if len(waiting) * chunk >= ahead:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _read(self, indices: Sequence[int], reader: _Reader) -> list[_Read]:
        results: list[_Read] = []
        for index in indices:
            try:
                results.append((index, reader(self[index]), None))
            except InputError as error:
                results.append((index, None, error))
        return results


_Reader = Callable[[Image.Image], NDArray[np.uint8]]
_Read = tuple[int, NDArray[np.uint8] | None, InputError | None]


def priority(classes: NDArray[np.int64] | None, count: int, seed: int) -> NDArray[np.int64]:
    """(count,) positions in the order in which a sample takes them: one of each class, then a second of each, ..."""
    shuffled = np.random.default_rng(seed).permutation(count)
    if classes is None:
        return shuffled
    turn = np.empty(count, dtype=np.int64)
    for members in (shuffled[classes[shuffled] == label] for label in np.unique(classes)):
        turn[members] = np.arange(len(members))
    return shuffled[np.argsort(turn[shuffled], kind="stable")]


def _digest(lines: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode("utf-8", "surrogateescape") + b"\n")
    return digest.hexdigest()


def _available_cores() -> int:
    # A container may own fewer cores than the machine has; not every system can tell.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

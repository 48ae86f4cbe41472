"""Feature vectors come in, block by block; a folder that may be larger than memory keeps them, and any rows go out.

The folder holds ``bank.json`` (the manifest: one line for each shard), and for each shard a ``.npy`` file and, where
the rows have names or classes, a ``.json`` file.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from onnxviz.disk import disk_errors
from onnxviz.errors import InputError
from onnxviz.inputs.bank_files import Shard, damage, opened, read_labels, read_manifest, read_rows
from onnxviz.inputs.bank_manifest import DTYPES, Labels, Manifest, ShardRecord, shard_name, space_of
from onnxviz.inputs.bank_writer import BankWriter, Part
from onnxviz.inputs.image_set import Skipped
from onnxviz.results import Features, Provenance

__all__ = ["FeatureBank", "Shard"]

_MOST_LISTED = 10


class FeatureBank:
    """A matrix of feature vectors on disk, which grows by blocks of rows. Made by `create` or `open`.

    May be read from several threads, and while another process appends; what is appended after `open` is not seen.
    `create` and the first append lock the bank for this object until `close`, the end of the ``with`` block or of the
    object, or an append that fails: there is one writer at a time, and a process that dies is none.

    Rows are read at their position in the file, never mapped: a file that somebody cuts off while it is mapped kills
    the process, and random rows of a cold file arrive some 30 times faster this way.

    Attributes
    ----------
    folder : Path
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self._writer = BankWriter(folder, manifest)
        self._labels: dict[tuple[int, ShardRecord], Labels] = {}

    @classmethod
    def create(
        cls, folder: str | os.PathLike[str], *, columns: int, dtype: DTypeLike = "float32",
        class_names: Sequence[str] | None = None,
    ) -> FeatureBank:  # fmt: skip
        """Make an empty bank.

        Parameters
        ----------
        folder : str or path
            New or empty; its parent must exist.
        columns : int
            Features of each row, 1 or more.
        dtype : "float32" or "float64"
        class_names : sequence of str or None
            Name of each class, by number.

        Raises
        ------
        InputError
            The folder holds something, cannot be written, or the numbers are no shape of a bank.
        LimitError
            The disk is full.
        """
        shown, path = os.fspath(folder), Path(folder)
        kind = _dtype_name(dtype)
        if columns < 1:
            raise InputError("a row holds at least one number", where="columns", got=str(columns), allowed="1 or more")
        if not path.absolute().parent.is_dir():
            raise InputError(
                "the folder to write into does not exist", where=shown, got=repr(os.fspath(path.absolute().parent)),
                next_step="Create it, or name another place",
            )  # fmt: skip
        if path.exists() and not path.is_dir():
            raise InputError("is a file", where=shown, allowed="the name of a folder", next_step="Name another place")
        manifest = Manifest(int(columns), kind, None if class_names is None else tuple(map(str, class_names)))
        bank = cls(path, manifest)
        with disk_errors(shown):
            bank._writer.create()
        return bank

    @classmethod
    def open(cls, folder: str | os.PathLike[str], *, lock: bool = False) -> FeatureBank:
        """Open the bank that a folder holds.

        Parameters
        ----------
        folder : str or path
        lock : bool
            Become the writer now instead of at the first append, so that nobody can append in between.

        Raises
        ------
        InputError
            The folder holds none, or one that cannot be read, or there is another writer.
        """
        bank = cls(Path(folder), read_manifest(Path(folder)))
        if lock:
            with disk_errors(os.fspath(folder)):
                bank._writer.lock()
        return bank

    def close(self) -> None:
        """Let others append; the bank can still be read, and the next append locks it again."""
        self._writer.release()

    def __enter__(self) -> FeatureBank:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"FeatureBank({str(self.folder)!r}: {len(self)} rows of {self._manifest.columns} {self.dtype} columns)"

    # -- what it holds -------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return int(self._manifest.starts[-1])

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return len(self), self._manifest.columns

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32 or float64."""
        return np.dtype(self._manifest.dtype)

    @property
    def shards(self) -> tuple[Shard, ...]:
        """Where the rows lie, in their order."""
        return tuple(self._shard(number) for number, shard in enumerate(self._manifest.shards) if shard.rows)

    @property
    def digest(self) -> str:
        r"""SHA-256 of the shards' digests, in hexadecimal and one after the other.

        The same rows, appended in the same blocks, have the same digest, whatever they are called. In the bank's
        folder: ``sha256sum shard-*.npy | cut -c-64 | tr -d '\n' | sha256sum``.
        """
        return hashlib.sha256("".join(shard.sha256 for shard in self._manifest.shards).encode("ascii")).hexdigest()

    @property
    def names(self) -> tuple[str, ...] | None:
        """Name of each row, ``"row 7"`` where it has none; None where no row has one."""
        labels = self._all_labels()
        if all(one.names is None for one in labels):
            return None
        found: list[str] = []
        for one, shard in zip(labels, self._manifest.shards, strict=True):
            first = len(found)
            found += one.names if one.names is not None else (f"row {first + row}" for row in range(shard.rows))
        return tuple(found)

    @property
    def classes(self) -> NDArray[np.int64] | None:
        """(rows,) class of each row, -1 unknown; None where no row has one."""
        labels = self._all_labels()
        if all(one.classes is None for one in labels):
            return None
        return np.concatenate([
            one.classes if one.classes is not None else np.full(shard.rows, -1, np.int64)
            for one, shard in zip(labels, self._manifest.shards, strict=True)
        ])  # fmt: skip

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Name of each class, by number."""
        return self._manifest.class_names

    @property
    def indices(self) -> NDArray[np.int64] | None:
        """(rows,) place of each row's image in the list of images that it comes from; None where some row has none."""
        found = [one.indices for one in self._all_labels()]
        known = [one for one in found if one is not None]
        return np.concatenate(known) if known and len(known) == len(found) else None

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """Images that have no row, and why."""
        return tuple(skipped for one in self._all_labels() for skipped in one.skipped)

    @property
    def provenance(self) -> tuple[Provenance, ...]:
        """What made the rows, each once: several after `append_bank`, none where nobody told."""
        return self._manifest.made_by

    @property
    def reached(self) -> int:
        """Images of the list that are accounted for, by a row or by an entry in `skipped`; 0 where there is no list."""
        return next((shard.reached for shard in reversed(self._manifest.shards) if shard.reached is not None), 0)

    # -- reading -------------------------------------------------------------------------------------------------

    def rows(self, start: int = 0, stop: int | None = None) -> NDArray[Any]:
        """(stop - start, columns) rows start to stop - 1, cut off at the ends of the bank as a slice is.

        Raises
        ------
        InputError
            A shard cannot be read.
        """
        start, stop, _ = slice(start, stop).indices(len(self))
        found = np.empty((max(stop - start, 0), self._manifest.columns), self.dtype)
        low = start
        while low < stop:
            shard = self._shard(self._holder(low))
            high = min(stop, shard.start + shard.rows)
            with opened(shard.path) as file:
                read_rows(file, shard, low, found[low - start : high - start])
            low = high
        return found

    def __getitem__(self, key: int | slice | NDArray[np.integer[Any]] | Sequence[int]) -> NDArray[Any]:
        """Read one row (columns,), or those of a slice or of whole numbers (n, columns), negative ones from the end.

        Raises
        ------
        IndexError
            There is no such row.
        InputError
            ``key`` is something else, or a shard cannot be read.
        """
        if isinstance(key, slice):
            start, stop, step = key.indices(len(self))
            return self.rows(start, stop) if step == 1 else self._gather(np.arange(start, stop, step))
        numbers = np.asarray(key)
        if numbers.size == 0:
            numbers = numbers.astype(np.int64)
        if numbers.dtype.kind not in "iu" or numbers.ndim > 1:
            raise InputError(
                "no choice of rows", where="bank[...]", got=f"{numbers.dtype} {numbers.shape}",
                allowed="a whole number, a slice, or one axis of whole numbers",
            )  # fmt: skip
        numbers = numbers.astype(np.int64)
        wrong = numbers[(numbers < -len(self)) | (numbers >= len(self))]
        if wrong.size:
            raise IndexError(f"row {wrong.flat[0]} of a bank of {len(self)} rows")
        numbers = np.where(numbers < 0, numbers + len(self), numbers)
        return self._gather(numbers) if numbers.ndim else self._gather(numbers[np.newaxis])[0]

    def blocks(self, size: int) -> Iterator[NDArray[Any]]:
        """All rows, ``size`` at a time; the last block may hold fewer."""
        if size < 1:
            raise InputError("a block holds at least one row", where="size", got=str(size), allowed="1 or more")
        for start in range(0, len(self), size):
            yield self.rows(start, start + size)

    def _gather(self, numbers: NDArray[np.int64]) -> NDArray[Any]:
        """Rows in any order, read in the order in which they lie on disk."""
        found = np.empty((len(numbers), self._manifest.columns), self.dtype)
        order = np.argsort(numbers, kind="stable")
        first = 0
        while first < len(order):
            shard = self._shard(self._holder(int(numbers[order[first]])))
            end = int(np.searchsorted(numbers, shard.start + shard.rows, sorter=order))
            with opened(shard.path) as file:
                for place in order[first:end]:
                    read_rows(file, shard, int(numbers[place]), found[place : place + 1])
            first = end
        return found

    def _holder(self, row: int) -> int:
        """Number of the shard that holds a row."""
        return int(np.searchsorted(self._manifest.starts, row, side="right")) - 1

    def _shard(self, number: int) -> Shard:
        shard = self._manifest.shards[number]
        return Shard(self.folder / shard_name(number), shard.offset, int(self._manifest.starts[number]), shard.rows)

    def features(self) -> Features:
        """Read the whole bank into memory, as what :func:`onnxviz.features` returns."""
        made = self.provenance
        source = made[0] if made else Provenance("features", "", "", {}, {}, {}, {}, "")
        if len(made) > 1:
            merged = [dict(other.parameters) for other in made[1:]]
            source = dataclasses.replace(source, parameters={**source.parameters, "merged_with": merged})
        names, indices = self.names, self.indices
        return Features(
            value=str(source.parameters.get("value", "")),
            array=self.rows(),
            indices=np.arange(len(self)) if indices is None else indices,
            pooled=bool(source.parameters.get("pool", False)),
            names=tuple(f"row {row}" for row in range(len(self))) if names is None else names,
            classes=self.classes,
            class_names=self.class_names,
            provenance=source,
        )

    def verify(self) -> None:
        """Read everything once and compare it with its digest.

        Raises
        ------
        InputError
            Names every file that is missing, truncated or altered.
        """
        found = damage(self.folder, self._manifest)
        if found:
            more = len(found) - _MOST_LISTED
            raise InputError(
                f"the bank is damaged in {len(found)} of its files", where=str(self.folder),
                got="; ".join(found[:_MOST_LISTED]) + (f"; and {more} more" if more > 0 else ""),
                next_step="Restore them from a copy, or make the bank anew",
            )  # fmt: skip

    # -- writing -------------------------------------------------------------------------------------------------

    def append(
        self, array: ArrayLike, names: Sequence[str] | None = None, classes: ArrayLike | None = None, *,
        indices: ArrayLike | None = None, skipped: Sequence[Skipped] = (), provenance: Provenance | None = None,
        reached: int | None = None,
    ) -> None:  # fmt: skip
        """Add rows at the end, as one shard: all of them or, when this fails, none.

        Each call costs a few synced files, so rows are best appended by the thousand.

        Parameters
        ----------
        array : (n, columns)
            Finite numbers of the bank's dtype, in any memory order. Without rows, and without ``skipped``, nothing is
            written.
        names : (n,) str or None
        classes : (n,) ints or None
            -1 unknown.
        indices : (n,) ints or None
            Place of each row's image in a list of images.
        skipped : sequence of Skipped
            Images that have no row, and why.
        provenance : Provenance or None
            What made the rows.
        reached : int or None
            Images of the list that are accounted for with this append.

        Raises
        ------
        InputError
            The array does not fit or is not finite, another writer is at work, or the folder cannot be written.
        LimitError
            The disk is full; the bank is as it was.
        """
        rows = self._checked(np.asarray(array))
        if not len(rows) and not skipped:
            return
        with self._writer.writing():
            known = self.class_names
            labels = Labels.checked(len(rows), names, classes, indices, skipped, None if known is None else len(known))
            self._writer.append([Part(rows, labels, provenance, reached)], known)

    def append_bank(self, other: FeatureBank) -> None:
        """Add all rows of another bank at the end, shard by shard: all of them or, when this fails, none.

        Merging is associative: ``(a + b) + c`` and ``a + (b + c)`` are the same files. The rows' order is that of
        merging. Classes are matched by their names.

        Raises
        ------
        InputError
            The banks hold different columns, dtypes or spaces (model, value, pooling, preprocessing), classes that
            cannot be matched, or a shard of the other one is damaged.
        LimitError
            The disk is full; the bank is as it was.
        """
        if (self.shape[1], self.dtype) != (other.shape[1], other.dtype):
            raise InputError(
                "banks of different rows cannot be merged", where=str(other.folder),
                got=f"{other.shape[1]} {other.dtype} columns", allowed=f"{self.shape[1]} {self.dtype} columns",
            )  # fmt: skip
        with self._writer.writing():
            self._refuse_other_space(other)
            class_names, number_of = self._matched_classes(other)
            self._writer.append(other._parts(number_of), class_names)

    def _refuse_other_space(self, other: FeatureBank) -> None:
        first, *rest = [space_of(made) for made in (*self.provenance, *other.provenance)] or [{}]
        for space in rest:
            differing = [key for key, value in space.items() if value != first[key]]
            if differing:
                raise InputError(
                    "rows of different spaces cannot be compared, so their banks are not merged",
                    where=str(other.folder), got=f"another {', another '.join(differing)}",
                )  # fmt: skip

    def _matched_classes(self, other: FeatureBank) -> tuple[tuple[str, ...] | None, NDArray[np.int64] | None]:
        """Names of the classes of both, and the new number of each of the other's classes (None: as they are)."""
        ours, theirs = self.class_names, other.class_names
        if ours == theirs or (theirs is None and other.classes is None):
            return ours, None
        if ours is None and self.classes is None:
            return theirs, None
        if ours is None or theirs is None:
            raise InputError(
                "classes without names cannot be matched with named ones", where=str(other.folder),
                next_step="Give class_names to both banks, or to neither",
            )  # fmt: skip
        joined = (*ours, *(name for name in theirs if name not in ours))
        # The last entry is read by -1, the unknown class.
        return joined, np.array([*(joined.index(name) for name in theirs), -1], np.int64)

    def _parts(self, number_of: NDArray[np.int64] | None) -> Iterator[Part]:
        manifest = self._manifest
        for number, shard in enumerate(manifest.shards):
            labels = self._labels_of(number)
            if number_of is not None and labels.classes is not None:
                labels = dataclasses.replace(labels, classes=number_of[labels.classes])
            start = int(manifest.starts[number])
            made_by = None if shard.made_by is None else manifest.made_by[shard.made_by]
            copied = self.folder / shard_name(number), shard.sha256
            yield Part(self.rows(start, start + shard.rows), labels, made_by, shard.reached, copied)

    def _checked(self, array: NDArray[Any]) -> NDArray[Any]:
        where = f"rows for {self.folder}"
        if array.ndim != 2 or array.shape[1] != self._manifest.columns:
            raise InputError(
                "not rows of this bank", where=where, got=f"shape {array.shape}",
                allowed=f"(n, {self._manifest.columns})",
            )  # fmt: skip
        if array.dtype.newbyteorder("=") != self.dtype:
            raise InputError(
                "the array has the wrong dtype", where=where, got=str(array.dtype), allowed=str(self.dtype),
                next_step=f"Convert it with array.astype({self._manifest.dtype!r}), or create a bank of its dtype",
            )  # fmt: skip
        bad = np.flatnonzero(~np.isfinite(array).all(axis=1))
        if len(bad):
            raise InputError(
                "a row holds NaN or infinity", where=where, got=f"row {bad[0]}, and {len(bad) - 1} more",
                next_step="Leave such rows out",
            )  # fmt: skip
        return np.ascontiguousarray(array, self.dtype.newbyteorder("<"))

    # -- inside --------------------------------------------------------------------------------------------------

    @property
    def _manifest(self) -> Manifest:
        return self._writer.manifest

    def _all_labels(self) -> list[Labels]:
        return [self._labels_of(number) for number in range(len(self._manifest.shards))]

    def _labels_of(self, number: int) -> Labels:
        manifest = self._manifest
        key = number, manifest.shards[number]
        if key not in self._labels:
            self._labels[key] = read_labels(self.folder, number, manifest)
        return self._labels[key]


def _dtype_name(dtype: DTypeLike) -> str:
    try:
        name = np.dtype(dtype).name
    except TypeError:
        name = repr(dtype)
    if name not in DTYPES:
        raise InputError("no dtype of a feature bank", where="dtype", got=name, allowed=", ".join(DTYPES))
    return name

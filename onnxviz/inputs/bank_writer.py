"""Shards come in; they stand in a feature bank's folder, all of them or none, whenever the process is killed.

A shard is written before the manifest that lists it, each whole or not at all, so a kill at any time leaves the bank as
it was before or after an append. What it leaves beside the bank, the next writer removes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import re
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxviz.disk import STAGING_PREFIX, FileLock, disk_errors, replace_file, sync_folder
from onnxviz.errors import InputError
from onnxviz.inputs.bank_files import MANIFEST, altered, read_manifest
from onnxviz.inputs.bank_manifest import Labels, Manifest, ShardRecord, plain_provenance, shard_name
from onnxviz.results import Provenance

__all__ = ["BankWriter", "Part"]

_LOCK = "bank.lock"
_SHARD_FILE = re.compile(r"shard-(\d{6,})\.(?:npy|json)")


@dataclass(frozen=True, eq=False)
class Part:
    """A shard that is to be written."""

    array: NDArray[Any]
    labels: Labels
    made_by: Provenance | None
    reached: int | None
    copied: tuple[Path, str] | None = None
    """The file that it is copied from, and its digest; None where it is new."""


class BankWriter:
    """Appends to the bank in a folder, as its only writer from `create`, `lock` or the first append until `release`.

    Attributes
    ----------
    folder : Path
    manifest : Manifest
        What the folder held when it was last looked at, and what was appended since.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest
        self._lock: FileLock | None = None
        self._appending = threading.Lock()

    def create(self) -> None:
        """Make a bank of the manifest in a folder that is new or empty, and be its writer.

        Raises
        ------
        InputError
            The folder holds something, or there is another writer.
        OSError
            It cannot be written.
        """
        self.folder.mkdir(exist_ok=True)
        self._refuse_what_is_there()
        self._become_writer()
        try:
            # Somebody may have been quicker before the lock was held.
            self._refuse_what_is_there()
            self._remove_leftovers()
            replace_file(self.folder / MANIFEST, self.manifest.to_bytes())
            sync_folder(self.folder)
            sync_folder(self.folder.absolute().parent)
        except BaseException:
            self.release()
            raise

    def lock(self) -> None:
        """Become the writer, know what the bank holds, and remove what another writer left half done.

        Raises
        ------
        InputError
            There is another writer, or the manifest cannot be read.
        OSError
            The folder cannot be written.
        """
        if self._lock is not None and self._lock.held:
            return
        self._become_writer()
        try:
            self._settle()
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Let others write."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Be the only writer inside; whatever breaks off inside leaves the bank as the manifest on disk says."""
        with self._appending, disk_errors(str(self.folder)):
            self.lock()
            try:
                yield
            except BaseException:
                # Where it broke off nobody knows, an interrupt may come at any time: only the disk tells what holds.
                try:
                    with contextlib.suppress(OSError, InputError):
                        self._settle()
                finally:
                    self.release()
                raise

    def append(self, parts: Iterable[Part], class_names: tuple[str, ...] | None) -> None:
        """Write shards, and then the manifest that lists them with these names of classes; inside `writing` only."""
        made_by, shards = list(self.manifest.made_by), list(self.manifest.shards)
        for part in parts:
            shards.append(self._write_shard(len(shards), part, made_by))
        # The shards' names must be on disk before a manifest that relies on them is.
        sync_folder(self.folder)
        manifest = dataclasses.replace(
            self.manifest, class_names=class_names, made_by=tuple(made_by), shards=tuple(shards)
        )
        replace_file(self.folder / MANIFEST, manifest.to_bytes())
        self.manifest = manifest
        # The rows are in; that the folder's entry could not be forced to disk is no failure to report.
        with contextlib.suppress(OSError):
            sync_folder(self.folder)

    # -- inside --------------------------------------------------------------------------------------------------

    def _write_shard(self, number: int, part: Part, made_by: list[Provenance]) -> ShardRecord:
        header = io.BytesIO()
        kind = np.lib.format.dtype_to_descr(part.array.dtype)
        np.lib.format.write_array_header_1_0(header, {"descr": kind, "fortran_order": False, "shape": part.array.shape})
        digest = hashlib.sha256(header.getbuffer())
        digest.update(part.array.data)
        if part.copied is not None and part.copied[1] != digest.hexdigest():
            raise altered(part.copied[0])
        labels = part.labels.to_bytes()
        replace_file(self.folder / shard_name(number), header.getvalue(), part.array.data)
        if labels is not None:
            replace_file(self.folder / shard_name(number, ".json"), labels)
        return ShardRecord(
            rows=len(part.array),
            offset=header.tell(),
            sha256=digest.hexdigest(),
            labels_sha256=None if labels is None else hashlib.sha256(labels).hexdigest(),
            made_by=None if part.made_by is None else _place(part.made_by, made_by),
            reached=part.reached,
        )

    def _become_writer(self) -> None:
        try:
            self._lock = FileLock(self.folder / _LOCK)
        except BlockingIOError as error:
            raise InputError(
                "somebody else is writing to this feature bank", where=str(self.folder),
                got="a lock that another process, or another FeatureBank of this one, holds",
                next_step="Wait until it has ended, or close() the other one",
            ) from error  # fmt: skip

    def _settle(self) -> None:
        self.manifest = read_manifest(self.folder)
        self._remove_leftovers()

    def _remove_leftovers(self) -> None:
        for path in self.folder.iterdir():
            match = _SHARD_FILE.fullmatch(path.name)
            stray = match is not None and int(match[1]) >= len(self.manifest.shards)
            if stray or path.name.startswith(STAGING_PREFIX):
                path.unlink(missing_ok=True)

    def _refuse_what_is_there(self) -> None:
        present = sorted(path.name for path in self.folder.iterdir())
        if MANIFEST in present:
            raise InputError(
                "the folder holds a feature bank already", where=str(self.folder),
                next_step="Open it with FeatureBank.open, or name another folder",
            )  # fmt: skip
        foreign = [name for name in present if name != _LOCK and not name.startswith(STAGING_PREFIX)]
        if foreign:
            raise InputError(
                "the folder holds files that are no feature bank", where=str(self.folder),
                got=", ".join(map(repr, foreign[:3])) + (", ..." if len(foreign) > 3 else ""),
                next_step="Name an empty folder, or a new one",
            )  # fmt: skip


def _place(made: Provenance, known: list[Provenance]) -> int:
    """Index of ``made`` in ``known``, where it is added if it is new."""
    plain = plain_provenance(made)
    for index, other in enumerate(known):
        if plain_provenance(other) == plain:
            return index
    known.append(made)
    return len(known) - 1

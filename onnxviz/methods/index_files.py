"""A neighbour index goes to a folder and comes back without its build; a bank on disk lends it a file to work in."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from onnxviz import backend
from onnxviz.disk import STAGING_PREFIX, disk_errors, remove, sync_folder, unfinished, write_synced, writing
from onnxviz.errors import InputError
from onnxviz.inputs.feature_bank import FeatureBank

__all__ = ["bank_codes", "bank_rows", "read_index", "write_index"]

_SCHEMA = 2
_BANK = "bank"
_CODES = "bytes.codes"
_SETUP = ("mean", "reference", "basis")


def bank_rows(bank: FeatureBank) -> backend.RowFiles:
    """Where the rows of a bank lie, for the core to read them at their positions."""
    files = tuple((str(shard.path), shard.offset, shard.rows) for shard in bank.shards)
    return backend.RowFiles(files, bank.shape[1], bank.dtype)


def bank_codes(bank: FeatureBank) -> NDArray[np.uint8]:
    """Memory for the largest part of a bank's index: an unnamed file on the bank's disk, gone with the array."""
    shape = backend.NeighborIndex.codes_shape(*bank.shape)
    with disk_errors(str(bank.folder)), tempfile.TemporaryFile(dir=bank.folder) as file:
        size = int(np.prod(shape))
        if hasattr(os, "posix_fallocate"):
            # Now, because a disk that is full when a page is written kills the process.
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)
        return np.memmap(file, np.uint8, "r+", 0, shape)


def write_index(
    folder: str | os.PathLike[str],
    bank: backend.RealMatrix | FeatureBank,
    index: backend.NeighborIndex,
    parameters: dict[str, Any],
    metric: str,
) -> None:
    """Write an index to a new folder, whole or not at all; see :meth:`NearestNeighbors.save`."""
    shown, target = os.fspath(folder), Path(folder)
    if target.exists():
        raise InputError("is there already", where=shown, next_step="Name another place, or remove it first")
    if not target.absolute().parent.is_dir():
        raise InputError(
            "the folder to write into does not exist", where=shown, next_step="Create it, or name another place"
        )
    arrays = {**index.arrays, **{name: getattr(index.setup, name) for name in _SETUP}}
    if not isinstance(bank, FeatureBank):
        arrays[_BANK] = bank
    with disk_errors(shown), writing:
        staged = Path(tempfile.mkdtemp(prefix=STAGING_PREFIX, dir=target.absolute().parent))
        unfinished.add(staged)
        try:
            digests = {name: _write_array(staged / f"{name}.npy", array) for name, array in arrays.items()}
            about = {
                "schema_version": _SCHEMA,
                "parameters": parameters,
                "metric": metric,
                "scale": index.setup.scale,
                "projected": list(index.setup.projected),
                "nibbles": index.setup.nibbles,
                "bytes": index.setup.bytes,
                "start": list(index.start),
                "arrays": digests,
            }
            if isinstance(bank, FeatureBank):
                about[_BANK] = {"folder": os.path.realpath(bank.folder), "digest": bank.digest}
            write_synced(staged / "index.json", json.dumps(about, indent=1).encode())
            sync_folder(staged)
            staged.chmod(0o755)
            staged.rename(target)
            sync_folder(target.absolute().parent)
        finally:
            remove(staged)
            unfinished.discard(staged)


def read_index(
    folder: str | os.PathLike[str],
) -> tuple[backend.RealMatrix | FeatureBank, backend.NeighborIndex, dict[str, Any], str]:
    """The bank, the index, the estimator's parameters and the metric; see :meth:`NearestNeighbors.open`."""
    shown, place = os.fspath(folder), Path(folder)
    try:
        about = json.loads((place / "index.json").read_text(encoding="utf-8"))
        version, digests = about["schema_version"], about["arrays"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            "holds no index that can be read", where=shown, got=str(error), allowed="a folder that save() wrote"
        ) from error
    if version != _SCHEMA:
        raise InputError(
            "was written by another version", where=shown, got=f"schema {version}", allowed=f"schema {_SCHEMA}",
            next_step="Fit and save it again",
        )  # fmt: skip
    on_disk = about.get(_BANK)
    arrays = {
        name: _read_array(place / f"{name}.npy", digest, mapped=name == _CODES and on_disk is not None)
        for name, digest in digests.items()
    }
    setup = backend.IndexSetup(
        **{name: arrays.pop(name) for name in _SETUP},
        scale=about["scale"],
        projected=tuple((end, bits) for end, bits in about["projected"]),
        nibbles=about["nibbles"],
        bytes=about.get("bytes", True),
    )  # fmt: skip
    bank: Any = arrays.pop(_BANK, None)
    rows = bank
    if on_disk is not None:
        bank = FeatureBank.open(on_disk["folder"])
        if bank.digest != on_disk["digest"]:
            raise InputError(
                "has changed since the index was made", where=on_disk["folder"], next_step="Fit and save it again"
            )
        rows = bank_rows(bank)
    index = backend.NeighborIndex.from_arrays(
        rows, metric=about["metric"], setup=setup, arrays=arrays, start=tuple(about["start"]), resident=on_disk is None
    )
    return bank, index, about["parameters"], about["metric"]


def _write_array(path: Path, array: NDArray[Any]) -> str:
    with path.open("wb") as file:
        np.lib.format.write_array(file, array, allow_pickle=False)
        file.flush()
        os.fsync(file.fileno())
    return _digest(path)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_array(path: Path, digest: str, *, mapped: bool) -> NDArray[Any]:
    try:
        found = _digest(path)
    except OSError as error:
        raise InputError(
            "cannot be read", where=str(path), got=str(error.strerror), next_step="Fit and save the index again"
        ) from error
    if found != digest:
        raise InputError(
            "was altered since the index was saved", where=str(path), next_step="Fit and save the index again"
        )
    if mapped:
        # Copy on write: the core asks for memory that it may write to, and never does after the build.
        return cast(NDArray[Any], np.load(path, mmap_mode="c", allow_pickle=False))
    whole = np.load(path, mmap_mode="r", allow_pickle=False)
    array = backend.aligned(whole.shape, whole.dtype)
    array[...] = whole
    return array

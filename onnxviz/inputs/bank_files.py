"""Files of a feature bank's folder come in; what they hold, compared with their digests, goes out."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxviz.errors import InputError
from onnxviz.inputs.bank_manifest import Labels, Manifest, shard_name

__all__ = ["MANIFEST", "Shard", "altered", "damage", "opened", "read_labels", "read_manifest", "read_rows"]

MANIFEST = "bank.json"


@dataclass(frozen=True)
class Shard:
    """Where some rows of a bank lie on disk: C-contiguous, little-endian, one after the other."""

    path: Path
    """The ``.npy`` file."""
    offset: int
    """Bytes before the first number in the file."""
    start: int
    """Number of the first row in the bank."""
    rows: int
    """At least 1."""


def read_manifest(folder: Path) -> Manifest:
    """What the bank in a folder holds.

    Raises
    ------
    InputError
        There is none, or its manifest cannot be read.
    """
    try:
        data = (folder / MANIFEST).read_bytes()
    except OSError as error:
        raise InputError(
            f"not a feature bank: {MANIFEST} cannot be read", where=str(folder), got=str(error.strerror),
            next_step="Name the folder of a bank, or make one with FeatureBank.create",
        ) from error  # fmt: skip
    return Manifest.from_bytes(data, str(folder / MANIFEST))


@contextlib.contextmanager
def opened(path: Path) -> Iterator[io.FileIO]:
    """A file of the bank, to be read inside.

    Raises
    ------
    InputError
        It cannot be opened, or reading it fails inside.
    """
    try:
        with path.open("rb", buffering=0) as file:
            yield file
    except (OSError, EOFError) as error:
        reason = "it is shorter than it was" if isinstance(error, EOFError) else error.strerror
        raise InputError(
            "a shard of the bank cannot be read", where=str(path), got=str(reason),
            next_step="FeatureBank.verify() tells what else is damaged",
        ) from error  # fmt: skip


def read_rows(file: io.FileIO, shard: Shard, first: int, into: NDArray[Any]) -> None:
    """Fill ``into``, which is C-contiguous, with the rows of the bank from ``first`` on."""
    place = into.reshape(-1).view(np.uint8).data
    file.seek(shard.offset + (first - shard.start) * into.itemsize * into.shape[1])
    while len(place):
        # One call reads 2 GB at most on Linux.
        got = file.readinto(place)
        if not got:
            raise EOFError
        place = place[got:]


def read_labels(folder: Path, number: int, manifest: Manifest) -> Labels:
    """What is known of the rows of a shard beside their numbers.

    Raises
    ------
    InputError
        The file that says so cannot be read, or is not what was written.
    """
    shard = manifest.shards[number]
    if shard.labels_sha256 is None:
        return Labels()
    path = folder / shard_name(number, ".json")
    with opened(path) as file:
        data = file.readall()
    if hashlib.sha256(data).hexdigest() != shard.labels_sha256:
        raise altered(path)
    known = manifest.class_names
    return Labels.from_bytes(data, shard.rows, None if known is None else len(known), str(path))


def damage(folder: Path, manifest: Manifest) -> list[str]:
    """What is wrong with each file that is missing, truncated or altered; all of them are read once."""
    wrong = []
    for number, shard in enumerate(manifest.shards):
        size = shard.offset + shard.rows * manifest.columns * np.dtype(manifest.dtype).itemsize
        wrong.append(_damage(folder / shard_name(number), shard.sha256, size))
        if shard.labels_sha256 is not None:
            wrong.append(_damage(folder / shard_name(number, ".json"), shard.labels_sha256, None))
    return [text for text in wrong if text is not None]


def _damage(path: Path, sha256: str, size: int | None) -> str | None:
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
            length = os.fstat(file.fileno()).st_size
    except FileNotFoundError:
        return f"{path.name} is missing"
    except OSError as error:
        return f"{path.name} cannot be read ({error.strerror})"
    if found == sha256:
        return None
    if size is not None and length < size:
        return f"{path.name} is truncated to {length} of {size} bytes"
    return f"{path.name} is altered"


def altered(path: Path) -> InputError:
    """The error for a file whose digest is another one."""
    return InputError(
        "a file of the bank is not what was written", where=str(path),
        next_step="FeatureBank.verify() tells what else is damaged",
    )  # fmt: skip

"""The text files of a feature bank come in; what they say of its shards and rows, checked, goes out; and back."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from onnxviz.errors import InputError
from onnxviz.inputs.image_set import Skipped
from onnxviz.results import Provenance

__all__ = ["DTYPES", "Labels", "Manifest", "ShardRecord", "plain_provenance", "shard_name", "space_of"]

DTYPES = ("float32", "float64")
SCHEMA_VERSION = 1
"""Raised when a reader of the manifest would have to change."""

_DIGEST = re.compile("[0-9a-f]{64}")
_WORDS = ("source", "name", "why", "guessed")
"""Fields of a preprocessing contract that say where it comes from; the others say what it computes."""


def shard_name(number: int, ending: str = ".npy") -> str:
    """File name of a bank's shard, or of what is kept beside it."""
    return f"shard-{number:06d}{ending}"


@dataclass(frozen=True)
class ShardRecord:
    """What the manifest says of one shard."""

    rows: int
    offset: int
    """Bytes before the first number in the ``.npy`` file."""
    sha256: str
    labels_sha256: str | None
    """Digest of the file of the rows' names and classes; None where there is none."""
    made_by: int | None
    """Index into the manifest's ``made_by``; None where nobody told."""
    reached: int | None
    """Images of a list that are accounted for when this shard is written; None where it comes from no list."""


@dataclass(frozen=True)
class Manifest:
    """What ``bank.json`` holds."""

    columns: int
    dtype: str
    class_names: tuple[str, ...] | None = None
    made_by: tuple[Provenance, ...] = ()
    """What made the rows, each once."""
    shards: tuple[ShardRecord, ...] = ()

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """(shards + 1,) number of the first row of each shard, and of all rows."""
        return np.cumsum([0, *(shard.rows for shard in self.shards)], dtype=np.int64)

    def to_bytes(self) -> bytes:
        """The text of the manifest, one line for each shard."""
        head = {
            "bank": "onnxviz features",
            "schema_version": SCHEMA_VERSION,
            "columns": self.columns,
            "dtype": self.dtype,
            "class_names": self.class_names,
            "made_by": [plain_provenance(made) for made in self.made_by],
        }
        lines = [json.dumps({"file": shard_name(number)} | vars(shard)) for number, shard in enumerate(self.shards)]
        text = json.dumps(head, indent=1)
        return (text.removesuffix("\n}") + ',\n "shards": [\n  ' + ",\n  ".join(lines) + "\n ]\n}\n").encode("ascii")

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> Manifest:
        """Read the text of a manifest.

        Raises
        ------
        InputError
            It is not one, or that of a newer version.
        """
        try:
            plain = json.loads(data)
            if plain["bank"] != "onnxviz features":
                raise ValueError("not the manifest of a feature bank")
            version = _whole(plain["schema_version"])
            if version <= SCHEMA_VERSION:
                return cls._from_plain(plain)
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise InputError(
                "not a manifest of a feature bank that can be read", where=where,
                got=f"{type(error).__name__}: {error}", next_step="Restore bank.json from a copy",
            ) from error  # fmt: skip
        raise InputError(
            "the feature bank was written by a newer onnxviz", where=where, got=f"schema version {version}",
            allowed=f"up to {SCHEMA_VERSION}", next_step="Update onnxviz",
        )  # fmt: skip

    @classmethod
    def _from_plain(cls, plain: Mapping[str, Any]) -> Manifest:
        made_by = tuple(Provenance(**made) for made in plain["made_by"])
        if plain["dtype"] not in DTYPES:
            raise ValueError(f"dtype {plain['dtype']!r}")
        shards = []
        for number, entry in enumerate(plain["shards"]):
            values = dict(entry)
            # The name is no free choice: a manifest of a stranger must not point out of its folder.
            if values.pop("file") != shard_name(number):
                raise ValueError(f"file name of shard {number}")
            shard = ShardRecord(**values)
            for value in (shard.rows, shard.offset, shard.reached or 0):
                _whole(value)
            if not _DIGEST.fullmatch(shard.sha256) or not _DIGEST.fullmatch(shard.labels_sha256 or shard.sha256):
                raise ValueError(f"digest of shard {number}")
            if shard.made_by is not None and _whole(shard.made_by) >= len(made_by):
                raise ValueError(f"maker of shard {number}")
            shards.append(shard)
        names = plain["class_names"]
        return cls(
            columns=_whole(plain["columns"], least=1),
            dtype=plain["dtype"],
            class_names=None if names is None else tuple(str(name) for name in names),
            made_by=made_by,
            shards=tuple(shards),
        )


@dataclass(frozen=True, eq=False)
class Labels:
    """What is known of the rows of one shard beside their numbers."""

    names: tuple[str, ...] | None = None
    classes: NDArray[np.int64] | None = None
    indices: NDArray[np.int64] | None = None
    skipped: tuple[Skipped, ...] = ()

    @classmethod
    def checked(
        cls, rows: int, names: Sequence[str] | None, classes: ArrayLike | None, indices: ArrayLike | None,
        skipped: Sequence[Skipped], class_count: int | None,
    ) -> Labels:  # fmt: skip
        """Make labels of what a caller gives.

        Raises
        ------
        InputError
            There is not one name, class or index for each row, or a class without a name.
        """
        if names is not None and (
            isinstance(names, str) or len(names) != rows or not all(isinstance(name, str) for name in names)
        ):
            raise InputError(
                "not one name for each row", where="names", got=f"{len(names)} names", allowed=f"{rows} strings"
            )
        return cls(
            names=None if names is None else tuple(names),
            classes=_numbers("classes", classes, rows, least=-1, below=class_count),
            indices=_numbers("indices", indices, rows, least=0, below=None),
            skipped=tuple(skipped),
        )

    def to_bytes(self) -> bytes | None:
        """The text of the file beside the shard; None where nothing is known."""
        plain = {
            "names": self.names,
            "classes": None if self.classes is None else self.classes.tolist(),
            "indices": None if self.indices is None else self.indices.tolist(),
            "skipped": [[skipped.name, skipped.reason] for skipped in self.skipped] or None,
        }
        known = {key: value for key, value in plain.items() if value is not None}
        return (json.dumps(known) + "\n").encode("ascii") if known else None

    @classmethod
    def from_bytes(cls, data: bytes, rows: int, class_count: int | None, where: str) -> Labels:
        """Read the text of the file beside a shard.

        Raises
        ------
        InputError
            It does not fit the shard.
        """
        try:
            plain = json.loads(data)
            return cls.checked(
                rows, plain.get("names"), plain.get("classes"), plain.get("indices"),
                [Skipped(str(name), str(reason)) for name, reason in plain.get("skipped", ())], class_count,
            )  # fmt: skip
        except (TypeError, ValueError, AttributeError, RecursionError) as error:
            raise InputError(
                "the names and classes of a shard cannot be read", where=where, got=f"{type(error).__name__}: {error}",
                next_step="FeatureBank.verify() tells what else is damaged",
            ) from error  # fmt: skip


def plain_provenance(made: Provenance) -> dict[str, Any]:
    """What made some rows as the manifest tells it, in JSON types.

    Raises
    ------
    InputError
        It holds what JSON cannot.
    """
    try:
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(made), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise InputError(
            "what made the rows cannot be written down", where="provenance", got=str(error), allowed="plain JSON types"
        ) from error
    return plain


def space_of(made: Provenance) -> dict[str, Any]:
    """What decides where an image lies in the space of the rows; only rows of equal spaces can be compared."""
    plain = plain_provenance(made)
    contract = plain["preprocess"]
    return {
        "model": plain["model_sha256"],
        "value": plain["parameters"].get("value"),
        "pool": plain["parameters"].get("pool"),
        "preprocess": {field: contract[field] for field in contract if field not in _WORDS},
    }


def _whole(value: Any, *, least: int = 0) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{value!r} where a whole number is needed")
    return value


def _numbers(
    where: str, values: ArrayLike | None, rows: int, *, least: int, below: int | None
) -> NDArray[np.int64] | None:
    if values is None:
        return None
    numbers = np.asarray(values)
    if rows == 0 and numbers.size == 0:
        numbers = np.zeros(0, np.int64)
    if numbers.dtype.kind not in "iu" or numbers.shape != (rows,):
        raise InputError(
            "not one whole number for each row", where=where, got=f"{numbers.dtype} {numbers.shape}",
            allowed=f"whole numbers, shape ({rows},)",
        )  # fmt: skip
    if rows and (int(numbers.min()) < least or (below is not None and int(numbers.max()) >= below)):
        raise InputError(
            "a number that stands for nothing", where=where, got=f"{numbers.min()} to {numbers.max()}",
            allowed=f"{least} or more" if below is None else f"{least} to {below - 1}",
        )  # fmt: skip
    return numbers.astype(np.int64)

"""A model and images come in; a bank of their feature vectors, with which a stopped run goes on, goes out."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxviz.errors import InputError
from onnxviz.inputs.bank_files import MANIFEST
from onnxviz.inputs.bank_manifest import plain_provenance, space_of
from onnxviz.inputs.feature_bank import FeatureBank
from onnxviz.inputs.images import ImageSet, Skipped
from onnxviz.methods.features import chosen_value, vectors
from onnxviz.results import Provenance
from onnxviz.runtime.model import Model

__all__ = ["collect_features"]

_NUMBERS_DEPEND_ON = ("onnxviz", "onnx", "onnxruntime-gpu", "onnxruntime", "numpy", "pillow")
"""Packages whose version can change the last bits of a feature."""
_OF_IMAGES = {
    "count": "number of images",
    "names_sha256": "names of the images",
    "classes_sha256": "classes of the images",
    "files_sha256": "sizes, times or pixels of the images",
}
"""What a listing of images holds, by what a reader calls it."""


def collect_features(
    model: Model, images: ImageSet, folder: str | os.PathLike[str], *, value: str | None = None,
    pool: bool | None = None, shard_rows: int = 1024, progress: Callable[[int, int], None] | None = None,
) -> FeatureBank:  # fmt: skip
    """Collect the feature vectors of images in a bank on disk, and go on where an earlier run was stopped.

    A run that was killed at any time and started again with the same arguments leaves the files that an undisturbed
    one does; at most one shard is computed twice. Images that cannot be read, or whose features are not finite, have
    no row and are listed in the bank's ``skipped``.

    Parameters
    ----------
    model : Model
    images : ImageSet
        For files, names, sizes and times of change are compared when a run goes on; for pictures in memory, digests.
    folder : str or path
        New, empty, or what an earlier run left.
    value, pool
        As for :func:`onnxviz.features`.
    shard_rows : int
        Readable images of each shard, rounded up to whole batches: where a run goes on, batches are cut as before, and
        no number depends on where that was.
    progress : callable or None
        Told how many images of how many are accounted for.

    Returns
    -------
    FeatureBank
        float32, or float64 where the model computes in it; ``features()`` gives what ``onnxviz.features`` does.

    Raises
    ------
    ValueNotFoundError
        The graph has no such value, or no feature value was found and none was named.
    InputError
        The folder's bank was begun with another model, value, image list or anything else that changes its numbers,
        somebody else is writing to it, or no image gives a vector.
    LimitError
        The disk is full, or the model's time limit passed: what was collected stays.
    """
    if shard_rows < 1:
        raise InputError("a shard holds at least one row", where="shard_rows", got=str(shard_rows), allowed="1 or more")
    name, pooled = chosen_value(model, value, pool)
    shard_rows = -(-shard_rows // model.batch_size) * model.batch_size
    dtype = np.float64 if model.dtypes()[name] == "float64" else np.float32
    none = vectors(model, name, np.zeros(model.shapes()[name], dtype), pooled=pooled)[:0]
    made = model.provenance(
        "collect_features",
        {
            "value": name, "pool": pooled, "shard_rows": shard_rows, "batch_size": model.batch_size,
            "threads": model.threads, "images": images.listing(),
        },
    )  # fmt: skip
    made = dataclasses.replace(made, preprocess=images.preprocess.to_json())
    with _open_or_create(folder, none, images, made) as bank:
        _go_on(bank, model, images, none, made, progress or (lambda *_: None))
    if not len(bank):
        raise InputError("no image gives a feature vector", where="images", got=str(bank.skipped[0].reason))
    return bank


def _go_on(
    bank: FeatureBank, model: Model, images: ImageSet, none: NDArray[Any], made: Provenance,
    progress: Callable[[int, int], None],
) -> None:  # fmt: skip
    """Append the shards of the images that are not accounted for yet."""
    value, pooled, readable = (made.parameters[key] for key in ("value", "pool", "shard_rows"))
    first = bank.reached
    rest = images.subset(np.arange(first, len(images)))
    shard = _Unfinished(images, first, none)
    progress(first, len(images))
    for batch, arrays in model.batches(rest, (value,)):
        shard.add(first + batch.indices, vectors(model, value, arrays[value], pooled=pooled))
        progress(shard.reached, len(images))
        if shard.readable >= readable:
            shard.append_to(bank, made)
            shard = _Unfinished(images, shard.reached, none)
    if shard.first < len(images):
        shard.reached = len(images)
        shard.append_to(bank, made)
        progress(len(images), len(images))


class _Unfinished:
    """The rows of the images from ``first`` on, until there are enough for a shard."""

    def __init__(self, images: ImageSet, first: int, none: NDArray[Any]) -> None:
        self.images = images
        self.first = self.reached = first
        self.readable = 0
        self._rows = [none]
        self._indices = [np.zeros(0, np.int64)]
        self._reasons: dict[int, str] = {}

    def add(self, indices: NDArray[np.int64], rows: NDArray[Any]) -> None:
        finite = np.isfinite(rows).all(axis=1)
        self._rows.append(rows[finite])
        self._indices.append(indices[finite])
        self._reasons |= dict.fromkeys(indices[~finite].tolist(), "its features hold NaN or infinity")
        self.readable += len(indices)
        self.reached = int(indices[-1]) + 1

    def append_to(self, bank: FeatureBank, made: Provenance) -> None:
        indices = np.concatenate(self._indices)
        names, classes = self.images.names, self.images.folder_classes
        missing = np.setdiff1d(np.arange(self.first, self.reached), indices).tolist()
        skipped = [Skipped(names[index], self._reason(index)) for index in missing]
        if self.first == 0:
            # Files that were no images by their first bytes are in no list; the first shard remembers them.
            listed = set(names)
            skipped = [*(file for file in self.images.skipped if file.name not in listed), *skipped]
        bank.append(
            np.concatenate(self._rows),
            names=[names[index] for index in indices],
            classes=None if classes is None else classes[indices],
            indices=indices,
            skipped=skipped,
            provenance=made,
            reached=self.reached,
        )

    def _reason(self, index: int) -> str:
        if index in self._reasons:
            return self._reasons[index]
        try:
            # It was found damaged a moment ago, so this reads nothing and tells why.
            self.images[index]
        except InputError as error:
            return error.what
        return "it could not be prepared for the network"


def _open_or_create(
    folder: str | os.PathLike[str], none: NDArray[Any], images: ImageSet, made: Provenance
) -> FeatureBank:
    if not (Path(folder) / MANIFEST).exists():
        return FeatureBank.create(folder, columns=none.shape[1], dtype=none.dtype, class_names=images.folder_names)
    bank = FeatureBank.open(folder, lock=True)
    try:
        now = {"columns": none.shape[1], "dtype": none.dtype, "class names": images.folder_names}
        then = {"columns": bank.shape[1], "dtype": bank.dtype, "class names": bank.class_names}
        if bank.reached or len(bank):
            if len(bank.provenance) != 1:
                raise InputError(
                    "the feature bank was not made by one collection, so none can go on with it", where=str(folder),
                    next_step="Name another folder, and merge the two with append_bank",
                )  # fmt: skip
            now |= _settings(made)
            then |= _settings(bank.provenance[0])
        differing = [key for key in {**then, **now} if then.get(key) != now.get(key)]
        # Another number of images makes all else about them differ too: only the first of it is told.
        of_images = [key for key in differing if key in _OF_IMAGES.values()]
        differing = [key for key in differing if key not in of_images[1:]]
        if differing:
            raise InputError(
                "the feature bank was begun with other settings, so this collection cannot go on with it",
                where=str(folder), got=_listed(now, differing), allowed=_listed(then, differing),
                next_step="Restore them, or name another folder",
            )  # fmt: skip
    except BaseException:
        bank.close()
        raise
    return bank


def _settings(made: Provenance) -> dict[str, Any]:
    """Everything that a row's bits depend on, by what a reader calls it."""
    plain, space = plain_provenance(made), space_of(made)
    listing = plain["parameters"].get("images") or {}
    return {
        "model SHA-256": space["model"],
        "value": space["value"],
        "pool": space["pool"],
        **{f"preprocess {field}": value for field, value in space["preprocess"].items()},
        **{called: listing.get(key) for key, called in _OF_IMAGES.items()},
        **{name: plain["parameters"].get(name) for name in ("shard_rows", "batch_size", "threads")},
        "provider": plain["provider"],
        **{package: plain["versions"].get(package) for package in _NUMBERS_DEPEND_ON},
    }


def _listed(settings: Mapping[str, Any], keys: list[str]) -> str:
    return ", ".join(f"{key} {str(settings.get(key))[:24]}" for key in keys)

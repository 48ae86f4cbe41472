"""A file, folder, list of paths, pictures or array comes in; a lazy ImageSet, prepared for one model, goes out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from onnxviz.errors import InputError
from onnxviz.inputs.contract import Preprocess
from onnxviz.inputs.image_set import ImageBatch, ImageSet, Note, Skipped, priority
from onnxviz.inputs.sources import (
    FileSource,
    PictureSource,
    Source,
    array_sources,
    file_sources,
    printable_name,
    walk_folder,
)

__all__ = ["ImageBatch", "ImageSet", "Note", "Skipped", "load_images"]

_CHECKING_THREADS = 4
_CHECKED_AT_ONCE = 256


def load_images(
    source: str | Path | Image.Image | NDArray[Any] | Sequence[Any] | ImageSet,
    model: Any,
    *,
    labels: Sequence[int] | NDArray[np.integer[Any]] | None = None,
    class_names: Sequence[str] | None = None,
    limit: int | None = None,
) -> ImageSet:
    """List images and make them ready for a model, without reading more of them than their headers.

    Parameters
    ----------
    source : file, folder, sequence of files, PIL images or arrays, one of these, an array, or an ImageSet
        A folder is read with everything below it, in the order of names; its sub-folders are classes. An ``.npy`` file
        is an array, mapped rather than read. Arrays: uint8, bool, uint16 (65535 is white) or float in [0, 1], as
        (n, h, w), (n, h, w, 1 | 3 | 4), (n, 1 | 3, h, w), (h, w) or (h, w, 3 | 4).
    model : Model or Preprocess
        Whose ``preprocess`` says how images are prepared.
    labels : (n,) ints or None
        Class of each image of a sequence or array, -1 unknown.
    class_names : sequence of str or None
        Name of each class, by number.
    limit : int or None
        Take at most so many images: the same ones each time, drawn evenly from the classes.

    Returns
    -------
    ImageSet
        Files that turn out to be no images are listed in its ``skipped`` with the reason.

    Raises
    ------
    InputError
        When the source does not exist, cannot be understood, or holds no image at all.
    """
    preprocess = _contract_of(model)
    if limit is not None and limit < 1:
        raise InputError("too few images", where="limit", got=str(limit), allowed="1 or more")
    if isinstance(source, ImageSet):
        images = source.with_preprocess(preprocess)
        return images if limit is None else images.sample(limit)
    where = "images"
    rejected: list[Skipped] = []
    classes: NDArray[np.int64] | None = None
    names: tuple[str, ...] | None = None
    sources: Sequence[Source]
    if isinstance(source, (str, Path)):
        where = os.fspath(source)
        if Path(source).is_dir():
            sources, classes, names, rejected = _from_folder(where)
        elif where.lower().endswith(".npy"):
            sources = array_sources(_map_array(where), where=where)
        else:
            sources = [FileSource(printable_name(Path(source).name), where)]
    elif isinstance(source, np.ndarray):
        sources = array_sources(source)
    elif isinstance(source, Image.Image):
        sources = [PictureSource(_picture_name(source, 0), source)]
    elif isinstance(source, (list, tuple)):
        sources = _from_sequence(source)
    else:
        raise InputError(
            "not a source of images", where="images", got=type(source).__name__,
            allowed="a file, a folder, a sequence of paths, PIL images or arrays, or an array",
        )  # fmt: skip
    if labels is not None or class_names is not None:
        if classes is not None:
            raise InputError(
                "the folders tell the classes already", where="labels", next_step="Leave labels and class_names out"
            )
        classes, names = _stated_classes(labels, class_names, len(sources))
    kept, more = _check(sources, classes, limit)
    rejected = sorted([*rejected, *more], key=lambda skipped: skipped.name)
    if not len(kept):
        raise InputError(
            "there is no image that can be read", where=where, got=_summary(rejected),
            next_step="Point to an image file, or to a folder that holds some",
        )  # fmt: skip
    return ImageSet(
        [sources[index] for index in kept],
        preprocess,
        folder_classes=None if classes is None else classes[kept],
        folder_names=names,
        rejected=rejected,
    )


def _contract_of(model: Any) -> Preprocess:
    preprocess = model if isinstance(model, Preprocess) else getattr(model, "preprocess", None)
    if not isinstance(preprocess, Preprocess):
        raise InputError(
            getattr(model, "no_image_reason", "") or "nothing says how images are prepared",
            where="model", got=type(model).__name__,
            allowed="a Model with an image input, or a Preprocess",
            next_step="A model without an image input runs on arrays: Model.run",
        )  # fmt: skip
    return preprocess


def _from_folder(
    root: str,
) -> tuple[list[FileSource], NDArray[np.int64] | None, tuple[str, ...] | None, list[Skipped]]:
    files, rejected = walk_folder(root)
    sources = [FileSource(printable_name(name), path) for name, path in files]
    skipped = [Skipped(printable_name(name), reason) for name, reason in rejected]
    # A folder of notes beside the pictures is no class: only one that holds something named like a picture is.
    endings = Image.registered_extensions()
    folders = [name.partition("/")[0] if "/" in name else "" for name, _ in files]
    holding = (
        folder
        for folder, (name, _) in zip(folders, files, strict=True)
        if folder and os.path.splitext(name)[1].lower() in endings  # noqa: PTH122
    )
    known = {folder: number for number, folder in enumerate(sorted(set(holding)))}
    if not known:
        return sources, None, None, skipped
    classes = np.array([known.get(folder, -1) for folder in folders], dtype=np.int64)
    return sources, classes, tuple(printable_name(folder) for folder in known), skipped


def _map_array(path: str) -> NDArray[Any]:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError("not an array file that can be read", where=path, got=" ".join(str(error).split())) from error
    assert isinstance(array, np.ndarray)
    return array


def _picture_name(picture: Image.Image, index: int) -> str:
    filename = getattr(picture, "filename", "")
    return printable_name(Path(os.fsdecode(filename)).name) if filename else f"image {index}"


def _from_sequence(items: Sequence[Any]) -> list[Source]:
    paths = [(index, item) for index, item in enumerate(items) if isinstance(item, (str, Path))]
    opened: dict[int, Source] = dict(
        zip((index for index, _ in paths), file_sources([path for _, path in paths]), strict=True)
    )
    for index, item in enumerate(items):
        if isinstance(item, Image.Image):
            opened[index] = PictureSource(_picture_name(item, index), item)
        elif isinstance(item, np.ndarray):
            found = array_sources(item, where=f"images[{index}]")
            if len(found) != 1:
                raise InputError(
                    "an array in a sequence is one image", where=f"images[{index}]", got=f"shape {item.shape}",
                    allowed="(h, w), (h, w, 3 | 4)", next_step="Pass the array itself, without a list around it",
                )  # fmt: skip
            opened[index] = type(found[0])(f"image {index}", found[0].pixels)
        elif index not in opened:
            raise InputError(
                "not an image", where=f"images[{index}]", got=type(item).__name__,
                allowed="a path, a PIL image, or an array",
            )  # fmt: skip
    return [opened[index] for index in range(len(items))]


def _stated_classes(
    labels: Sequence[int] | NDArray[np.integer[Any]] | None, class_names: Sequence[str] | None, count: int
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    if labels is None:
        raise InputError("names of classes without classes", where="class_names", next_step="Pass labels as well")
    numbers = np.asarray(labels)
    if numbers.dtype.kind not in "iu" or numbers.shape != (count,):
        raise InputError(
            "not one class number for each image", where="labels", got=f"{numbers.dtype} {numbers.shape}",
            allowed=f"whole numbers, shape ({count},)", next_step="Give -1 where the class is not known",
        )  # fmt: skip
    classes = numbers.astype(np.int64)
    highest = int(classes.max(initial=-1))
    names = tuple(map(str, range(highest + 1))) if class_names is None else tuple(class_names)
    if highest >= len(names) or int(classes.min(initial=0)) < -1:
        raise InputError(
            "a class has no name", where="labels", got=f"{classes.min()} to {highest}",
            allowed=f"-1 to {len(names) - 1}", next_step="Give a name for each class",
        )  # fmt: skip
    return classes, names


def _check(
    sources: Sequence[Source], classes: NDArray[np.int64] | None, limit: int | None
) -> tuple[NDArray[np.int64], list[Skipped]]:
    """Look at headers until enough images are found: their positions, ascending, and what was rejected on the way."""
    count = len(sources)
    order = np.arange(count) if limit is None else priority(classes, count, seed=0)
    wanted = count if limit is None else limit
    kept: list[int] = []
    rejected: list[Skipped] = []
    with ThreadPoolExecutor(_CHECKING_THREADS, thread_name_prefix="onnxviz-list") as pool:
        first = 0
        while first < count and len(kept) < wanted:
            step = _CHECKED_AT_ONCE if limit is None else min(_CHECKED_AT_ONCE, wanted - len(kept))
            part = order[first : first + step]
            first += len(part)
            for index, reason in zip(part, pool.map(_reason, [sources[index] for index in part]), strict=True):
                if reason is None:
                    kept.append(int(index))
                else:
                    rejected.append(Skipped(sources[index].name, reason))
    return np.sort(np.array(kept, dtype=np.int64)), rejected


def _reason(source: Source) -> str | None:
    try:
        source.check()
    except InputError as error:
        return f"{error.what} ({error.got})" if error.got else error.what
    return None


def _summary(rejected: Sequence[Skipped]) -> str:
    if not rejected:
        return "nothing at all"
    first = "; ".join(f"{skipped.name}: {skipped.reason}" for skipped in rejected[:3])
    return f"{first}; and {len(rejected) - 3} more" if len(rejected) > 3 else first

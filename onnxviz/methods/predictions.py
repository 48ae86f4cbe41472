"""A model and images come in; the most likely classes, their confidence, and how often they are right go out."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxviz.errors import InputError
from onnxviz.inputs.images import ImageSet
from onnxviz.results import Predictions
from onnxviz.runtime.model import Model

__all__ = ["ClassMap", "map_classes", "predictions"]

_BINS = 20


@dataclass(frozen=True)
class ClassMap:
    """Which class of the model each class folder stands for."""

    classes: NDArray[np.int64]
    """(folders,) class index, -1 where no class answers to the folder's name."""
    why: str
    guessed: bool


def predictions(model: Model, images: ImageSet, *, k: int = 5, show: int = 8) -> Predictions:
    """Classify images.

    Parameters
    ----------
    model : Model
    images : ImageSet
        Class folders tell the true classes, where their names are the model's labels, class indices, or as many as
        the model has classes.
    k : int
        Classes listed for each image.
    show : int
        Images kept as pixels for the picture.

    Raises
    ------
    ContractError
        The model's output is not a classifier's.
    InputError
        No image can be read.
    """
    output = model.output.output
    top: list[NDArray[np.int64]] = []
    scores: list[NDArray[np.float32]] = []
    indices: list[NDArray[np.int64]] = []
    shown: list[NDArray[np.uint8]] = []
    for batch, arrays in model.batches(images, (output,)):
        probability = model.output.probabilities(arrays[output])
        # Stable on the negated scores: ties go to the lower class. NaN sorts last.
        order = np.argsort(-probability, axis=1, kind="stable")[:, :k].astype(np.int64)
        top.append(order)
        scores.append(np.take_along_axis(probability, order, axis=1))
        indices.append(batch.indices)
        if sum(map(len, shown)) < show:
            shown.append(batch.views[: show - sum(map(len, shown))].copy())
    if not top:
        raise InputError("none of the images can be read", where="images")
    best, best_scores, rows = np.concatenate(top), np.concatenate(scores), np.concatenate(indices)
    classes = model.output.classes or best.shape[1]
    mapped = map_classes(images.folder_names, model.labels, classes) if classes > 1 else None
    truth = None
    if mapped is not None and images.folder_classes is not None:
        folder = images.folder_classes[rows]
        truth = np.where(folder >= 0, mapped.classes[folder], -1)
    # An image whose scores are NaN has no answer, neither a right nor a wrong one.
    answered = np.isfinite(best_scores[:, 0])
    known = (truth >= 0) & answered if truth is not None else np.zeros(len(rows), bool)
    confusion = accuracy = accuracy_top5 = None
    if truth is not None and known.any():
        confusion = np.zeros((classes, classes), np.int64)
        np.add.at(confusion, (truth[known], best[known, 0]), 1)
        hits = best[known, :5] == truth[known, None]
        accuracy, accuracy_top5 = float(hits[:, 0].mean()), float(hits.any(axis=1).mean())
    confidence = best_scores[:, 0]
    bins = np.clip((np.nan_to_num(confidence) * _BINS).astype(np.int64), 0, _BINS - 1)
    return Predictions(
        top=best,
        top_scores=best_scores,
        histogram=np.bincount(bins[np.isfinite(confidence)], minlength=_BINS).astype(np.int64),
        confusion=confusion,
        accuracy=accuracy,
        accuracy_top5=accuracy_top5,
        names=tuple(images.names[index] for index in rows),
        classes=truth,
        class_names=model.labels or (("the only score",) if classes == 1 else None),
        images=np.concatenate(shown) if shown else np.zeros((0, 1, 1, 3), np.uint8),
        provenance=model.provenance(
            "predictions",
            {
                "k": k,
                "true_classes": mapped.why if mapped else None,
                "true_classes_guessed": bool(mapped and mapped.guessed),
            },
        ),
    )


def map_classes(folders: tuple[str, ...] | None, labels: tuple[str, ...] | None, classes: int) -> ClassMap | None:
    """Find which class each class folder stands for: by label, by number, or by alphabetical order.

    Returns
    -------
    ClassMap or None
        None where there are no class folders, or nothing relates them to the model's classes.
    """
    if not folders:
        return None
    if labels:
        by_name: dict[str, int] = {}
        for index, label in enumerate(labels):
            for part in (label, *label.split(",")):
                by_name.setdefault(_plain(part), index)
        found = np.array([by_name.get(_plain(folder), -1) for folder in folders], np.int64)
        if (found >= 0).sum() * 2 > len(folders):
            return ClassMap(found, "folder names are labels", guessed=False)
    if all(re.fullmatch(r"\d+", folder) for folder in folders):
        numbers = np.array([int(folder) for folder in folders], np.int64)
        if numbers.max() < classes:
            return ClassMap(numbers, "folder names are class indices", guessed=False)
    if not labels and len(folders) == classes:
        return ClassMap(np.arange(classes), "as many folders as classes, taken in alphabetical order", guessed=True)
    return None


def _plain(name: str) -> str:
    return re.sub(r"[\s_\-]+", " ", name).strip().casefold()

"""Labelled features come in; the classes to which each class's neighbours belong go out as a matrix of shares."""

from __future__ import annotations

import numpy as np

from onnxviz.methods.nearest_others import labelled_others, made_from
from onnxviz.results import ClassPurity, Features

__all__ = ["class_purity"]


def class_purity(features: Features, *, n_neighbors: int = 20, metric: str = "cosine") -> ClassPurity:
    """Measure how far the nearest neighbours of each class are of the same class, and of which they are otherwise.

    Parameters
    ----------
    features : Features
        With classes; images of unknown class (-1) are left out.
    n_neighbors : int
        Labelled neighbours of each image; all others where there are fewer.
    metric : "cosine" or "euclidean"

    Returns
    -------
    ClassPurity
        Row i of ``matrix`` is the mean over the images of class i of the share of their neighbours in each class, and
        sums to 1. The diagonal is the purity; compare it with ``chance``, which large classes have high, and with
        ``ceiling``, which small classes have low.

    Raises
    ------
    InputError
        There are no labels, or one class only; or ``n_neighbors`` or ``metric`` cannot be used.
    """
    rows, (_, indices) = labelled_others(features, n_neighbors, metric)
    assert features.classes is not None
    present, number = np.unique(features.classes[rows], return_inverse=True)
    place = np.full(len(features.classes), -1)
    place[rows] = number
    k = indices.shape[1]
    occurrences = np.zeros((len(present), len(present)), np.int64)
    np.add.at(occurrences, (np.repeat(number, k), place[indices].ravel()), 1)
    counts = np.bincount(number)
    return ClassPurity(
        value=features.value,
        classes=present.astype(np.int64),
        counts=counts,
        matrix=occurrences / (counts * k)[:, np.newaxis],
        n_neighbors=k,
        class_names=features.class_names,
        provenance=made_from(features, "class_purity", {"n_neighbors": k, "metric": metric}),
    )

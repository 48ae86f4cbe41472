"""Labelled features come in; the images whose neighbours bear another label go out, the most suspicious first."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxviz.inputs.images import ImageSet
from onnxviz.methods.nearest_others import labelled_others, made_from, thumbnails
from onnxviz.results import Features, LabelSuspects
from onnxviz.results.provenance import IntArray

__all__ = ["label_suspects"]

_DRAWN = 12
_DRAWN_NEIGHBORS = 8


def label_suspects(
    features: Features, *, n_neighbors: int = 20, metric: str = "cosine", images: ImageSet | None = None
) -> LabelSuspects:
    """Rank images by how many of their nearest neighbours bear another label.

    Parameters
    ----------
    features : Features
        With classes; images of unknown class (-1) neither vote nor are judged.
    n_neighbors : int
        Labelled neighbours that vote on an image; of an image whose class has fewer others, only as many as these.
    metric : "cosine" or "euclidean"
    images : ImageSet or None
        The images of ``features``, for the picture of the first 12 suspects.

    Returns
    -------
    LabelSuspects
        The score of an image is the share of its voters that bear another label (k-disagreeing neighbours: Smith,
        Martinez and Giraud-Carrier 2014, "An instance level analysis of data complexity"). Equal scores are ordered by
        the larger number of voters, then by the smaller mean distance of the voters, then by index. ``voted`` is the
        label of most voters, of several the one with the nearest voter.

    Raises
    ------
    InputError
        There are no labels, or one class only; or ``n_neighbors`` or ``metric`` cannot be used.

    Notes
    -----
    A suspect is a question to a person, not a verdict. Where the vote decides (Wilson 1972: drop what its neighbours
    outvote) nearly all wrong labels are among those dropped, but so is every image that the network finds hard: with
    5 % of the labels of 5,000 CIFAR-10 images exchanged, 97 % of these were outvoted, and 25 % of the rightly labelled
    images too. The ranking is sharper: of as many images from its top as labels were exchanged, 66 % were those (at
    random: 5 %), and 87 % on Fashion-MNIST. Copies of an image vote for their own label, right or wrong: look at
    :func:`~onnxviz.near_duplicates` first. The network's own training set may have taught it the wrong labels; then
    it does not suspect them.
    """
    rows, (distances, indices) = labelled_others(features, n_neighbors, metric)
    assert features.classes is not None
    classes = features.classes.astype(np.int64)
    given = classes[rows]
    same = np.bincount(given)[given] - 1
    # An image cannot have more neighbours of its own class than there are: a small class is asked fewer.
    voters = np.minimum(indices.shape[1], same)
    votes = classes[indices]
    asked = np.arange(indices.shape[1]) < voters[:, np.newaxis]
    counted = np.maximum(voters, 1)
    score = ((votes != given[:, np.newaxis]) & asked).sum(axis=1) / counted
    nearness = np.where(asked, distances, 0.0).sum(axis=1) / counted
    judged = voters > 0
    order = np.lexsort((rows, nearness, -voters, -score))
    ranking = rows[order[judged[order]]]

    count = len(classes)
    result_scores = np.full(count, np.nan)
    result_scores[rows[judged]] = score[judged]
    shown = ranking[:_DRAWN]
    neighbors = _spread(indices, rows, count, -1)
    if images is not None:
        shown = np.unique(np.concatenate([shown, neighbors[shown, :_DRAWN_NEIGHBORS].ravel()]))
    else:
        shown = shown[:0]
    return LabelSuspects(
        value=features.value,
        ranking=ranking,
        scores=result_scores,
        voters=_spread(voters, rows, count, 0),
        voted=_spread(np.where(judged, _winner(votes, asked), -1), rows, count, -1),
        neighbors=neighbors,
        distances=_spread(distances, rows, count, np.nan),
        names=features.names,
        classes=classes,
        class_names=features.class_names,
        shown=shown,
        thumbnails=thumbnails(images, features, shown),
        provenance=made_from(features, "label_suspects", {"n_neighbors": n_neighbors, "metric": metric}),
    )


def _winner(votes: IntArray, asked: NDArray[np.bool_]) -> IntArray:
    """(rows,) the class with most votes; of several the one with the nearest voter."""
    counts = np.zeros(votes.shape, np.int64)
    for place in range(votes.shape[1]):
        # One neighbour at a time: all pairs of votes at once would take neighbours² numbers for each image.
        counts += (votes == votes[:, place, np.newaxis]) & asked[:, place, np.newaxis]
    # argmax takes the first of equals, which is the nearest, and so one that was asked.
    best = counts.argmax(axis=1)
    return np.take_along_axis(votes, best[:, np.newaxis], axis=1)[:, 0]


def _spread(values: NDArray[Any], rows: IntArray, count: int, missing: float) -> NDArray[Any]:
    """The values of some rows at their places among all rows."""
    spread = np.full((count, *values.shape[1:]), missing, values.dtype)
    spread[rows] = values
    return spread

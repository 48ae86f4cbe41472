"""Where images lie in feature space, and who lies near whom."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxviz.results.provenance import FloatArray, ImageArray, IntArray, Provenance

__all__ = [
    "ClassPurity",
    "Embedding",
    "Features",
    "Hubness",
    "ImageGrid",
    "LabelSuspects",
    "NearDuplicates",
    "Neighbors",
]


@dataclass(frozen=True, eq=False)
class Features:
    """One feature vector per image."""

    value: str
    """The value whose activations they are."""
    array: FloatArray
    """(images, features) float32, or float64 where the model computes in it."""
    indices: IntArray
    """(images,) index of each row's image in the image set; images that could not be read have no row."""
    pooled: bool
    """True where each channel was averaged over space, False where the units were taken as they are."""
    names: tuple[str, ...]
    classes: IntArray | None
    """(images,) class folder of each image, -1 unknown; None where folders told nothing."""
    class_names: tuple[str, ...] | None
    """Names of the class folders."""
    provenance: Provenance


@dataclass(frozen=True, eq=False)
class Neighbors:
    """The nearest images of some query images, in feature space and in pixel space."""

    value: str
    """The value whose activations are the features."""
    queries: IntArray
    """(queries,) index of each query image into ``names``."""
    feature_distances: NDArray[np.float64]
    feature_indices: IntArray
    """(queries, k) distance and image index in feature space, nearest first; the query itself is left out."""
    pixel_distances: NDArray[np.float64]
    pixel_indices: IntArray
    """(queries, k) the same in the space of the network's input pixels."""
    names: tuple[str, ...]
    thumbnails: ImageArray
    """(images, side, side, 3) RGB of every image that a strip shows, by position in ``shown``."""
    shown: IntArray
    """(shown,) image index of each thumbnail, ascending."""
    class_names: tuple[str, ...] | None
    classes: IntArray | None
    """(images,) class of each image where folders told it, -1 unknown."""
    feature_accuracy: float | None
    pixel_accuracy: float | None
    """Leave-one-out accuracy of a vote of the k nearest over all labelled images; None without labels."""
    provenance: Provenance


@dataclass(frozen=True, eq=False)
class NearDuplicates:
    """Pairs of images far closer to each other than to other images: copies, crops, edits, frames of a burst."""

    value: str
    """The value whose activations are the features."""
    pairs: IntArray
    """(pairs, 2) index of an image into ``names``, and of its near-duplicate into ``other_names``; closest first."""
    distances: NDArray[np.float64]
    """(pairs,) distance in feature space."""
    ratios: NDArray[np.float64]
    """(pairs,) the distance as a share of the scale; the pairs are ordered by it."""
    scales: NDArray[np.float64]
    """(images,) for each of ``names`` the distance at which its ordinary neighbours lie."""
    nearest: NDArray[np.float64]
    """(images,) distance of its nearest image as a share of its scale."""
    threshold: float
    """Largest ratio of a pair."""
    within: bool
    """True where one set was compared with itself: ``other_names`` are its own, and the first index is the lower."""
    names: tuple[str, ...]
    other_names: tuple[str, ...]
    labels: tuple[str, ...] | None
    other_labels: tuple[str, ...] | None
    """(images,) class of each image in words, ``""`` unknown; None where the set has no classes."""
    thumbnails: ImageArray
    """(drawn, 2, side, side, 3) RGB of both images of the first pairs; none where the images were not given."""
    provenance: Provenance

    @property
    def conflicting(self) -> NDArray[np.bool_]:
        """(pairs,) True where both images have a known class, and not the same."""
        if self.labels is None or self.other_labels is None:
            return np.zeros(len(self.pairs), bool)
        told = [(self.labels[first], self.other_labels[second]) for first, second in self.pairs]
        return np.array([bool(first and second and first != second) for first, second in told], bool)

    @property
    def affected(self) -> IntArray:
        """Index into ``names`` of every image that has a near-duplicate, ascending."""
        return np.unique(self.pairs if self.within else self.pairs[:, 0])


@dataclass(frozen=True, eq=False)
class LabelSuspects:
    """Images by how many of their nearest neighbours bear another label."""

    value: str
    """The value whose activations are the features."""
    ranking: IntArray
    """(judged,) image index, the most suspicious first."""
    scores: NDArray[np.float64]
    """(images,) share of the neighbours with another label, 0 to 1; NaN where an image was not judged."""
    voters: IntArray
    """(images,) number of neighbours that were asked; 0 where an image was not judged."""
    voted: IntArray
    """(images,) the label that most of these neighbours bear; -1 where an image was not judged."""
    neighbors: IntArray
    """(images, k) index of the nearest labelled images, nearest first; -1 where an image has no label."""
    distances: NDArray[np.float64]
    """(images, k) their distances; NaN where an image has no label."""
    names: tuple[str, ...]
    classes: IntArray
    """(images,) the label of each image, -1 unknown."""
    class_names: tuple[str, ...] | None
    shown: IntArray
    """(shown,) image index of each thumbnail, ascending; empty where the images were not given."""
    thumbnails: ImageArray
    """(shown, side, side, 3) RGB of the first suspects and their neighbours."""
    provenance: Provenance

    @property
    def contradicted(self) -> IntArray:
        """The judged images none of whose neighbours bears their label, the most suspicious first."""
        return np.asarray(self.ranking[self.scores[self.ranking] == 1])


@dataclass(frozen=True, eq=False)
class ClassPurity:
    """To which classes the nearest neighbours of each class belong."""

    value: str
    """The value whose activations are the features."""
    classes: IntArray
    """(classes,) number of each class that has images, ascending."""
    counts: IntArray
    """(classes,) its images."""
    matrix: NDArray[np.float64]
    """(classes, classes) mean share of the neighbours of an image of the row's class that are of the column's."""
    n_neighbors: int
    class_names: tuple[str, ...] | None
    """Names by class number."""
    provenance: Provenance

    @property
    def purity(self) -> NDArray[np.float64]:
        """(classes,) mean share of the neighbours that are of the same class."""
        return np.diagonal(self.matrix).copy()

    @property
    def chance(self) -> NDArray[np.float64]:
        """(classes,) the purity that neighbours drawn at random would give."""
        return np.asarray((self.counts - 1) / (self.counts.sum() - 1), np.float64)

    @property
    def ceiling(self) -> NDArray[np.float64]:
        """(classes,) the highest purity possible: below 1 where a class has fewer other images than neighbours."""
        return np.minimum((self.counts - 1) / self.n_neighbors, 1.0)


@dataclass(frozen=True, eq=False)
class Hubness:
    """How often each image is among the nearest neighbours of others."""

    value: str
    """The value whose activations are the features."""
    occurrences: IntArray
    """(images,) N_k: the number of images that have this one among their k nearest; their mean is k."""
    bad_occurrences: IntArray | None
    """(images,) those of them that are of another class than this image; None without labels."""
    skewness: float
    """Third standardised moment of ``occurrences``: near 0 without hubs, above 1 with strong ones; 0 if all equal."""
    hubs: IntArray
    """Images that occur more often than the mean by two standard deviations, the most frequent first."""
    antihubs: IntArray
    """Images that are nobody's neighbour, those farthest from their own neighbours first."""
    n_neighbors: int
    names: tuple[str, ...]
    shown: IntArray
    """(shown,) image index of each thumbnail, ascending; empty where the images were not given."""
    thumbnails: ImageArray
    """(shown, side, side, 3) RGB of the first hubs and antihubs."""
    provenance: Provenance


@dataclass(frozen=True, eq=False)
class Embedding:
    """Feature vectors reduced to two dimensions."""

    coordinates: NDArray[np.float64]
    """(images, 2)."""
    method: str
    """``"pca"`` or ``"tsne"``."""
    explained_variance_ratio: NDArray[np.float64] | None
    """(2,) for PCA, None for t-SNE."""
    trustworthiness: float
    """Share of the 2-D neighbourhoods that is real in feature space, 0.5 chance to 1 (Venna and Kaski 2001)."""
    classes: IntArray | None
    class_names: tuple[str, ...] | None
    names: tuple[str, ...]
    provenance: Provenance
    indices: IntArray | None = None
    """(images,) index of each row's image in the image set; None where rows and images are the same."""


@dataclass(frozen=True, eq=False)
class ImageGrid:
    """Photos laid on a regular grid by their embedding."""

    cells: IntArray
    """(rows, columns) image index in each cell; -1 where the cell is empty."""
    displacement: float
    """Total distance between the images' scaled embedding positions and the cells they got, in grid widths."""
    seams_right: NDArray[np.float64] | None
    """(rows, columns - 1) feature-space distance between a cell and its right neighbour; NaN beside an empty cell."""
    seams_below: NDArray[np.float64] | None
    """(rows - 1, columns) the same downwards."""
    layout: str
    """``"assignment"`` or ``"karpathy"``."""
    thumbnails: ImageArray
    """(images, side, side, 3) RGB by image index."""
    names: tuple[str, ...]
    provenance: Provenance

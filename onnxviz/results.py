"""What the methods return: frozen dataclasses of plain numpy arrays, raw and signed, each with what made it.

Arrays are channel-first whatever the model's layout; pictures of the input are ``uint8`` RGB, height × width × 3, and
show what the network saw (after resizing and cropping, before scaling).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxviz.sums import limbs_total

__all__ = [
    "ActivationMap",
    "ActivationStatistics",
    "Activations",
    "AscentStep",
    "Attribution",
    "ClassPurity",
    "ClassVisualization",
    "Embedding",
    "FeatureVisualization",
    "Features",
    "Filters",
    "Hubness",
    "ImageGrid",
    "InsertionDeletion",
    "IntegratedGradients",
    "LabelSuspects",
    "NearDuplicates",
    "Neighbors",
    "Occlusion",
    "OcclusionStep",
    "PlantedCause",
    "PointingGame",
    "Predictions",
    "Provenance",
    "RandomizationCheck",
    "Rise",
    "RiseStep",
    "SmoothGrad",
    "TopPatches",
]

FloatArray = NDArray[np.floating[Any]]
IntArray = NDArray[np.int64]
ImageArray = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Provenance:
    """What made a result: enough to make it again, and to say what it means."""

    method: str
    """The public function's name, such as ``"occlusion"``."""
    model: str
    """The model's file name; ``""`` where no model was involved."""
    model_sha256: str
    """Digest of the model file and of its external data; ``""`` where no model was involved."""
    preprocess: Mapping[str, Any]
    """The input contract as it was used, with ``why`` and ``guessed``."""
    output: Mapping[str, Any]
    """The output contract as it was used, with ``why`` and ``guessed``."""
    parameters: Mapping[str, Any]
    """Every parameter of the call, seeds included; plain JSON types."""
    versions: Mapping[str, str]
    """Package name to version: onnxviz, onnx, onnxruntime, numpy, ..."""
    provider: str
    """The onnxruntime execution provider that was got, such as ``"CPUExecutionProvider"``."""


@dataclass(frozen=True, eq=False)
class Filters:
    """The weights of one convolution."""

    value: str
    """Name of the value that the convolution produces."""
    weight_name: str
    """Name of the tensor in the file that holds the weights."""
    weights: FloatArray
    """(filters, channels per group, kernel height, kernel width) float32; dequantised where the model is quantised."""
    groups: int
    """1 for an ordinary convolution, the number of input channels for a depthwise one."""
    channel_order: str
    """``"RGB"`` or ``"BGR"`` where the three input channels are the colours of the image, else ``""``."""
    provenance: Provenance


@dataclass(frozen=True, eq=False)
class Activations:
    """The activation of one value on a few images."""

    value: str
    maps: FloatArray
    """(images, channels, height, width), or (images, features) where the value has no spatial axes; float32."""
    images: ImageArray
    """(images, height, width, 3) RGB: what the network saw."""
    names: tuple[str, ...]
    """Name of each image."""
    provenance: Provenance


@dataclass(frozen=True, eq=False)
class ActivationStatistics:
    """Per-channel statistics of one value over a set of images; two of disjoint sets merge into one of both."""

    value: str
    count: int
    """Number of images."""
    units: int
    """Number of units per channel and image (height × width; 1 without spatial axes)."""
    sums: IntArray
    """(18, channels) exact sum over images and units, as the limbs of ``onnxviz.sums``."""
    sums_of_squares: IntArray
    """(18, channels) the same for the squares."""
    minimum: NDArray[np.float32]
    maximum: NDArray[np.float32]
    """(channels,) extremes over images and units."""
    zeros: IntArray
    """(channels,) number of units that are exactly 0."""
    at_maximum: IntArray
    """(channels,) number of units equal to ``maximum``."""
    non_finite: IntArray
    """(channels,) number of units that are NaN or infinite (left out of everything above)."""
    provenance: Provenance

    @property
    def mean(self) -> NDArray[np.float64]:
        """(channels,) mean over the finite units."""
        return limbs_total(self.sums) / self._finite

    @property
    def standard_deviation(self) -> NDArray[np.float64]:
        """(channels,) population standard deviation over the finite units."""
        variance = limbs_total(self.sums_of_squares) / self._finite - self.mean**2
        return np.sqrt(np.maximum(variance, 0.0))

    @property
    def _finite(self) -> IntArray:
        return np.maximum(self.count * self.units - self.non_finite, 1)

    @property
    def dead(self) -> NDArray[np.bool_]:
        """(channels,) True where the channel never changes: the same number for every unit of every image."""
        return np.asarray((self.minimum == self.maximum) | (self.non_finite == self.count * self.units))

    @property
    def saturated(self) -> NDArray[np.bool_]:
        """(channels,) True where a live channel sits at its own maximum in more than half of its units.

        That is what a clipped activation (ReLU6, HardSigmoid, a quantised range) looks like when it no longer answers.
        """
        return np.asarray(~self.dead & (2 * self.at_maximum > self.count * self.units))


@dataclass(frozen=True, eq=False)
class TopPatches:
    """For every channel of one value, the image positions that excite it most, strongest first."""

    value: str
    channels: IntArray
    """(channels,) channel numbers, ascending."""
    scores: FloatArray
    """(channels, k) float32 activations; ``-inf`` where fewer than k images were seen."""
    image_index: IntArray
    """(channels, k) index into ``names``; -1 where fewer than k images were seen."""
    positions: IntArray
    """(channels, k, 2) row and column of the unit in the value's map; 0 where it has no spatial axes."""
    boxes: IntArray
    """(channels, k, 4) receptive field as top, left, bottom, right in input pixels, right and bottom exclusive.

    The box is that of the unit's position and may reach past the image's border.
    """
    names: tuple[str, ...]
    """Name of every image that was offered, by index."""
    drawn: IntArray
    """(drawn,) the channels, a subset of ``channels``, whose patches are kept as pixels."""
    patches: tuple[tuple[ImageArray, ...], ...]
    """drawn × up to k patches, (height, width, 3) RGB each; what lies past the image's border is mid-grey."""
    provenance: Provenance


@dataclass(frozen=True, eq=False)
class Occlusion:
    """How a scalar of the output answers when a patch hides part of an image (Zeiler and Fergus 2013, section 4.2)."""

    probability: FloatArray
    """(rows, columns) float32: the target's score with the patch at that position; low means important."""
    label: IntArray | None
    """(rows, columns) the most likely class at each position; None where the output is not a classifier's."""
    importance: FloatArray
    """(height, width) float32: mean over the patches that cover a pixel of clean score minus occluded score."""
    clean: float
    """The target's score on the image as it is."""
    clean_label: int | None
    """The most likely class on the image as it is."""
    boxes: IntArray
    """(rows, columns, 4) the patch as top, left, bottom, right in input pixels, bottom and right exclusive."""
    regions: IntArray | None
    """(height, width) where regions were hidden instead of a sliding patch, there in one column: the row whose region a
    pixel belongs to (of boxes that overlap the smallest), -1 for none."""
    fill: FloatArray
    """What the patch holds, in RGB 0..255: (3,), or (height, width, 3) for a blurred copy of the image."""
    image: ImageArray
    """(height, width, 3) RGB: what the network saw."""
    name: str
    target: str
    """What was explained, in words: the class with its label, or value and index."""
    scale: str
    """``"probability"``, ``"logit"`` or ``"value"``: what kind of number ``probability`` holds."""
    labels: tuple[str, ...] | None
    """The class names where they are known."""
    provenance: Provenance


@dataclass(frozen=True, eq=False)
class OcclusionStep:
    """Some positions of an occlusion that is still going on."""

    positions: IntArray
    """(n, 2) row and column of each."""
    probability: FloatArray
    """(n,) float32: the target's score with the patch there."""
    label: IntArray | None
    """(n,) the most likely class there; None where the output is not a classifier's."""
    done: int
    """Positions computed so far, these included."""
    total: int
    result: Occlusion | None
    """The whole, in the last step; None before."""


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


@dataclass(frozen=True, eq=False)
class Predictions:
    """What the network answers on a set of images."""

    top: IntArray
    """(images, k) classes, most likely first; ties to the lower class."""
    top_scores: FloatArray
    """(images, k) float32 probabilities of those classes (raw values where the output is not a classifier's)."""
    histogram: IntArray
    """(20,) images by confidence of the best class: [0, .05), ..., [.95, 1]."""
    confusion: IntArray | None
    """(true classes, classes) image counts; None where true classes are not known."""
    accuracy: float | None
    accuracy_top5: float | None
    names: tuple[str, ...]
    classes: IntArray | None
    """(images,) true class in the model's own numbering, -1 unknown; None where folders told nothing."""
    class_names: tuple[str, ...] | None
    """Names of the model's classes."""
    images: ImageArray
    """(shown, height, width, 3) the first few images, for the picture."""
    provenance: Provenance


@dataclass(frozen=True, eq=False)
class Rise:
    """How a scalar of the output answers when random smooth masks hide parts of an image (Petsiuk et al. 2018)."""

    map: FloatArray
    """(height, width) float32: mean over the masks of the score times the mask, divided by ``keep``; high is
    important."""
    standard_error: FloatArray
    """(height, width) float32: by how much the map would differ with other masks, one standard deviation."""
    masks: int
    """Number of masks that were used."""
    sums: IntArray
    """(18, height × width) exact sum over blocks of masks of what ``map`` is the mean of, as the limbs of
    ``onnxviz.sums``."""
    sums_of_squares: IntArray
    """(18, height × width) the same for the squares."""
    parts: IntArray
    """(parts, 3) which masks: seed, number of the first mask, how many; ascending."""
    non_finite: int
    """Masks whose score was NaN or infinite (left out of everything above)."""
    clean: float
    """The target's score on the image as it is."""
    grid: int
    keep: float
    """Cells of a mask along each side, and the probability with which each shows the image."""
    image: ImageArray
    """(height, width, 3) RGB: what the network saw."""
    name: str
    target: str
    """What was explained, in words: the class with its label, or value and index."""
    scale: str
    """``"probability"``, ``"logit"`` or ``"value"``: what kind of number the score is."""
    provenance: Provenance

    @property
    def noise(self) -> float:
        """The largest standard error as a share of the map's range; 0 for a map of one number without error."""
        return relative_noise(self.map, self.standard_error)


@dataclass(frozen=True, eq=False)
class RiseStep:
    """The map of a RISE that is still going on."""

    map: FloatArray
    """(height, width) float32: the map of the masks so far."""
    noise: float
    """Its largest standard error as a share of its range."""
    done: int
    """Masks used so far."""
    total: int
    """The most that will be used."""
    result: Rise | None
    """The whole, in the last step; None before."""


def relative_noise(numbers: FloatArray, standard_error: FloatArray) -> float:
    """The largest standard error of a map's pixels as a share of the map's range."""
    error, spread = float(np.max(standard_error)), float(np.ptp(numbers))
    return error / spread if spread > 0 else 0.0 if error == 0 else float("inf")


@dataclass(frozen=True, eq=False)
class InsertionDeletion:
    """How the score rises and falls as pixels come and go in the order of a map (Petsiuk et al. 2018)."""

    fractions: NDArray[np.float64]
    """(steps + 1,) share of the pixels that were inserted or deleted, 0 to 1."""
    insertion: NDArray[np.float64]
    deletion: NDArray[np.float64]
    """(steps + 1,) the target's score with that share of the pixels, the most salient first, inserted into the one
    substrate or replaced by the other."""
    insertion_area: float
    deletion_area: float
    """Area under each curve over [0, 1], by the trapezoid rule; a faithful map has a large and a small one."""
    step: int
    """Pixels per step."""
    insertion_substrate: str
    deletion_substrate: str
    controls: tuple[str, ...]
    """Names of the maps that know nothing of the network; empty where they were not asked for."""
    control_insertion: NDArray[np.float64]
    control_deletion: NDArray[np.float64]
    """(controls, steps + 1) their curves."""
    control_insertion_areas: NDArray[np.float64]
    control_deletion_areas: NDArray[np.float64]
    """(controls,) their areas."""
    map: FloatArray
    """(height, width) float32: the map that was judged."""
    image: ImageArray
    """(height, width, 3) RGB: what the network saw."""
    name: str
    target: str
    """What was scored, in words: the class with its label, or value and index."""
    scale: str
    """``"probability"``, ``"logit"`` or ``"value"``: what kind of number the score is."""
    provenance: Provenance


@dataclass(frozen=True, eq=False)
class PointingGame:
    """How many maps have their maximum on the object that they should point at (Zhang et al. 2016)."""

    hits: NDArray[np.bool_]
    """(maps,) True where the maximum is within ``tolerance`` of a box."""
    peaks: IntArray
    """(maps, 2) row and column of the maximum."""
    distances: NDArray[np.float64]
    """(maps,) pixels from the maximum to the nearest pixel of a box; 0 inside one."""
    accuracy: float
    """Share of the maps that hit."""
    interval: tuple[float, float]
    """Wilson's interval of 95 % for it."""
    class_accuracy: float | None
    """Mean over the classes of the share that hit; None where no classes were given."""
    tolerance: float
    """Pixels."""
    provenance: Provenance


@dataclass(frozen=True, eq=False)
class PlantedCause:
    """How often maps point to a pattern that alone decides a class, because the network was edited so."""

    methods: tuple[str, ...]
    """Name of each explanation method, the controls last."""
    controls: int
    """How many of them are controls, which know nothing of the network."""
    hits: NDArray[np.bool_]
    """(methods, trials) True where the map's maximum lies in the pattern's box."""
    peaks: IntArray
    """(methods, trials, 2) row and column of the maximum."""
    boxes: IntArray
    """(trials, 4) where the pattern was pasted: top, left, bottom, right in pixels, bottom and right exclusive."""
    scores: NDArray[np.float64]
    """(trials, 2) probability of the planted class without and with the pattern."""
    names: tuple[str, ...]
    """(trials,) name of each image."""
    left_out: tuple[str, ...]
    """Images in which the filter found something like the pattern before it was pasted; no trial used them."""
    rates: NDArray[np.float64]
    """(methods,) share of the trials that hit."""
    intervals: NDArray[np.float64]
    """(methods, 2) Wilson's interval of 95 % for each."""
    chance: float
    """The rate of a pixel drawn at random: the share of the image that the pattern covers."""
    pattern: ImageArray
    """(height, width, 3) RGB."""
    images: ImageArray
    """(shown, height, width, 3) RGB of the first trials: what the network saw."""
    maps: FloatArray
    """(methods, shown, height, width) float32: the maps of the first trials."""
    target: str
    """The planted class, in words."""
    provenance: Provenance


@dataclass(frozen=True, eq=False)
class RandomizationCheck:
    """How alike maps stay while the network's weights are shuffled layer by layer (Adebayo et al. 2018)."""

    methods: tuple[str, ...]
    """Name of each explanation method, the controls last."""
    controls: int
    """How many of them are controls, which know nothing of the network."""
    layers: tuple[str, ...]
    """The values of the layers with weights, from the scores back to the input: the order of shuffling."""
    shuffled: IntArray
    """(stages,) how many layers were shuffled at each stage."""
    correlations: NDArray[np.float64]
    """(methods, stages) Spearman's rank correlation with the map of the network as it is; NaN for a constant map."""
    probabilities: NDArray[np.float64]
    """(stages + 1,) of the explained class, first of the network as it is."""
    maps: FloatArray
    """(methods, stages + 1, height, width) float32, first of the network as it is."""
    image: ImageArray
    """(height, width, 3) RGB: what the network saw."""
    name: str
    target: str
    """The explained class, in words."""
    provenance: Provenance


@dataclass(frozen=True, eq=False)
class Attribution:
    """What each number of the network's input has to do with one number that the network computes, by derivatives."""

    values: FloatArray
    """(channels, height, width) float32, raw and signed, channels in the order of ``channel_order``."""
    reduction: str
    """What ``map`` makes of a pixel's channels: ``"max"``, the largest magnitude, or ``"sum"``."""
    channel_order: str
    """``"RGB"``, ``"BGR"`` or ``"GRAY"``."""
    method: str
    """The method in words, such as ``"guided backpropagation"``."""
    input_value: str
    """The value that ``values`` belong to: the input, or the first real numbers behind an integer one."""
    score: float
    """The explained number on the image as it is."""
    probability: float | None
    """The probability of the explained class on the image as it is; None where no class is explained."""
    class_index: int | None
    image: ImageArray
    """(height, width, 3) RGB: what the network saw."""
    name: str
    target: str
    """What was explained, in words: the class with its label, or value and index."""
    scale: str
    """``"logit"``, ``"probability"`` or ``"value"``: what kind of number ``score`` is."""
    notes: tuple[str, ...]
    """What a reader should know, one sentence each."""
    provenance: Provenance

    @property
    def map(self) -> NDArray[np.float32]:
        """(height, width) float32: ``values`` with their channels reduced; not negative where that is ``"max"``."""
        if self.reduction == "max":
            return np.asarray(np.abs(self.values).max(axis=0), np.float32)
        return np.asarray(self.values.sum(axis=0, dtype=np.float64), np.float32)


@dataclass(frozen=True, eq=False)
class SmoothGrad(Attribution):
    """Gradients averaged over noisy copies of an image (Smilkov et al. 2017)."""

    squares: FloatArray
    """(channels, height, width) float32: mean of the squared gradients, where ``values`` is the signed mean."""
    samples: int
    """Number of noisy copies."""
    sigma: float
    """Standard deviation of the noise, in units of the encoded input."""


@dataclass(frozen=True, eq=False)
class IntegratedGradients(Attribution):
    """Gradients summed on the way from a baseline to an image (Sundararajan et al. 2017)."""

    steps: int
    """Points on the way."""
    baseline: str
    """What the way starts from, in words."""
    baseline_score: float
    """The explained number on the baseline."""
    completeness_error: float
    """Sum of ``values`` minus (``score`` minus ``baseline_score``): 0 if the integral were exact."""
    relative_completeness_error: float
    """Its magnitude as a share of that difference; infinite where only the difference is 0."""


@dataclass(frozen=True, eq=False)
class ActivationMap:
    """A weighted sum of the channels of one value, the weights taken from derivatives (Selvaraju et al. 2017)."""

    value: str
    """The value whose channels are summed."""
    coarse: FloatArray
    """(rows, columns) float32 of that value: the sum as it is, signed."""
    weights: FloatArray
    """(channels,) float32."""
    map: FloatArray
    """(height, width) float32: ``coarse`` without what is negative, brought to the image's size bilinearly."""
    method: str
    """The method in words, such as ``"Grad-CAM"``."""
    score: float
    """The explained number on the image as it is."""
    probability: float | None
    """The probability of the explained class on the image as it is; None where no class is explained."""
    class_index: int | None
    image: ImageArray
    """(height, width, 3) RGB: what the network saw."""
    name: str
    target: str
    """What was explained, in words: the class with its label, or value and index."""
    scale: str
    """``"logit"``, ``"probability"`` or ``"value"``: what kind of number ``score`` is."""
    notes: tuple[str, ...]
    """What a reader should know, one sentence each."""
    provenance: Provenance


@dataclass(frozen=True, eq=False)
class ClassVisualization:
    """Pictures made by gradient ascent, each of which a class answers to strongly (Simonyan et al. 2013)."""

    pictures: ImageArray
    """(pictures, height, width, 3) RGB."""
    classes: IntArray
    """(pictures,) the class that each was made for."""
    facets: IntArray
    """(pictures,) number of the facet of its class, from 0; 0 throughout where each class has one picture."""
    starts: ImageArray | None
    """(pictures, height, width, 3) RGB: the picture that each began with, such as the mean image of its facet; None
    where it was one colour."""
    scores: FloatArray
    """(pictures,) float32: the class's score for the finished picture."""
    probabilities: FloatArray
    """(pictures,) float32: the class's probability, the mean over ``jitters`` random shifts of the finished picture."""
    jitters: int
    reach: int
    """Most pixels of such a shift, up, down, left or right."""
    curve: FloatArray
    """(steps, pictures) float32: the class's score in each step, for the picture moved at random as it then was."""
    scale: str
    """``"logit"`` or ``"probability"``: what kind of number a score is."""
    method: str
    """How they were made: ``"fourier"``, ``"simonyan"``, ``"yosinski"`` or ``"nguyen"``."""
    labels: tuple[str, ...] | None
    """The class names where they are known."""
    provenance: Provenance


@dataclass(frozen=True, eq=False)
class FeatureVisualization:
    """Pictures made by gradient ascent, each of which excites one channel or one neuron (Olah et al. 2017)."""

    value: str
    """The value whose channels are excited."""
    unit: str
    """``"channel"``, the mean of a channel over space, or ``"neuron"``, its unit at one position."""
    channels: IntArray
    """(pictures,) channel of each."""
    position: tuple[int, int] | None
    """Row and column of the neurons; None for channels, and where the value has no spatial axes."""
    pictures: ImageArray
    """(pictures, height, width, 3) RGB."""
    scores: FloatArray
    """(pictures,) float32: the activation for the finished picture."""
    start_scores: FloatArray
    """(pictures,) float32: the activation for the picture that the ascent began with."""
    curve: FloatArray
    """(steps, pictures) float32: the activation in each step, for the picture moved at random as it then was."""
    provenance: Provenance


@dataclass(frozen=True, eq=False)
class AscentStep:
    """Pictures of a gradient ascent that is still going on."""

    pictures: ImageArray
    """(pictures, height, width, 3) RGB."""
    scores: FloatArray
    """(pictures,) float32: what the step was computed from, the scores before it."""
    done: int
    """Steps made so far."""
    total: int
    result: ClassVisualization | FeatureVisualization | None
    """The whole, in the last step; None before."""

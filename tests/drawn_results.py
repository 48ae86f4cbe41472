"""Small synthetic results of every kind, the same on every run, for the tests of pictures."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxviz.results import (
    Activations,
    ActivationStatistics,
    ClassPurity,
    Embedding,
    Filters,
    Hubness,
    ImageGrid,
    LabelSuspects,
    NearDuplicates,
    Neighbors,
    Occlusion,
    Predictions,
    Provenance,
    TopPatches,
)
from onnxviz.sums import exact_limbs

CLASSES = ("cat", "dog", "ship")


def provenance(method: str = "test", *, guessed: bool = False, **parameters: Any) -> Provenance:
    return Provenance(
        method=method,
        model="small.onnx",
        model_sha256="0" * 64,
        preprocess={
            "name": "unit",
            "channels": "RGB",
            "size": [16, 16],
            "fit": "crop",
            "crop_fraction": 0.875,
            "guessed": guessed,
        },
        output={"output": "scores", "kind": "probabilities", "guessed": False},
        parameters=parameters,
        versions={"onnxviz": "0.0.0"},
        provider="CPUExecutionProvider",
    )


def photos(count: int, side: int = 16, seed: int = 0) -> np.ndarray:
    """Smooth coloured blobs, (count, side, side, 3) uint8."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side
    images = np.empty((count, side, side, 3), np.uint8)
    for index in range(count):
        cy, cx, width = rng.uniform(0.2, 0.8, 3)
        blob = np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (0.05 + 0.1 * width))[..., None]
        images[index] = np.rint(255 * (blob * rng.uniform(0.3, 1, 3) + (1 - blob) * rng.uniform(0, 0.5, 3)))
    return images


def filters(shape: tuple[int, ...], *, groups: int = 1, order: str = "", value: str = "conv") -> Filters:
    weights = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    return Filters(value, "conv.weight", weights, groups, order, provenance("filters"))


def activations(shape: tuple[int, ...], *, signed: bool = False) -> Activations:
    maps = np.random.default_rng(2).normal(size=shape).astype(np.float32)
    maps = maps if signed else np.maximum(maps, 0)
    names = tuple(f"photo {index}.jpg" for index in range(shape[0]))
    return Activations("relu", maps, photos(shape[0]), names, provenance("activations"))


def statistics(channels: int = 24) -> ActivationStatistics:
    units = np.maximum(np.random.default_rng(3).normal(size=(50, channels)), 0).astype(np.float32)
    units[:, 3] = 0
    units[:, 7] = 2.0
    units[:12, 7] = 0.5
    wide = units.astype(np.float64)
    highest = units.max(axis=0, initial=0)
    return ActivationStatistics(
        value="relu",
        count=10,
        units=5,
        sums=exact_limbs(wide),
        sums_of_squares=exact_limbs(wide**2),
        minimum=units.min(axis=0),
        maximum=highest,
        zeros=(units == 0).sum(axis=0),
        at_maximum=(units == highest).sum(axis=0),
        non_finite=np.zeros(channels, np.int64),
        provenance=provenance("activations"),
    )


def top_patches(channels: int = 4, k: int = 5) -> TopPatches:
    rng = np.random.default_rng(4)
    scores = -np.sort(-rng.uniform(0, 9, (channels, k)).astype(np.float32), axis=1)
    return TopPatches(
        value="relu",
        channels=np.arange(channels),
        scores=scores,
        image_index=np.tile(np.arange(k), (channels, 1)),
        positions=np.zeros((channels, k, 2), np.int64),
        boxes=np.tile(np.array([0, 0, 9, 12]), (channels, k, 1)),
        names=tuple(f"{index}.png" for index in range(20)),
        drawn=np.arange(channels),
        patches=tuple(tuple(photos(k, 12, channel)[:, :9]) for channel in range(channels)),
        provenance=provenance("top_patches"),
    )


def occlusion(*, label: bool = True, window: int = 8, stride: int = 2, side: int = 24) -> Occlusion:
    places = np.arange(0, side - window + 1, stride)
    top, left = np.meshgrid(places, places, indexing="ij")
    boxes = np.stack([top, left, top + window, left + window], axis=-1)
    distance = np.hypot(top + window / 2 - 9, left + window / 2 - 14)
    score = (0.9 - 0.8 * np.exp(-distance / 4)).astype(np.float32)
    y, x = np.mgrid[:side, :side]
    importance = (0.4 * np.exp(-np.hypot(y - 9, x - 14) / 4) - 0.1 * (y > 18)).astype(np.float32)
    return Occlusion(
        probability=score,
        label=np.where(score < 0.35, 1, np.where(score < 0.5, 2, 0)).astype(np.int64) if label else None,
        importance=importance,
        clean=0.9,
        clean_label=0 if label else None,
        boxes=boxes,
        regions=None,
        fill=np.array([90.0, 100.0, 110.0]),
        image=photos(1, side)[0],
        name="photo.jpg",
        target="cat (0)" if label else "boxes[0, 4]",
        scale="probability" if label else "value",
        labels=CLASSES if label else None,
        provenance=provenance("occlusion", stride=stride, window=window, baseline="mean"),
    )


def neighbors(*, labelled: bool = True) -> Neighbors:
    queries = np.array([0, 4])
    indices = np.array([[1, 2, 3], [5, 6, 7]])
    return Neighbors(
        value="flatten",
        queries=queries,
        feature_distances=np.array([[0.5, 1.25, 3.0], [2.0, 2.5, 10.0]]),
        feature_indices=indices,
        pixel_distances=np.array([[5.5, 11.25, 13.0], [2.0, 22.5, 310.0]]),
        pixel_indices=indices[:, ::-1],
        names=tuple(f"{index}.png" for index in range(8)),
        thumbnails=photos(8),
        shown=np.arange(8),
        class_names=CLASSES if labelled else None,
        classes=np.array([0, 0, 1, 0, 2, 2, -1, 1]) if labelled else None,
        feature_accuracy=0.75 if labelled else None,
        pixel_accuracy=0.375 if labelled else None,
        provenance=provenance("neighbors"),
    )


def near_duplicates(pairs: int = 5, *, within: bool = True, labelled: bool = True, drawn: int = 24) -> NearDuplicates:
    rng = np.random.default_rng(8)
    count = 200
    ratios = np.sort(rng.uniform(0, 0.25, pairs))
    labels = tuple(CLASSES[number] for number in np.arange(count) % 3)
    chosen = rng.permutation(count)[: 2 * pairs].reshape(2, pairs).T
    chosen = np.sort(chosen, axis=1) if within else chosen
    nearest = rng.beta(12, 4, count)
    nearest[chosen[:, 0]] = ratios
    if within:
        nearest[chosen[:, 1]] = ratios
    first = photos(min(pairs, drawn))
    return NearDuplicates(
        value="flatten",
        pairs=chosen,
        distances=ratios * 0.4,
        ratios=ratios,
        scales=np.full(count, 0.4),
        nearest=nearest,
        threshold=0.25,
        within=within,
        names=tuple(f"photo {index}.jpg" for index in range(count)),
        other_names=tuple(f"photo {index}.jpg" if within else f"training/{index}.png" for index in range(count)),
        labels=labels if labelled else None,
        other_labels=labels if labelled else None,
        thumbnails=np.stack([first, np.clip(first * 0.8 + 30, 0, 255).astype(np.uint8)], axis=1),
        provenance=provenance("near_duplicates", n_neighbors=10),
    )


def label_suspects(suspects: int = 3, *, thumbnails: bool = True) -> LabelSuspects:
    rng = np.random.default_rng(9)
    count, k = 24, 6
    classes = np.arange(count) % 3
    neighbors = np.stack([rng.permutation(np.delete(np.arange(count), image))[:k] for image in range(count)])
    scores = np.zeros(count)
    voted = classes.copy()
    for rank in range(suspects):
        # The first suspects stand alone among another class, later ones have some company.
        other, own = np.flatnonzero(classes == (rank + 1) % 3), np.flatnonzero(classes == rank % 3)
        neighbors[rank] = np.concatenate([own[1 : 1 + rank], other])[:k]
        scores[rank] = (classes[neighbors[rank]] != classes[rank]).mean()
        voted[rank] = (rank + 1) % 3
    shown = np.arange(count) if thumbnails else np.zeros(0, np.int64)
    return LabelSuspects(
        value="flatten",
        ranking=np.argsort(-scores, kind="stable"),
        scores=scores,
        voters=np.full(count, k),
        voted=voted,
        neighbors=neighbors,
        distances=np.sort(rng.uniform(0.1, 0.6, (count, k)), axis=1),
        names=tuple(f"{CLASSES[number]}/{index}.png" for index, number in enumerate(classes)),
        classes=classes,
        class_names=CLASSES,
        shown=shown,
        thumbnails=photos(len(shown)),
        provenance=provenance("label_suspects"),
    )


def class_purity(classes: int = 6, *, fewest: int = 40) -> ClassPurity:
    rng = np.random.default_rng(10)
    matrix = rng.dirichlet(np.ones(classes) * 0.3, classes) * 0.5 + np.eye(classes) * rng.uniform(
        0.2, 0.8, (classes, 1)
    )
    return ClassPurity(
        value="flatten",
        classes=np.arange(classes),
        counts=fewest + rng.integers(0, 60, classes) * 2,
        matrix=matrix / matrix.sum(axis=1, keepdims=True),
        n_neighbors=20,
        class_names=tuple(f"class number {number}" for number in range(classes)),
        provenance=provenance("class_purity"),
    )


def hubness(images: int = 300, *, labelled: bool = True, hubs: int = 8) -> Hubness:
    rng = np.random.default_rng(11)
    occurrences = rng.poisson(rng.gamma(1.5, 4, images))
    deviation = occurrences - occurrences.mean() if images else np.zeros(0)
    found = np.flatnonzero(deviation > 2 * deviation.std()) if images else np.zeros(0, np.int64)
    found = found[np.argsort(-occurrences[found], kind="stable")][:hubs]
    antihubs = np.flatnonzero(occurrences == 0)
    shown = np.sort(np.concatenate([found[:12], antihubs[:12]]))
    return Hubness(
        value="flatten",
        occurrences=occurrences,
        bad_occurrences=rng.binomial(occurrences, 0.3) if labelled else None,
        skewness=1.73,
        hubs=found,
        antihubs=antihubs,
        n_neighbors=6,
        names=tuple(f"photo {index}.jpg" for index in range(images)),
        shown=shown,
        thumbnails=photos(len(shown)),
        provenance=provenance("hubness"),
    )


def embedding(method: str = "tsne", *, images: int = 90, classes: int = 3) -> Embedding:
    rng = np.random.default_rng(5)
    numbers = np.arange(images) % max(classes, 1)
    centers = rng.normal(size=(max(classes, 1), 2)) * [8, 4]
    return Embedding(
        coordinates=centers[numbers] + rng.normal(size=(images, 2)),
        method=method,
        explained_variance_ratio=np.array([0.31, 0.12]) if method == "pca" else None,
        trustworthiness=0.94,
        classes=numbers if classes else None,
        class_names=tuple(f"class number {number}" for number in range(classes)) if classes else None,
        names=tuple(f"{index}.png" for index in range(images)),
        provenance=provenance("embed", value="flatten"),
    )


def image_grid(rows: int = 3, columns: int = 4, *, seams: bool = True) -> ImageGrid:
    cells = np.arange(rows * columns).reshape(rows, columns)
    rng = np.random.default_rng(6)
    return ImageGrid(
        cells=cells,
        displacement=1.5,
        seams_right=rng.uniform(1, 9, (rows, columns - 1)) if seams else None,
        seams_below=rng.uniform(1, 9, (rows - 1, columns)) if seams else None,
        layout="assignment",
        thumbnails=photos(rows * columns),
        names=tuple(f"{index}.png" for index in range(rows * columns)),
        provenance=provenance("image_grid"),
    )


def predictions(classes: int = 3, *, known: bool = True, images: int = 5) -> Predictions:
    rng = np.random.default_rng(7)
    scores = rng.dirichlet(np.ones(classes) * 0.4, images).astype(np.float32)
    top = np.argsort(-scores, axis=1, kind="stable")[:, :5]
    true = rng.integers(0, classes, images)
    confusion = np.zeros((classes, classes), np.int64)
    np.add.at(confusion, (true, top[:, 0]), 1)
    best = np.take_along_axis(scores, top, axis=1)
    return Predictions(
        top=top,
        top_scores=best,
        histogram=np.histogram(best[:, 0], 20, (0, 1))[0],
        confusion=confusion if known else None,
        accuracy=0.6 if known else None,
        accuracy_top5=1.0 if known else None,
        names=tuple(f"{index}.png" for index in range(images)),
        classes=true if known else None,
        class_names=tuple(f"class {number}" for number in range(classes)),
        images=photos(min(images, 6)),
        provenance=provenance("predictions"),
    )

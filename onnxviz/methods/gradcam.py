"""A model and images come in; where in one of its maps the channels lie that speak for the target goes out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from onnxviz.errors import InputError, ValueNotFoundError
from onnxviz.graph.last_map import find_last_map, leads_to
from onnxviz.methods.explained_images import Explained, ImagesLike, Passes, explained_images, one_or_all
from onnxviz.methods.gradient_target import GradientTargetLike
from onnxviz.results import ActivationMap
from onnxviz.runtime.model import Model

__all__ = ["gradcam", "gradcam_plusplus", "gradcam_plusplus_weights", "gradcam_weights", "upsampled"]

Weights = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]
"""(activations, derivatives), both (channels, rows, columns), to a weight for each channel."""

_METHODS: dict[str, tuple[str, Weights]] = {}


def gradcam(
    model: Model, image: ImagesLike, target: GradientTargetLike = "top1", *, value: str | None = None
) -> ActivationMap | tuple[ActivationMap, ...]:
    """Sum the channels of a map, each weighted with the mean derivative of the target by it.

    Parameters
    ----------
    model : Model
    image : file, PIL image, array, folder, sequence of these or ImageSet
        One image or a few; all of them are kept in memory.
    target : int, str, sequence of int, tuple or mapping
        As for :func:`~onnxviz.methods.saliency.saliency`.
    value : str, optional
        Name or glob of one value with rows and columns on the way to the target. Left out: the last one before the
        classifier, before it is pooled.

    Returns
    -------
    ActivationMap, or a tuple of them
        One for each image; alone where there is one image. ``coarse`` is the signed sum as it is, (rows, columns);
        ``map`` what of it is positive, brought to the image's size bilinearly.

    Raises
    ------
    ValueNotFoundError
        The graph has no such value; or none was named, and it has no last map, as a network that works on tokens.
    InputError
        The value has no rows and columns, lies in onnxruntime's blocked layout, or does not lead to the target; and
        as :func:`~onnxviz.methods.saliency.saliency` does.
    ContractError, UnsupportedOperatorError
        As :func:`~onnxviz.methods.saliency.saliency` does.

    Notes
    -----
    Selvaraju, Cogswell, Das, Vedantam, Parikh and Batra 2017 (arXiv 1610.02391), equations 1 and 2. Nothing is scaled:
    maps of several images and classes can be compared. ``map`` is drawn as if the value's grid spanned the image
    evenly, which is what all implementations do.
    """
    return _weighted_maps(model, image, target, value, "gradcam")


def gradcam_plusplus(
    model: Model, image: ImagesLike, target: GradientTargetLike = "top1", *, value: str | None = None
) -> ActivationMap | tuple[ActivationMap, ...]:
    """Sum the channels of a map, each weighted with its positive derivatives, small objects no less than large ones.

    Parameters
    ----------
    model : Model
    image : file, PIL image, array, folder, sequence of these or ImageSet
        One image or a few; all of them are kept in memory.
    target : int, str, sequence of int, tuple or mapping
        As for :func:`~onnxviz.methods.saliency.saliency`.
    value : str, optional
        As for :func:`gradcam`.

    Returns
    -------
    ActivationMap, or a tuple of them
        As :func:`gradcam` gives.

    Raises
    ------
    ValueNotFoundError, InputError, ContractError, UnsupportedOperatorError
        As :func:`gradcam` does.

    Notes
    -----
    Chattopadhay, Sarkar, Howlader and Balasubramanian 2018 (arXiv 1710.11063), equation 19: with the derivative g of
    the logit by the activations A, α = g² / (2 g² + g³ Σ A), 0 where g is 0, and a channel's weight is the sum of
    α max(g, 0). Libraries have four formulas under this name (TorchCAM 0.5, Xplique, tf-keras-vis and pytorch-grad-cam
    differ); this is the paper's. It is meant for activations that are not negative.
    """
    return _weighted_maps(model, image, target, value, "gradcam_plusplus")


def gradcam_weights(activations: NDArray[np.float64], derivatives: NDArray[np.float64]) -> NDArray[np.float64]:
    """(channels,) mean derivative over space."""
    del activations
    return np.asarray(derivatives.mean(axis=(1, 2)))


def gradcam_plusplus_weights(activations: NDArray[np.float64], derivatives: NDArray[np.float64]) -> NDArray[np.float64]:
    """(channels,) equation 19 of Chattopadhay et al. 2018."""
    # g² cancels: 1 / (2 + g Σ A), which does not underflow where g is small.
    divisor = 2 + derivatives * activations.sum(axis=(1, 2), keepdims=True)
    alpha = np.divide(1.0, divisor, out=np.zeros_like(divisor), where=(derivatives != 0) & (divisor != 0))
    return np.asarray((alpha * np.maximum(derivatives, 0)).sum(axis=(1, 2)))


_METHODS |= {"gradcam": ("Grad-CAM", gradcam_weights), "gradcam_plusplus": ("Grad-CAM++", gradcam_plusplus_weights)}


def _weighted_maps(
    model: Model, image: ImagesLike, target: GradientTargetLike, value: str | None, method: str
) -> ActivationMap | tuple[ActivationMap, ...]:
    explained = explained_images(model, image, target, method)
    return one_or_all(activation_maps(explained, value))


def activation_maps(explained: Explained, value: str | None) -> list[ActivationMap]:
    """The maps of all images, by the method that ``explained`` names (Grad-CAM for every other)."""
    words, weigh = _METHODS.get(explained.method, _METHODS["gradcam"])
    model, size = explained.model, explained.preprocess.size
    name, why = _map_of(explained, value)
    passes = Passes(explained, wrt=(name,), values=(name,))
    results = []
    for part in passes.images():
        activations = model.channel_first(name, part.values[name])
        derivatives = model.channel_first(name, part.gradients[name])
        for row, index in enumerate(range(part.rows.start, part.rows.stop)):
            maps, slopes = activations[row].astype(np.float64), derivatives[row].astype(np.float64)
            weights = weigh(maps, slopes)
            coarse = np.tensordot(weights, maps, 1)
            notes = list(explained.notes)
            if not np.isfinite(coarse).all():
                notes.append("The map, or the derivative by it, holds numbers that are not finite: it says nothing.")
            elif not (coarse > 0).any():
                notes.append("No place of this map speaks for the target: it is 0 everywhere.")
            if explained.method == "gradcam_plusplus" and maps.min() < 0:
                notes.append("The value holds negative activations, which equation 19 was not made for.")
            results.append(
                ActivationMap(
                    value=name,
                    coarse=coarse.astype(np.float32),
                    weights=weights.astype(np.float32),
                    map=upsampled(np.maximum(coarse, 0), size),
                    method=words,
                    notes=tuple(notes),
                    **explained.common(index, float(part.scores[row]), {"value": name, "why": why}),
                )
            )
    return results


def upsampled(coarse: NDArray[np.floating], size: tuple[int, int]) -> NDArray[np.float32]:
    """(height, width) float32: a coarse map spread over the image, bilinear between the middles of its cells."""
    grown = Image.fromarray(coarse.astype(np.float32)).resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.asarray(grown, np.float32).copy()


def _map_of(explained: Explained, value: str | None) -> tuple[str, str]:
    """The value whose channels are weighted, and why it was chosen."""
    model = explained.model
    if value is not None:
        name = model.value_of_images(value)
        if not _is_map(model, name):
            raise InputError(
                "the value has no rows and columns", where=f"value {name!r}",
                got=f"{model.dtypes().get(name, '?')} of shape {model.shapes().get(name, ())}",
                allowed="real numbers with channels, rows and columns, more than one position",
                next_step="Name a convolution's output: `onnxviz inspect` lists the values",
            )  # fmt: skip
        if not leads_to(model.loaded.proto, name, explained.target.values):
            raise InputError(
                "the target does not depend on this value", where=f"value {name!r}", got=explained.target.text,
                next_step="Name a value between the input and the target",
            )  # fmt: skip
        return name, "named by the caller"
    # Where the network pools only after naming classes, the maps that the last layer reads come before its class maps.
    features = model.feature_value
    scores: tuple[str, ...] = explained.target.values
    if features is not None and explained.target.classes is not None and leads_to(model.loaded.proto, features, scores):
        scores = (features,)
    found = find_last_map(
        model.loaded.proto, scores, lambda name: _is_map(model, name), model.shapes(),
        explained=explained.target.values,
    )  # fmt: skip
    if found is None:
        raise ValueNotFoundError(
            "the network has no last map with rows and columns before its scores", where=model.name,
            next_step="Name a value with rows and columns with value=..., or explain with saliency or occlusion",
        )  # fmt: skip
    if found.guessed:
        raise ValueNotFoundError(
            "behind its last map the network works on a sequence of tokens, so no map is the last before its scores",
            where=model.name, got=f"the last map {found.value!r}",
            next_step=f"Name a value with rows and columns, such as value={found.value!r}, or explain with saliency",
        )  # fmt: skip
    return model.value_of_images(found.value), found.why


def _is_map(model: Model, name: str) -> bool:
    shape = model.shapes().get(name, ()) if model.image_axis(name) == 0 else ()
    sides = [side for axis, side in enumerate(shape) if axis not in (0, model.channel_axis(name))]
    return len(shape) == 4 and sides[0] * sides[1] > 1 and "float" in model.dtypes().get(name, "")

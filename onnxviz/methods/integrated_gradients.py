"""A model and images come in; how the target's change on the way from a baseline divides among pixels goes out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxviz.methods.explained_images import Explained, ImagesLike, Passes, explained_images, one_or_all, whole_number
from onnxviz.methods.gradient_target import GradientTargetLike
from onnxviz.methods.substrates import Substrate, substrate
from onnxviz.results import IntegratedGradients
from onnxviz.runtime.model import Model

__all__ = ["gauss_legendre", "integrated_gradients"]

_TOLERATED = 0.05
"""Largest relative completeness error that needs no warning."""


def integrated_gradients(
    model: Model,
    image: ImagesLike,
    target: GradientTargetLike = "top1",
    *,
    baseline: Substrate = "mean",
    steps: int = 50,
) -> IntegratedGradients | tuple[IntegratedGradients, ...]:
    """Integrate the derivative of the target on the straight way from a baseline to the image.

    Parameters
    ----------
    model : Model
    image : file, PIL image, array, folder, sequence of these or ImageSet
        One image or a few; all of them are kept in memory.
    target : int, str, sequence of int, tuple or mapping
        As for :func:`~onnxviz.methods.saliency.saliency`. ``"top1"`` is chosen once, on the image itself.
    baseline : str or (3,) numbers
        An image that says nothing: ``"mean"``, the mean colour of this image's pixels; ``"dataset"``, the mean of the
        preprocessing contract; ``"grey"``, 128; ``"zero"``, the number 0 in the model's input space (Captum's choice:
        the mean colour where the contract subtracts one, black where it does not); ``"blur"``, the image under a
        Gaussian blur (11 × 11 pixels, standard deviation 5); or an RGB colour 0..255. Pixels that are like the baseline
        get nothing, whatever the network makes of them.
    steps : int
        Points on the way.

    Returns
    -------
    IntegratedGradients, or a tuple of them
        One for each image; alone where there is one image. ``values`` are signed, (channels, height, width), in units
        of the target; ``map`` is their sum over the channels. ``completeness_error`` tells how far their total is from
        the target's change.

    Raises
    ------
    InputError
        A parameter is not one of those above; and as :func:`~onnxviz.methods.saliency.saliency` does.
    ContractError, UnsupportedOperatorError
        As :func:`~onnxviz.methods.saliency.saliency` does.

    Notes
    -----
    Sundararajan, Taly and Yan 2017 (arXiv 1703.01365): (x - x') times the mean of the gradient over
    x' + α (x - x'), 0 < α < 1, by Gauss-Legendre quadrature as Captum has it; sums are taken in float64. Points on the
    way of an integer input are rounded to what the input can hold.
    """
    points = whole_number("steps", steps)
    explained = explained_images(model, image, target, "integrated_gradients")
    starts = [substrate(explained.preprocess, view, baseline) for view in explained.views]
    passes = Passes(explained)
    said = baseline if isinstance(baseline, str) else "RGB " + ", ".join(f"{float(number):g}" for number in baseline)
    return one_or_all([_one(explained, passes, index, start, said, points) for index, start in enumerate(starts)])


def _one(
    explained: Explained, passes: Passes, index: int, start: NDArray[Any], said: str, steps: int
) -> IntegratedGradients:
    source, end = explained.source, explained.tensor[index]
    places, weights = gauss_legendre(steps)
    total: NDArray[np.float64] = np.zeros(())
    ends: dict[int, NDArray[Any]] = {}
    scores = np.zeros(2)
    # Two more rows, the baseline and the image: their scores say whether the integral is complete.
    for part in passes.variants(index, steps + 2, _points(start, end, places)):
        gradients = part.gradients[source]
        inner = max(0, min(part.rows.stop, steps) - part.rows.start)
        if inner:
            # No matrix product: the threads of numpy's would wait for those of onnxruntime, which spin.
            shares = weights[part.rows.start : part.rows.start + inner].reshape(-1, *(1,) * end.ndim)
            total = total + (shares * gradients[:inner]).sum(axis=0)
        for row in range(inner, len(gradients)):
            which = part.rows.start + row - steps
            scores[which] = part.scores[row]
            if source in part.values:
                ends[which] = np.array(part.values[source][row], np.float64)
    way = ends[1] - ends[0] if ends else end.astype(np.float64) - start.astype(np.float64)
    with np.errstate(invalid="ignore"):  # where the network answers with infinity a note says it
        values = total * way
        change = float(scores[1] - scores[0])
        error = float(values.sum()) - change
    relative = abs(error) / abs(change) if change else 0.0 if error == 0 else float("inf")
    notes = []
    if end.dtype.kind in "iu":
        notes.append("Points on the way were rounded to the integers that the input holds.")
    if not np.isfinite(error):
        notes.append("The target, or its derivative somewhere on the way, is no finite number: the map says nothing.")
    elif relative > _TOLERATED:
        notes.append(
            f"The parts add up to {change + error:.3g}, where the target changed by {change:.3g}; more steps may help."
        )
    return IntegratedGradients(
        **explained.input_fields(explained.channels_first(values[np.newaxis])[0], "sum", "integrated gradients", notes),
        **explained.common(
            index, float(scores[1]),
            {"reduction": "sum", "baseline": said, "steps": steps, "rule": "Gauss-Legendre"},
        ),
        steps=steps,
        baseline=said,
        baseline_score=float(scores[0]),
        completeness_error=error,
        relative_completeness_error=relative,
    )  # fmt: skip


def _points(start: NDArray[Any], end: NDArray[Any], places: NDArray[np.float64]) -> Callable[[int, NDArray[Any]], None]:
    """Writes points on the way; after them come its start and its end."""
    whole = start.dtype.kind in "iu"
    # Numbers of up to two bytes are exact in float32, and so is their difference.
    wide = np.dtype((np.float32 if start.dtype.itemsize <= 2 else np.float64) if whole else start.dtype)
    way = end.astype(wide) - start.astype(wide)
    point = np.empty_like(way)

    def write(first: int, rows: NDArray[Any]) -> None:
        for number, row in enumerate(rows, first):
            if number >= len(places):
                row[...] = end if number > len(places) else start
                continue
            into = point if whole else row
            np.multiply(way, wide.type(places[number]), out=into)
            np.add(into, start, out=into)
            if whole:
                # Between two numbers that the input holds lies no other that it does not.
                row[...] = np.rint(point, out=point)

    return write


def gauss_legendre(steps: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Places in (0, 1) and weights, of sum 1, at which a polynomial of degree 2 × steps - 1 is integrated exactly."""
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    return (1 + nodes) / 2, weights / 2

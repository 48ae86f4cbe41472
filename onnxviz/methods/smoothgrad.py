"""A model and images come in; the target's derivative by each pixel, averaged over noisy copies, goes out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxviz.errors import InputError
from onnxviz.methods.explained_images import Explained, ImagesLike, Passes, explained_images, one_or_all, whole_number
from onnxviz.methods.gradient_target import GradientTargetLike
from onnxviz.results import SmoothGrad
from onnxviz.runtime.model import Model

__all__ = ["noise_of", "smoothgrad"]


def smoothgrad(
    model: Model,
    image: ImagesLike,
    target: GradientTargetLike = "top1",
    *,
    samples: int = 50,
    noise: float = 0.15,
    seed: int = 0,
) -> SmoothGrad | tuple[SmoothGrad, ...]:
    """Average the derivative of the target by the input over copies of the image with added noise.

    Parameters
    ----------
    model : Model
    image : file, PIL image, array, folder, sequence of these or ImageSet
        One image or a few; all of them are kept in memory.
    target : int, str, sequence of int, tuple or mapping
        As for :func:`~onnxviz.methods.saliency.saliency`. ``"top1"`` is chosen once, on the image without noise.
    samples : int
        Number of noisy copies.
    noise : float
        Standard deviation of the noise as a share of the largest minus the smallest number of the encoded image.
    seed : int
        Of the noise; copy k of every image gets the same noise, whatever the batch.

    Returns
    -------
    SmoothGrad, or a tuple of them
        One for each image; alone where there is one image. ``values`` are the signed means, (channels, height, width);
        ``squares`` the means of the squares (SmoothGrad-squared); ``map`` is the largest magnitude among a pixel's
        channels of ``values``.

    Raises
    ------
    InputError
        A parameter is not one of those above; and as :func:`~onnxviz.methods.saliency.saliency` does.
    ContractError, UnsupportedOperatorError
        As :func:`~onnxviz.methods.saliency.saliency` does.

    Notes
    -----
    Smilkov, Thorat, Kim, Viégas and Wattenberg 2017 (arXiv 1706.03825), who advise shares of 0.1 to 0.2 and about 50
    copies; sums are taken in float64. Captum's ``NoiseTunnel`` takes 5 copies and an absolute deviation of 1 unless
    told otherwise. Noise on an integer input is rounded and clipped to what the input can hold.
    """
    copies, share = whole_number("samples", samples), _share(noise)
    explained = explained_images(model, image, target, "smoothgrad")
    passes = Passes(explained)
    return one_or_all([_one(explained, passes, index, copies, share, seed) for index in range(len(explained))])


def _share(given: Any) -> float:
    if not isinstance(given, int | float | np.number) or not 0 <= given < np.inf:
        raise InputError("not a share", where="noise", got=repr(given), allowed="0 or more; 0.1 to 0.2 as a rule")
    return float(given)


def _one(explained: Explained, passes: Passes, index: int, samples: int, noise: float, seed: int) -> SmoothGrad:
    clean = explained.tensor[index]
    spread = noise * (float(clean.max()) - float(clean.min()))
    # The last row is the image itself, for its score.
    noisy = _noisy_copies(clean, spread, samples, seed)
    total: NDArray[np.float64] = np.zeros(())
    squares: NDArray[np.float64] = np.zeros(())
    score = np.nan
    for part in passes.variants(index, samples + 1, noisy):
        gradients = part.gradients[explained.source][: samples - part.rows.start].astype(np.float64)
        total = total + gradients.sum(axis=0)
        squares = squares + np.square(gradients, out=gradients).sum(axis=0)
        score = float(part.scores[-1])
    rounded = ("Noise was rounded to the integers that the input holds.",) if clean.dtype.kind in "iu" else ()
    mean, mean_square = (explained.channels_first(each[np.newaxis] / samples)[0] for each in (total, squares))
    return SmoothGrad(
        **explained.input_fields(mean, "max", "SmoothGrad", rounded),
        **explained.common(
            index, score,
            {"reduction": "max", "samples": samples, "noise": noise, "sigma": spread, "seed": seed},
        ),
        squares=np.ascontiguousarray(mean_square, np.float32),
        samples=samples,
        sigma=spread,
    )  # fmt: skip


def _noisy_copies(clean: NDArray[Any], sigma: float, samples: int, seed: int) -> Callable[[int, NDArray[Any]], None]:
    """Writes copies; copy number ``samples`` is the image itself."""
    whole = clean.dtype.kind in "iu"
    # Numbers of up to two bytes are exact in float32, and single precision is what most inputs are.
    wide = np.dtype(np.float32 if clean.dtype.itemsize <= 2 or clean.dtype == np.float32 else np.float64)
    ends = (np.iinfo(clean.dtype).min, np.iinfo(clean.dtype).max) if whole else (-np.inf, np.inf)

    def write(first: int, rows: NDArray[Any]) -> None:
        for number, row in enumerate(rows, first):
            if number == samples:
                row[...] = clean
                continue
            noisy = noise_of(clean.shape, seed, number).astype(wide, copy=False)
            noisy *= wide.type(sigma)
            noisy += clean
            if whole:
                np.clip(np.rint(noisy, out=noisy), *ends, out=noisy)
            row[...] = noisy

    return write


def noise_of(shape: tuple[int, ...], seed: int, number: int) -> NDArray[np.float32]:
    """The noise of one copy, standard normal float32: it depends on seed and number alone."""
    return np.random.default_rng((seed, number)).standard_normal(shape, np.float32)

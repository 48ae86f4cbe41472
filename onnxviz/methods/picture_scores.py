"""Pictures between black and white come in; a network's scores, and their derivatives by the pictures, go out."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from onnxviz.errors import InputError, ModelError
from onnxviz.graph.gradient.rule_set import RuleSet
from onnxviz.inputs.preprocess import Preprocess
from onnxviz.methods.gradient import open_gradient, target_sides
from onnxviz.methods.gradient_target import GradientTarget
from onnxviz.methods.substrates import as_stored
from onnxviz.methods.variants import image_contract
from onnxviz.runtime.gradients import GradientSession
from onnxviz.runtime.model import Model

__all__ = ["PictureEncoding", "PictureScores"]

Floats = NDArray[np.float32]

_LEAST_PROBABILITY = 1e-30
_LUMA = np.array([0.299, 0.587, 0.114])


class PictureEncoding:
    """The input contract as an affine map from pictures to tensors, with its adjoint.

    Attributes
    ----------
    channels : int
        1 where the network sees greys, else 3, red first whatever the tensor's order.
    """

    def __init__(self, preprocess: Preprocess, dtype: np.dtype[Any]) -> None:
        self.preprocess, self._dtype = preprocess, dtype
        self.channels = 1 if preprocess.channels == "GRAY" else 3
        black = preprocess.encode_color((0, 0, 0))
        white = preprocess.encode_color((255, 255, 255))
        self._offset = black.reshape(-1, 1, 1)
        self._slope = (white - black).reshape(-1, 1, 1)

    def tensor(self, pictures: Floats) -> NDArray[Any]:
        """(n, *input shape) in the model's dtype; whole numbers are rounded and clipped."""
        numbers = self._ordered(pictures) * self._slope + self._offset
        return as_stored(np.moveaxis(numbers, 1, -1) if self.preprocess.layout == "NHWC" else numbers, self._dtype)

    def adjoint(self, gradient: NDArray[Any]) -> Floats:
        """(n, channels, height, width) derivatives by the pictures, from those by the numbers of the tensor.

        Rounding is passed straight through, as if the network took real numbers (Bengio, Léonard and Courville 2013).
        """
        first = np.moveaxis(gradient, -1, 1) if self.preprocess.layout == "NHWC" else gradient
        return np.ascontiguousarray(self._ordered(first * self._slope), np.float32)

    def from_colors(self, colors: NDArray[Any]) -> Floats:
        """(n, channels, height, width) of (n, height, width, 3) RGB, 0 to 255; greys by their ITU-R 601 luma."""
        if self.channels == 1:
            return np.asarray((colors @ _LUMA)[:, np.newaxis] / 255, np.float32)
        return np.ascontiguousarray(np.moveaxis(colors, -1, 1), np.float32) / np.float32(255)

    def views(self, pictures: Floats) -> NDArray[np.uint8]:
        """(n, height, width, 3) RGB bytes of pictures; what is darker than black or lighter than white is cut off."""
        pixels = np.rint(np.clip(pictures, 0, 1) * 255).astype(np.uint8)
        return np.ascontiguousarray(np.moveaxis(np.repeat(pixels, 3 // self.channels, axis=1), 1, -1))

    @cached_property
    def mean(self) -> NDArray[np.float64]:
        """(channels,) the colour that the contract maps to 0, of 255; mid-grey where it subtracts none."""
        return self.preprocess.dataset_mean[: self.channels]

    def _ordered(self, array: NDArray[Any]) -> NDArray[Any]:
        return array[:, ::-1] if self.preprocess.channels == "BGR" else array


class PictureScores:
    """Scores of pictures and their derivatives, forward and backward in one session.

    Parameters
    ----------
    model : Model
    target : GradientTarget
        One number for each picture.
    rules : RuleSet, optional
        Rules other than the true derivatives.
    probability : bool
        Of a target that explains classes: its score is the logarithm of the class's probability instead. Where the
        target is a logit, that takes a second pass forward.

    Raises
    ------
    InputError
        The model takes no images.
    UnsupportedOperatorError
        An operator between input and target has no known derivative.
    """

    def __init__(
        self, model: Model, target: GradientTarget, rules: RuleSet | None = None, *, probability: bool = False
    ) -> None:
        preprocess = image_contract(model, "a picture made by gradient ascent")
        self.model, self.target, self._probability = model, target, probability
        blank = preprocess.encode(np.zeros((1, *preprocess.size, 3), np.uint8))
        self.encoding = PictureEncoding(preprocess, blank.dtype)
        self._by = model.gradient_input
        self._session: GradientSession = open_gradient(
            model,
            {model.only_input: (model.fixed_batch or 1, *blank.shape[1:])},
            target,
            values=target.values,
            rules=rules,
        )
        self._sides = target_sides(model, self._session, target, blank)
        self._blank = blank

    def __call__(self, pictures: Floats) -> tuple[NDArray[np.float64], Floats]:
        """Run forward and backward.

        Parameters
        ----------
        pictures : (n, channels, height, width) float32
            As many as the target has numbers; 0 black to 1 white, though nothing is cut off.

        Returns
        -------
        ((n,) float64, (n, channels, height, width) float32)
            The scores, and the derivative of each by its picture.
        """
        count = len(pictures)
        tensor = self.encoding.tensor(pictures)
        weights = self._weights(tensor, count)
        scores = np.zeros(count)
        gradient = np.empty((count, *self._blank.shape[1:]), np.float32)
        with self.model.watch() as watch:
            steps = self._session.stream(
                tensor, self.model.only_input, lambda rows: {name: all_[rows] for name, all_ in weights.items()},
                self.model.gradient_batch_size, watch, fixed=self.model.fixed_batch is not None,
                alike=self.model.runs_alike,
            )  # fmt: skip
            for rows, gradients, values in steps:
                for name, all_ in weights.items():
                    with np.errstate(invalid="ignore"):  # looked at below
                        products = values[name].astype(np.float64) * all_[rows]
                    scores[rows] += products.reshape(len(products), -1).sum(axis=1)
                gradient[rows] = self._as_fed(gradients[self._by]) * self._per_step
        if not (np.isfinite(scores).all() and np.isfinite(gradient).all()):
            raise ModelError(
                "the score of a picture, or its derivative, is not a finite number", where=self.model.name,
                got="NaN or infinity", next_step="`onnxviz audit` lists the values in which NaN and infinity begin",
            )  # fmt: skip
        if self._probability:
            # d log p = dp / p; where the target is a logit, the weights have made it so.
            if self.target.scale == "probability":
                gradient /= np.maximum(scores, _LEAST_PROBABILITY).reshape(-1, 1, 1, 1)
                scores = np.log(np.maximum(scores, _LEAST_PROBABILITY))
            else:
                scores = self._log_probability
        return scores, self.encoding.adjoint(gradient)

    def _weights(self, tensor: NDArray[Any], count: int) -> dict[str, NDArray[Any]]:
        """By what each element of the target's values counts in the score of its row."""
        weights = self.target.seeds(slice(0, count), self._sides)
        if self._probability and self.target.scale == "logit":
            name = self.target.values[0]
            logits = self.model.run(tensor, (name,))[name].reshape(count, -1).astype(np.float64)
            log_probabilities = log_softmax(logits, axis=1)
            chosen = weights[name].reshape(count, -1)
            self._log_probability = (log_probabilities * chosen).sum(axis=1)
            # d log p_c = d y_c − Σ p_k d y_k
            weights[name] = (chosen - np.exp(log_probabilities)).astype(np.float32).reshape(weights[name].shape)
        return weights

    def _as_fed(self, gradient: NDArray[Any]) -> NDArray[Any]:
        """A derivative by the first real value behind an integer input, its axes ordered as the input's."""
        wanted = self._blank.shape[1:]
        for order in ((0, 1, 2, 3), (0, 2, 3, 1), (0, 3, 1, 2)):
            if gradient.ndim == 4 and tuple(gradient.shape[axis] for axis in order[1:]) == wanted:
                return gradient.transpose(order)
        return gradient.reshape(len(gradient), *wanted)

    @cached_property
    def _per_step(self) -> np.float32:
        """By how much the value that is derived by grows with one step of the number that is fed.

        Raises
        ------
        InputError
            The value behind an integer input is not the same for all pixels.
        """
        if self._by == self.model.only_input:
            return np.float32(1)
        limits = np.iinfo(self._blank.dtype)
        ends = (limits.min + 32, limits.min + 96) if limits.max < 1 << 16 else (0, 64)
        low, high = (
            self.model.run(np.full_like(self._blank, end), (self._by,))[self._by].astype(np.float64) for end in ends
        )
        slopes = (high - low) / (ends[1] - ends[0])
        if not np.ptp(slopes) <= 1e-3 * abs(slopes).max():
            raise InputError(
                "the value behind the integer input is scaled differently from pixel to pixel", where=self.model.name,
                got=repr(self._by), next_step="Make pictures with the model's floating-point export",
            )  # fmt: skip
        return np.float32(slopes.mean())

    def of_views(self, views: NDArray[np.uint8], rows: Sequence[int]) -> NDArray[np.float64]:
        """Scores, without derivatives, of finished pictures; ``rows`` says by which row of the target each."""
        scores = np.zeros(len(views))
        found = self.model.run(self.encoding.preprocess.encode(views), self.target.values)
        for name in self.target.values:
            for place, row in enumerate(rows):
                weights = self.target.seeds(slice(row, row + 1), self._sides)[name]
                scores[place] += (found[name][place : place + 1].astype(np.float64) * weights).sum()
        return scores

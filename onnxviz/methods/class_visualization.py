"""A model and classes come in; pictures that gradient ascent makes the network take for these classes go out."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxviz.errors import InputError
from onnxviz.inputs.images import ImageSet
from onnxviz.methods.ascent_recipes import METHODS, Objectives, Recipe, Start, picture_randoms, rim_color, start_picture
from onnxviz.methods.facets import Facets, find_facets
from onnxviz.methods.gradient_target import resolve_gradient_target
from onnxviz.methods.picture_scores import PictureEncoding
from onnxviz.methods.relu_startup import REDIRECTED
from onnxviz.methods.target import resolve_target
from onnxviz.methods.variants import image_contract
from onnxviz.results import AscentStep, ClassVisualization
from onnxviz.runtime.model import Model

__all__ = ["METHODS", "class_visualization", "class_visualization_steps", "probability_under_jitter"]

JITTERS = 32
_IMAGES_AT_ONCE = 64
OBJECTIVES = ("logit", "probability")
_JITTER_SIDE = 16
"""A shift is at most one pixel for so many of the side, and one at least."""

ClassLike = int | str | np.integer[Any]


def class_visualization(
    model: Model,
    classes: ClassLike | Sequence[ClassLike],
    *,
    method: str = "fourier",
    steps: int | None = None,
    seed: int = 0,
    objective: str = "logit",
    start: Start = "mean",
    images: ImageSet | None = None,
    facets: int = 0,
    regularization: Mapping[str, float] | None = None,
    jitters: int = JITTERS,
) -> ClassVisualization:
    """Make pictures of what the network takes for a class, by gradient ascent on its input.

    All pictures are moved together, forward and backward in one session; each is the same whichever others are made
    beside it, to float32 rounding.

    Parameters
    ----------
    model : Model
    classes : int, str or sequence of these
        Class numbers or labels.
    method : str
        ``"fourier"``: the Fourier spectrum of independent colours is moved by Adam, and every step sees the picture
        shifted, scaled and turned at random (Olah, Mordvintsev and Schubert 2017). ``"simonyan"``: the pixels are moved
        and their squares are held against the score (Simonyan, Vedaldi and Zisserman 2013). ``"yosinski"``: the pixels
        are moved, fade and are blurred (Yosinski et al. 2015). ``"nguyen"``: the pixels are moved and denoised by total
        variation, in four stages at two sizes (Nguyen, Yosinski and Clune 2016).
    steps : int, optional
        256, 200, 300 and 370 for these methods, where left out.
    seed : int
        Of the noise at the start and of all random movements.
    objective : str
        What is raised: ``"logit"``, the class's score, without bound; or ``"probability"``, the logarithm of its
        probability, which has nothing left to gain once the network is sure, and so leaves the picture simpler.
    start : str, (3,) numbers or (height, width, 3) numbers
        What pictures start from: the colour ``"mean"``, which the input contract subtracts (mid-grey where it subtracts
        none), ``"grey"``, ``"black"``, ``"white"``, RGB, 0 to 255, a picture in RGB as the network sees it, or
        ``"images"``, the mean of all ``images``. The mean colour of its rim lies around pictures that are moved.
    images : ImageSet, optional
        Photographs, for ``start="images"``, or for ``facets``, of the classes. Where the set has classes, those of the
        same name are used, or, where none has a name of the model's, of the same number; one without classes shows the
        one that is asked for.
    facets : int
        So many pictures of each class, each started from the mean of the images in the middle of a cluster of the
        class's images (Nguyen, Yosinski and Clune 2016; the authors make 10). 0: one picture, from the colour.
    regularization : mapping of str to float, optional
        Numbers in place of the method's own (see Notes).
    jitters : int
        Random shifts over which ``probabilities`` is averaged, 1 or more.

    Returns
    -------
    ClassVisualization
        With the class's score for the finished pictures, its probability while these are shifted at random by up to
        a 16th of the side (1 pixel at least), and the score in every step.

    Raises
    ------
    InputError
        No such class, method or number; the model takes no images; or too few images for the facets.
    ContractError
        The output is not a classifier's.
    UnsupportedOperatorError
        An operator of the network has no known derivative.

    Notes
    -----
    The authors raise the class's logit: its probability rises as well when another's logit falls. Where no value of the
    graph holds the logits, the probability takes their place; ``scale`` says so.

    Numbers of ``"fourier"``: ``decay`` (1, power of the frequency by which the spectrum is divided), ``strength`` (1,
    of the random movements, Lucid's being 1), ``copies`` (1, placements of the picture per step), ``noise`` and
    ``noise_end`` (0, deviation of normal noise on each copy, of 1, at first and at last), ``roughness`` (0, weight of
    the sum of the differences between neighbouring pixels), ``rate`` (.05) and ``cooling`` (0, share of the rate lost
    until the end). Of ``"simonyan"``: ``rate`` (2, mean length of a step in a pixel, of 255), ``l2`` (1e-5),
    ``deviation`` (0, of the noise at the start, of 255). Of ``"yosinski"``: ``rate`` (4), ``decay`` (.01), ``blur`` (1
    pixel) every ``blur_every`` (4) steps, ``small_value``, ``small_norm``, ``small_contribution`` (0, percentages),
    ``deviation`` (10). Of ``"nguyen"``: ``deviation`` (8).

    Networks that take whole numbers are shown the rounded picture, and the derivative by the first real numbers behind
    the input stands for that by the picture.
    """
    asked = _Question(
        model, classes, method=method, steps=steps, seed=seed, objective=objective, start=start, images=images,
        facets=facets, regularization=regularization, jitters=jitters,
    )  # fmt: skip
    for _ in asked.run():
        pass
    return asked.result()


def class_visualization_steps(
    model: Model, classes: ClassLike | Sequence[ClassLike], **parameters: Any
) -> Iterator[AscentStep]:
    """Do what :func:`class_visualization` does step by step.

    Parameters
    ----------
    model : Model
    classes : int, str or sequence of these
    **parameters
        Those of :func:`class_visualization`.

    Yields
    ------
    AscentStep
        The pictures after each step; the last holds the whole result, which is that of :func:`class_visualization`.

    Raises
    ------
    InputError, ContractError, UnsupportedOperatorError
        As :func:`class_visualization` does.
    """
    unknown = sorted(set(parameters) - set(_DEFAULTS))
    if unknown:
        raise TypeError(f"class_visualization_steps() got an unexpected keyword argument {unknown[0]!r}")
    return _Question(model, classes, **(dict(_DEFAULTS) | parameters)).run()


_DEFAULTS: Mapping[str, Any] = {
    name: parameter.default
    for name, parameter in inspect.signature(class_visualization).parameters.items()
    if parameter.kind is parameter.KEYWORD_ONLY
}


class _Question:
    """The parameters of one call, checked; the frames; and the result made of them."""

    def __init__(
        self, model: Model, classes: Any, *, method: str, steps: Any, seed: int, objective: str, start: Start,
        images: ImageSet | None, facets: int, regularization: Mapping[str, float] | None, jitters: int,
    ) -> None:  # fmt: skip
        preprocess = image_contract(model, "class visualization")
        wholes: tuple[tuple[str, Any, int], ...] = (("facets", facets, 0), ("jitters", jitters, 1))
        for name, given, least in wholes:
            if not isinstance(given, int | np.integer) or isinstance(given, bool) or given < least:
                raise InputError(
                    f"not a number of {name}", where=name, got=repr(given), allowed=f"a whole number from {least}"
                )
        if objective not in OBJECTIVES:
            raise InputError(
                "no such objective", where="objective", got=repr(objective), allowed=", ".join(map(repr, OBJECTIVES))
            )
        blank = preprocess.encode(np.zeros((1, *preprocess.size, 3), np.uint8))
        asked = _classes(model, classes, blank)
        self.encoding = PictureEncoding(preprocess, blank.dtype)
        self.recipe = Recipe.of(
            method, steps, regularization, size=preprocess.size, mean=tuple(self.encoding.mean.tolist())
        )
        told = start if isinstance(start, str) else _told(np.asarray(start))
        if isinstance(start, str) and start == "images":
            start = _mean_image(images)
        begun = start_picture(start, self.encoding, preprocess.size)
        self.model, self.jitters, self.seed = model, int(jitters), int(seed)
        self.classes = np.repeat(asked, max(1, facets))
        self.facets = np.tile(np.arange(max(1, facets)), len(asked))
        numbers = [(index, facet) for index, facet in zip(self.classes.tolist(), self.facets.tolist(), strict=True)]
        self.randoms = picture_randoms(seed, numbers)
        rows = np.repeat(self.classes, self.recipe.copies)
        self.target = resolve_gradient_target(model, rows, np.broadcast_to(blank, (len(rows), *blank.shape[1:])))
        self.objectives = Objectives(model, self.target, probability=objective == "probability", startup=REDIRECTED)
        self.found = _facets(model, asked, images, int(facets), seed)
        self.from_pictures = bool(self.found) or np.ndim(start) == 3
        self.starts = (
            self.encoding.from_colors(np.concatenate([found.means for found in self.found]))
            if self.found
            else np.repeat(begun[np.newaxis], len(self.classes), axis=0)
        )
        self.curve: list[NDArray[np.float64]] = []
        self.pictures: NDArray[np.uint8] | None = None
        self.parameters: dict[str, Any] = {
            "classes": asked.tolist(),
            **self.recipe.to_json(),
            "seed": self.seed,
            "objective": objective,
            "start": told,
            "images": None if images is None else len(images),
            "facets": int(facets),
            "facet_images": [found.members.tolist() for found in self.found],
            "jitters": self.jitters,
        }

    def run(self) -> Iterator[AscentStep]:
        """One step after another."""
        for frame in self.recipe.frames(self.starts, self.randoms, self.objectives):
            self.curve.append(frame.scores)
            self.pictures = self.encoding.views(frame.pictures)
            yield AscentStep(
                pictures=self.pictures,
                scores=frame.scores.astype(np.float32),
                done=frame.done,
                total=self.recipe.steps,
                result=self.result() if frame.done == self.recipe.steps else None,
            )

    def result(self) -> ClassVisualization:
        """What all steps made."""
        assert self.pictures is not None
        reach = jitter_reach(self.recipe.size)
        return ClassVisualization(
            pictures=self.pictures,
            classes=self.classes,
            facets=self.facets,
            starts=self.encoding.views(self.starts) if self.from_pictures else None,
            scores=self.objectives.scores.of_views(
                self.pictures, range(0, len(self.classes) * self.recipe.copies, self.recipe.copies)
            ).astype(np.float32),
            probabilities=probability_under_jitter(
                self.model, self.pictures, self.classes, around=rim_color(self.starts) * 255, jitters=self.jitters,
                seed=self.seed,
            ),
            jitters=self.jitters,
            reach=reach,
            curve=np.stack(self.curve).astype(np.float32),
            scale=self.target.scale,
            method=self.recipe.method,
            labels=self.model.labels,
            provenance=self.model.provenance("class_visualization", self.parameters),
        )  # fmt: skip


def jitter_reach(size: tuple[int, int]) -> int:
    """Most pixels that a finished picture of this size is shifted by."""
    return max(1, round(min(size) / _JITTER_SIDE))


def probability_under_jitter(
    model: Model, views: NDArray[np.uint8], classes: Sequence[int] | NDArray[np.int64], *, around: NDArray[Any],
    jitters: int = JITTERS, seed: int = 0,
) -> NDArray[np.float32]:  # fmt: skip
    """Mean probability of a class while its picture is shifted at random.

    Parameters
    ----------
    model : Model
    views : (n, height, width, 3) uint8
        Finished pictures.
    classes : (n,) int
    around : (n, 1) or (n, 3) float
        The colour, of 255, that is shifted in.
    jitters : int
        Shifts of each picture, whole pixels, each side and 0 equally likely.
    seed : int
        None of its numbers was used while the pictures were made.

    Returns
    -------
    (n,) float32
    """
    height, width = views.shape[1:3]
    reach = jitter_reach((height, width))
    assert model.preprocess is not None
    found = np.empty(len(views), np.float32)
    canvas = np.empty((height + 2 * reach, width + 2 * reach, 3), np.uint8)
    for place, (view, index, color) in enumerate(zip(views, classes, around, strict=True)):
        random = np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, int(index), place, 1))))
        canvas[:] = np.rint(color).astype(np.uint8)
        canvas[reach : reach + height, reach : reach + width] = view
        shifts = random.integers(0, 2 * reach + 1, (jitters, 2))
        moved = np.stack([canvas[down : down + height, right : right + width] for down, right in shifts])
        found[place] = model.predict(model.preprocess.encode(moved))[:, index].mean()
    return found


def _mean_image(images: ImageSet | None) -> NDArray[np.float64]:
    """(height, width, 3) in RGB, of what the network sees of all images."""
    if images is None or not len(images):
        raise InputError(
            "there are no images whose mean to start from", where="start", got="'images'", next_step="Pass images="
        )
    total, count = np.zeros(()), 0
    for first in range(0, len(images), _IMAGES_AT_ONCE):
        views = images.views(np.arange(first, min(first + _IMAGES_AT_ONCE, len(images))))
        total, count = total + views.sum(axis=0, dtype=np.float64), count + len(views)
    return total / count


def _told(start: NDArray[Any]) -> Any:
    """A colour as it is, a picture by its digest."""
    if start.ndim == 1:
        return [float(number) for number in start]
    return "picture " + hashlib.sha256(np.ascontiguousarray(start, np.float64).tobytes()).hexdigest()[:16]


def _classes(model: Model, asked: Any, blank: NDArray[Any]) -> NDArray[np.int64]:
    """Numbers of the classes asked for, each once."""
    items = [asked] if isinstance(asked, int | str | np.integer) else list(asked)
    found: list[int] = []
    for item in items:
        if isinstance(item, bool) or not isinstance(item, int | str | np.integer) or item == "top1":
            raise InputError(
                "not a class", where="classes", got=repr(item), allowed="class numbers or labels",
                next_step="Call feature_visualization for the elements of another value",
            )  # fmt: skip
        index = resolve_target(model, item if isinstance(item, str) else int(item), blank).class_index
        if index is None:
            raise InputError("not a class", where="classes", got=repr(item), allowed="class numbers or labels")
        found.append(index)
    if not found:
        raise InputError("no class was given", where="classes", allowed="at least one")
    if len(set(found)) < len(found):
        twice = next(index for index in found if found.count(index) > 1)
        raise InputError("a class was given twice", where="classes", got=str(twice), allowed="each once")
    return np.array(found, np.int64)


def _facets(
    model: Model, classes: NDArray[np.int64], images: ImageSet | None, count: int, seed: int
) -> tuple[Facets, ...]:
    if count == 0:
        return ()
    if images is None:
        raise InputError(
            "facets are found among images of the class", where="facets", got="no images",
            next_step="Pass images=, an ImageSet of photographs of the classes",
        )  # fmt: skip
    return tuple(
        find_facets(model, _of_class(model, images, int(index), classes), count, seed=seed) for index in classes
    )


def _of_class(model: Model, images: ImageSet, index: int, classes: NDArray[np.int64]) -> ImageSet:
    """The images of a class of the model."""
    given = images.folder_classes
    if given is None:
        if len(classes) == 1:
            return images
        raise InputError(
            "the images have no classes, so they show one class only", where="images", got=f"{len(classes)} classes",
            next_step="Put them in class folders, or call once for each class with its images",
        )  # fmt: skip
    names = [name.casefold() for name in images.folder_names or ()]
    labels = [label.casefold() for label in model.labels or ()]
    number = index
    if set(names) & {part.strip() for label in labels for part in (label, *label.split(","))}:
        own = {part.strip() for part in (labels[index], *labels[index].split(","))}
        number = next((place for place, name in enumerate(names) if name in own), -1)
    chosen = np.flatnonzero(given == number) if number >= 0 else np.empty(0, np.int64)
    if not len(chosen):
        label = model.labels[index] if model.labels else f"class {index}"
        raise InputError("no image shows this class", where="images", got=label)
    return images.subset(chosen)

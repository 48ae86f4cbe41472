"""A model and explanation methods come in; how often their maps point to a pattern known to be the cause goes out.

The network is edited so that a small pattern, wherever it lies, alone decides one class. What explains that class is
then no matter of opinion: a map that points elsewhere is wrong.
"""

from __future__ import annotations

import dataclasses
import math
import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxviz.disk import write_file
from onnxviz.errors import ContractError, InputError, ModelError
from onnxviz.graph.planted import Evidence, plant_filter
from onnxviz.inputs.images import load_images
from onnxviz.inputs.preprocess import Preprocess
from onnxviz.methods.control_maps import CONTROLS, control_maps
from onnxviz.methods.pointing_game import peak_of, wilson_interval
from onnxviz.methods.variants import image_contract
from onnxviz.results import PlantedCause
from onnxviz.runtime.model import Model
from onnxviz.runtime.opening import load
from onnxviz.runtime.output import OutputContract

__all__ = ["Explain", "default_pattern", "map_of", "plant", "planted_cause", "textured_noise"]

Explain = Callable[[Model, NDArray[np.uint8], int], NDArray[Any]]
"""(planted model, (height, width, 3) uint8 image, class index) to a map (height, width), larger is more important."""

PLANTED = "planted pattern"
"""The planted class's label where the model's labels are known."""

_WITHOUT, _WITH = -4.0, 4.0
"""Logit of the planted class without the pattern and with it: probabilities of .018 and .982."""

_SHOWN = 3
_SMALLEST_SIDE = 8
_SIDES_PER_IMAGE = 14
_LEAST_CONTRAST = 8.0  # grey levels of standard deviation; below, rounding and noise decide


def planted_cause(
    model: Model,
    explain: Explain | Mapping[str, Explain],
    *,
    trials: int = 200,
    pattern: NDArray[np.uint8] | None = None,
    images: Any = None,
    class_index: int = 0,
    threshold: float = 0.5,
    seed: int = 0,
) -> PlantedCause:
    """Paste a pattern that alone decides a class at random places, and count the maps that point to it.

    Parameters
    ----------
    model : Model
        A classifier with a floating-point image input.
    explain : callable, or mapping of name to callable
        ``explain(planted_model, image, class_index)`` returns a map (height, width) of the network's input pixels,
        larger is more important. The image is (height, width, 3) uint8 RGB and is fed as it is.
    trials : int
        Images that the pattern is pasted into, each at one place.
    pattern : (height, width, 3) uint8, optional
        RGB. Left out: :func:`default_pattern`.
    images : whatever ``load_images`` takes, optional
        Photos, used in turn. Left out: textured noise, seeded.
    class_index : int
        The class that the pattern decides.
    threshold : float
        As for :func:`plant`.
    seed : int
        Of the default pattern, the places, the noise and the random control.

    Returns
    -------
    PlantedCause
        A trial is a hit where the map's largest number, the first in row order of several, lies in the pattern's box.
        Two controls that know nothing of the network are counted beside the methods: a random map and the image's
        edges.

    Raises
    ------
    ModelError
        The image input holds integers.
    ContractError
        The output is not a classifier's.
    InputError
        A parameter is not one of those above, a map is not one, or all images hold something like the pattern already.

    Notes
    -----
    Pasting moves the pattern to the mean colour of what it covers, as far as bytes allow: the filter cannot see that,
    and no frame is left that an edge detector would find. Images in which the filter finds something before the pattern
    is pasted are left out, and named in the result.

    What is judged is a method with its parameters. Occlusion that averages over the patches covering a pixel prefers
    the border, where few do: with patches as large as the pattern it misses patterns beside the border, with patches of
    half its size, or summed, it does not.
    """
    if not _is_count(trials):
        raise InputError("not a number of trials", where="trials", got=repr(trials), allowed="1 or more")
    explainers = dict(explain) if isinstance(explain, Mapping) else {getattr(explain, "__name__", "map"): explain}
    clash = sorted(set(explainers) & set(CONTROLS))
    if clash or not explainers:
        raise InputError(
            "a method needs a name of its own", where="explain", got=repr(clash[0]) if clash else "no method",
            allowed=f"names other than {', '.join(map(repr, CONTROLS))}",
        )  # fmt: skip
    contract = image_contract(model, "a planted cause")
    tile = default_pattern(model, seed) if pattern is None else np.asarray(pattern)
    planted = plant(model, tile, class_index=class_index, threshold=threshold)
    height, width = contract.size
    random = np.random.default_rng(np.random.SeedSequence((seed, 1)))
    names = (*explainers, *CONTROLS)
    peaks = np.zeros((len(names), trials, 2), np.int64)
    boxes = np.zeros((trials, 4), np.int64)
    scores, used = np.zeros((trials, 2)), []
    shown: list[NDArray[np.uint8]] = []
    maps: list[NDArray[np.float32]] = []
    backgrounds = _Backgrounds(planted, class_index, images, model, seed)
    for trial, (name, background) in zip(range(trials), backgrounds.endless(), strict=False):
        top = int(random.integers(0, height - tile.shape[0] + 1))
        left = int(random.integers(0, width - tile.shape[1] + 1))
        boxes[trial] = top, left, top + tile.shape[0], left + tile.shape[1]
        image = paste(background, tile, top, left)
        scores[trial] = planted.predict(_encoded(planted, np.stack([background, image])))[:, class_index]
        used.append(name)
        found = [map_of(planted, image, class_index, method, each) for method, each in explainers.items()]
        found += list(control_maps(image, np.random.SeedSequence((seed, 2, trial))))
        peaks[:, trial] = [
            peak_of(numbers, where=f"map of {method!r}") for method, numbers in zip(names, found, strict=True)
        ]
        if len(shown) < _SHOWN:
            shown.append(image)
            maps.append(np.stack(found).astype(np.float32))
    hits = np.asarray(((peaks >= boxes[:, :2]) & (peaks < boxes[:, 2:])).all(axis=2))
    counts = hits.sum(axis=1).tolist()
    return PlantedCause(
        methods=names,
        controls=len(CONTROLS),
        hits=hits,
        peaks=peaks,
        boxes=boxes,
        scores=scores,
        names=tuple(used),
        left_out=tuple(backgrounds.left_out),
        rates=hits.mean(axis=1),
        intervals=np.array([wilson_interval(count, trials) for count in counts]),
        chance=tile.shape[0] * tile.shape[1] / (height * width),
        pattern=tile.astype(np.uint8),
        images=np.stack(shown),
        maps=np.stack(maps, axis=1),
        target=f"{planted.labels[class_index]} ({class_index})" if planted.labels else f"class {class_index}",
        provenance=model.provenance(
            "planted_cause",
            {
                "methods": list(explainers),
                "trials": int(trials),
                "pattern": "default" if pattern is None else "given",
                "pattern_size": list(tile.shape[:2]),
                "images": "textured noise" if images is None else "given",
                "class_index": class_index,
                "threshold": threshold,
                "seed": seed,
            },
        ),
    )


def plant(
    model: Model,
    pattern: NDArray[np.uint8] | None = None,
    *,
    class_index: int = 0,
    threshold: float = 0.5,
    seed: int = 0,
    path: str | Path | None = None,
) -> Model:
    """Edit a classifier so that a pattern alone decides one class.

    Parameters
    ----------
    model : Model
        A classifier with a floating-point image input; it is left as it is.
    pattern : (height, width, 3) uint8, optional
        RGB; see :func:`default_pattern` for what is taken when it is left out.
    class_index : int
        The class whose score becomes the pattern's.
    threshold : float
        Share of the pattern's own response below which a response is no evidence, 0 or more and below 1.
    seed : int
        Of the default pattern.
    path : path, optional
        Where the edited model is written. Left out: to a temporary file, which goes when the model does.

    Returns
    -------
    Model
        An ordinary model that any method accepts. Its class ``class_index`` has the probability .982 where the pattern
        lies somewhere in the image and .018 where nothing like it does; the other classes share the rest in the
        proportions that they had. Its contract takes pictures of the network's input size as they are, without a crop.

    Raises
    ------
    ModelError
        The image input holds integers: a filter on them is no longer what the network computes from the image.
    ContractError
        The output is not a classifier's.
    InputError
        No such class, or the pattern is too large or of one colour.

    Notes
    -----
    The graft is a matched filter: a convolution of the normalised input with the pattern, zero-mean in each channel and
    of unit norm, then ReLU(response - threshold) × gain, and the maximum over space. The filter reads the image itself,
    beside the network: maps of a hidden layer (Grad-CAM) do not see it, unless that layer is ``planted_response``.
    """
    contract = image_contract(model, "a planted cause")
    if model.image_input is None or model.image_input.dtype not in ("float32", "float64", "float16", "bfloat16"):
        raise ModelError(
            "a cause can only be planted into a network that takes real numbers", where=model.name,
            got=f"an input of {model.image_input.dtype if model.image_input else 'no image'}", allowed="a float input",
            next_step="Export the network with a float input; of a quantised one, use the float model behind it",
        )  # fmt: skip
    scores, kind, classes = _scores(model)
    if isinstance(class_index, bool) or not 0 <= class_index < classes:
        raise InputError("no such class", where="class_index", got=str(class_index), allowed=f"0 to {classes - 1}")
    if not 0 <= threshold < 1:
        raise InputError("not a threshold", where="threshold", got=repr(threshold), allowed="0 or more and below 1")
    tile = default_pattern(model, seed) if pattern is None else np.asarray(pattern)
    planted = plant_filter(
        model.loaded, _evidence(contract, tile, threshold), image_input=model.image_input.name,
        layout=model.image_input.layout, scores=scores, kind=kind, class_index=class_index, classes=classes,
    )  # fmt: skip
    content = planted.proto.SerializeToString()
    folder = None
    if path is None:
        folder = tempfile.TemporaryDirectory(prefix="onnxviz-planted-")
        path = Path(folder.name) / f"{model.path.stem}.planted.onnx"
    write_file(path, content)
    labels = None
    if model.labels is not None:
        labels = [PLANTED if index == class_index else label for index, label in enumerate(model.labels)]
    why = f"a filter was planted that alone decides class {class_index}"
    opened = load(
        path,
        preprocess=dataclasses.replace(contract, fit="stretch"),
        output=OutputContract(
            planted.output, "probabilities", None, classes, planted.logits, "argument", why, guessed=False
        ),
        labels=labels,
        device=model.device,
        threads=model.threads,
    )
    if folder is not None:
        # The file serves whoever opens the model again, another process for instance.
        weakref.finalize(opened, folder.cleanup)
    return opened


def default_pattern(model: Model, seed: int = 0) -> NDArray[np.uint8]:
    """Draw the pattern that is planted unless another is given.

    Each pixel is mid-grey moved along red-green and along blue-yellow, at random either way, its brightness kept: sharp
    colour contrasts without brightness are rare in photos, so nothing else answers to the filter, and an edge detector,
    which sees brightness, does not find them. Where the network sees no colours, small chequerboards of grey, of which
    photos have as little.

    Parameters
    ----------
    model : Model
    seed : int

    Returns
    -------
    (side, side, 3) uint8
        RGB; a fourteenth of the image's shorter side, at least 8 pixels.
    """
    contract = image_contract(model, "a planted cause")
    side = min(max(_SMALLEST_SIDE, min(contract.size) // _SIDES_PER_IMAGE), *contract.size)
    signs = np.random.default_rng(np.random.SeedSequence((seed, 0))).choice([-1.0, 1.0], (side, side, 2))
    if contract.channels == "GRAY":
        # Each block of 2 × 2 pixels turned one way or the other.
        turned = np.kron(signs[: (side + 1) // 2, : (side + 1) // 2, 0], [[1, -1], [-1, 1]])[:side, :side]
        return np.repeat((128 + 48 * turned[:, :, np.newaxis]).astype(np.uint8), 3, axis=2)
    # Red, green and blue are .299, .587 and .114 of brightness (ITU-R 601).
    red_green = 56 * np.array([1.0, -0.299 / 0.587, 0.0])
    blue_yellow = 56 * np.array([-0.114 / 0.886, -0.114 / 0.886, 1.0])
    return np.asarray(np.rint(128 + signs @ np.stack([red_green, blue_yellow])), np.uint8)


def paste(image: NDArray[np.uint8], pattern: NDArray[np.uint8], top: int, left: int) -> NDArray[np.uint8]:
    """A copy of the image with the pattern at that place, moved to the mean colour of what it covers."""
    pasted = image.copy()
    covered = pasted[top : top + pattern.shape[0], left : left + pattern.shape[1]]
    wide = pattern.astype(np.int64)
    # By whole levels, the same in all pixels of a channel: exactly what the filter does not see.
    shift = np.rint(covered.mean(axis=(0, 1)) - wide.mean(axis=(0, 1))).astype(np.int64)
    shift = np.clip(shift, -wide.min(axis=(0, 1)), 255 - wide.max(axis=(0, 1)))
    covered[...] = (wide + shift).astype(np.uint8)
    return pasted


def textured_noise(size: tuple[int, int], seed: int | np.random.SeedSequence = 0) -> NDArray[np.uint8]:
    """(height, width, 3) uint8 noise whose amplitude falls as 1 / frequency, as that of photos does (Field 1987)."""
    random = np.random.default_rng(seed)
    down, across = np.fft.fftfreq(size[0])[:, np.newaxis], np.fft.rfftfreq(size[1])
    frequency = np.hypot(down, across)
    frequency[0, 0] = np.inf
    spectra = np.fft.rfft2(random.normal(size=(4, *size))) / frequency
    waves = np.fft.irfft2(spectra, s=size)
    waves /= waves.std(axis=(1, 2), keepdims=True)
    # Brightness is shared by the channels; what they have of their own is colour.
    channels = 128 + 44 * waves[:1] + 16 * waves[1:]
    return np.ascontiguousarray(np.clip(np.rint(channels), 0, 255).astype(np.uint8).transpose(1, 2, 0))


class _Backgrounds:
    """Images to paste into, those left out in which the filter finds something already."""

    def __init__(self, planted: Model, class_index: int, images: Any, model: Model, seed: int) -> None:
        self._planted, self._class_index, self._seed = planted, class_index, seed
        # As the network sees them: cut and resized by its own contract.
        self._images = None if images is None else load_images(images, model)
        self._silent = 1 / (1 + math.exp(-_WITHOUT))
        self.left_out: list[str] = []

    def endless(self) -> Iterator[tuple[str, NDArray[np.uint8]]]:
        """Name and view of one image after another, from the first again after the last."""
        number = 0
        out: set[int] = set()
        while True:
            index = number if self._images is None else number % len(self._images)
            number += 1
            if index in out:
                continue
            name, view = self._read(index)
            if self._is_clean(view):
                yield name, view
                continue
            out.add(index)
            self.left_out.append(name)
            most = 100 if self._images is None else len(self._images)
            if len(out) >= most:
                raise InputError(
                    "all images hold something like the pattern already", where="images", got=f"{len(out)} images",
                    next_step="Pass other images, a pattern unlike them, or a higher threshold",
                )  # fmt: skip

    def _read(self, index: int) -> tuple[str, NDArray[np.uint8]]:
        if self._images is not None:
            return self._images.names[index], self._images.views([index])[0]
        size = image_contract(self._planted, "a planted cause").size
        return f"textured noise {index}", textured_noise(size, np.random.SeedSequence((self._seed, 3, index)))

    def _is_clean(self, view: NDArray[np.uint8]) -> bool:
        score = self._planted.predict(_encoded(self._planted, view[np.newaxis]))[0, self._class_index]
        return bool(abs(score - self._silent) < 1e-5)


def _encoded(model: Model, views: NDArray[np.uint8]) -> NDArray[Any]:
    return image_contract(model, "a planted cause").encode(views)


def map_of(model: Model, image: NDArray[np.uint8], class_index: int, name: str, explain: Explain) -> NDArray[Any]:
    """What a method says of an image, (height, width).

    Raises
    ------
    InputError
        It is no map of the image's pixels.
    """
    numbers = np.asarray(explain(model, image.copy(), class_index))
    if numbers.shape != image.shape[:2] or numbers.dtype.kind not in "fiub":
        raise InputError(
            f"{name!r} did not return a map", where="explain", got=f"{numbers.dtype} of shape {numbers.shape}",
            allowed=f"real numbers {image.shape[:2]}, one for each pixel of the image",
        )  # fmt: skip
    return numbers


def _is_count(given: Any) -> bool:
    return isinstance(given, int | np.integer) and not isinstance(given, bool) and bool(given >= 1)


def _scores(model: Model) -> tuple[str, str, int]:
    """The value that holds the class scores, what they are, and how many classes there are."""
    output = model.output
    if output.kind == "values" or output.classes is None:
        raise ContractError(
            "a cause can only be planted into a classifier", where=f"output {output.output!r}", got=output.why,
            next_step="Name the output of the classes: output={'output': NAME, 'kind': 'logits'}",
        )  # fmt: skip
    name, kind = output.output, output.kind
    if kind == "probabilities" and output.logits in model.float_values() and output.logits != output.output:
        name, kind = str(output.logits), "logits"
    if name not in model.float_values():
        raise ModelError(
            "the class scores are integers", where=f"value {name!r} of {model.name}", allowed="a float value",
            next_step="Use the float model that this one was quantised from",
        )  # fmt: skip
    if output.kind == "probabilities" and kind == "logits" and not _exclusive(model):
        kind = "independent"
    return name, kind, output.classes


def _exclusive(model: Model) -> bool:
    """Whether the probabilities of one image sum to 1; those of a Sigmoid do not."""
    rows = model.predict(next(iter(model.probe(model.fixed_batch or 2).values())))
    return bool(np.abs(rows.sum(axis=1) - 1).max() < 0.1)


def _evidence(contract: Preprocess, pattern: NDArray[Any], threshold: float) -> Evidence:
    height, width = contract.size
    fits = pattern.ndim == 3 and pattern.dtype == np.uint8 and pattern.shape[2:] == (3,)
    if not fits or not (2 <= pattern.shape[0] <= height and 2 <= pattern.shape[1] <= width):
        raise InputError(
            "not a pattern for this network", where="pattern", got=f"{pattern.dtype} of shape {pattern.shape}",
            allowed=f"uint8 RGB (height, width, 3), 2 × 2 to {height} × {width} pixels",
        )  # fmt: skip
    contrast = float((pattern - pattern.mean(axis=(0, 1))).std())
    if contrast < _LEAST_CONTRAST:
        raise InputError(
            "the pattern has too little contrast", where="pattern",
            got=f"a standard deviation of {contrast:.1f} grey levels", allowed=f"{_LEAST_CONTRAST:g} or more",
        )  # fmt: skip
    encoded = contract.encode_color(pattern)
    centred = (encoded - encoded.mean(axis=(0, 1))).transpose(2, 0, 1)
    own = float(np.sqrt((centred**2).sum()))
    if own == 0:
        raise InputError("the network sees the pattern as one colour", where="pattern", got=contract.channels)
    return Evidence(
        kernel=(centred / own).astype(np.float32),
        threshold=threshold * own,
        gain=(_WITH - _WITHOUT) / ((1 - threshold) * own),
        floor=_WITHOUT,
    )

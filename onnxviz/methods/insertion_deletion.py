"""A model, an image and a map come in; how the score follows as pixels come and go in the map's order goes out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxviz.errors import InputError
from onnxviz.inputs.images import ImageSet
from onnxviz.methods.control_maps import CONTROLS, control_maps
from onnxviz.methods.substrates import Substrate, substrate
from onnxviz.methods.target import TargetLike, resolve_target
from onnxviz.methods.variants import image_contract, one_view, variant_scores
from onnxviz.results import InsertionDeletion
from onnxviz.runtime.model import Model

__all__ = ["area_under_steps", "insertion_deletion", "saliency_ranks"]


def insertion_deletion(
    model: Model,
    image: str | Path | NDArray[Any] | ImageSet | Any,
    map: NDArray[Any],
    target: TargetLike = "top1",
    *,
    step: int | None = None,
    insertion_substrate: Substrate = "blur",
    deletion_substrate: Substrate = "zero",
    controls: bool = False,
    seed: int = 0,
) -> InsertionDeletion:
    """Insert and delete pixels in the order of a map, the most salient first, and record the score.

    A map that knows what the network looks at makes the score fall early when it deletes, and rise early when it
    inserts. The areas mean something only beside those of other maps on the same image: ask for ``controls``.

    Parameters
    ----------
    model : Model
    image : file, PIL image, array, or an ImageSet of one image
    map : (height, width) numbers
        What is judged, in the network's input pixels; larger is more salient.
    target : int, str, tuple or callable
        What is scored, as for :func:`~onnxviz.methods.occlusion.occlusion`; a class is scored by its probability, and
        ``"top1"`` is the most likely class of the whole image.
    step : int, optional
        Pixels that change at once; the width of the image when left out (the authors' 224 for single images).
    insertion_substrate : str or (3,) numbers
        What insertion starts from: ``"blur"`` (Gaussian, 11 × 11 pixels, standard deviation 5, its tails mirrored into
        the box; the image's border is mirrored, where the authors' zeros darken the frame), ``"zero"``, ``"mean"``,
        ``"dataset"``, ``"grey"`` or an RGB colour.
    deletion_substrate : str or (3,) numbers
        What deletion ends in: ``"zero"``, the number 0 in the model's input space (the zero point of a quantised one),
        or one of the others.
    controls : bool
        Judge two maps beside it that know nothing of the network: a random one and the edges of the image.
    seed : int
        Of the random map.

    Returns
    -------
    InsertionDeletion
        Both curves at ceil(height × width / step) + 1 points, and their areas.

    Raises
    ------
    InputError
        The map is not of the image's size, or a parameter is not one of those above.
    ContractError
        A class is asked of a model whose output is not a classifier's.

    Notes
    -----
    Petsiuk, Das and Saenko 2018 (arXiv 1806.07421). Equally salient pixels go in row order, the upper left first (the
    authors' sort leaves their order open); NaN counts as the least salient. The area is the trapezoid rule on equal
    steps over [0, 1], also where the last step holds fewer pixels.
    """
    preprocess = image_contract(model, "insertion and deletion")
    view, name = one_view(model, image, "insertion and deletion")
    height, width = view.shape[:2]
    judged = np.asarray(map)
    if judged.shape != (height, width) or judged.dtype.kind not in "fiub":
        raise InputError(
            "not a map of this image", where="map", got=f"{judged.dtype} of shape {judged.shape}",
            allowed=f"real numbers ({height}, {width}), the network's input pixels",
        )  # fmt: skip
    pixels = width if step is None else step
    if not isinstance(pixels, int | np.integer) or isinstance(pixels, bool) or pixels < 1:
        raise InputError("not a step", where="step", got=repr(step), allowed="pixels, 1 or more")
    pixels = int(pixels)
    tensor = preprocess.encode(view[np.newaxis])
    scored = resolve_target(model, target, tensor)
    maps = [judged, *control_maps(view, seed)] if controls else [judged]
    ranks = np.stack([saliency_ranks(each) for each in maps])
    steps = -(-height * width // pixels)
    starts = [substrate(preprocess, view, insertion_substrate), tensor[0]]
    ends = [tensor[0], substrate(preprocess, view, deletion_substrate)]

    def write(first: int, rows: NDArray[Any]) -> None:
        for row, variant in zip(rows, range(first, first + len(rows)), strict=True):
            number, taken = divmod(variant, steps + 1)
            which, way = divmod(number, 2)
            changed = ranks[which] < taken * pixels
            changed = changed[np.newaxis] if preprocess.layout == "NCHW" else changed[:, :, np.newaxis]
            row[...] = np.where(changed, ends[way], starts[way])

    scores = np.empty(len(maps) * 2 * (steps + 1))
    for first, part in variant_scores(model, scored, len(scores), write):
        scores[first : first + len(part)] = part
    curves = scores.reshape(len(maps), 2, steps + 1)
    areas = np.array([[area_under_steps(curve) for curve in both] for both in curves])
    return InsertionDeletion(
        fractions=np.arange(steps + 1) / steps,
        insertion=curves[0, 0],
        deletion=curves[0, 1],
        insertion_area=float(areas[0, 0]),
        deletion_area=float(areas[0, 1]),
        step=pixels,
        insertion_substrate=_words(insertion_substrate),
        deletion_substrate=_words(deletion_substrate),
        controls=CONTROLS if controls else (),
        control_insertion=curves[1:, 0],
        control_deletion=curves[1:, 1],
        control_insertion_areas=areas[1:, 0],
        control_deletion_areas=areas[1:, 1],
        map=judged.astype(np.float32),
        image=view,
        name=name,
        target=scored.text,
        scale=scored.scale,
        provenance=model.provenance(
            "insertion_deletion",
            {
                "target": scored.text,
                "class_index": scored.class_index,
                "step": pixels,
                "insertion_substrate": _words(insertion_substrate),
                "deletion_substrate": _words(deletion_substrate),
                "ties": "row order",
                "controls": list(CONTROLS) if controls else [],
                "seed": seed,
            },
        ),
    )


def saliency_ranks(numbers: NDArray[Any]) -> NDArray[np.int64]:
    """(height, width) place of each pixel, 0 the most salient; ties in row order, NaN last."""
    flat = np.asarray(numbers, np.float64).ravel()
    order = np.argsort(-flat, kind="stable")  # sorts NaN to the end
    ranks = np.empty(flat.size, np.int64)
    ranks[order] = np.arange(flat.size)
    return ranks.reshape(numbers.shape)


def area_under_steps(scores: NDArray[np.float64]) -> float:
    """Area under (n + 1,) scores at equal steps over [0, 1], by the trapezoid rule."""
    return float((scores.sum() - scores[0] / 2 - scores[-1] / 2) / (len(scores) - 1))


def _words(given: Substrate) -> str:
    return given if isinstance(given, str) else "RGB " + ", ".join(f"{float(number):g}" for number in given)

"""A model and images come in; the fine picture of guided backpropagation, kept where Grad-CAM points, goes out."""

from __future__ import annotations

from onnxviz.graph.gradient.presets import GUIDED_BACKPROPAGATION
from onnxviz.methods.explained_images import ImagesLike, Passes, explained_images, one_or_all
from onnxviz.methods.gradcam import activation_maps
from onnxviz.methods.gradient_target import GradientTargetLike
from onnxviz.methods.rectified_backprop import rectifier_notes
from onnxviz.results import Attribution
from onnxviz.runtime.model import Model

__all__ = ["guided_gradcam"]

_CAVEAT = (
    "Its fine detail is that of guided backpropagation, which fails the randomisation check of Adebayo et al. (2018): "
    "only where it lies says something of the network."
)


def guided_gradcam(
    model: Model, image: ImagesLike, target: GradientTargetLike = "top1", *, value: str | None = None
) -> Attribution | tuple[Attribution, ...]:
    """Multiply guided backpropagation with the Grad-CAM map.

    Parameters
    ----------
    model : Model
    image : file, PIL image, array, folder, sequence of these or ImageSet
        One image or a few; all of them are kept in memory.
    target : int, str, sequence of int, tuple or mapping
        As for :func:`~onnxviz.methods.saliency.saliency`.
    value : str, optional
        As for :func:`~onnxviz.methods.gradcam.gradcam`.

    Returns
    -------
    Attribution, or a tuple of them
        One for each image; alone where there is one image. ``values`` are signed, (channels, height, width); ``map`` is
        the largest magnitude among a pixel's channels.

    Raises
    ------
    ValueNotFoundError, InputError, ContractError, UnsupportedOperatorError
        As :func:`~onnxviz.methods.gradcam.gradcam` does.

    Notes
    -----
    Selvaraju et al. 2017 (arXiv 1610.02391), section 3.2. The Grad-CAM map is brought to the image's size bilinearly,
    as in the paper; Captum's ``GuidedGradCam`` takes the nearest cell unless told otherwise.
    """
    explained = explained_images(model, image, target, "guided_gradcam")
    maps = activation_maps(explained, value)
    passes = Passes(explained, rules=GUIDED_BACKPROPAGATION)
    notes = rectifier_notes(explained, _CAVEAT)
    results = []
    for part in passes.images():
        guided = explained.channels_first(part.gradients[explained.source])
        for row, index in enumerate(range(part.rows.start, part.rows.stop)):
            found = maps[index]
            empty = [note for note in found.notes if note not in explained.notes]
            parameters = {
                "reduction": "max", "rules": GUIDED_BACKPROPAGATION.name, "value": found.value,
                "why": found.provenance.parameters["why"], "upsampling": "bilinear",
            }  # fmt: skip
            results.append(
                Attribution(
                    **explained.input_fields(guided[row] * found.map, "max", "guided Grad-CAM", (*notes, *empty)),
                    **explained.common(index, found.score, parameters),
                )
            )
    return one_or_all(results)

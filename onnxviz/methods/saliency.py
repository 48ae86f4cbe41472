"""A model and images come in; by how much each pixel would move the target, were it changed a little, goes out."""

from __future__ import annotations

from onnxviz.methods.explained_images import ImagesLike, Passes, explained_images, one_or_all
from onnxviz.methods.gradient_target import GradientTargetLike
from onnxviz.results import Attribution
from onnxviz.runtime.model import Model

__all__ = ["saliency"]


def saliency(
    model: Model, image: ImagesLike, target: GradientTargetLike = "top1"
) -> Attribution | tuple[Attribution, ...]:
    """Derive the target by every number of the input.

    Parameters
    ----------
    model : Model
    image : file, PIL image, array, folder, sequence of these or ImageSet
        One image or a few; all of them are kept in memory.
    target : int, str, sequence of int, tuple or mapping
        What is explained: a class (index, label, ``"top1"`` or one index for each image) by its logit;
        ``("value", index)`` or ``"value[i, j]"``, any element of any value; ``("value", "strongest")``, the channel of
        a value that the first image excites most; or ``{value: weights}``, any weighted sum.

    Returns
    -------
    Attribution, or a tuple of them
        One for each image; alone where there is one image. ``values`` are the signed derivatives, (channels, height,
        width); ``map`` is the largest magnitude among a pixel's channels.

    Raises
    ------
    InputError
        The model takes no image, an image cannot be read, or the target does not exist.
    ContractError
        A class is asked of a model whose output is not a classifier's.
    UnsupportedOperatorError
        An operator between input and target has no known derivative; it is named.

    Notes
    -----
    Simonyan, Vedaldi and Zisserman 2013 (arXiv 1312.6034), section 3: the derivative of the score before the softmax,
    its magnitude, the maximum over the colours. Captum's ``Saliency`` is the magnitude without that maximum. Where the
    input holds integers, the derivative is by the first real numbers behind it.
    """
    explained = explained_images(model, image, target, "saliency")
    passes = Passes(explained)
    results = []
    for part in passes.images():
        gradients = explained.channels_first(part.gradients[explained.source])
        for row, index in enumerate(range(part.rows.start, part.rows.stop)):
            results.append(
                Attribution(
                    **explained.input_fields(gradients[row], "max", "saliency"),
                    **explained.common(index, float(part.scores[row]), {"reduction": "max"}),
                )
            )
    return one_or_all(results)

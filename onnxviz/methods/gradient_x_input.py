"""A model and images come in; what each pixel would contribute to the target, were the network linear, goes out."""

from __future__ import annotations

import numpy as np

from onnxviz.methods.explained_images import ImagesLike, Passes, explained_images, one_or_all
from onnxviz.methods.gradient_target import GradientTargetLike
from onnxviz.results import Attribution
from onnxviz.runtime.model import Model

__all__ = ["gradient_x_input"]


def gradient_x_input(
    model: Model, image: ImagesLike, target: GradientTargetLike = "top1"
) -> Attribution | tuple[Attribution, ...]:
    """Multiply every number of the input with the derivative of the target by it.

    Parameters
    ----------
    model : Model
    image : file, PIL image, array, folder, sequence of these or ImageSet
        One image or a few; all of them are kept in memory.
    target : int, str, sequence of int, tuple or mapping
        As for :func:`~onnxviz.methods.saliency.saliency`.

    Returns
    -------
    Attribution, or a tuple of them
        One for each image; alone where there is one image. ``values`` are signed, (channels, height, width), in units
        of the target; ``map`` is their sum over the channels.

    Raises
    ------
    InputError, ContractError, UnsupportedOperatorError
        As :func:`~onnxviz.methods.saliency.saliency` does.

    Notes
    -----
    Shrikumar, Greenside, Shcherbina and Kundaje 2016 (arXiv 1605.01713), the baseline that their DeepLIFT is compared
    with. The input is the encoded one: a pixel of the colour that the contract maps to 0 gets 0, whatever the network
    makes of it. Where the input holds integers, both factors are those of the first real numbers behind it.
    """
    explained = explained_images(model, image, target, "gradient_x_input")
    passes = Passes(explained)
    source = explained.source
    results = []
    for part in passes.images():
        real = part.values[source] if source in part.values else explained.tensor[part.rows]
        products = explained.channels_first(part.gradients[source].astype(np.float32) * real.astype(np.float32))
        for row, index in enumerate(range(part.rows.start, part.rows.stop)):
            results.append(
                Attribution(
                    **explained.input_fields(products[row], "sum", "gradient × input"),
                    **explained.common(index, float(part.scores[row]), {"reduction": "sum"}),
                )
            )
    return one_or_all(results)

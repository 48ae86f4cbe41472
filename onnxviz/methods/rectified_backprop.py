"""A model and images come in; what comes back through the network when its ReLUs stop what is negative goes out."""

from __future__ import annotations

from collections.abc import Sequence

from onnxviz.graph.gradient.presets import DECONVNET, GUIDED_BACKPROPAGATION, OTHER_RECTIFIERS
from onnxviz.graph.gradient.rule_set import RuleSet
from onnxviz.methods.explained_images import Explained, ImagesLike, Passes, explained_images, one_or_all
from onnxviz.methods.gradient_target import GradientTargetLike
from onnxviz.results import Attribution
from onnxviz.runtime.model import Model

__all__ = ["deconvnet", "guided_backprop", "rectifier_notes"]

_CAVEATS = {
    GUIDED_BACKPROPAGATION.name: "Guided backpropagation finds the image's edges whatever the weights are: it fails "
    "the randomisation check of Adebayo et al. (2018).",
    DECONVNET.name: "The deconvnet finds the image's edges whatever the later weights are: it fails the randomisation "
    "check of Adebayo et al. (2018), as Sixt et al. (2020) show.",
}


def guided_backprop(
    model: Model, image: ImagesLike, target: GradientTargetLike = "top1"
) -> Attribution | tuple[Attribution, ...]:
    """Go back from the target, and let through each ReLU what is positive where the ReLU was open.

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
        One for each image; alone where there is one image. ``values`` are signed, (channels, height, width); ``map`` is
        the largest magnitude among a pixel's channels. ``notes`` count the other activations, which keep their true
        derivative because no accepted rule exists for them.

    Raises
    ------
    InputError, ContractError, UnsupportedOperatorError
        As :func:`~onnxviz.methods.saliency.saliency` does.

    Notes
    -----
    Springenberg, Dosovitskiy, Brox and Riedmiller 2014 (arXiv 1412.6806): max(R, 0) where the ReLU's input was
    positive, R being what comes back. The result hardly depends on the weights: it fails the randomisation check of
    Adebayo, Gilmer, Muelly, Goodfellow, Hardt and Kim 2018, and its pictures must not be read as reasons.
    """
    return _rectified(model, image, target, "guided_backprop", GUIDED_BACKPROPAGATION)


def deconvnet(
    model: Model, image: ImagesLike, target: GradientTargetLike = "top1"
) -> Attribution | tuple[Attribution, ...]:
    """Go back from the target, and let through each ReLU what is positive, wherever the ReLU was open.

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
        As :func:`guided_backprop` gives.

    Raises
    ------
    InputError, ContractError, UnsupportedOperatorError
        As :func:`~onnxviz.methods.saliency.saliency` does.

    Notes
    -----
    Zeiler and Fergus 2013 (arXiv 1311.2901), section 2.1: max(R, 0), R being what comes back, without the ReLU's own
    mask; pools hand it to the place of their maximum. Convolutions, normalisations and all else keep their true
    derivative. It fails the randomisation check of Adebayo et al. 2018 too (Sixt, Granz and Landgraf 2020).
    """
    return _rectified(model, image, target, "deconvnet", DECONVNET)


def _rectified(
    model: Model, image: ImagesLike, target: GradientTargetLike, method: str, rules: RuleSet
) -> Attribution | tuple[Attribution, ...]:
    explained = explained_images(model, image, target, method)
    passes = Passes(explained, rules=rules)
    notes = rectifier_notes(explained, _CAVEATS[rules.name])
    results = []
    for part in passes.images():
        gradients = explained.channels_first(part.gradients[explained.source])
        for row, index in enumerate(range(part.rows.start, part.rows.stop)):
            results.append(
                Attribution(
                    **explained.input_fields(gradients[row], "max", rules.name, notes),
                    **explained.common(index, float(part.scores[row]), {"reduction": "max", "rules": rules.name}),
                )
            )
    return one_or_all(results)


def rectifier_notes(explained: Explained, caveat: str) -> Sequence[str]:
    """What a rule for ReLUs must be said to be: of doubtful worth where it applies, and where it does not, that."""
    counts = explained.operators
    others = ", ".join(f"{name} ({counts[name]})" for name in sorted(OTHER_RECTIFIERS) if counts[name])
    notes = [caveat] if counts["Relu"] else ["The graph has no ReLU, so this is the plain gradient."]
    if others:
        notes.append(f"Activations that keep their true derivative, for want of an accepted rule: {others}.")
    return notes

"""A model and the name of a convolution come in; its weights, as they can be drawn, go out."""

from __future__ import annotations

from onnxviz.errors import ValueNotFoundError
from onnxviz.graph.weights import convolution_weights, first_convolution
from onnxviz.results import Filters
from onnxviz.runtime.model import Model

__all__ = ["filters"]


def filters(model: Model, value: str | None = None) -> Filters:
    """Read the weights of a convolution.

    Parameters
    ----------
    model : Model
    value : str or None
        Name or glob of a convolution's output (or of the value right behind it); None takes the first convolution that
        sees the image.

    Returns
    -------
    Filters
        ``weights`` is (filters, channels per group, height, width) float32, whatever the file's layout and
        quantisation.

    Raises
    ------
    ValueNotFoundError
        The graph has no convolution, or the value is none; those that exist are listed.
    InputError
        The weights cannot be read, for instance because they are reordered for onnxruntime's blocked layout.
    """
    proto = model.loaded.proto
    first = first_convolution(proto)
    if value is None and first is None:
        raise ValueNotFoundError("the graph has no convolution whose filters could be shown", where=model.name)
    name = model.value(value).name if value is not None else str(first)
    found = convolution_weights(model.loaded, name)
    colour = ""
    if found.value == first and found.weights.shape[1] == 3 and found.groups == 1 and model.preprocess is not None:
        colour = model.preprocess.channels if model.preprocess.channels in ("RGB", "BGR") else ""
    return Filters(
        value=found.value,
        weight_name=found.weight_name,
        weights=found.weights,
        groups=found.groups,
        channel_order=colour,
        provenance=model.provenance("filters", {"value": found.value}),
    )

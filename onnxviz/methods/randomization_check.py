"""A model and explanation methods come in; how far each map outlives the network's own weights goes out."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxviz.disk import replace_file, write_file
from onnxviz.errors import InputError
from onnxviz.graph.detached import lay_out
from onnxviz.graph.shuffled import WeightedLayer, shuffle_weights, weighted_layers
from onnxviz.methods.control_maps import edge_map
from onnxviz.methods.planted_cause import Explain, map_of
from onnxviz.methods.variants import one_view
from onnxviz.results import RandomizationCheck
from onnxviz.runtime.model import Model
from onnxviz.runtime.opening import load

__all__ = ["randomization_check", "rank_correlation"]

_WEIGHTS = "weights.bin"
"""File beside a shuffled network that holds its heavy weights."""


def randomization_check(
    model: Model,
    explain: Explain | Mapping[str, Explain],
    image: Any,
    *,
    class_index: int | None = None,
    stages: int = 6,
    seed: int = 0,
) -> RandomizationCheck:
    """Shuffle the network's weights layer by layer, from the scores to the input, and compare the maps.

    A map that stays as it was does not explain what the network has learned.

    Parameters
    ----------
    model : Model
        A classifier.
    explain : callable, or mapping of name to callable
        ``explain(model, image, class_index)`` returns a map (height, width), larger is more important. The image is
        (height, width, 3) uint8 RGB, as the network sees it.
    image : file, PIL image, array or ImageSet with one image
    class_index : int, optional
        The class that is explained at every stage; the original network's most likely one without it.
    stages : int
        At how many stages maps are made, from the first layer shuffled to all of them; never more than there are
        layers.
    seed : int

    Returns
    -------
    RandomizationCheck
        Spearman's rank correlation of each stage's map with the original one; the edge detector, which knows nothing of
        the network, is a control and keeps 1.

    Raises
    ------
    InputError
        The network has no stored weights, or some that are reordered for onnxruntime's blocked layout; or a method
        does not return a map.
    ContractError
        The model is not a classifier's.

    Notes
    -----
    Adebayo, Gilmer, Muelly, Goodfellow, Hardt and Kim 2018, cascading randomisation. They draw new weights from the
    initial distribution; here each tensor's own numbers are shuffled, so that no distribution has to be known. Biases
    and normalisation statistics stay. Guided backpropagation and the deconvnet are known to fail.
    """
    explainers = dict(explain) if isinstance(explain, Mapping) else {getattr(explain, "__name__", "the map"): explain}
    if not explainers:
        raise InputError("no method to check", where="explain", got="an empty mapping", allowed="{name: callable}")
    view, name = one_view(model, image, "randomization_check")
    layers = weighted_layers(model.loaded.proto, model.output.output)
    if not layers:
        raise InputError(
            "the network has no stored weights to shuffle", where=model.name,
            allowed="convolutions or matrix products with constants",
        )  # fmt: skip
    shown = _as_network(model)
    tensor = shown.preprocess.encode(view[np.newaxis]) if shown.preprocess else view[np.newaxis]
    chosen = int(shown.predict(tensor)[0].argmax()) if class_index is None else int(class_index)
    counts = np.unique(np.linspace(1, len(layers), min(stages, len(layers))).round().astype(np.int64))
    maps = np.empty((len(explainers) + 1, len(counts) + 1, *view.shape[:2]), np.float32)
    probabilities = np.empty(len(counts) + 1)
    for stage, count in enumerate((0, *counts.tolist())):
        with tempfile.TemporaryDirectory(prefix="onnxviz-shuffled-") as folder:
            opened = shown if count == 0 else _shuffled(model, shown, layers[:count], seed, Path(folder))
            probabilities[stage] = opened.predict(tensor)[0, chosen]
            for place, (title, method) in enumerate(explainers.items()):
                maps[place, stage] = map_of(opened, view, chosen, title, method)
            maps[-1, stage] = edge_map(view)
    correlations = np.array(
        [[rank_correlation(stage, of_method[0]) for stage in of_method[1:]] for of_method in maps], np.float64
    )
    label = f"{model.labels[chosen]} ({chosen})" if model.labels else f"class {chosen}"
    return RandomizationCheck(
        methods=(*explainers, "edges"),
        controls=1,
        layers=tuple(layer.value for layer in layers),
        shuffled=counts,
        correlations=correlations,
        probabilities=probabilities,
        maps=maps,
        image=view,
        name=name,
        target=label,
        provenance=model.provenance(
            "randomization_check",
            {"class_index": chosen, "stages": counts.tolist(), "seed": seed, "methods": list(explainers)},
        ),
    )


def rank_correlation(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Spearman's rank correlation of two maps, ties at their mean rank; NaN where one of them is constant."""
    from scipy.stats import rankdata

    ranks = [rankdata(numbers.ravel()) for numbers in (first, second)]
    centred = [rank - rank.mean() for rank in ranks]
    lengths = [float(np.linalg.norm(rank)) for rank in centred]
    if min(lengths) == 0:
        return float("nan")
    # Rounding may lead out of the range by its last bit.
    return float(np.clip(centred[0] @ centred[1] / (lengths[0] * lengths[1]), -1, 1))


def _as_network(model: Model) -> Model:
    """The model with a contract that takes the network's own picture as it is, without another crop."""
    import dataclasses

    assert model.preprocess is not None
    return _opened(model, model.path, dataclasses.replace(model.preprocess, fit="stretch"))


def _shuffled(model: Model, shown: Model, layers: Sequence[WeightedLayer], seed: int, folder: Path) -> Model:
    names = [name for layer in layers for name in layer.weights]
    outputs = [value.name for value in model.outputs]
    loaded = model.loaded
    copy, weights = shuffle_weights(loaded.proto, names, outputs, seed=seed, weights=loaded.weights)
    path = folder / f"{model.path.stem}.shuffled.onnx"
    if parts := lay_out(copy, weights, _WEIGHTS):
        replace_file(folder / _WEIGHTS, *(part.data for part in parts))
    write_file(path, copy.SerializeToString())
    return _opened(shown, path, shown.preprocess)


def _opened(model: Model, path: Path, preprocess: Any) -> Model:
    return load(
        path, preprocess=preprocess, output=model.output, labels=model.labels, device=model.device,
        threads=model.threads,
    )  # fmt: skip

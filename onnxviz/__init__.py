"""A microscope for exported models: what happens inside an ONNX network, and why it decided as it did.

The public names are these and no others. Each is imported when it is first used, so that ``import onnxviz`` is quick.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnxviz.backend import build_config
    from onnxviz.embedded import embedded_sets
    from onnxviz.errors import (
        ContractError,
        DeviceError,
        InputError,
        LimitError,
        ModelError,
        OnnxvizError,
        UnsupportedOperatorError,
        ValueNotFoundError,
    )
    from onnxviz.inputs.feature_bank import FeatureBank
    from onnxviz.inputs.images import load_images
    from onnxviz.inputs.preprocess import Preprocess
    from onnxviz.methods.activations import activations, merge_statistics
    from onnxviz.methods.class_purity import class_purity
    from onnxviz.methods.collect_features import collect_features
    from onnxviz.methods.embedding import embed
    from onnxviz.methods.features import features
    from onnxviz.methods.filters import filters
    from onnxviz.methods.hubness import hubness
    from onnxviz.methods.image_grid import image_grid
    from onnxviz.methods.label_suspects import label_suspects
    from onnxviz.methods.near_duplicates import near_duplicates
    from onnxviz.methods.nearest_neighbors import KNeighborsTransformer, NearestNeighbors
    from onnxviz.methods.neighbors import neighbors
    from onnxviz.methods.occlusion import occlusion, occlusion_steps
    from onnxviz.methods.predictions import predictions
    from onnxviz.methods.top_patches import merge_top_patches, top_patches
    from onnxviz.pictures import grid_image, plot, save_figure
    from onnxviz.report.audit import audit
    from onnxviz.runtime.model import Model
    from onnxviz.runtime.opening import load
    from onnxviz.runtime.output import OutputContract

_HOMES = {
    "onnxviz.backend": ("build_config",),
    "onnxviz.embedded": ("embedded_sets",),
    "onnxviz.errors": (
        "ContractError", "DeviceError", "InputError", "LimitError", "ModelError", "OnnxvizError",
        "UnsupportedOperatorError", "ValueNotFoundError",
    ),
    "onnxviz.inputs.feature_bank": ("FeatureBank",),
    "onnxviz.inputs.images": ("load_images",),
    "onnxviz.inputs.preprocess": ("Preprocess",),
    "onnxviz.methods.activations": ("activations", "merge_statistics"),
    "onnxviz.methods.class_purity": ("class_purity",),
    "onnxviz.methods.collect_features": ("collect_features",),
    "onnxviz.methods.embedding": ("embed",),
    "onnxviz.methods.features": ("features",),
    "onnxviz.methods.filters": ("filters",),
    "onnxviz.methods.hubness": ("hubness",),
    "onnxviz.methods.image_grid": ("image_grid",),
    "onnxviz.methods.label_suspects": ("label_suspects",),
    "onnxviz.methods.near_duplicates": ("near_duplicates",),
    "onnxviz.methods.nearest_neighbors": ("KNeighborsTransformer", "NearestNeighbors"),
    "onnxviz.methods.neighbors": ("neighbors",),
    "onnxviz.methods.occlusion": ("occlusion", "occlusion_steps"),
    "onnxviz.methods.predictions": ("predictions",),
    "onnxviz.methods.top_patches": ("merge_top_patches", "top_patches"),
    "onnxviz.pictures": ("grid_image", "plot", "save_figure"),
    "onnxviz.report.audit": ("audit",),
    "onnxviz.runtime.model": ("Model",),
    "onnxviz.runtime.opening": ("load",),
    "onnxviz.runtime.output": ("OutputContract",),
}  # fmt: skip
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "ContractError",
    "DeviceError",
    "FeatureBank",
    "InputError",
    "KNeighborsTransformer",
    "LimitError",
    "Model",
    "ModelError",
    "NearestNeighbors",
    "OnnxvizError",
    "OutputContract",
    "Preprocess",
    "UnsupportedOperatorError",
    "ValueNotFoundError",
    "activations",
    "audit",
    "build_config",
    "class_purity",
    "collect_features",
    "embed",
    "embedded_sets",
    "features",
    "filters",
    "grid_image",
    "hubness",
    "image_grid",
    "label_suspects",
    "load",
    "load_images",
    "merge_statistics",
    "merge_top_patches",
    "near_duplicates",
    "neighbors",
    "occlusion",
    "occlusion_steps",
    "plot",
    "predictions",
    "save_figure",
    "top_patches",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.metadata.version("onnxviz")
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'onnxviz' has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__

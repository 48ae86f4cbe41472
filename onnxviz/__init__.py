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
    from onnxviz.methods.class_visualization import class_visualization, class_visualization_steps
    from onnxviz.methods.collect_features import collect_features
    from onnxviz.methods.embedding import embed
    from onnxviz.methods.feature_visualization import feature_visualization, feature_visualization_steps
    from onnxviz.methods.features import features
    from onnxviz.methods.filters import filters
    from onnxviz.methods.gradcam import gradcam, gradcam_plusplus
    from onnxviz.methods.gradient import gradient
    from onnxviz.methods.gradient_x_input import gradient_x_input
    from onnxviz.methods.guided_gradcam import guided_gradcam
    from onnxviz.methods.hubness import hubness
    from onnxviz.methods.image_grid import image_grid
    from onnxviz.methods.insertion_deletion import insertion_deletion
    from onnxviz.methods.integrated_gradients import integrated_gradients
    from onnxviz.methods.label_suspects import label_suspects
    from onnxviz.methods.near_duplicates import near_duplicates
    from onnxviz.methods.nearest_neighbors import KNeighborsTransformer, NearestNeighbors
    from onnxviz.methods.neighbors import neighbors
    from onnxviz.methods.occlusion import occlusion, occlusion_steps
    from onnxviz.methods.planted_cause import plant, planted_cause
    from onnxviz.methods.pointing_game import pointing_game
    from onnxviz.methods.predictions import predictions
    from onnxviz.methods.randomization_check import randomization_check
    from onnxviz.methods.rectified_backprop import deconvnet, guided_backprop
    from onnxviz.methods.rise import merge_rise, rise, rise_steps
    from onnxviz.methods.saliency import saliency
    from onnxviz.methods.smoothgrad import smoothgrad
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
    "onnxviz.methods.class_visualization": ("class_visualization", "class_visualization_steps"),
    "onnxviz.methods.collect_features": ("collect_features",),
    "onnxviz.methods.embedding": ("embed",),
    "onnxviz.methods.feature_visualization": ("feature_visualization", "feature_visualization_steps"),
    "onnxviz.methods.features": ("features",),
    "onnxviz.methods.filters": ("filters",),
    "onnxviz.methods.gradcam": ("gradcam", "gradcam_plusplus"),
    "onnxviz.methods.gradient": ("gradient",),
    "onnxviz.methods.gradient_x_input": ("gradient_x_input",),
    "onnxviz.methods.guided_gradcam": ("guided_gradcam",),
    "onnxviz.methods.hubness": ("hubness",),
    "onnxviz.methods.image_grid": ("image_grid",),
    "onnxviz.methods.insertion_deletion": ("insertion_deletion",),
    "onnxviz.methods.integrated_gradients": ("integrated_gradients",),
    "onnxviz.methods.label_suspects": ("label_suspects",),
    "onnxviz.methods.near_duplicates": ("near_duplicates",),
    "onnxviz.methods.nearest_neighbors": ("KNeighborsTransformer", "NearestNeighbors"),
    "onnxviz.methods.neighbors": ("neighbors",),
    "onnxviz.methods.occlusion": ("occlusion", "occlusion_steps"),
    "onnxviz.methods.planted_cause": ("plant", "planted_cause"),
    "onnxviz.methods.pointing_game": ("pointing_game",),
    "onnxviz.methods.predictions": ("predictions",),
    "onnxviz.methods.randomization_check": ("randomization_check",),
    "onnxviz.methods.rectified_backprop": ("deconvnet", "guided_backprop"),
    "onnxviz.methods.rise": ("merge_rise", "rise", "rise_steps"),
    "onnxviz.methods.saliency": ("saliency",),
    "onnxviz.methods.smoothgrad": ("smoothgrad",),
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
    "class_visualization",
    "class_visualization_steps",
    "collect_features",
    "deconvnet",
    "embed",
    "embedded_sets",
    "feature_visualization",
    "feature_visualization_steps",
    "features",
    "filters",
    "gradcam",
    "gradcam_plusplus",
    "gradient",
    "gradient_x_input",
    "grid_image",
    "guided_backprop",
    "guided_gradcam",
    "hubness",
    "image_grid",
    "insertion_deletion",
    "integrated_gradients",
    "label_suspects",
    "load",
    "load_images",
    "merge_rise",
    "merge_statistics",
    "merge_top_patches",
    "near_duplicates",
    "neighbors",
    "occlusion",
    "occlusion_steps",
    "plant",
    "planted_cause",
    "plot",
    "pointing_game",
    "predictions",
    "randomization_check",
    "rise",
    "rise_steps",
    "saliency",
    "save_figure",
    "smoothgrad",
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

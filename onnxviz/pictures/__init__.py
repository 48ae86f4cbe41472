"""Pictures of results: ``plot`` for a figure, ``grid_image`` for a photo grid of any resolution, and saving."""

from __future__ import annotations

# Importing a kind's file registers its picture with ``plot``.
from onnxviz.pictures import (
    activation_map,
    activation_statistics,
    activations,
    attribution,
    class_purity,
    class_visualization,
    embedding,
    feature_visualization,
    filters,
    hubness,
    image_grid,
    insertion_deletion,
    label_suspects,
    near_duplicates,
    neighbors,
    occlusion,
    planted_cause,
    predictions,
    randomization_check,
    rise,
    top_patches,
)
from onnxviz.pictures.dispatch import plot
from onnxviz.pictures.image_grid import grid_image
from onnxviz.pictures.save import save_figure, to_png_bytes

__all__ = ["grid_image", "plot", "save_figure", "to_png_bytes"]

_KINDS = (
    activation_map,
    activation_statistics,
    activations,
    attribution,
    class_purity,
    class_visualization,
    embedding,
    feature_visualization,
    filters,
    hubness,
    image_grid,
    insertion_deletion,
    label_suspects,
    near_duplicates,
    neighbors,
    occlusion,
    planted_cause,
    predictions,
    randomization_check,
    rise,
    top_patches,
)

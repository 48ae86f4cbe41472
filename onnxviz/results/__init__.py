"""What the methods return: frozen dataclasses of plain numpy arrays, raw and signed, each with what made it.

Arrays are channel-first whatever the model's layout; pictures of the input are ``uint8`` RGB, height × width × 3, and
show what the network saw (after resizing and cropping, before scaling).
"""

from __future__ import annotations

from onnxviz.results.ascent import AscentStep, ClassVisualization, FeatureVisualization
from onnxviz.results.explanations import (
    ActivationMap,
    Attribution,
    IntegratedGradients,
    Occlusion,
    OcclusionStep,
    Rise,
    RiseStep,
    SmoothGrad,
    relative_noise,
)
from onnxviz.results.feature_space import (
    ClassPurity,
    Embedding,
    Features,
    Hubness,
    ImageGrid,
    LabelSuspects,
    NearDuplicates,
    Neighbors,
)
from onnxviz.results.inside import Activations, ActivationStatistics, Filters, TopPatches
from onnxviz.results.predictions import Predictions
from onnxviz.results.provenance import Provenance
from onnxviz.results.trust import InsertionDeletion, PlantedCause, PointingGame, RandomizationCheck

__all__ = [
    "ActivationMap",
    "ActivationStatistics",
    "Activations",
    "AscentStep",
    "Attribution",
    "ClassPurity",
    "ClassVisualization",
    "Embedding",
    "FeatureVisualization",
    "Features",
    "Filters",
    "Hubness",
    "ImageGrid",
    "InsertionDeletion",
    "IntegratedGradients",
    "LabelSuspects",
    "NearDuplicates",
    "Neighbors",
    "Occlusion",
    "OcclusionStep",
    "PlantedCause",
    "PointingGame",
    "Predictions",
    "Provenance",
    "RandomizationCheck",
    "Rise",
    "RiseStep",
    "SmoothGrad",
    "TopPatches",
    "relative_noise",
]

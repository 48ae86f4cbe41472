"""Checked numpy arrays come in, the compiled core's answers go out; this is the only importer of the extension."""

from __future__ import annotations

from onnxviz.backend.build import CudaStatus, build_config, cpu_level, cuda_status
from onnxviz.backend.neighbors import IndexSetup, NeighborIndex, RealMatrix, RowFiles
from onnxviz.backend.occlusion import accumulate_boxes, fill_occluded, overlay_windows

__all__ = [
    "CudaStatus",
    "IndexSetup",
    "NeighborIndex",
    "RealMatrix",
    "RowFiles",
    "accumulate_boxes",
    "build_config",
    "cpu_level",
    "cuda_status",
    "fill_occluded",
    "overlay_windows",
]

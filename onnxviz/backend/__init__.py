"""Checked numpy arrays come in, the compiled core's answers go out; this is the only importer of the extension."""

from __future__ import annotations

from onnxviz.backend.build import CudaStatus, build_config, cpu_level, cuda_status
from onnxviz.backend.cuda_memory import Buffer, DeviceArray, Stream, device_array, require_device
from onnxviz.backend.cuda_neighbors import CudaNeighborIndex
from onnxviz.backend.cuda_occlusion import fill_occluded_on_device, overlay_windows_on_device
from onnxviz.backend.cuda_parts import Part, copy_on_device
from onnxviz.backend.cuda_top_values import TopValuesOnDevice, channel_maxima_on_device
from onnxviz.backend.neighbors import IndexSetup, NeighborIndex, RealMatrix, RowFiles, aligned
from onnxviz.backend.occlusion import accumulate_boxes, fill_occluded, overlay_windows

__all__ = [
    "Buffer",
    "CudaNeighborIndex",
    "CudaStatus",
    "DeviceArray",
    "IndexSetup",
    "NeighborIndex",
    "Part",
    "RealMatrix",
    "RowFiles",
    "Stream",
    "TopValuesOnDevice",
    "accumulate_boxes",
    "aligned",
    "build_config",
    "channel_maxima_on_device",
    "copy_on_device",
    "cpu_level",
    "cuda_status",
    "device_array",
    "fill_occluded",
    "fill_occluded_on_device",
    "overlay_windows",
    "overlay_windows_on_device",
    "require_device",
]

// The batches and windows of onnxviz/occlusion.h on a CUDA device: the same bytes. csrc/cuda defines these functions; in
// csrc/no_cuda they throw why there is no device.
//
// Images, maps, batches and windows are device memory, boxes and placements the host's; those are read before a function
// returns and may then change. `accumulate_boxes` has no counterpart: its sums are a few thousand numbers of float64 that
// follow from scores on the host, in the order of the boxes, which is not one that a device adds in.
#pragma once

#include <cstddef>
#include <cstdint>

#include "onnxviz/cuda/memory.h"
#include "onnxviz/occlusion.h"

namespace onnxviz::cuda {

// As onnxviz::fill_occluded. Throws std::invalid_argument with its words, and where a row of the image has more than
// 2^29 bytes or the image more than 2^29 rows.
void fill_occluded(const void* image, const void* fill, const ImageLayout& layout, const Box* boxes,
                   const Box* previous, std::int64_t count, void* batch, StreamView stream);

// As onnxviz::overlay_windows; the border is device memory, too. Throws as that does, and as above.
void overlay_windows(const void* original, const ImageLayout& layout, const void* source, std::int64_t source_height,
                     std::int64_t source_width, std::size_t source_stride, const Placement* placements,
                     std::int64_t count, std::int64_t height, std::int64_t width, const void* border, void* windows,
                     StreamView stream);

}  // namespace onnxviz::cuda

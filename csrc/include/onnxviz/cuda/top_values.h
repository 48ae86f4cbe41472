// Where activation maps are largest, on a CUDA device: the maximum of every image and channel, and the k best images of
// every channel so far. csrc/cuda defines these functions; in csrc/no_cuda they throw why there is no device.
//
// NaN never wins. Equal maxima go to the earlier image, then to the earlier position; positions count row by row.
#pragma once

#include <cstdint>

#include "onnxviz/cuda/memory.h"

namespace onnxviz::cuda {

enum class MapElement { float32, float16, bfloat16 };

// (images, channels, positions), or (images, positions, channels) with channels_last; contiguous.
struct MapsLayout {
  std::int64_t images;
  std::int64_t channels;
  std::int64_t positions;
  bool channels_last;
};

// values, positions (images, channels): the maximum, as float32 exactly, and where it first is. A map of NaN and
// -infinity alone has -infinity at position 0. Throws std::invalid_argument for a map without positions, or one with
// 2^31 or more.
void channel_maxima(const void* maps, MapElement element, const MapsLayout& layout, float* values,
                    std::int64_t* positions, StreamView stream);

// The k best of every channel, best first, all (channels, k).
struct TopValues {
  float* values;            // -infinity where there are fewer than k
  std::int64_t* images;     // -1 there
  std::int64_t* positions;  // 0 there
};

// Holds none.
void clear_top_values(const TopValues& top, std::int64_t channels, std::int64_t k, StreamView stream);

// Takes in the maxima of more images, whose numbers are the host's memory and may change on return. A maximum of
// -infinity is not taken in.
void merge_top_values(const float* values, const std::int64_t* positions, const std::int64_t* images,
                      std::int64_t count, const TopValues& top, std::int64_t channels, std::int64_t k,
                      StreamView stream);

}  // namespace onnxviz::cuda

#include "onnxviz/cuda/occlusion.h"

#include <stdexcept>

#include "onnxviz/cuda/device.h"

namespace onnxviz::cuda {

void fill_occluded(const void*, const void*, const ImageLayout&, const Box*, const Box*, std::int64_t, void*,
                   StreamView) {
  throw std::runtime_error(status());
}

void overlay_windows(const void*, const ImageLayout&, const void*, std::int64_t, std::int64_t, std::size_t,
                     const Placement*, std::int64_t, std::int64_t, std::int64_t, const void*, void*, StreamView) {
  throw std::runtime_error(status());
}

}  // namespace onnxviz::cuda

#include "onnxviz/cuda/top_values.h"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "kernels/top_values.cuh"
#include "launch.h"

namespace onnxviz::cuda {
namespace {

constexpr int warp_size = 32;
constexpr int threads_per_block = 256;
// From here on a row is worth a block of its own.
constexpr std::int64_t long_row = 2048;
constexpr std::int64_t most = std::int64_t{1} << 31;

template <class Element>
void maxima(const void* maps, const MapsLayout& layout, float* values, std::int64_t* positions, cudaStream_t stream) {
  const auto* elements = static_cast<const typename Element::Bits*>(maps);
  const std::int64_t rows = layout.images * layout.channels;
  if (layout.channels_last) {
    const unsigned groups = blocks_for(layout.channels, column_lanes);
    if (layout.images * groups >= most) throw std::invalid_argument("there are too many maps for one launch");
    launch(column_maxima<Element>, Grid{dim3(static_cast<unsigned>(layout.images) * groups),
                                        dim3(column_lanes, column_warps)},
           stream, elements, layout.channels, layout.positions, groups, values, positions);
    return;
  }
  if (rows >= most) throw std::invalid_argument("there are too many maps for one launch");
  if (layout.positions < long_row) {
    launch(short_row_maxima<Element>, Grid{blocks_for(rows * warp_size, threads_per_block), threads_per_block}, stream,
           elements, rows, layout.positions, values, positions);
  } else {
    launch(long_row_maxima<Element>, Grid{static_cast<unsigned>(rows), most_row_warps * warp_size}, stream, elements,
           layout.positions, values, positions);
  }
}

}  // namespace

void channel_maxima(const void* maps, MapElement element, const MapsLayout& layout, float* values,
                    std::int64_t* positions, StreamView stream) {
  if (layout.positions < 1 || layout.positions >= most || layout.channels >= most) {
    throw std::invalid_argument("a map has " + std::to_string(layout.positions) + " positions and " +
                                std::to_string(layout.channels) + " channels: 1 to 2^31 - 1 can be searched");
  }
  if (layout.images * layout.channels == 0) return;
  const CurrentDevice current(stream.device);
  switch (element) {
    case MapElement::float32: return maxima<Float32>(maps, layout, values, positions, queue(stream));
    case MapElement::float16: return maxima<Float16>(maps, layout, values, positions, queue(stream));
    case MapElement::bfloat16: return maxima<Bfloat16>(maps, layout, values, positions, queue(stream));
  }
}

void clear_top_values(const TopValues& top, std::int64_t channels, std::int64_t k, StreamView stream) {
  const CurrentDevice current(stream.device);
  launch(clear_top, Grid{blocks_for(channels * k, threads_per_block), threads_per_block}, queue(stream), top.values,
         top.images, top.positions, channels * k);
}

void merge_top_values(const float* values, const std::int64_t* positions, const std::int64_t* images,
                      std::int64_t count, const TopValues& top, std::int64_t channels, std::int64_t k,
                      StreamView stream) {
  if (k >= most) throw std::invalid_argument("k is 2^31 or more");
  if (k < 1) return;
  const CurrentDevice current(stream.device);
  for (std::int64_t done = 0; done < count; done += images_at_once) {
    const int some = static_cast<int>(std::min<std::int64_t>(count - done, images_at_once));
    ImageNumbers numbers{};
    std::copy(images + done, images + done + some, numbers.at);
    launch(merge_top, Grid{blocks_for(channels, 64), 64}, queue(stream), values + done * channels,
           positions + done * channels, some, top.values, top.images, top.positions, channels, k, numbers);
  }
}

}  // namespace onnxviz::cuda

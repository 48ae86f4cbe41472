// Maxima of activation maps with their first positions, and the k best of every channel.
//
// Which of two is better does not depend on the order in which threads meet them: the larger value, then the earlier
// position. So any way to share out the work gives the same answer, bit for bit.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "dialect.cuh"
#include "elements.cuh"

namespace onnxviz::cuda {

constexpr int column_lanes = 32;  // channels that a block of column_maxima looks at
constexpr int column_warps = 8;   // and shares of the positions
constexpr int most_row_warps = 8;
constexpr int images_at_once = 256;  // whose numbers fit into a kernel's parameters

// -- the better of two ------------------------------------------------------------------------------------------------

struct Peak {
  float value;
  int position;
};

// Of a map of nothing but NaN and -infinity, too.
__device__ __forceinline__ Peak no_peak() { return {-HUGE_VALF, 0}; }

// Takes in one that lies behind all that were: of equals the first stays, and NaN is never larger.
__device__ __forceinline__ void take(Peak& best, float value, int position) {
  if (value > best.value) best = {value, position};
}

__device__ __forceinline__ Peak better(const Peak& a, const Peak& b) {
  if (a.value != b.value) return a.value > b.value ? a : b;
  return a.position < b.position ? a : b;
}

// What lane 0 gets is the best of its warp.
__device__ __forceinline__ Peak best_of_warp(Peak mine) {
  for (int by = warpSize / 2; by > 0; by /= 2) {
    const Peak other{__shfl_xor_sync(whole_warp, mine.value, by), __shfl_xor_sync(whole_warp, mine.position, by)};
    mine = better(mine, other);
  }
  return mine;
}

// -- maps whose channels lie one behind the other ---------------------------------------------------------------------

// This thread's share of a row, of which it is number `thread` of `threads`: 16 bytes at a time where they are aligned.
template <class Element>
__device__ __forceinline__ Peak best_of_share(const typename Element::Bits* row, int positions, int thread,
                                              int threads) {
  using Bits = typename Element::Bits;
  constexpr int width = static_cast<int>(16 / sizeof(Bits));
  const int skew = static_cast<int>(reinterpret_cast<std::uintptr_t>(row) / sizeof(Bits) % width);
  // bound: s/(width - skew) % width/0/
  const int head = min((width - skew) % width, positions);
  const int vectors = (positions - head) / width;
  Peak best = no_peak();
  // bound: s/position < head/position < head - 1/
  for (int position = thread; position < head; position += threads) take(best, Element::value(row[position]), position);
  // bound: s/v < vectors/v < vectors - 1/
  for (int v = thread; v < vectors; v += threads) {
    const int first = head + v * width;
    const uint4 packed = *reinterpret_cast<const uint4*>(row + first);
    Bits values[width];
    std::memcpy(values, &packed, sizeof packed);
    ONNXVIZ_UNROLL
    for (int j = 0; j < width; ++j) take(best, Element::value(values[j]), first + j);
  }
  // bound: s/position < positions/position < positions - 1/
  for (int position = head + vectors * width + thread; position < positions; position += threads) {
    take(best, Element::value(row[position]), position);
  }
  return best;
}

// A warp for each row: for short ones.
template <class Element>
__global__ void short_row_maxima(const typename Element::Bits* maps, std::int64_t rows, int positions, float* values,
                                 std::int64_t* places) {
  const std::int64_t row = (static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / warpSize;
  // bound: s/row >= rows/row > rows/
  if (row >= rows) return;  // the whole warp
  const int lane = static_cast<int>(threadIdx.x % warpSize);
  const Peak best = best_of_warp(best_of_share<Element>(maps + row * positions, positions, lane, warpSize));
  if (lane != 0) return;
  values[row] = best.value;
  places[row] = best.position;
}

// A block for each row: for long ones.
template <class Element>
__global__ void long_row_maxima(const typename Element::Bits* maps, int positions, float* values,
                                std::int64_t* places) {
  struct Shared {
    Peak of_warp[most_row_warps];
  };
  ONNXVIZ_SHARED(Shared, shared);
  const std::int64_t row = blockIdx.x;
  const int thread = static_cast<int>(threadIdx.x);
  const int threads = static_cast<int>(blockDim.x);
  const Peak mine = best_of_warp(best_of_share<Element>(maps + row * positions, positions, thread, threads));
  if (thread % warpSize == 0) shared.of_warp[thread / warpSize] = mine;
  __syncthreads();
  if (thread != 0) return;
  Peak best = mine;
  // bound: s|warp < threads / warpSize|warp < threads / warpSize - 1|
  for (int warp = 1; warp < threads / warpSize; ++warp) best = better(best, shared.of_warp[warp]);
  values[row] = best.value;
  places[row] = best.position;
}

// -- maps whose channels lie side by side -----------------------------------------------------------------------------

// A block for 32 channels of an image; its warps share the positions, its lanes read neighbouring channels.
template <class Element>
__global__ void column_maxima(const typename Element::Bits* maps, int channels, int positions, int groups,
                              float* values, std::int64_t* places) {
  struct Shared {
    Peak of_warp[column_warps][column_lanes];
  };
  ONNXVIZ_SHARED(Shared, shared);
  const std::int64_t image = blockIdx.x / static_cast<unsigned>(groups);
  const int lane = static_cast<int>(threadIdx.x);
  const int warp = static_cast<int>(threadIdx.y);
  const int channel = static_cast<int>(blockIdx.x % static_cast<unsigned>(groups)) * column_lanes + lane;
  // bound: s/channel < channels/true/
  const bool is_there = channel < channels;
  Peak best = no_peak();
  if (is_there) {
    const auto* map = maps + image * positions * channels + channel;
    // bound: s/position < positions/position < positions - 1/
    for (int position = warp; position < positions; position += column_warps) {
      take(best, Element::value(map[static_cast<std::int64_t>(position) * channels]), position);
    }
  }
  shared.of_warp[warp][lane] = best;
  __syncthreads();
  if (warp != 0 || !is_there) return;
  // bound: s/other < column_warps/other < column_warps - 1/
  for (int other = 1; other < column_warps; ++other) best = better(best, shared.of_warp[other][lane]);
  values[image * channels + channel] = best.value;
  places[image * channels + channel] = best.position;
}

// -- the best of every channel ----------------------------------------------------------------------------------------

struct ImageNumbers {
  std::int64_t at[images_at_once];
};

__global__ void clear_top(float* values, std::int64_t* images, std::int64_t* positions, std::int64_t count) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  // bound: s/i >= count/i > count/
  if (i >= count) return;
  values[i] = -HUGE_VALF;
  images[i] = -1;
  positions[i] = 0;
}

// Whether the first is better: a place that holds none, whose image is -1, comes behind all.
__device__ __forceinline__ bool comes_before(float value, std::int64_t image, std::int64_t position, float other,
                                             std::int64_t other_image, std::int64_t other_position) {
  if (other_image < 0) return true;
  if (value != other) return value > other;
  if (image != other_image) return image < other_image;
  return position < other_position;
}

// A thread for each channel, which puts each new maximum in its place: few of them have one, after many images.
__global__ void merge_top(const float* new_values, const std::int64_t* new_positions, int count, float* values,
                          std::int64_t* images, std::int64_t* positions, std::int64_t channels, int k,
                          const ImageNumbers numbers) {
  const std::int64_t channel = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  // bound: s/channel >= channels/channel > channels/
  if (channel >= channels) return;
  float* const best = values + channel * k;
  std::int64_t* const best_image = images + channel * k;
  std::int64_t* const best_position = positions + channel * k;
  for (int i = 0; i < count; ++i) {
    const float value = new_values[i * channels + channel];
    if (!(value > -HUGE_VALF)) continue;
    const std::int64_t position = new_positions[i * channels + channel];
    const std::int64_t image = numbers.at[i];
    // bound: s/place = k/place = k - 1/
    int place = k;
    // bound: s/place > 0/place > 1/
    while (place > 0 && comes_before(value, image, position, best[place - 1], best_image[place - 1],
                                     best_position[place - 1])) {
      --place;
      if (place + 1 < k) {
        best[place + 1] = best[place];
        best_image[place + 1] = best_image[place];
        best_position[place + 1] = best_position[place];
      }
    }
    if (place == k) continue;
    best[place] = value;
    best_image[place] = image;
    best_position[place] = position;
  }
}

}  // namespace onnxviz::cuda

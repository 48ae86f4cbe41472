// Products of codes: one row with few others by eight lanes, or a tile of both by tensor cores.
#pragma once

#include <cstdint>

#include "async_copy.cuh"
#include "dialect.cuh"
#include "tensor_core.cuh"

namespace onnxviz::cuda {

constexpr int warp_lanes = 32;
constexpr int lanes_per_row = 8;
constexpr int rows_per_warp = warp_lanes / lanes_per_row;

__device__ __forceinline__ int multiply_add_16(const uint4& a, const uint4& b, int sum) {
  sum = multiply_add_bytes(static_cast<int>(a.x), static_cast<int>(b.x), sum);
  sum = multiply_add_bytes(static_cast<int>(a.y), static_cast<int>(b.y), sum);
  sum = multiply_add_bytes(static_cast<int>(a.z), static_cast<int>(b.z), sum);
  return multiply_add_bytes(static_cast<int>(a.w), static_cast<int>(b.w), sum);
}

// Products of one row with `Number` vectors that lie row_bytes apart, for each eight lanes of a warp; all of them get
// them. Eight lanes read 128 bytes at a time.
template <int Number>
__device__ __forceinline__ void products_by_eight_lanes(const std::int8_t* row,
                                                        const std::int8_t* const (&vectors)[Number],
                                                        std::int64_t row_bytes, int (&products)[Number]) {
  const auto* codes = reinterpret_cast<const uint4*>(row);
  const auto units = static_cast<int>(row_bytes / 16);
  ONNXVIZ_UNROLL
  for (int n = 0; n < Number; ++n) products[n] = 0;
  // bound: s/unit < units/unit < units - 1/
  for (int unit = static_cast<int>(threadIdx.x % lanes_per_row); unit < units; unit += lanes_per_row) {
    const uint4 code = codes[unit];
    ONNXVIZ_UNROLL
    for (int n = 0; n < Number; ++n) {
      products[n] = multiply_add_16(code, reinterpret_cast<const uint4*>(vectors[n])[unit], products[n]);
    }
  }
  ONNXVIZ_UNROLL
  for (int n = 0; n < Number; ++n) {
    for (int by = lanes_per_row / 2; by > 0; by /= 2) products[n] += __shfl_xor_sync(whole_warp, products[n], by);
  }
}

// Which of the rows that a warp meets, four in each of eight rounds, a lane keeps: the one of its eight lanes in the
// round of its own number.
__device__ __forceinline__ int kept_of_warp() {
  const auto lane = static_cast<int>(threadIdx.x % warp_lanes);
  return lane % lanes_per_row * rows_per_warp + lane / lanes_per_row;
}

// A block's tile of products: 16 x LeftTiles x LeftWarps rows on the left, 8 x RightTiles x RightWarps on the right.
//
// 64 columns at a time go through shared memory, three times 64 columns deep. A product does not change with the order
// of its columns, so lane t of four takes the 16 t-th to 16 t + 15-th bytes of a row's 64 at once, for two steps of the
// tensor core: 128 bits a load, from rows that lie one behind the other, which touches every bank once.
template <int LeftTiles, int RightTiles, int LeftWarps, int RightWarps>
struct ProductTile {
  static constexpr int left_rows = 16 * LeftTiles * LeftWarps;
  static constexpr int right_rows = 8 * RightTiles * RightWarps;
  static constexpr int threads = warp_lanes * LeftWarps * RightWarps;
  static constexpr int depth = 3;
  static constexpr int step = 64;
  static constexpr int stage_bytes = (left_rows + right_rows) * step;
  static constexpr int shared_bytes = depth * stage_bytes;
  static constexpr int pieces = (stage_bytes / 16 + threads - 1) / threads;

  int sums[LeftTiles][RightTiles][4] = {};

  // Which rows of the tile a lane has products of: sums[i][j][2 * half + side].
  __device__ __forceinline__ static int left_row(int i, int half) {
    const auto lane = static_cast<int>(threadIdx.x % warp_lanes);
    const auto warp = static_cast<int>(threadIdx.x / warp_lanes);
    return (warp / RightWarps * LeftTiles + i) * 16 + half * 8 + lane / 4;
  }
  __device__ __forceinline__ static int right_row(int j, int side) {
    const auto lane = static_cast<int>(threadIdx.x % warp_lanes);
    const auto warp = static_cast<int>(threadIdx.x / warp_lanes);
    return (warp % RightWarps * RightTiles + j) * 8 + lane % 4 * 2 + side;
  }

  // `left` and `right` say where a row of the tile begins. Returns the part of the shared memory, stage_bytes of it,
  // that nobody reads or writes any more.
  template <class Left, class Right>
  __device__ __forceinline__ unsigned char* multiply(const Left& left, const Right& right, std::int64_t row_bytes,
                                                     unsigned char* shared) {
    const std::int8_t* sources[pieces];
    ONNXVIZ_UNROLL
    for (int piece = 0; piece < pieces; ++piece) {
      const int line = (piece * threads + static_cast<int>(threadIdx.x)) / 4;
      sources[piece] = nullptr;
      // bound: s/line < left_rows/true/
      if (line < left_rows) sources[piece] = left(line);
      // bound: s/line >= left_rows/true/ s/line < left_rows + right_rows/true/
      if (line >= left_rows && line < left_rows + right_rows) sources[piece] = right(line - left_rows);
    }
    const auto begin = [&](int number) {
      unsigned char* stage = shared + number % depth * stage_bytes;
      ONNXVIZ_UNROLL
      for (int piece = 0; piece < pieces; ++piece) {
        const int unit = piece * threads + static_cast<int>(threadIdx.x);
        // bound: s/sources[piece] != nullptr/true/
        if (sources[piece] != nullptr) begin_copy_16(stage + 16 * unit, sources[piece] + number * step + unit % 4 * 16);
      }
    };
    const auto steps = static_cast<int>(row_bytes / step);
    for (int number = 0; number < depth - 1; ++number) {
      // bound: s/number < steps/true/
      if (number < steps) begin(number);
      close_copy_group();
    }
    for (int number = 0; number < steps; ++number) {
      // bound: s/depth - 2/depth - 1/
      wait_for_copies<depth - 2>();
      // Everybody's copies have arrived, and everybody has done with the stage that is written next.
      __syncthreads();
      // bound: s/number + depth - 1 < steps/true/
      if (number + depth - 1 < steps) begin(number + depth - 1);
      close_copy_group();
      add(shared + number % depth * stage_bytes);
    }
    // The last groups were empty, so all copies have arrived; and everybody has left the step before the last behind.
    // bound: s/steps % depth/(steps - 1) % depth/
    return shared + steps % depth * stage_bytes;
  }

 private:
  __device__ __forceinline__ void add(const unsigned char* stage) {
    const auto* units = reinterpret_cast<const uint4*>(stage);
    const auto quarter = static_cast<int>(threadIdx.x % 4);
    uint4 right[RightTiles];
    ONNXVIZ_UNROLL
    for (int j = 0; j < RightTiles; ++j) {
      // The lane's group is its column of the right side here: as the fragments of tensor_core.cuh have it.
      const auto lane = static_cast<int>(threadIdx.x % warp_lanes);
      const auto warp = static_cast<int>(threadIdx.x / warp_lanes);
      right[j] = units[(left_rows + (warp % RightWarps * RightTiles + j) * 8 + lane / 4) * 4 + quarter];
    }
    ONNXVIZ_UNROLL
    for (int i = 0; i < LeftTiles; ++i) {
      const uint4 upper = units[left_row(i, 0) * 4 + quarter];
      const uint4 lower = units[left_row(i, 1) * 4 + quarter];
      const unsigned first[4] = {upper.x, lower.x, upper.y, lower.y};
      const unsigned second[4] = {upper.z, lower.z, upper.w, lower.w};
      ONNXVIZ_UNROLL
      for (int j = 0; j < RightTiles; ++j) {
        const unsigned right_first[2] = {right[j].x, right[j].y};
        const unsigned right_second[2] = {right[j].z, right[j].w};
        multiply_add(sums[i][j], first, right_first);
        multiply_add(sums[i][j], second, right_second);
      }
    }
  }
};

using LargeTile = ProductTile<4, 4, 2, 4>;  // 128 x 128
using SmallTile = ProductTile<2, 2, 1, 8>;  // 32 x 128

// products[left * right_count + right] of all rows with all others.
template <class Tile>
__global__ void __launch_bounds__(Tile::threads, 2)
    multiply_all(const std::int8_t* left, int left_count, const std::int8_t* right, int right_count,
                 std::int64_t row_bytes, std::int32_t* products) {
  ONNXVIZ_DYNAMIC_SHARED(shared);
  const int left_tiles = (left_count + Tile::left_rows - 1) / Tile::left_rows;
  const int first_left = static_cast<int>(blockIdx.x) % left_tiles * Tile::left_rows;
  const int first_right = static_cast<int>(blockIdx.x) / left_tiles * Tile::right_rows;
  Tile tile;
  // bound: s/min(first_left + i, left_count - 1)/(first_left + i)/
  // bound: s/min(first_right + i, right_count - 1)/(first_right + i)/
  tile.multiply([&](int i) { return left + min(first_left + i, left_count - 1) * row_bytes; },
                [&](int i) { return right + min(first_right + i, right_count - 1) * row_bytes; }, row_bytes, shared);
  ONNXVIZ_UNROLL
  for (int i = 0; i < static_cast<int>(sizeof tile.sums / sizeof tile.sums[0]); ++i) {
    ONNXVIZ_UNROLL
    for (int j = 0; j < static_cast<int>(sizeof tile.sums[0] / sizeof tile.sums[0][0]); ++j) {
      ONNXVIZ_UNROLL
      for (int element = 0; element < 4; ++element) {
        const std::int64_t row = first_left + Tile::left_row(i, element / 2);
        const std::int64_t other = first_right + Tile::right_row(j, element % 2);
        // bound: s/row < left_count/true/ s/other < right_count/true/
        if (row < left_count && other < right_count) products[row * right_count + other] = tile.sums[i][j][element];
      }
    }
  }
}

// The same for a few rows on the left: one in each block, four of the others in each warp.
[[maybe_unused]] static __global__ void __launch_bounds__(128)
    multiply_few(const std::int8_t* left, const std::int8_t* right, int right_count, std::int64_t row_bytes,
                 std::int32_t* products) {
  const auto first = static_cast<int>((blockIdx.x * blockDim.x + threadIdx.x) / warp_lanes) * rows_per_warp;
  const int other = first + static_cast<int>(threadIdx.x % warp_lanes) / lanes_per_row;
  const std::int64_t row = blockIdx.y;
  const std::int8_t* const vectors[1] = {left + row * row_bytes};
  int product[1];
  // bound: s/min(other, right_count - 1)/other/
  products_by_eight_lanes(right + min(other, right_count - 1) * row_bytes, vectors, row_bytes, product);
  // bound: s/other < right_count/true/
  if (threadIdx.x % lanes_per_row == 0 && other < right_count) products[row * right_count + other] = product[0];
}

}  // namespace onnxviz::cuda

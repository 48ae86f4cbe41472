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
// `Step` bytes of each row at a time go through shared memory, `Depth` steps deep. A product does not change with the
// order of its columns, so lane t of four takes the 16 t-th to 16 t + 15-th bytes of a row's 64 at once, for two steps
// of the tensor core: 128 bits a load. Where a step has two times 64 bytes, odd rows have them the other way round, so
// that two rows touch every bank once.
template <int LeftTiles, int RightTiles, int LeftWarps, int RightWarps, int Step, int Depth, int Blocks>
struct ProductTile {
  static constexpr int left_rows = 16 * LeftTiles * LeftWarps;
  static constexpr int right_rows = 8 * RightTiles * RightWarps;
  static constexpr int threads = warp_lanes * LeftWarps * RightWarps;
  static constexpr int blocks = Blocks;  // that a multiprocessor should hold
  static constexpr int depth = Depth;
  static constexpr int step = Step;
  static constexpr int stage_bytes = (left_rows + right_rows) * step;
  static constexpr int shared_bytes = depth * stage_bytes;
  static constexpr int units_per_row = step / 16;
  static constexpr int rows_at_once = threads / units_per_row;
  static constexpr int left_pieces = left_rows / rows_at_once;
  static constexpr int right_pieces = right_rows / rows_at_once;
  static_assert(step == 64 || step == 128, "units are placed for one or two times 64 bytes");
  static_assert(left_pieces * rows_at_once == left_rows && right_pieces * rows_at_once == right_rows,
                "every thread has the same number of units to copy");

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

  // `left_row_of` and `right_row_of` say which row of `left` and of `right` a row of the tile is. Returns the part of
  // the shared memory, stage_bytes of it, that nobody reads or writes any more.
  template <class Left, class Right>
  __device__ __forceinline__ unsigned char* multiply(const std::int8_t* left, const Left& left_row_of,
                                                     const std::int8_t* right, const Right& right_row_of,
                                                     std::int64_t row_bytes, unsigned char* shared) {
    // In pieces of 16 bytes, which 32 bits can count.
    const auto row_units = static_cast<unsigned>(row_bytes / 16);
    const auto line = static_cast<int>(threadIdx.x) / units_per_row;
    const auto unit = static_cast<int>(threadIdx.x) % units_per_row;
    unsigned left_units[left_pieces];
    unsigned right_units[right_pieces];
    ONNXVIZ_UNROLL
    for (int piece = 0; piece < left_pieces; ++piece) {
      left_units[piece] = static_cast<unsigned>(left_row_of(piece * rows_at_once + line)) * row_units + unit;
    }
    ONNXVIZ_UNROLL
    for (int piece = 0; piece < right_pieces; ++piece) {
      right_units[piece] = static_cast<unsigned>(right_row_of(piece * rows_at_once + line)) * row_units + unit;
    }
    const auto* left_codes = reinterpret_cast<const uint4*>(left);
    const auto* right_codes = reinterpret_cast<const uint4*>(right);
    const auto begin = [&](int number) {
      auto* stage = reinterpret_cast<uint4*>(shared + number % depth * stage_bytes);
      const auto first = static_cast<unsigned>(number * units_per_row);
      // The last step of rows may be half of one, and the copies run ahead of it.
      // bound: s/unit + first < row_units/true/
      if (unit + first < row_units) {
        ONNXVIZ_UNROLL
        for (int piece = 0; piece < left_pieces; ++piece) {
          begin_copy_16(stage + place(piece * rows_at_once + line, unit), left_codes + (left_units[piece] + first));
        }
        ONNXVIZ_UNROLL
        for (int piece = 0; piece < right_pieces; ++piece) {
          begin_copy_16(stage + place(left_rows + piece * rows_at_once + line, unit),
                        right_codes + (right_units[piece] + first));
        }
      }
    };
    const auto halves = static_cast<int>(row_bytes / 64);
    const int steps = (halves * 64 + step - 1) / step;
    for (int number = 0; number < depth - 1; ++number) {
      begin(number);
      close_copy_group();
    }
    for (int number = 0; number < steps; ++number) {
      // bound: s/depth - 2/depth - 1/
      wait_for_copies<depth - 2>();
      // Everybody's copies have arrived, and everybody has done with the stage that is written next.
      __syncthreads();
      begin(number + depth - 1);
      close_copy_group();
      const auto* stage = reinterpret_cast<const uint4*>(shared + number % depth * stage_bytes);
      add(stage, 0);
      // bound: s/2 * number + 1 < halves/true/
      if (step == 128 && 2 * number + 1 < halves) add(stage, 1);
    }
    // The last groups were empty, so all copies have arrived; and everybody has left the step before the last behind.
    // bound: s/steps % depth/(steps - 1) % depth/
    return shared + steps % depth * stage_bytes;
  }

 private:
  // Where a stage has a row's 16 bytes.
  __device__ __forceinline__ static int place(int row, int unit) {
    return row * units_per_row + (step == 64 ? unit : unit ^ (row % 2 * 4));
  }

  __device__ __forceinline__ void add(const uint4* stage, int half_of_step) {
    const auto lane = static_cast<int>(threadIdx.x % warp_lanes);
    const auto warp = static_cast<int>(threadIdx.x / warp_lanes);
    const int unit = half_of_step * 4 + lane % 4;
    uint4 right[RightTiles];
    ONNXVIZ_UNROLL
    for (int j = 0; j < RightTiles; ++j) {
      // The lane's group is its column of the right side here: as the fragments of tensor_core.cuh have it.
      right[j] = stage[place(left_rows + (warp % RightWarps * RightTiles + j) * 8 + lane / 4, unit)];
    }
    ONNXVIZ_UNROLL
    for (int i = 0; i < LeftTiles; ++i) {
      const uint4 upper = stage[place(left_row(i, 0), unit)];
      const uint4 lower = stage[place(left_row(i, 1), unit)];
      const unsigned first[4] = {upper.x, lower.x, upper.y, lower.y};
      const unsigned second[4] = {upper.z, lower.z, upper.w, lower.w};
      ONNXVIZ_UNROLL
      for (int j = 0; j < RightTiles; ++j) {
        const unsigned right_first[2] = {right[j].x, right[j].y};
        multiply_add(sums[i][j], first, right_first);
      }
      ONNXVIZ_UNROLL
      for (int j = 0; j < RightTiles; ++j) {
        const unsigned right_second[2] = {right[j].z, right[j].w};
        multiply_add(sums[i][j], second, right_second);
      }
    }
  }
};

using SmallTile = ProductTile<2, 2, 1, 8, 128, 3, 2>;  // 32 x 128
using LargeTile = ProductTile<4, 4, 2, 4, 64, 3, 2>;   // 128 x 128
// The same in larger steps, a tenth faster where a multiprocessor has the memory for two of them.
using DeepTile = ProductTile<4, 4, 2, 4, 128, 3, 2>;

// products[left * right_count + right] of all rows with all others.
template <class Tile>
__global__ void __launch_bounds__(Tile::threads, Tile::blocks)
    multiply_all(const std::int8_t* left, int left_count, const std::int8_t* right, int right_count,
                 std::int64_t row_bytes, std::int32_t* products) {
  ONNXVIZ_DYNAMIC_SHARED(shared);
  const int left_tiles = (left_count + Tile::left_rows - 1) / Tile::left_rows;
  const int first_left = static_cast<int>(blockIdx.x) % left_tiles * Tile::left_rows;
  const int first_right = static_cast<int>(blockIdx.x) / left_tiles * Tile::right_rows;
  Tile tile;
  // bound: s/min(first_left + i, left_count - 1)/(first_left + i)/
  // bound: s/min(first_right + i, right_count - 1)/(first_right + i)/
  tile.multiply(left, [&](int i) { return min(first_left + i, left_count - 1); },
                right, [&](int i) { return min(first_right + i, right_count - 1); }, row_bytes, shared);
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

// The distance that decides, in the order of summation that include/onnxviz/neighbors.h lays down.
#pragma once

#include <cstdint>

#include "dialect.cuh"

namespace onnxviz::cuda {

// What makes a row a direction, as in csrc/cpu/rows.h: (x * scale) / norm has length 1; the norm of zeros is 0.
struct Direction {
  double scale;
  double norm;
};

__device__ __forceinline__ double direction_of(double element, const Direction& direction) {
  return __ddiv_rn(__dmul_rn(element, direction.scale), direction.norm);
}

// A bank's rows, as they are read at last. `directions` is null unless the metric is cosine.
template <class T>
struct BankRows {
  const T* elements;
  const Direction* directions;
  std::int64_t columns;
};

// Queries in float64, normalised for cosine.
struct ExactQueries {
  const double* elements;
  const Direction* directions;
};

// The squared distance of one row and one query for each half of a warp, whose 16 lanes get it: lane l keeps sum l.
// Both halves take part; what they measure may differ.
template <class T>
__device__ double squared_by_half_warp(const BankRows<T>& bank, std::int64_t row, const ExactQueries& queries,
                                       std::int64_t query) {
  const T* x = bank.elements + row * bank.columns;
  const double* q = queries.elements + query * bank.columns;
  const std::int64_t first = threadIdx.x % 16;
  double sum = 0;
  bool without_direction = false;
  if (bank.directions == nullptr) {
    // bound: s/j < bank.columns/j < bank.columns - 1/
    for (std::int64_t j = first; j < bank.columns; j += 16) {
      const double difference = __dsub_rn(static_cast<double>(x[j]), q[j]);
      sum = __dadd_rn(sum, __dmul_rn(difference, difference));
    }
  } else {
    const Direction direction = bank.directions[row];
    // bound: s/direction.norm == 0/false/ s/queries.directions[query].norm == 0/false/
    without_direction = direction.norm == 0 || queries.directions[query].norm == 0;
    if (!without_direction) {
      // bound: s/j < bank.columns/j < bank.columns - 1/
      for (std::int64_t j = first; j < bank.columns; j += 16) {
        const double difference = __dsub_rn(direction_of(static_cast<double>(x[j]), direction), q[j]);
        sum = __dadd_rn(sum, __dmul_rn(difference, difference));
      }
    }
  }
  for (int width = 8; width > 0; width /= 2) sum = __dadd_rn(sum, __shfl_xor_sync(whole_warp, sum, width));
  return without_direction ? 2 : sum;
}

// Takes the two lowest of the lanes in `votes` and gives each half of the warp one; -1 where there is none left for it.
__device__ __forceinline__ int take_for_half_warp(unsigned& votes) {
  const int first = __ffs(static_cast<int>(votes)) - 1;
  votes &= votes - 1;
  const int second = votes == 0 ? -1 : __ffs(static_cast<int>(votes)) - 1;
  if (votes != 0) votes &= votes - 1;
  return threadIdx.x % warpSize < 16 ? first : second;
}

}  // namespace onnxviz::cuda

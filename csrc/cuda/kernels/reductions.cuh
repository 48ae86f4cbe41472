// One value out of one from each thread of a block.
#pragma once

#include "dialect.cuh"

namespace onnxviz::cuda {

// Every thread gets the result; the order of joining is fixed. `shared` may be used again after the next barrier.
template <int threads, class Value, class Join>
__device__ Value over_block(Value value, Value (&shared)[threads], Join join) {
  constexpr int sums = threads / 8;
  static_assert(sums * 8 == threads, "an eighth of the threads joins eight values each, then everybody joins theirs");
  const auto thread = static_cast<int>(threadIdx.x);
  shared[thread] = value;
  __syncthreads();
  // bound: s/thread < sums/true/
  if (thread < sums) {
    // bound: s/i < threads/i < threads - sums/
    for (int i = sums; i < threads; i += sums) value = join(value, shared[thread + i]);
    shared[thread] = value;
  }
  __syncthreads();
  value = shared[0];
  // bound: s/i < sums/i < sums - 1/
  for (int i = 1; i < sums; ++i) value = join(value, shared[i]);
  return value;
}

}  // namespace onnxviz::cuda

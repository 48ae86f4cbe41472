// What a search keeps of its queries: a list of rows in doubt each, a threshold, and the nearest found so far.
#pragma once

#include <cstdint>

#include "bounds.cuh"
#include "dialect.cuh"

namespace onnxviz::cuda {

// Rows of one pass over the bank: every `stride`-th, less those of the passes before it, every (stride * growth)-th.
struct Pass {
  int stride;
  int growth;  // 0: none were before

  __device__ __forceinline__ int row(int i) const { return stride * (growth == 0 ? i : i + i / (growth - 1) + 1); }
};

// Rows pass.row(first) .. pass.row(first + count - 1).
struct Chunk {
  Pass pass;
  int first;
  int count;

  __device__ __forceinline__ int row(int i) const { return pass.row(first + i); }
};

// The codes of rows or of queries.
struct LevelView {
  const std::int8_t* codes;
  const Terms* terms;
  std::int64_t row_bytes;

  __device__ __forceinline__ const std::int8_t* row(std::int64_t i) const { return codes + i * row_bytes; }
};

struct Neighbor {
  double squared;
  std::int64_t row;
};

__device__ __forceinline__ bool is_nearer(const Neighbor& a, const Neighbor& b) {
  // bound: s/a.squared < b.squared/a.squared <= b.squared/ s/a.row < b.row/false/
  return a.squared < b.squared || (a.squared == b.squared && a.row < b.row);
}

// Of each query `capacity` entries, which stay from chunk to chunk until they are measured, and `nearest_size`
// neighbours.
struct Lists {
  int capacity;
  int* count;  // how many rows were in doubt; those beyond the capacity are not in the list
  int* older;  // how many of them are of chunks before this one
  int* row;
  double* squared;  // at first the product of codes, then the squared distance, infinite where it was not needed
  float* lower;
  float* upper;
  double* threshold;  // k rows are known at scale times the computed distance of at most this
  int nearest_size;
  Neighbor* nearest;
  int* nearest_count;
  unsigned long long* in_doubt;  // rows over all chunks, over all queries; null where nobody counts them

  // Whether what is listed is measured now: in the end, or because there may be no room for the next chunk.
  __host__ __device__ __forceinline__ bool is_due(int listed, bool last) const { return last || listed > capacity / 2; }

  __device__ __forceinline__ std::int64_t place(int query, int i) const {
    return static_cast<std::int64_t>(query) * capacity + i;
  }
};

// Where the answers go, after the last chunk; else null.
struct Answers {
  double* distances;
  std::int64_t* indices;
  bool cosine;
};

// Puts the rows of the lanes that hold into one query's list.
__device__ __forceinline__ void append(const Lists& lists, int query, bool holds, int row, int product) {
  const unsigned votes = __ballot_sync(whole_warp, holds);
  if (votes == 0) return;
  const auto lane = static_cast<int>(threadIdx.x % warpSize);
  int base = 0;
  if (lane == 0) base = atomicAdd(&lists.count[query], __popc(votes));
  base = __shfl_sync(whole_warp, base, 0);
  const int i = base + __popc(votes & ((1u << lane) - 1));
  // bound: s/!holds/false/ s/i >= lists.capacity/false/
  if (!holds || i >= lists.capacity) return;
  lists.row[lists.place(query, i)] = row;
  lists.squared[lists.place(query, i)] = product;
}

}  // namespace onnxviz::cuda

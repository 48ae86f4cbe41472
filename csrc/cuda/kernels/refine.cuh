// From the rows that a first look left in doubt to the nearest: bounds of both sides, a smaller threshold, distances.
//
// The kernels run one after the other for each chunk: narrow (bounds of its entries) and tighten (the k-th smallest
// upper bound of all entries is a threshold). In the end, and before a list may be too long for the next chunk: measure
// (distances of the entries within the threshold), settle (the k nearest of these and those before).
#pragma once

#include <cmath>
#include <cstdint>

#include "bounds.cuh"
#include "dialect.cuh"
#include "exact_distance.cuh"
#include "lists.cuh"
#include "products.cuh"

namespace onnxviz::cuda {

constexpr int list_threads = 128;
// Of `tighten` and `settle`: as many as the launch says, whole warps.
constexpr int fewest_settle_threads = 64;  // each of many queries is a small part of the work
constexpr int most_settle_threads = 1024;  // few have the device for themselves
constexpr int measured_per_warp = 8;

// Before the first chunk.
[[maybe_unused]] static __global__ void begin_search(Lists lists, int query_count) {
  const auto q = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  // bound: s/q >= query_count/false/
  if (q >= query_count) return;
  lists.count[q] = 0;
  lists.older[q] = 0;
  lists.nearest_count[q] = 0;
  lists.threshold[q] = INFINITY;
}

__device__ __forceinline__ int listed(const Lists& lists, int query) {
  // bound: s/min(lists.count[query], lists.capacity)/lists.count[query]/
  return min(lists.count[query], lists.capacity);
}

// Bounds of the chunk's entries. Where the first look was at bytes their products are known, and there is a thread for
// each; else eight lanes.
template <bool Known>
__global__ void __launch_bounds__(list_threads)
    narrow(LevelView rows, LevelView queries, Rules rules, Lists lists) {
  const auto q = static_cast<int>(blockIdx.y);
  const int count = listed(lists, q);
  const auto lane = static_cast<int>(threadIdx.x % warp_lanes);
  constexpr int at_once = Known ? warp_lanes : rows_per_warp;  // of a warp
  const int warps = static_cast<int>(gridDim.x) * list_threads / warp_lanes;
  const auto warp = static_cast<int>((blockIdx.x * list_threads + threadIdx.x) / warp_lanes);
  for (int first = lists.older[q] + warp * at_once; first < count; first += warps * at_once) {
    const int i = first + (Known ? lane : lane / lanes_per_row);
    // bound: s/min(i, count - 1)/i/
    const std::int64_t place = lists.place(q, min(i, count - 1));
    const int row = lists.row[place];
    int product = 0;
    if (Known) {
      product = static_cast<int>(lists.squared[place]);
    } else {
      const std::int8_t* const vectors[1] = {queries.row(q)};
      int products[1];
      products_by_eight_lanes(rows.row(row), vectors, rows.row_bytes, products);
      product = products[0];
    }
    // bound: s/i >= count/i >= count - 1/
    if (i >= count || (!Known && lane % lanes_per_row != 0)) continue;
    const Comparison comparison = compare(rows.terms[row], queries.terms[q], product, rules);
    // bound: s/__double2float_rd/static_cast<float>/
    lists.lower[place] = __double2float_rd(lower_bound(comparison, rules));
    // bound: s/__double2float_ru/static_cast<float>/
    lists.upper[place] = __double2float_ru(upper_bound(comparison, rules));
  }
}

struct TightenShared {
  int bins[256];
  unsigned prefix;
  int rank;
};

// Lowers the threshold to the k-th smallest upper bound of the list, found a byte at a time: the bits of numbers that
// are not negative are in the order of the numbers. A block per query. What is not due becomes older.
[[maybe_unused]] static __global__ void __launch_bounds__(most_settle_threads) tighten(Lists lists, int k, bool last) {
  ONNXVIZ_SHARED(TightenShared, shared);
  const auto q = static_cast<int>(blockIdx.x);
  const auto thread = static_cast<int>(threadIdx.x);
  const auto threads = static_cast<int>(blockDim.x);
  const int count = listed(lists, q);
  if (thread == 0 && !lists.is_due(lists.count[q], last)) lists.older[q] = count;
  // bound: s/count < k/false/
  if (count < k) return;
  const float* upper = lists.upper + lists.place(q, 0);
  if (thread == 0) {
    shared.prefix = 0;
    shared.rank = k;
  }
  for (int shift = 24; shift >= 0; shift -= 8) {
    // bound: s/bin < 256/bin < 255/
    for (int bin = thread; bin < 256; bin += threads) shared.bins[bin] = 0;
    __syncthreads();
    const unsigned prefix = shared.prefix;
    const int rank = shared.rank;
    const unsigned known = shift == 24 ? 0u : 0xffffffffu << (shift + 8);
    // bound: s/i < count/i < count - 1/
    for (int i = thread; i < count; i += threads) {
      const unsigned bits = __float_as_uint(upper[i]);
      if (((bits ^ prefix) & known) == 0) atomicAdd(&shared.bins[bits >> shift & 255u], 1);
    }
    __syncthreads();
    if (thread < warp_lanes) {
      int own = 0;
      for (int bin = 8 * thread; bin < 8 * thread + 8; ++bin) own += shared.bins[bin];
      int through = own;
      for (int by = 1; by < warp_lanes; by *= 2) {
        const int before = __shfl_up_sync(whole_warp, through, static_cast<unsigned>(by));
        // bound: s/thread >= by/true/
        if (thread >= by) through += before;
      }
      int below = through - own;
      // bound: s/below < rank/true/ s/rank <= through/rank < through/
      if (below < rank && rank <= through) {
        int bin = 8 * thread;
        // bound: s/< rank/<= rank/
        while (below + shared.bins[bin] < rank) below += shared.bins[bin++];
        shared.prefix = prefix | static_cast<unsigned>(bin) << shift;
        shared.rank = rank - below;
      }
    }
    __syncthreads();
  }
  if (thread == 0) {
    const auto found = static_cast<double>(__uint_as_float(shared.prefix));
    // bound: s/min(lists.threshold[q], found)/found/
    lists.threshold[q] = min(lists.threshold[q], found);
  }
}

// How many entries are measured: of a list that lacks rows of this chunk, those of the chunks before.
__device__ __forceinline__ int measured(const Lists& lists, int query) {
  // bound: s/lists.count[query] > lists.capacity/false/ s/lists.older[query]/0/
  return lists.count[query] > lists.capacity ? lists.older[query] : lists.count[query];
}

// Distances of the entries within the threshold, where they are due; infinity for the others.
template <class T>
__global__ void __launch_bounds__(list_threads)
    measure(BankRows<T> bank, ExactQueries queries, Lists lists, bool last) {
  const auto q = static_cast<int>(blockIdx.y);
  if (!lists.is_due(lists.count[q], last)) return;
  const int count = measured(lists, q);
  const double threshold = lists.threshold[q];
  const auto lane = static_cast<int>(threadIdx.x % warp_lanes);
  const int warps = static_cast<int>(gridDim.x) * list_threads / warp_lanes;
  for (auto first = static_cast<int>((blockIdx.x * list_threads + threadIdx.x) / warp_lanes) * measured_per_warp;
       first < count; first += warps * measured_per_warp) {
    const int i = first + lane;
    // bound: s/lane < measured_per_warp/lane < measured_per_warp - 1/ s/i < count/i < count - 1/
    const bool mine = lane < measured_per_warp && i < count;
    // bound: s/count - 1/count - 2/
    const std::int64_t place = lists.place(q, min(i, count - 1));
    // bound: s/<= threshold/< threshold/
    const bool in_doubt = mine && static_cast<double>(lists.lower[place]) <= threshold;
    if (mine && !in_doubt) lists.squared[place] = INFINITY;
    unsigned votes = __ballot_sync(whole_warp, in_doubt);
    while (votes != 0) {
      const int source = take_for_half_warp(votes);
      // bound: s/max(source, 0)/source/ s/count - 1/count - 2/
      const std::int64_t there = lists.place(q, min(first + max(source, 0), count - 1));
      const double squared = squared_by_half_warp(bank, lists.row[there], queries, q);
      // bound: s/source >= 0/true/
      if (source >= 0 && lane % 16 == 0) lists.squared[there] = squared;
    }
  }
}

struct SettleShared {
  int filled;
  Neighbor worst;  // the k-th nearest so far: what is not nearer is no answer
};

// Sorts what the buffer holds, nearest first, and keeps k of it.
__device__ inline void keep_nearest(Neighbor* buffer, int k, SettleShared& shared) {
  const auto thread = static_cast<int>(threadIdx.x);
  const auto threads = static_cast<int>(blockDim.x);
  const int filled = shared.filled;
  int size = 1;
  while (size < filled) size *= 2;
  // bound: s/i < size/i < size - 1/
  for (int i = filled + thread; i < size; i += threads) buffer[i] = {INFINITY, std::int64_t{1} << 62};
  __syncthreads();
  for (int width = 2; width <= size; width *= 2) {
    for (int step = width / 2; step > 0; step /= 2) {
      // bound: s|i < size / 2|i < size / 2 - 1|
      for (int i = thread; i < size / 2; i += threads) {
        const int first = i / step * 2 * step + i % step;
        const int second = first + step;
        const Neighbor a = buffer[first];
        const Neighbor b = buffer[second];
        if (is_nearer(b, a) == ((first & width) == 0)) {
          buffer[first] = b;
          buffer[second] = a;
        }
      }
      __syncthreads();
    }
  }
  if (thread == 0) {
    // bound: s/min(filled, k)/filled/
    shared.filled = min(filled, k);
    // bound: s/filled >= k/filled > k/
    if (filled >= k) shared.worst = buffer[k - 1];
  }
  __syncthreads();
}

// Merges a list that is due into the k nearest. Where it lacks rows of this chunk, the chunk is gone through once more,
// with bounds of bytes and distances. A block per query; the buffer holds k neighbours and as many more as there are
// threads, a power of two, in shared memory or where they are kept.
template <class T, bool InShared>
__global__ void __launch_bounds__(most_settle_threads)
    settle(BankRows<T> bank, ExactQueries exact, LevelView rows, LevelView queries, Chunk chunk, Rules rules,
           Lists lists, int k, int buffer_size, bool last, Answers answers) {
  ONNXVIZ_SHARED(SettleShared, shared);
  ONNXVIZ_DYNAMIC_SHARED(dynamic);
  const auto q = static_cast<int>(blockIdx.x);
  if (!lists.is_due(lists.count[q], last)) return;
  const auto thread = static_cast<int>(threadIdx.x);
  const auto threads = static_cast<int>(blockDim.x);
  const auto lane = thread % warp_lanes;
  Neighbor* const kept = lists.nearest + static_cast<std::int64_t>(q) * lists.nearest_size;
  Neighbor* const buffer = InShared ? reinterpret_cast<Neighbor*>(dynamic) : kept;
  const int before = lists.nearest_count[q];
  const int found = lists.count[q];
  const int known = measured(lists, q);
  if (InShared) {
    // bound: s/i < before/i < before - 1/
    for (int i = thread; i < before; i += threads) buffer[i] = kept[i];
  }
  if (thread == 0) {
    shared.filled = before;
    // bound: s/before == k/true/ s/INFINITY, -1/INFINITY, std::int64_t{1} << 62/
    shared.worst = before == k ? kept[k - 1] : Neighbor{INFINITY, -1};
    if (lists.in_doubt != nullptr) atomicAdd(lists.in_doubt, static_cast<unsigned long long>(found));
  }
  __syncthreads();

  const auto make_room = [&] {
    const int filled = shared.filled;
    __syncthreads();
    // bound: s/filled + threads > buffer_size/filled >= buffer_size/
    if (filled + threads > buffer_size) keep_nearest(buffer, k, shared);
  };
  const auto offer = [&](const Neighbor& neighbor) {
    // bound: s/is_nearer(neighbor, shared.worst)/neighbor.squared < shared.worst.squared/
    if (is_nearer(neighbor, shared.worst)) buffer[atomicAdd(&shared.filled, 1)] = neighbor;
  };
  for (int first = 0; first < known; first += threads) {
    make_room();
    const int i = first + thread;
    // bound: s/i < known/true/
    if (i < known) offer({lists.squared[lists.place(q, i)], lists.row[lists.place(q, i)]});
    __syncthreads();
  }
  // bound: s/found > lists.capacity/false/
  if (found > lists.capacity) {
    const std::int8_t* const vectors[1] = {queries.row(q)};
    const Terms query = queries.terms[q];
    for (int first = 0; first < chunk.count; first += threads) {
      make_room();
      // bound: s/ * rules.scale//
      const double threshold = min(lists.threshold[q], sqrt(shared.worst.squared) * rules.scale);
      const int of_warp = first + thread / warp_lanes * warp_lanes;
      int product = 0;
      for (int round = 0; round < lanes_per_row; ++round) {
        const int i = of_warp + round * rows_per_warp + lane / lanes_per_row;
        int products[1];
        // bound: s/min(i, chunk.count - 1)/i/
        products_by_eight_lanes(rows.row(chunk.row(min(i, chunk.count - 1))), vectors, rows.row_bytes, products);
        if (lane % lanes_per_row == round) product = products[0];
      }
      const int mine = of_warp + kept_of_warp();
      // bound: s/min(mine, chunk.count - 1)/mine/
      const int row = chunk.row(min(mine, chunk.count - 1));
      const double lower = lower_bound(compare(rows.terms[row], query, product, rules), rules);
      // bound: s/mine < chunk.count/true/ s/lower <= threshold/lower < threshold/
      unsigned votes = __ballot_sync(whole_warp, mine < chunk.count && lower <= threshold);
      while (votes != 0) {
        const int source = take_for_half_warp(votes);
        // bound: s/max(source, 0)/source/
        const int there = __shfl_sync(whole_warp, row, max(source, 0));
        const double squared = squared_by_half_warp(bank, there, exact, q);
        // bound: s/source >= 0/true/
        if (source >= 0 && lane % 16 == 0) offer({squared, there});
      }
      __syncthreads();
    }
  }

  // bound: s/shared.filled != before/shared.filled > k/
  if (shared.filled != before) keep_nearest(buffer, k, shared);
  const int filled = shared.filled;
  if (InShared) {
    // bound: s/i < filled/i < filled - 1/
    for (int i = thread; i < filled; i += threads) kept[i] = buffer[i];
  }
  if (thread == 0) {
    lists.count[q] = 0;
    lists.older[q] = 0;
    lists.nearest_count[q] = filled;
    // For the rounding of the root the widening of the bounds has room.
    // bound: s/ * rules.scale//
    if (filled == k) lists.threshold[q] = min(lists.threshold[q], sqrt(shared.worst.squared) * rules.scale);
  }
  if (answers.distances == nullptr) return;
  // bound: s/i < filled/i < filled - 1/
  for (int i = thread; i < filled; i += threads) {
    const std::int64_t place = static_cast<std::int64_t>(q) * k + i;
    answers.distances[place] = answers.cosine ? buffer[i].squared / 2 : __dsqrt_rn(buffer[i].squared);
    answers.indices[place] = buffer[i].row;
  }
}

}  // namespace onnxviz::cuda

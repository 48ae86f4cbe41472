// The first look at the rows of a chunk: all that may be as near to a query as its threshold go to its list.
#pragma once

#include <cstdint>

#include "bounds.cuh"
#include "dialect.cuh"
#include "lists.cuh"
#include "products.cuh"

namespace onnxviz::cuda {

constexpr int few_threads = 128;

// Up to `Most` queries: a warp meets four rows a round, `rounds` of up to eight times.
template <int Most>
__global__ void __launch_bounds__(few_threads)
    filter_few(LevelView rows, Chunk chunk, LevelView queries, int query_count, Rules rules, Lists lists, int rounds) {
  const auto warp = static_cast<int>((blockIdx.x * few_threads + threadIdx.x) / warpSize);
  const auto lane = static_cast<int>(threadIdx.x % warpSize);
  const int first = warp * rows_per_warp * rounds;
  const std::int8_t* vectors[Most];
  ONNXVIZ_UNROLL
  // bound: s/min(q, query_count - 1)/q/
  for (int q = 0; q < Most; ++q) vectors[q] = queries.row(min(q, query_count - 1));
  int kept[Most] = {};
  for (int round = 0; round < rounds; ++round) {
    const int i = first + round * rows_per_warp + lane / lanes_per_row;
    int products[Most];
    // bound: s/min(i, chunk.count - 1)/i/
    products_by_eight_lanes(rows.row(chunk.row(min(i, chunk.count - 1))), vectors, rows.row_bytes, products);
    ONNXVIZ_UNROLL
    for (int q = 0; q < Most; ++q) kept[q] = lane % lanes_per_row == round ? products[q] : kept[q];
  }
  const int mine = first + kept_of_warp();
  // bound: s/lane % lanes_per_row < rounds/true/ s/mine < chunk.count/true/
  const bool there = lane % lanes_per_row < rounds && mine < chunk.count;
  // bound: s/min(mine, chunk.count - 1)/mine/
  const int row = chunk.row(min(mine, chunk.count - 1));
  const Terms terms = rows.terms[row];
  ONNXVIZ_UNROLL
  for (int q = 0; q < Most; ++q) {
    // bound: s/q >= query_count/false/
    if (q >= query_count) break;
    const Comparison comparison = compare(terms, queries.terms[q], kept[q], rules);
    // bound: s/reach_of(lists.threshold[q], rules)/lists.threshold[q]/
    // bound: s/comparison, reach_of/Comparison{comparison.squared, 0, 0, 0}, reach_of/
    const bool stays = !is_beyond(comparison, reach_of(lists.threshold[q], rules));
    append(lists, q, there && stays, row, kept[q]);
  }
}

// What the epilogue of a tile reads, in the part of the memory that the products have left.
template <class Tile>
struct TileTerms {
  RoughTerms queries[Tile::left_rows];
  RoughTerms rows[Tile::right_rows];
  int number[Tile::right_rows];
};

// Many queries: blocks that follow each other take the same rows, so that these are fetched once for all queries.
template <class Tile>
__global__ void __launch_bounds__(Tile::threads, Tile::blocks)
    filter_tile(LevelView rows, Chunk chunk, LevelView queries, int query_count, Rules rules, Lists lists) {
  ONNXVIZ_DYNAMIC_SHARED(shared);
  static_assert(sizeof(TileTerms<Tile>) <= Tile::stage_bytes, "the terms have to fit where codes were");
  const int query_tiles = (query_count + Tile::left_rows - 1) / Tile::left_rows;
  const int first_query = static_cast<int>(blockIdx.x) % query_tiles * Tile::left_rows;
  const int first_row = static_cast<int>(blockIdx.x) / query_tiles * Tile::right_rows;
  Tile tile;
  unsigned char* const free =
      // bound: s/min(first_query + i, query_count - 1)/first_query + i/
      // bound: s/min(first_row + i, chunk.count - 1)/first_row + i/
      tile.multiply(queries.codes, [&](int i) { return min(first_query + i, query_count - 1); },
                    rows.codes, [&](int i) { return chunk.row(min(first_row + i, chunk.count - 1)); }, rows.row_bytes,
                    shared);

  auto& terms = *reinterpret_cast<TileTerms<Tile>*>(free);
  for (int i = static_cast<int>(threadIdx.x); i < Tile::left_rows; i += Tile::threads) {
    // bound: s/min(first_query + i, query_count - 1)/first_query + i/
    const int query = min(first_query + i, query_count - 1);
    // bound: s/reach_of(lists.threshold[query], rules)/lists.threshold[query]/
    terms.queries[i] = rough_query(queries.terms[query], reach_of(lists.threshold[query], rules), rules);
  }
  for (int i = static_cast<int>(threadIdx.x); i < Tile::right_rows; i += Tile::threads) {
    // bound: s/min(first_row + i, chunk.count - 1)/first_row + i/
    const int row = chunk.row(min(first_row + i, chunk.count - 1));
    terms.rows[i] = rough(rows.terms[row], rules);
    terms.number[i] = row;
  }
  __syncthreads();

  constexpr int left_tiles = sizeof tile.sums / sizeof tile.sums[0];
  constexpr int right_tiles = sizeof tile.sums[0] / sizeof tile.sums[0][0];
  const auto quarter = static_cast<int>(threadIdx.x % 4);
  ONNXVIZ_UNROLL
  for (int i = 0; i < left_tiles; ++i) {
    ONNXVIZ_UNROLL
    for (int half = 0; half < 2; ++half) {
      const int left = Tile::left_row(i, half);
      const RoughTerms query = terms.queries[left];
      // Which of the lane's rows stay, for one query that it shares with three lanes.
      unsigned stay = 0;
      ONNXVIZ_UNROLL
      for (int j = 0; j < right_tiles; ++j) {
        ONNXVIZ_UNROLL
        for (int side = 0; side < 2; ++side) {
          const int right = Tile::right_row(j, side);
          const int product = tile.sums[i][j][2 * half + side];
          // bound: s/first_query + left < query_count/true/ s/first_row + right < chunk.count/true/
          const bool there = first_query + left < query_count && first_row + right < chunk.count;
          if (there && !is_beyond(terms.rows[right], query, product, rules.projected)) stay |= 1u << (2 * j + side);
        }
      }
      if (!__any_sync(whole_warp, stay != 0)) continue;
      const int own = __popc(stay);
      int through = own;
      for (unsigned by = 1; by < 4; by *= 2) {
        const int before = __shfl_up_sync(whole_warp, through, by, 4);
        // bound: s/quarter >= static_cast<int>(by)/true/
        if (quarter >= static_cast<int>(by)) through += before;
      }
      int base = 0;
      if (quarter == 3 && through != 0) base = atomicAdd(&lists.count[first_query + left], through);
      base = __shfl_sync(whole_warp, base, 3, 4) + through - own;
      ONNXVIZ_UNROLL
      for (int j = 0; j < right_tiles; ++j) {
        ONNXVIZ_UNROLL
        for (int side = 0; side < 2; ++side) {
          if ((stay >> (2 * j + side) & 1u) == 0) continue;
          // bound: s/base < lists.capacity/true/
          if (base < lists.capacity) {
            const std::int64_t place = lists.place(first_query + left, base);
            lists.row[place] = terms.number[Tile::right_row(j, side)];
            lists.squared[place] = tile.sums[i][j][2 * half + side];
          }
          ++base;
        }
      }
    }
  }
}

}  // namespace onnxviz::cuda

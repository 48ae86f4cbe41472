#include "neighbor_search.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "kernels/filter.cuh"
#include "kernels/products.cuh"
#include "kernels/refine.cuh"
#include "launch.h"

namespace onnxviz::cuda {
namespace {

constexpr std::int64_t fewest_first_rows = 1024;
// Where a pass meets more than so many times the rows before it, their threshold leaves too many of its rows in doubt.
constexpr double most_growth = 10;
constexpr std::int64_t smallest_capacity = 4096;
// Entries of all lists together, where more than the smallest capacity is to be had.
constexpr std::int64_t entries_at_once = std::int64_t{1} << 22;
constexpr std::int64_t most_queries_at_once = 1024;
constexpr std::int64_t most_search_bytes = std::int64_t{1} << 29;
constexpr std::int64_t most_k_in_shared = 1024;
constexpr std::int64_t most_few_queries = 8;
// Of a chunk that leaves more than one row of so many in doubt, lists overflow.
constexpr std::int64_t rows_per_entry = 64;
// Row and squared distance or product; lower and upper bound.
constexpr std::int64_t entry_bytes = sizeof(int) + sizeof(double) + 2 * sizeof(float);
constexpr std::int64_t blocks_at_once = 2048;

std::int64_t multiples(std::int64_t rows, std::int64_t stride) { return (rows + stride - 1) / stride; }

std::int64_t power_of_two_above(std::int64_t number) {
  std::int64_t power = 1;
  while (power < number) power *= 2;
  return power;
}

unsigned list_blocks(std::int64_t queries, std::int64_t entries, int per_block) {
  const std::int64_t share = std::max<std::int64_t>(1, blocks_at_once / queries);
  return static_cast<unsigned>(std::min<std::int64_t>(share, blocks_for(entries, per_block)));
}

template <int Most>
void look_few(LevelView rows, const Chunk& chunk, LevelView queries, std::int64_t count, const Rules& rules,
              const Lists& lists, cudaStream_t stream) {
  // Few rows are spread over many warps, many rows keep each warp busy.
  const int rounds = std::max(1, std::min(lanes_per_row, chunk.count / (1 << 14)));
  const int per_block = few_threads / warp_lanes * rows_per_warp * rounds;
  launch(filter_few<Most>, Grid{blocks_for(chunk.count, per_block), few_threads}, stream, rows, chunk, queries, count,
         rules, lists, rounds);
}

template <class Tile>
void look_tiles(LevelView rows, const Chunk& chunk, LevelView queries, std::int64_t count, const Rules& rules,
                const Lists& lists, cudaStream_t stream) {
  const unsigned tiles = blocks_for(count, Tile::left_rows) * blocks_for(chunk.count, Tile::right_rows);
  launch(filter_tile<Tile>, Grid{tiles, static_cast<unsigned>(Tile::threads), Tile::shared_bytes}, stream, rows, chunk,
         queries, count, rules, lists);
}

template <class Tile>
bool has_room_for_two(int device) {
  // A block takes some for itself.
  constexpr int taken = 1024;
  int bytes = 0;
  check(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerMultiprocessor, device), "cudaDeviceGetAttribute");
  return bytes >= 2 * (Tile::shared_bytes + taken);
}

template <class T, bool InShared>
void settle_chunk(const SearchedBank<T>& bank, const SearchedQueries& queries, const Chunk& chunk,
                  const SearchPlan& plan, const Lists& lists, bool last, const Answers& answers, cudaStream_t stream) {
  const std::size_t shared = InShared ? static_cast<std::size_t>(plan.buffer_size) * sizeof(Neighbor) : 0;
  const Grid grid{static_cast<unsigned>(queries.count), static_cast<unsigned>(plan.threads_per_query), shared};
  launch(settle<T, InShared>, grid, stream, bank.rows, queries.exact, bank.bytes, queries.bytes, chunk, bank.rules,
         lists, plan.k, plan.buffer_size, last, answers);
}

}  // namespace

SearchPlan::SearchPlan(std::int64_t row_count, std::int64_t neighbors, std::int64_t queries,
                       std::int64_t bytes_per_query, const SearchSizes& sizes)
    : rows(row_count), k(neighbors) {
  const std::int64_t first = sizes.first_rows > 0 ? sizes.first_rows : std::max(fewest_first_rows, 4 * k);
  const double ratio = static_cast<double>(rows) / static_cast<double>(first);
  if (ratio > 2) {
    const int passes = static_cast<int>(std::ceil(std::log(ratio) / std::log(most_growth)));
    growth = std::max(2, static_cast<int>(std::ceil(std::pow(ratio, 1.0 / passes))));
    for (int pass = 0; pass < passes && static_cast<std::int64_t>(stride) * growth <= rows; ++pass) stride *= growth;
  }
  in_shared = k <= std::min(sizes.k_in_shared, most_k_in_shared);
  few_queries = std::min(sizes.few_queries, most_few_queries);

  // What the first pass meets is all in doubt, and fits.
  const std::int64_t least = std::min(rows, std::max(smallest_capacity, multiples(rows, stride)));
  const std::int64_t bytes =
      bytes_per_query + least * entry_bytes + 4 * k * static_cast<std::int64_t>(sizeof(Neighbor));
  queries_at_once = sizes.queries_at_once > 0 ? sizes.queries_at_once
                                              : std::min(most_queries_at_once, most_search_bytes / bytes);
  queries_at_once = std::max<std::int64_t>(1, std::min(queries, queries_at_once));
  capacity = sizes.capacity > 0 ? sizes.capacity
                                : std::min(rows, std::max(least, entries_at_once / queries_at_once));
  threads_per_query = queries_at_once <= few_queries ? most_settle_threads : fewest_settle_threads;
  buffer_size = power_of_two_above(std::max(2 * k, k + threads_per_query));
  nearest_size = in_shared ? k : buffer_size;
  // A few queries would have few blocks for what their lists lack: theirs lack nothing.
  const std::int64_t lack_nothing = capacity >= rows ? rows : std::max<std::int64_t>(1, capacity / 2);
  rows_per_chunk = queries_at_once <= few_queries ? lack_nothing : rows_per_entry * capacity;
  if (sizes.rows_per_chunk > 0) rows_per_chunk = sizes.rows_per_chunk;
}

std::size_t SearchPlan::list_bytes() const {
  // Of a query: count, older, count of the nearest, threshold. Each of the arrays may begin up to 255 bytes later.
  const std::int64_t bytes = capacity * entry_bytes + nearest_size * static_cast<std::int64_t>(sizeof(Neighbor)) +
                             static_cast<std::int64_t>(3 * sizeof(int) + sizeof(double));
  return static_cast<std::size_t>(queries_at_once * bytes) + sizeof(unsigned long long) + 10 * 256;
}

template <class T>
T* ListMemory::take(std::size_t count) {
  T* const place = reinterpret_cast<T*>(static_cast<unsigned char*>(memory_.data()) + used_);
  used_ += (count * sizeof(T) + 255) / 256 * 256;
  return place;
}

void ListMemory::reserve(const SearchPlan& plan, int device) {
  if (memory_.bytes() < plan.list_bytes()) {
    memory_ = Memory();  // not both at a time
    memory_ = Memory(plan.list_bytes(), device);
  }
  used_ = 0;
  const auto queries = static_cast<std::size_t>(plan.queries_at_once);
  const std::size_t entries = queries * static_cast<std::size_t>(plan.capacity);
  lists_.capacity = static_cast<int>(plan.capacity);
  lists_.nearest_size = static_cast<int>(plan.nearest_size);
  lists_.count = take<int>(queries);
  lists_.older = take<int>(queries);
  lists_.nearest_count = take<int>(queries);
  lists_.threshold = take<double>(queries);
  lists_.row = take<int>(entries);
  lists_.lower = take<float>(entries);
  lists_.upper = take<float>(entries);
  lists_.squared = take<double>(entries);
  lists_.nearest = take<Neighbor>(queries * static_cast<std::size_t>(plan.nearest_size));
  in_doubt_ = take<unsigned long long>(1);
}

void look(LevelView rows, const Chunk& chunk, LevelView queries, std::int64_t count, const Rules& rules,
          const Lists& lists, std::int64_t few_queries, StreamView stream) {
  const cudaStream_t order = queue(stream);
  if (count > few_queries) {
    if (count <= SmallTile::left_rows) return look_tiles<SmallTile>(rows, chunk, queries, count, rules, lists, order);
    if (has_room_for_two<DeepTile>(stream.device)) {
      return look_tiles<DeepTile>(rows, chunk, queries, count, rules, lists, order);
    }
    return look_tiles<LargeTile>(rows, chunk, queries, count, rules, lists, order);
  }
  if (count <= 1) return look_few<1>(rows, chunk, queries, count, rules, lists, order);
  if (count <= 2) return look_few<2>(rows, chunk, queries, count, rules, lists, order);
  if (count <= 4) return look_few<4>(rows, chunk, queries, count, rules, lists, order);
  return look_few<8>(rows, chunk, queries, count, rules, lists, order);
}

template <class T>
void search(const SearchedBank<T>& bank, const SearchedQueries& queries, const SearchPlan& plan, const Lists& lists,
            bool projected, const Answers& answers, StreamView stream) {
  const CurrentDevice current(stream.device);
  const cudaStream_t order = queue(stream);
  const auto count = static_cast<unsigned>(queries.count);
  launch(begin_search, Grid{blocks_for(queries.count, 128), 128}, order, lists, queries.count);
  std::int64_t most_listed = 0;
  for (int stride = plan.stride;; stride /= plan.growth) {
    const bool first_pass = stride == plan.stride;
    const Pass pass{stride, first_pass ? 0 : plan.growth};
    const std::int64_t before = first_pass ? 0 : multiples(plan.rows, std::int64_t{stride} * plan.growth);
    const std::int64_t rows = multiples(plan.rows, stride) - before;
    for (std::int64_t first = 0; first < rows; first += plan.rows_per_chunk) {
      const std::int64_t length = std::min(plan.rows_per_chunk, rows - first);
      const Chunk chunk{pass, static_cast<int>(first), static_cast<int>(length)};
      const std::int64_t entries = std::min(plan.capacity, length);
      if (projected) {
        look(bank.projected, chunk, queries.projected, queries.count, bank.projected_rules, lists, plan.few_queries,
             stream);
        const unsigned blocks = list_blocks(queries.count, entries, list_threads / lanes_per_row);
        launch(narrow<false>, Grid{dim3(blocks, count), list_threads}, order, bank.bytes, queries.bytes, bank.rules,
               lists);
      } else {
        look(bank.bytes, chunk, queries.bytes, queries.count, bank.rules, lists, plan.few_queries, stream);
        const unsigned blocks = list_blocks(queries.count, entries, list_threads);
        launch(narrow<true>, Grid{dim3(blocks, count), list_threads}, order, bank.bytes, queries.bytes, bank.rules,
               lists);
      }
      const bool last = stride == 1 && first + length == rows;
      launch(tighten, Grid{count, static_cast<unsigned>(plan.threads_per_query)}, order, lists, plan.k, last);
      most_listed += length;
      if (!lists.is_due(static_cast<int>(std::min(most_listed, plan.rows)), last)) continue;
      const std::int64_t measured = std::min(plan.capacity, most_listed);
      const unsigned blocks = list_blocks(queries.count, measured, list_threads / warp_lanes * measured_per_warp);
      launch(measure<T>, Grid{dim3(blocks, count), list_threads}, order, bank.rows, queries.exact, lists, last);
      const Answers wanted = last ? answers : Answers{nullptr, nullptr, false};
      if (plan.in_shared) {
        settle_chunk<T, true>(bank, queries, chunk, plan, lists, last, wanted, order);
      } else {
        settle_chunk<T, false>(bank, queries, chunk, plan, lists, last, wanted, order);
      }
    }
    if (stride == 1) break;
  }
}

template void search(const SearchedBank<float>&, const SearchedQueries&, const SearchPlan&, const Lists&, bool,
                     const Answers&, StreamView);
template void search(const SearchedBank<double>&, const SearchedQueries&, const SearchPlan&, const Lists&, bool,
                     const Answers&, StreamView);

}  // namespace onnxviz::cuda

// The kernels that search with the bounds of neighbours on a device, one by one, run by the emulator: lists, thresholds,
// distances, and what is kept of them.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "check.h"
#include "device_rows.h"
#include "encoded_rows.h"
#include "index_codes.h"
#include "kernels/bounds.cuh"
#include "kernels/refine.cuh"
#include "launch.h"
#include "neighbor_search.h"
#include "onnxviz/cuda/memory.h"
#include "onnxviz/neighbors.h"
#include "rows.h"

namespace onnxviz::cuda {
namespace {

using test::make_bank;
using test::make_setup;
using test::Matrix;
using test::on_host;
using test::OnDevice;
using test::OwnedSetup;

template <class T>
void overwrite(T* place, const std::vector<T>& values, const Stream& stream) {
  copy_to_device(place, values.data(), values.size() * sizeof(T), stream.view());
}

template <class T>
std::vector<T> read(const T* place, std::size_t count, const Stream& stream) {
  std::vector<T> values(count);
  copy_to_host(values.data(), place, count * sizeof(T), stream.view());
  return values;
}

// Exactly the rows that the bounds leave in doubt come into the lists, with their products; then bounds, threshold.
void lists_are_what_the_bounds_say(const Stream& stream) {
  std::string name;
  constexpr std::int64_t columns = 70;
  constexpr std::int64_t count = 310;
  Matrix<float> bank = make_bank<float>(1, count, columns, name);
  const OwnedSetup owned = make_setup(bank, Metric::euclidean, {}, false);
  const Encoder encoder(owned.setup, columns, stream.view());
  const EncodedOnHost<float> rows(bank, encoder, stream);
  Rules rules = encoder.rules(false);
  rules.stretch = 1.015625;  // as a basis might ask for
  const OnDevice<float> elements(bank.elements, stream);
  const OnDevice<double> exact_elements(rows.elements, stream);
  const Rows<float> exact(rows_in_memory(bank.view()), Metric::euclidean, nullptr);
  const std::vector<Chunk> chunks = {{{1, 0}, 0, 310}, {{2, 0}, 17, 131}, {{1, 3}, 5, 130}};
  int left_out = 0;
  for (const std::int64_t queries : {1, 2, 3, 7, 9, 33, 150}) {
    SearchSizes sizes;
    const SearchPlan plan(count, 3, queries, 0, sizes);
    ListMemory memory;
    memory.reserve(plan, 0);
    const Lists& lists = memory.lists();
    const Chunk chunk = chunks[static_cast<std::size_t>(queries) % chunks.size()];
    std::vector<double> thresholds;
    for (std::int64_t q = 0; q < queries; ++q) thresholds.push_back(2.0 + 0.13 * static_cast<double>(q % 40));
    if (queries > 1) {
      // In reach of a row, which is listed, and not as far as its lower bound, so that it is not measured.
      double nearest = INFINITY;
      for (int i = 0; i < chunk.count; ++i) {
        const int row = chunk.row(i);
        const int product = product_of(rows.byte_codes, row, rows.byte_codes, 100, encoder.row_bytes());
        const Comparison comparison =
            compare(rows.byte_terms[static_cast<std::size_t>(row)], rows.byte_terms[100], product, rules);
        if (row != 100) nearest = std::min(nearest, lower_bound(comparison, rules));
      }
      thresholds[0] = nearest / 1.008;
    }
    overwrite(lists.threshold, thresholds, stream);
    overwrite(lists.count, std::vector<int>(static_cast<std::size_t>(queries), 0), stream);
    overwrite(lists.older, std::vector<int>(static_cast<std::size_t>(queries), 0), stream);
    look(rows.bytes.view(), chunk, rows.bytes.view(100), queries, rules, lists, plan.few_queries, stream.view());
    const std::vector<int> counts = read(lists.count, static_cast<std::size_t>(queries), stream);
    const std::size_t entries = static_cast<std::size_t>(queries * plan.capacity);
    const std::vector<int> numbers = read(lists.row, entries, stream);
    const std::vector<double> products = read(lists.squared, entries, stream);
    launch(narrow<true>, Grid{dim3(2, static_cast<unsigned>(queries)), list_threads},
           static_cast<cudaStream_t>(stream.view().handle), rows.bytes.view(), rows.bytes.view(100), rules, lists);
    const std::vector<float> lower = read(lists.lower, entries, stream);
    const std::vector<float> upper = read(lists.upper, entries, stream);
    launch(narrow<false>, Grid{dim3(1, static_cast<unsigned>(queries)), list_threads},
           static_cast<cudaStream_t>(stream.view().handle), rows.bytes.view(), rows.bytes.view(100), rules, lists);
    const std::vector<float> lower_again = read(lists.lower, entries, stream);
    const std::vector<float> upper_again = read(lists.upper, entries, stream);
    launch(tighten, Grid{static_cast<unsigned>(queries), 64}, static_cast<cudaStream_t>(stream.view().handle), lists,
           3, true);
    const std::vector<double> tightened = read(lists.threshold, static_cast<std::size_t>(queries), stream);
    const BankRows<float> exact_rows{elements.data(), nullptr, columns};
    const ExactQueries exact_queries{exact_elements.data() + 100 * columns, nullptr};
    launch(measure<float>, Grid{dim3(2, static_cast<unsigned>(queries)), list_threads},
           static_cast<cudaStream_t>(stream.view().handle), exact_rows, exact_queries, lists,
           true);
    const std::vector<double> measured = read(lists.squared, entries, stream);
    overwrite(lists.nearest_count, std::vector<int>(static_cast<std::size_t>(queries), 0), stream);
    launch(settle<float, true>,
           Grid{static_cast<unsigned>(queries), 64, static_cast<std::size_t>(plan.buffer_size) * sizeof(Neighbor)},
           static_cast<cudaStream_t>(stream.view().handle), exact_rows, exact_queries, rows.bytes.view(),
           rows.bytes.view(100), chunk, rules, lists, 3, plan.buffer_size, true, Answers{nullptr, nullptr, false});
    const std::vector<double> settled = read(lists.threshold, static_cast<std::size_t>(queries), stream);
    const std::vector<int> kept = read(lists.nearest_count, static_cast<std::size_t>(queries), stream);
    std::int64_t in_lists = 0;
    for (std::int64_t q = 0; q < queries; ++q) {
      const auto other = static_cast<std::size_t>(100 + q);
      const std::string detail = std::to_string(queries) + " queries, query " + std::to_string(q);
      std::set<std::pair<int, int>> wanted;
      for (int i = 0; i < chunk.count; ++i) {
        const int row = chunk.row(i);
        const int product = product_of(rows.byte_codes, row, rows.byte_codes, 100 + q, encoder.row_bytes());
        const Comparison comparison =
            compare(rows.byte_terms[static_cast<std::size_t>(row)], rows.byte_terms[other], product, rules);
        const double threshold = thresholds[static_cast<std::size_t>(q)];
        const bool is_out = is_beyond(comparison, reach_of(threshold, rules));
        const bool is_out_in_tiles = is_beyond_in_tiles(rows.byte_terms[static_cast<std::size_t>(row)],
                                                        rows.byte_terms[other], product, threshold, rules);
        CHECK_FOR(is_out || !is_out_in_tiles, detail);
        if (!(queries > plan.few_queries ? is_out_in_tiles : is_out)) wanted.insert({row, product});
      }
      std::set<std::pair<int, int>> found;
      std::vector<float> uppers;
      std::vector<double> distances;
      ExactRow query;
      exact.read_query(100 + q, bank.row(100 + q), query);
      const auto length = static_cast<std::size_t>(counts[static_cast<std::size_t>(q)]);
      for (std::size_t i = 0; i < length; ++i) {
        const std::size_t place = static_cast<std::size_t>(q * plan.capacity) + i;
        const int row = numbers[place];
        found.insert({row, static_cast<int>(products[place])});
        const Comparison comparison = compare(rows.byte_terms[static_cast<std::size_t>(row)], rows.byte_terms[other],
                                              static_cast<int>(products[place]), rules);
        CHECK_FOR(static_cast<double>(lower[place]) <= lower_bound(comparison, rules) &&
                      static_cast<double>(std::nextafter(lower[place], INFINITY)) >= lower_bound(comparison, rules),
                  detail);
        CHECK_FOR(static_cast<double>(upper[place]) >= upper_bound(comparison, rules) &&
                      static_cast<double>(std::nextafter(upper[place], 0.0F)) <= upper_bound(comparison, rules),
                  detail);
        CHECK_FOR(lower_again[place] == lower[place] && upper_again[place] == upper[place], detail);
        const bool within = static_cast<double>(lower[place]) <= tightened[static_cast<std::size_t>(q)];
        CHECK_FOR(measured[place] == (within ? exact.squared_distance(row, bank.row(row), query) : INFINITY), detail);
        uppers.push_back(upper[place]);
        distances.push_back(std::sqrt(measured[place]) * rules.scale);
      }
      CHECK_FOR(found == wanted && found.size() == length, detail);
      in_lists += static_cast<std::int64_t>(length);
      double threshold = thresholds[static_cast<std::size_t>(q)];
      if (length >= 3) {
        std::sort(uppers.begin(), uppers.end());
        threshold = std::min(threshold, static_cast<double>(uppers[2]));
      }
      CHECK_FOR(tightened[static_cast<std::size_t>(q)] == threshold, detail);
      // What was not measured is no neighbour.
      const auto is_finite = [](double distance) { return std::isfinite(distance); };
      const auto near = std::count_if(distances.begin(), distances.end(), is_finite);
      CHECK_FOR(kept[static_cast<std::size_t>(q)] == std::min<std::int64_t>(3, near), detail);
      left_out += near < 3 && length > static_cast<std::size_t>(near) ? 1 : 0;
      if (length >= 3) {
        std::sort(distances.begin(), distances.end());
        threshold = std::min(threshold, distances[2]);
      }
      CHECK_FOR(settled[static_cast<std::size_t>(q)] == threshold, detail);
    }
    CHECK(in_lists > queries && in_lists < queries * chunk.count);
  }
  CHECK(left_out > 0);
}

// A threshold that is below the k-th smallest upper bound stays.
void thresholds_never_rise(const Stream& stream) {
  const OnDevice<int> count({3, 3}, stream);
  const OnDevice<float> upper({7, 5, 6, 1, 3, 2}, stream);
  const OnDevice<double> threshold({4, 4}, stream);
  Lists lists{};
  lists.capacity = 3;
  lists.count = count.data();
  lists.upper = upper.data();
  lists.threshold = threshold.data();
  launch(tighten, Grid{2, 64}, static_cast<cudaStream_t>(stream.view().handle), lists, 3, true);
  CHECK(read(threshold.data(), 2, stream) == (std::vector<double>{4, 3}));
}

// What is listed waits until it is more than half of what the list holds, or all: only then it is measured and gone.
void entries_wait_until_they_are_due(const Stream& stream) {
  const OnDevice<float> rows({0, 1, 2, 3, 4, 5, 6, 7}, stream);  // of one column
  const OnDevice<double> query({10, 10, 10}, stream);
  constexpr int capacity = 8;
  constexpr std::size_t queries = 3;
  const OnDevice<int> count({4, 5, 4}, stream);
  const OnDevice<int> older({2, 2, 2}, stream);
  const OnDevice<float> upper(std::vector<float>(capacity * queries, 10), stream);
  const OnDevice<float> lower(std::vector<float>(capacity * queries, 0), stream);
  const OnDevice<double> threshold(std::vector<double>(queries, 20), stream);
  const OnDevice<double> squared(std::vector<double>(capacity * queries, -1), stream);
  std::vector<int> numbers;
  for (int i = 0; i < capacity * static_cast<int>(queries); ++i) numbers.push_back(i % capacity);
  const OnDevice<int> row(numbers, stream);
  const OnDevice<int> nearest_count(std::vector<int>(queries, 0), stream);
  const Array<Neighbor> nearest(queries * 2, 0);
  const OnDevice<unsigned long long> in_doubt({0}, stream);
  const Lists lists{capacity, count.data(), older.data(), row.data(), squared.data(), lower.data(), upper.data(),
                    threshold.data(), 2, nearest.data(), nearest_count.data(), in_doubt.data()};
  const auto order = static_cast<cudaStream_t>(stream.view().handle);
  const BankRows<float> bank{rows.data(), nullptr, 1};
  const ExactQueries exact{query.data(), nullptr};
  const LevelView none{nullptr, nullptr, 0};
  const Rules rules{1, 0, 0, 1, false, 1};
  for (const bool last : {false, true}) {
    launch(tighten, Grid{3, 64}, order, lists, 2, last);
    CHECK(read(older.data(), queries, stream) == (last ? std::vector<int>{4, 0, 4} : std::vector<int>{4, 2, 4}));
    launch(measure<float>, Grid{dim3(1, 3), list_threads}, order, bank, exact, lists, last);
    launch(settle<float, true>, Grid{3, 64, 128 * sizeof(Neighbor)}, order, bank, exact, none, none,
           Chunk{{1, 0}, 0, 0}, rules, lists, 2, 128, last, Answers{nullptr, nullptr, false});
    CHECK(read(count.data(), queries, stream) == (last ? std::vector<int>{0, 0, 0} : std::vector<int>{4, 0, 4}));
    CHECK(read(nearest_count.data(), queries, stream) ==
          (last ? std::vector<int>{2, 2, 2} : std::vector<int>{0, 2, 0}));
    CHECK(read(squared.data(), 1, stream)[0] == (last ? 100 : -1));
  }
  // Rows 3 and 2 are the nearest to 10 of four, 4 and 3 of five; what was measured once is not counted again.
  std::vector<std::int64_t> found;
  for (const Neighbor& neighbor : on_host(nearest, stream)) found.push_back(neighbor.row);
  CHECK(found == (std::vector<std::int64_t>{3, 2, 4, 3, 3, 2}));
  CHECK(read(in_doubt.data(), 1, stream)[0] == 13);
}

// A search begins without thresholds, and touches no other query's.
void lists_begin_empty(const Stream& stream) {
  constexpr std::size_t queries = 4;
  const Array<int> count(queries, 0);
  const Array<int> older(queries, 0);
  const Array<int> nearest_count(queries, 0);
  const Array<double> threshold(queries, 0);
  Lists lists{};
  lists.count = count.data();
  lists.older = older.data();
  lists.nearest_count = nearest_count.data();
  lists.threshold = threshold.data();
  launch(begin_search, Grid{1, 128}, static_cast<cudaStream_t>(stream.view().handle), lists, 4);
  CHECK(on_host(count, stream) == std::vector<int>(queries, 0));
  CHECK(on_host(older, stream) == std::vector<int>(queries, 0));
  CHECK(on_host(nearest_count, stream) == std::vector<int>(queries, 0));
  CHECK(on_host(threshold, stream) == std::vector<double>(queries, INFINITY));
}

}  // namespace
}  // namespace onnxviz::cuda

int main() {
  return onnxviz::test::run([] {
    using namespace onnxviz::cuda;
    const Stream stream(0);
    lists_are_what_the_bounds_say(stream);
    thresholds_never_rise(stream);
    entries_wait_until_they_are_due(stream);
    lists_begin_empty(stream);
  });
}

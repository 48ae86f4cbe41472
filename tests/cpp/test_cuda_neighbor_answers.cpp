// The neighbours that a search on a device finds, run by the emulator, against those of the core for a CPU.
#include "onnxviz/cuda/neighbors.h"

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <limits>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "check.h"
#include "device_rows.h"
#include "neighbor_search.h"
#include "onnxviz/cuda/memory.h"
#include "onnxviz/neighbors.h"
#include "rows.h"

namespace onnxviz::cuda {
namespace {

using test::contains;
using test::first_rows;
using test::make_bank;
using test::make_setup;
using test::Matrix;
using test::message_of;
using test::on_host;
using test::OnDevice;
using test::OwnedSetup;
using test::widths;

struct Found {
  std::vector<double> distances;
  std::vector<std::int64_t> indices;

  bool operator==(const Found& other) const { return distances == other.distances && indices == other.indices; }
};

// A bank with an index of the CPU's core and what one on a device needs.
template <class T>
struct BothBanks {
  const Stream& stream;
  Matrix<T> bank;
  OwnedSetup owned;
  onnxviz::NeighborIndex reference;
  OnDevice<T> elements;

  BothBanks(Matrix<T> matrix, Metric metric, std::int64_t directions, bool centred, const Stream& order)
      : stream(order),
        bank(std::move(matrix)),
        owned(make_setup(bank, metric, widths(directions), centred)),
        reference(rows_in_memory(bank.view()), owned.setup),
        elements(bank.elements, order) {
    reference.encode(0, bank.rows, 1);
  }

  MatrixView<T> view() const { return {elements.data(), bank.rows, bank.columns}; }
  NeighborIndex index(SearchSizes sizes = {}) const { return {view(), owned.setup, stream.view(), sizes}; }

  template <class U>
  Found expected(const Matrix<U>& queries, std::int64_t k) const {
    Found found;
    found.distances.resize(static_cast<std::size_t>(queries.rows * k));
    found.indices.resize(found.distances.size());
    reference.query(queries.view(), k, found.distances.data(), found.indices.data(), 1);
    return found;
  }

  template <class U>
  Found found(const NeighborIndex& index, const Matrix<U>& queries, std::int64_t k) const {
    const OnDevice<U> there(queries.elements, stream);
    const Array<double> distances(static_cast<std::size_t>(queries.rows * k), stream.view().device);
    const Array<std::int64_t> indices(distances.size(), stream.view().device);
    index.query(MatrixView<U>{there.data(), queries.rows, queries.columns}, k, distances.data(), indices.data(),
                stream.view());
    return {on_host(distances, stream), on_host(indices, stream)};
  }

  Found all_found(const NeighborIndex& index, std::int64_t k, const NeighborIndex::Progress& progress = {}) const {
    const Array<double> distances(static_cast<std::size_t>(bank.rows * k), stream.view().device);
    const Array<std::int64_t> indices(distances.size(), stream.view().device);
    index.query_all_rows(k, distances.data(), indices.data(), stream.view(), progress);
    return {on_host(distances, stream), on_host(indices, stream)};
  }
};

// How many rows a search with these sizes meets at most twice: small, so that small banks take every turn.
SearchSizes small_sizes() {
  SearchSizes sizes;
  sizes.first_rows = 16;
  return sizes;
}

template <class T>
std::string described(const BothBanks<T>& both, const std::string& name) {
  return name + (both.owned.setup.metric == Metric::cosine ? ", cosine, " : ", ") + std::to_string(both.bank.rows) +
         " x " + std::to_string(both.bank.columns);
}

// -- answers ----------------------------------------------------------------------------------------------------------

// Half of the queries are rows of the bank, half of another bank: queries need not look like the rows.
template <class T>
void same_as_the_cpu(int kind, Metric metric, std::int64_t rows, std::int64_t columns, std::int64_t k,
                     std::int64_t directions, const std::vector<std::int64_t>& query_counts, const Stream& stream) {
  std::string name;
  std::string other;
  const BothBanks<T> both(make_bank<T>(kind, rows, columns, name), metric, directions, kind % 2 == 0, stream);
  const Matrix<T> strange = make_bank<T>((kind + 1) % test::bank_kinds, rows, columns, other);
  name = described(both, name);
  NeighborIndex index = both.index(small_sizes());
  for (const bool projected : {false, true}) {
    if (projected && index.directions() == 0) continue;
    index.set_start({projected, projected});
    for (const std::int64_t count : query_counts) {
      Matrix<T> queries = first_rows(both.bank, count);
      for (std::int64_t q = 1; q < count; q += 2) {
        std::copy(strange.view().row(q), strange.view().row(q) + columns, queries.row(q));
      }
      CHECK_FOR(both.found(index, queries, k) == both.expected(queries, k),
                name + ", " + std::to_string(count) + " queries");
    }
  }
}

void all_banks_are_searched(const Stream& stream) {
  for (int kind = 0; kind < test::bank_kinds; ++kind) {
    const Metric metric = kind % 2 == 0 ? Metric::euclidean : Metric::cosine;
    const Metric other = kind % 2 == 0 ? Metric::cosine : Metric::euclidean;
    same_as_the_cpu<float>(kind, metric, 60, 67, 5, 12, {kind % 3 == 0 ? 9 : 2}, stream);
    same_as_the_cpu<float>(kind, other, 51, 40, 3, 0, {4}, stream);
    same_as_the_cpu<double>(kind, metric, 40, 19, 7, 0, {3}, stream);
    same_as_the_cpu<double>(kind, other, 50, 40, 4, 5, {kind % 3 == 1 ? 9 : 2}, stream);
  }
}

void odd_shapes_are_searched(const Stream& stream) {
  const Metric metric = Metric::euclidean;
  same_as_the_cpu<float>(0, metric, 1, 1, 1, 0, {1}, stream);
  same_as_the_cpu<float>(3, metric, 40, 2, 40, 0, {1, 10}, stream);
  same_as_the_cpu<float>(0, metric, 33, 63, 2, 0, {1}, stream);
  same_as_the_cpu<float>(0, metric, 33, 64, 2, 0, {2}, stream);
  same_as_the_cpu<float>(1, metric, 33, 65, 33, 30, {9}, stream);
  same_as_the_cpu<float>(1, Metric::cosine, 12, 1100, 3, 0, {2}, stream);
  // All rows, those without a direction among them.
  same_as_the_cpu<float>(6, Metric::cosine, 30, 20, 30, 0, {4}, stream);
  // More queries and rows than a tile of either size holds.
  same_as_the_cpu<float>(0, metric, 300, 70, 3, 20, {33, 140}, stream);
  same_as_the_cpu<float>(5, Metric::cosine, 150, 130, 4, 0, {40}, stream);
  // The widest that has codes, and one more, which has none.
  same_as_the_cpu<float>(1, metric, 5, 32768, 2, 0, {1, 3}, stream);
  same_as_the_cpu<double>(2, metric, 4, 131072, 2, 0, {2}, stream);
  same_as_the_cpu<float>(0, metric, 20, 131073, 2, 0, {2}, stream);
}

void queries_may_have_the_other_type(const Stream& stream) {
  std::string name;
  const BothBanks<float> both(make_bank<float>(0, 60, 30, name), Metric::cosine, 0, true, stream);
  const BothBanks<double> wide(make_bank<double>(0, 60, 30, name), Metric::euclidean, 0, true, stream);
  const Matrix<double> doubles = make_bank<double>(13, 5, 30, name);
  const Matrix<float> floats = make_bank<float>(1, 5, 30, name);
  CHECK(both.found(both.index(), doubles, 4) == both.expected(doubles, 4));
  CHECK(wide.found(wide.index(), floats, 4) == wide.expected(floats, 4));
}

// Lists that are too short lose nothing.
void overflow_is_made_good(const Stream& stream) {
  for (const int kind : {0, 3, 4, 8, 12}) {
    for (const std::int64_t directions : {0, 9}) {
      if (directions > 0 && kind > 3) continue;
      std::string name;
      const BothBanks<float> both(make_bank<float>(kind, 60, 37, name), kind == 3 ? Metric::cosine : Metric::euclidean,
                                  directions, false, stream);
      for (const std::int64_t queries : {std::int64_t{2}, std::int64_t{10}}) {
        SearchSizes sizes = small_sizes();
        sizes.capacity = 3;
        sizes.rows_per_chunk = 31;
        NeighborIndex index = both.index(sizes);
        index.set_start({directions > 0, directions > 0});
        const Matrix<float> some = first_rows(both.bank, queries);
        CHECK_FOR(both.found(index, some, 6) == both.expected(some, 6), described(both, name));
        // What waits in a list when the chunk overflows is not lost.
        sizes.capacity = 40;
        sizes.rows_per_chunk = 60;
        NeighborIndex waiting = both.index(sizes);
        waiting.set_start({directions > 0, directions > 0});
        CHECK_FOR(both.found(waiting, some, 30) == both.expected(some, 30), described(both, name));
      }
    }
  }
  // Every row is an answer, and the chunk is larger than the buffer of neighbours.
  std::string name;
  const BothBanks<float> both(make_bank<float>(0, 700, 3, name), Metric::euclidean, 0, false, stream);
  SearchSizes sizes;
  sizes.capacity = 5;
  sizes.rows_per_chunk = 700;
  const Matrix<float> one = first_rows(both.bank, 1);
  CHECK(both.found(both.index(sizes), one, 150) == both.expected(one, 150));
}

// Rows as far as the threshold, which is 0 here, may have lower numbers than those that are known.
void equal_rows_are_told_apart_by_number(const Stream& stream) {
  Matrix<float> bank(60, 5);
  std::fill(bank.elements.begin(), bank.elements.end(), 1.5F);
  const BothBanks<float> both(std::move(bank), Metric::euclidean, 0, false, stream);
  SearchSizes sizes = small_sizes();
  sizes.capacity = 16;
  sizes.rows_per_chunk = 10;
  for (const std::int64_t queries : {1, 9}) {
    const Matrix<float> some = first_rows(both.bank, queries);
    CHECK(both.found(both.index(sizes), some, 5) == both.expected(some, 5));
  }
}

// Every row is nearer than all before it: the buffer of neighbours, in global memory, fills up in every way.
void buffers_hold_what_comes(const Stream& stream) {
  Matrix<float> bank(1400, 1);
  for (std::int64_t i = 0; i < bank.rows; ++i) bank.row(i)[0] = static_cast<float>(i);
  const BothBanks<float> both(std::move(bank), Metric::euclidean, 0, false, stream);
  SearchSizes sizes;
  sizes.first_rows = 1400;
  sizes.rows_per_chunk = 700;
  sizes.capacity = 5;
  sizes.k_in_shared = 8;
  Matrix<float> queries(2, 1);
  queries.elements = {1500, 1450};
  for (const std::int64_t k : {127, 128, 150}) {
    CHECK_FOR(both.found(both.index(sizes), queries, k) == both.expected(queries, k), std::to_string(k));
  }
}

void every_k_is_served(const Stream& stream) {
  std::string name;
  const BothBanks<float> both(make_bank<float>(0, 60, 9, name), Metric::euclidean, 0, false, stream);
  const BothBanks<float> same(make_bank<float>(12, 60, 9, name), Metric::euclidean, 0, false, stream);
  SearchSizes sizes = small_sizes();
  sizes.k_in_shared = 8;
  sizes.rows_per_chunk = 60;
  for (const std::int64_t k : {1, 7, 8, 9, 59, 60}) {
    const Matrix<float> some = first_rows(both.bank, 3);
    CHECK_FOR(both.found(both.index(sizes), some, k) == both.expected(some, k), std::to_string(k));
    CHECK_FOR(same.found(same.index(sizes), some, k) == same.expected(some, k), std::to_string(k));
    sizes.capacity = k % 2 == 0 ? 20 : 0;
  }
  // More rows of one distance than the buffer of neighbours holds.
  const BothBanks<float> equal(make_bank<float>(12, 300, 3, name), Metric::euclidean, 0, false, stream);
  for (const std::int64_t queries : {1, 9}) {
    const Matrix<float> some = first_rows(equal.bank, queries);
    CHECK(equal.found(equal.index(), some, 5) == equal.expected(some, 5));
  }
  // The limit itself.
  const BothBanks<float> many(make_bank<float>(0, 3000, 2, name), Metric::euclidean, 0, false, stream);
  const Matrix<float> one = first_rows(many.bank, 1);
  for (const std::int64_t k : {1024, 1025}) {
    CHECK_FOR(many.found(many.index(), one, k) == many.expected(one, k), std::to_string(k));
  }
}

void all_pairs_are_found(const Stream& stream) {
  for (const int kind : {1, 6, 11}) {
    for (const Metric metric : {Metric::euclidean, Metric::cosine}) {
      std::string name;
      const BothBanks<float> both(make_bank<float>(kind, 47, 33, name), metric, kind == 1 ? 6 : 0, false, stream);
      SearchSizes sizes = small_sizes();
      sizes.queries_at_once = 20;
      NeighborIndex index = both.index(sizes);
      for (const bool projected : {false, true}) {
        if (projected && kind != 1) continue;
        index.set_start({projected, projected});
        std::vector<std::pair<std::int64_t, std::int64_t>> told;
        const Found found =
            both.all_found(index, 4, [&](std::int64_t done, std::int64_t of) { told.push_back({done, of}); });
        CHECK_FOR(found == both.expected(both.bank, 4), described(both, name));
        CHECK(told == (std::vector<std::pair<std::int64_t, std::int64_t>>{{0, 47}, {20, 47}, {40, 47}}));
      }
      if (kind != 1) continue;
      // What is told may end it; the index is as good as before.
      const std::string message = message_of<std::runtime_error>([&] {
        both.all_found(index, 4, [](std::int64_t done, std::int64_t) {
          if (done > 0) throw std::runtime_error("enough");
        });
      });
      CHECK(message == "enough");
      CHECK(both.all_found(index, 2) == both.expected(both.bank, 2));
    }
  }
}

void far_queries_are_answered(const Stream& stream) {
  Matrix<double> bank(70, 3);
  for (std::int64_t i = 0; i < 70; ++i) bank.row(i)[0] = static_cast<double>(i) * 1e-3;
  const BothBanks<double> both(std::move(bank), Metric::euclidean, 0, false, stream);
  Matrix<double> queries(3, 3);
  queries.elements = {1e100, 0, 0, 1e150, -1e150, 1e150, -1e100, 0, 0};
  CHECK(both.found(both.index(small_sizes()), queries, 2) == both.expected(queries, 2));
}

// Rows so small beside the others that squares are nothing: of their distances, which are all equal then whatever codes
// say; or of what the codes lose, which distances do not.
void small_rows_beside_large_ones(int small, int large, double scale, const Stream& stream) {
  Matrix<double> bank(40, 1);
  std::mt19937_64 random(6);
  std::uniform_real_distribution<double> uniform(1, 2);
  for (std::int64_t i = 0; i < bank.rows; ++i) bank.row(i)[0] = std::ldexp(uniform(random), i < 24 ? small : large);
  OwnedSetup owned = make_setup(bank, Metric::euclidean, {}, false);
  owned.setup.scale = scale;
  const OnDevice<double> elements(bank.elements, stream);
  const NeighborIndex index({elements.data(), 40, 1}, owned.setup, stream.view(), small_sizes());
  const Array<double> distances(40 * 3, 0);
  const Array<std::int64_t> indices(40 * 3, 0);
  index.query(MatrixView<double>{elements.data(), 40, 1}, 3, distances.data(), indices.data(), stream.view());
  const std::vector<std::int64_t> found = on_host(indices, stream);
  for (std::size_t q = 0; q < 40; ++q) {
    std::vector<std::pair<double, std::int64_t>> all;
    for (std::int64_t i = 0; i < bank.rows; ++i) {
      const double difference = bank.row(i)[0] - bank.elements[q];
      all.emplace_back(difference * difference, i);
    }
    std::sort(all.begin(), all.end());
    for (std::size_t n = 0; n < 3; ++n) CHECK_FOR(found[3 * q + n] == all[n].second, std::to_string(small));
  }
}

void underflow_is_allowed_for(const Stream& stream) {
  small_rows_beside_large_ones(-542, -480, 0x1p480, stream);
  small_rows_beside_large_ones(-140, 400, 0x1p-401, stream);
}

// Rows of the smallest numbers have directions: a scale of 2^1074 would not be finite.
void smallest_numbers_have_directions(const Stream& stream) {
  Matrix<double> bank(20, 6);
  std::mt19937_64 random(3);
  for (double& element : bank.elements) element = static_cast<double>(random() % 3) * 0x1p-1074;
  const BothBanks<double> both(std::move(bank), Metric::cosine, 0, false, stream);
  CHECK(both.found(both.index(), both.bank, 4) == both.expected(both.bank, 4));
}

void one_index_serves_two_threads(const Stream& stream) {
  std::string name;
  const BothBanks<float> both(make_bank<float>(0, 80, 20, name), Metric::euclidean, 0, false, stream);
  const NeighborIndex index = both.index(small_sizes());
  const Matrix<float> some = first_rows(both.bank, 4);
  const Found expected = both.expected(some, 5);
  std::vector<int> right(2, 0);
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < right.size(); ++i) {
    threads.emplace_back([&, i] {
      for (int turn = 0; turn < 3; ++turn) right[i] += both.found(index, some, 5) == expected ? 1 : 0;
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(right[0] == 3 && right[1] == 3);
}

// -- refusals and memory ----------------------------------------------------------------------------------------------

void what_cannot_be_measured_is_refused_by_row(const Stream& stream) {
  for (const double wrong :
       {std::numeric_limits<double>::quiet_NaN(), -std::numeric_limits<double>::infinity(), 2e150}) {
    for (const Metric metric : {Metric::euclidean, Metric::cosine}) {
      Matrix<double> bank(50, 130);
      for (std::int64_t i = 0; i < bank.rows; ++i) bank.row(i)[0] = static_cast<double>(i);
      const BothBanks<double> both(bank, metric, 0, false, stream);
      bank.row(41)[129] = wrong;
      bank.row(37)[3] = wrong;
      const OnDevice<double> elements(bank.elements, stream);
      std::string message = message_of<std::invalid_argument>([&] {
        NeighborIndex(MatrixView<double>{elements.data(), 50, 130}, both.owned.setup, stream.view());
      });
      CHECK_FOR(message == "row 37 of the bank holds NaN, infinity or a number beyond 1e150", message);
      SearchSizes sizes = small_sizes();
      sizes.queries_at_once = 20;
      const NeighborIndex index = both.index(sizes);
      message = message_of<std::invalid_argument>([&] { both.found(index, bank, 2); });
      CHECK_FOR(message == "row 37 of the queries holds NaN, infinity or a number beyond 1e150", message);
      // Nothing of it stays behind.
      const Matrix<double> some = first_rows(both.bank, 3);
      CHECK(both.found(index, some, 2) == both.expected(some, 2));
    }
  }
}

void arguments_are_checked(const Stream& stream) {
  std::string name;
  const BothBanks<float> both(make_bank<float>(0, 3, 4, name), Metric::euclidean, 0, false, stream);
  NeighborIndex index = both.index();
  CHECK(index.rows() == 3 && index.columns() == 4 && index.directions() == 0);
  const auto same_message = [&](const Matrix<float>& queries, std::int64_t k) {
    double distances[4];
    std::int64_t indices[4];
    const std::string wanted = message_of<std::invalid_argument>(
        [&] { both.reference.query(queries.view(), k, distances, indices, 1); });
    const Array<double> far(4, 0);
    const Array<std::int64_t> near(4, 0);
    const OnDevice<float> there(queries.elements, stream);
    const std::string message = message_of<std::invalid_argument>([&] {
      index.query(MatrixView<float>{there.data(), queries.rows, queries.columns}, k, far.data(), near.data(),
                  stream.view());
    });
    CHECK_FOR(message == wanted && !wanted.empty(), message);
  };
  for (const std::int64_t k : {0, 4, -1}) same_message(both.bank, k);
  same_message(Matrix<float>(1, 3), 1);
  CHECK(contains(message_of<std::invalid_argument>([&] { index.query_all_rows(4, nullptr, nullptr, stream.view()); }),
                 "allowed: 1 to 3"));
  CHECK(contains(message_of<std::invalid_argument>([&] { index.set_start({true, false}); }), "no projections"));
  index.query(MatrixView<float>{nullptr, 0, 4}, 1, nullptr, nullptr, stream.view());  // no queries, no answers

  // More codes than tiles can count. Nobody looks at the rows before that is said.
  const MatrixView<float> endless{nullptr, (std::int64_t{1} << 30) + 1, 4};
  CHECK(contains(message_of<std::invalid_argument>([&] {
                   NeighborIndex(endless, both.owned.setup, stream.view(), SearchSizes());
                 }),
                 "1073741825 rows; allowed on a device with 4 columns: 1073741824"));

  // Memory that is not where it has to be.
  const Array<double> far(3, 0);
  const Array<std::int64_t> near(3, 0);
  const Stream elsewhere(1);
  const Array<float> other(12, 1);
  const auto place_message = [&](const float* queries, double* distances, std::int64_t* indices) {
    return message_of<std::invalid_argument>(
        [&] { index.query(MatrixView<float>{queries, 3, 4}, 1, distances, indices, stream.view()); });
  };
  CHECK(place_message(both.elements.data(), far.data(), near.data()).empty());
  CHECK(place_message(both.bank.elements.data(), far.data(), near.data()) ==
        "the queries are in the host's memory; needed: device 0");
  CHECK(place_message(other.data(), far.data(), near.data()) == "the queries are on device 1; needed: device 0");
  double here = 0;
  CHECK(contains(place_message(both.elements.data(), &here, near.data()), "the distances are"));
  std::int64_t number = 0;
  CHECK(contains(place_message(both.elements.data(), far.data(), &number), "the indices are"));
  CHECK(contains(message_of<std::invalid_argument>([&] {
          NeighborIndex(MatrixView<float>{other.data(), 3, 4}, both.owned.setup, stream.view());
        }),
                 "the rows are on device 1"));
  CHECK(message_of<std::invalid_argument>([&] {
          NeighborIndex(MatrixView<float>{both.elements.data(), 0, 4}, both.owned.setup, stream.view());
        }) == "the bank has no rows or no columns");
  const auto setup_message = [&](const std::function<void(IndexSetup&)>& change) {
    IndexSetup setup = both.owned.setup;
    change(setup);
    return message_of<std::invalid_argument>([&] { NeighborIndex(both.view(), setup, stream.view()); });
  };
  CHECK(contains(setup_message([](IndexSetup& setup) { setup.scale = 3; }), "power of two"));
  CHECK(contains(setup_message([](IndexSetup& setup) { setup.scale = std::ldexp(1.0, 501); }), "power of two"));
  CHECK(contains(setup_message([](IndexSetup& setup) { setup.reference.pop_back(); }), "3 and 4 numbers for 4"));
}

void memory_is_as_stated(const Stream& stream) {
  std::string name;
  const BothBanks<float> both(make_bank<float>(0, 300, 100, name), Metric::cosine, 20, false, stream);
  const std::size_t before = memory_info(0).free;
  const NeighborIndex index = both.index();
  const std::size_t taken = before - memory_info(0).free;
  const std::size_t stated = NeighborIndex::index_bytes(300, 100, 20, Metric::cosine);
  // A search with the queries that chose the start is kept as well.
  const std::size_t tried = NeighborIndex::search_bytes(300, 100, 20, 24, 11);
  CHECK_FOR(taken <= stated + tried && 2 * taken > stated + tried, std::to_string(taken));
  const Matrix<float> some = first_rows(both.bank, 60);
  both.found(index, some, 30);
  const std::size_t searched = before - memory_info(0).free;
  const std::size_t wanted = stated + NeighborIndex::search_bytes(300, 100, 20, 60, 30);
  CHECK_FOR(searched <= wanted && 2 * searched > wanted, std::to_string(searched) + " of " + std::to_string(wanted));
  // Of many queries at once fewer are taken than would fill the device.
  CHECK(NeighborIndex::search_bytes(1000000, 4096, 256, 1000000, 10) < (std::size_t{3} << 28));
  CHECK(NeighborIndex::search_bytes(1000000, 4096, 256, 1000000, 100000) < (std::size_t{3} << 28));

  SearchSizes sizes;
  sizes.capacity = std::int64_t{1} << 29;
  CHECK(message_of<std::bad_alloc>([&] { both.found(both.index(sizes), some, 1); }) != "");
}

// -- parts ------------------------------------------------------------------------------------------------------------

// Each row is met once, whatever the passes.
void passes_meet_each_row_once() {
  for (const std::int64_t rows : {1, 2, 15, 16, 33, 100, 1000, 4097, 100000}) {
    for (const std::int64_t first : {1, 3, 16, 1024}) {
      SearchSizes sizes;
      sizes.first_rows = first;
      const SearchPlan plan(rows, 1, 1, 0, sizes);
      std::vector<int> met(static_cast<std::size_t>(rows), 0);
      std::int64_t of_first = 0;
      for (int stride = plan.stride;; stride /= plan.growth) {
        const bool first_pass = stride == plan.stride;
        const Pass pass{stride, first_pass ? 0 : plan.growth};
        const std::int64_t step = std::int64_t{stride} * plan.growth;
        const std::int64_t number = (rows + stride - 1) / stride - (first_pass ? 0 : (rows + step - 1) / step);
        if (first_pass) of_first = number;
        for (int i = 0; i < static_cast<int>(number); ++i) {
          const int row = pass.row(i);
          if (row < 0 || row >= rows) {
            CHECK(false);
          } else {
            ++met[static_cast<std::size_t>(row)];
          }
        }
        if (stride == 1) break;
      }
      CHECK_FOR(std::all_of(met.begin(), met.end(), [](int times) { return times == 1; }), std::to_string(rows));
      CHECK_FOR(of_first <= std::max<std::int64_t>(2 * first, 64),
                std::to_string(rows) + " from " + std::to_string(first));
      CHECK(of_first <= plan.capacity);
    }
  }
}

// A device whose multiprocessors have less memory takes other tiles, to the same answers.
void small_devices_answer_alike() {
  const Stream small(1);
  for (const std::int64_t columns : {60, 130, 200}) {
    same_as_the_cpu<float>(1, Metric::euclidean, 300, columns, 5, 0, {20, 45, 140}, small);
  }
}

// Projections come first where they tell rows apart.
void the_start_is_chosen(const Stream& stream) {
  const std::int64_t columns = 320;
  const std::vector<float> basis = test::random_basis(4, columns, 7);
  std::string name;
  Matrix<float> flat = make_bank<float>(0, 480, columns, name);
  Matrix<float> noise = flat;
  std::mt19937_64 random(5);
  std::normal_distribution<float> normal;
  for (std::int64_t i = 0; i < flat.rows; ++i) {
    float along[4];
    for (float& number : along) number = 40 * normal(random);
    for (std::int64_t j = 0; j < columns; ++j) {
      float sum = 0.01F * noise.row(i)[j];
      for (std::int64_t d = 0; d < 4; ++d) sum += along[d] * basis[static_cast<std::size_t>(d * columns + j)];
      flat.row(i)[j] = sum;
    }
  }
  SearchSizes sizes;
  sizes.first_rows = 60;
  for (const bool prunes : {true, false}) {
    const BothBanks<float> both(prunes ? flat : noise, Metric::euclidean, 4, false, stream);
    const NeighborIndex index = both.index(sizes);
    CHECK(index.start().few == prunes);
    const Matrix<float> some = first_rows(both.bank, 9);
    CHECK(both.found(index, some, 3) == both.expected(some, 3));
  }
}

}  // namespace
}  // namespace onnxviz::cuda

int main() {
  return onnxviz::test::run([] {
    using namespace onnxviz::cuda;
    const Stream stream(0);
    passes_meet_each_row_once();
    small_devices_answer_alike();
    the_start_is_chosen(stream);
    all_banks_are_searched(stream);
    odd_shapes_are_searched(stream);
    queries_may_have_the_other_type(stream);
    overflow_is_made_good(stream);
    equal_rows_are_told_apart_by_number(stream);
    buffers_hold_what_comes(stream);
    every_k_is_served(stream);
    all_pairs_are_found(stream);
    far_queries_are_answered(stream);
    underflow_is_allowed_for(stream);
    smallest_numbers_have_directions(stream);
    one_index_serves_two_threads(stream);
    what_cannot_be_measured_is_refused_by_row(stream);
    arguments_are_checked(stream);
    memory_is_as_stated(stream);
  });
}

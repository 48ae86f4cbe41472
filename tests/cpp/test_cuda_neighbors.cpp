// Neighbours on a device, run by the emulator, against those of the core for a CPU.
#include "onnxviz/cuda/neighbors.h"

#include <algorithm>
#include <limits>
#include <cstdlib>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "check.h"
#include "cpu/basis.h"
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

using test::contains;
using test::make_bank;
using test::make_setup;
using test::Matrix;
using test::message_of;
using test::OwnedSetup;

template <class T>
class OnDevice {
 public:
  OnDevice(const std::vector<T>& elements, const Stream& stream) : array_(elements.size(), stream.view().device) {
    copy_to_device(array_.data(), elements.data(), elements.size() * sizeof(T), stream.view());
  }
  T* data() const { return array_.data(); }

 private:
  Array<T> array_;
};

template <class T>
std::vector<T> on_host(const Array<T>& array, const Stream& stream) {
  std::vector<T> values(array.size());
  copy_to_host(values.data(), array.data(), values.size() * sizeof(T), stream.view());
  return values;
}

struct Found {
  std::vector<double> distances;
  std::vector<std::int64_t> indices;

  bool operator==(const Found& other) const { return distances == other.distances && indices == other.indices; }
};

// As make_setup takes them.
std::vector<std::int64_t> widths(std::int64_t directions) {
  return directions > 0 ? std::vector<std::int64_t>{directions} : std::vector<std::int64_t>{};
}

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

template <class T>
Matrix<T> first_rows(const Matrix<T>& matrix, std::int64_t count) {
  Matrix<T> part(count, matrix.columns);
  std::copy(matrix.elements.begin(), matrix.elements.begin() + count * matrix.columns, part.elements.begin());
  return part;
}

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
  for (const int kind : {0, 3, 4, 12}) {
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
  Matrix<double> queries(2, 3);
  queries.elements = {1e100, 0, 0, 1e150, -1e150, 1e150};
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

// -- bounds -----------------------------------------------------------------------------------------------------------

// Rows with their codes as they are on the device.
template <class T>
struct EncodedOnHost {
  Codes bytes;
  Codes projected;
  std::vector<std::int8_t> byte_codes;
  std::vector<Terms> byte_terms;
  std::vector<std::int8_t> projected_codes;
  std::vector<Terms> projected_terms;
  std::vector<double> elements;
  std::vector<double> squares;

  EncodedOnHost(const Matrix<T>& matrix, const Encoder& encoder, const Stream& stream)
      : bytes(matrix.rows, encoder.row_bytes(), 0) {
    const auto rows = static_cast<std::size_t>(matrix.rows);
    const OnDevice<T> there(matrix.elements, stream);
    const Array<double> square(rows, 0);
    const Array<Direction> directions(rows, 0);
    const Array<double> element(matrix.elements.size(), 0);
    const Array<unsigned long long> unfit(1, 0);
    encoder.encode(
        there.data(), matrix.rows,
        EncodedRows{bytes.codes.data(), bytes.terms.data(), square.data(), directions.data(), element.data()},
        unfit.data(), stream.view());
    byte_codes = on_host(bytes.codes, stream);
    byte_terms = on_host(bytes.terms, stream);
    elements = on_host(element, stream);
    squares = on_host(square, stream);
    if (encoder.directions() == 0) return;
    projected = Codes(matrix.rows, encoder.projected_bytes(), 0);
    const Array<std::int32_t> products(rows * static_cast<std::size_t>(bytes_of_a_direction * encoder.directions()), 0);
    encoder.project(bytes.view(), square.data(), matrix.rows, products.data(), projected, 0, stream.view());
    projected_codes = on_host(projected.codes, stream);
    projected_terms = on_host(projected.terms, stream);
  }
};

using Wide = long double;

Wide length(const std::vector<Wide>& vector) {
  Wide sum = 0;
  for (const Wide element : vector) sum += element * element;
  return std::sqrt(sum);
}

std::vector<Wide> decoded(const std::vector<std::int8_t>& codes, std::int64_t row, std::int64_t row_bytes,
                          std::int64_t columns, const Terms& terms) {
  std::vector<Wide> values;
  for (std::int64_t j = 0; j < columns; ++j) {
    const auto code = static_cast<Wide>(codes[static_cast<std::size_t>(row * row_bytes + j)]);
    values.push_back(static_cast<Wide>(terms.scale) * (code - static_cast<Wide>(terms.zero)));
  }
  return values;
}

std::vector<Wide> difference(const std::vector<Wide>& a, const std::vector<Wide>& b) {
  std::vector<Wide> values(a.size());
  for (std::size_t j = 0; j < a.size(); ++j) values[j] = a[j] - b[j];
  return values;
}

int product_of(const std::vector<std::int8_t>& a, std::int64_t row, const std::vector<std::int8_t>& b,
               std::int64_t other, std::int64_t row_bytes) {
  int sum = 0;
  for (std::int64_t j = 0; j < row_bytes; ++j) {
    sum += a[static_cast<std::size_t>(row * row_bytes + j)] * b[static_cast<std::size_t>(other * row_bytes + j)];
  }
  return sum;
}

// What the terms say of the codes, and of the values that were encoded.
void terms_hold(const std::vector<std::int8_t>& codes, std::int64_t row, std::int64_t row_bytes, const Terms& terms,
                const std::vector<Wide>& values, const std::string& detail) {
  const auto columns = static_cast<std::int64_t>(values.size());
  const std::vector<Wide> stored = decoded(codes, row, row_bytes, columns, terms);
  CHECK_FOR(length(difference(values, stored)) <= static_cast<Wide>(terms.radius), detail);
  Wide total = 0;
  bool padded = true;
  for (std::int64_t j = 0; j < row_bytes; ++j) {
    const int code = codes[static_cast<std::size_t>(row * row_bytes + j)];
    padded = padded && (j < columns || code == 0);
    total += code;
  }
  CHECK_FOR(padded, detail);
  CHECK_FOR(static_cast<Wide>(terms.total) == total, detail);
  CHECK_FOR(static_cast<Wide>(terms.sum) == total - static_cast<Wide>(columns) * static_cast<Wide>(terms.zero), detail);
  const Wide norm = length(stored) * length(stored);
  CHECK_FOR(std::fabs(static_cast<Wide>(terms.norm) - norm) <= norm * 0x1p-52L, detail);
}

// The rows of a basis made orthonormal, for the projector onto them.
std::vector<std::vector<Wide>> orthonormal(const std::vector<std::vector<Wide>>& basis) {
  std::vector<std::vector<Wide>> rows;
  for (std::vector<Wide> row : basis) {
    for (int turn = 0; turn < 2; ++turn) {
      for (const auto& other : rows) {
        Wide product = 0;
        for (std::size_t j = 0; j < row.size(); ++j) product += row[j] * other[j];
        for (std::size_t j = 0; j < row.size(); ++j) row[j] -= product * other[j];
      }
    }
    const Wide size = length(row);
    for (Wide& element : row) element /= size;
    rows.push_back(row);
  }
  return rows;
}

// Everything that the bounds stand on, for every row, every pair and every level, in extended precision.
template <class T>
void bounds_hold(Matrix<T> bank, const Matrix<T>& queries, Metric metric, std::int64_t directions, bool centred,
                 double skew, std::string name, const Stream& stream) {
  const std::int64_t columns = bank.columns;
  name += (metric == Metric::cosine ? ", cosine, columns " : ", columns ") + std::to_string(columns);
  OwnedSetup owned = make_setup(bank, metric, widths(directions), centred, skew);
  const Encoder encoder(owned.setup, columns, stream.view());
  CHECK(encoder.directions() == directions);
  const EncodedOnHost<T> rows(bank, encoder, stream);
  const EncodedOnHost<T> others(queries, encoder, stream);
  const auto scale = static_cast<Wide>(owned.setup.scale);
  const Rules rules = encoder.rules(false);
  const Rules projected_rules = encoder.rules(true);

  std::vector<std::vector<Wide>> basis;
  std::vector<Wide> centre;
  if (directions > 0) {
    const IntegerBasis integers(owned.setup.basis, directions);
    for (std::int64_t i = 0; i < directions; ++i) {
      std::vector<Wide> row;
      for (std::int64_t j = 0; j < columns; ++j) {
        const auto byte = [&](std::int64_t of) {
          return integers.vectors()[static_cast<std::size_t>(of * integers.row_bytes() + j)];
        };
        row.push_back(static_cast<Wide>(integers.scale(i)) * (128 * byte(i) + byte(i + directions)));
      }
      basis.push_back(row);
    }
    std::vector<double> middle;
    for (std::size_t j = 0; j < owned.setup.mean.size(); ++j) {
      middle.push_back((owned.setup.mean[j] - owned.setup.reference[j]) * owned.setup.scale);
    }
    for (const double number : integers.project(middle)) centre.push_back(static_cast<Wide>(number));
  }
  const std::vector<std::vector<Wide>> projector = orthonormal(basis);

  const auto values_of = [&](const EncodedOnHost<T>& of, std::int64_t row) {
    std::vector<Wide> values;
    for (std::int64_t j = 0; j < columns; ++j) {
      values.push_back(scale * (static_cast<Wide>(of.elements[static_cast<std::size_t>(row * columns + j)]) -
                                static_cast<Wide>(owned.setup.reference[static_cast<std::size_t>(j)])));
    }
    return values;
  };
  const auto rows_hold = [&](const EncodedOnHost<T>& of, std::int64_t count) {
    for (std::int64_t row = 0; row < count; ++row) {
      const auto i = static_cast<std::size_t>(row);
      const std::string detail = name + ", row " + std::to_string(row);
      if (of.squares[i] < 0) {
        CHECK_FOR(std::isinf(of.byte_terms[i].radius) && of.byte_terms[i].norm == 0, detail);
        continue;
      }
      const std::vector<Wide> values = values_of(of, row);
      terms_hold(of.byte_codes, row, encoder.row_bytes(), of.byte_terms[i], values, detail);
      if (directions == 0) continue;
      std::vector<Wide> coordinates;
      for (std::size_t d = 0; d < basis.size(); ++d) {
        Wide sum = 0;
        for (std::size_t j = 0; j < values.size(); ++j) sum += basis[d][j] * values[j];
        coordinates.push_back(sum - centre[d]);
      }
      terms_hold(of.projected_codes, row, encoder.projected_bytes(), of.projected_terms[i], coordinates,
                 detail + ", projected");
      std::vector<Wide> outside = values;
      for (const auto& direction : projector) {
        Wide product = 0;
        for (std::size_t j = 0; j < values.size(); ++j) product += direction[j] * values[j];
        for (std::size_t j = 0; j < values.size(); ++j) outside[j] -= product * direction[j];
      }
      const Wide rounding = length(values) * 1e-17L;
      const Wide residual = length(outside);
      CHECK_FOR(static_cast<Wide>(of.projected_terms[i].residual_low) <= residual + rounding, detail);
      CHECK_FOR(residual - rounding <= static_cast<Wide>(of.projected_terms[i].residual_high), detail);
    }
  };
  rows_hold(rows, bank.rows);
  rows_hold(others, queries.rows);

  std::vector<double> row_directions(static_cast<std::size_t>(2 * bank.rows));
  const Rows<T> exact(rows_in_memory(bank.view()), metric, row_directions.data());
  std::vector<ExactRow> exact_rows(static_cast<std::size_t>(bank.rows));
  for (std::int64_t row = 0; row < bank.rows; ++row)
    exact.admit(row, bank.row(row), exact_rows[static_cast<std::size_t>(row)]);
  for (std::int64_t q = 0; q < queries.rows; ++q) {
    const auto other = static_cast<std::size_t>(q);
    ExactRow query;
    exact.read_query(q, queries.view().row(q), query);
    // The rows as the metric sees them are the CPU's, bit for bit.
    CHECK_FOR(std::equal(query.elements.begin(), query.elements.end(), others.elements.begin() + q * columns), name);
    for (std::int64_t row = 0; row < bank.rows; ++row) {
      const auto i = static_cast<std::size_t>(row);
      const std::string detail = name + ", row " + std::to_string(row) + ", query " + std::to_string(q);
      const double computed = std::sqrt(exact.squared_distance(row, bank.row(row), query)) * owned.setup.scale;
      const double threshold = std::nextafter(computed, std::numeric_limits<double>::infinity());
      const int product = product_of(rows.byte_codes, row, others.byte_codes, q, encoder.row_bytes());
      const Comparison comparison = compare(rows.byte_terms[i], others.byte_terms[other], product, rules);
      CHECK_FOR(lower_bound(comparison, rules) <= computed && computed <= upper_bound(comparison, rules), detail);
      CHECK_FOR(!is_beyond(comparison, reach_of(threshold, rules)), detail);
      const bool placed = rows.squares[i] >= 0 && others.squares[other] >= 0;
      if (placed) {
        const Wide between =
            length(difference(decoded(rows.byte_codes, row, encoder.row_bytes(), columns, rows.byte_terms[i]),
                              decoded(others.byte_codes, q, encoder.row_bytes(), columns, others.byte_terms[other])));
        CHECK_FOR(std::fabs(static_cast<Wide>(comparison.squared) - between * between) <=
                      static_cast<Wide>(comparison.uncertain), detail);
      }
      if (directions == 0) continue;
      const int along = product_of(rows.projected_codes, row, others.projected_codes, q, encoder.projected_bytes());
      const Comparison inside = compare(rows.projected_terms[i], others.projected_terms[other], along, projected_rules);
      CHECK_FOR(!is_beyond(inside, reach_of(threshold, projected_rules)), detail + ", projected");
    }
  }
}

void bounds_hold_on_all_banks(const Stream& stream) {
  for (int kind = 0; kind < test::bank_kinds; ++kind) {
    for (const Metric metric : {Metric::euclidean, Metric::cosine}) {
      for (const std::int64_t columns : {1, 17, 200}) {
        std::string name;
        std::string other;
        Matrix<float> queries = make_bank<float>(kind, 6, columns, name);
        const Matrix<float> strange = make_bank<float>((kind + 1) % test::bank_kinds, 6, columns, other);
        std::copy(strange.elements.begin() + 3 * columns, strange.elements.end(),
                  queries.elements.begin() + 3 * columns);
        bounds_hold<float>(make_bank<float>(kind, 24, columns, name), queries, metric, columns > 7 ? 7 : 0,
                           kind % 2 == 0, 0, name, stream);
        bounds_hold<double>(make_bank<double>(kind, 10, columns, name), make_bank<double>(kind, 4, columns, other),
                            metric, columns > 16 ? 16 : 0, kind % 2 == 1, 0, name, stream);
      }
    }
  }
}

// Rows inside a basis that is far from orthonormal: their coordinates are longer or shorter than they are.
void skewed_bases_are_allowed_for(const Stream& stream) {
  constexpr std::int64_t columns = 48;
  constexpr std::int64_t directions = 20;
  const std::vector<float> basis = test::random_basis(directions, columns, 7);
  for (const double skew : {0.05, 0.11}) {
    Matrix<float> bank(60, columns);
    for (std::int64_t i = 0; i < bank.rows; ++i) {
      for (std::int64_t j = 0; j < columns; ++j) {
        bank.row(i)[j] = static_cast<float>(i - 30) * basis[static_cast<std::size_t>(i % directions * columns + j)];
      }
    }
    bounds_hold<float>(bank, first_rows(bank, 60), Metric::euclidean, directions, false, skew, "skew", stream);
  }
  // One column: what codes lose is all along the one direction, which is too long.
  std::string name;
  bounds_hold<double>(make_bank<double>(0, 40, 1, name), make_bank<double>(13, 3, 1, name), Metric::euclidean, 1, false,
                      0.18, "one long direction", stream);
}

// The radius holds what the subtraction of the reference is rounded by, also where the codes lose nothing.
void rounding_of_exact_codes_is_in_the_radius(const Stream& stream) {
  Matrix<double> bank(40, 1);
  // With codes that reach 2^20 - 1 steps, so long a row is a whole number of its own steps.
  for (std::int64_t i = 0; i < bank.rows; ++i) {
    bank.row(i)[0] = 1048575.0 * (1 + static_cast<double>(i) * 0x1p-23) * 0x1p-20;
  }
  OwnedSetup owned = make_setup(bank, Metric::euclidean, {}, false);
  owned.setup.reference[0] = 0x1.5555p-60;  // less than half of the last bit
  const Encoder encoder(owned.setup, 1, stream.view());
  const EncodedOnHost<double> rows(bank, encoder, stream);
  int exact = 0;
  for (std::size_t i = 0; i < 40; ++i) {
    const Terms& terms = rows.byte_terms[i];
    const Wide value = static_cast<Wide>(owned.setup.scale) *
                       (static_cast<Wide>(bank.elements[i]) - static_cast<Wide>(owned.setup.reference[0]));
    const Wide stored =
        static_cast<Wide>(terms.scale) * (static_cast<Wide>(rows.byte_codes[64 * i]) - static_cast<Wide>(terms.zero));
    exact += static_cast<double>(stored) == bank.elements[i] * owned.setup.scale ? 1 : 0;
    CHECK(std::fabs(value - stored) <= static_cast<Wide>(terms.radius));
  }
  CHECK(exact > 0);
}

// The distance that decides is rounded: sums whose small terms are all lost, and distances that fall out of float64.
void rounded_distances_are_within_the_bounds(const Stream& stream) {
  for (const std::int64_t columns : {64, 1024, 32768}) {
    Matrix<double> bank(2, columns);
    for (const double rest : {0x1.fp-27, 0x1.8p-26}) {
      // Sixteen sums of one 1 each and terms that are rounded away, or up, every time.
      for (std::int64_t j = 0; j < columns; ++j) bank.row(1)[j] = j < 16 ? 1 : rest;
      const OwnedSetup owned = make_setup(bank, Metric::euclidean, {}, false);
      const Encoder encoder(owned.setup, columns, stream.view());
      Wide sum = 0;
      for (std::int64_t j = 0; j < columns; ++j)
        sum += static_cast<Wide>(bank.row(1)[j]) * static_cast<Wide>(bank.row(1)[j]);
      const Rows<double> rows(rows_in_memory(bank.view()), Metric::euclidean, nullptr);
      ExactRow query;
      rows.read_query(0, bank.row(0), query);
      const double computed = std::sqrt(rows.squared_distance(1, bank.row(1), query)) * owned.setup.scale;
      for (const bool projected : {false, true}) {
        // As if the codes told the true distance, of which the next number above or below is the nearest to ours.
        Rules rules = encoder.rules(false);
        rules.projected = projected;
        const double squared = static_cast<double>(sum) * owned.setup.scale * owned.setup.scale;
        const Comparison comparison{squared, 0, 0, 0};
        CHECK(lower_bound(comparison, rules) <= computed && computed <= upper_bound(comparison, rules));
        CHECK(!is_beyond(comparison, reach_of(computed, rules)));
      }
    }
  }
  // Distances of 2^-538 a column, whose squares are nothing, or the smallest number that there is.
  const Matrix<double> bank(2, 1);
  OwnedSetup owned = make_setup(bank, Metric::euclidean, {}, false);
  owned.setup.scale = 0x1p499;
  for (const std::int64_t columns : {1, 4096}) {
    owned.setup.reference.assign(static_cast<std::size_t>(columns), 0);
    owned.setup.mean = owned.setup.reference;
    const Rules rules = Encoder(owned.setup, columns, stream.view()).rules(false);
    const double distance = std::sqrt(static_cast<double>(columns)) * 0x1p-538 * 0x1p499;
    const Comparison lost{distance * distance, 0, 0, 0};
    CHECK(lower_bound(lost, rules) <= 0 && !is_beyond(lost, reach_of(0, rules)));
    const Comparison gained{distance * distance / 2, 0, 0, 0};
    CHECK(upper_bound(gained, rules) >= std::sqrt(static_cast<double>(columns) * 0x1p-1074) * 0x1p499);
  }
}

// What is rounded in the bounds themselves is allowed for: comparisons whose bounds are known, of every size.
void rounding_of_the_bounds_is_allowed_for() {
  std::mt19937_64 random(4);
  std::uniform_real_distribution<double> uniform(0.5, 1);
  const Rules rules{1, 0, 0, 1, false};
  const double infinity = std::numeric_limits<double>::infinity();
  for (int i = 0; i < 4000; ++i) {
    const double distance = uniform(random);
    const double radius = std::ldexp(uniform(random), -(i % 60));
    const auto far = static_cast<Wide>(distance) + static_cast<Wide>(radius);
    // At D = distance + radius the row may be as near as the distance, and no nearer.
    const double above = std::nextafter(static_cast<double>(far * far), infinity);
    CHECK(!is_beyond({above, 0, radius, 0}, distance));
    CHECK(lower_bound({above, 0, radius, 0}, rules) <= distance);
    CHECK(is_beyond({above * (1 + 0x1p-46), 0, radius, 0}, distance));
    // At D = distance it may be as far as distance + radius.
    const double square = std::nextafter(distance * distance, 0.0);
    CHECK(static_cast<Wide>(upper_bound({square, 0, radius, 0}, rules)) >= far);
    const auto tiny = std::ldexp(distance, -58);
    CHECK(static_cast<Wide>(upper_bound({tiny * tiny, 0, 1, 0}, rules)) >= 1 + static_cast<Wide>(tiny));
    // D^2 may be wrong by what is uncertain, either way.
    const double uncertain = square / 4;
    CHECK(!is_beyond({square + uncertain, uncertain, 0, 0}, distance));
    CHECK(lower_bound({square + uncertain, uncertain, 0, 0}, rules) <= distance);
    CHECK(upper_bound({square - uncertain, uncertain, 0, 0}, rules) >= distance * (1 - 0x1p-52));
    // Residuals stand at right angles to what is inside.
    CHECK(!is_beyond({square / 2, 0, 0, std::sqrt(square / 2)}, distance));
    CHECK(is_beyond({square, 0, 0, distance / 16}, distance));
  }
  // Residuals differ by what lies between their intervals.
  const auto interval = [](float low, float high) { return Terms{0, 0, 0, 0, 0, 0, low, high}; };
  const Rules projected{1, 0, 0, 1, true};
  const auto apart = [&](const Terms& row, const Terms& query) { return compare(row, query, 0, projected).apart; };
  for (const Terms& wide : {interval(0, 8), interval(1, 8), interval(0, 2)}) {
    CHECK(apart(wide, interval(1, 2)) == 0 && apart(interval(1, 2), wide) == 0);
  }
  CHECK(apart(interval(5, 7), interval(1, 2)) == 3 && apart(interval(1, 2), interval(5, 7)) == 3);
}

// A bound that says nothing would hold as well: on ordinary data it has to be narrow.
void bounds_are_narrow(const Stream& stream) {
  std::string name;
  Matrix<float> bank = make_bank<float>(1, 96, 512, name);
  const OwnedSetup owned = make_setup(bank, Metric::euclidean, {128}, false);
  const Encoder encoder(owned.setup, 512, stream.view());
  const EncodedOnHost<float> rows(bank, encoder, stream);
  const Rules rules = encoder.rules(false);
  const Rules inside = encoder.rules(true);
  const Rows<float> exact(rows_in_memory(bank.view()), Metric::euclidean, nullptr);
  ExactRow query;
  exact.read_query(0, bank.row(0), query);
  for (std::int64_t row = 1; row < bank.rows; ++row) {
    const auto i = static_cast<std::size_t>(row);
    const double distance = std::sqrt(exact.squared_distance(row, bank.row(row), query)) * owned.setup.scale;
    const int product = product_of(rows.byte_codes, row, rows.byte_codes, 0, encoder.row_bytes());
    const Comparison comparison = compare(rows.byte_terms[i], rows.byte_terms[0], product, rules);
    CHECK(lower_bound(comparison, rules) > 0.97 * distance && upper_bound(comparison, rules) < 1.03 * distance);
    CHECK(is_beyond(comparison, reach_of(0.97 * distance, rules)));
    const Terms& projected = rows.projected_terms[i];
    CHECK(projected.residual_low > 0 && projected.residual_high < 1.2F * projected.residual_low);
    const int along = product_of(rows.projected_codes, row, rows.projected_codes, 0, encoder.projected_bytes());
    CHECK(is_beyond(compare(rows.projected_terms[i], rows.projected_terms[0], along, inside),
                    reach_of(0.25 * distance, inside)));
  }
}

// Also where what the codes lose, or the distance, is too small for its square.
void bounds_hold_for_small_rows(const Stream& stream) {
  for (const auto& [small, large] : {std::pair<int, int>{-140, 400}, {-542, -480}}) {
    Matrix<double> bank(12, 1);
    for (std::int64_t i = 0; i < bank.rows; ++i) {
      bank.row(i)[0] = std::ldexp(1 + static_cast<double>(i) / 16, i < 10 ? small : large);
    }
    OwnedSetup owned = make_setup(bank, Metric::euclidean, {}, false);
    owned.setup.scale = std::ldexp(1.0, -large - 1);
    const Encoder encoder(owned.setup, 1, stream.view());
    const EncodedOnHost<double> rows(bank, encoder, stream);
    const Rules rules = encoder.rules(false);
    for (std::size_t a = 0; a < 12; ++a) {
      for (std::size_t b = 0; b < 12; ++b) {
        const double difference = bank.elements[a] - bank.elements[b];
        const double computed = std::sqrt(difference * difference) * owned.setup.scale;
        const int product = rows.byte_codes[64 * a] * rows.byte_codes[64 * b];
        const Comparison comparison = compare(rows.byte_terms[a], rows.byte_terms[b], product, rules);
        CHECK(lower_bound(comparison, rules) <= computed && computed <= upper_bound(comparison, rules));
        CHECK(!is_beyond(comparison, reach_of(computed, rules)));
      }
    }
  }
}

// -- kernels one by one -----------------------------------------------------------------------------------------------

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
  const Rules rules = encoder.rules(false);
  const std::vector<Chunk> chunks = {{{1, 0}, 0, 310}, {{2, 0}, 17, 131}, {{1, 3}, 5, 130}};
  for (const std::int64_t queries : {1, 2, 3, 7, 9, 33, 150}) {
    SearchSizes sizes;
    const SearchPlan plan(count, 3, queries, 0, sizes);
    ListMemory memory;
    memory.reserve(plan, 0);
    const Lists& lists = memory.lists();
    const Chunk chunk = chunks[static_cast<std::size_t>(queries) % chunks.size()];
    std::vector<double> thresholds;
    for (std::int64_t q = 0; q < queries; ++q) thresholds.push_back(2.0 + 0.13 * static_cast<double>(q % 40));
    overwrite(lists.threshold, thresholds, stream);
    overwrite(lists.count, std::vector<int>(static_cast<std::size_t>(queries), 0), stream);
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
           3);
    const std::vector<double> tightened = read(lists.threshold, static_cast<std::size_t>(queries), stream);
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
        if (!is_beyond(comparison, reach_of(thresholds[static_cast<std::size_t>(q)], rules)))
          wanted.insert({row, product});
      }
      std::set<std::pair<int, int>> found;
      std::vector<float> uppers;
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
        uppers.push_back(upper[place]);
      }
      CHECK_FOR(found == wanted && found.size() == length, detail);
      in_lists += static_cast<std::int64_t>(length);
      double threshold = thresholds[static_cast<std::size_t>(q)];
      if (length >= 3) {
        std::sort(uppers.begin(), uppers.end());
        threshold = std::min(threshold, static_cast<double>(uppers[2]));
      }
      CHECK_FOR(tightened[static_cast<std::size_t>(q)] == threshold, detail);
    }
    CHECK(in_lists > queries && in_lists < queries * chunk.count);
  }
}

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
    rounding_of_exact_codes_is_in_the_radius(stream);
    rounding_of_the_bounds_is_allowed_for();
    rounded_distances_are_within_the_bounds(stream);
    bounds_are_narrow(stream);
    bounds_hold_for_small_rows(stream);
    bounds_hold_on_all_banks(stream);
    skewed_bases_are_allowed_for(stream);
    lists_are_what_the_bounds_say(stream);
    the_start_is_chosen(stream);
    all_banks_are_searched(stream);
    odd_shapes_are_searched(stream);
    queries_may_have_the_other_type(stream);
    overflow_is_made_good(stream);
    every_k_is_served(stream);
    all_pairs_are_found(stream);
    far_queries_are_answered(stream);
    underflow_is_allowed_for(stream);
    one_index_serves_two_threads(stream);
    what_cannot_be_measured_is_refused_by_row(stream);
    arguments_are_checked(stream);
    memory_is_as_stated(stream);
  });
}

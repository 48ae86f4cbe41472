#include "onnxviz/neighbors.h"

#include <algorithm>
#include <limits>
#include <stdexcept>
#include <utility>
#include <vector>

#include "check.h"

using namespace onnxviz;
using onnxviz::test::contains;
using onnxviz::test::levels_of;
using onnxviz::test::make_bank;
using onnxviz::test::make_setup;
using onnxviz::test::Matrix;
using onnxviz::test::message_of;
using onnxviz::test::OwnedSetup;

namespace {

// The distance in the order of summation that neighbors.h lays down.
template <class T>
double squared_in_order(const T* row, const T* query, std::int64_t columns) {
  double sums[16] = {};
  for (std::int64_t j = 0; j < columns; ++j) {
    const double difference = static_cast<double>(row[j]) - static_cast<double>(query[j]);
    const double square = difference * difference;
    sums[j % 16] += square;
  }
  for (int width = 8; width > 0; width /= 2) {
    for (int l = 0; l < width; ++l) sums[l] += sums[l + width];
  }
  return sums[0];
}

// An index with its levels and their memory.
template <class T>
struct OwnedIndex {
  OwnedSetup owned;
  NeighborIndex index;

  OwnedIndex(const Matrix<T>& bank, Metric metric, int threads, bool bytes = true)
      : owned(make_setup(bank, metric, bank.columns > 12 ? std::vector<std::int64_t>{5, 12} : std::vector<std::int64_t>{}, false)),
        index(rows_in_memory(bank.view()), levels_of(owned.setup, bytes)) {
    // In two parts, as a large bank is.
    index.encode(0, bank.rows / 3, threads);
    index.encode(bank.rows / 3, bank.rows - bank.rows / 3, threads);
    index.choose_start(threads);
  }
};

template <class T>
void same_as_brute_force(int kind, std::int64_t rows, std::int64_t columns, std::int64_t k, bool bytes) {
  std::string name;
  Matrix<T> bank = make_bank<T>(kind, rows, columns, name);
  const std::int64_t count = std::min<std::int64_t>(rows, 53);
  const MatrixView<T> queries{bank.elements.data(), count, columns};
  std::vector<double> wanted_distances;
  std::vector<std::int64_t> wanted_indices;
  for (std::int64_t q = 0; q < count; ++q) {
    std::vector<std::pair<double, std::int64_t>> all;
    for (std::int64_t i = 0; i < rows; ++i) all.emplace_back(squared_in_order(bank.row(i), bank.row(q), columns), i);
    std::sort(all.begin(), all.end());
    for (std::int64_t n = 0; n < k; ++n) {
      wanted_distances.push_back(std::sqrt(all[static_cast<std::size_t>(n)].first));
      wanted_indices.push_back(all[static_cast<std::size_t>(n)].second);
    }
  }
  OwnedIndex<T> owned(bank, Metric::euclidean, 2, bytes);
  const int levels = static_cast<int>(owned.owned.setup.levels.size());
  for (int start = 0; start < levels; ++start) {
    owned.index.set_start({start, start, levels - 1});
    for (const int threads : {1, 2, 5}) {
      std::vector<double> distances(static_cast<std::size_t>(count * k), -1);
      std::vector<std::int64_t> indices(static_cast<std::size_t>(count * k), -1);
      owned.index.query(queries, k, distances.data(), indices.data(), threads);
      CHECK_FOR(indices == wanted_indices, name);
      CHECK_FOR(distances == wanted_distances, name);
      // The rows themselves, the first of which are the queries.
      std::vector<double> all_distances(static_cast<std::size_t>(rows * k), -1);
      std::vector<std::int64_t> all_indices(static_cast<std::size_t>(rows * k), -1);
      std::int64_t told = 0;
      owned.index.query_all_rows(k, all_distances.data(), all_indices.data(), threads,
                                 [&](std::int64_t done, std::int64_t of) { told += done <= of ? 1 : 0; });
      CHECK_FOR(told > 0, name);
      CHECK_FOR(std::equal(wanted_indices.begin(), wanted_indices.end(), all_indices.begin()), name);
      CHECK_FOR(std::equal(wanted_distances.begin(), wanted_distances.end(), all_distances.begin()), name);
      // One or two queries go another way than many.
      for (std::int64_t q = 0; q < std::min<std::int64_t>(count, 4); ++q) {
        owned.index.query(MatrixView<T>{queries.row(q), 1, columns}, k, distances.data(), indices.data(), threads);
        CHECK_FOR(std::equal(indices.begin(), indices.begin() + k, wanted_indices.begin() + q * k), name);
        CHECK_FOR(std::equal(distances.begin(), distances.begin() + k, wanted_distances.begin() + q * k), name);
      }
    }
    // Radii that are distances themselves: the border belongs to the ball.
    for (std::int64_t q = 0; q < std::min<std::int64_t>(count, 4); ++q) {
      const double radius = wanted_distances[static_cast<std::size_t>(q * k + k / 2)];
      std::vector<std::pair<double, std::int64_t>> inside;
      for (std::int64_t i = 0; i < rows; ++i) {
        const double distance = std::sqrt(squared_in_order(bank.row(i), bank.row(q), columns));
        if (distance <= radius) inside.emplace_back(distance, i);
      }
      std::sort(inside.begin(), inside.end());
      const WithinRadius found = owned.index.within(MatrixView<T>{queries.row(q), 1, columns}, radius, 2);
      bool same = found.indices.size() == inside.size() && found.offsets.size() == 2 && found.offsets[0] == 0 &&
                  found.offsets[1] == static_cast<std::int64_t>(inside.size());
      for (std::size_t i = 0; same && i < inside.size(); ++i) {
        same = found.indices[i] == inside[i].second && found.distances[i] == inside[i].first;
      }
      CHECK_FOR(same, name);
    }
  }
}

void cosine_of_known_angles() {
  Matrix<float> bank(5, 2);
  bank.elements = {3, 0, 0, 0.5F, -7, 0, 0, 0, 1e-30F, 1e-30F};
  const OwnedIndex<float> owned(bank, Metric::cosine, 1);
  const NeighborIndex& index = owned.index;
  Matrix<float> queries(2, 2);
  queries.elements = {2, 0, 0, 0};
  double distances[10];
  std::int64_t indices[10];
  index.query(queries.view(), 5, distances, indices, 1);
  const std::int64_t order[] = {0, 4, 1, 3, 2};
  CHECK(std::equal(order, order + 5, indices));
  const double wanted[] = {0, 1 - std::sqrt(0.5), 1, 1, 2};
  for (int i = 0; i < 5; ++i) CHECK(std::fabs(distances[i] - wanted[i]) < 1e-15);
  // A query without direction is at right angles to all, ties to the lower row.
  for (int i = 0; i < 5; ++i) CHECK(indices[5 + i] == i && distances[5 + i] == 1);
}

void queries_far_outside_the_bank() {
  Matrix<double> bank(70, 3);
  for (std::int64_t i = 0; i < 70; ++i) bank.row(i)[0] = static_cast<double>(i) * 1e-3;
  const OwnedIndex<double> owned(bank, Metric::euclidean, 1);
  const NeighborIndex& index = owned.index;
  Matrix<double> query(1, 3);
  query.elements = {1e100, 0, 0};
  double distances[2];
  std::int64_t indices[2];
  index.query(query.view(), 2, distances, indices, 1);
  // 1e100 minus anything here is 1e100: all rows are equally far.
  CHECK(indices[0] == 0 && indices[1] == 1);
  CHECK(distances[0] == 1e100);
}

void what_cannot_be_measured_is_refused_by_row() {
  for (const double wrong : {std::numeric_limits<double>::quiet_NaN(), -std::numeric_limits<double>::infinity(), 2e150}) {
    Matrix<double> bank(300, 4);
    const OwnedIndex<double> owned(bank, Metric::cosine, 2);
    const NeighborIndex& index = owned.index;
    bank.row(271)[3] = wrong;
    std::string message = message_of<std::invalid_argument>([&] { OwnedIndex<double>(bank, Metric::cosine, 2); });
    CHECK_FOR(contains(message, "row 271 of the bank"), message);
    double distance = 0;
    std::int64_t neighbor = 0;
    const MatrixView<double> query{bank.row(271), 1, 4};
    message = message_of<std::invalid_argument>([&] { index.query(query, 1, &distance, &neighbor, 1); });
    CHECK_FOR(contains(message, "row 0 of the queries"), message);
  }
  Matrix<float> bank(3, 4);
  const OwnedIndex<float> owned(bank, Metric::euclidean, 1);
  const NeighborIndex& index = owned.index;
  double distances[4];
  std::int64_t indices[4];
  for (const std::int64_t k : {0, 4, -1}) {
    const std::string message =
        message_of<std::invalid_argument>([&] { index.query(bank.view(), k, distances, indices, 1); });
    CHECK_FOR(contains(message, "allowed: 1 to 3"), message);
  }
  const std::string message = message_of<std::invalid_argument>(
      [&] { index.query(MatrixView<float>{bank.elements.data(), 1, 3}, 1, distances, indices, 1); });
  CHECK_FOR(contains(message, "3 columns"), message);
  CHECK(!message_of<std::invalid_argument>([&] {
           NeighborIndex(rows_in_memory(MatrixView<float>{nullptr, 0, 4}), owned.owned.setup);
         }).empty());
  CHECK(!message_of<std::invalid_argument>([&] { index.within(bank.view(), -1, 1); }).empty());
  index.query(MatrixView<float>{bank.elements.data(), 0, 4}, 1, distances, indices, 1);  // no queries, no answers
}

}  // namespace

int main() {
  return onnxviz::test::run([] {
    for (int kind = 0; kind < onnxviz::test::bank_kinds; ++kind) {
      for (const bool bytes : {true, false}) {
        same_as_brute_force<float>(kind, 300, 67, 5, bytes);
        same_as_brute_force<double>(kind, 131, 40, 7, bytes);
        same_as_brute_force<float>(kind, 65, 600, 65, bytes);
        same_as_brute_force<float>(kind, 1, 1, 1, bytes);
      }
    }
    cosine_of_known_angles();
    queries_far_outside_the_bank();
    what_cannot_be_measured_is_refused_by_row();
  });
}

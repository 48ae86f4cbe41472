// The bounds that exactness stands on: for every pair of row and query, at every level, in every form of the query,
// against extended precision.
#include "levels.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "check.h"
#include "kernels_in_use.h"
#include "rows.h"

using namespace onnxviz;
using onnxviz::test::levels_of;
using onnxviz::test::make_bank;
using onnxviz::test::make_setup;
using onnxviz::test::Matrix;
using onnxviz::test::OwnedSetup;

namespace {

// sum_j (x_j - q_j)^2 of rows as the metric sees them, in the widest type there is.
long double squared(const ExactRow& row, const ExactRow& query) {
  long double sum = 0;
  for (std::size_t j = 0; j < row.elements.size(); ++j) {
    const long double difference =
        static_cast<long double>(row.elements[j]) - static_cast<long double>(query.elements[j]);
    sum += difference * difference;
  }
  return sum;
}

template <class T>
struct Encoded {
  Matrix<T> bank;
  OwnedSetup owned;
  Rows<T> rows;
  Levels levels;
  std::vector<ExactRow> exact;

  Encoded(Matrix<T> matrix, Metric metric, const std::vector<std::int64_t>& projected, bool centred, double skew = 0,
          bool bytes = true)
      : bank(std::move(matrix)),
        owned(make_setup(bank, metric, projected, centred, skew)),
        rows(rows_in_memory(bank.view()), metric, owned.setup.directions),
        levels(levels_of(owned.setup, bytes), bank.columns) {
    Levels::Workspace workspace;
    for (std::int64_t first = 0; first < bank.rows; first += 50) {
      const std::int64_t last = std::min(bank.rows, first + 50);
      workspace.rows.resize(static_cast<std::size_t>(last - first));
      for (std::int64_t i = first; i < last; ++i) {
        rows.admit(i, bank.row(i), workspace.rows[static_cast<std::size_t>(i - first)]);
        exact.push_back(workspace.rows[static_cast<std::size_t>(i - first)]);
      }
      levels.encode(first, workspace);
    }
  }
};

struct Pair {
  long double exact;     // distance in the levels' units
  long double computed;  // the one that decides
  std::string detail;
};

// What a look proves of all rows: none that is as near as `distance` may be left out.
void within_reach_holds(const Levels& levels, int level, const LevelQuery& query, const std::int8_t* vectors, int number,
                        std::int64_t count, const std::vector<Pair>& pairs) {
  const LevelShape& shape = levels.level(level).shape;
  const std::int64_t columns = levels.padded_columns(level);
  std::vector<std::int32_t> products(static_cast<std::size_t>(2 * count));
  levels.product(level)(levels.codes(level, 0), shape.row_bytes(), count, vectors, levels.vector_bytes(level), number,
                        columns, products.data(), count);
  std::vector<float> bounds(static_cast<std::size_t>(count));
  const BoundKernels& kernels = bound_kernels_in_use();
  kernels.squared_lower(levels.terms(level, 0), count, query.terms, number == 2 ? products.data() : nullptr,
                        number == 2 ? products.data() + count : products.data(), bounds.data());
  for (std::int64_t row = 0; row < count; ++row) {
    const Pair& pair = pairs[static_cast<std::size_t>(row)];
    // The smallest threshold with which this row is an answer.
    const auto distance = static_cast<double>(std::nextafter(pair.computed, 1e300L));
    std::int64_t found = 0;
    const std::int64_t kept = kernels.within_reach(bounds.data() + row, levels.level(level).memory.radius + row, 1,
                                                   levels.reach(query, distance), row, &found);
    CHECK_FOR(kept == 1 && found == row, pair.detail);
    double lower = 0;
    std::int64_t listed = row;
    const bool stays = levels.within(level, &listed, 1, query, vectors, number, distance, &lower) == 1 && listed == row;
    CHECK_FOR(stays && static_cast<long double>(lower) <= pair.exact && static_cast<long double>(lower) <= pair.computed,
              pair.detail);
  }
}

// The same of projected levels up to `level`, with the query in one or two vectors on each: side by side and row by row.
void parts_hold(const Levels& levels, int level, const FineQuery& query, int number, std::int64_t count,
                const std::vector<Pair>& pairs) {
  const BoundKernels& kernels = bound_kernels_in_use();
  std::vector<std::vector<std::int8_t>> vectors;
  std::vector<LevelQuery> queries;
  for (int part = 0; part <= level; ++part) {
    vectors.push_back(query.parts[static_cast<std::size_t>(part)]);
    queries.push_back(query.levels[static_cast<std::size_t>(part)]);
    if (number == 2) continue;
    std::fill(vectors.back().begin(), vectors.back().end(), std::int8_t{0});
    queries.back() = levels.coarse(part, query, vectors.back().data());
  }
  const float of_query = queries.back().part.residual;
  std::vector<std::uint8_t> unpacked;
  for (std::int64_t first = 0; first < count; first += rows_per_tile) {
    const std::int64_t rows = std::min(rows_per_tile, count - first);
    float squared[rows_per_tile];
    float lower[rows_per_tile];
    Levels::PartTable table;
    for (int part = 0; part <= level; ++part) {
      const auto place = static_cast<std::size_t>(part);
      std::vector<std::int32_t> products(static_cast<std::size_t>(9 * rows_per_tile));
      // So many vectors that four bits are unpacked; only the first or two of them matter.
      std::vector<std::int8_t> many(vectors[place]);
      many.resize(static_cast<std::size_t>(9 * levels.vector_bytes(part)));
      levels.products(part, first, rows, many.data(), levels.vector_bytes(part), 9, products.data(), unpacked);
      levels.read_parts(part, first, rows, table);
      kernels.part(table.rows(part == 0), rows, &queries[place].part, number == 2 ? products.data() : nullptr,
                   number == 2 ? products.data() + rows_per_tile : products.data(), squared);
    }
    kernels.less_residual(squared, table.residual, rows, of_query, lower);
    for (std::int64_t i = 0; i < rows; ++i) {
      const Pair& pair = pairs[static_cast<std::size_t>(first + i)];
      const auto distance = static_cast<double>(std::nextafter(pair.computed, 1e300L));
      const float limit = levels.limit(distance);
      std::int64_t found = 0;
      const bool left =
          kernels.within_limit(squared + i, table.residual + i, 1, of_query, limit, 0, &found) == 1 && found == 0;
      CHECK_FOR(left && !(lower[i] > limit), pair.detail);
      const auto root = static_cast<long double>(levels.root(lower[i]));
      CHECK_FOR(root <= pair.exact && root <= pair.computed, pair.detail);
      float alone = 0;
      std::int64_t listed = first + i;
      for (int part = 0; part <= level; ++part) {
        const auto place = static_cast<std::size_t>(part);
        const bool stays = levels.within_part(part, &listed, &alone, 1, queries[place], vectors[place].data(), number,
                                              limit) == 1;
        CHECK_FOR(stays && listed == first + i, pair.detail);
      }
    }
  }
}

template <class T>
void bounds_hold(Metric metric, int kind, std::int64_t count, std::int64_t columns, bool centred) {
  std::string name;
  Matrix<T> bank = make_bank<T>(kind, count, columns, name);
  Matrix<T> queries = make_bank<T>(kind, 12, columns, name);
  // The second half comes from another bank: queries need not look like the rows.
  std::string other;
  const Matrix<T> strange = make_bank<T>((kind + 1) % onnxviz::test::bank_kinds, 12, columns, other);
  std::copy(strange.elements.begin() + 6 * columns, strange.elements.end(), queries.elements.begin() + 6 * columns);
  std::vector<std::int64_t> projected;
  for (const std::int64_t width : {7, 40, 64}) {
    if (width < columns) projected.push_back(width);
  }
  const Encoded<T> encoded(std::move(bank), metric, projected, centred);
  const Levels& levels = encoded.levels;
  const auto scale = static_cast<long double>(levels.scale());
  for (std::int64_t q = 0; q < queries.rows + 4; ++q) {
    // The last few are rows of the bank, in their own codes as well.
    const std::int64_t own = q < queries.rows ? -1 : (q * 29) % count;
    FineQuery query;
    if (own < 0) {
      encoded.rows.read_query(q, queries.row(q), query.row);
    } else {
      encoded.rows.read(own, encoded.bank.view().row(own), query.row);
    }
    levels.prepare(query);
    if (!query.usable) {
      CHECK_FOR(query.row.without_direction || own < 0, name);
      continue;
    }
    std::vector<Pair> pairs;
    for (std::int64_t row = 0; row < count; ++row) {
      const ExactRow& exact = encoded.exact[static_cast<std::size_t>(row)];
      const double computed = encoded.rows.squared_distance(row, encoded.bank.view().row(row), query.row);
      const long double true_square = exact.without_direction ? 2 : squared(exact, query.row);
      pairs.push_back({std::sqrt(true_square) * scale, std::sqrt(static_cast<long double>(computed)) * scale,
                       name + (metric == Metric::cosine ? ", cosine" : "") + ", row " + std::to_string(row) +
                           ", query " + std::to_string(q) + ", columns " + std::to_string(columns)});
    }
    for (int level = 0; level < levels.count(); ++level) {
      for (std::int64_t row = 0; row < count; ++row) {
        const Pair& pair = pairs[static_cast<std::size_t>(row)];
        const Interval interval = levels.bounds(level, row, query);
        const auto lower = static_cast<long double>(interval.lower);
        const auto upper = static_cast<long double>(interval.upper);
        CHECK_FOR(lower <= pair.exact && lower <= pair.computed, pair.detail);
        CHECK_FOR(pair.exact <= upper && pair.computed <= upper, pair.detail);
      }
      if (levels.projected(level)) {
        parts_hold(levels, level, query, 2, count, pairs);
        parts_hold(levels, level, query, 1, count, pairs);
        continue;
      }
      within_reach_holds(levels, level, query.levels[static_cast<std::size_t>(level)], query.vectors.data(), 2, count,
                         pairs);
      std::vector<std::int8_t> vector(static_cast<std::size_t>(levels.vector_bytes(level)), 0);
      const LevelQuery coarse = levels.coarse(level, query, vector.data());
      within_reach_holds(levels, level, coarse, vector.data(), 1, count, pairs);
      if (own >= 0 && levels.has_coarse_rows(level)) {
        std::fill(vector.begin(), vector.end(), std::int8_t{0});
        const LevelQuery of_row = levels.coarse_of_row(level, own, vector.data());
        within_reach_holds(levels, level, of_row, vector.data(), 1, count, pairs);
      }
    }
  }
}

// Rows inside a basis that is far from orthonormal: their coordinates are longer or shorter than they are.
void skewed_bases_are_allowed_for() {
  constexpr std::int64_t columns = 48;
  constexpr std::int64_t directions = 20;
  const std::vector<float> basis = onnxviz::test::random_basis(directions, columns, 7);
  for (const double skew : {0.05, 0.11}) {
    Matrix<float> bank(90, columns);
    for (std::int64_t i = 0; i < bank.rows; ++i) {
      // Along one direction each, the same number of times the way there and back.
      const std::int64_t direction = i % directions;
      for (std::int64_t j = 0; j < columns; ++j) {
        bank.row(i)[j] = static_cast<float>(i - 45) * basis[static_cast<std::size_t>(direction * columns + j)];
      }
    }
    const Encoded<float> encoded(std::move(bank), Metric::euclidean, {directions}, false, skew);
    CHECK(encoded.levels.count() == 3);
    for (std::int64_t q = 0; q < encoded.bank.rows; ++q) {
      FineQuery query;
      encoded.rows.read(q, encoded.bank.view().row(q), query.row);
      encoded.levels.prepare(query);
      std::vector<Pair> pairs;
      for (std::int64_t row = 0; row < encoded.bank.rows; ++row) {
        const long double exact = std::sqrt(squared(encoded.exact[static_cast<std::size_t>(row)], query.row)) *
                                  static_cast<long double>(encoded.levels.scale());
        pairs.push_back({exact, exact, "skew, rows " + std::to_string(row) + " and " + std::to_string(q)});
        const Interval interval = encoded.levels.bounds(0, row, query);
        CHECK_FOR(static_cast<long double>(interval.lower) <= exact * (1 + 1e-12L), pairs.back().detail);
      }
      parts_hold(encoded.levels, 0, query, 2, encoded.bank.rows, pairs);
    }
  }
}

// What the other levels keep is the same with and without the eight bits that they are made from.
void levels_do_not_need_the_bytes() {
  for (int kind = 0; kind < onnxviz::test::bank_kinds; ++kind) {
    std::string name;
    const Matrix<float> bank = make_bank<float>(kind, 130, 200, name);
    const Encoded<float> with(bank, Metric::euclidean, {7, 40, 64}, false);
    const Encoded<float> without(bank, Metric::euclidean, {7, 40, 64}, false, 0, false);
    CHECK(without.levels.count() == with.levels.count() - 1);
    for (int level = 0; level < without.levels.count(); ++level) {
      const LevelMemory& one = with.levels.level(level).memory;
      const LevelMemory& other = without.levels.level(level).memory;
      const std::int64_t bytes = with.levels.level(level).shape.row_bytes();
      CHECK_FOR(std::equal(one.codes, one.codes + 130 * bytes, other.codes), name);
      if (with.levels.projected(level)) {
        CHECK_FOR(std::memcmp(one.parts, other.parts, 130 * sizeof(*one.parts)) == 0, name);
      } else {
        CHECK_FOR(std::equal(one.radius, one.radius + 130, other.radius), name);
        CHECK_FOR(std::equal(one.norm, one.norm + 130, other.norm), name);
      }
    }
  }
}

// A bound that says nothing would hold as well: on ordinary data it has to be narrow.
void bounds_are_narrow() {
  std::string name;
  const Encoded<float> encoded(make_bank<float>(1, 256, 1024, name), Metric::euclidean, {256}, false);
  const Levels& levels = encoded.levels;
  CHECK(levels.count() == 3);
  FineQuery query;
  encoded.rows.read_query(0, encoded.bank.view().row(0), query.row);
  levels.prepare(query);
  const double largest_share[] = {0.75, 0.25, 0.03};
  for (int level = 0; level < levels.count(); ++level) {
    double worst = 0;
    for (std::int64_t row = 1; row < 256; ++row) {
      const double exact = std::sqrt(encoded.rows.squared_distance(row, encoded.bank.view().row(row), query.row)) *
                           levels.scale();
      worst = std::max(worst, 1 - levels.bounds(level, row, query).lower / exact);
    }
    CHECK_FOR(worst < largest_share[level], "level " + std::to_string(level) + ": " + std::to_string(worst));
  }
}

void products_are_exact() {
  std::mt19937_64 random(3);
  for (const std::int64_t columns : {64, 128, 256, 1024, 1088, 65536}) {
    for (const std::int64_t number : {1, 2, 3, 6, 7, 8, 20, 48, 65}) {
      const std::int64_t count = columns > 10000 ? 3 : (number < 8 ? 9 : 83);
      std::vector<std::uint8_t> rows(static_cast<std::size_t>(count * columns));
      std::vector<std::int8_t> vectors(static_cast<std::size_t>(number * columns));
      // The extremes, where narrower sums would overflow, and everything between.
      for (auto& code : rows) code = static_cast<std::uint8_t>(random() % 2 == 0 ? 255 : random() % 256);
      const int sign = columns == 65536 ? 1 : -1;
      for (auto& code : vectors) {
        code = static_cast<std::int8_t>(random() % 2 == 0 ? 127 * sign : static_cast<int>(random() % 256) - 128);
      }
      std::vector<std::int32_t> products(static_cast<std::size_t>(number * count));
      product_kernels_in_use().bytes(rows.data(), columns, count, vectors.data(), columns, number, columns,
                                     products.data(), count);
      bool right = true;
      for (std::int64_t v = 0; v < number; ++v) {
        for (std::int64_t r = 0; r < count; ++r) {
          std::int64_t sum = 0;
          for (std::int64_t j = 0; j < columns; ++j) {
            sum += static_cast<std::int64_t>(rows[static_cast<std::size_t>(r * columns + j)]) *
                   vectors[static_cast<std::size_t>(v * columns + j)];
          }
          right = right && sum == products[static_cast<std::size_t>(v * count + r)];
        }
      }
      CHECK_FOR(right, std::to_string(columns) + " columns, " + std::to_string(number) + " vectors");
      if (columns % nibble_block != 0) continue;
      product_kernels_in_use().nibbles(rows.data(), columns / 2, count, vectors.data(), columns, number, columns,
                                       products.data(), count);
      right = true;
      for (std::int64_t v = 0; v < number; ++v) {
        for (std::int64_t r = 0; r < count; ++r) {
          std::int64_t sum = 0;
          for (std::int64_t j = 0; j < columns; ++j) {
            const std::uint8_t both = rows[static_cast<std::size_t>(r * columns / 2 + j / 128 * 64 + j % 64)];
            sum += (j % 128 < 64 ? both & 15 : both >> 4) * vectors[static_cast<std::size_t>(v * columns + j)];
          }
          right = right && sum == products[static_cast<std::size_t>(v * count + r)];
        }
      }
      CHECK_FOR(right, std::to_string(columns) + " columns of nibbles");
    }
  }
}

void setups_that_do_not_fit_are_refused() {
  std::string name;
  Matrix<float> bank = make_bank<float>(0, 70, 32, name);
  const auto message_with = [&](const std::function<void(IndexSetup&)>& change) {
    OwnedSetup owned = make_setup(bank, Metric::euclidean, {8}, true);
    change(owned.setup);
    return onnxviz::test::message_of<std::invalid_argument>([&] { Levels(owned.setup, 32); });
  };
  CHECK(message_with([](IndexSetup&) {}).empty());
  CHECK(onnxviz::test::contains(message_with([](IndexSetup& setup) { setup.scale = 3; }), "power of two"));
  CHECK(onnxviz::test::contains(message_with([](IndexSetup& setup) { setup.scale = 0x1p401; }), "power of two"));
  CHECK(message_with([](IndexSetup& setup) { setup.scale = 0x1p400; }).empty());
  CHECK(onnxviz::test::contains(message_with([](IndexSetup& setup) { setup.reference.pop_back(); }), "31"));
  CHECK(onnxviz::test::contains(message_with([](IndexSetup& setup) { setup.levels.back().shape.projected = true; }),
                                 "level 2"));
  CHECK(onnxviz::test::contains(message_with([](IndexSetup& setup) { setup.levels.clear(); }), "all columns"));
  // Directions that are none leave no level behind that would trust them.
  OwnedSetup owned = make_setup(bank, Metric::euclidean, {8}, true);
  std::fill(owned.basis.begin(), owned.basis.end(), 0.5F);
  CHECK(Levels(owned.setup, 32).count() == 2);
}

}  // namespace

int main() {
  return onnxviz::test::run([] {
    products_are_exact();
    setups_that_do_not_fit_are_refused();
    for (int kind = 0; kind < onnxviz::test::bank_kinds; ++kind) {
      for (const Metric metric : {Metric::euclidean, Metric::cosine}) {
        for (const std::int64_t columns : {1, 17, 256, 700}) {
          bounds_hold<float>(metric, kind, 110, columns, kind % 2 == 0);
          bounds_hold<double>(metric, kind, 60, columns, kind % 2 == 1);
        }
        // Wide enough that a query's vectors have to be narrower.
        if (kind % 4 == 1) bounds_hold<float>(metric, kind, 8, 150528, false);
      }
    }
    skewed_bases_are_allowed_for();
    levels_do_not_need_the_bytes();
    bounds_are_narrow();
  });
}

// The bound that exactness stands on, for every pair of row and query, against extended precision.
#include "distance_filter.h"

#include <vector>

#include "check.h"
#include "rows.h"

using namespace onnxviz;
using onnxviz::test::Matrix;
using onnxviz::test::make_bank;

namespace {

// sum_j (x_j - q_j)^2 of the rows as the metric sees them, in the widest type there is.
template <class T>
long double squared(const Rows<T>& rows, std::int64_t row, const QueryRow& query) {
  long double sum = 0;
  for (std::int64_t j = 0; j < rows.columns(); ++j) {
    const long double difference = static_cast<long double>(rows.element(row, j)) -
                                   static_cast<long double>(query.elements[static_cast<std::size_t>(j)]);
    sum += difference * difference;
  }
  return sum;
}

template <class T>
void bounds_hold(Metric metric, int kind, std::int64_t count, std::int64_t columns) {
  std::string name;
  Matrix<T> bank = make_bank<T>(kind, count, columns, name);
  Matrix<T> queries = make_bank<T>(kind, 24, columns, name);
  // The second half comes from another bank: queries need not look like the rows.
  std::string other;
  const Matrix<T> strange = make_bank<T>((kind + 1) % onnxviz::test::bank_kinds, 24, columns, other);
  std::copy(strange.elements.begin() + 12 * columns, strange.elements.end(), queries.elements.begin() + 12 * columns);

  const Rows<T> rows(bank.view(), metric, 1);
  const DistanceFilter filter(rows, 1);
  std::vector<float> group(filter.group_size());
  std::vector<QueryRow> read;
  std::vector<DistanceFilter::QueryPart> parts;
  for (int q = 0; q < 24; ++q) {
    read.push_back(rows.read_query(queries.row(q), q));
    parts.push_back(filter.prepare(read.back(), q, group));
  }
  const auto scale = static_cast<long double>(filter.scale_squared());
  std::vector<float> products;
  for (std::int64_t panel = 0; panel < filter.panels(); ++panel) {
    filter.multiply(panel, group, 24, products);
    for (int q = 0; q < 24; ++q) {
      const auto position = static_cast<std::size_t>(q);
      if (!parts[position].usable) continue;
      for (std::int64_t row = panel * panel_rows; row < std::min(count, (panel + 1) * panel_rows); ++row) {
        const float product = products[static_cast<std::size_t>(q * panel_rows + row - panel * panel_rows)];
        const double lower = filter.lower(row, parts[position], product);
        const double upper = filter.upper(row, parts[position], product);
        const std::string detail = name + ", row " + std::to_string(row) + ", query " + std::to_string(q);
        if (rows.without_direction(row)) {
          CHECK_FOR(std::isinf(lower) && lower < 0 && std::isinf(upper) && upper > 0, detail);
          continue;
        }
        const long double exact = squared(rows, row, read[position]) * scale;
        const auto computed = static_cast<long double>(rows.squared_distance(row, read[position])) * scale;
        CHECK_FOR(static_cast<long double>(lower) <= exact && exact <= static_cast<long double>(upper), detail);
        CHECK_FOR(static_cast<long double>(lower) <= computed && computed <= static_cast<long double>(upper), detail);
      }
    }
  }
}

// A bound that says nothing would hold as well: on ordinary data it has to be narrow.
void bounds_are_narrow() {
  std::string name;
  Matrix<float> bank = make_bank<float>(2, 256, 4096, name);
  const Rows<float> rows(bank.view(), Metric::euclidean, 1);
  const DistanceFilter filter(rows, 1);
  std::vector<float> group(filter.group_size());
  const QueryRow query = rows.read_query(bank.row(0), 0);
  const auto part = filter.prepare(query, 0, group);
  CHECK(part.usable);
  std::vector<float> products;
  filter.multiply(1, group, 1, products);
  for (std::int64_t row = panel_rows; row < 2 * panel_rows; ++row) {
    const float product = products[static_cast<std::size_t>(row - panel_rows)];
    const double exact = rows.squared_distance(row, query) * filter.scale_squared();
    CHECK(filter.upper(row, part, product) - filter.lower(row, part, product) < 1e-4 * exact);
  }
}

}  // namespace

int main() {
  return onnxviz::test::run([] {
    for (int kind = 0; kind < onnxviz::test::bank_kinds; ++kind) {
      for (const Metric metric : {Metric::euclidean, Metric::cosine}) {
        for (const std::int64_t columns : {1, 17, 256, 700}) {
          bounds_hold<float>(metric, kind, 130, columns);
          bounds_hold<double>(metric, kind, 70, columns);
        }
      }
    }
    bounds_are_narrow();
  });
}

// What the codes of neighbours on a device prove about distances, run by the emulator, in extended precision.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "check.h"
#include "cpu/basis.h"
#include "device_rows.h"
#include "encoded_rows.h"
#include "index_codes.h"
#include "kernels/bounds.cuh"
#include "kernels/encode.cuh"
#include "onnxviz/cuda/memory.h"
#include "onnxviz/neighbors.h"
#include "rows.h"

namespace onnxviz::cuda {
namespace {

using test::first_rows;
using test::make_bank;
using test::make_setup;
using test::Matrix;
using test::OwnedSetup;
using test::widths;

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
  std::int64_t squares = 0;
  for (std::int64_t j = 0; j < columns; ++j) {
    const auto away = codes[static_cast<std::size_t>(row * row_bytes + j)] - static_cast<std::int64_t>(terms.zero);
    squares += away * away;
  }
  const auto step = static_cast<double>(terms.scale);
  CHECK_FOR(terms.norm == step * step * static_cast<double>(squares), detail);
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
        if (directions == 0) continue;
        const Terms& nowhere = of.projected_terms[i];
        CHECK_FOR(std::isinf(nowhere.radius) && nowhere.norm == 0, detail);
        CHECK_FOR(nowhere.residual_low == 0 && std::isinf(nowhere.residual_high), detail);
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
      CHECK_FOR(!is_beyond_in_tiles(rows.byte_terms[i], others.byte_terms[other], product, threshold, rules), detail);
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
      CHECK_FOR(!is_beyond_in_tiles(rows.projected_terms[i], others.projected_terms[other], along, threshold,
                                    projected_rules), detail + ", projected");
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

// The radius holds what the sum of the losses is rounded by: 125 sums of a 1 and of terms that are rounded away, every
// one, and a length that falls short of a float32 by what the radius adds, and no more.
void rounding_of_losses_is_in_the_radius(const Stream& stream) {
  constexpr std::int64_t columns = 131072;
  Matrix<double> bank(1, columns);
  double* const row = bank.row(0);
  // Steps of 2 + 2^-19, so that codes lose all of the others.
  row[0] = 252;
  row[1] = -252;
  for (std::int64_t j = 3; j < columns; ++j) {
    if (j % encode_threads >= 3) row[j] = j < encode_threads ? 1 : 0x1.66p-27;
  }
  const Wide uncertain = std::sqrt(Wide{2 * 252 * 252 + 125}) * 0x1p-50L;
  const Wide wanted = 11.1953125L - 1.2L * uncertain;
  const Wide ends = 252 * 0x1p-20L;
  row[2] = static_cast<double>(std::sqrt(wanted * wanted - 125 - 2 * ends * ends));
  const OwnedSetup owned = make_setup(bank, Metric::euclidean, {}, false);
  const Encoder encoder(owned.setup, columns, stream.view());
  const EncodedOnHost<double> rows(bank, encoder, stream);
  std::vector<Wide> values;
  for (const double element : bank.elements) {
    values.push_back(static_cast<Wide>(element) * static_cast<Wide>(owned.setup.scale));
  }
  terms_hold(rows.byte_codes, 0, encoder.row_bytes(), rows.byte_terms[0], values, "losses rounded away");
}

// Residuals hold what squares are rounded by: of a row at right angles to the basis, all of it. Its length is a hair
// beside a float32, and its sum is rounded the same way every time.
void rounding_of_squares_is_in_the_residual(const Stream& stream) {
  constexpr std::int64_t columns = 65536;
  const auto residual_holds = [&](const Matrix<double>& bank, const std::string& detail) {
    OwnedSetup owned = make_setup(bank, Metric::euclidean, widths(1), false);
    std::fill(owned.basis.begin(), owned.basis.end(), 0.0F);
    owned.basis[0] = std::sqrt(0.5F);
    owned.basis[1] = -owned.basis[0];
    const Encoder encoder(owned.setup, bank.columns, stream.view());
    const EncodedOnHost<double> rows(bank, encoder, stream);
    Wide sum = 0;
    for (const double element : bank.elements) sum += static_cast<Wide>(element) * static_cast<Wide>(element);
    const Wide residual = std::sqrt(sum) * static_cast<Wide>(owned.setup.scale);
    CHECK_FOR(static_cast<Wide>(rows.projected_terms[0].residual_low) <= residual, detail);
    CHECK_FOR(residual <= static_cast<Wide>(rows.projected_terms[0].residual_high), detail);
  };
  for (const bool up : {false, true}) {
    // Codes are whole numbers of this; the last bits of its square are just less or just more than half of what is kept
    // of a sum.
    const double step = 1 + (up ? 65 : 63) * 0x1p-23;
    for (const double beyond : {0.0, 0.25, 0.75}) {
      Matrix<double> bank(1, columns);
      double* const row = bank.row(0);
      for (std::int64_t j = 0; j < columns; ++j) row[j] = j < 64 * encode_threads ? 125 * step : step;
      row[2] = 126 * step / (1 + 0x1p-20);
      row[3] = -row[2];
      Wide sum = 0;
      for (const double element : bank.elements) sum += static_cast<Wide>(element) * static_cast<Wide>(element);
      auto near = static_cast<float>(std::sqrt(sum));
      if (static_cast<Wide>(near) > std::sqrt(sum) - 0x1p-10L) near = std::nextafter(near, 0.0F);
      near = std::nextafter(near, 0.0F);
      const Wide apart = static_cast<Wide>(std::nextafter(near, INFINITY)) - static_cast<Wide>(near);
      const Wide wanted = static_cast<Wide>(near) + static_cast<Wide>(beyond) * apart;
      // A third of what is lost or gained by rounding.
      const Wide hair = beyond > 0 ? 0 : (up ? -1 : 1) * Wide{columns} * 0x1p-34L / 3;
      Wide excess = sum - wanted * wanted - hair;
      const auto single = static_cast<Wide>(step) * static_cast<Wide>(step);
      for (std::int64_t j = columns - 1; excess >= single; --j) {
        row[j] = 0;
        excess -= single;
      }
      for (std::int64_t j = 64; j < 128; ++j) {
        row[j] = static_cast<double>(std::sqrt(static_cast<Wide>(row[j]) * static_cast<Wide>(row[j]) - excess / 64));
      }
      residual_holds(bank, (up ? "up, " : "down, ") + std::to_string(beyond));
    }
  }
  // And with more lost by the codes than there is inside.
  std::string name;
  Matrix<double> bank = make_bank<double>(0, 1, 40, name);
  bank.row(0)[1] = bank.row(0)[0];
  residual_holds(bank, name);
}

// A mean that is far longer than the rows: what is left of their coordinates is rounded to its last bit.
void rounding_of_the_centre_is_in_the_radius(const Stream& stream) {
  Matrix<double> bank(2, 1);
  bank.elements = {0x1p-55, -0x1p-55};
  OwnedSetup owned = make_setup(bank, Metric::euclidean, widths(1), false);
  owned.setup.scale = 1;
  const IntegerBasis integers(owned.setup.basis, 1);
  const double direction = integers.project({1.0})[0];
  // A whole number of the steps that codes get of it.
  owned.setup.mean[0] = 1048575 * 0x1p-20 / direction;
  const auto centre = static_cast<Wide>(integers.project(owned.setup.mean)[0]);
  const Encoder encoder(owned.setup, 1, stream.view());
  const EncodedOnHost<double> rows(bank, encoder, stream);
  for (std::size_t i = 0; i < 2; ++i) {
    const Wide coordinate = static_cast<Wide>(direction) * static_cast<Wide>(bank.elements[i]) - centre;
    terms_hold(rows.projected_codes, static_cast<std::int64_t>(i), encoder.projected_bytes(), rows.projected_terms[i],
               {coordinate}, "centred");
  }
}

// Codes are signed bytes, and their zeros so small that sums stay exact, whatever the scale is rounded to.
void codes_and_zeros_are_small(const Stream& stream) {
  std::mt19937_64 random(8);
  std::uniform_real_distribution<double> uniform(-1, 1);
  for (int i = 0; i < 4000; ++i) {
    const double middle = std::ldexp(uniform(random), i % 40);
    const double half = std::fabs(uniform(random));
    const double lowest = middle - half;
    const double highest = middle + half;
    const Quantizer quantizer = quantizer_for(lowest, highest, 0x1p20);
    CHECK(quantizer.scale * code_steps >= highest - lowest);
    CHECK(quantizer.scale * 0x1p20 >= std::max(std::fabs(lowest), std::fabs(highest)));
  }
  CHECK(code_of(1000, {1, 0}) == 127 && code_of(-1000, {1, 0}) == -127);
  for (const std::int64_t columns : {1, 64, 16384, 32768, 131072}) {
    Matrix<double> bank(1, columns);
    for (double& element : bank.elements) element = 1;
    const OwnedSetup owned = make_setup(bank, Metric::euclidean, {}, false);
    const Encoder encoder(owned.setup, columns, stream.view());
    const EncodedOnHost<double> rows(bank, encoder, stream);
    // Also with the largest codes.
    const double largest = std::fabs(static_cast<double>(rows.byte_terms[0].zero)) + largest_code;
    CHECK_FOR(static_cast<double>(columns) * largest * largest <= 0x1p53, std::to_string(columns));
  }
}

// Columns beyond which products of codes would leave int32, elements beyond which terms would leave float32, and what
// becomes of rows that have more.
void limits_are_kept(const Stream& stream) {
  CHECK(code_bytes(131072) == 131072 && code_bytes(131073) == 64);
  Matrix<float> bank(1, 131073);
  bank.row(0)[131072] = 1;
  const OwnedSetup owned = make_setup(bank, Metric::euclidean, {}, false);
  const EncodedOnHost<float> rows(bank, Encoder(owned.setup, 131073, stream.view()), stream);
  CHECK(std::isinf(rows.byte_terms[0].radius) && rows.squares[0] < 0);
  Matrix<double> far(2, 1);
  far.elements = {0x1p61, -0x1p61};
  OwnedSetup small = make_setup(far, Metric::euclidean, {}, false);
  small.setup.scale = 1;
  for (const Terms& terms : EncodedOnHost<double>(far, Encoder(small.setup, 1, stream.view()), stream).byte_terms) {
    CHECK(std::isinf(terms.radius));
  }
  for (const std::int64_t columns : {65536, 65537}) {
    const OwnedSetup projected = make_setup(Matrix<float>(1, columns), Metric::euclidean, widths(1), false);
    CHECK(Encoder(projected.setup, columns, stream.view()).directions() == (columns == 65536 ? 1 : 0));
  }
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
  // The share alone holds for few columns, too, without the slack of the bounds.
  std::mt19937_64 random(9);
  std::uniform_real_distribution<double> uniform(-1, 1);
  for (int i = 0; i < 600; ++i) {
    const std::int64_t columns = 1 + i % 20;
    Matrix<double> pair(2, columns);
    for (double& element : pair.elements) element = uniform(random);
    const OwnedSetup owned = make_setup(pair, Metric::euclidean, {}, false);
    const Rows<double> rows(rows_in_memory(pair.view()), Metric::euclidean, nullptr);
    ExactRow query;
    rows.read_query(0, pair.row(0), query);
    const auto computed = static_cast<Wide>(std::sqrt(rows.squared_distance(1, pair.row(1), query)));
    std::vector<Wide> differences;
    for (std::int64_t j = 0; j < columns; ++j) {
      differences.push_back(static_cast<Wide>(pair.row(1)[j]) - static_cast<Wide>(pair.row(0)[j]));
    }
    const Wide distance = length(differences);
    const auto widening = static_cast<Wide>(Encoder(owned.setup, columns, stream.view()).rules(false).widening);
    CHECK_FOR(std::fabs(computed - distance) <= widening * distance, std::to_string(columns));
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
  const Rules rules{1, 0, 0, 1, false, 1};
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
  // None is beyond where nothing is between; no bound is below 0, or a root of what is.
  CHECK(!is_beyond({0, 0, 0, 0}, 0));
  CHECK(lower_bound({0, 1, 0, 0}, rules) == 0 && lower_bound({0, 0, 1, 0}, rules) == 0);
  CHECK(upper_bound({-1, 0, 0, 0}, rules) == 0);
  // Residuals differ by what lies between their intervals.
  const auto interval = [](float low, float high) { return Terms{0, 0, 0, 0, 0, 0, low, high}; };
  const Rules projected{1, 0, 0, 1, true, 1};
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
    CHECK(is_beyond_in_tiles(rows.byte_terms[i], rows.byte_terms[0], product, 0.97 * distance, rules));
    const Terms& projected = rows.projected_terms[i];
    CHECK(projected.residual_low > 0 && projected.residual_high < 1.2F * projected.residual_low);
    const int along = product_of(rows.projected_codes, row, rows.projected_codes, 0, encoder.projected_bytes());
    CHECK(is_beyond(compare(rows.projected_terms[i], rows.projected_terms[0], along, inside),
                    reach_of(0.25 * distance, inside)));
    CHECK(is_beyond_in_tiles(rows.projected_terms[i], rows.projected_terms[0], along, 0.25 * distance, inside));
  }
}

// What float32 loses is allowed for: rows as far as the reach, of all sizes, beside each other and far from the origin.
void rounding_of_tiles_is_allowed_for() {
  std::mt19937_64 random(11);
  std::uniform_int_distribution<int> code(-127, 127);
  std::uniform_int_distribution<int> small(-2, 2);
  std::uniform_real_distribution<double> uniform(0.5, 1);
  for (int i = 0; i < 20000; ++i) {
    // Many codes near their zero: a short row whose products float32 does not hold.
    const bool is_short = i % 7 == 0;
    const std::int64_t columns = is_short ? 4096 : 48;
    const Rules rules{1, 0, 0, 1, false, static_cast<double>(columns)};
    const int size = i % 5 == 0 ? i % 300 - 200 : 0;
    Terms row{0, 0, 0, static_cast<float>(std::ldexp(uniform(random), size / 2)), 0, 0, 0, 0};
    Terms query = row;
    query.scale *= static_cast<float>(i % 3 == 0 ? uniform(random) : 1);
    row.zero = static_cast<float>(std::ldexp(code(random), is_short ? 0 : i % 13));
    query.zero = row.zero + static_cast<float>(small(random));
    std::int64_t product = 0, row_squares = 0, query_squares = 0, between = 0;
    for (std::int64_t j = 0; j < columns; ++j) {
      const int c = is_short ? std::clamp(static_cast<int>(row.zero) + small(random), -127, 127) : code(random);
      const int v = i % 2 == 0 ? std::clamp(c + small(random), -127, 127) : code(random);
      const auto away = c - static_cast<std::int64_t>(row.zero);
      const auto other = v - static_cast<std::int64_t>(query.zero);
      product += c * v;
      row_squares += away * away;
      query_squares += other * other;
      between += away * other;
      row.sum += static_cast<double>(away);
      row.total += c;
      query.sum += static_cast<double>(other);
      query.total += v;
    }
    const auto s = static_cast<Wide>(row.scale), t = static_cast<Wide>(query.scale);
    row.norm = static_cast<double>(s * s * static_cast<Wide>(row_squares));
    query.norm = static_cast<double>(t * t * static_cast<Wide>(query_squares));
    const Wide squared = s * s * static_cast<Wide>(row_squares) + t * t * static_cast<Wide>(query_squares) -
                         2 * s * t * static_cast<Wide>(between);
    const auto distance = static_cast<double>(std::sqrt(std::max(squared, Wide{0})));
    const double reach = std::nextafter(distance, std::numeric_limits<double>::infinity());
    CHECK_FOR(!is_beyond_in_tiles(row, query, static_cast<int>(product), reach, rules), std::to_string(i));
    // Nor where radii make up for what the threshold lacks.
    row.radius = static_cast<float>(distance / 4);
    query.radius = static_cast<float>(distance / 8);
    const double rest = reach - static_cast<double>(row.radius) - static_cast<double>(query.radius);
    CHECK_FOR(!is_beyond_in_tiles(row, query, static_cast<int>(product), rest, rules), std::to_string(i));
  }
  const Rules rules{1, 0, 0, 1, false, 48};
  // Norms whose sum float32 does not hold, and a product that it does: the distance is 2^59, less than the reach.
  const Terms large{0x1.004p127, 0, 0, 0x1p54F, 0, 0, 0, 0};
  CHECK(!is_beyond_in_tiles(large, large, (1 << 19) - 1, 0x1p60, rules));
  // Where one is nowhere, or the threshold infinite, nothing is known.
  const Terms one{1, 0, 0, 1, 0, 0, 0, 0};
  const Terms nowhere{0, 0, 0, 0, 0, INFINITY, 0, INFINITY};
  CHECK(is_beyond_in_tiles(one, one, 0, 1.4, rules) && !is_beyond_in_tiles(one, one, 0, 1.42, rules));
  CHECK(!is_beyond_in_tiles(one, one, 0, INFINITY, rules));
  CHECK(!is_beyond_in_tiles(nowhere, one, 0, 0, rules) && !is_beyond_in_tiles(one, nowhere, 0, 0, rules));
  // Residuals 1 + 0.6 of the last place apart, which rounds up, and a reach of as much in parts that are rounded down.
  const Rules projected{1, 0, 0, 1, true, 48};
  Terms inner{0, 0, 0, 0, 0, 0.3F * 0x1p-23F, 1 + 0x1p-23F, 2};
  const Terms outer{0, 0, 0, 0, 0, 0, 0, 0.4F * 0x1p-23F};
  CHECK(!is_beyond_in_tiles(inner, outer, 0, 1 + 0.35 * 0x1p-23, projected));
  CHECK(is_beyond_in_tiles(inner, outer, 0, 1 - 0x1p-19, projected));
  inner.radius = 0;
  CHECK(is_beyond_in_tiles(outer, inner, 0, 1 - 0x1p-19, projected));
  const auto interval = [](float low, float high) { return Terms{0, 0, 0, 0, 0, 0, low, high}; };
  for (const Terms& wide : {interval(0, 8), interval(1, 8), interval(0, 2)}) {
    CHECK(!is_beyond_in_tiles(wide, interval(1, 2), 0, 0x1p-40, projected));
    CHECK(!is_beyond_in_tiles(interval(1, 2), wide, 0, 0x1p-40, projected));
  }
  CHECK(is_beyond_in_tiles(interval(5, 7), interval(1, 2), 0, 2.99, projected));
  CHECK(!is_beyond_in_tiles(interval(5, 7), interval(1, 2), 0, 3, projected));
  CHECK(is_beyond_in_tiles(interval(1, 2), interval(5, 7), 0, 2.99, projected));
  CHECK(!is_beyond_in_tiles(interval(1, 2), interval(5, 7), 0, 3, projected));
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

}  // namespace
}  // namespace onnxviz::cuda

int main() {
  return onnxviz::test::run([] {
    using namespace onnxviz::cuda;
    const Stream stream(0);
    rounding_of_exact_codes_is_in_the_radius(stream);
    rounding_of_losses_is_in_the_radius(stream);
    rounding_of_squares_is_in_the_residual(stream);
    rounding_of_the_centre_is_in_the_radius(stream);
    codes_and_zeros_are_small(stream);
    limits_are_kept(stream);
    rounding_of_the_bounds_is_allowed_for();
    rounding_of_tiles_is_allowed_for();
    rounded_distances_are_within_the_bounds(stream);
    bounds_are_narrow(stream);
    bounds_hold_for_small_rows(stream);
    bounds_hold_on_all_banks(stream);
    skewed_bases_are_allowed_for(stream);
  });
}

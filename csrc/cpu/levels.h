// The levels of an index: every row as small integers, and what they prove about its distance to a query.
//
// Rows and queries are compared as X = scale (x - reference); distances of X are `scale` times those of x. With u = 2^-53:
//
// A row is stored as R = s (c - z): integers c, an integer z, a float32 s; its radius is at least |X - R|. A query is
// Q = t (v - y), v in one signed byte (`coarse`) or two (high_weight h + l, y = 0), with a radius of its own. Then
//     D^2 = |R - Q|^2 = |R|^2 + |Q|^2 - 2 s t C,      C = sum (c - z)(v - y) = I - z V - y U
// with I = sum c v, V = sum v, U = sum (c - z), all exact integers below 2^53, except y U, see below. Rounded are |R|^2
// and |Q|^2 (2 u each, their s^2 and t^2 being exact), one product, two sums: together less than 8 u (|R|^2 + |Q|^2),
// because 2 |s t C| <= |R|^2 + |Q|^2 (Cauchy-Schwarz). 32 u are taken. y U can leave 2^53 only where |y| >= 2^12, which
// puts all |v - y| within 1 +- 2^-4 of |y|, so that its rounding is below u 1.1 |R| |Q|: within the same 32 u.
// No larger terms cancel here than the norms themselves; with a real offset in the place of s z they would.
//
// By the triangle inequality D - r <= |X - X_q| <= D + r, r the sum of both radii. A radius holds
//   - |X' - R| of the float64 X' that was encoded, a sum whose rounding 2^-30 covers up to 2^20 columns,
//   - u |X'| for the subtraction of the reference (2^-51 is taken, for R's own rounding too),
// rounded up to float32.
//
// A projected level stores y = B R (basis.h) as integers in the same way, all less one and the same centre, which
// changes no difference. |B X - y| <= stretch * radius of R, so its radius is that, plus |y - its codes|, plus what the
// rounding of y and of the subtraction can do, and D - r <= |B (X - X_q)| <= stretch |P (X - X_q)|. What lies outside
// the basis adds to it: with residual = |X - P X|,
//     |X - X_q|^2 >= (max(0, D - r) / stretch)^2 + (difference of the residuals)^2,
// the residuals known to lie in intervals that follow from |X|, |y|, and the excess of the basis. In the form without
// square roots: a row is farther than `reach` where D^2 + difference^2 > (stretch * reach + r)^2.
//
// The distance that decides is itself rounded: it differs from the true one by less than (columns / 16 + 64) 2^-52 of
// it. All bounds are widened by that, so they hold for the numbers that are compared. Underflow can add at most
// columns * 2^-200 to a square, given the range of `scale`.
//
// A row or query without direction, or far outside the range, gets a radius of infinity: always in doubt.
#pragma once

#include <cstdint>
#include <vector>

#include "basis.h"
#include "onnxviz/neighbors.h"
#include "rows.h"

namespace onnxviz {

// What a level knows of one query.
struct LevelQuery {
  QueryTerms terms{};
  double norm = 0;    // without slack
  double radius = 0;
};

// A query in two signed bytes a column.
struct FineQuery {
  ExactRow row;
  bool usable = false;                    // else every row is to be compared exactly
  std::vector<std::int8_t> vectors;       // high, then low, of every column
  std::vector<std::int8_t> projected;     // the same of every direction
  std::vector<double> values;             // X', kept for the coarse form
  std::vector<double> coordinates;        // B R, less the centre
  std::vector<LevelQuery> levels;
};

// Rows that are bounded at a time: their codes stay in the first or second cache over all queries.
constexpr std::int64_t rows_per_tile = 64;

struct Interval {
  double lower;
  double upper;
};

class Levels {
 public:
  Levels(const IndexSetup& setup, std::int64_t columns);

  int count() const { return static_cast<int>(levels_.size()); }
  const Level& level(int number) const { return levels_[static_cast<std::size_t>(number)]; }
  double scale() const { return scale_; }
  bool usable() const { return usable_; }
  std::int64_t vector_bytes(int number) const { return level(number).shape.projected ? projected_bytes_ : full_bytes_; }

  // Memory that `encode` works in.
  struct Workspace {
    std::vector<ExactRow> rows;
    std::vector<std::uint8_t> codes;
    std::vector<std::int32_t> products;
    std::vector<double> coordinates;
    std::vector<double> squares;
  };

  // Writes rows first .. first + rows.size() - 1, which are in workspace.rows and changed there, to every level.
  void encode(std::int64_t first, Workspace& workspace) const;

  // Fills all but `row` of a query.
  void prepare(FineQuery& query) const;

  // The query as one signed byte a column, for level `number`.
  LevelQuery coarse(int number, const FineQuery& query, std::int8_t* vector) const;

  // Row `number` of the bank as a query in its own codes: no more is lost than was already.
  LevelQuery coarse_of_row(int number, std::int64_t row, std::int8_t* vector) const;
  bool has_coarse_rows(int number) const;

  // Distance in units of scale() that a row is to be compared with, see kernels.h.
  float reach(int number, const LevelQuery& query, double distance) const;

  // Which of the listed rows, at most rows_per_tile, may be as near as `distance` to a query in one or two vectors: they
  // are moved to the front, with a lower bound each on scale() times the computed distance. Returns how many.
  std::int64_t within(int number, std::int64_t* rows, std::int64_t count, const LevelQuery& query,
                      const std::int8_t* vectors, int vectors_per_query, double distance, double* lower) const;

  // Bounds on scale() times the computed distance.
  Interval bounds(int number, std::int64_t row, const FineQuery& query) const;

  RowTerms terms(int number, std::int64_t first) const;
  const std::uint8_t* codes(int number, std::int64_t row) const {
    return level(number).memory.codes + row * level(number).shape.row_bytes();
  }
  // Columns that the kernels go over, padding included.
  std::int64_t padded_columns(int number) const {
    const LevelShape& shape = level(number).shape;
    return shape.bits == 8 ? shape.row_bytes() : 2 * shape.row_bytes();
  }
  ProductKernel product(int number) const {
    return level(number).shape.bits == 8 ? products_.bytes : products_.nibbles;
  }

 private:
  struct Quantizer {
    float scale;
    double zero;
  };

  // What the codes of a row and of a query say of their distance.
  struct Comparison {
    double squared;    // D^2
    double uncertain;  // that it may be wrong by
    double radius;     // of both
    double apart;      // residuals, where projected
  };

  // From the products of the row with one or two vectors.
  Comparison compare(int number, std::int64_t row, const LevelQuery& query, const std::int32_t* high,
                     std::int32_t low) const;
  double lower_bound(const Comparison& comparison, bool projected) const;
  Quantizer quantizer(double lowest, double highest, double steps) const;
  Quantizer nibble_quantizer(const std::uint8_t* codes, Quantizer bytes, double lowest, double highest,
                             double sum) const;
  // Codes of one row into a level; the bytes themselves into `codes`.
  double write(const LevelMemory& memory, std::int64_t row, Quantizer quantizer, double largest, const double* values,
               std::int64_t columns, double squares, double extra, std::uint8_t* codes) const;
  void write_nowhere(const LevelMemory& memory, std::int64_t row) const;
  void residuals(double squares, double coordinate_squares, double away, double& low, double& high) const;
  double split(const double* values, std::int64_t columns, std::int64_t bytes, std::vector<std::int8_t>& vectors,
               double& norm, double& sum, double& error) const;
  void finish(LevelQuery& query) const;

  std::int64_t columns_;
  std::int64_t full_bytes_;
  std::int64_t projected_bytes_;
  double scale_;
  double floor_;
  double widening_;
  std::int64_t largest_vector_;  // so that a product stays within int32
  double largest_zero_;          // so that C stays exact
  bool usable_;
  std::vector<double> reference_;
  std::vector<Level> levels_;
  IntegerBasis basis_;
  std::vector<double> centre_;  // of the coordinates
  const ProductKernels& products_;
  const EncodingKernels& encoding_;
};

}  // namespace onnxviz

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
// Projected levels keep coordinates along directions (basis.h), each level those of its own directions. With a middle M
// taken off, Z = X - M, |X - X_q|^2 = |Z|^2 + |Z_q|^2 - 2 Z.Z_q. Let P project onto the first m directions, B be their
// matrix, excess that of the basis, stretch = sqrt(1 + excess), residual = |Z - P Z|:
//     Z.Z_q <= PZ.PZ_q + residual residual_q,
//     PZ.PZ_q = BZ.(B B^T)^-1 BZ_q <= BZ.BZ_q + kappa |Z| |Z_q|,    kappa = excess (1 + excess) / (1 - excess).
// y is what was computed of BZ, within `away` of it, so with lengths of BZ of at most stretch |Z|
//     BZ.BZ_q <= y.y_q + away (stretch |Z_q| + away_q) + away_q stretch |Z|.
// A level holds a part of y as R = s (c - z), within `radius`; the query's as Q = t v, within `lost`:
//     y.y_q = sum over the levels of at most  R.Q + |R| lost + radius |y_q|.
// |Z| |Z_q| and |Z| are never kept: 2 |Z| |Z_q| <= |Z|^2 + |Z_q|^2, and 2 |Z| <= |Z|^2 / c + c, c = |Z_q|. Each level
// takes its part off what the levels before it have left, and at any of them what is left less 2 residual residual_q is
// a lower bound. residual^2 <= |Z|^2 - max(0, |y| - away)^2 / (1 + excess).
// All this is summed in float32, at most 64 roundings to a term; so every term is held against the bound by 2^-18 of
// its size, that of R.Q being |R| (|t h high_weight| + |t l|) or |R| |t v|. What is no number is in doubt.
//
// The distance that decides is itself rounded: it differs from the true one by less than (columns / 16 + 64) 2^-52 of
// it. All bounds are widened by that, so they hold for the numbers that are compared. Underflow can add at most
// columns * 2^-200 to a square: 2^-1075 a column in the bank's units, and `scale` is at most 2^400.
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
  PartQuery part{};   // where projected, in the place of the others
};

// A query in two signed bytes a column.
struct FineQuery {
  ExactRow row;
  bool usable = false;                    // else every row is to be compared exactly
  std::vector<std::int8_t> vectors;       // high, then low, of every column
  std::vector<std::vector<std::int8_t>> parts;  // the same of every projected level
  std::vector<double> values;             // X', kept for the coarse form
  double length = 0;                      // of them
  std::vector<double> coordinates;        // y
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
  bool projected(int number) const { return level(number).shape.projected; }
  std::int64_t vector_bytes(int number) const { return projected(number) ? padded_columns(number) : full_bytes_; }

  // Levels by which rows are ruled out one after the other. The eight bits of every column are not among them: by these
  // a row that is left is placed between two distances, one at a time.
  int looks() const { return levels_.back().shape.bits == 8 ? count() - 1 : count(); }

  // Eight bits of every column of some rows, where no level keeps them.
  struct ByteRows {
    std::vector<std::uint8_t> codes;
    std::vector<double> numbers;
    std::vector<float> terms;

    LevelMemory room(std::int64_t rows, std::int64_t row_bytes);
  };

  // Memory that `encode` works in.
  struct Workspace {
    std::vector<ExactRow> rows;
    std::vector<std::uint8_t> codes;
    std::vector<std::uint8_t> other_codes;
    ByteRows bytes;
    std::vector<std::int32_t> products;
    std::vector<double> coordinates;
    std::vector<double> lengths;  // of X and of Z, for every row; negative where it has no place
  };

  // Writes rows first .. first + rows.size() - 1, which are in workspace.rows and changed there, to every level.
  void encode(std::int64_t first, Workspace& workspace) const;

  // Fills all but `row` of queries, which share one pass over the basis.
  void prepare(FineQuery* queries, std::int64_t count, int threads) const;
  void prepare(FineQuery& query) const { prepare(&query, 1, 1); }

  // The query as one signed byte a column, for level `number`.
  LevelQuery coarse(int number, const FineQuery& query, std::int8_t* vector) const;

  // Row `number` of the bank as a query in its own codes: no more is lost than was already.
  LevelQuery coarse_of_row(int number, std::int64_t row, std::int8_t* vector) const;
  bool has_coarse_rows(int number) const;

  // Distance in units of scale() that a row is to be compared with, see kernels.h; its square for projected levels.
  float reach(const LevelQuery& query, double distance) const;
  float limit(double distance) const;

  // What `count` rows from `first` on are known by on a projected level, side by side.
  struct PartTable {
    float scale[rows_per_tile];
    float radius[rows_per_tile];
    float length[rows_per_tile];
    float residual[rows_per_tile];
    float square[rows_per_tile];
    float slack[rows_per_tile];

    PartRows rows(bool first) const {
      return {scale, radius, length, first ? square : nullptr, first ? slack : nullptr};
    }
  };
  void read_parts(int number, std::int64_t first, std::int64_t count, PartTable& table) const;

  // Takes a projected level's part off the squared bounds of the listed rows, at most rows_per_tile, and keeps those
  // within the limit, as `within` does.
  std::int64_t within_part(int number, std::int64_t* rows, float* squared, std::int64_t count, const LevelQuery& query,
                           const std::int8_t* vectors, int vectors_per_query, float limit) const;

  // A lower bound as that of `within`, from a squared one less the residuals.
  double root(float squared) const;

  // Which of the listed rows, at most rows_per_tile, may be as near as `distance` to a query in one or two vectors: they
  // are moved to the front, with a lower bound each on scale() times the computed distance. Returns how many.
  std::int64_t within(int number, std::int64_t* rows, std::int64_t count, const LevelQuery& query,
                      const std::int8_t* vectors, int vectors_per_query, double distance, double* lower) const;

  // Bounds on scale() times the computed distance.
  Interval bounds(int number, std::int64_t row, const FineQuery& query) const;
  // The same from products of a level of columns with one or two vectors; `high` is null where there is one.
  Interval interval(int number, std::int64_t row, const LevelQuery& query, const std::int32_t* high,
                    std::int32_t low) const;

  RowTerms terms(int number, std::int64_t first) const;
  const std::uint8_t* codes(int number, std::int64_t row) const {
    return level(number).memory.codes + row * level(number).shape.row_bytes();
  }
  // Columns that the kernels go over, padding included.
  std::int64_t padded_columns(int number) const {
    const LevelShape& shape = level(number).shape;
    return shape.bits == 8 ? shape.row_bytes() : 2 * shape.row_bytes();
  }
  // Of rows first .. first + count - 1, at most rows_per_tile, with `number_of_vectors`, rows_per_tile apart. Many
  // vectors meet four bits as bytes, which `unpacked` takes.
  void products(int number, std::int64_t first, std::int64_t count, const std::int8_t* vectors,
                std::int64_t vector_bytes, std::int64_t number_of_vectors, std::int32_t* products,
                std::vector<std::uint8_t>& unpacked) const;
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
  };

  // As `products`, of the listed rows.
  void listed_products(int number, const std::int64_t* rows, std::int64_t count, const std::int8_t* vectors,
                       std::int64_t number_of_vectors, std::int32_t* products) const;
  // From the products of the row with one or two vectors.
  Comparison compare(int number, std::int64_t row, const LevelQuery& query, const std::int32_t* high,
                     std::int32_t low) const;
  double lower_bound(const Comparison& comparison) const;
  Quantizer quantizer(double lowest, double highest, double steps) const;
  Quantizer nibble_quantizer(const std::uint8_t* codes, Quantizer bytes, double lowest, double highest,
                             double sum) const;
  // Codes of one row into a level; the bytes themselves into `codes`.
  double write(const LevelMemory& memory, std::int64_t row, Quantizer quantizer, double largest, const double* values,
               double squares, std::uint8_t* codes) const;
  void write_nowhere(const Level& level, std::int64_t row) const;
  // A part of a row's coordinates.
  void write_part(const Level& level, std::int64_t row, const double* values, double squares, double residual,
                  Workspace& workspace) const;
  double residual(double length, double part_squares, double away) const;
  void spread(const PartTerms* parts, const OriginTerms* origins, std::int64_t count, PartTable& table) const;
  double length_about_middle(const double* values, double length, double& low) const;
  double split(const double* values, std::int64_t columns, std::int64_t bytes, std::int8_t* vectors, double& norm,
               double& sum, double& error) const;
  void finish_part(PartQuery& part, int number, double scale, double high_weight, const std::int8_t* vectors,
                   int number_of_vectors, double length, double lost) const;
  void finish(LevelQuery& query) const;
  void prepare_columns(FineQuery& query) const;
  // `products` of the basis with both vectors of the query.
  void prepare_parts(FineQuery& query, const std::int32_t* products) const;

  std::int64_t columns_;
  std::int64_t full_bytes_;
  double scale_;
  double floor_;
  double widening_;
  std::int64_t largest_vector_;  // so that a product stays within int32
  double largest_zero_;          // so that C stays exact
  bool usable_;
  std::vector<double> reference_;
  std::vector<Level> levels_;
  IntegerBasis basis_;
  std::vector<double> middle_;  // M
  std::vector<double> centre_;  // B M
  double uncertain_centre_ = 0;  // how far that may be from it
  const ProductKernels& products_;
  const EncodingKernels& encoding_;
  const BoundKernels& bounds_;
};

}  // namespace onnxviz

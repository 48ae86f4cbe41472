// Bounds from both sides on the distance of every row to a query, from one float32 matrix product.
//
// Let mu be the mean row and s a power of two with |s (x_j - mu_j)| <= 1 over the bank. Rows and queries are stored as
// x' = float32(s (x - mu)), the same for q, and with X = |x'|^2, Q = |q'|^2 (float64) and the float32 inner product p of
// x' and q', the filter computes A = X + Q - 2 p. Against s^2 times the squared distance d^2 that neighbors.h defines, A
// is wrong by no more than slack * (X + Q) + floor, because (u = 2^-24):
//   - p is a chain of at most m = chunk + chunks + 2 roundings per term, so it is off by at most
//     m u / (1 - m u) * sum |x'_j q'_j| <= 1.02 m u (X + Q) / 2       (Higham 2002, section 3.1; Cauchy-Schwarz);
//   - rounding to float32 moves x' and q' by at most (1 + 2^-20) u |x'| and ... |q'|, hence s d by at most
//     (1 + 2^-20) u (|x'| + |q'|), and s^2 d^2 by at most 4 (1 + 2^-19) u (X + Q) = 2^-22 (X + Q) and a little:
//     2^-21 is taken;
//   - X, Q, the sum that makes A, and d^2 itself are float64 sums of at most `columns` terms: each is off by less than
//     (columns + 8) 2^-52 (X + Q); 2^-49 is taken for all of them together;
//   - products and conversions that underflow (even when flushed to zero) add less than columns * 2^-118.
// So a row whose lower bound exceeds k upper bounds is farther than k other rows, also as computed. The mean is there for
// banks far from the origin: distances do not change with it, and X + Q comes near them.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/kernels.h"
#include "rows.h"

namespace onnxviz {

class DistanceFilter {
 public:
  // Register tiles of queries that go over a panel of rows while it is in cache.
  static constexpr int tiles_per_group = 4;
  static constexpr int group_queries = tiles_per_group * tile_queries;

  // What a query adds to the bounds of a row.
  struct QueryPart {
    bool usable = false;  // else nothing is known, and every row is to be compared exactly
    double lower = 0;
    double upper = 0;
  };

  template <class T>
  DistanceFilter(const Rows<T>& rows, int threads);

  // The power of two by which bounds are larger than squared distances.
  double scale_squared() const { return scale_ * scale_; }

  std::int64_t panels() const { return (rows_ + panel_rows - 1) / panel_rows; }

  // Floats that the tiles of a group take, all zero at first.
  std::size_t group_size() const { return static_cast<std::size_t>(group_queries * columns_); }

  // Writes a query into place `slot` of a group.
  QueryPart prepare(const QueryRow& query, int slot, std::vector<float>& group) const;

  // Inner products of the panel's rows with the first `queries` queries of a group: [query][row], group_queries *
  // panel_rows of them.
  void multiply(std::int64_t panel, const std::vector<float>& group, int queries, std::vector<float>& products) const;

  // The bounds on scale_squared times the squared distance; -infinity and infinity for a row without direction.
  double lower(std::int64_t row, const QueryPart& query, float product) const {
    return lower_[static_cast<std::size_t>(row)] + query.lower - 2 * static_cast<double>(product);
  }
  double upper(std::int64_t row, const QueryPart& query, float product) const {
    return upper_[static_cast<std::size_t>(row)] + query.upper - 2 * static_cast<double>(product);
  }

 private:
  template <class T>
  void find_mean(const Rows<T>& rows, int threads);
  void choose_bound(double maximum);
  template <class T>
  void pack(const Rows<T>& rows, int threads);

  std::int64_t rows_;
  std::int64_t columns_;
  FilterKernel kernel_;
  bool usable_ = false;
  double scale_ = 1;
  double slack_ = 0;
  double floor_ = 0;
  std::vector<double> mean_;
  std::vector<float> packed_;  // panels of panel_rows rows, column by column
  std::vector<double> lower_;  // X (1 - slack) of each row
  std::vector<double> upper_;  // X (1 + slack)
};

}  // namespace onnxviz

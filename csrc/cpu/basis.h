// The directions of largest variance as integers, and how far from orthonormal they are.
//
// Direction i is b_i = s_i p_i, with s_i a float32 and p_i integers of 15 bits, kept as two signed bytes 128 h + l; B is
// the matrix of them. With E = B B^T - I and excess >= |E|_2, the eigenvalues of B B^T lie within 1 - excess and
// 1 + excess: |B z| <= sqrt(1 + excess) |z| for any z, and for the orthogonal projector P onto the rows of B
//     |B z|^2 / (1 + excess) <= |P z|^2 <= |B z|^2 / (1 - excess).
// Both hold for the first few directions alone, too, because their E is a principal submatrix. One byte would leave an
// excess of a hundredth, which costs as much as a third of the directions.
//
// Coordinates are integers until the last step: a row that is stored as s (c - z) has b_i . row = s s_i (I - z S_i), I
// the product of the codes c with p_i, S_i the sum of p_i. s s_i is exact in float64, so is the bracket.
#pragma once

#include <cstdint>
#include <vector>

#include "onnxviz/row_source.h"

namespace onnxviz {

class IntegerBasis {
 public:
  IntegerBasis() = default;
  // Directions beyond `most` are left out; none remain where they are not even nearly orthonormal.
  IntegerBasis(MatrixView<float> directions, std::int64_t most);

  static constexpr double high_weight = 128;

  std::int64_t directions() const { return static_cast<std::int64_t>(scale_.size()); }
  std::int64_t row_bytes() const { return row_bytes_; }
  double excess() const { return excess_; }
  double stretch() const;  // sqrt(1 + excess), rounded up

  // 2 directions() rows of signed bytes, all high ones before all low ones, to be multiplied with codes of rows; and as
  // bytes with 128 added, to be multiplied with vectors of queries.
  const std::int8_t* vectors() const { return vectors_.data(); }
  const std::uint8_t* rows() const { return rows_.data(); }

  double scale(std::int64_t i) const { return scale_[static_cast<std::size_t>(i)]; }
  double sum(std::int64_t i) const { return sum_[static_cast<std::size_t>(i)]; }

  // The coordinates of a vector, rounded: each by less than columns 2^-52 of the vector's length.
  std::vector<double> project(const std::vector<double>& vector) const;

 private:
  void measure_excess();

  std::int64_t row_bytes_ = 0;
  double excess_ = 0;
  std::vector<std::int8_t> vectors_;
  std::vector<std::uint8_t> rows_;
  std::vector<double> scale_;
  std::vector<double> sum_;
};

}  // namespace onnxviz

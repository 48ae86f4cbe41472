// The rows of a bank as the metric sees them, and their exact distance to a query.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/kernels.h"
#include "onnxviz/neighbors.h"

namespace onnxviz {

// What makes a row a direction: (x * scale) / norm has length 1. The power of two keeps squares from underflowing.
struct Normalization {
  double scale = 1;
  double norm = 1;  // 0 for a row of zeros

  template <class T>
  double operator()(T element) const {
    return static_cast<double>(element) * scale / norm;
  }
};

// One query in float64, normalised for cosine.
struct QueryRow {
  std::vector<double> elements;
  bool without_direction = false;  // a row of zeros under cosine: as far from everything as directions at right angles
};

// Instances for float and double are in rows.cpp.
template <class T>
class Rows {
 public:
  // Throws std::invalid_argument for an empty bank, or by row for what cannot be measured.
  Rows(MatrixView<T> bank, Metric metric, int threads);

  std::int64_t count() const { return bank_.rows; }
  std::int64_t columns() const { return bank_.columns; }
  bool cosine() const { return metric_ == Metric::cosine; }

  // No element is larger than this in size.
  double maximum() const { return maximum_; }

  double element(std::int64_t row, std::int64_t column) const {
    const T raw = bank_.row(row)[column];
    return cosine() ? normalizations_[static_cast<std::size_t>(row)](raw) : static_cast<double>(raw);
  }

  bool without_direction(std::int64_t row) const {
    return cosine() && normalizations_[static_cast<std::size_t>(row)].norm == 0;
  }

  // Row `number` of the queries; throws std::invalid_argument, naming it, for what cannot be measured.
  template <class U>
  QueryRow read_query(const U* row, std::int64_t number) const;

  // The squared distance that neighbors.h defines.
  double squared_distance(std::int64_t row, const QueryRow& query) const;

 private:
  MatrixView<T> bank_;
  Metric metric_;
  const DistanceKernels& kernels_;
  std::vector<Normalization> normalizations_;  // cosine only
  double maximum_ = 0;
};

}  // namespace onnxviz

// The rows of a bank as the metric sees them, and their exact distance to a query.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
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

// One row in float64, normalised for cosine.
struct ExactRow {
  std::vector<double> elements;
  bool without_direction = false;  // a row of zeros under cosine: as far from everything as directions at right angles
};

// Instances for float and double are in rows.cpp.
template <class T>
class Rows {
 public:
  // `directions` as in IndexSetup. Throws std::invalid_argument for an empty bank.
  Rows(std::shared_ptr<const RowSource<T>> source, Metric metric, double* directions);

  std::int64_t count() const { return source_->rows(); }
  std::int64_t columns() const { return source_->columns(); }
  bool cosine() const { return metric_ == Metric::cosine; }
  const RowSource<T>& source() const { return *source_; }

  // Reads row `number` of the bank, which lies at `elements`, for the first time: remembers its direction.
  void admit(std::int64_t number, const T* elements, ExactRow& row) const;

  // Row `number` of the bank once more.
  void read(std::int64_t number, const T* elements, ExactRow& row) const;

  // Row `number` of the queries. Like admit, throws std::invalid_argument for what cannot be measured.
  template <class U>
  void read_query(std::int64_t number, const U* elements, ExactRow& row) const;

  // The squared distance that neighbors.h defines, of row `number`, which lies at `elements`.
  double squared_distance(std::int64_t number, const T* elements, const ExactRow& query) const;

 private:
  Normalization direction(std::int64_t number) const {
    return {directions_[2 * number], directions_[2 * number + 1]};
  }
  template <class U>
  void write(const U* elements, const Normalization& normalization, ExactRow& row) const;

  std::shared_ptr<const RowSource<T>> source_;
  Metric metric_;
  double* directions_;
  const DistanceKernels& kernels_;
};

}  // namespace onnxviz

// How rows are encoded, and where what is written of them goes.
#pragma once

#include <cstdint>

#include "bounds.cuh"
#include "exact_distance.cuh"

namespace onnxviz::cuda {

// How rows are encoded; the same for the bank and for queries.
struct RowForm {
  std::int64_t columns;
  std::int64_t row_bytes;
  const double* reference;
  double scale;
  double largest_zero;  // so that sums stay exact
  bool cosine;
  bool usable;  // false: no row is encoded, all are always in doubt
};

// What is written of each row. Only codes and terms are not optional.
struct EncodedRows {
  std::int8_t* codes;
  Terms* terms;
  double* squares;        // of X', -1 where the row is not encoded
  Direction* directions;  // not null for cosine
  double* elements;       // of the row as the metric sees it
};

// A basis of csrc/cpu/basis.h, on the device.
struct BasisForm {
  std::int64_t directions;
  std::int64_t row_bytes;  // of codes of coordinates
  const double* scale;
  const double* sum;
  const double* centre;  // taken off all coordinates, which changes no difference
  double stretch;
  double excess;
  double largest_zero;
};

}  // namespace onnxviz::cuda

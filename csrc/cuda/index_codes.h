// The codes of rows on a device, and what makes them: one way for the rows of a bank and for queries.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <vector>

#include "cpu/basis.h"
#include "kernels/forms.cuh"
#include "kernels/lists.cuh"
#include "onnxviz/cuda/memory.h"
#include "onnxviz/neighbors.h"

namespace onnxviz::cuda {

// Memory for the codes of some rows.
struct Codes {
  Codes() = default;
  Codes(std::int64_t rows, std::int64_t bytes_of_row, int device)
      : row_bytes(bytes_of_row),
        codes(static_cast<std::size_t>(rows * bytes_of_row), device),
        terms(static_cast<std::size_t>(rows), device) {}

  // From row `first` on.
  LevelView view(std::int64_t first = 0) const {
    return {codes.data() + first * row_bytes, terms.data() + first, row_bytes};
  }

  std::int64_t row_bytes = 0;
  Array<std::int8_t> codes;
  Array<Terms> terms;
};

// Whole blocks of 64 bytes, as the kernels want them. Without codes there is one block of zeros.
std::int64_t code_bytes(std::int64_t columns);

// Numbers of a direction are two signed bytes, 128 h + l: csrc/cpu/basis.h.
constexpr std::int64_t bytes_of_a_direction = 2;

class Encoder {
 public:
  // Throws std::invalid_argument for a setup that does not fit. Copies what it needs of it.
  Encoder(const IndexSetup& setup, std::int64_t columns, StreamView stream);

  std::int64_t columns() const { return columns_; }
  std::int64_t directions() const { return directions_; }
  bool cosine() const { return form_.cosine; }
  std::int64_t row_bytes() const { return form_.row_bytes; }
  std::int64_t projected_bytes() const { return basis_.row_bytes; }
  Rules rules(bool projected) const;

  // Rows of the bank or queries, for the first time. Lowers *first_unfit to the lowest number of a row that cannot be
  // measured.
  template <class T>
  void encode(const T* rows, std::int64_t count, const EncodedRows& out, unsigned long long* first_unfit,
              StreamView stream) const;

  // Rows that are encoded already along the basis, `squares` among what was written of them. Works in `products`,
  // (count, bytes_of_a_direction * directions).
  void project(LevelView rows, const double* squares, std::int64_t count, std::int32_t* products, const Codes& out,
               std::int64_t first, StreamView stream) const;

 private:
  std::int64_t columns_;
  std::int64_t directions_ = 0;
  Array<double> reference_;
  Array<std::int8_t> basis_codes_;
  Array<double> basis_numbers_;  // scale, sum and centre of all directions
  RowForm form_{};
  BasisForm basis_{};
  Rules rules_{};
};

}  // namespace onnxviz::cuda

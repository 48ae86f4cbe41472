// Rows with the codes that a device makes of them, on the host again, for the emulated tests of neighbours.
#pragma once

#include <cstdint>
#include <vector>

#include "device_rows.h"
#include "index_codes.h"
#include "kernels/bounds.cuh"

namespace onnxviz::cuda {

// Rows with their codes as they are on the device.
template <class T>
struct EncodedOnHost {
  Codes bytes;
  Codes projected;
  std::vector<std::int8_t> byte_codes;
  std::vector<Terms> byte_terms;
  std::vector<std::int8_t> projected_codes;
  std::vector<Terms> projected_terms;
  std::vector<double> elements;
  std::vector<double> squares;

  EncodedOnHost(const test::Matrix<T>& matrix, const Encoder& encoder, const Stream& stream)
      : bytes(matrix.rows, encoder.row_bytes(), 0) {
    const auto rows = static_cast<std::size_t>(matrix.rows);
    const test::OnDevice<T> there(matrix.elements, stream);
    const Array<double> square(rows, 0);
    const Array<Direction> directions(rows, 0);
    const Array<double> element(matrix.elements.size(), 0);
    const Array<unsigned long long> unfit(1, 0);
    encoder.encode(
        there.data(), matrix.rows,
        EncodedRows{bytes.codes.data(), bytes.terms.data(), square.data(), directions.data(), element.data()},
        unfit.data(), stream.view());
    byte_codes = test::on_host(bytes.codes, stream);
    byte_terms = test::on_host(bytes.terms, stream);
    elements = test::on_host(element, stream);
    squares = test::on_host(square, stream);
    if (encoder.directions() == 0) return;
    projected = Codes(matrix.rows, encoder.projected_bytes(), 0);
    const Array<std::int32_t> products(rows * static_cast<std::size_t>(bytes_of_a_direction * encoder.directions()), 0);
    encoder.project(bytes.view(), square.data(), matrix.rows, products.data(), projected, 0, stream.view());
    projected_codes = test::on_host(projected.codes, stream);
    projected_terms = test::on_host(projected.terms, stream);
  }
};

inline int product_of(const std::vector<std::int8_t>& a, std::int64_t row, const std::vector<std::int8_t>& b,
                      std::int64_t other, std::int64_t row_bytes) {
  int sum = 0;
  for (std::int64_t j = 0; j < row_bytes; ++j) {
    sum += a[static_cast<std::size_t>(row * row_bytes + j)] * b[static_cast<std::size_t>(other * row_bytes + j)];
  }
  return sum;
}

inline bool is_beyond_in_tiles(const Terms& row, const Terms& query, int product, double threshold,
                               const Rules& rules) {
  return is_beyond(rough(row, rules), rough_query(query, reach_of(threshold, rules), rules), product, rules.projected);
}

}  // namespace onnxviz::cuda

#include "basis.h"

#include <algorithm>
#include <cmath>

#include "kernels_in_use.h"

namespace onnxviz {
namespace {

// Beyond this the bounds would tell nothing.
constexpr double largest_excess = 0.5;
constexpr double largest_code = 16192;  // 128 * 126 + 64: both bytes stay within theirs
constexpr std::int64_t rows_at_once = 64;
constexpr std::int64_t rows_in_cache = 24;

// Sum of the squares of all entries of matrix * matrix, which is symmetric, n x n.
double squares_of_square(const std::vector<double>& matrix, std::int64_t n) {
  const EncodingKernels& kernels = encoding_kernels_in_use();
  double sum = 0;
  for (std::int64_t first = 0; first < n; first += rows_in_cache) {
    const std::int64_t end = std::min(n, first + rows_in_cache);
    for (std::int64_t i = 0; i < end; ++i) {
      for (std::int64_t k = std::max(first, i); k < end; ++k) {
        const double entry = kernels.inner_product(matrix.data() + i * n, matrix.data() + k * n, n);
        sum += (i == k ? 1 : 2) * entry * entry;
      }
    }
  }
  return sum;
}

}  // namespace

IntegerBasis::IntegerBasis(MatrixView<float> directions, std::int64_t most)
    : row_bytes_((directions.columns + byte_block - 1) / byte_block * byte_block) {
  std::int64_t count = 0;
  for (; count < std::min(directions.rows, most); ++count) {
    const float* direction = directions.row(count);
    float largest = 0;
    for (std::int64_t j = 0; j < directions.columns; ++j) largest = std::max(largest, std::fabs(direction[j]));
    if (!(largest > 0x1p-60F && largest < 0x1p60F)) break;
    scale_.push_back(static_cast<double>(largest / static_cast<float>(largest_code)));
  }
  vectors_.assign(static_cast<std::size_t>(2 * count * row_bytes_), 0);
  for (std::int64_t i = 0; i < count; ++i) {
    std::int8_t* high = vectors_.data() + i * row_bytes_;
    std::int8_t* low = high + count * row_bytes_;
    std::int64_t sum = 0;
    for (std::int64_t j = 0; j < directions.columns; ++j) {
      const double code = std::nearbyint(static_cast<double>(directions.row(i)[j]) / scale(i));
      // A NaN is neither below nor above, and becomes 0.
      const double kept = std::min(std::max(code == code ? code : 0.0, -largest_code), largest_code);
      const double upper = std::floor((kept + high_weight / 2) / high_weight);
      high[j] = static_cast<std::int8_t>(upper);
      low[j] = static_cast<std::int8_t>(kept - high_weight * upper);
      sum += static_cast<std::int64_t>(kept);
    }
    sum_.push_back(static_cast<double>(sum));
  }
  rows_.resize(vectors_.size());
  std::transform(vectors_.begin(), vectors_.end(), rows_.begin(),
                 [](std::int8_t code) { return static_cast<std::uint8_t>(code + 128); });
  measure_excess();
  if (!(excess_ < largest_excess)) *this = IntegerBasis();
}

void IntegerBasis::measure_excess() {
  const std::int64_t n = directions();
  std::vector<double> error(static_cast<std::size_t>(n * n));
  std::vector<double> sums;  // of every vector's bytes
  for (std::int64_t v = 0; v < 2 * n; ++v) {
    std::int64_t sum = 0;
    for (std::int64_t j = 0; j < row_bytes_; ++j) sum += vectors_[static_cast<std::size_t>(v * row_bytes_ + j)];
    sums.push_back(static_cast<double>(sum));
  }
  std::vector<std::int32_t> products(static_cast<std::size_t>(2 * rows_at_once * 2 * n));
  for (std::int64_t first = 0; first < n; first += rows_at_once) {
    const std::int64_t count = std::min(rows_at_once, n - first);
    for (const std::int64_t half : {0, 1}) {
      product_kernels_in_use().bytes(rows_.data() + (half * n + first) * row_bytes_, row_bytes_, count,
                                     vectors_.data(), row_bytes_, 2 * n, row_bytes_,
                                     products.data() + half * rows_at_once, 2 * rows_at_once);
    }
    for (std::int64_t k = 0; k < n; ++k) {
      for (std::int64_t i = 0; i < count; ++i) {
        const auto product = [&](std::int64_t half, std::int64_t other) {
          const std::int64_t v = other * n + k;
          const auto place = static_cast<std::size_t>((2 * v + half) * rows_at_once + i);
          return static_cast<double>(products[place]) - 128 * sums[static_cast<std::size_t>(v)];
        };
        const double middle = product(0, 1) + product(1, 0);
        const double whole = high_weight * (high_weight * product(0, 0) + middle) + product(1, 1);
        error[static_cast<std::size_t>((first + i) * n + k)] =
            scale(first + i) * scale(k) * whole - (first + i == k ? 1 : 0);
      }
    }
  }
  // |E|_2^2 = |E^2|_2 <= |E^2|_F: nearer than |E|_F itself, at the price of a product.
  const double sum = squares_of_square(error, n);
  // 2^-40 covers all that was rounded: n^2 sums of n terms, and what went into them.
  excess_ = std::sqrt(std::sqrt(sum)) * (1 + 0x1p-20) + 0x1p-40;
}

std::vector<double> IntegerBasis::project(const std::vector<double>& vector) const {
  std::vector<double> coordinates;
  for (std::int64_t i = 0; i < directions(); ++i) {
    const std::int8_t* high = vectors_.data() + i * row_bytes_;
    const std::int8_t* low = high + directions() * row_bytes_;
    double sum = 0;
    for (std::size_t j = 0; j < vector.size(); ++j) sum += (high_weight * high[j] + low[j]) * vector[j];
    coordinates.push_back(scale(i) * sum);
  }
  return coordinates;
}

double IntegerBasis::stretch() const { return std::sqrt(1 + excess_) * (1 + 0x1p-50); }

}  // namespace onnxviz

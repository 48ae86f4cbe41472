#include "basis.h"

#include <algorithm>
#include <cmath>

#include "kernels/kernels.h"

namespace onnxviz {
namespace {

// Beyond this the bounds would tell nothing.
constexpr double largest_excess = 0.5;
constexpr int squarings = 3;

// square * square of a symmetric matrix, n x n.
std::vector<double> squared(const std::vector<double>& matrix, std::size_t n) {
  std::vector<double> product(n * n, 0.0);
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t k = 0; k < n; ++k) {
      const double factor = matrix[i * n + k];
      for (std::size_t j = 0; j < n; ++j) product[i * n + j] += factor * matrix[k * n + j];
    }
  }
  return product;
}

}  // namespace

IntegerBasis::IntegerBasis(MatrixView<float> directions, std::int64_t most)
    : row_bytes_((directions.columns + byte_block - 1) / byte_block * byte_block) {
  const std::int64_t count = std::min(directions.rows, most);
  vectors_.assign(static_cast<std::size_t>(count * row_bytes_), 0);
  for (std::int64_t i = 0; i < count; ++i) {
    const float* direction = directions.row(i);
    float largest = 0;
    for (std::int64_t j = 0; j < directions.columns; ++j) largest = std::max(largest, std::fabs(direction[j]));
    if (!(largest > 0x1p-60F && largest < 0x1p60F)) break;
    const auto scale = static_cast<double>(largest / 127);
    double sum = 0;
    for (std::int64_t j = 0; j < directions.columns; ++j) {
      const double code = std::nearbyint(static_cast<double>(direction[j]) / scale);
      // A NaN is neither below nor above, and becomes 0.
      const double kept = code < -127 ? -127 : (code > 127 ? 127 : (code == code ? code : 0));
      vectors_[static_cast<std::size_t>(i * row_bytes_ + j)] = static_cast<std::int8_t>(kept);
      sum += kept;
    }
    scale_.push_back(scale);
    sum_.push_back(sum);
  }
  measure_excess();
  if (!(excess_ < largest_excess)) {
    scale_.clear();
    sum_.clear();
  }
  vectors_.resize(scale_.size() * static_cast<std::size_t>(row_bytes_));
  rows_.resize(vectors_.size());
  std::transform(vectors_.begin(), vectors_.end(), rows_.begin(),
                 [](std::int8_t code) { return static_cast<std::uint8_t>(code + 128); });
}

void IntegerBasis::measure_excess() {
  const std::size_t n = scale_.size();
  std::vector<double> error(n * n);
  for (std::size_t i = 0; i < n; ++i) {
    const std::int8_t* first = vectors_.data() + i * static_cast<std::size_t>(row_bytes_);
    for (std::size_t k = 0; k <= i; ++k) {
      const std::int8_t* second = vectors_.data() + k * static_cast<std::size_t>(row_bytes_);
      std::int32_t product = 0;
      for (std::int64_t j = 0; j < row_bytes_; ++j) product += static_cast<std::int32_t>(first[j]) * second[j];
      const double entry = scale_[i] * scale_[k] * static_cast<double>(product) - (i == k ? 1 : 0);
      error[i * n + k] = error[k * n + i] = entry;
    }
  }
  // |E|_2^8 = |E^8|_2 <= |E^8|_F: much nearer than |E|_F itself, at the price of three products.
  for (int i = 0; i < squarings; ++i) error = squared(error, n);
  double sum = 0;
  for (const double entry : error) sum += entry * entry;
  // 2^-40 covers all that was rounded: n^2 sums of n terms, three times over, and what went into them.
  excess_ = std::pow(std::sqrt(sum), 1.0 / 8) * (1 + 0x1p-20) + 0x1p-40;
}

std::vector<double> IntegerBasis::project(const std::vector<double>& vector) const {
  std::vector<double> coordinates;
  for (std::size_t i = 0; i < scale_.size(); ++i) {
    const std::int8_t* codes = vectors_.data() + i * static_cast<std::size_t>(row_bytes_);
    double sum = 0;
    for (std::size_t j = 0; j < vector.size(); ++j) sum += static_cast<double>(codes[j]) * vector[j];
    coordinates.push_back(scale_[i] * sum);
  }
  return coordinates;
}

double IntegerBasis::stretch() const { return std::sqrt(1 + excess_) * (1 + 0x1p-50); }

}  // namespace onnxviz

#include "rows.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "onnxviz/build_facts.h"
#include "onnxviz/cpu.h"
#include "parallel.h"

namespace onnxviz {
namespace {

// Squares of numbers up to here, summed over any row that fits in memory, stay finite.
constexpr double largest_number = 1e150;
constexpr std::int64_t rows_per_task = 256;

const DistanceKernels& kernels_in_use() {
  switch (level_in_use()) {
#if ONNXVIZ_HAS_AVX512
    case CpuLevel::avx512:
      return avx512::distance_kernels;
#endif
#if ONNXVIZ_HAS_AVX2
    case CpuLevel::avx2:
      return avx2::distance_kernels;
#endif
    default:
      return baseline::distance_kernels;
  }
}

// The largest absolute value of the row, or -1 where one is not finite or too large.
template <class T>
double checked_maximum(const T* row, std::int64_t columns) {
  double maximum = 0;
  bool fine = true;
  for (std::int64_t j = 0; j < columns; ++j) {
    const double size = std::fabs(static_cast<double>(row[j]));
    fine &= size <= largest_number;  // false for NaN too
    maximum = std::max(maximum, size);
  }
  return fine ? maximum : -1;
}

[[noreturn]] void refuse_row(const char* what, std::int64_t row) {
  throw std::invalid_argument("row " + std::to_string(row) + " of the " + what +
                              " holds NaN, infinity or a number beyond 1e150");
}

template <class T>
Normalization normalize(const T* row, std::int64_t columns, double maximum) {
  Normalization normalization;
  if (maximum == 0) {
    normalization.norm = 0;
    return normalization;
  }
  int exponent = 0;
  std::frexp(maximum, &exponent);
  // The smallest subnormal would ask for 2^1074, which float64 does not have.
  normalization.scale = std::ldexp(1.0, std::min(-exponent, 1000));
  double sum = 0;
  for (std::int64_t j = 0; j < columns; ++j) {
    const double element = static_cast<double>(row[j]) * normalization.scale;
    sum += element * element;
  }
  normalization.norm = std::sqrt(sum);
  return normalization;
}

}  // namespace

template <class T>
Rows<T>::Rows(MatrixView<T> bank, Metric metric, int threads)
    : bank_(bank), metric_(metric), kernels_(kernels_in_use()) {
  if (bank.rows < 1 || bank.columns < 1) throw std::invalid_argument("the bank has no rows or no columns");
  const auto count = static_cast<std::size_t>(bank.rows);
  std::vector<double> maxima(count);
  if (cosine()) normalizations_.resize(count);
  const std::int64_t tasks = (bank.rows + rows_per_task - 1) / rows_per_task;
  parallel_for(tasks, threads, [&](std::int64_t task) {
    const std::int64_t end = std::min(bank.rows, (task + 1) * rows_per_task);
    for (std::int64_t i = task * rows_per_task; i < end; ++i) {
      const auto position = static_cast<std::size_t>(i);
      maxima[position] = checked_maximum(bank.row(i), bank.columns);
      if (cosine() && maxima[position] >= 0) {
        normalizations_[position] = normalize(bank.row(i), bank.columns, maxima[position]);
      }
    }
  });
  for (std::size_t i = 0; i < count; ++i) {
    if (maxima[i] < 0) refuse_row("bank", static_cast<std::int64_t>(i));
  }
  // The elements of a direction are at most 1, give or take the rounding of its norm.
  maximum_ = cosine() ? 1.0 : *std::max_element(maxima.begin(), maxima.end());
}

template <class T>
template <class U>
QueryRow Rows<T>::read_query(const U* row, std::int64_t number) const {
  const double maximum = checked_maximum(row, columns());
  if (maximum < 0) refuse_row("queries", number);
  QueryRow query;
  query.elements.resize(static_cast<std::size_t>(columns()));
  if (!cosine()) {
    std::copy(row, row + columns(), query.elements.begin());
    return query;
  }
  const Normalization normalization = normalize(row, columns(), maximum);
  query.without_direction = normalization.norm == 0;
  if (!query.without_direction) std::transform(row, row + columns(), query.elements.begin(), normalization);
  return query;
}

template <class T>
double Rows<T>::squared_distance(std::int64_t row, const QueryRow& query) const {
  const T* elements = bank_.row(row);
  const double* other = query.elements.data();
  if (!cosine()) {
    if constexpr (std::is_same_v<T, float>) {
      return kernels_.float32(elements, other, columns());
    } else {
      return kernels_.float64(elements, other, columns());
    }
  }
  if (query.without_direction || without_direction(row)) return 2;
  const Normalization& normalization = normalizations_[static_cast<std::size_t>(row)];
  if constexpr (std::is_same_v<T, float>) {
    return kernels_.normalized_float32(elements, normalization.scale, normalization.norm, other, columns());
  } else {
    return kernels_.normalized_float64(elements, normalization.scale, normalization.norm, other, columns());
  }
}

template class Rows<float>;
template class Rows<double>;
template QueryRow Rows<float>::read_query(const float*, std::int64_t) const;
template QueryRow Rows<float>::read_query(const double*, std::int64_t) const;
template QueryRow Rows<double>::read_query(const float*, std::int64_t) const;
template QueryRow Rows<double>::read_query(const double*, std::int64_t) const;

}  // namespace onnxviz

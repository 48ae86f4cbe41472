#include "rows.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <type_traits>
#include <utility>

#include "kernels_in_use.h"

namespace onnxviz {
namespace {

// Squares of numbers up to here, summed over any row that fits in memory, stay finite.
constexpr double largest_number = 1e150;

// The largest absolute value of the row; throws where one is not finite or too large.
template <class T>
double checked_maximum(const T* row, std::int64_t columns, const char* what, std::int64_t number) {
  // Several at a time, so that the compiler can keep them in one register.
  constexpr std::int64_t lanes = 16;
  T maxima[lanes] = {};
  bool fine = true;
  std::int64_t j = 0;
  for (; j + lanes <= columns; j += lanes) {
    for (std::int64_t l = 0; l < lanes; ++l) {
      const T size = std::fabs(row[j + l]);
      maxima[l] = size > maxima[l] ? size : maxima[l];
      fine &= size == size;
    }
  }
  for (; j < columns; ++j) {
    const T size = std::fabs(row[j]);
    maxima[0] = size > maxima[0] ? size : maxima[0];
    fine &= size == size;
  }
  const auto maximum = static_cast<double>(*std::max_element(maxima, maxima + lanes));
  if (!fine || !(maximum <= largest_number)) {
    throw std::invalid_argument("row " + std::to_string(number) + " of the " + what +
                                " holds NaN, infinity or a number beyond 1e150");
  }
  return maximum;
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
Rows<T>::Rows(std::shared_ptr<const RowSource<T>> source, Metric metric, double* directions)
    : source_(std::move(source)), metric_(metric), directions_(directions), kernels_(distance_kernels_in_use()) {
  if (count() < 1 || columns() < 1) throw std::invalid_argument("the bank has no rows or no columns");
  if (cosine() && directions_ == nullptr) throw std::invalid_argument("cosine needs memory for the rows' directions");
}

template <class T>
template <class U>
void Rows<T>::write(const U* elements, const Normalization& normalization, ExactRow& row) const {
  row.elements.resize(static_cast<std::size_t>(columns()));
  row.without_direction = cosine() && normalization.norm == 0;
  if (row.without_direction) {
    std::fill(row.elements.begin(), row.elements.end(), 0.0);
  } else if (cosine()) {
    std::transform(elements, elements + columns(), row.elements.begin(), normalization);
  } else {
    std::copy(elements, elements + columns(), row.elements.begin());
  }
}

template <class T>
void Rows<T>::admit(std::int64_t number, const T* elements, ExactRow& row) const {
  const double maximum = checked_maximum(elements, columns(), "bank", number);
  Normalization normalization;
  if (cosine()) {
    normalization = normalize(elements, columns(), maximum);
    directions_[2 * number] = normalization.scale;
    directions_[2 * number + 1] = normalization.norm;
  }
  write(elements, normalization, row);
}

template <class T>
void Rows<T>::read(std::int64_t number, const T* elements, ExactRow& row) const {
  write(elements, cosine() ? direction(number) : Normalization{}, row);
}

template <class T>
template <class U>
void Rows<T>::read_query(std::int64_t number, const U* elements, ExactRow& row) const {
  const double maximum = checked_maximum(elements, columns(), "queries", number);
  write(elements, cosine() ? normalize(elements, columns(), maximum) : Normalization{}, row);
}

template <class T>
double Rows<T>::squared_distance(std::int64_t number, const T* elements, const ExactRow& query) const {
  const double* other = query.elements.data();
  if (!cosine()) {
    if constexpr (std::is_same_v<T, float>) {
      return kernels_.float32(elements, other, columns());
    } else {
      return kernels_.float64(elements, other, columns());
    }
  }
  const Normalization normalization = direction(number);
  if (query.without_direction || normalization.norm == 0) return 2;
  if constexpr (std::is_same_v<T, float>) {
    return kernels_.normalized_float32(elements, normalization.scale, normalization.norm, other, columns());
  } else {
    return kernels_.normalized_float64(elements, normalization.scale, normalization.norm, other, columns());
  }
}

template class Rows<float>;
template class Rows<double>;
template void Rows<float>::read_query(std::int64_t, const float*, ExactRow&) const;
template void Rows<float>::read_query(std::int64_t, const double*, ExactRow&) const;
template void Rows<double>::read_query(std::int64_t, const float*, ExactRow&) const;
template void Rows<double>::read_query(std::int64_t, const double*, ExactRow&) const;

}  // namespace onnxviz

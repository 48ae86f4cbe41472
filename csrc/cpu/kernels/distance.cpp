// The exact distance. Compiled without fused multiply-add, so that every instruction set rounds alike.
#include "kernels.h"

namespace onnxviz::ONNXVIZ_LEVEL {
namespace {

constexpr int lanes = 16;

struct Plain {
  template <class T>
  double operator()(T element) const {
    return static_cast<double>(element);
  }
};

struct Normalized {
  double scale;
  double norm;

  template <class T>
  double operator()(T element) const {
    return static_cast<double>(element) * scale / norm;
  }
};

template <class T, class Transform>
double squared_distance(const T* row, const double* query, int64_t columns, Transform transform) {
  double sums[lanes] = {};
  int64_t j = 0;
  for (; j + lanes <= columns; j += lanes) {
    for (int l = 0; l < lanes; ++l) {
      const double difference = transform(row[j + l]) - query[j + l];
      sums[l] += difference * difference;
    }
  }
  for (int l = 0; j < columns; ++j, ++l) {
    const double difference = transform(row[j]) - query[j];
    sums[l] += difference * difference;
  }
  for (int width = lanes / 2; width > 0; width /= 2) {
    for (int l = 0; l < width; ++l) {
      sums[l] += sums[l + width];
    }
  }
  return sums[0];
}

double plain_float32(const float* row, const double* query, int64_t columns) {
  return squared_distance(row, query, columns, Plain{});
}

double plain_float64(const double* row, const double* query, int64_t columns) {
  return squared_distance(row, query, columns, Plain{});
}

double normalized_float32(const float* row, double scale, double norm, const double* query, int64_t columns) {
  return squared_distance(row, query, columns, Normalized{scale, norm});
}

double normalized_float64(const double* row, double scale, double norm, const double* query, int64_t columns) {
  return squared_distance(row, query, columns, Normalized{scale, norm});
}

}  // namespace

const DistanceKernels distance_kernels = {plain_float32, plain_float64, normalized_float32, normalized_float64};

}  // namespace onnxviz::ONNXVIZ_LEVEL

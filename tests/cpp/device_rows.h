// What the tests of neighbours on a device share: arrays there and back, parts of banks.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "check.h"
#include "onnxviz/cuda/memory.h"

namespace onnxviz::test {

template <class T>
class OnDevice {
 public:
  OnDevice(const std::vector<T>& elements, const cuda::Stream& stream) : array_(elements.size(), stream.view().device) {
    cuda::copy_to_device(array_.data(), elements.data(), elements.size() * sizeof(T), stream.view());
  }
  T* data() const { return array_.data(); }

 private:
  cuda::Array<T> array_;
};

template <class T>
std::vector<T> on_host(const cuda::Array<T>& array, const cuda::Stream& stream) {
  std::vector<T> values(array.size());
  cuda::copy_to_host(values.data(), array.data(), values.size() * sizeof(T), stream.view());
  return values;
}

// As make_setup takes them.
inline std::vector<std::int64_t> widths(std::int64_t directions) {
  return directions > 0 ? std::vector<std::int64_t>{directions} : std::vector<std::int64_t>{};
}

template <class T>
Matrix<T> first_rows(const Matrix<T>& matrix, std::int64_t count) {
  Matrix<T> part(count, matrix.columns);
  std::copy(matrix.elements.begin(), matrix.elements.begin() + count * matrix.columns, part.elements.begin());
  return part;
}

}  // namespace onnxviz::test

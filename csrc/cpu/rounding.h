// Float64 numbers as float32 ones on the safe side, and what every bound allows for its roundings (levels.h).
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

namespace onnxviz {

// 32 roundings of float64; the kernels take off the same.
constexpr double slack = 0x1p-48;
// What underflow of float32 can add to the bound of a projected level.
constexpr double part_underflow = 0x1p-100;

inline float up(double value) {
  return std::nextafter(static_cast<float>(value * (1 + 0x1p-22)), std::numeric_limits<float>::infinity());
}

inline float below(double value) {
  return std::nextafter(static_cast<float>(value - std::fabs(value) * 0x1p-22), -std::numeric_limits<float>::infinity());
}

inline float down(double value) {
  return std::max(0.0F, std::nextafter(static_cast<float>(value * (1 - 0x1p-22)), 0.0F));
}

}  // namespace onnxviz

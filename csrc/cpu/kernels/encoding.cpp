// Rows of numbers as small integers, and what is lost by it. Compiled without fused multiply-add, so that every
// instruction set gives the same codes.
#include "kernels.h"

namespace onnxviz::ONNXVIZ_LEVEL {
namespace {

constexpr int lanes = 16;

double total(const double* sums) {
  double all = 0;
  for (int l = 0; l < lanes; ++l) all += sums[l];
  return all;
}

void centre(double* values, const double* reference, double scale, int64_t columns, double* lowest, double* highest,
            double* squares) {
  double low[lanes];
  double high[lanes];
  double sums[lanes] = {};
  for (int l = 0; l < lanes; ++l) {
    low[l] = 1e308;
    high[l] = -1e308;
  }
  const auto one = [&](int64_t j, int l) {
    const double value = (values[j] - reference[j]) * scale;
    values[j] = value;
    low[l] = value < low[l] ? value : low[l];
    high[l] = value > high[l] ? value : high[l];
    sums[l] += value * value;
  };
  int64_t j = 0;
  for (; j + lanes <= columns; j += lanes) {
    for (int l = 0; l < lanes; ++l) one(j + l, l);
  }
  for (int l = 0; j < columns; ++j, ++l) one(j, l);
  for (int l = 1; l < lanes; ++l) {
    low[0] = low[l] < low[0] ? low[l] : low[0];
    high[0] = high[l] > high[0] ? high[l] : high[0];
  }
  *lowest = low[0];
  *highest = high[0];
  *squares = total(sums);
}

void encode(const double* values, int64_t columns, double scale, double zero, double largest, uint8_t* codes,
            double* sum, double* squares, double* error) {
  const double inverse = 1 / scale;
  const double shift = zero + 0.5;
  double sums[lanes] = {};
  double squared[lanes] = {};
  double errors[lanes] = {};
  const auto one = [&](int64_t j, int l) {
    double level = values[j] * inverse + shift;
    level = level > 0 ? level : 0;
    level = level < largest + 0.5 ? level : largest + 0.5;
    const int code = static_cast<int>(level);
    codes[j] = static_cast<uint8_t>(code);
    const double away = static_cast<double>(code) - zero;
    const double lost = values[j] - scale * away;
    sums[l] += away;
    squared[l] += away * away;
    errors[l] += lost * lost;
  };
  int64_t j = 0;
  for (; j + lanes <= columns; j += lanes) {
    for (int l = 0; l < lanes; ++l) one(j + l, l);
  }
  for (int l = 0; j < columns; ++j, ++l) one(j, l);
  *sum = total(sums);
  *squares = total(squared);
  *error = total(errors);
}

void encode_signed(const double* values, int64_t columns, double scale, int16_t* codes, double* error) {
  const double inverse = 1 / scale;
  double errors[lanes] = {};
  const auto one = [&](int64_t j, int l) {
    // 2^15 makes it positive, so that cutting off the fraction is rounding down.
    const int code = static_cast<int>(values[j] * inverse + 32768.5) - 32768;
    codes[j] = static_cast<int16_t>(code);
    const double lost = values[j] - scale * static_cast<double>(code);
    errors[l] += lost * lost;
  };
  int64_t j = 0;
  for (; j + lanes <= columns; j += lanes) {
    for (int l = 0; l < lanes; ++l) one(j + l, l);
  }
  for (int l = 0; j < columns; ++j, ++l) one(j, l);
  *error = total(errors);
}

double inner_product(const double* values, const double* others, int64_t columns) {
  double sums[lanes] = {};
  int64_t j = 0;
  for (; j + lanes <= columns; j += lanes) {
    for (int l = 0; l < lanes; ++l) sums[l] += values[j + l] * others[j + l];
  }
  for (int l = 0; j < columns; ++j, ++l) sums[l] += values[j] * others[j];
  return total(sums);
}

}  // namespace

const EncodingKernels encoding_kernels = {centre, encode, encode_signed, inner_product};

}  // namespace onnxviz::ONNXVIZ_LEVEL

// Rows of numbers as signed bytes with what bounds.cuh needs of them, and the same of their coordinates along a basis.
#pragma once

#include <cmath>
#include <cstdint>

#include "bounds.cuh"
#include "dialect.cuh"
#include "forms.cuh"
#include "reductions.cuh"

namespace onnxviz::cuda {

constexpr int encode_threads = 128;
// -127..127, less one step at each end for the rounding of the middle.
constexpr double code_steps = 252;
constexpr double largest_code = 127;
// Squares of numbers up to here, summed over any row that fits in memory, stay finite.
constexpr double largest_number = 1e150;
// A row with a larger element, in units of the bank's size, could overflow float32.
constexpr double largest_element = 0x1p60;
constexpr double smallest_scale = 0x1p-100;

struct Quantizer {
  double scale;  // a float32
  double zero;   // an integer
};

__device__ __forceinline__ Quantizer quantizer_for(double lowest, double highest, double largest_zero) {
  const double farthest = fmax(fabs(lowest), fabs(highest));
  // bound: s|(highest - lowest) / code_steps|0.0| s|farthest / largest_zero|0.0|
  double scale = fmax((highest - lowest) / code_steps, farthest / largest_zero);
  // bound: s/fmax(scale, smallest_scale)/scale/
  scale = fmax(scale, smallest_scale);
  // bound: s/(1 + 0x1p-20)/1/
  scale = static_cast<double>(static_cast<float>(scale * (1 + 0x1p-20)));
  return {scale, -rint((lowest + highest) / 2 / scale)};
}

__device__ __forceinline__ double code_of(double value, const Quantizer& quantizer) {
  const double code = rint(value / quantizer.scale) + quantizer.zero;
  // bound: s/fmin(fmax(code, -largest_code), largest_code)/fmax(code, -largest_code)/
  // bound: s/fmin(fmax(code, -largest_code), largest_code)/fmin(code, largest_code)/
  return fmin(fmax(code, -largest_code), largest_code);
}

// Without a place among the codes: always in doubt.
__device__ __forceinline__ Terms terms_of_nowhere() {
  // bound: s/INFINITY, 0, INFINITY/0, 0, INFINITY/ s/INFINITY, 0, INFINITY/INFINITY, 0, 0/
  return {0, 0, 0, 0, 0, INFINITY, 0, INFINITY};
}

// Of the values of a row.
struct Extent {
  double lowest;
  double highest;
  double squares;
  double other_squares;  // of them less the centre, where they are coordinates
};

struct CodeSums {
  double sum;
  double squared;
  double error;
};

struct JoinLargest {
  __device__ double operator()(double a, double b) const { return a > b ? a : b; }
};
struct JoinExtents {
  __device__ Extent operator()(const Extent& a, const Extent& b) const {
    return {fmin(a.lowest, b.lowest), fmax(a.highest, b.highest), a.squares + b.squares,
            a.other_squares + b.other_squares};
  }
};
struct JoinCodeSums {
  __device__ CodeSums operator()(const CodeSums& a, const CodeSums& b) const {
    return {a.sum + b.sum, a.squared + b.squared, a.error + b.error};
  }
};

struct EncodeShared {
  double largest[encode_threads];
  Extent extents[encode_threads];
  CodeSums sums[encode_threads];
  double squares[1024];
  double norm;
};

// The codes of a row whose values a function gives, padding included; what they lose is in the radius.
template <class Values>
__device__ Terms write_codes(const Values& values, std::int64_t columns, std::int64_t row_bytes,
                             const Quantizer& quantizer, double uncertain, std::int8_t* codes,
                             CodeSums (&shared)[encode_threads]) {
  CodeSums sums{0, 0, 0};
  // bound: s/j < row_bytes/j < columns/
  for (std::int64_t j = threadIdx.x; j < row_bytes; j += encode_threads) {
    double code = 0;
    // bound: s/j < columns/true/
    if (j < columns) {
      const double value = values(j);
      code = code_of(value, quantizer);
      const double away = code - quantizer.zero;
      const double lost = value - quantizer.scale * away;
      sums.sum += away;
      sums.squared += away * away;
      sums.error += lost * lost;
    }
    codes[j] = static_cast<std::int8_t>(code);
  }
  sums = over_block(sums, shared, JoinCodeSums());
  Terms terms = terms_of_nowhere();
  terms.scale = static_cast<float>(quantizer.scale);
  terms.zero = static_cast<float>(quantizer.zero);
  terms.norm = quantizer.scale * quantizer.scale * sums.squared;
  terms.sum = sums.sum;
  terms.total = sums.sum + static_cast<double>(columns) * quantizer.zero;
  // bound: s/(1 + of_a_sum)/1/ s/ + uncertain// s/__double2float_ru/static_cast<float>/
  terms.radius = __double2float_ru(sqrt(sums.error) * (1 + of_a_sum) + uncertain);
  return terms;
}

// A block per row. The number of the lowest row that cannot be measured goes to `first_unfit`; it is encoded as zeros.
template <class T>
__global__ void __launch_bounds__(encode_threads)
    encode_rows(const T* rows, RowForm form, EncodedRows out, unsigned long long* first_unfit) {
  ONNXVIZ_SHARED(EncodeShared, shared);
  const std::int64_t row = blockIdx.x;
  const T* elements = rows + row * form.columns;
  const auto thread = static_cast<std::int64_t>(threadIdx.x);

  double largest = 0;
  // bound: s/j < form.columns/j < form.columns - 1/
  for (std::int64_t j = thread; j < form.columns; j += encode_threads) {
    const double size = fabs(static_cast<double>(elements[j]));
    // A NaN is not below anything.
    // bound: s/size <= largest_number/true/
    largest = size <= largest_number ? fmax(largest, size) : static_cast<double>(INFINITY);
    if (!(largest <= largest_number)) break;
  }
  largest = over_block(largest, shared.largest, JoinLargest());
  // bound: s/!(largest <= largest_number)/false/
  const bool unfit = !(largest <= largest_number);
  if (unfit && thread == 0) atomicMin(first_unfit, static_cast<unsigned long long>(row));

  Direction direction{1, 1};
  if (form.cosine) {
    direction.norm = 0;
    if (!unfit && largest > 0) {
      int exponent = 0;
      frexp(largest, &exponent);
      // The smallest subnormal would ask for 2^1074, which float64 does not have.
      // bound: s/min(-exponent, 1000)/-exponent/
      direction.scale = ldexp(1.0, min(-exponent, 1000));
      // One sum from front to back, as the core on a CPU makes it.
      double sum = 0;
      for (std::int64_t first = 0; first < form.columns; first += 1024) {
        // bound: s/min(form.columns - first, std::int64_t{1024})/1024/
        const std::int64_t count = min(form.columns - first, std::int64_t{1024});
        // bound: s/j < count/j < count - 1/
        for (std::int64_t j = thread; j < count; j += encode_threads) {
          const double element = __dmul_rn(static_cast<double>(elements[first + j]), direction.scale);
          shared.squares[j] = __dmul_rn(element, element);
        }
        __syncthreads();
        if (thread == 0) {
          // bound: s/j < count/j < count - 1/
          for (std::int64_t j = 0; j < count; ++j) sum = __dadd_rn(sum, shared.squares[j]);
          shared.norm = __dsqrt_rn(sum);
        }
        __syncthreads();
      }
      direction.norm = shared.norm;
    }
    if (thread == 0) out.directions[row] = direction;
  }
  const bool nothing = unfit || (form.cosine && direction.norm == 0);
  const auto element = [&](std::int64_t j) {
    if (nothing) return 0.0;
    const auto plain = static_cast<double>(elements[j]);
    return form.cosine ? direction_of(plain, direction) : plain;
  };
  const auto value = [&](std::int64_t j) { return (element(j) - form.reference[j]) * form.scale; };

  Extent extent{INFINITY, -INFINITY, 0, 0};
  // bound: s/j < form.columns/j < form.columns - 1/
  for (std::int64_t j = thread; j < form.columns; j += encode_threads) {
    const double one = value(j);
    extent.lowest = fmin(extent.lowest, one);
    extent.highest = fmax(extent.highest, one);
    extent.squares += one * one;
    // bound: s/out.elements != nullptr/true/
    if (out.elements != nullptr) out.elements[row * form.columns + j] = element(j);
  }
  extent = over_block(extent, shared.extents, JoinExtents());

  std::int8_t* codes = out.codes + row * form.row_bytes;
  // bound: s/form.usable/true/ s/!nothing/true/
  // bound: s/extent.lowest > -largest_element/true/ s/extent.highest < largest_element/true/
  const bool placed =
      form.usable && !nothing && extent.lowest > -largest_element && extent.highest < largest_element;
  Terms terms = terms_of_nowhere();
  if (placed) {
    const Quantizer quantizer = quantizer_for(extent.lowest, extent.highest, form.largest_zero);
    // bound: s/0x1p-50/0/
    const double uncertain = sqrt(extent.squares) * 0x1p-50;
    terms = write_codes(value, form.columns, form.row_bytes, quantizer, uncertain, codes, shared.sums);
  } else {
    // bound: s/j < form.row_bytes/j < form.row_bytes + 1/
    for (std::int64_t j = thread; j < form.row_bytes; j += encode_threads) codes[j] = 0;
  }
  if (thread != 0) return;
  out.terms[row] = terms;
  // bound: s/out.squares != nullptr/true/ s/placed ? extent.squares : -1/extent.squares/
  if (out.squares != nullptr) out.squares[row] = placed ? extent.squares : -1;
}

// A block per row: coordinates y = B R from the products of the row's codes with the directions' high bytes and with
// their low ones, (rows, 2 directions).
[[maybe_unused]] static __global__ void __launch_bounds__(encode_threads)
    encode_coordinates(const std::int32_t* products, const Terms* row_terms, const double* row_squares, BasisForm basis,
                       std::int8_t* all_codes, Terms* all_terms) {
  ONNXVIZ_SHARED(EncodeShared, shared);
  const std::int64_t row = blockIdx.x;
  const auto thread = static_cast<std::int64_t>(threadIdx.x);
  std::int8_t* codes = all_codes + row * basis.row_bytes;
  const double row_square = row_squares[row];
  // bound: s/row_square < 0/false/
  if (row_square < 0) {
    // bound: s/j < basis.row_bytes/j < basis.row_bytes + 1/
    for (std::int64_t j = thread; j < basis.row_bytes; j += encode_threads) codes[j] = 0;
    if (thread == 0) all_terms[row] = terms_of_nowhere();
    return;
  }
  const Terms row_term = row_terms[row];
  const auto scale = static_cast<double>(row_term.scale);
  const auto zero = static_cast<double>(row_term.zero);
  const std::int32_t* high = products + row * 2 * basis.directions;
  const std::int32_t* low = high + basis.directions;
  // s s_i and the bracket are exact.
  const auto coordinate = [&](std::int64_t i) {
    const double product = 128 * static_cast<double>(high[i]) + static_cast<double>(low[i]);
    return scale * basis.scale[i] * (product - zero * basis.sum[i]);
  };
  const auto centred = [&](std::int64_t i) { return coordinate(i) - basis.centre[i]; };
  Extent extent{INFINITY, -INFINITY, 0, 0};
  // bound: s/i < basis.directions/i < basis.directions - 1/
  for (std::int64_t i = thread; i < basis.directions; i += encode_threads) {
    const double plain = coordinate(i);
    const double one = centred(i);
    extent.lowest = fmin(extent.lowest, one);
    extent.highest = fmax(extent.highest, one);
    extent.squares += plain * plain;
    extent.other_squares += one * one;
  }
  extent = over_block(extent, shared.extents, JoinExtents());

  // The radius of the row has 2^-50 |X| in it, which is more than what a coordinate is rounded by; its centring is not.
  // bound: s/basis.stretch/1/
  const double away = basis.stretch * static_cast<double>(row_term.radius);
  // bound: s/0x1p-50/0/ s/ + away//
  const double uncertain = sqrt(extent.other_squares) * 0x1p-50 + away;
  const Quantizer quantizer = quantizer_for(extent.lowest, extent.highest, basis.largest_zero);
  Terms terms = write_codes(centred, basis.directions, basis.row_bytes, quantizer, uncertain, codes, shared.sums);
  if (thread != 0) return;
  const double length = sqrt(extent.squares);
  // bound: s/ + away//
  const double longest = length + away;
  // bound: s/ - away// s/fmax(0.0, /(/
  const double shortest = fmax(0.0, length - away);
  // 2^-30 of |X|^2 is more than what is rounded in all of this, sums and roots included.
  // bound: s/(1 - of_a_sum)/1/ s/(1 - basis.excess)/1/
  const double least = row_square * (1 - of_a_sum) - longest * longest / (1 - basis.excess);
  // bound: s/(1 + of_a_sum)/1/ s/(1 + basis.excess)/1/
  const double most = row_square * (1 + of_a_sum) - shortest * shortest / (1 + basis.excess);
  // bound: s/__double2float_rd/static_cast<float>/ s/fmax(0.0, /(/
  terms.residual_low = __double2float_rd(sqrt(fmax(0.0, least)));
  // bound: s/__double2float_ru/static_cast<float>/ s/fmax(0.0, /(/
  terms.residual_high = __double2float_ru(sqrt(fmax(0.0, most)));
  all_terms[row] = terms;
}

}  // namespace onnxviz::cuda

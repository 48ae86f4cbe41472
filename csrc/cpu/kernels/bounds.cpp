// Lower bounds on many distances at once, and the choice of the rows that they leave within reach.
#include "kernels.h"

#if defined(__AVX512F__) && defined(__GNUC__)
#include <immintrin.h>
#endif

namespace onnxviz::ONNXVIZ_LEVEL {
namespace {

// 32 units of float64 roundoff: levels.h says why 32 are enough for all that is computed here.
constexpr double keep = 1 - 0x1p-48;
// Rounds a positive float64 to a float32 below it.
constexpr double keep_float = 1 - 0x1p-22;
constexpr float raise = 1 + 0x1p-20F;
// Squares below this may have lost digits to underflow in float32.
constexpr float underflow = 0x1p-120F;

void side_by_side(const float* terms, int64_t of_each, int64_t count, float* const* columns) {
  float* __restrict first = columns[0];
  float* __restrict second = columns[1];
  if (of_each == 2) {
    for (int64_t r = 0; r < count; ++r) {
      first[r] = terms[2 * r];
      second[r] = terms[2 * r + 1];
    }
    return;
  }
  float* __restrict third = columns[2];
  float* __restrict fourth = columns[3];
  for (int64_t r = 0; r < count; ++r) {
    first[r] = terms[4 * r];
    second[r] = terms[4 * r + 1];
    third[r] = terms[4 * r + 2];
    fourth[r] = terms[4 * r + 3];
  }
}

void squared_lower(RowTerms rows, int64_t count, QueryTerms query, const int32_t* high, const int32_t* low,
                   float* squared) {
  const double* __restrict norm = rows.norm;
  const double* __restrict sum = rows.sum;
  const float* __restrict scale = rows.scale;
  const float* __restrict zero = rows.zero;
  float* __restrict out = squared;
  // A block at a time, in steps that the compiler turns into vector code whatever the mixture of types.
  constexpr int64_t block = 64;
  for (int64_t first = 0; first < count; first += block) {
    const int64_t n = count - first < block ? count - first : block;
    double value[block];
    if (high != nullptr) {
      for (int64_t r = 0; r < n; ++r) {
        value[r] = query.high_weight * static_cast<double>(high[first + r]) + static_cast<double>(low[first + r]);
      }
    } else {
      for (int64_t r = 0; r < n; ++r) value[r] = static_cast<double>(low[first + r]);
    }
    for (int64_t r = 0; r < n; ++r) value[r] -= static_cast<double>(zero[first + r]) * query.sum;
    if (query.zero != 0) {
      for (int64_t r = 0; r < n; ++r) value[r] -= sum[first + r] * query.zero;
    }
    for (int64_t r = 0; r < n; ++r) {
      const double scales = static_cast<double>(scale[first + r]) * query.twice_scale;
      value[r] = (norm[first + r] * keep + query.norm) - value[r] * scales;
    }
    for (int64_t r = 0; r < n; ++r) {
      const double positive = value[r] > 0 ? value[r] : 0;
      out[first + r] = static_cast<float>(positive * keep_float);
    }
  }
}

int64_t within_reach(const float* squared, const float* radius, int64_t count, float reach, int64_t first,
                     int64_t* rows) {
  int64_t found = 0;
  int64_t r = 0;
#if defined(__AVX512F__) && defined(__GNUC__)
  for (; r + 16 <= count; r += 16) {
    const __m512 far = _mm512_add_ps(_mm512_set1_ps(reach), _mm512_loadu_ps(radius + r));
    const __m512 limit =
        _mm512_add_ps(_mm512_mul_ps(_mm512_mul_ps(far, far), _mm512_set1_ps(raise)), _mm512_set1_ps(underflow));
    unsigned mask = _mm512_cmp_ps_mask(_mm512_loadu_ps(squared + r), limit, _CMP_LE_OQ);
    for (; mask != 0; mask &= mask - 1) rows[found++] = first + r + __builtin_ctz(mask);
  }
#endif
  for (; r < count; ++r) {
    const float far = reach + radius[r];
    rows[found] = first + r;
    found += squared[r] <= far * far * raise + underflow ? 1 : 0;
  }
  return found;
}

int64_t below(const float* squared, int64_t count, float limit, int64_t first, int64_t* rows) {
  int64_t found = 0;
  int64_t r = 0;
#if defined(__AVX512F__) && defined(__GNUC__)
  for (; r + 16 <= count; r += 16) {
    unsigned mask = _mm512_cmp_ps_mask(_mm512_loadu_ps(squared + r), _mm512_set1_ps(limit), _CMP_LT_OQ);
    for (; mask != 0; mask &= mask - 1) rows[found++] = first + r + __builtin_ctz(mask);
  }
#endif
  for (; r < count; ++r) {
    rows[found] = first + r;
    found += squared[r] < limit ? 1 : 0;
  }
  return found;
}

void part(PartRows rows, int64_t count, const PartQuery* query, const int32_t* high, const int32_t* low,
          float* squared) {
  const float* __restrict scale = rows.scale;
  const float* __restrict radius = rows.radius;
  const float* __restrict length = rows.length;
  float* __restrict out = squared;
  const PartQuery of = *query;
  if (rows.square != nullptr) {
    const float* __restrict square = rows.square;
    const float* __restrict slack = rows.slack;
    for (int64_t r = 0; r < count; ++r) out[r] = square[r] * of.keep + of.square - slack[r] * of.slack;
  }
  if (high != nullptr) {
    for (int64_t r = 0; r < count; ++r) {
      const float product = of.high_weight * static_cast<float>(of.weight * high[r] - of.high_offset) +
                            static_cast<float>(of.weight * low[r] - of.low_offset);
      out[r] -= scale[r] * (of.twice_scale * product) + radius[r] * of.radius + length[r] * of.length;
    }
  } else {
    for (int64_t r = 0; r < count; ++r) {
      const auto product = static_cast<float>(of.weight * low[r] - of.low_offset);
      out[r] -= scale[r] * (of.twice_scale * product) + radius[r] * of.radius + length[r] * of.length;
    }
  }
}

void less_residual(const float* squared, const float* residual, int64_t count, float of_query, float* lower) {
  for (int64_t r = 0; r < count; ++r) lower[r] = squared[r] - residual[r] * of_query;
}

int64_t within_limit(const float* squared, const float* residual, int64_t count, float of_query, float limit,
                     int64_t first, int64_t* rows) {
  int64_t found = 0;
  int64_t r = 0;
#if defined(__AVX512F__) && defined(__GNUC__)
  for (; r + 16 <= count; r += 16) {
    const __m512 lower = _mm512_sub_ps(_mm512_loadu_ps(squared + r),
                                       _mm512_mul_ps(_mm512_loadu_ps(residual + r), _mm512_set1_ps(of_query)));
    // What is no number is not above either.
    unsigned mask = _mm512_cmp_ps_mask(lower, _mm512_set1_ps(limit), _CMP_NGT_UQ);
    for (; mask != 0; mask &= mask - 1) rows[found++] = first + r + __builtin_ctz(mask);
  }
#endif
  for (; r < count; ++r) {
    rows[found] = first + r;
    found += squared[r] - residual[r] * of_query > limit ? 0 : 1;
  }
  return found;
}

}  // namespace

const BoundKernels bound_kernels = {side_by_side, squared_lower, within_reach, below,
                                    part,         less_residual, within_limit};

}  // namespace onnxviz::ONNXVIZ_LEVEL

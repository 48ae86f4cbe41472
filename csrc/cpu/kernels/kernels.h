// The functions that are compiled once per instruction set, as tables. This header, like the files that implement it,
// includes nothing with inline functions in it but the compiler's own intrinsics (see cmake/cpu_levels.cmake).
#pragma once

#include <stdint.h>

namespace onnxviz {

struct DistanceKernels {
  // sum_j (row_j - query_j)^2 in float64, in the order that include/onnxviz/neighbors.h lays down.
  double (*float32)(const float* row, const double* query, int64_t columns);
  double (*float64)(const double* row, const double* query, int64_t columns);
  // The same with (row_j * scale) / norm in the place of row_j.
  double (*normalized_float32)(const float* row, double scale, double norm, const double* query, int64_t columns);
  double (*normalized_float64)(const double* row, double scale, double norm, const double* query, int64_t columns);
};

// Codes are padded with zeros to whole blocks: of 64 bytes each, one column to a byte, or two to a byte.
constexpr int64_t byte_block = 64;
constexpr int64_t nibble_block = 128;
// products[v * products_stride + r] = sum_j row_r[j] * vector_v[j], exact as long as it stays within int32. Rows and
// vectors lie `row_bytes` and `vector_bytes` apart; columns is a whole number of blocks.
using ProductKernel = void (*)(const uint8_t* rows, int64_t row_bytes, int64_t count, const int8_t* vectors,
                               int64_t vector_bytes, int64_t number, int64_t columns, int32_t* products,
                               int64_t products_stride);

// The same for the rows of the given numbers, which lie anywhere.
using ListedProductKernel = void (*)(const uint8_t* rows, int64_t row_bytes, const int64_t* numbers, int64_t count,
                                     const int8_t* vectors, int64_t vector_bytes, int64_t number, int64_t columns,
                                     int32_t* products, int64_t products_stride);

// Byte b of block i of a row of nibbles holds column 128 i + b in its low and column 128 i + 64 + b in its high half.
struct ProductKernels {
  ProductKernel bytes;
  ProductKernel nibbles;
  ListedProductKernel listed_bytes;
  ListedProductKernel listed_nibbles;
};

// What the bound of levels.h takes of a run of rows, and of one query.
struct RowTerms {
  const double* norm;
  const double* sum;
  const float* scale;
  const float* zero;
};

struct QueryTerms {
  double norm;         // its slack taken off already
  double high_weight;  // of the first of two vectors, beside the second
  double twice_scale;
  double sum;
  double zero;
};

// The same of one level of projections, which goes on from the level before it.
struct PartRows {
  const float* scale;
  const float* radius;
  const float* length;
  const float* square;  // of the first level, null in the others
  const float* slack;
};

struct PartQuery {
  float twice_scale;
  float high_weight;
  int32_t weight;       // 1, or 2 where codes are halves: they stand for weight * code - zero
  int32_t high_offset;  // zero times the sum of each vector
  int32_t low_offset;
  float radius;  // what a row's radius, length, square and slack count
  float length;
  float keep;
  float square;
  float slack;
  float residual;
};

struct BoundKernels {
  // columns[i][r] = terms[of_each * r + i]: what is kept row by row, side by side. Either 2 or 4 of each.
  void (*side_by_side)(const float* terms, int64_t of_each, int64_t count, float* const* columns);
  // squared[r]: not above (distance between the codes)^2, at least 0, float32. `high` is null where the query has one
  // vector only.
  void (*squared_lower)(RowTerms rows, int64_t count, QueryTerms query, const int32_t* high, const int32_t* low,
                        float* squared);
  // Writes first + r for every r with squared[r] <= (reach + radius[r])^2, the right side rounded up; returns how many.
  int64_t (*within_reach)(const float* squared, const float* radius, int64_t count, float reach, int64_t first,
                          int64_t* rows);
  // The same for every r with squared[r] < limit.
  int64_t (*below)(const float* squared, int64_t count, float limit, int64_t first, int64_t* rows);
  // squared[r], which the level before has left there unless this is the first, becomes the squared lower bound before
  // the residuals are taken off; may be below 0 or no number.
  void (*part)(PartRows rows, int64_t count, const PartQuery* query, const int32_t* high, const int32_t* low,
               float* squared);
  // lower[r] = squared[r] - residual[r] * of_query.
  void (*less_residual)(const float* squared, const float* residual, int64_t count, float of_query, float* lower);
  // Writes first + r for every r whose squared[r] - residual[r] * of_query is not above the limit; returns how many.
  int64_t (*within_limit)(const float* squared, const float* residual, int64_t count, float of_query, float limit,
                          int64_t first, int64_t* rows);
};

struct EncodingKernels {
  // values[j] = (values[j] - reference[j]) * scale; lowest, highest and sum of squares of the result.
  void (*centre)(double* values, const double* reference, double scale, int64_t columns, double* lowest,
                 double* highest, double* squares);
  // codes[j] = values[j] / scale + zero, rounded and kept within 0..largest; the sums of (code - zero), of its square,
  // and of the squared differences between values and scale * (code - zero).
  void (*encode)(const double* values, int64_t columns, double scale, double zero, double largest, uint8_t* codes,
                 double* sum, double* squares, double* error);
  // codes[j] = values[j] / scale, rounded, |.| at most 2^15; error as above with zero = 0.
  void (*encode_signed)(const double* values, int64_t columns, double scale, int16_t* codes, double* error);
  double (*inner_product)(const double* values, const double* others, int64_t columns);
};

#define ONNXVIZ_DECLARE_KERNELS(level)              \
  namespace level {                                 \
  extern const DistanceKernels distance_kernels;    \
  extern const ProductKernels product_kernels;      \
  extern const BoundKernels bound_kernels;          \
  extern const EncodingKernels encoding_kernels;    \
  }

ONNXVIZ_DECLARE_KERNELS(baseline)
ONNXVIZ_DECLARE_KERNELS(avx2)
ONNXVIZ_DECLARE_KERNELS(avx512)

#undef ONNXVIZ_DECLARE_KERNELS

}  // namespace onnxviz

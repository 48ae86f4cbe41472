// The functions that are compiled once per instruction set, as a table. This header, like the files that implement it,
// includes nothing with inline functions in it (see cmake/cpu_levels.cmake).
#pragma once

#include <stdint.h>

namespace onnxviz {

// Rows of one panel and queries of one tile of the float32 filter.
constexpr int panel_rows = 64;
constexpr int tile_queries = 6;

struct DistanceKernels {
  // sum_j (row_j - query_j)^2 in float64, in the order that include/onnxviz/neighbors.h lays down.
  double (*float32)(const float* row, const double* query, int64_t columns);
  double (*float64)(const double* row, const double* query, int64_t columns);
  // The same with (row_j * scale) / norm in the place of row_j.
  double (*normalized_float32)(const float* row, double scale, double norm, const double* query, int64_t columns);
  double (*normalized_float64)(const double* row, double scale, double norm, const double* query, int64_t columns);
};

// products[q * panel_rows + r] += sum_j panel[j * panel_rows + r] * tile[j * tile_queries + q], in float32, the sum over
// j taken one term after the other before it is added.
using FilterKernel = void (*)(const float* panel, const float* tile, int64_t columns, float* products);

#define ONNXVIZ_DECLARE_KERNELS(level)              \
  namespace level {                                 \
  extern const DistanceKernels distance_kernels;    \
  extern const FilterKernel filter_kernel;          \
  }

ONNXVIZ_DECLARE_KERNELS(baseline)
ONNXVIZ_DECLARE_KERNELS(avx2)
ONNXVIZ_DECLARE_KERNELS(avx512)

#undef ONNXVIZ_DECLARE_KERNELS

}  // namespace onnxviz

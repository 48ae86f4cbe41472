// Inner products of a panel of rows with a tile of queries in float32: the register-blocked core of a matrix product.
#include "kernels.h"

namespace onnxviz::ONNXVIZ_LEVEL {
namespace {

#if defined(__AVX512F__)
constexpr int width = 16;
constexpr int vectors = 4;
#elif defined(__AVX2__)
constexpr int width = 8;
constexpr int vectors = 2;
#else
constexpr int width = 4;
constexpr int vectors = 2;
#endif

#if defined(__GNUC__)
// Unaligned and aliasing on purpose: it is loaded from, and stored to, plain arrays of float.
typedef float Vector __attribute__((vector_size(width * sizeof(float)), aligned(4), may_alias));
#else
struct Vector {
  float element[width];

  friend Vector operator*(Vector a, float b) {
    for (int i = 0; i < width; ++i) a.element[i] *= b;
    return a;
  }
  Vector& operator+=(const Vector& other) {
    for (int i = 0; i < width; ++i) element[i] += other.element[i];
    return *this;
  }
};
#endif

// vectors x tile_queries accumulators fill the registers: 24 of 32 with AVX-512, 12 of 16 otherwise.
void multiply(const float* panel, const float* tile, int64_t columns, float* products) {
  constexpr int rows_at_once = width * vectors;
  static_assert(panel_rows % rows_at_once == 0, "a panel is a whole number of register blocks");
  for (int first = 0; first < panel_rows; first += rows_at_once) {
    Vector sums[tile_queries][vectors] = {};
    const float* rows = panel + first;
    const float* queries = tile;
    for (int64_t j = 0; j < columns; ++j, rows += panel_rows, queries += tile_queries) {
      Vector loaded[vectors];
      for (int v = 0; v < vectors; ++v) loaded[v] = *reinterpret_cast<const Vector*>(rows + v * width);
      for (int q = 0; q < tile_queries; ++q) {
        for (int v = 0; v < vectors; ++v) sums[q][v] += loaded[v] * queries[q];
      }
    }
    for (int q = 0; q < tile_queries; ++q) {
      for (int v = 0; v < vectors; ++v) {
        *reinterpret_cast<Vector*>(products + q * panel_rows + first + v * width) += sums[q][v];
      }
    }
  }
}

}  // namespace

const FilterKernel filter_kernel = multiply;

}  // namespace onnxviz::ONNXVIZ_LEVEL

#include "kernels_in_use.h"

#include "onnxviz/build_facts.h"
#include "onnxviz/cpu.h"

namespace onnxviz {
namespace {

// The same table of each level, lowest first; those that this build lacks are null.
template <class Table>
const Table& in_use(const Table* baseline_table, const Table* avx2_table, const Table* avx512_table) {
  switch (level_in_use()) {
    case CpuLevel::avx512:
      return *avx512_table;
    case CpuLevel::avx2:
      return *avx2_table;
    default:
      return *baseline_table;
  }
}

#if ONNXVIZ_HAS_AVX2
#define ONNXVIZ_AVX2(table) &avx2::table
#else
#define ONNXVIZ_AVX2(table) nullptr
#endif
#if ONNXVIZ_HAS_AVX512
#define ONNXVIZ_AVX512(table) &avx512::table
#else
#define ONNXVIZ_AVX512(table) nullptr
#endif
#define ONNXVIZ_IN_USE(table) in_use<decltype(baseline::table)>(&baseline::table, ONNXVIZ_AVX2(table), ONNXVIZ_AVX512(table))

}  // namespace

const DistanceKernels& distance_kernels_in_use() { return ONNXVIZ_IN_USE(distance_kernels); }
const ProductKernels& product_kernels_in_use() { return ONNXVIZ_IN_USE(product_kernels); }
const BoundKernels& bound_kernels_in_use() { return ONNXVIZ_IN_USE(bound_kernels); }
const EncodingKernels& encoding_kernels_in_use() { return ONNXVIZ_IN_USE(encoding_kernels); }

}  // namespace onnxviz

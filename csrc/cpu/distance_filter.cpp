#include "distance_filter.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>

#include "onnxviz/build_facts.h"
#include "onnxviz/cpu.h"
#include "parallel.h"

namespace onnxviz {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();
// Columns per float32 summation chain, chosen so that a panel's chunk (64 KiB) stays in the second-level cache.
constexpr std::int64_t chunk_columns = 256;
// Beyond this many columns the bound would tell nothing any more.
constexpr std::int64_t largest_filtered = std::int64_t{1} << 22;
// A query with a larger element, in units of the bank's size, could overflow float32 sums.
constexpr double largest_element = 0x1p60;

FilterKernel kernel_in_use() {
  switch (level_in_use()) {
#if ONNXVIZ_HAS_AVX512
    case CpuLevel::avx512:
      return avx512::filter_kernel;
#endif
#if ONNXVIZ_HAS_AVX2
    case CpuLevel::avx2:
      return avx2::filter_kernel;
#endif
    default:
      return baseline::filter_kernel;
  }
}

}  // namespace

template <class T>
DistanceFilter::DistanceFilter(const Rows<T>& rows, int threads)
    : rows_(rows.count()), columns_(rows.columns()), kernel_(kernel_in_use()) {
  choose_bound(rows.maximum());
  if (!usable_) return;
  find_mean(rows, threads);
  pack(rows, threads);
}

void DistanceFilter::choose_bound(double maximum) {
  int exponent = 0;
  std::frexp(maximum, &exponent);
  // |x - mu| <= 2 maximum < 2^(exponent + 1). Powers beyond 400 would not square within float64.
  usable_ = maximum > 0 && std::abs(exponent) < 400 && columns_ <= largest_filtered;
  if (!usable_) return;
  scale_ = std::ldexp(1.0, -(exponent + 1));
  const std::int64_t chunks = (columns_ + chunk_columns - 1) / chunk_columns;
  const auto roundings = static_cast<double>(std::min(chunk_columns, columns_) + chunks + 2);
  const auto terms = static_cast<double>(columns_);
  slack_ = 1.02 * roundings * std::ldexp(1.0, -24) + std::ldexp(1.0, -21) + (terms + 64) * std::ldexp(1.0, -49);
  floor_ = terms * std::ldexp(1.0, -118);
}

template <class T>
void DistanceFilter::find_mean(const Rows<T>& rows, int threads) {
  mean_.assign(static_cast<std::size_t>(columns_), 0.0);
  constexpr std::int64_t columns_per_task = 512;
  const std::int64_t tasks = (columns_ + columns_per_task - 1) / columns_per_task;
  parallel_for(tasks, threads, [&](std::int64_t task) {
    const std::int64_t begin = task * columns_per_task;
    const std::int64_t end = std::min(columns_, begin + columns_per_task);
    for (std::int64_t i = 0; i < rows_; ++i) {
      if (rows.without_direction(i)) continue;
      for (std::int64_t j = begin; j < end; ++j) mean_[static_cast<std::size_t>(j)] += rows.element(i, j);
    }
    for (std::int64_t j = begin; j < end; ++j) mean_[static_cast<std::size_t>(j)] /= static_cast<double>(rows_);
  });
}

template <class T>
void DistanceFilter::pack(const Rows<T>& rows, int threads) {
  packed_.assign(static_cast<std::size_t>(panels() * panel_rows * columns_), 0.0F);
  lower_.assign(static_cast<std::size_t>(rows_), 0.0);
  upper_.assign(static_cast<std::size_t>(rows_), 0.0);
  parallel_for(panels(), threads, [&](std::int64_t panel) {
    const std::int64_t first = panel * panel_rows;
    const std::int64_t last = std::min(rows_, first + panel_rows);
    float* destination = packed_.data() + static_cast<std::size_t>(first * columns_);
    double squares[panel_rows] = {};
    // A cache line's worth of columns of every row, then the next: reads and writes both stay in the cache.
    constexpr std::int64_t block = 16;
    for (std::int64_t begin = 0; begin < columns_; begin += block) {
      const std::int64_t end = std::min(columns_, begin + block);
      for (std::int64_t i = first; i < last; ++i) {
        if (rows.without_direction(i)) continue;
        for (std::int64_t j = begin; j < end; ++j) {
          const auto stored = static_cast<float>((rows.element(i, j) - mean_[static_cast<std::size_t>(j)]) * scale_);
          destination[j * panel_rows + (i - first)] = stored;
          squares[i - first] += static_cast<double>(stored) * static_cast<double>(stored);
        }
      }
    }
    for (std::int64_t i = first; i < last; ++i) {
      // A row without direction has no place among the others: it always stays in doubt.
      const bool placed = !rows.without_direction(i);
      lower_[static_cast<std::size_t>(i)] = placed ? squares[i - first] * (1 - slack_) : -infinity;
      upper_[static_cast<std::size_t>(i)] = placed ? squares[i - first] * (1 + slack_) : infinity;
    }
  });
}

DistanceFilter::QueryPart DistanceFilter::prepare(const QueryRow& query, int slot, std::vector<float>& group) const {
  QueryPart part;
  if (!usable_ || query.without_direction) return part;
  float* tile = group.data() + slot / tile_queries * tile_queries * columns_ + slot % tile_queries;
  double squares = 0;
  for (std::int64_t j = 0; j < columns_; ++j) {
    const auto position = static_cast<std::size_t>(j);
    const double scaled = (query.elements[position] - mean_[position]) * scale_;
    if (!(std::fabs(scaled) < largest_element)) return part;
    const auto stored = static_cast<float>(scaled);
    tile[j * tile_queries] = stored;
    squares += static_cast<double>(stored) * static_cast<double>(stored);
  }
  part.usable = true;
  part.lower = squares * (1 - slack_) - floor_;
  part.upper = squares * (1 + slack_) + floor_;
  return part;
}

void DistanceFilter::multiply(std::int64_t panel, const std::vector<float>& group, int queries,
                              std::vector<float>& products) const {
  products.assign(group_queries * panel_rows, 0.0F);
  const float* rows = packed_.data() + static_cast<std::size_t>(panel * panel_rows * columns_);
  for (std::int64_t begin = 0; begin < columns_; begin += chunk_columns) {
    const std::int64_t length = std::min(chunk_columns, columns_ - begin);
    for (int tile = 0; tile * tile_queries < queries; ++tile) {
      kernel_(rows + begin * panel_rows, group.data() + (tile * columns_ + begin) * tile_queries, length,
              products.data() + tile * tile_queries * panel_rows);
    }
  }
}

template DistanceFilter::DistanceFilter(const Rows<float>&, int);
template DistanceFilter::DistanceFilter(const Rows<double>&, int);

}  // namespace onnxviz

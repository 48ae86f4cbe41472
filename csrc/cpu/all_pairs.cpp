#include "all_pairs.h"

#include <algorithm>

#include "kernels_in_use.h"

namespace onnxviz {
namespace {

constexpr std::size_t lock_count = 1024;
// Rows that a group meets at a time: what it takes to lay out the group's vectors for them is spread over as many.
constexpr std::int64_t rows_at_once = 4 * rows_per_tile;

}  // namespace

template <class T>
AllPairs<T>::AllPairs(const Rows<T>& rows, const Levels& levels, std::int64_t k)
    : rows_(rows), levels_(levels), thresholds_(static_cast<std::size_t>(rows.count())), locks_(lock_count) {
  shortlists_.reserve(thresholds_.size());
  for (std::int64_t row = 0; row < rows.count(); ++row) {
    const auto exact = [this, row](const std::int64_t* numbers, std::int64_t count, double* squared) {
      const RowSource<T>& source = rows_.source();
      std::vector<T> buffer;
      std::vector<const T*> places(static_cast<std::size_t>(count));
      ExactRow query;
      rows_.read(row, source.block(row, 1, buffer), query);
      source.gather(numbers, count, buffer, places.data());
      for (std::int64_t i = 0; i < count; ++i) {
        squared[i] = rows_.squared_distance(numbers[i], places[static_cast<std::size_t>(i)], query);
      }
    };
    shortlists_.emplace_back(k, levels.scale(), std::max<std::int64_t>(16, rows.source().gathered_at_once()),
                             thresholds_[static_cast<std::size_t>(row)], exact);
  }
}

template <class T>
void AllPairs<T>::offer(std::int64_t row, const Interval& interval, std::int64_t other) {
  const auto place = static_cast<std::size_t>(row);
  if (interval.lower > thresholds_[place].get()) return;
  const std::lock_guard<std::mutex> lock(locks_[place % lock_count]);
  shortlists_[place].offer(interval.lower, interval.upper, other);
}

template <class T>
void AllPairs<T>::meet(std::int64_t group) {
  const std::int64_t begin = group * rows_per_group;
  const std::int64_t end = std::min(rows_.count(), begin + rows_per_group);
  const auto number = end - begin;
  const int level = levels_.count() - 1;
  const LevelShape& shape = levels_.level(level).shape;
  const std::int64_t vector_bytes = levels_.vector_bytes(level);
  const float* radius = levels_.level(level).memory.radius;
  const BoundKernels& kernels = bound_kernels_in_use();
  std::vector<std::int8_t> vectors(static_cast<std::size_t>(number * vector_bytes), 0);
  std::vector<LevelQuery> coarse;
  for (std::int64_t q = 0; q < number; ++q) {
    coarse.push_back(levels_.coarse_of_row(level, begin + q, vectors.data() + q * vector_bytes));
  }
  std::vector<std::int32_t> products(static_cast<std::size_t>(number * rows_at_once));
  float bounds[rows_at_once];
  float widened[rows_at_once];
  float thresholds[rows_at_once];
  std::int64_t found[rows_at_once];
  for (std::int64_t first = begin; first < rows_.count(); first += rows_at_once) {
    const std::int64_t count = std::min(rows_at_once, rows_.count() - first);
    levels_.product(level)(levels_.codes(level, first), shape.row_bytes(), count, vectors.data(), vector_bytes, number,
                           levels_.padded_columns(level), products.data(), rows_at_once);
    // Of the tile's rows once for all queries; what they fall by meanwhile, the bounds on single pairs allow for.
    for (std::int64_t i = 0; i < count; ++i) {
      thresholds[i] = levels_.reach({}, thresholds_[static_cast<std::size_t>(first + i)].get());
    }
    for (std::int64_t q = 0; q < number; ++q) {
      const std::int64_t row = begin + q;
      const LevelQuery& query = coarse[static_cast<std::size_t>(q)];
      kernels.squared_lower(levels_.terms(level, first), count, query.terms, nullptr,
                            products.data() + q * rows_at_once, bounds);
      // Whichever of the two rows looks farther decides whether the pair is looked at.
      const double own = thresholds_[static_cast<std::size_t>(row)].get();
      const float reach = levels_.reach(query, own);
      const float threshold = levels_.reach({}, own);
      // Three roundings more than elsewhere; the limit of within_reach is rounded up by sixteen.
      for (std::int64_t i = 0; i < count; ++i) {
        widened[i] = radius[first + i] + std::max(0.0F, thresholds[i] - threshold);
      }
      const std::int64_t kept = kernels.within_reach(bounds, widened, count, reach, first, found);
      for (std::int64_t i = 0; i < kept; ++i) {
        const std::int64_t other = found[i];
        if (other < row) continue;
        const std::int32_t product = products[static_cast<std::size_t>(q * rows_at_once + other - first)];
        const Interval interval = levels_.interval(level, other, query, nullptr, product);
        offer(row, interval, other);
        if (other != row) offer(other, interval, row);
      }
    }
  }
}

template <class T>
std::vector<Neighbor> AllPairs<T>::take(std::int64_t row) {
  return shortlists_[static_cast<std::size_t>(row)].take_best();
}

template class AllPairs<float>;
template class AllPairs<double>;

}  // namespace onnxviz

#include "all_pairs.h"

#include <algorithm>
#include <limits>

#include "kernels_in_use.h"

namespace onnxviz {
namespace {

constexpr std::size_t lock_count = 1024;

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
  std::vector<FineQuery> fine(static_cast<std::size_t>(number));
  std::vector<T> buffer;
  for (std::int64_t q = 0; q < number; ++q) {
    FineQuery& query = fine[static_cast<std::size_t>(q)];
    rows_.read(begin + q, rows_.source().block(begin + q, 1, buffer), query.row);
    levels_.prepare(query);
    coarse.push_back(levels_.coarse_of_row(level, begin + q, vectors.data() + q * vector_bytes));
  }
  std::vector<std::int32_t> products(static_cast<std::size_t>(number * rows_per_tile));
  float bounds[rows_per_tile];
  float widened[rows_per_tile];
  float thresholds[rows_per_tile];
  std::int64_t found[rows_per_tile];
  for (std::int64_t first = begin; first < rows_.count(); first += rows_per_tile) {
    const std::int64_t count = std::min(rows_per_tile, rows_.count() - first);
    levels_.product(level)(levels_.codes(level, first), shape.row_bytes(), count, vectors.data(), vector_bytes, number,
                           levels_.padded_columns(level), products.data(), rows_per_tile);
    // Of the tile's rows once for all queries; what they fall by meanwhile, the bounds on single pairs allow for.
    for (std::int64_t i = 0; i < count; ++i) {
      thresholds[i] = levels_.reach({}, thresholds_[static_cast<std::size_t>(first + i)].get());
    }
    for (std::int64_t q = 0; q < number; ++q) {
      const std::int64_t row = begin + q;
      const LevelQuery& query = coarse[static_cast<std::size_t>(q)];
      kernels.squared_lower(levels_.terms(level, first), count, query.terms, nullptr,
                            products.data() + q * rows_per_tile, bounds);
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
        const FineQuery& meeting = fine[static_cast<std::size_t>(q)];
        const Interval interval = meeting.usable ? levels_.bounds(level, other, meeting)
                                                 : Interval{0, std::numeric_limits<double>::infinity()};
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

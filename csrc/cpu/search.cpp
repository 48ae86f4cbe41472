#include "search.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels_in_use.h"

namespace onnxviz {
namespace {

// Bounds kept at a time, over all queries of a group: they stay in the last cache.
constexpr std::int64_t bounds_at_once = std::int64_t{3} << 19;
constexpr std::int64_t most_rows_per_chunk = std::int64_t{1} << 17;
// Of the cost of a row: bytes of codes that memory delivers, or the products of columns that a core computes, in a
// nanosecond; what every bound takes besides; and a row that is reached alone.
constexpr double bytes_per_nanosecond = 25;
constexpr double columns_per_nanosecond = 200;
constexpr double bound_cost = 1.3;
constexpr double lone_bytes_per_nanosecond = 12;
constexpr double lone_columns_per_nanosecond = 120;
constexpr double lone_cost = 25;

void prefetch(const void* address, std::int64_t bytes) {
#if defined(__GNUC__)
  const auto* line = static_cast<const char*>(address);
  for (std::int64_t offset = 0; offset < bytes; offset += 64) __builtin_prefetch(line + offset);
#else
  (void)address;
  (void)bytes;
#endif
}

struct Candidate {
  double lower;
  std::int64_t row;

  bool operator<(const Candidate& other) const { return lower < other.lower; }
};

}  // namespace

template <class T>
std::vector<Look> Search<T>::looks(const std::vector<FineQuery>& queries, int start) const {
  std::vector<Look> looks = {look(queries, start)};
  for (int level = start + 1; level + 1 < levels_.count(); ++level) looks.push_back(look(queries, level));
  return looks;
}

template <class T>
double Search<T>::cost(int start, double share_left, bool single) const {
  const LevelShape& shape = levels_.level(start).shape;
  const auto bytes = static_cast<double>(shape.row_bytes());
  const auto columns = static_cast<double>(shape.columns);
  const double first = (single ? bytes / bytes_per_nanosecond : columns / columns_per_nanosecond) + bound_cost;
  if (start + 1 == levels_.count()) return first;
  const LevelShape& next = levels_.level(start + 1).shape;
  const double lone = lone_cost + (single ? static_cast<double>(next.row_bytes()) / lone_bytes_per_nanosecond
                                          : static_cast<double>(next.columns) / lone_columns_per_nanosecond);
  return first + share_left * lone;
}

template <class T>
Look Search<T>::look(const std::vector<FineQuery>& queries, int level) const {
  Look look;
  look.level = level;
  const auto count = static_cast<std::int64_t>(queries.size());
  look.vectors_per_query = count <= most_fine ? 2 : 1;
  look.vector_bytes = levels_.vector_bytes(level);
  look.vectors.assign(static_cast<std::size_t>(count * look.vectors_per_query * look.vector_bytes), 0);
  for (std::int64_t q = 0; q < count; ++q) {
    const FineQuery& query = queries[static_cast<std::size_t>(q)];
    std::int8_t* vector = look.vectors.data() + q * look.vectors_per_query * look.vector_bytes;
    if (!query.usable) {
      look.queries.push_back({});
    } else if (look.vectors_per_query == 1) {
      look.queries.push_back(levels_.coarse(level, query, vector));
    } else {
      const auto& fine = levels_.level(level).shape.projected ? query.projected : query.vectors;
      std::copy(fine.begin(), fine.end(), vector);
      look.queries.push_back(query.levels[static_cast<std::size_t>(level)]);
    }
  }
  return look;
}

namespace {

// One task: a group of queries, a run of rows.
template <class T>
class Pass {
 public:
  Pass(const Rows<T>& rows, const Levels& levels, const QueryGroup& group, const Wanted& wanted,
       Workplace<T>& workplace)
      : rows_(rows),
        levels_(levels),
        kernels_(bound_kernels_in_use()),
        group_(group),
        wanted_(wanted),
        work_(workplace),
        seeds_(group.queries.size()),
        left_(group.queries.size()) {
    const std::int64_t at_once = rows.source().gathered_at_once();
    for (std::size_t q = 0; q < group.queries.size(); ++q) {
      const auto exact = [this, &query = group.queries[q].row](const std::int64_t* numbers, std::int64_t count,
                                                               double* squared) {
        exact_distances(query, numbers, count, squared);
      };
      if (wanted.k > 0) {
        shortlists_.emplace_back(wanted.k, levels.scale(), at_once, group.thresholds[q], exact);
      } else {
        shortlists_.emplace_back(wanted.threshold, wanted.inside, wanted.radius, levels.scale(), at_once,
                                 group.thresholds[q], exact);
      }
    }
  }

  // Chunk [first, last) of the rows by way of a first look; how many rows it left.
  std::int64_t chunk(const std::vector<Look>& looks, std::int64_t first, std::int64_t last) {
    const std::int64_t count = last - first;
    const auto bounds = static_cast<std::size_t>(count) * group_.queries.size();
    if (work_.squared_size < bounds) {
      work_.squared.reset(new float[bounds]);  // not make_unique, which would write zeros first
      work_.squared_size = bounds;
    }
    bound_all(looks.front(), first, last);
    for (std::size_t q = 0; q < group_.queries.size(); ++q) {
      if (group_.queries[q].usable) {
        sow(q, first, count);
      } else {
        for (std::int64_t row = first; row < last; ++row) {
          shortlists_[q].offer(0, std::numeric_limits<double>::infinity(), row);
        }
      }
    }
    // All queries at one tile of rows, then at the next: the tile's longer codes are fetched once for all of them.
    std::int64_t left = 0;
    for (std::int64_t row = first; row < last; row += rows_per_tile) {
      const std::int64_t rows = std::min(rows_per_tile, last - row);
      for (std::size_t q = 0; q < group_.queries.size(); ++q) {
        if (group_.queries[q].usable) left += narrow(looks, q, row, rows, squared(q, count) + (row - first));
      }
    }
    for (std::size_t q = 0; q < group_.queries.size(); ++q) harvest(q);
    return left;
  }

  std::vector<std::vector<Neighbor>> take() {
    std::vector<std::vector<Neighbor>> found;
    for (auto& shortlist : shortlists_) found.push_back(shortlist.take_best());
    return found;
  }

 private:
  void exact_distances(const ExactRow& query, const std::int64_t* numbers, std::int64_t count, double* squared) {
    work_.places.resize(static_cast<std::size_t>(count));
    rows_.source().gather(numbers, count, work_.gathered, work_.places.data());
    for (std::int64_t i = 0; i < count; ++i) {
      squared[i] = rows_.squared_distance(numbers[i], work_.places[static_cast<std::size_t>(i)], query);
    }
  }

  void bound_all(const Look& look, std::int64_t first, std::int64_t last) {
    const auto number = static_cast<std::int64_t>(look.queries.size());
    const std::int64_t vectors = number * look.vectors_per_query;
    const LevelShape& shape = levels_.level(look.level).shape;
    work_.products.resize(static_cast<std::size_t>(vectors * rows_per_tile));
    for (std::int64_t row = first; row < last; row += rows_per_tile) {
      const std::int64_t count = std::min(rows_per_tile, last - row);
      levels_.product(look.level)(levels_.codes(look.level, row), shape.row_bytes(), count, look.vectors.data(),
                                  look.vector_bytes, vectors, levels_.padded_columns(look.level), work_.products.data(),
                                  rows_per_tile);
      const RowTerms terms = levels_.terms(look.level, row);
      for (std::int64_t q = 0; q < number; ++q) {
        const std::int32_t* products = work_.products.data() + q * look.vectors_per_query * rows_per_tile;
        const bool fine = look.vectors_per_query == 2;
        kernels_.squared_lower(terms, count, look.queries[static_cast<std::size_t>(q)].terms,
                               fine ? products : nullptr, fine ? products + rows_per_tile : products,
                               work_.squared.get() + q * (last - first) + (row - first));
      }
    }
  }

  const float* squared(std::size_t q, std::int64_t count) const {
    return work_.squared.get() + static_cast<std::int64_t>(q) * count;
  }

  // Offers the rows whose bound is among the smallest: they make the threshold small before the others are judged by it.
  void sow(std::size_t q, std::int64_t first, std::int64_t count) {
    auto& seeds = seeds_[q];
    seeds.clear();
    if (shortlists_[q].radius_only()) return;
    const float* bounds = squared(q, count);
    const auto wanted = static_cast<std::size_t>(std::max<std::int64_t>(2 * wanted_.k, 24));
    float limit = std::numeric_limits<float>::infinity();
    constexpr std::int64_t block = 1024;
    work_.found.resize(block);
    const auto nearer = [&](std::int64_t a, std::int64_t b) {
      return bounds[a - first] < bounds[b - first] || (bounds[a - first] == bounds[b - first] && a < b);
    };
    const auto keep_smallest = [&] {
      if (seeds.size() <= wanted) return;
      std::nth_element(seeds.begin(), seeds.begin() + static_cast<std::ptrdiff_t>(wanted) - 1, seeds.end(), nearer);
      seeds.resize(wanted);
      limit = bounds[seeds.back() - first];
    };
    for (std::int64_t begin = 0; begin < count; begin += block) {
      const std::int64_t length = std::min(block, count - begin);
      const std::int64_t found = kernels_.below(bounds + begin, length, limit, first + begin, work_.found.data());
      seeds.insert(seeds.end(), work_.found.begin(), work_.found.begin() + found);
      if (seeds.size() > 4 * wanted) keep_smallest();
    }
    keep_smallest();
    for (const std::int64_t row : seeds) offer(q, row);
    std::sort(seeds.begin(), seeds.end());
  }

  // Appends to left_[q] what the first look and the levels between leave of a tile; returns what the first look left.
  std::int64_t narrow(const std::vector<Look>& looks, std::size_t q, std::int64_t first, std::int64_t count,
                      const float* bounds) {
    const Look& look = looks.front();
    const double threshold = shortlists_[q].threshold();
    const float reach = levels_.reach(look.level, look.queries[q], threshold);
    std::int64_t rows[rows_per_tile];
    double lower[rows_per_tile] = {};
    const std::int64_t found = kernels_.within_reach(bounds, levels_.level(look.level).memory.radius + first, count,
                                                     reach, first, rows);
    std::int64_t kept = 0;
    for (std::int64_t i = 0; i < found; ++i) {
      if (!std::binary_search(seeds_[q].begin(), seeds_[q].end(), rows[i])) rows[kept++] = rows[i];
    }
    for (std::size_t next = 1; next < looks.size(); ++next) {
      const Look& closer = looks[next];
      // A lone query meets these rows for the first time; of many, the first one has fetched them for the others.
      if (look.vectors_per_query == 2) {
        for (std::int64_t i = 0; i < kept; ++i) announce(closer.level, rows[i]);
      }
      const std::int8_t* vectors =
          closer.vectors.data() + static_cast<std::int64_t>(q) * closer.vectors_per_query * closer.vector_bytes;
      kept = levels_.within(closer.level, rows, kept, closer.queries[q], vectors, closer.vectors_per_query, threshold,
                            lower);
    }
    for (std::int64_t i = 0; i < kept; ++i) left_[q].push_back({lower[i], rows[i]});
    return found;
  }

  // Offers what is left, most promising first.
  void harvest(std::size_t q) {
    auto& left = left_[q];
    const int last = levels_.count() - 1;
    std::sort(left.begin(), left.end());
    for (std::size_t i = 0; i < left.size() && left[i].lower <= shortlists_[q].threshold(); ++i) {
      if (i + 2 < left.size()) announce(last, left[i + 2].row);
      offer(q, left[i].row);
    }
    left.clear();
  }

  void announce(int level, std::int64_t row) const {
    const Level& at = levels_.level(level);
    if (at.random_access) prefetch(levels_.codes(level, row), at.shape.row_bytes());
    prefetch(at.memory.norm + row, 1);
    prefetch(at.memory.scale + row, 1);
    prefetch(at.memory.zero + row, 1);
    prefetch(at.memory.radius + row, 1);
  }

  void offer(std::size_t q, std::int64_t row) {
    // The last level may be out of quick reach; the one before it has bounds of both sides too, if wider ones.
    int level = levels_.count() - 1;
    while (level > 0 && !levels_.level(level).random_access) --level;
    const Interval interval = levels_.bounds(level, row, group_.queries[q]);
    if (interval.lower <= shortlists_[q].threshold()) shortlists_[q].offer(interval.lower, interval.upper, row);
  }

  const Rows<T>& rows_;
  const Levels& levels_;
  const BoundKernels& kernels_;
  const QueryGroup& group_;
  const Wanted& wanted_;
  Workplace<T>& work_;
  std::vector<Shortlist<std::function<void(const std::int64_t*, std::int64_t, double*)>>> shortlists_;
  std::vector<std::vector<std::int64_t>> seeds_;
  std::vector<std::vector<Candidate>> left_;
};

}  // namespace

template <class T>
std::vector<std::vector<Neighbor>> Search<T>::run(const QueryGroup& group, std::int64_t first, std::int64_t last,
                                                  const Wanted& wanted, int plain, Survivors* survivors) const {
  std::unique_ptr<Workplace<T>> workplace = take_workplace();
  Pass<T> pass(rows_, levels_, group, wanted, *workplace);
  const auto queries = static_cast<std::int64_t>(group.queries.size());
  const std::int64_t rows_per_chunk =
      std::max(rows_per_tile, std::min(most_rows_per_chunk, bounds_at_once / queries) / rows_per_tile * rows_per_tile);
  const std::vector<Look>* looks = &group.looks;
  std::vector<Look> others;
  const bool single = looks->front().vectors_per_query == 2;
  for (std::int64_t row = first; row < last;) {
    const std::int64_t end = std::min(last, row + rows_per_chunk);
    Survivors here{(end - row) * queries, pass.chunk(*looks, row, end)};
    if (survivors != nullptr) {
      survivors->of += here.of;
      survivors->left += here.left;
    }
    const int start = looks->front().level;
    if (start < plain && cost(start, here.share(), single) > cost(plain, 0, single)) {
      others = this->looks(group.queries, plain);
      looks = &others;
    }
    row = end;
  }
  std::vector<std::vector<Neighbor>> answers = pass.take();
  const std::lock_guard<std::mutex> lock(mutex_);
  free_workplaces_.push_back(std::move(workplace));
  return answers;
}

template <class T>
std::unique_ptr<Workplace<T>> Search<T>::take_workplace() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (free_workplaces_.empty()) return std::make_unique<Workplace<T>>();
  std::unique_ptr<Workplace<T>> workplace = std::move(free_workplaces_.back());
  free_workplaces_.pop_back();
  return workplace;
}

template class Search<float>;
template class Search<double>;

}  // namespace onnxviz

#include "search.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels_in_use.h"

namespace onnxviz {
namespace {

// Bounds kept at a time, over all queries of a group: they stay in the last cache.
constexpr std::int64_t bounds_at_once = std::int64_t{3} << 19;
// Rows that the looks after the dense ones take at a time: of many queries, the codes of the run stay in the second
// cache; of one, the longer the better codes are fetched ahead.
constexpr std::int64_t most_rows_per_run = 1024;
constexpr std::int64_t rows_per_shared_run = 256;
constexpr std::int64_t rows_ahead = 16;
constexpr std::int64_t most_rows_per_chunk = std::int64_t{1} << 17;
// Of one query, so many rows say which start is the better one for the others.
constexpr std::int64_t first_rows = 8192;
// Of the cost of a row: bytes of codes that memory delivers, or the products of columns that a core computes, in a
// nanosecond; what every bound takes besides; and a row that is reached alone.
constexpr double bytes_per_nanosecond = 25;
constexpr double columns_per_nanosecond = 200;
constexpr double bound_cost = 1.3;
constexpr double lone_bytes_per_nanosecond = 9;
constexpr double lone_columns_per_nanosecond = 120;
constexpr double lone_cost = 25;
constexpr double part_bound_cost = 0.4;
constexpr double lone_part_cost = 9;
// Rows whose bounds are the smallest: those with the nearest ones lower the threshold before others are judged by it.
constexpr std::int64_t fewest_seeds = 24;
constexpr std::int64_t fewest_candidates_for_seeds = 96;

void prefetch(const void* address, std::int64_t bytes) {
#if defined(__GNUC__)
  const auto* line = static_cast<const char*>(address);
  // Into the second cache, which waits for more lines at a time than the first.
  for (std::int64_t offset = 0; offset < bytes; offset += 64) __builtin_prefetch(line + offset, 0, 2);
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

void Survivors::add(const Survivors& more) {
  of += more.of;
  left.resize(std::max(left.size(), more.left.size()));
  for (std::size_t i = 0; i < more.left.size(); ++i) left[i] += more.left[i];
}

template <class T>
Ladder Search<T>::ladder(const std::vector<FineQuery>& queries, int start) const {
  Ladder ladder;
  ladder.dense = levels_.projected(start) ? static_cast<std::size_t>(start) + 1 : 1;
  const int first = start + 1 - static_cast<int>(ladder.dense);
  for (int level = first; level <= start || level < levels_.looks(); ++level) {
    ladder.looks.push_back(look(queries, level));
  }
  return ladder;
}

template <class T>
double Search<T>::cost(int start, const Survivors& survivors, bool single) const {
  double sum = 0;
  for (int level = levels_.projected(start) ? 0 : start; level <= start; ++level) {
    const LevelShape& shape = levels_.level(level).shape;
    sum += (single ? static_cast<double>(shape.row_bytes()) / bytes_per_nanosecond
                   : static_cast<double>(shape.columns) / columns_per_nanosecond) +
           (shape.projected ? part_bound_cost : bound_cost);
  }
  for (std::size_t i = 0; i < survivors.left.size() && survivors.of > 0; ++i) {
    sum += lone_row_cost(start + 1 + static_cast<int>(i), single) * static_cast<double>(survivors.left[i]) /
           static_cast<double>(survivors.of);
  }
  return sum;
}

template <class T>
double Search<T>::lone_row_cost(int level, bool single) const {
  if (level == levels_.count()) {
    return lone_cost + static_cast<double>(rows_.columns()) * sizeof(T) / lone_bytes_per_nanosecond;
  }
  const LevelShape& shape = levels_.level(level).shape;
  return (shape.projected ? lone_part_cost : lone_cost) +
         (single ? static_cast<double>(shape.row_bytes()) / lone_bytes_per_nanosecond
                 : static_cast<double>(shape.columns) / lone_columns_per_nanosecond);
}

template <class T>
int Search<T>::better_start(int start, const Survivors& survivors, int plain, bool single) const {
  int best = start;
  double least = cost(start, survivors, single);
  Survivors left = survivors;
  for (int level = start + 1; level < levels_.count() && levels_.projected(level) && !left.left.empty(); ++level) {
    left.left.erase(left.left.begin());
    if (cost(level, left, single) < least) {
      least = cost(level, left, single);
      best = level;
    }
  }
  return start < plain && least > cost(plain, {}, single) ? plain : best;
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
      const auto& fine =
          levels_.projected(level) ? query.parts[static_cast<std::size_t>(level)] : query.vectors;
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

  // Chunk [first, last) of the rows; how many rows were left by the dense looks, and by each after them.
  Survivors chunk(const Ladder& ladder, std::int64_t first, std::int64_t last) {
    const std::int64_t count = last - first;
    const auto bounds = static_cast<std::size_t>(count) * group_.queries.size();
    if (work_.squared_size < bounds) {
      work_.squared.reset(new float[bounds]);  // not make_unique, which would write zeros first
      work_.squared_size = bounds;
    }
    bound_all(ladder, first, last);
    for (std::size_t q = 0; q < group_.queries.size(); ++q) {
      if (group_.queries[q].usable) {
        sow(ladder, q, first, count);
      } else {
        for (std::int64_t row = first; row < last; ++row) {
          shortlists_[q].offer(0, std::numeric_limits<double>::infinity(), row);
        }
      }
    }
    // All queries at one run of rows, then at the next: the run's longer codes are fetched once for all of them.
    Survivors survivors;
    survivors.of = count * static_cast<std::int64_t>(group_.queries.size());
    survivors.left.resize(static_cast<std::size_t>(std::max(0, levels_.looks() - ladder.start())));
    const bool alone = ladder.looks.front().vectors_per_query == 2;
    const std::int64_t rows_per_run = alone ? most_rows_per_run : rows_per_shared_run;
    for (std::int64_t row = first; row < last; row += rows_per_run) {
      const std::int64_t rows = std::min(rows_per_run, last - row);
      for (std::size_t q = 0; q < group_.queries.size(); ++q) {
        if (group_.queries[q].usable) narrow(ladder, q, row, rows, first, count, survivors);
      }
    }
    for (std::size_t q = 0; q < group_.queries.size(); ++q) harvest(q);
    return survivors;
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

  void bound_all(const Ladder& ladder, std::int64_t first, std::int64_t last) {
    const std::int64_t vectors =
        static_cast<std::int64_t>(ladder.looks.front().queries.size()) * ladder.looks.front().vectors_per_query;
    work_.products.resize(static_cast<std::size_t>(vectors * rows_per_tile));
    work_.residual.resize(static_cast<std::size_t>(last - first));
    // Of one query, each level is read from end to end, as memory wants it; of many, bounds stay in the first caches.
    const std::int64_t block = ladder.looks.front().vectors_per_query == 2 ? last - first : rows_per_tile;
    for (std::int64_t begin = first; begin < last; begin += block) {
      const std::int64_t end = std::min(last, begin + block);
      for (std::size_t i = 0; i < ladder.dense; ++i) {
        for (std::int64_t row = begin; row < end; row += rows_per_tile) {
          bound_tile(ladder.looks[i], first, last - first, row, std::min(rows_per_tile, end - row));
        }
      }
    }
  }

  void bound_tile(const Look& look, std::int64_t begin, std::int64_t length, std::int64_t row, std::int64_t count) {
    const auto number = static_cast<std::int64_t>(look.queries.size());
    levels_.products(look.level, row, count, look.vectors.data(), look.vector_bytes, number * look.vectors_per_query,
                     work_.products.data(), work_.unpacked);
    const bool fine = look.vectors_per_query == 2;
    const bool projected = levels_.projected(look.level);
    RowTerms terms{};
    Levels::PartTable table;
    if (projected) {
      announce_parts(look.level, row + rows_per_tile);
      levels_.read_parts(look.level, row, count, table);
      std::copy_n(table.residual, count, work_.residual.data() + (row - begin));
    } else {
      terms = levels_.terms(look.level, row);
    }
    for (std::int64_t q = 0; q < number; ++q) {
      const std::int32_t* products = work_.products.data() + q * look.vectors_per_query * rows_per_tile;
      const LevelQuery& query = look.queries[static_cast<std::size_t>(q)];
      const std::int32_t* high = fine ? products : nullptr;
      const std::int32_t* low = fine ? products + rows_per_tile : products;
      float* out = work_.squared.get() + q * length + (row - begin);
      if (projected) {
        kernels_.part(table.rows(look.level == 0), count, &query.part, high, low, out);
      } else {
        kernels_.squared_lower(terms, count, query.terms, high, low, out);
      }
    }
  }

  // Terms of a tile are met after its codes; those of the next tile are asked for meanwhile.
  void announce_parts(int level, std::int64_t first) const {
    const LevelMemory& memory = levels_.level(level).memory;
    prefetch(memory.parts + first, rows_per_tile * static_cast<std::int64_t>(sizeof(PartTerms)));
    if (memory.origins == nullptr) return;
    prefetch(memory.origins + first, rows_per_tile * static_cast<std::int64_t>(sizeof(OriginTerms)));
  }

  float* squared(std::size_t q, std::int64_t count) const {
    return work_.squared.get() + static_cast<std::int64_t>(q) * count;
  }

  // Offers the rows whose bound is among the smallest: they make the threshold small before the others are judged by it.
  void sow(const Ladder& ladder, std::size_t q, std::int64_t first, std::int64_t count) {
    auto& seeds = seeds_[q];
    seeds.clear();
    if (shortlists_[q].radius_only()) return;
    const Look& look = ladder.looks[ladder.dense - 1];
    const bool projected = levels_.projected(look.level);
    const float residual = look.queries[q].part.residual;
    const auto wanted = static_cast<std::size_t>(
        std::max(2 * wanted_.k, projected ? fewest_candidates_for_seeds : fewest_seeds));
    float limit = std::numeric_limits<float>::infinity();
    if (projected) limit = levels_.limit(shortlists_[q].threshold());
    constexpr std::int64_t block = 1024;
    work_.found.resize(block);
    std::vector<Seed>& nearest = work_.seeds;
    nearest.clear();
    const auto keep_smallest = [&] {
      if (nearest.size() <= wanted) return;
      std::nth_element(nearest.begin(), nearest.begin() + static_cast<std::ptrdiff_t>(wanted) - 1, nearest.end());
      nearest.resize(wanted);
      limit = nearest.back().lower;
    };
    for (std::int64_t begin = 0; begin < count; begin += block) {
      const std::int64_t length = std::min(block, count - begin);
      const float* bounds = squared(q, count) + begin;
      const float* residuals = work_.residual.data() + begin;
      const std::int64_t found =
          projected ? kernels_.within_limit(bounds, residuals, length, residual, limit, 0, work_.found.data())
                    : kernels_.below(bounds, length, limit, 0, work_.found.data());
      for (std::int64_t i = 0; i < found; ++i) {
        const std::int64_t place = work_.found[static_cast<std::size_t>(i)];
        const float lower = projected ? bounds[place] - residuals[place] * residual : bounds[place];
        // A row that nothing is known of is met in its turn.
        if (lower == lower) nearest.push_back({lower, first + begin + place});
      }
      if (nearest.size() > 4 * wanted) keep_smallest();
    }
    keep_smallest();
    for (const Seed& seed : nearest) seeds.push_back(seed.row);
    std::sort(seeds.begin(), seeds.end());
    // Of many candidates the closest look below the last one says which are the nearest.
    auto& left = left_[q];
    const Look& closest = ladder.looks.back();
    const bool closest_knows = ladder.dense < ladder.looks.size() && !levels_.projected(closest.level);
    if (closest_knows) {
      std::int64_t rows[rows_per_tile];
      double lower[rows_per_tile];
      const std::int8_t* vectors =
          closest.vectors.data() + static_cast<std::int64_t>(q) * closest.vectors_per_query * closest.vector_bytes;
      for (std::size_t begin = 0; begin < seeds.size(); begin += rows_per_tile) {
        const auto length = static_cast<std::int64_t>(std::min<std::size_t>(rows_per_tile, seeds.size() - begin));
        std::copy_n(seeds.data() + begin, length, rows);
        for (std::int64_t i = 0; i < length; ++i) announce(closest.level, rows[i]);
        const std::int64_t kept = levels_.within(closest.level, rows, length, closest.queries[q], vectors,
                                                 closest.vectors_per_query, shortlists_[q].threshold(), lower);
        for (std::int64_t i = 0; i < kept; ++i) left.push_back({lower[i], rows[i]});
      }
    } else {
      for (const std::int64_t row : seeds) left.push_back({0, row});
    }
    std::sort(left.begin(), left.end());
    std::size_t offered = 0;
    const auto most = closest_knows ? static_cast<std::size_t>(std::max(2 * wanted_.k, fewest_seeds)) : left.size();
    for (; offered < std::min(most, left.size()) && left[offered].lower <= shortlists_[q].threshold(); ++offered) {
      offer(q, left[offered].row);
    }
    left.erase(left.begin(), left.begin() + static_cast<std::ptrdiff_t>(offered));
    // Four bits say too little of how far the nearest are.
    if (levels_.looks() == levels_.count()) shortlists_[q].settle();
  }

  // Appends to left_[q] what the looks leave of a run of rows.
  void narrow(const Ladder& ladder, std::size_t q, std::int64_t first, std::int64_t count, std::int64_t begin,
              std::int64_t length, Survivors& survivors) {
    const Look& look = ladder.looks[ladder.dense - 1];
    const double threshold = shortlists_[q].threshold();
    const bool projected = levels_.projected(look.level);
    const float limit = projected ? levels_.limit(threshold) : 0;
    const float* bounds = squared(q, length) + (first - begin);
    std::int64_t rows[most_rows_per_run];
    double lower[most_rows_per_run];
    float squares[most_rows_per_run];
    const std::int64_t found =
        projected ? kernels_.within_limit(bounds, work_.residual.data() + (first - begin), count,
                                          look.queries[q].part.residual, limit, first, rows)
                  : kernels_.within_reach(bounds, levels_.level(look.level).memory.radius + first, count,
                                          levels_.reach(look.queries[q], threshold), first, rows);
    if (found == 0) return;
    if (!survivors.left.empty()) survivors.left[0] += found;
    std::int64_t kept = 0;
    auto seed = std::lower_bound(seeds_[q].begin(), seeds_[q].end(), first);
    for (std::int64_t i = 0; i < found; ++i) {
      while (seed != seeds_[q].end() && *seed < rows[i]) ++seed;
      if (seed != seeds_[q].end() && *seed == rows[i]) continue;
      squares[kept] = bounds[rows[i] - first];
      rows[kept++] = rows[i];
    }
    const Look* last = &look;
    for (std::size_t next = ladder.dense; next < ladder.looks.size() && kept > 0; ++next) {
      const Look& closer = ladder.looks[next];
      const std::int8_t* vectors =
          closer.vectors.data() + static_cast<std::int64_t>(q) * closer.vectors_per_query * closer.vector_bytes;
      // A lone query meets these rows for the first time; of many, the first one has fetched them for the others.
      const bool ahead = look.vectors_per_query == 2;
      const auto announce_some = [&](std::int64_t begin) {
        for (std::int64_t i = begin; i < std::min(kept, begin + rows_ahead); ++i) announce(closer.level, rows[i]);
      };
      if (ahead) announce_some(0);
      std::int64_t stay = 0;
      const std::int64_t at_once = ahead ? rows_ahead : rows_per_tile;
      for (std::int64_t begin = 0; begin < kept; begin += at_once) {
        const std::int64_t here = std::min(at_once, kept - begin);
        if (ahead) announce_some(begin + rows_ahead);
        std::int64_t more = 0;
        if (levels_.projected(closer.level)) {
          more = levels_.within_part(closer.level, rows + begin, squares + begin, here, closer.queries[q], vectors,
                                     closer.vectors_per_query, limit);
        } else {
          more = levels_.within(closer.level, rows + begin, here, closer.queries[q], vectors, closer.vectors_per_query,
                                threshold, lower + begin);
        }
        std::copy_n(rows + begin, more, rows + stay);
        std::copy_n(squares + begin, more, squares + stay);
        std::copy_n(lower + begin, more, lower + stay);
        stay += more;
      }
      kept = stay;
      survivors.left[next + 1 - ladder.dense] += kept;
      last = &closer;
    }
    if (last == &look) {
      std::fill_n(lower, kept, 0.0);
      // One byte a column of the query leaves many rows where there is nothing but bytes; it meets them in two bytes
      // while others of the group, which are left with the same rows, have them near.
      const Level& at = levels_.level(look.level);
      if (look.vectors_per_query == 1 && !projected && at.shape.bits == 8 && at.random_access) {
        kept = within_fine(look.level, q, rows, lower, kept, threshold);
      }
    }
    if (levels_.projected(last->level)) {
      const PartTerms* terms = levels_.level(last->level).memory.parts;
      const float residual = last->queries[q].part.residual;
      for (std::int64_t i = 0; i < kept; ++i) lower[i] = levels_.root(squares[i] - terms[rows[i]].residual * residual);
    }
    for (std::int64_t i = 0; i < kept; ++i) left_[q].push_back({lower[i], rows[i]});
  }

  // Which of the rows stay when the query meets them in two bytes a column: moved to the front, with a bound each.
  std::int64_t within_fine(int level, std::size_t q, std::int64_t* rows, double* lower, std::int64_t count,
                           double threshold) const {
    const FineQuery& query = group_.queries[q];
    const LevelQuery& known = query.levels[static_cast<std::size_t>(level)];
    std::int64_t stay = 0;
    for (std::int64_t begin = 0; begin < count; begin += rows_per_tile) {
      const std::int64_t here = std::min(rows_per_tile, count - begin);
      const std::int64_t more =
          levels_.within(level, rows + begin, here, known, query.vectors.data(), 2, threshold, lower + begin);
      std::copy_n(rows + begin, more, rows + stay);
      std::copy_n(lower + begin, more, lower + stay);
      stay += more;
    }
    return stay;
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
    if (at.shape.projected) {
      prefetch(at.memory.parts + row, 1);
      return;
    }
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
  const Ladder* ladder = &group.ladder;
  Ladder other;
  const bool single = ladder->looks.front().vectors_per_query == 2;
  for (std::int64_t row = first; row < last;) {
    const std::int64_t end = std::min(last, row + (single && row == first ? first_rows : rows_per_chunk));
    const Survivors here = pass.chunk(*ladder, row, end);
    if (survivors != nullptr) survivors->add(here);
    const int start = better_start(ladder->start(), here, plain, single);
    if (start != ladder->start() && end < last) {
      other = this->ladder(group.queries, start);
      ladder = &other;
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

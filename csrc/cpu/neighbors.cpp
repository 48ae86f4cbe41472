// Exact neighbours in two steps: a float32 matrix product bounds every distance from both sides, and the exact float64
// distance is computed for the rows that the bounds leave in doubt.
//
// The bound. Let mu be the mean row and s a power of two with |s (x_j - mu_j)| <= 1 over the bank. Rows and queries are
// stored as x' = float32(s (x - mu)), the same for q, and with X = |x'|^2, Q = |q'|^2 (float64) and the float32 inner
// product p of x' and q', the filter computes A = X + Q - 2 p. Against s^2 times the distance d^2 that neighbors.h
// defines, A is wrong by no more than slack * (X + Q) + floor, because (u = 2^-24):
//   - p is a chain of at most m = chunk + chunks + 2 roundings per term, so it is off by at most
//     m u / (1 - m u) * sum |x'_j q'_j| <= 1.02 m u (X + Q) / 2       (Higham 2002, section 3.1; Cauchy-Schwarz);
//   - rounding to float32 moves x' and q' by at most (1 + 2^-20) u |x'| and ... |q'|, hence s d by at most
//     (1 + 2^-20) u (|x'| + |q'|), and s^2 d^2 by at most 4 (1 + 2^-19) u (X + Q) = 2^-22 (X + Q) and a little:
//     2^-21 is taken;
//   - X, Q, the sum that makes A, and d^2 itself are float64 sums of at most `columns` terms: each is off by less than
//     (columns + 8) 2^-52 (X + Q); 2^-49 is taken for all of them together;
//   - products and conversions that underflow (even when flushed to zero) add less than columns * 2^-118.
// A row whose lower bound exceeds the k-th smallest upper bound is farther than k other rows, also as computed.
#include "onnxviz/neighbors.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "kernels/kernels.h"
#include "onnxviz/build_facts.h"
#include "onnxviz/cpu.h"
#include "parallel.h"

namespace onnxviz {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();
// Squares of numbers up to here, summed over any row that fits in memory, stay finite.
constexpr double largest_number = 1e150;
// Columns per float32 summation chain, chosen so that a panel's chunk (64 KiB) stays in the second-level cache.
constexpr std::int64_t chunk_columns = 256;
// Beyond this many columns the bound would no longer tell anything.
constexpr std::int64_t largest_filtered = std::int64_t{1} << 22;
// Register tiles of queries that go over a panel while it is in cache.
constexpr int tiles_per_group = 4;
constexpr int group_queries = tiles_per_group * tile_queries;

const DistanceKernels& distance_kernels_in_use() {
  switch (level_in_use()) {
#if ONNXVIZ_HAS_AVX512
    case CpuLevel::avx512:
      return avx512::distance_kernels;
#endif
#if ONNXVIZ_HAS_AVX2
    case CpuLevel::avx2:
      return avx2::distance_kernels;
#endif
    default:
      return baseline::distance_kernels;
  }
}

FilterKernel filter_kernel_in_use() {
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

// What makes a row a direction: (x * scale) / norm has length 1. The power of two keeps squares from underflowing.
struct Normalization {
  double scale = 1;
  double norm = 1;  // 0 for a row of zeros

  template <class T>
  double operator()(T element) const {
    return static_cast<double>(element) * scale / norm;
  }
};

// Throws unless every number is finite and not too large; otherwise the largest absolute value of the row.
template <class T>
double checked_maximum(const T* row, std::int64_t columns) {
  double maximum = 0;
  bool fine = true;
  for (std::int64_t j = 0; j < columns; ++j) {
    const double size = std::fabs(static_cast<double>(row[j]));
    fine &= size <= largest_number;  // false for NaN too
    maximum = std::max(maximum, size);
  }
  return fine ? maximum : -1;
}

[[noreturn]] void refuse_row(const char* what, std::int64_t row) {
  throw std::invalid_argument("row " + std::to_string(row) + " of the " + what +
                              " holds NaN, infinity or a number beyond 1e150");
}

template <class T>
Normalization normalize(const T* row, std::int64_t columns, double maximum) {
  Normalization normalization;
  if (maximum == 0) {
    normalization.norm = 0;
    return normalization;
  }
  int exponent = 0;
  std::frexp(maximum, &exponent);
  // The smallest subnormal would ask for 2^1074, which float64 does not have.
  normalization.scale = std::ldexp(1.0, std::min(-exponent, 1000));
  double sum = 0;
  for (std::int64_t j = 0; j < columns; ++j) {
    const double element = static_cast<double>(row[j]) * normalization.scale;
    sum += element * element;
  }
  normalization.norm = std::sqrt(sum);
  return normalization;
}

struct Neighbor {
  double squared;
  std::int64_t row;

  bool operator<(const Neighbor& other) const {
    return squared < other.squared || (squared == other.squared && row < other.row);
  }
};

struct Candidate {
  double lower;
  std::int64_t row;
};

// A query as float64, and what the filter needs to know of it.
struct Query {
  std::vector<double> elements;  // normalised for cosine
  bool zero = false;             // a row of zeros under cosine: at the same distance from everything
  bool filtered = false;         // whether the float32 bound holds for it
  double lower = 0;              // Q (1 - slack) - floor
  double upper = 0;              // Q (1 + slack) + floor
};

}  // namespace

class NeighborIndex::Implementation {
 public:
  virtual ~Implementation() = default;
  virtual std::int64_t rows() const = 0;
  virtual std::int64_t columns() const = 0;
  virtual void query(MatrixView<float> queries, std::int64_t k, double* distances, std::int64_t* indices,
                     int threads) const = 0;
  virtual void query(MatrixView<double> queries, std::int64_t k, double* distances, std::int64_t* indices,
                     int threads) const = 0;
};

namespace {

// The k nearest rows of one query among those seen so far, and rows still in doubt.
template <class Exact>
class Shortlist {
 public:
  Shortlist(std::int64_t k, double scale_squared, Exact exact)
      : k_(static_cast<std::size_t>(k)), limit_(std::max<std::size_t>(4096, 16 * k_)), scale_squared_(scale_squared),
        exact_(std::move(exact)) {}

  // No row whose (scaled, squared) distance is above this one can be among the k nearest.
  double threshold() const { return threshold_; }

  void offer(double lower, double upper, std::int64_t row) {
    candidates_.push_back({lower, row});
    if (uppers_.size() < k_) {
      uppers_.push_back(upper);
      std::push_heap(uppers_.begin(), uppers_.end());
    } else if (upper < uppers_.front()) {
      std::pop_heap(uppers_.begin(), uppers_.end());
      uppers_.back() = upper;
      std::push_heap(uppers_.begin(), uppers_.end());
    }
    if (uppers_.size() == k_) threshold_ = std::min(threshold_, uppers_.front());
    if (candidates_.size() >= limit_) settle();
  }

  // Exact distances for the rows in doubt, most promising first, until the bounds say that the rest is farther.
  void settle() {
    std::sort(candidates_.begin(), candidates_.end(), [](const Candidate& a, const Candidate& b) {
      return a.lower < b.lower || (a.lower == b.lower && a.row < b.row);
    });
    for (const Candidate& candidate : candidates_) {
      if (candidate.lower > threshold_) break;
      const Neighbor neighbor{exact_(candidate.row), candidate.row};
      if (best_.size() < k_) {
        best_.push_back(neighbor);
        std::push_heap(best_.begin(), best_.end());
      } else if (neighbor < best_.front()) {
        std::pop_heap(best_.begin(), best_.end());
        best_.back() = neighbor;
        std::push_heap(best_.begin(), best_.end());
      }
      if (best_.size() == k_) threshold_ = std::min(threshold_, best_.front().squared * scale_squared_);
    }
    candidates_.clear();
  }

  std::vector<Neighbor> take_best() {
    settle();
    return std::move(best_);
  }

 private:
  std::size_t k_;
  std::size_t limit_;
  double scale_squared_;
  Exact exact_;
  double threshold_ = infinity;
  std::vector<double> uppers_;  // heap, largest first: the k smallest upper bounds
  std::vector<Neighbor> best_;  // heap, farthest first
  std::vector<Candidate> candidates_;
};

template <class T>
class BankIndex final : public NeighborIndex::Implementation {
 public:
  BankIndex(MatrixView<T> bank, Metric metric, int threads)
      : bank_(bank), metric_(metric), distance_(distance_kernels_in_use()), filter_(filter_kernel_in_use()) {
    if (bank.rows < 1 || bank.columns < 1) throw std::invalid_argument("the bank has no rows or no columns");
    const double maximum = examine_rows(threads);
    find_mean(threads);
    prepare_bound(maximum);
    if (filtered_) pack(threads);
  }

  std::int64_t rows() const override { return bank_.rows; }
  std::int64_t columns() const override { return bank_.columns; }

  void query(MatrixView<float> queries, std::int64_t k, double* distances, std::int64_t* indices,
             int threads) const override {
    run(queries, k, distances, indices, threads);
  }

  void query(MatrixView<double> queries, std::int64_t k, double* distances, std::int64_t* indices,
             int threads) const override {
    run(queries, k, distances, indices, threads);
  }

 private:
  static constexpr std::int64_t rows_per_task = 256;

  bool cosine() const { return metric_ == Metric::cosine; }

  double element(std::int64_t row, std::int64_t column) const {
    const T raw = bank_.row(row)[column];
    return cosine() ? normalizations_[static_cast<std::size_t>(row)](raw) : static_cast<double>(raw);
  }

  bool is_zero(std::int64_t row) const { return cosine() && normalizations_[static_cast<std::size_t>(row)].norm == 0; }

  // Refuses what cannot be measured, finds the directions for cosine; the largest absolute number of the bank.
  double examine_rows(int threads) {
    const auto count = static_cast<std::size_t>(bank_.rows);
    std::vector<double> maxima(count);
    if (cosine()) normalizations_.resize(count);
    const std::int64_t tasks = (bank_.rows + rows_per_task - 1) / rows_per_task;
    parallel_for(tasks, threads, [&](std::int64_t task) {
      const std::int64_t end = std::min(bank_.rows, (task + 1) * rows_per_task);
      for (std::int64_t i = task * rows_per_task; i < end; ++i) {
        const auto position = static_cast<std::size_t>(i);
        maxima[position] = checked_maximum(bank_.row(i), bank_.columns);
        if (cosine() && maxima[position] >= 0) {
          normalizations_[position] = normalize(bank_.row(i), bank_.columns, maxima[position]);
        }
      }
    });
    for (std::size_t i = 0; i < count; ++i) {
      if (maxima[i] < 0) refuse_row("bank", static_cast<std::int64_t>(i));
    }
    return cosine() ? 1.0 : *std::max_element(maxima.begin(), maxima.end());
  }

  void find_mean(int threads) {
    mean_.assign(static_cast<std::size_t>(bank_.columns), 0.0);
    constexpr std::int64_t columns_per_task = 512;
    const std::int64_t tasks = (bank_.columns + columns_per_task - 1) / columns_per_task;
    parallel_for(tasks, threads, [&](std::int64_t task) {
      const std::int64_t begin = task * columns_per_task;
      const std::int64_t end = std::min(bank_.columns, begin + columns_per_task);
      for (std::int64_t i = 0; i < bank_.rows; ++i) {
        if (is_zero(i)) continue;
        for (std::int64_t j = begin; j < end; ++j) mean_[static_cast<std::size_t>(j)] += element(i, j);
      }
      for (std::int64_t j = begin; j < end; ++j) mean_[static_cast<std::size_t>(j)] /= static_cast<double>(bank_.rows);
    });
  }

  void prepare_bound(double maximum) {
    int exponent = 0;
    std::frexp(maximum, &exponent);
    // |x - mu| <= 2 maximum < 2^(exponent + 1). Powers beyond 400 would not square within float64.
    filtered_ = maximum > 0 && std::abs(exponent) < 400 && bank_.columns <= largest_filtered;
    if (!filtered_) return;
    scale_ = std::ldexp(1.0, -(exponent + 1));
    const std::int64_t chunks = (bank_.columns + chunk_columns - 1) / chunk_columns;
    const auto roundings = static_cast<double>(std::min(chunk_columns, bank_.columns) + chunks + 2);
    const auto terms = static_cast<double>(bank_.columns);
    slack_ = 1.02 * roundings * std::ldexp(1.0, -24) + std::ldexp(1.0, -21) + (terms + 64) * std::ldexp(1.0, -49);
    floor_ = terms * std::ldexp(1.0, -118);
  }

  // The float32 copy: panels of panel_rows rows, column by column, so that the filter reads memory in order.
  void pack(int threads) {
    const std::int64_t panels = (bank_.rows + panel_rows - 1) / panel_rows;
    packed_.assign(static_cast<std::size_t>(panels * panel_rows * bank_.columns), 0.0F);
    lower_.assign(static_cast<std::size_t>(panels * panel_rows), infinity);
    upper_.assign(static_cast<std::size_t>(panels * panel_rows), infinity);
    parallel_for(panels, threads, [&](std::int64_t panel) {
      const std::int64_t first = panel * panel_rows;
      const std::int64_t last = std::min(bank_.rows, first + panel_rows);
      float* destination = packed_.data() + static_cast<std::size_t>(first * bank_.columns);
      double squares[panel_rows] = {};
      // A cache line's worth of columns of every row, then the next: reads and writes both stay in the cache.
      constexpr std::int64_t block = 16;
      for (std::int64_t begin = 0; begin < bank_.columns; begin += block) {
        const std::int64_t end = std::min(bank_.columns, begin + block);
        for (std::int64_t i = first; i < last; ++i) {
          if (is_zero(i)) continue;
          for (std::int64_t j = begin; j < end; ++j) {
            const auto stored = static_cast<float>((element(i, j) - mean_[static_cast<std::size_t>(j)]) * scale_);
            destination[j * panel_rows + (i - first)] = stored;
            squares[i - first] += static_cast<double>(stored) * static_cast<double>(stored);
          }
        }
      }
      for (std::int64_t i = first; i < last; ++i) {
        const auto position = static_cast<std::size_t>(i);
        // A row without direction has no place among the others: no bound, always in doubt.
        lower_[position] = is_zero(i) ? -infinity : squares[i - first] * (1 - slack_);
        upper_[position] = is_zero(i) ? infinity : squares[i - first] * (1 + slack_);
      }
    });
  }

  double exact(const Query& query, std::int64_t row) const {
    const T* elements = bank_.row(row);
    if (!cosine()) {
      if constexpr (std::is_same_v<T, float>) {
        return distance_.float32(elements, query.elements.data(), bank_.columns);
      } else {
        return distance_.float64(elements, query.elements.data(), bank_.columns);
      }
    }
    const Normalization& normalization = normalizations_[static_cast<std::size_t>(row)];
    if (query.zero || normalization.norm == 0) return 2;
    if constexpr (std::is_same_v<T, float>) {
      return distance_.normalized_float32(elements, normalization.scale, normalization.norm, query.elements.data(),
                                          bank_.columns);
    } else {
      return distance_.normalized_float64(elements, normalization.scale, normalization.norm, query.elements.data(),
                                          bank_.columns);
    }
  }

  // Reads one query, and writes its float32 copy into its column of a register tile.
  template <class U>
  Query prepare(const U* row, std::int64_t number, float* tile) const {
    const double maximum = checked_maximum(row, bank_.columns);
    if (maximum < 0) refuse_row("queries", number);
    Query query;
    query.elements.resize(static_cast<std::size_t>(bank_.columns));
    if (cosine()) {
      const Normalization normalization = normalize(row, bank_.columns, maximum);
      query.zero = normalization.norm == 0;
      if (query.zero) return query;
      std::transform(row, row + bank_.columns, query.elements.begin(), normalization);
    } else {
      std::copy(row, row + bank_.columns, query.elements.begin());
    }
    if (!filtered_) return query;

    double squares = 0;
    double largest = 0;
    for (std::int64_t j = 0; j < bank_.columns; ++j) {
      const auto position = static_cast<std::size_t>(j);
      const double scaled = (query.elements[position] - mean_[position]) * scale_;
      largest = std::max(largest, std::fabs(scaled));
      // A query far outside the bank would overflow float32; it is then compared exactly with every row.
      const float stored = std::fabs(scaled) < 0x1p60 ? static_cast<float>(scaled) : 0.0F;
      tile[j * tile_queries] = stored;
      squares += static_cast<double>(stored) * static_cast<double>(stored);
    }
    query.filtered = largest < 0x1p60;
    query.lower = squares * (1 - slack_) - floor_;
    query.upper = squares * (1 + slack_) + floor_;
    return query;
  }

  // The k nearest (or all, if fewer) among panels first..last-1 of each query of a group.
  std::vector<std::vector<Neighbor>> scan(const std::vector<Query>& queries, const std::vector<float>& tiles,
                                          std::int64_t first_panel, std::int64_t last_panel, std::int64_t k) const {
    const auto exact_for = [this](const Query& query) {
      return [this, &query](std::int64_t row) { return exact(query, row); };
    };
    std::vector<Shortlist<decltype(exact_for(queries[0]))>> shortlists;
    shortlists.reserve(queries.size());
    bool any_filtered = false;
    for (const Query& query : queries) {
      shortlists.emplace_back(k, scale_ * scale_, exact_for(query));
      any_filtered |= query.filtered;
    }

    const int tile_count = (static_cast<int>(queries.size()) + tile_queries - 1) / tile_queries;
    std::vector<float> products(group_queries * panel_rows);
    for (std::int64_t panel = first_panel; panel < last_panel; ++panel) {
      const std::int64_t first = panel * panel_rows;
      const int count = static_cast<int>(std::min<std::int64_t>(panel_rows, bank_.rows - first));
      if (any_filtered) multiply(panel, tiles, tile_count, products);
      for (std::size_t q = 0; q < queries.size(); ++q) {
        const Query& query = queries[q];
        auto& shortlist = shortlists[q];
        if (!query.filtered) {
          for (int r = 0; r < count; ++r) shortlist.offer(-infinity, infinity, first + r);
          continue;
        }
        const float* product = products.data() + q * panel_rows;
        const double* lower = lower_.data() + first;
        const double* upper = upper_.data() + first;
        for (int r = 0; r < count; ++r) {
          const double twice = 2 * static_cast<double>(product[r]);
          const double bound = lower[r] + query.lower - twice;
          if (bound <= shortlist.threshold()) shortlist.offer(bound, upper[r] + query.upper - twice, first + r);
        }
      }
    }

    std::vector<std::vector<Neighbor>> best;
    best.reserve(queries.size());
    for (auto& shortlist : shortlists) best.push_back(shortlist.take_best());
    return best;
  }

  void multiply(std::int64_t panel, const std::vector<float>& tiles, int tile_count, std::vector<float>& products) const {
    std::fill(products.begin(), products.end(), 0.0F);
    const float* rows = packed_.data() + static_cast<std::size_t>(panel * panel_rows * bank_.columns);
    for (std::int64_t begin = 0; begin < bank_.columns; begin += chunk_columns) {
      const std::int64_t length = std::min(chunk_columns, bank_.columns - begin);
      for (int tile = 0; tile < tile_count; ++tile) {
        filter_(rows + begin * panel_rows, tiles.data() + (tile * bank_.columns + begin) * tile_queries, length,
                products.data() + tile * tile_queries * panel_rows);
      }
    }
  }

  template <class U>
  void run(MatrixView<U> queries, std::int64_t k, double* distances, std::int64_t* indices, int threads) const {
    if (queries.columns != bank_.columns) {
      throw std::invalid_argument("the queries have " + std::to_string(queries.columns) + " columns, the bank has " +
                                  std::to_string(bank_.columns));
    }
    if (k < 1 || k > bank_.rows) {
      throw std::invalid_argument("k is " + std::to_string(k) + "; allowed: 1 to " + std::to_string(bank_.rows) +
                                  ", the number of rows in the bank");
    }
    const std::int64_t groups = (queries.rows + group_queries - 1) / group_queries;
    const std::int64_t panels = (bank_.rows + panel_rows - 1) / panel_rows;
    threads = thread_count(threads);
    // Few queries: several threads share a group, each with its own range of rows.
    const std::int64_t parts =
        groups >= threads || groups == 0 ? 1 : std::min<std::int64_t>((threads + groups - 1) / groups, panels);

    for (std::int64_t wave = 0; wave < groups; wave += threads) {
      const std::int64_t wave_groups = std::min<std::int64_t>(threads, groups - wave);
      std::vector<std::vector<Query>> prepared(static_cast<std::size_t>(wave_groups));
      std::vector<std::vector<float>> tiles(static_cast<std::size_t>(wave_groups));
      parallel_for(wave_groups, threads, [&](std::int64_t group) {
        const std::int64_t first = (wave + group) * group_queries;
        const std::int64_t last = std::min(queries.rows, first + group_queries);
        auto& group_tiles = tiles[static_cast<std::size_t>(group)];
        group_tiles.assign(static_cast<std::size_t>(group_queries * bank_.columns), 0.0F);
        for (std::int64_t i = first; i < last; ++i) {
          const std::int64_t slot = i - first;
          float* tile = group_tiles.data() + slot / tile_queries * tile_queries * bank_.columns + slot % tile_queries;
          prepared[static_cast<std::size_t>(group)].push_back(prepare(queries.row(i), i, tile));
        }
      });

      std::vector<std::vector<std::vector<Neighbor>>> found(static_cast<std::size_t>(wave_groups * parts));
      parallel_for(wave_groups * parts, threads, [&](std::int64_t task) {
        const auto group = static_cast<std::size_t>(task / parts);
        const std::int64_t part = task % parts;
        found[static_cast<std::size_t>(task)] =
            scan(prepared[group], tiles[group], panels * part / parts, panels * (part + 1) / parts, k);
      });

      for (std::int64_t group = 0; group < wave_groups; ++group) {
        for (std::size_t q = 0; q < prepared[static_cast<std::size_t>(group)].size(); ++q) {
          std::vector<Neighbor> nearest;
          for (std::int64_t part = 0; part < parts; ++part) {
            const auto& share = found[static_cast<std::size_t>(group * parts + part)][q];
            nearest.insert(nearest.end(), share.begin(), share.end());
          }
          std::sort(nearest.begin(), nearest.end());
          const std::int64_t offset = ((wave + group) * group_queries + static_cast<std::int64_t>(q)) * k;
          for (std::int64_t i = 0; i < k; ++i) {
            const Neighbor& neighbor = nearest[static_cast<std::size_t>(i)];
            distances[offset + i] = cosine() ? neighbor.squared / 2 : std::sqrt(neighbor.squared);
            indices[offset + i] = neighbor.row;
          }
        }
      }
    }
  }

  MatrixView<T> bank_;
  Metric metric_;
  const DistanceKernels& distance_;
  FilterKernel filter_;
  std::vector<Normalization> normalizations_;  // cosine only
  std::vector<double> mean_;
  bool filtered_ = false;
  double scale_ = 1;
  double slack_ = 0;
  double floor_ = 0;
  std::vector<float> packed_;
  std::vector<double> lower_;  // X (1 - slack) of each row
  std::vector<double> upper_;  // X (1 + slack)
};

}  // namespace

NeighborIndex::NeighborIndex(MatrixView<float> bank, Metric metric, int threads)
    : implementation_(std::make_unique<BankIndex<float>>(bank, metric, threads)) {}

NeighborIndex::NeighborIndex(MatrixView<double> bank, Metric metric, int threads)
    : implementation_(std::make_unique<BankIndex<double>>(bank, metric, threads)) {}

NeighborIndex::~NeighborIndex() = default;
NeighborIndex::NeighborIndex(NeighborIndex&&) noexcept = default;
NeighborIndex& NeighborIndex::operator=(NeighborIndex&&) noexcept = default;

std::int64_t NeighborIndex::rows() const { return implementation_->rows(); }
std::int64_t NeighborIndex::columns() const { return implementation_->columns(); }

void NeighborIndex::query(MatrixView<float> queries, std::int64_t k, double* distances, std::int64_t* indices,
                          int threads) const {
  implementation_->query(queries, k, distances, indices, threads);
}

void NeighborIndex::query(MatrixView<double> queries, std::int64_t k, double* distances, std::int64_t* indices,
                          int threads) const {
  implementation_->query(queries, k, distances, indices, threads);
}

}  // namespace onnxviz

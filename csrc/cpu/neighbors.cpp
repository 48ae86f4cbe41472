// Exact neighbours in two steps: bounds on every distance (distance_filter.h), then the exact float64 distance (rows.h)
// of the rows that the bounds leave in doubt.
#include "onnxviz/neighbors.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "distance_filter.h"
#include "parallel.h"
#include "rows.h"
#include "shortlist.h"

namespace onnxviz {

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

constexpr double infinity = std::numeric_limits<double>::infinity();

// Queries that go over the bank together.
struct Group {
  std::vector<QueryRow> queries;
  std::vector<DistanceFilter::QueryPart> parts;
  std::vector<float> tiles;
};

template <class T>
class BankIndex final : public NeighborIndex::Implementation {
 public:
  BankIndex(MatrixView<T> bank, Metric metric, int threads) : rows_(bank, metric, threads), filter_(rows_, threads) {}

  std::int64_t rows() const override { return rows_.count(); }
  std::int64_t columns() const override { return rows_.columns(); }

  void query(MatrixView<float> queries, std::int64_t k, double* distances, std::int64_t* indices,
             int threads) const override {
    run(queries, k, distances, indices, threads);
  }

  void query(MatrixView<double> queries, std::int64_t k, double* distances, std::int64_t* indices,
             int threads) const override {
    run(queries, k, distances, indices, threads);
  }

 private:
  static constexpr std::int64_t group_queries = DistanceFilter::group_queries;

  template <class U>
  void check(MatrixView<U> queries, std::int64_t k) const {
    if (queries.columns != columns()) {
      throw std::invalid_argument("the queries have " + std::to_string(queries.columns) + " columns, the bank has " +
                                  std::to_string(columns()));
    }
    if (k < 1 || k > rows()) {
      throw std::invalid_argument("k is " + std::to_string(k) + "; allowed: 1 to " + std::to_string(rows()) +
                                  ", the number of rows in the bank");
    }
  }

  template <class U>
  void run(MatrixView<U> queries, std::int64_t k, double* distances, std::int64_t* indices, int threads) const {
    check(queries, k);
    const std::int64_t groups = (queries.rows + group_queries - 1) / group_queries;
    threads = thread_count(threads);
    // Few queries: several threads share a group, each with its own range of panels.
    const std::int64_t shares = std::max<std::int64_t>(1, groups == 0 ? 1 : std::min(threads / groups, filter_.panels()));

    // As many groups as threads at a time, so that memory does not grow with the number of queries.
    for (std::int64_t first = 0; first < groups; first += threads) {
      const std::int64_t count = std::min<std::int64_t>(threads, groups - first);
      std::vector<Group> wave(static_cast<std::size_t>(count));
      parallel_for(count, threads, [&](std::int64_t i) {
        wave[static_cast<std::size_t>(i)] = read_group(queries, (first + i) * group_queries);
      });
      std::vector<std::vector<std::vector<Neighbor>>> found(static_cast<std::size_t>(count * shares));
      parallel_for(count * shares, threads, [&](std::int64_t task) {
        const std::int64_t share = task % shares;
        found[static_cast<std::size_t>(task)] =
            scan(wave[static_cast<std::size_t>(task / shares)], filter_.panels() * share / shares,
                 filter_.panels() * (share + 1) / shares, k);
      });
      for (std::int64_t i = 0; i < count; ++i) {
        for (std::size_t q = 0; q < wave[static_cast<std::size_t>(i)].queries.size(); ++q) {
          std::vector<Neighbor> nearest;
          for (std::int64_t share = 0; share < shares; ++share) {
            const auto& part = found[static_cast<std::size_t>(i * shares + share)][q];
            nearest.insert(nearest.end(), part.begin(), part.end());
          }
          const std::int64_t offset = ((first + i) * group_queries + static_cast<std::int64_t>(q)) * k;
          write(nearest, k, distances + offset, indices + offset);
        }
      }
    }
  }

  template <class U>
  Group read_group(MatrixView<U> queries, std::int64_t first) const {
    Group group;
    group.tiles.assign(filter_.group_size(), 0.0F);
    const std::int64_t last = std::min(queries.rows, first + group_queries);
    for (std::int64_t i = first; i < last; ++i) {
      group.queries.push_back(rows_.read_query(queries.row(i), i));
      group.parts.push_back(filter_.prepare(group.queries.back(), static_cast<int>(i - first), group.tiles));
    }
    return group;
  }

  // The k nearest (or all, if they are fewer) of the rows in panels first..last-1, of each query of a group.
  std::vector<std::vector<Neighbor>> scan(const Group& group, std::int64_t first, std::int64_t last,
                                          std::int64_t k) const {
    const auto exact_for = [this](const QueryRow& query) {
      return [this, &query](std::int64_t row) { return rows_.squared_distance(row, query); };
    };
    std::vector<Shortlist<decltype(exact_for(group.queries[0]))>> shortlists;
    shortlists.reserve(group.queries.size());
    bool any_usable = false;
    for (std::size_t q = 0; q < group.queries.size(); ++q) {
      shortlists.emplace_back(k, filter_.scale_squared(), exact_for(group.queries[q]));
      any_usable |= group.parts[q].usable;
    }
    std::vector<float> products;
    for (std::int64_t panel = first; panel < last; ++panel) {
      if (any_usable) filter_.multiply(panel, group.tiles, static_cast<int>(group.queries.size()), products);
      const std::int64_t begin = panel * panel_rows;
      const std::int64_t end = std::min(rows(), begin + panel_rows);
      for (std::size_t q = 0; q < group.queries.size(); ++q) {
        const DistanceFilter::QueryPart& part = group.parts[q];
        auto& shortlist = shortlists[q];
        if (!part.usable) {
          for (std::int64_t row = begin; row < end; ++row) shortlist.offer(-infinity, infinity, row);
          continue;
        }
        const float* product = products.data() + q * panel_rows;
        for (std::int64_t row = begin; row < end; ++row, ++product) {
          const double lower = filter_.lower(row, part, *product);
          if (lower <= shortlist.threshold()) shortlist.offer(lower, filter_.upper(row, part, *product), row);
        }
      }
    }
    std::vector<std::vector<Neighbor>> best;
    best.reserve(shortlists.size());
    for (auto& shortlist : shortlists) best.push_back(shortlist.take_best());
    return best;
  }

  void write(std::vector<Neighbor>& nearest, std::int64_t k, double* distances, std::int64_t* indices) const {
    std::sort(nearest.begin(), nearest.end());
    for (std::int64_t i = 0; i < k; ++i) {
      const Neighbor& neighbor = nearest[static_cast<std::size_t>(i)];
      distances[i] = rows_.cosine() ? neighbor.squared / 2 : std::sqrt(neighbor.squared);
      indices[i] = neighbor.row;
    }
  }

  Rows<T> rows_;
  DistanceFilter filter_;
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

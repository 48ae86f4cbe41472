// Exact neighbours: integer codes rule rows out (levels.h, search.h), float64 distances decide on the rest (rows.h).
#include "onnxviz/neighbors.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "all_pairs.h"
#include "levels.h"
#include "parallel.h"
#include "rows.h"
#include "search.h"

namespace onnxviz {

class NeighborIndex::Implementation {
 public:
  using Progress = NeighborIndex::Progress;


  virtual ~Implementation() = default;
  virtual std::int64_t rows() const = 0;
  virtual std::int64_t columns() const = 0;
  virtual void encode(std::int64_t first, std::int64_t count, int threads) = 0;
  virtual StartLevels choose_start(int threads) = 0;
  virtual StartLevels start() const = 0;
  virtual void set_start(StartLevels start) = 0;
  virtual void query(MatrixView<float> queries, std::int64_t k, double* distances, std::int64_t* indices,
                     int threads) const = 0;
  virtual void query(MatrixView<double> queries, std::int64_t k, double* distances, std::int64_t* indices,
                     int threads) const = 0;
  virtual void query_all_rows(std::int64_t k, double* distances, std::int64_t* indices, int threads,
                              const Progress& progress) const = 0;
  virtual WithinRadius within(MatrixView<float> queries, double radius, int threads) const = 0;
  virtual WithinRadius within(MatrixView<double> queries, double radius, int threads) const = 0;
};

namespace {

constexpr std::int64_t rows_per_task = 64;
constexpr std::int64_t rows_per_report = 1024;
// Less than this is not worth a second thread.
constexpr std::int64_t fewest_bytes_per_share = std::int64_t{8} << 20;
constexpr std::int64_t sampled_queries = 24;
constexpr std::int64_t sampled_neighbors = 10;

// Queries that are no rows of the bank are farther from it, and leave so many times as many in doubt.
constexpr std::int64_t strangers_leave = 4;

bool inside_euclidean(double squared, double radius) { return std::sqrt(squared) <= radius; }
bool inside_cosine(double squared, double radius) { return squared / 2 <= radius; }

template <class T>
class BankIndex final : public NeighborIndex::Implementation {
 public:
  BankIndex(std::shared_ptr<const RowSource<T>> bank, const IndexSetup& setup)
      : rows_(std::move(bank), setup.metric, setup.directions),
        levels_(setup, rows_.columns()),
        search_(rows_, levels_) {
    start_ = {levels_.count() - 1, levels_.count() - 1, levels_.count() - 1};
  }

  std::int64_t rows() const override { return rows_.count(); }
  std::int64_t columns() const override { return rows_.columns(); }
  StartLevels start() const override { return start_; }

  void set_start(StartLevels start) override {
    if (std::min({start.single, start.batch, start.plain}) < 0 ||
        std::max({start.single, start.batch, start.plain}) >= levels_.count()) {
      throw std::invalid_argument("there is no such level to start at");
    }
    start_ = start;
  }

  void encode(std::int64_t first, std::int64_t count, int threads) override {
    if (first < 0 || count < 0 || first > rows() - count) throw std::invalid_argument("no such rows to encode");
    const std::int64_t tasks = (count + rows_per_task - 1) / rows_per_task;
    const std::int64_t workers = std::max<std::int64_t>(1, std::min<std::int64_t>(thread_count(threads), tasks));
    std::vector<Levels::Workspace> workspaces(static_cast<std::size_t>(workers));
    std::vector<std::vector<T>> buffers(workspaces.size());
    parallel_for(workers, threads, [&](std::int64_t worker) {
      Levels::Workspace& workspace = workspaces[static_cast<std::size_t>(worker)];
      for (std::int64_t task = tasks * worker / workers; task < tasks * (worker + 1) / workers; ++task) {
        const std::int64_t begin = first + task * rows_per_task;
        const std::int64_t end = std::min(first + count, begin + rows_per_task);
        const T* elements = rows_.source().block(begin, end - begin, buffers[static_cast<std::size_t>(worker)]);
        workspace.rows.resize(static_cast<std::size_t>(end - begin));
        for (std::int64_t row = begin; row < end; ++row) {
          rows_.admit(row, elements + (row - begin) * columns(), workspace.rows[static_cast<std::size_t>(row - begin)]);
        }
        levels_.encode(begin, workspace);
      }
    });
  }

  StartLevels choose_start(int threads) override {
    const int last = levels_.count() - 1;
    start_ = {last, last, last};
    double cost_single = search_.cost(last, {}, true);
    double cost_batch = search_.cost(last, {}, false);
    const std::int64_t count = std::min(sampled_queries, rows());
    std::vector<FineQuery> queries(static_cast<std::size_t>(count));
    for (std::int64_t i = 0; i < count; ++i) queries[static_cast<std::size_t>(i)] = row_query(rows() * i / count);
    levels_.prepare(queries.data(), count, threads);
    Wanted wanted;
    wanted.k = std::min(sampled_neighbors + 1, rows());
    // From behind, so that what projections are measured against is known.
    for (int level = last - 1; level >= 0; --level) {
      QueryGroup group;
      group.queries = queries;
      group.thresholds = std::make_unique<SharedThreshold[]>(queries.size());
      group.ladder = search_.ladder(queries, level);
      Survivors survivors;
      search_.run(group, 0, rows(), wanted, level, &survivors);
      for (std::int64_t& left : survivors.left) left = std::min(strangers_leave * left, survivors.of);
      if (search_.cost(level, survivors, true) < cost_single) {
        cost_single = search_.cost(level, survivors, true);
        start_.single = level;
        if (!levels_.projected(level)) start_.plain = level;
      }
      // Four bits halve what is read, but not what is computed.
      if (levels_.projected(level) && search_.cost(level, survivors, false) < cost_batch) {
        cost_batch = search_.cost(level, survivors, false);
        start_.batch = level;
      }
    }
    return start_;
  }

  void query(MatrixView<float> queries, std::int64_t k, double* distances, std::int64_t* indices,
             int threads) const override {
    nearest(queries, k, distances, indices, threads);
  }

  void query(MatrixView<double> queries, std::int64_t k, double* distances, std::int64_t* indices,
             int threads) const override {
    nearest(queries, k, distances, indices, threads);
  }

  void query_all_rows(std::int64_t k, double* distances, std::int64_t* indices, int threads,
                      const Progress& progress) const override {
    check_k(k);
    const int last = levels_.count() - 1;
    if (start_.batch == last && rows() <= AllPairs<T>::most_rows && levels_.has_coarse_rows(last) &&
        levels_.level(last).random_access) {
      meet_all(k, distances, indices, threads, progress);
      return;
    }
    Wanted wanted;
    wanted.k = k;
    for (std::int64_t first = 0; first < rows(); first += rows_per_report) {
      if (progress) progress(first, rows());
      run(std::min(rows_per_report, rows() - first), wanted, threads,
          [&](std::int64_t q) { return row_query(first + q); },
          [&](std::int64_t q, std::vector<Neighbor>& found) {
            write(found, k, distances + (first + q) * k, indices + (first + q) * k);
          });
    }
  }

  WithinRadius within(MatrixView<float> queries, double radius, int threads) const override {
    return all_within(queries, radius, threads);
  }

  WithinRadius within(MatrixView<double> queries, double radius, int threads) const override {
    return all_within(queries, radius, threads);
  }

 private:
  void check_k(std::int64_t k) const {
    if (k < 1 || k > rows()) {
      throw std::invalid_argument("k is " + std::to_string(k) + "; allowed: 1 to " + std::to_string(rows()) +
                                  ", the number of rows in the bank");
    }
  }

  template <class U>
  void check_columns(MatrixView<U> queries) const {
    if (queries.columns != columns()) {
      throw std::invalid_argument("the queries have " + std::to_string(queries.columns) + " columns, the bank has " +
                                  std::to_string(columns()));
    }
  }

  template <class U>
  FineQuery foreign_query(MatrixView<U> queries, std::int64_t q) const {
    FineQuery query;
    rows_.read_query(q, queries.row(q), query.row);
    return query;
  }

  FineQuery row_query(std::int64_t row) const {
    FineQuery query;
    std::vector<T> buffer;
    rows_.read(row, rows_.source().block(row, 1, buffer), query.row);
    return query;
  }

  template <class U>
  void nearest(MatrixView<U> queries, std::int64_t k, double* distances, std::int64_t* indices, int threads) const {
    check_columns(queries);
    check_k(k);
    Wanted wanted;
    wanted.k = k;
    run(queries.rows, wanted, threads, [&](std::int64_t q) { return foreign_query(queries, q); },
        [&](std::int64_t q, std::vector<Neighbor>& found) { write(found, k, distances + q * k, indices + q * k); });
  }

  template <class U>
  WithinRadius all_within(MatrixView<U> queries, double radius, int threads) const {
    check_columns(queries);
    if (!(radius >= 0)) throw std::invalid_argument("the radius is " + std::to_string(radius) + "; allowed: 0 or more");
    Wanted wanted;
    wanted.radius = radius;
    wanted.inside = rows_.cosine() ? inside_cosine : inside_euclidean;
    // For cosine a radius is half of a squared distance.
    wanted.threshold = (rows_.cosine() ? std::sqrt(2 * radius) : radius) * levels_.scale() * (1 + 0x1p-40);
    std::vector<std::vector<Neighbor>> all(static_cast<std::size_t>(queries.rows));
    run(queries.rows, wanted, threads, [&](std::int64_t q) { return foreign_query(queries, q); },
        [&](std::int64_t q, std::vector<Neighbor>& found) { all[static_cast<std::size_t>(q)] = std::move(found); });
    WithinRadius result;
    result.offsets.push_back(0);
    for (auto& found : all) {
      std::sort(found.begin(), found.end());
      for (const Neighbor& neighbor : found) {
        result.indices.push_back(neighbor.row);
        result.distances.push_back(distance(neighbor.squared));
      }
      result.offsets.push_back(static_cast<std::int64_t>(result.indices.size()));
    }
    return result;
  }

  void meet_all(std::int64_t k, double* distances, std::int64_t* indices, int threads, const Progress& progress) const {
    AllPairs<T> pairs(rows_, levels_, k);
    const std::int64_t groups = pairs.groups();
    const std::int64_t at_once = 4 * static_cast<std::int64_t>(thread_count(threads));
    for (std::int64_t group = 0; group < groups; group += at_once) {
      // Of all pairs, those of the first groups are the most.
      const double share = static_cast<double>(groups - group) / static_cast<double>(groups);
      if (progress) progress(static_cast<std::int64_t>((1 - share * share) * static_cast<double>(rows())), rows());
      parallel_for(std::min(at_once, groups - group), threads, [&](std::int64_t i) { pairs.meet(group + i); });
    }
    parallel_for(rows(), threads, [&](std::int64_t row) {
      std::vector<Neighbor> nearest = pairs.take(row);
      write(nearest, k, distances + row * k, indices + row * k);
    });
  }

  // Queries in groups, as many groups as threads at a time, so that memory does not grow with the number of queries.
  template <class Read, class Write>
  void run(std::int64_t queries, const Wanted& wanted, int threads, const Read& read, const Write& write_answer) const {
    threads = thread_count(threads);
    // As few groups as possible, because each reads all codes; few groups share their rows among the threads.
    const std::int64_t groups = (queries + Search<T>::most_queries - 1) / Search<T>::most_queries;
    const std::int64_t per_group = groups == 0 ? 0 : (queries + groups - 1) / groups;
    const bool single = queries <= Search<T>::most_fine;
    const int start = single ? start_.single : start_.batch;
    const int plain = single ? start_.plain : levels_.count() - 1;
    std::int64_t bytes = 0;
    for (int level = levels_.projected(start) ? 0 : start; level <= start; ++level) {
      bytes += rows() * levels_.level(level).shape.row_bytes();
    }
    for (std::int64_t first = 0; first < groups; first += threads) {
      const std::int64_t count = std::min<std::int64_t>(threads, groups - first);
      const std::int64_t shares =
          std::max<std::int64_t>(1, std::min({threads / count, bytes / fewest_bytes_per_share, rows() / rows_per_task}));
      std::vector<QueryGroup> wave(static_cast<std::size_t>(count));
      const std::int64_t begin = first * per_group;
      const std::int64_t end = std::min(queries, (first + count) * per_group);
      for (std::int64_t i = 0; i < count; ++i) {
        const std::int64_t size = std::min(per_group, end - begin - i * per_group);
        wave[static_cast<std::size_t>(i)].queries.resize(static_cast<std::size_t>(size));
        wave[static_cast<std::size_t>(i)].thresholds = std::make_unique<SharedThreshold[]>(static_cast<std::size_t>(size));
      }
      parallel_for(end - begin, threads, [&](std::int64_t q) {
        wave[static_cast<std::size_t>(q / per_group)].queries[static_cast<std::size_t>(q % per_group)] = read(begin + q);
      });
      for (QueryGroup& group : wave) {
        levels_.prepare(group.queries.data(), static_cast<std::int64_t>(group.queries.size()), threads);
      }
      parallel_for(count, threads, [&](std::int64_t i) {
        QueryGroup& group = wave[static_cast<std::size_t>(i)];
        group.ladder = search_.ladder(group.queries, start);
      });
      std::vector<std::vector<std::vector<Neighbor>>> found(static_cast<std::size_t>(count * shares));
      parallel_for(count * shares, threads, [&](std::int64_t task) {
        const std::int64_t share = task % shares;
        found[static_cast<std::size_t>(task)] = search_.run(wave[static_cast<std::size_t>(task / shares)],
                                                            rows() * share / shares, rows() * (share + 1) / shares,
                                                            wanted, plain);
      });
      for (std::int64_t i = 0; i < count; ++i) {
        for (std::size_t q = 0; q < wave[static_cast<std::size_t>(i)].queries.size(); ++q) {
          std::vector<Neighbor> nearest;
          for (std::int64_t share = 0; share < shares; ++share) {
            const auto& part = found[static_cast<std::size_t>(i * shares + share)][q];
            nearest.insert(nearest.end(), part.begin(), part.end());
          }
          write_answer((first + i) * per_group + static_cast<std::int64_t>(q), nearest);
        }
      }
    }
  }

  double distance(double squared) const { return rows_.cosine() ? squared / 2 : std::sqrt(squared); }

  void write(std::vector<Neighbor>& nearest, std::int64_t k, double* distances, std::int64_t* indices) const {
    std::sort(nearest.begin(), nearest.end());
    for (std::int64_t i = 0; i < k; ++i) {
      const Neighbor& neighbor = nearest[static_cast<std::size_t>(i)];
      distances[i] = distance(neighbor.squared);
      indices[i] = neighbor.row;
    }
  }

  Rows<T> rows_;
  Levels levels_;
  Search<T> search_;
  StartLevels start_;
};

}  // namespace

NeighborIndex::NeighborIndex(std::shared_ptr<const RowSource<float>> bank, IndexSetup setup)
    : implementation_(std::make_unique<BankIndex<float>>(std::move(bank), setup)) {}

NeighborIndex::NeighborIndex(std::shared_ptr<const RowSource<double>> bank, IndexSetup setup)
    : implementation_(std::make_unique<BankIndex<double>>(std::move(bank), setup)) {}

NeighborIndex::~NeighborIndex() = default;
NeighborIndex::NeighborIndex(NeighborIndex&&) noexcept = default;
NeighborIndex& NeighborIndex::operator=(NeighborIndex&&) noexcept = default;

std::int64_t NeighborIndex::rows() const { return implementation_->rows(); }
std::int64_t NeighborIndex::columns() const { return implementation_->columns(); }
StartLevels NeighborIndex::start() const { return implementation_->start(); }
void NeighborIndex::set_start(StartLevels start) { implementation_->set_start(start); }
StartLevels NeighborIndex::choose_start(int threads) { return implementation_->choose_start(threads); }

void NeighborIndex::encode(std::int64_t first, std::int64_t count, int threads) {
  implementation_->encode(first, count, threads);
}

void NeighborIndex::query(MatrixView<float> queries, std::int64_t k, double* distances, std::int64_t* indices,
                          int threads) const {
  implementation_->query(queries, k, distances, indices, threads);
}

void NeighborIndex::query(MatrixView<double> queries, std::int64_t k, double* distances, std::int64_t* indices,
                          int threads) const {
  implementation_->query(queries, k, distances, indices, threads);
}

void NeighborIndex::query_all_rows(std::int64_t k, double* distances, std::int64_t* indices, int threads,
                                   const Progress& progress) const {
  implementation_->query_all_rows(k, distances, indices, threads, progress);
}

WithinRadius NeighborIndex::within(MatrixView<float> queries, double radius, int threads) const {
  return implementation_->within(queries, radius, threads);
}

WithinRadius NeighborIndex::within(MatrixView<double> queries, double radius, int threads) const {
  return implementation_->within(queries, radius, threads);
}

}  // namespace onnxviz

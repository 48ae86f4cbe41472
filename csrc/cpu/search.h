// The way of a few queries through a run of rows: bounds on all, tighter bounds on those left, exact distances of the
// last.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "levels.h"
#include "rows.h"
#include "shortlist.h"

namespace onnxviz {

// The form in which the queries of a group meet the rows of one level.
struct Look {
  int level = 0;
  int vectors_per_query = 1;  // 1: coarse, 2: fine
  std::int64_t vector_bytes = 0;
  std::vector<std::int8_t> vectors;
  std::vector<LevelQuery> queries;
};

// Queries at the levels below the last.
struct Ladder {
  std::vector<Look> looks;
  std::size_t dense = 1;  // so many of them at all rows, the others at those that are left

  int start() const { return looks[dense - 1].level; }
};

// Queries that go over the rows together.
struct QueryGroup {
  std::vector<FineQuery> queries;
  std::unique_ptr<SharedThreshold[]> thresholds;
  Ladder ladder;
};

// What is asked for: the k nearest, or all within a radius.
struct Wanted {
  std::int64_t k = 0;  // 0: the radius decides
  double radius = 0;
  double threshold = 0;  // of the radius, in the levels' units, rounded up
  bool (*inside)(double squared, double radius) = nullptr;
};

// How many rows each look that was not the last one left, of how many: what the choice of the start learns from.
struct Survivors {
  std::int64_t of = 0;
  std::vector<std::int64_t> left;

  void add(const Survivors& more);
};

// A row by what is known of it.
struct Seed {
  float lower;
  std::int64_t row;

  bool operator<(const Seed& other) const { return lower < other.lower || (lower == other.lower && row < other.row); }
};

// Memory that a task works in. It is kept from one search to the next: fresh pages would cost as much as the work.
template <class T>
struct Workplace {
  std::vector<std::int32_t> products;
  std::unique_ptr<float[]> squared;
  std::size_t squared_size = 0;
  std::vector<float> residual;
  std::vector<std::uint8_t> unpacked;
  std::vector<Seed> seeds;
  std::vector<std::int64_t> found;
  std::vector<T> gathered;
  std::vector<const T*> places;
};

template <class T>
class Search {
 public:
  // Up to this many queries every row is met in the finer of the two forms.
  static constexpr std::int64_t most_fine = 2;
  static constexpr std::int64_t most_queries = 48;

  Search(const Rows<T>& rows, const Levels& levels) : rows_(rows), levels_(levels) {}

  // From `start` up; a projected one stands on those before it, which all rows meet, too.
  Ladder ladder(const std::vector<FineQuery>& queries, int start) const;

  // What a row costs with this start, in nanoseconds of one machine: only their ratios matter. Without survivors, what
  // it costs at least.
  double cost(int start, const Survivors& survivors, bool single) const;

  // The start that rows like these would have cost least with: this one, a projected one further on, or `plain`.
  int better_start(int start, const Survivors& survivors, int plain, bool single) const;

  // The answers of each query of the group among rows first .. last - 1. A start that rules out too little is given up
  // on the way for a better one.
  std::vector<std::vector<Neighbor>> run(const QueryGroup& group, std::int64_t first, std::int64_t last,
                                         const Wanted& wanted, int plain, Survivors* survivors = nullptr) const;

 private:
  Look look(const std::vector<FineQuery>& queries, int level) const;
  double lone_row_cost(int level, bool single) const;
  std::unique_ptr<Workplace<T>> take_workplace() const;

  const Rows<T>& rows_;
  const Levels& levels_;
  mutable std::mutex mutex_;
  mutable std::vector<std::unique_ptr<Workplace<T>>> free_workplaces_;
};

}  // namespace onnxviz

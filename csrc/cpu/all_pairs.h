// The nearest rows of every row, each pair looked at once for both.
#pragma once

#include <cstdint>
#include <functional>
#include <mutex>
#include <vector>

#include "levels.h"
#include "rows.h"
#include "shortlist.h"

namespace onnxviz {

// A bound on a pair holds for both of its rows, and products of the last level cost more than all that follows: half of
// them are saved. Thresholds fall from pair to pair, without a first look at all rows of one query; that suits a level
// whose bounds are as narrow as those of eight bits. Memory is some 2 KB for each row.
template <class T>
class AllPairs {
 public:
  // Beyond this the lists of all rows would take more memory than they save time.
  static constexpr std::int64_t most_rows = 200'000;
  static constexpr std::int64_t rows_per_group = 48;

  AllPairs(const Rows<T>& rows, const Levels& levels, std::int64_t k);

  std::int64_t groups() const { return (rows_.count() + rows_per_group - 1) / rows_per_group; }

  // Meets the rows of a group with each other and with all rows behind them. May run for several groups at once.
  void meet(std::int64_t group);

  // The k nearest rows of a row, itself among them, in no order; once all groups have met, once for each row.
  std::vector<Neighbor> take(std::int64_t row);

 private:
  using Exact = std::function<void(const std::int64_t*, std::int64_t, double*)>;

  void offer(std::int64_t row, const Interval& interval, std::int64_t other);

  const Rows<T>& rows_;
  const Levels& levels_;
  std::vector<SharedThreshold> thresholds_;
  std::vector<Shortlist<Exact>> shortlists_;
  std::vector<std::mutex> locks_;
};

}  // namespace onnxviz

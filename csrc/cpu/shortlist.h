// Rows that may be the answer to one query, gathered until their exact distances decide.
#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <limits>
#include <mutex>
#include <vector>

namespace onnxviz {

struct Neighbor {
  double squared;
  std::int64_t row;

  bool operator<(const Neighbor& other) const {
    return squared < other.squared || (squared == other.squared && row < other.row);
  }
};

// A heap with the largest in front, of at most k elements.
template <class Element>
void keep_smallest(std::vector<Element>& heap, const Element& element, std::size_t k) {
  if (heap.size() == k) {
    if (!(element < heap.front())) return;
    std::pop_heap(heap.begin(), heap.end());
    heap.pop_back();
  }
  heap.push_back(element);
  std::push_heap(heap.begin(), heap.end());
}

// A distance that several threads, each with rows of its own, lower together: the k-th smallest of all that they know.
// Whoever reads an old one is only slower.
class SharedThreshold {
 public:
  double get() const { return value_.load(std::memory_order_relaxed); }

  void lower(double value) {
    double seen = get();
    while (value < seen && !value_.compare_exchange_weak(seen, value, std::memory_order_relaxed)) {
    }
  }

  // Upper bounds on distances of distinct rows, and distances themselves, rounded up, of distinct rows.
  void bound(double upper, std::size_t k) { take(uppers_, upper, k); }
  void measured(double distance, std::size_t k) { take(distances_, distance, k); }

 private:
  void take(std::vector<double>& heap, double value, std::size_t k) {
    if (!(value < get())) return;
    const std::lock_guard<std::mutex> lock(mutex_);
    keep_smallest(heap, value, k);
    if (heap.size() == k) lower(heap.front());
  }

  std::atomic<double> value_{std::numeric_limits<double>::infinity()};
  std::mutex mutex_;
  std::vector<double> uppers_;
  std::vector<double> distances_;
};

// Bounds and thresholds are distances times `scale`. Exact is a function of (rows, count, squared distances to fill).
template <class Exact>
class Shortlist {
 public:
  // The k nearest rows; `shared` is lowered as they are found.
  Shortlist(std::int64_t k, double scale, std::int64_t at_once, SharedThreshold& shared, Exact exact)
      : k_(static_cast<std::size_t>(k)),
        limit_(std::max<std::size_t>(4096, 16 * k_)),
        scale_(scale),
        at_once_(static_cast<std::size_t>(at_once)),
        shared_(&shared),
        exact_(std::move(exact)) {}

  // All rows whose squared distance `inside` accepts; none that it accepts has a lower bound above `threshold`.
  Shortlist(double threshold, bool (*inside)(double squared, double radius), double radius, double scale,
            std::int64_t at_once, SharedThreshold& shared, Exact exact)
      : k_(0),
        limit_(4096),
        scale_(scale),
        at_once_(static_cast<std::size_t>(at_once)),
        shared_(&shared),
        exact_(std::move(exact)),
        inside_(inside),
        radius_(radius) {
    shared_->lower(threshold);
  }

  bool radius_only() const { return inside_ != nullptr; }

  // A row with a lower bound above this one is no answer, and need not be offered.
  double threshold() const { return shared_->get(); }

  // Every row at most once. An upper bound on a computed distance.
  void offer(double lower, double upper, std::int64_t row) {
    candidates_.push_back({lower, row});
    if (!radius_only()) shared_->bound(upper, k_);
    if (candidates_.size() >= limit_) settle();
  }

  // Exact distances for the candidates, most promising first, until the bounds say that the rest is farther.
  void settle() {
    std::sort(candidates_.begin(), candidates_.end());
    std::vector<std::int64_t> rows;
    std::vector<double> squared;
    for (std::size_t i = 0; i < candidates_.size();) {
      rows.clear();
      const double limit = threshold();
      for (; i < candidates_.size() && rows.size() < at_once_ && candidates_[i].lower <= limit; ++i) {
        rows.push_back(candidates_[i].row);
      }
      if (rows.empty()) break;
      squared.resize(rows.size());
      exact_(rows.data(), static_cast<std::int64_t>(rows.size()), squared.data());
      for (std::size_t j = 0; j < rows.size(); ++j) accept({squared[j], rows[j]});
    }
    candidates_.clear();
  }

  // The answer among the rows offered, in no order.
  std::vector<Neighbor> take_best() {
    settle();
    return std::move(best_);
  }

 private:
  struct Candidate {
    double lower;
    std::int64_t row;

    bool operator<(const Candidate& other) const {
      return lower < other.lower || (lower == other.lower && row < other.row);
    }
  };

  void accept(Neighbor neighbor) {
    if (radius_only()) {
      if (inside_(neighbor.squared, radius_)) best_.push_back(neighbor);
      return;
    }
    keep_smallest(best_, neighbor, k_);
    // The root is rounded, hence a little more than it.
    shared_->measured(std::sqrt(neighbor.squared) * scale_ * (1 + 0x1p-50), k_);
  }

  std::size_t k_;
  std::size_t limit_;
  double scale_;
  std::size_t at_once_;
  SharedThreshold* shared_;
  Exact exact_;
  bool (*inside_)(double, double) = nullptr;
  double radius_ = 0;
  std::vector<Neighbor> best_;  // heap of the k nearest; all of them where a radius decides
  std::vector<Candidate> candidates_;
};

}  // namespace onnxviz

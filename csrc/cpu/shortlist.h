// The k nearest rows of one query among those seen so far, and the rows that may still belong to them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

namespace onnxviz {

struct Neighbor {
  double squared;
  std::int64_t row;

  bool operator<(const Neighbor& other) const {
    return squared < other.squared || (squared == other.squared && row < other.row);
  }
};

// Exact is a function from a row number to its exact squared distance. Bounds are of that distance times scale_squared.
template <class Exact>
class Shortlist {
 public:
  Shortlist(std::int64_t k, double scale_squared, Exact exact)
      : k_(static_cast<std::size_t>(k)),
        limit_(std::max<std::size_t>(4096, 16 * k_)),
        scale_squared_(scale_squared),
        exact_(std::move(exact)) {}

  // A row with a lower bound above this one is farther than k others, and need not be offered.
  double threshold() const { return threshold_; }

  void offer(double lower, double upper, std::int64_t row) {
    candidates_.push_back({lower, row});
    keep_smallest(uppers_, upper);
    if (uppers_.size() == k_) threshold_ = std::min(threshold_, uppers_.front());
    if (candidates_.size() >= limit_) settle();
  }

  // The k nearest of the rows offered (all, if they are fewer), in no order.
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

  // A heap with the largest in front, of at most k elements.
  template <class Element>
  void keep_smallest(std::vector<Element>& heap, const Element& element) const {
    if (heap.size() == k_) {
      if (!(element < heap.front())) return;
      std::pop_heap(heap.begin(), heap.end());
      heap.pop_back();
    }
    heap.push_back(element);
    std::push_heap(heap.begin(), heap.end());
  }

  // Exact distances for the candidates, most promising first, until the bounds say that the rest is farther.
  void settle() {
    std::sort(candidates_.begin(), candidates_.end());
    for (const Candidate& candidate : candidates_) {
      if (candidate.lower > threshold_) break;
      keep_smallest(best_, Neighbor{exact_(candidate.row), candidate.row});
      if (best_.size() == k_) threshold_ = std::min(threshold_, best_.front().squared * scale_squared_);
    }
    candidates_.clear();
  }

  std::size_t k_;
  std::size_t limit_;
  double scale_squared_;
  Exact exact_;
  double threshold_ = std::numeric_limits<double>::infinity();
  std::vector<double> uppers_;  // heap: the k smallest upper bounds
  std::vector<Neighbor> best_;  // heap
  std::vector<Candidate> candidates_;
};

}  // namespace onnxviz

// The way of some queries through all rows of a bank: which rows are met when, and the memory that it takes.
#pragma once

#include <cstddef>
#include <cstdint>

#include "index_codes.h"
#include "kernels/exact_distance.cuh"
#include "kernels/lists.cuh"
#include "onnxviz/cuda/memory.h"
#include "onnxviz/cuda/neighbors.h"

namespace onnxviz::cuda {

// Rows are met in passes: first every stride-th, which are few and find a first threshold whatever the order of the
// rows; then every (stride / growth)-th that is left; at last all that are.
struct SearchPlan {
  SearchPlan(std::int64_t rows, std::int64_t k, std::int64_t queries, std::int64_t bytes_per_query,
             const SearchSizes& sizes);

  std::int64_t rows;
  std::int64_t k;
  int stride = 1;  // of the first pass
  int growth = 1;
  std::int64_t capacity;
  std::int64_t rows_per_chunk;
  std::int64_t queries_at_once;
  std::int64_t few_queries;
  bool in_shared;
  std::int64_t threads_per_query;  // of `tighten` and `settle`
  std::int64_t buffer_size;   // neighbours that `settle` works with
  std::int64_t nearest_size;  // neighbours that are kept of a query

  // Of the lists of all queries at once.
  std::size_t list_bytes() const;
};

// The lists of a search, kept from one to the next.
class ListMemory {
 public:
  // Makes it large enough; what it held is lost.
  void reserve(const SearchPlan& plan, int device);
  // Without a count of the rows in doubt; for that there is a place, which nobody has set to 0.
  const Lists& lists() const { return lists_; }
  unsigned long long* in_doubt() const { return in_doubt_; }

 private:
  template <class T>
  T* take(std::size_t count);

  Memory memory_;
  std::size_t used_ = 0;
  Lists lists_{};
  unsigned long long* in_doubt_ = nullptr;
};

template <class T>
struct SearchedBank {
  BankRows<T> rows;
  LevelView bytes;
  LevelView projected;  // its codes null where there are none
  Rules rules;
  Rules projected_rules;
};

struct SearchedQueries {
  ExactQueries exact;
  LevelView bytes;
  LevelView projected;
  std::int64_t count;
};

// Queues the search of at most plan.queries_at_once queries; the answers are in `answers` after it.
template <class T>
void search(const SearchedBank<T>& bank, const SearchedQueries& queries, const SearchPlan& plan, const Lists& lists,
            bool projected, const Answers& answers, StreamView stream);

// Queues the first look at one chunk only.
void look(LevelView rows, const Chunk& chunk, LevelView queries, std::int64_t count, const Rules& rules,
          const Lists& lists, std::int64_t few_queries, StreamView stream);

}  // namespace onnxviz::cuda

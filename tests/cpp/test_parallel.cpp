#include "parallel.h"

#include <atomic>
#include <stdexcept>
#include <vector>

#include "check.h"

using namespace onnxviz;

namespace {

void every_index_once() {
  for (const int threads : {0, 1, 2, 7}) {
    for (const std::int64_t count : {0, 1, 3, 1000}) {
      std::vector<std::atomic<int>> seen(static_cast<std::size_t>(count));
      parallel_for(count, threads, [&](std::int64_t i) { ++seen[static_cast<std::size_t>(i)]; });
      for (const auto& times : seen) CHECK(times == 1);
    }
  }
}

void an_exception_comes_out_and_the_next_loop_runs() {
  for (const int threads : {1, 4}) {
    const std::string message = onnxviz::test::message_of<std::invalid_argument>([&] {
      parallel_for(100, threads, [](std::int64_t i) {
        if (i == 41) throw std::invalid_argument("forty-one");
      });
    });
    CHECK(message == "forty-one");
    std::atomic<int> total{0};
    parallel_for(10, threads, [&](std::int64_t) { ++total; });
    CHECK(total == 10);
  }
}

}  // namespace

int main() {
  return onnxviz::test::run([] {
    CHECK(thread_count(3) == 3);
    CHECK(thread_count(0) >= 1);
    CHECK(thread_count(-1) == thread_count(0));
    every_index_once();
    an_exception_comes_out_and_the_next_loop_runs();
  });
}

#include "onnxviz/cpu.h"

#include <stdexcept>

#include "check.h"

using namespace onnxviz;
using onnxviz::test::contains;
using onnxviz::test::message_of;

namespace {

void every_level_that_runs_can_be_chosen() {
  CpuLevel highest = CpuLevel::baseline;
  for (const CpuLevel level : compiled_levels()) {
    if (runs_here(level)) {
      CHECK(choose_level(name(level)) == level);
      highest = level;
    } else {
      const std::string message = message_of<std::runtime_error>([&] { choose_level(name(level)); });
      CHECK_FOR(contains(message, "this processor cannot run it"), message);
    }
  }
  CHECK(choose_level("") == highest);
}

void baseline_always_runs() {
  CHECK(!compiled_levels().empty());
  CHECK(compiled_levels().front() == CpuLevel::baseline);
  CHECK(runs_here(CpuLevel::baseline));
}

void an_unknown_name_is_refused_with_the_allowed_ones() {
  const std::string message = message_of<std::runtime_error>([] { choose_level("sse9"); });
  CHECK_FOR(contains(message, "ONNXVIZ_CPU=sse9: no such instruction set; allowed here: baseline"), message);
}

}  // namespace

int main() {
  return onnxviz::test::run([] {
    every_level_that_runs_can_be_chosen();
    baseline_always_runs();
    an_unknown_name_is_refused_with_the_allowed_ones();
  });
}

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <string>
#include <vector>

#include "onnxviz/build_facts.h"
#include "onnxviz/cpu.h"

namespace onnxviz::bindings {

namespace py = pybind11;

void register_build(py::module_& module) {
  module.attr("__version__") = ONNXVIZ_VERSION;

  module.def(
      "build_facts",
      [] {
        py::dict facts;
        facts["version"] = ONNXVIZ_VERSION;
        facts["compiler"] = ONNXVIZ_COMPILER;
        facts["build_type"] = ONNXVIZ_BUILD_TYPE;
        facts["cxx_standard"] = std::to_string(__cplusplus);
        facts["cuda_reason"] = ONNXVIZ_CUDA_REASON;
        facts["cuda_compiler"] = ONNXVIZ_CUDA_COMPILER;
        facts["cuda_architectures"] = ONNXVIZ_CUDA_ARCHITECTURES;
        return facts;
      },
      "How this module was built, as text.");

  module.def(
      "cpu_levels",
      [] {
        std::vector<std::string> names;
        for (const CpuLevel level : compiled_levels()) names.emplace_back(name(level));
        return names;
      },
      "Instruction sets that the kernels were compiled for, lowest first.");

  module.def(
      "cpu_level", [] { return std::string(name(level_in_use())); },
      "The instruction set in use; RuntimeError where ONNXVIZ_CPU names one that cannot be.");

  module.def(
      "cpu_runs",
      [](const std::string& wanted) {
        const std::vector<CpuLevel> levels = compiled_levels();
        return std::any_of(levels.begin(), levels.end(),
                           [&](CpuLevel level) { return wanted == name(level) && runs_here(level); });
      },
      py::arg("level"), "Whether the instruction set is compiled in and runs on this processor.");
}

}  // namespace onnxviz::bindings

// The instruction sets that the kernels were compiled for, and the one in use.
#pragma once

#include <string>
#include <vector>

namespace onnxviz {

enum class CpuLevel { baseline, avx2, avx512 };

const char* name(CpuLevel level);

// Levels in this binary, lowest first.
std::vector<CpuLevel> compiled_levels();

// Whether this processor, and the operating system on it, can run the level.
bool runs_here(CpuLevel level);

// The level named by `wanted` (the text of the environment variable ONNXVIZ_CPU), or the highest one that is
// compiled and runs here when `wanted` is empty. Throws std::runtime_error for an unknown or impossible name.
CpuLevel choose_level(const std::string& wanted);

// choose_level of the environment, decided at the first successful call.
CpuLevel level_in_use();

}  // namespace onnxviz

#include "onnxviz/cpu.h"

#include <cstdlib>
#include <stdexcept>

#include "onnxviz/build_facts.h"

#if defined(_MSC_VER) && (defined(_M_X64) || defined(_M_IX86))
#include <intrin.h>
#endif

namespace onnxviz {
namespace {

constexpr CpuLevel all_levels[] = {CpuLevel::baseline, CpuLevel::avx2, CpuLevel::avx512};

bool is_compiled(CpuLevel level) {
  switch (level) {
    case CpuLevel::baseline:
      return true;
    case CpuLevel::avx2:
      return ONNXVIZ_HAS_AVX2 != 0;
    case CpuLevel::avx512:
      return ONNXVIZ_HAS_AVX512 != 0;
  }
  return false;
}

#if defined(__GNUC__) && (defined(__x86_64__) || defined(__i386__))

bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512vnni");
}

#elif defined(_MSC_VER) && (defined(_M_X64) || defined(_M_IX86))

// Bits as in Intel's manual, volume 2A, CPUID; the state bits of XGETBV say what the operating system saves.
bool has_avx2() {
  int leaf1[4];
  int leaf7[4];
  __cpuid(leaf1, 1);
  __cpuidex(leaf7, 7, 0);
  const bool system_saves_registers = (leaf1[2] >> 27 & 1) != 0 && (_xgetbv(0) & 0x6) == 0x6;
  return system_saves_registers && (leaf1[2] >> 12 & 1) != 0 && (leaf7[1] >> 5 & 1) != 0;
}

bool has_avx512() {
  if (!has_avx2() || (_xgetbv(0) & 0xe6) != 0xe6) return false;
  int leaf7[4];
  __cpuidex(leaf7, 7, 0);
  for (const int bit : {16, 17, 30, 31}) {
    if ((leaf7[1] >> bit & 1) == 0) return false;
  }
  return (leaf7[2] >> 11 & 1) != 0;  // VNNI
}

#else

bool has_avx2() { return false; }
bool has_avx512() { return false; }

#endif

}  // namespace

const char* name(CpuLevel level) {
  switch (level) {
    case CpuLevel::baseline:
      return "baseline";
    case CpuLevel::avx2:
      return "avx2";
    case CpuLevel::avx512:
      return "avx512";
  }
  return "";
}

std::vector<CpuLevel> compiled_levels() {
  std::vector<CpuLevel> levels;
  for (const CpuLevel level : all_levels) {
    if (is_compiled(level)) levels.push_back(level);
  }
  return levels;
}

bool runs_here(CpuLevel level) {
  switch (level) {
    case CpuLevel::baseline:
      return true;
    case CpuLevel::avx2:
      return has_avx2();
    case CpuLevel::avx512:
      return has_avx512();
  }
  return false;
}

CpuLevel choose_level(const std::string& wanted) {
  CpuLevel best = CpuLevel::baseline;
  std::string usable;
  for (const CpuLevel level : all_levels) {
    if (is_compiled(level) && runs_here(level)) {
      best = level;
      usable += (usable.empty() ? "" : ", ") + std::string(name(level));
    }
  }
  if (wanted.empty()) return best;
  for (const CpuLevel level : all_levels) {
    if (wanted != name(level)) continue;
    if (!is_compiled(level)) {
      throw std::runtime_error("ONNXVIZ_CPU=" + wanted + ": this build has no such kernels; allowed here: " + usable);
    }
    if (!runs_here(level)) {
      throw std::runtime_error("ONNXVIZ_CPU=" + wanted + ": this processor cannot run it; allowed here: " + usable);
    }
    return level;
  }
  throw std::runtime_error("ONNXVIZ_CPU=" + wanted + ": no such instruction set; allowed here: " + usable);
}

CpuLevel level_in_use() {
  // A throw leaves the variable uninitialised, so that the error comes again at the next call.
  static const CpuLevel level = [] {
    const char* wanted = std::getenv("ONNXVIZ_CPU");
    return choose_level(wanted == nullptr ? "" : wanted);
  }();
  return level;
}

}  // namespace onnxviz

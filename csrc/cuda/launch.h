// A call of the CUDA runtime, or of a kernel, whose failure is an exception.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <new>
#include <stdexcept>
#include <string>
#include <tuple>

#include "onnxviz/cuda/memory.h"

namespace onnxviz::cuda {

inline cudaStream_t queue(StreamView stream) { return static_cast<cudaStream_t>(stream.handle); }

// Throws std::bad_alloc where the device has no memory left, else std::runtime_error.
inline void check(cudaError_t error, const char* command) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // the next caller is not told of it again
  if (error == cudaErrorMemoryAllocation) throw std::bad_alloc();
  throw std::runtime_error(std::string(command) + ": " + cudaGetErrorString(error));
}

// Makes a device the current one for as long as it lives.
class CurrentDevice {
 public:
  explicit CurrentDevice(int device) {
    check(cudaGetDevice(&before_), "cudaGetDevice");
    check(cudaSetDevice(device), "cudaSetDevice");
  }
  ~CurrentDevice() { cudaSetDevice(before_); }
  CurrentDevice(const CurrentDevice&) = delete;
  CurrentDevice& operator=(const CurrentDevice&) = delete;

 private:
  int before_ = 0;
};

// How many blocks of `size` cover `count`.
template <class Integer>
constexpr unsigned blocks_for(Integer count, int size) {
  return static_cast<unsigned>((static_cast<std::int64_t>(count) + size - 1) / size);
}

struct Grid {
  dim3 blocks;
  dim3 threads;
  std::size_t shared = 0;  // dynamic shared memory, bytes
};

// A kernel has to ask for more of it than this.
constexpr std::size_t shared_for_all = std::size_t{48} << 10;

// Without the three angle brackets, so that a C++ compiler reads it, too. A grid without blocks is no work.
template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), const Grid& grid, cudaStream_t stream, const Arguments&... arguments) {
  if (grid.blocks.x == 0 || grid.blocks.y == 0 || grid.blocks.z == 0) return;
  std::tuple<Parameters...> values{static_cast<Parameters>(arguments)...};
  std::apply(
      [&](auto&... value) {
        void* places[] = {const_cast<void*>(static_cast<const void*>(&value))..., nullptr};
        if (grid.shared > shared_for_all) {
          check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                     static_cast<int>(grid.shared)),
                "cudaFuncSetAttribute");
        }
        check(cudaLaunchKernel(kernel, grid.blocks, grid.threads, places, grid.shared, stream), "kernel launch");
      },
      values);
}

}  // namespace onnxviz::cuda

#include "onnxviz/cuda/device.h"

#include <stdexcept>

#include "launch.h"

namespace onnxviz::cuda {
namespace {

// Proves that code of this build runs on the device: a driver may list one that is too old for every image in here.
__global__ void answer(int* result) { *result = 42; }

std::string try_device(int device) {
  int* result = nullptr;
  int value = 0;
  cudaError_t error = cudaSetDevice(device);
  if (error == cudaSuccess) error = cudaMalloc(&result, sizeof(int));
  if (error == cudaSuccess) {
    void* arguments[] = {&result};
    error = cudaLaunchKernel(answer, dim3(1), dim3(1), arguments);
    if (error == cudaSuccess) error = cudaMemcpy(&value, result, sizeof(int), cudaMemcpyDeviceToHost);
    cudaFree(result);
  }
  // Leaves no error behind for the next caller of the runtime.
  cudaGetLastError();
  if (error != cudaSuccess) return cudaGetErrorString(error);
  return value == 42 ? "" : "a kernel ran and gave a wrong answer";
}

struct Census {
  int count = 0;
  std::string problem;
};

Census take_census() {
  Census census;
  const cudaError_t error = cudaGetDeviceCount(&census.count);
  if (error != cudaSuccess) {
    cudaGetLastError();
    // Where there is no driver at all, the runtime's own words are that its version is insufficient.
    if (driver_version() == 0) return {0, "no CUDA driver is installed"};
    return {0, cudaGetErrorString(error)};
  }
  if (census.count == 0) return {0, "the driver lists no CUDA device"};
  int current = 0;
  cudaGetDevice(&current);
  const std::string problem = try_device(0);
  cudaSetDevice(current);
  if (!problem.empty()) return {0, "device 0 is listed but not usable: " + problem};
  return census;
}

// Asked once: what the driver answers does not change while a process lives.
const Census& census() {
  static const Census taken = take_census();
  return taken;
}

}  // namespace

bool compiled() { return true; }

std::string why_not_compiled() { return ""; }

std::string status() { return census().problem; }

int device_count() { return census().count; }

std::vector<Device> devices() {
  if (device_count() == 0) throw std::runtime_error(status());
  std::vector<Device> list;
  for (int i = 0; i < device_count(); ++i) {
    cudaDeviceProp properties{};
    check(cudaGetDeviceProperties(&properties, i), "cudaGetDeviceProperties");
    list.push_back({properties.name, properties.major, properties.minor, properties.totalGlobalMem,
                    properties.multiProcessorCount});
  }
  return list;
}

int driver_version() {
  int version = 0;
  return cudaDriverGetVersion(&version) == cudaSuccess ? version : 0;
}

int runtime_version() {
  int version = 0;
  return cudaRuntimeGetVersion(&version) == cudaSuccess ? version : 0;
}

}  // namespace onnxviz::cuda

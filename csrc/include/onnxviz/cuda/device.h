// The CUDA devices of this machine. csrc/cuda defines these functions; csrc/no_cuda does where no toolkit was found.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace onnxviz::cuda {

struct Device {
  std::string name;
  int major;  // compute capability
  int minor;
  std::size_t memory;  // bytes
  int multiprocessors;
};

// Whether the CUDA sources are in this binary, and why not ("" where they are).
bool compiled();
std::string why_not_compiled();

// "" where at least one device can be used, else the reason in words. Never throws.
std::string status();

// Number of usable devices, 0 where status() is not "". Never throws.
int device_count();

// Throws std::runtime_error with the reason where there is no usable device.
std::vector<Device> devices();

// Versions as CUDA counts them, 13000 for 13.0; 0 where there is none. Never throw.
int driver_version();
int runtime_version();

}  // namespace onnxviz::cuda

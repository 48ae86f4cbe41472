#include "onnxviz/cuda/device.h"

#include <stdexcept>

#include "onnxviz/build_facts.h"

namespace onnxviz::cuda {

bool compiled() { return false; }

std::string why_not_compiled() { return ONNXVIZ_CUDA_REASON; }

std::string status() { return "onnxviz was built without CUDA: " + why_not_compiled(); }

int device_count() { return 0; }

std::vector<Device> devices() { throw std::runtime_error(status()); }

int driver_version() { return 0; }

int runtime_version() { return 0; }

}  // namespace onnxviz::cuda
